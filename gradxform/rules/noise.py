"""Gradients of single examples: clip each, add them up, add noise.

Leaves have one axis more than the parameters, the first: the examples, as `jax.vmap(jax.grad(loss),
(None, 0))` gives them.
"""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradxform.core import Hyper, PerLeaf, RuleState, Transform, leafwise, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.chain import whole
from gradxform.core.hyper import NonNegative, Real, at_step, scalar
from gradxform.display.code import code
from gradxform.numerics import abs_sq, increment, is_key, wide_dtype
from gradxform.rules.clipping import _shrink
from gradxform.rules.measures import wide

__all__ = ["add_noise", "differentially_private_aggregate"]


def _examples(owner: str, grads) -> int:
    leaves = jax.tree.leaves(grads)
    sizes = {x.shape[:1] for x in leaves}
    if len(sizes) > 1 or () in sizes:
        shapes = {path: x.shape for path, x in zip(trees.paths(grads), leaves, strict=True)}
        words = "the first axis of every leaf must be that of the examples"
        raise ValueError(f"{owner}: {words}; got the shapes {shapes}")
    return sizes.pop()[0] if sizes else 0


def _squares(x):
    return jnp.sum(abs_sq(wide(x)), axis=tuple(range(1, x.ndim)))


def _clipped_sum(x, factor):
    x = wide(x)
    return jnp.tensordot(factor.astype(x.dtype), x, axes=1)


def per_example_global_norm_clip(grads, l2_norm_clip):
    """Clip each example's gradient to a norm of at most c over all leaves, and add them up.

        Σᵢ gᵢ min(1, c / ‖gᵢ‖), and how many examples were clipped

    Raises:
        ValueError: the leaves do not share their first axis.

    Source: M. Abadi et al., Deep Learning with Differential Privacy (2016), algorithm 1.
    """
    n = _examples("per_example_global_norm_clip", grads)
    square = jnp.zeros(n, jnp.float32)
    for part in map(_squares, jax.tree.leaves(grads)):
        dtype = wide_dtype(square.dtype, part.dtype)
        square = square.astype(dtype) + part.astype(dtype)
    factor = _shrink(square, l2_norm_clip)
    clipped = trees.tree_map(lambda x: _clipped_sum(x, factor).astype(x.dtype), grads)
    return clipped, jnp.sum(factor < 1)


def per_example_layer_norm_clip(grads, global_l2_norm_clip, uniform: bool = True):
    """Clip each example's gradient leaf by leaf, so that the whole is no longer than C, and add
    them up.

    Of K leaves, leaf k is clipped to C / √K (`uniform`), or to C √(nₖ / n), n its number of
    parameters. Gives the sums and, for each leaf, how many examples were clipped.

    Raises:
        ValueError: the leaves do not share their first axis.

    Source: H. B. McMahan et al., Learning Differentially Private Recurrent Language Models (2018),
    section 2.
    """
    _examples("per_example_layer_norm_clip", grads)
    leaves, structure = jax.tree.flatten(grads)
    sizes = [1 if uniform else x[0].size for x in leaves]
    shares = [(size / sum(sizes)) ** 0.5 for size in sizes]
    bounds = [global_l2_norm_clip * share for share in shares]
    results = map(per_example_global_norm_clip, leaves, bounds)
    sums, counts = zip(*results, strict=True) if leaves else ((), ())
    return structure.unflatten(sums), structure.unflatten(counts)


