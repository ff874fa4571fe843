"""Steps that are better not made: gradients that are infinite or NaN, or far larger than they have
been.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Decay, Inner, Patience, Positive, Transform, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.states import answers
from gradxform.numerics import bias_correction, increment, lerp, safe_sqrt
from gradxform.wrappers.wrapper import Wrapper, counter, pick, zeros_like

__all__ = ["skip_nonfinite", "skip_spikes"]


def _leaf_finite(key, x):
    return jnp.all(jnp.isfinite(x))


def _leaf_not_finite(key, x):
    return jnp.sum(~jnp.isfinite(x), dtype=int)


def all_finite(tree):
    """Whether every entry of every leaf is finite: a boolean scalar."""
    rows = [(x,) for x in jax.tree.leaves(tree)]
    flags = trees.map_leaves(_leaf_finite, [None] * len(rows), rows)
    return jnp.all(jnp.stack(flags)) if flags else jnp.array(True)


def skip_not_finite(updates, gradient_step, params):
    """For `accumulate`: drop a micro-batch whose gradient has an infinite or NaN entry.

    Returns:
        Whether to, and a dict of that and how many entries there are, as in Optax.
    """
    rows = [(x,) for x in jax.tree.leaves(updates)]
    counts = trees.map_leaves(_leaf_not_finite, [None] * len(rows), rows)
    count = sum(counts, jnp.zeros((), int))
    return count > 0, {"should_skip": count > 0, "num_not_finite": count}


def skip_large_updates(updates, gradient_step, params, max_squared_norm):
    """For `accumulate`: drop a micro-batch whose squared norm is not below a bound (NaN is not).

    Returns:
        Whether to, and a dict of that and the squared norm, as in Optax.
    """
    square = trees.sum_of_squares(jax.tree.leaves(updates))
    large = ~(square < max_squared_norm)
    return large, {"should_skip": large, "norm_squared": square}


_COUNTS = {"notfinite_count": "consecutive", "total_notfinite": "skipped", "inner_state": "inner"}


@answers(**_COUNTS, last_finite=lambda state: state.consecutive == 0)
class SkipState(NamedTuple):
    """State of `skip_nonfinite`: steps skipped in a row, and in all."""

    consecutive: jax.Array
    skipped: jax.Array
    inner: trees.Tree


@answers(**_COUNTS)
class SpikeState(NamedTuple):
    """State of `skip_spikes`: steps skipped in a row and in all, and the running mean and variance
    of accepted norms.
    """

    consecutive: jax.Array
    skipped: jax.Array
    seen: jax.Array
    mean: jax.Array
    variance: jax.Array
    inner: trees.Tree


class _Skip(Wrapper):
    max_consecutive: Patience | None

    def guarded(self, bad, state, updates, params, gradient, extra):
        """The inner step unless `bad`; then zero updates and the old inner state. Gives also the
        two counts.
        """
        consecutive = jnp.where(bad, increment(state.consecutive), 0)
        skip = bad
        if self.max_consecutive is not None:
            most = self.number("max_consecutive", state.skipped)
            skip = bad & (consecutive.astype(jnp.float32) <= most)
        clean = pick(skip, zeros_like((updates, gradient)), (updates, gradient))
        out, inner = self.run(clean[0], state.inner, params, clean[1], extra)
        out, inner = pick(skip, (zeros_like(out), state.inner), (out, inner))
        skipped = jnp.where(skip, increment(state.skipped), state.skipped)
        return skip, out, inner, (consecutive, skipped)


@pytree()
class SkipNonfinite(_Skip):
    """Built by `skip_nonfinite`."""

    State: ClassVar[type] = SkipState
    inner: Transform
    max_consecutive: Patience | None

    def init(self, params):
        return SkipState(counter(), counter(), self.inner.init(params))

    def step(self, updates, state, params, gradient, extra):
        given = ~all_finite(updates), state, updates, params, gradient, extra
        _, out, inner, counts = self.guarded(*given)
        return out, SkipState(*counts, inner)


@transformation
def skip_nonfinite(inner: Inner, max_consecutive: Patience | None = None):
    """Skip a step whose gradient has an infinite or NaN entry: zero update, the inner state as it
    was.

    The choice is made by `where` and not by `cond`: skipped steps are rare, so nothing is lost by
    computing them, the step takes 0.7 of the time, and under vmap, where each member skips for
    itself, it is the same program.

    Args:
        inner: the optimizer.
        max_consecutive: after so many skipped steps in a row let the gradient through, so that the
            fault shows; None never does.

    Memory: two scalars, `consecutive` and `skipped` (in all), beside the inner state.

    Source: P. Micikevicius et al., Mixed Precision Training (2018), section 3.2, without the loss
    scale.
    """
    return SkipNonfinite(inner, max_consecutive)


@transformation
def apply_if_finite(inner: Inner, max_consecutive_errors: Patience):
    """Optax's name for `skip_nonfinite`.

    Memory: two scalars.

    Source: P. Micikevicius et al., Mixed Precision Training (2018), section 3.2.
    """
    return skip_nonfinite(inner, max_consecutive_errors)


@pytree(static=("by",))
class SkipSpikes(_Skip):
    """Built by `skip_spikes`."""

    State: ClassVar[type] = SpikeState
    inner: Transform
    threshold: Positive
    decay: Decay
    warmup: Patience
    max_consecutive: Patience | None
    by: str

    def init(self, params):
        mean, variance = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
        inner = self.inner.init(params)
        return SpikeState(counter(), counter(), counter(), mean, variance, inner)

    def step(self, updates, state, params, gradient, extra):
        threshold, decay, warmup = self.numbers(state.seen, "threshold", "decay", "warmup")
        norm = safe_sqrt(trees.sum_of_squares(jax.tree.leaves(updates))).astype(jnp.float32)
        correction = bias_correction(decay, jnp.maximum(state.seen, 1), jnp.float32)
        mean = state.mean / correction
        spread = safe_sqrt(state.variance / correction)
        bound = threshold * mean if self.by == "factor" else mean + threshold * spread
        bad = ~jnp.isfinite(norm) | ((norm > bound) & (state.seen.astype(jnp.float32) >= warmup))
        skip, out, inner, counts = self.guarded(bad, state, updates, params, gradient, extra)
        learn = ~skip & jnp.isfinite(norm)
        deviation = jnp.where(learn & (state.seen > 0), norm - mean, 0)
        mean = lerp(jnp.where(learn, norm, 0), state.mean, decay)
        variance = lerp(deviation**2, state.variance, decay)
        mean, variance = pick(learn, (mean, variance), (state.mean, state.variance))
        seen = jnp.where(learn, increment(state.seen), state.seen)
        return out, SpikeState(*counts, seen, mean, variance, inner)


@transformation
def skip_spikes(
    inner: Inner, threshold: Positive = 5.0, decay: Decay = 0.97, warmup: Patience = 20,
    max_consecutive: Patience | None = 10, *, by: Literal["factor", "zscore"] = "factor",
):  # fmt: skip
    """Skip a step whose gradient norm is far above what it has been: zero update, the inner state
    as it was.

        spike  ⇔  n > τ m̂                     by="factor", n the norm over all leaves
        spike  ⇔  n > m̂ + τ √v̂                by="zscore"
        v ← β v + (1 - β) (n - m̂)²            over the accepted steps alone
        m ← β m + (1 - β) n

    m̂ and v̂ are divided by 1 - βˢ, s the steps accepted so far; during the first `warmup` of them
    only an infinite or NaN norm is a spike. After `max_consecutive` skipped steps in a row the next
    is accepted, so that a lasting change is learned.

    Memory: five scalars, `consecutive` and `skipped` (in all) among them, beside the inner state.

    Raises:
        ValueError: `by` is neither "factor" nor "zscore".

    Source: A. Kumar et al., ZClip (2025), section 3, which shortens the gradient where this skips
    it.
    """
    return SkipSpikes(inner, threshold, decay, warmup, max_consecutive, by)
