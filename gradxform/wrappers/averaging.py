"""And after: parameters to evaluate that are not those to train, averages of them over time.

Each wraps an optimizer, keeps what it needs in slots like the parameters, and is itself one rule at
the end of the chain: the inner update u is final there, so that p + u are the new parameters.
`eval_params(state, params)` gives the parameters to evaluate, whichever of these is in the state.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Inner, RuleState, chain, copied, dtype_name, leafwise, transformation
from gradxform.core import leaves as trees
from gradxform.core.hyper import Count, Decay, Fraction, Patience
from gradxform.numerics import bias_correction, increment, lerp, wide_dtype
from gradxform.wrappers.conditional import restart
from gradxform.wrappers.wrapper import is_multiple

__all__ = ["eval_params", "lawa", "lookahead", "params_ema", "swa"]


class _copies(NamedTuple):
    count: int
    dtype: str | None = None

    def __call__(self, p):
        return jnp.zeros_like(p, self.dtype or wide_dtype(p.dtype), (self.count, *p.shape))


def _ema(u, at, average_params, *, decay):
    """a ← β a + (1 - β) (p + u)"""
    return u, lerp(at.p + u, average_params, decay)


def _ema_debiased(u, at, average_params, *, decay):
    """a ← a + (1 - β) / (1 - βᵗ) (p + u - a)"""
    share = (1 - decay) / bias_correction(decay, at.t, jnp.real(u).dtype)
    return u, lerp(at.p + u, average_params, 1 - share)


@transformation
def params_ema(inner: Inner, decay: Decay = 0.999, debias: bool = True, *, accumulator_dtype=None):
    """Keep an exponentially weighted average of the parameters, to evaluate.

        p ← p + u                           as the inner optimizer has it
        a ← β a + (1 - β) p                 debias=False: a starts at the first parameters
        a ← a + (p - a) (1 - β) / (1 - βᵗ)  debias=True: the average from zero divided by 1 - βᵗ

    Training is unchanged; `eval_params(state, params)` gives a.

    Memory: one slot `average_params`, 4 bytes per parameter (`accumulator_dtype` to change).

    Raises:
        ValueError: decay outside [0, 1]; update() without params.

    Source: B. T. Polyak, A. B. Juditsky (1992), with exponential weights; the correction as in D.
    P. Kingma, J. Ba (2015), section 3.

    Not: `ema`, an average of the gradients.
    """
    slots = {"average_params": copied(dtype_name(accumulator_dtype))}
    rule = _ema_debiased if debias else _ema
    return chain(inner, leafwise(rule, slots=slots, name="params_ema", decay=decay))


def _swa(u, at, average_params, *, start, period):
    """n = max(⌊(t - t₀) / k⌋, 0) + 1
    a ← a + (p + u - a) / n      where t < t₀, and at t₀, t₀ + k, t₀ + 2 k, …
    """
    start, period = (jnp.asarray(x).astype(at.t.dtype) for x in (start, period))
    since = at.t - start
    count = (jnp.maximum(since // period, 0) + 1).astype(jnp.real(u).dtype)
    due = (since < 0) | is_multiple(since, period)
    return u, jnp.where(due, average_params + (at.p + u - average_params) / count, average_params)


@transformation
def swa(inner: Inner, start: Patience = 0, period: Count = 1, *, accumulator_dtype=None):
    """Keep the plain mean of the parameters after the updates start, start + period, start + 2
    period, …, to evaluate.

        p ← p + u                   as the inner optimizer has it
        a ← a + (p - a) / n         at the n-th of these updates; before `start`, a = p

    Training is unchanged; `eval_params(state, params)` gives a. With `start=0` the first parameters
    count as well.

    Memory: one slot `average_params`, 4 bytes per parameter.

    Source: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization
    (2018), algorithm 1.
    """
    slots = {"average_params": copied(dtype_name(accumulator_dtype))}
    return chain(inner, leafwise(_swa, slots=slots, name="swa", start=start, period=period))


def _lawa(u, at, last_params, saved, *, period):
    """P(n) ← p + u      at every k-th step, n modulo the window
    n ← n + 1      at every k-th step
    """
    due = is_multiple(at.t, period)
    place = jnp.mod(saved, last_params.shape[0])
    value = jnp.where(due, (at.p + u).astype(last_params.dtype), last_params[place])
    return (
        u,
        last_params.at[place].set(value),
        jnp.where(due, increment(saved, last_params.shape[0]), saved),
    )


def _no_steps(p):
    return jnp.zeros((), jnp.int32)


@transformation
def lawa(inner: Inner, window: int = 5, period: Count = 1, *, accumulator_dtype=None):
    """Keep the parameters after every `period`-th update, the last `window` of them; their mean is
    to evaluate.

        a = (1/k) (p₁ + ⋯ + p_k)    the last k = `window` kept, or fewer while there are fewer

    Training is unchanged; `eval_params(state, params)` gives a.

    Memory: `last_params`, 4 bytes per parameter times `window`, and a counter per leaf.

    Raises:
        ValueError: window below 1.

    Source: J. Kaddour, Stop Wasting My Time! (2022), latest weight averaging.
    """
    if window < 1:
        raise ValueError(f"lawa: window must be at least 1; got {window}")
    slots = {"last_params": _copies(window, dtype_name(accumulator_dtype)), "saved": _no_steps}
    return chain(inner, leafwise(_lawa, slots=slots, name="lawa", period=period))


def _lookahead(u, at, slow_params, *, sync_period, slow_step_size):
    """p ← p + u
    s ← s + α (p - s)      at every k-th step
    p ← s      at every k-th step
    """
    fast = at.p + u
    sync = is_multiple(at.t, sync_period)
    slow = jnp.where(sync, slow_params + slow_step_size * (fast - slow_params), slow_params)
    return jnp.where(sync, slow - at.p, u), slow


@transformation
def lookahead(
    fast_optimizer: Inner, sync_period: Count, slow_step_size: Fraction, reset_state: bool = False
):
    """k steps forward, one step back: slow parameters follow the fast ones, which begin again from
    there.

        p ← p + u                      a fast step
        s ← s + α (p - s),  p ← s      at every k-th step

    Parameters are plain ones, the fast; the slow live in the state, and `eval_params(state,
    params)` gives them.

    Args:
        fast_optimizer: the optimizer that makes the fast steps.
        sync_period: k.
        slow_step_size: α.
        reset_state: begin with a fresh state of the fast optimizer after each synchronisation.

    Memory: one slot `slow_params`, 4 bytes per parameter.

    Source: M. Zhang et al., Lookahead Optimizer: k steps forward, 1 step back (2019), algorithm 1.
    """
    fast = restart(fast_optimizer, sync_period) if reset_state else fast_optimizer
    slots = {"slow_params": copied()}
    numbers = {"sync_period": sync_period, "slow_step_size": slow_step_size}
    return chain(fast, leafwise(_lookahead, slots=slots, name="lookahead", **numbers))


def _averages(state) -> Iterator[tuple[int, list, Callable]]:
    """Every averaging in a state: how deep it lies, the slots it reads, and what it makes of a
    parameter and these.
    """
    for path, rule in jax.tree_util.tree_leaves_with_path(state, is_leaf=_is_rule):
        for names, evaluate in _EVALUATE.items():
            if _is_rule(rule) and all(name in rule.slots for name in names):
                yield len(path), [rule.slots[name] for name in names], evaluate


def _is_rule(node) -> bool:
    return isinstance(node, RuleState)


def _stored(p, average):
    return average


def _mean_of_saved(p, last_params, saved):
    count = jnp.clip(saved, 1, last_params.shape[0]).astype(jnp.real(last_params).dtype)
    return jnp.where(saved > 0, jnp.sum(last_params, 0) / count, p.astype(last_params.dtype))


def _without_base(p, z, b1):
    b1 = b1.astype(jnp.real(z).dtype)
    return (p.astype(z.dtype) - (1 - b1) * z) / b1


# the slots by which an averaging is known -> what it makes of a parameter and these
_EVALUATE: dict[tuple[str, ...], Callable] = {
    ("average_params",): _stored,
    ("slow_params",): _stored,
    ("last_params", "saved"): _mean_of_saved,
    ("z", "b1"): _without_base,
}


def eval_params(state, params):
    """The parameters to evaluate: the average that the state keeps, or the parameters themselves
    where it keeps none.

    Works for any state, however the wrappers are nested. Of several averages of one leaf the
    outermost counts, the one that was last in the chain. Leaves that are frozen, or in a group that
    keeps none, are given back as they are.

    >>> tx, params = gx.params_ema(gx.sgd(1.0), 0.5, debias=False), jnp.array(1.0)
    >>> updates, state = tx.update(jnp.array(1.0), tx.init(params), params)
    >>> params = gx.apply_updates(params, updates)
    >>> float(params), float(gx.eval_params(state, params))
    (0.0, 0.5)

    Returns:
        A tree like params, in the parameters' dtypes.
    """
    leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
    out, paths = [*leaves], trees.paths(params)
    for _, slots, evaluate in sorted(_averages(state), key=lambda found: -found[0]):
        columns = [_column(slot, paths) for slot in slots]
        for i, (p, first, *rest) in enumerate(zip(leaves, *columns, strict=True)):
            if p is not None and first is not None:
                out[i] = evaluate(p, first, *rest).astype(p.dtype)
    return structure.unflatten(out)


def _column(slot, paths: list[str]) -> list:
    """The slot's leaf for each parameter by path, since a framework may have wrapped either; one
    number serves them all.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(slot, is_leaf=trees.is_none)
    found = {trees.path_string(path): leaf for path, leaf in flat}
    if found.keys() == {""}:
        return [found[""]] * len(paths)
    missing = [path for path in paths if path not in found]
    if missing:
        what = f"eval_params: the average in the state has no leaf for {missing[:8]}"
        raise ValueError(f"{what}; it has {list(found)[:8]}")
    return [found[path] for path in paths]