@pytree(static=("name",))
class Aggregate(Transform):
    """Built by `differentially_private_aggregate`."""

    per_example: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]
    l2_norm_clip: Hyper
    noise_multiplier: Hyper
    key: Hyper
    name: str = "differentially_private_aggregate"

    def init(self, params):
        return RuleState(jnp.zeros((), jnp.int32), {"key": _key_data(params, key=self.key)})

    def update(self, updates, state, params=None, **extra):
        bound = scalar(self.name, "l2_norm_clip", at_step(self.l2_norm_clip, state.step))
        noise = scalar(self.name, "noise_multiplier", at_step(self.noise_multiplier, state.step))
        n = _examples(self.name, updates)
        clipped, _ = per_example_global_norm_clip(updates, bound)
        leaves, structure = jax.tree.flatten(clipped)
        key = jax.random.wrap_key_data(state.slots["key"])
        following, *keys = jax.random.split(key, len(leaves) + 1)
        out = []
        for x, key in zip(leaves, keys, strict=True):
            dtype = wide_dtype(x.dtype)
            spread = jnp.asarray(bound, dtype) * jnp.asarray(noise, dtype)
            noised = x.astype(dtype) + spread * jax.random.normal(key, x.shape, dtype)
            out.append((noised / n).astype(x.dtype))
        memory = {"key": jax.random.key_data(following)}
        return structure.unflatten(out), RuleState(increment(state.step), memory)


class _Key:
    """A random key: an integer, a key, or the raw data of one."""

    text = "an integer, a key of jax.random, or the raw data of one"

    def __repr__(self):
        return "key"

    def convert(self, owner: str, name: str, x):
        dtype = getattr(x, "dtype", None)
        kinds = jax.dtypes.prng_key, jnp.integer
        typed = dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in kinds)
        raw = dtype == jnp.uint32 and x.ndim == 1
        known = isinstance(x, int | Tracer) or (typed and (raw or x.ndim == 0))
        if isinstance(x, bool) or not known:
            raise TypeError(f"{owner}: {name} must be a random key or an integer; got {code(x)}")
        return jax.random.wrap_key_data(jnp.asarray(x)) if raw else x


Key = Annotated[Hyper, _Key()]


@whole
def differentially_private_aggregate(
    l2_norm_clip: NonNegative, noise_multiplier: NonNegative, key: Key
):
    """The mean of clipped gradients of single examples, with Gaussian noise.

        u = (Σᵢ gᵢ min(1, c / ‖gᵢ‖) + σ c 𝒩(0, 1)) / n

    c = `l2_norm_clip`, σ = `noise_multiplier`. It comes first, and is given gradients with an axis
    of n examples in front.

    Memory: the key, 8 bytes.

    Raises:
        ValueError: the leaves do not share their first axis.

    Source: M. Abadi et al., Deep Learning with Differential Privacy (2016), algorithm 1.

    Not: for `accumulate`, which would average noised means; nor an accountant of the privacy that
    is spent.
    """
    return Aggregate(l2_norm_clip, noise_multiplier, key)


def _add_noise(u, at, *, eta, gamma):
    """u ← u + 𝒩(0, η / t^γ)"""
    noise = jax.random.normal(at.scalars, u.shape, u.dtype)
    return u + jnp.sqrt(eta / at.t.astype(jnp.real(u).dtype) ** gamma) * noise


def _split_key(updates, at, key):
    following, sample = jax.random.split(jax.random.wrap_key_data(key))
    keys = jax.random.split(sample, len(updates))
    return PerLeaf(list(keys)), jax.random.key_data(following)


def _key_data(params, *, key):
    key = jnp.asarray(key)
    return jnp.array(jax.random.key_data(key if is_key(key) else jax.random.key(key)))


@transformation
def add_noise(eta: NonNegative, gamma: Real, key: Key):
    """Add Gaussian noise whose variance falls with time: u ← u + 𝒩(0, η / tᵞ).

    Args:
        eta: η, the variance at the first step, in squared units of the update.
        gamma: γ, the power of its decay; the paper uses 0.55.
        key: an integer or a `jax.random` key; its data lives in the state.

    Memory: the key, 8 bytes.

    Source: A. Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks
    (2015), equation 1.
    """
    how = {"measure": _split_key, "memory": {"key": _key_data}}
    return leafwise(_add_noise, **how, eta=eta, gamma=gamma, key=key)
