"""Gradients of single examples: clip each, add them up, add noise.

Leaves have one axis more than the parameters, the first: the examples, as `jax.vmap(jax.grad(loss), (None, 0))` gives them.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradxform import tree as trees
from gradxform.clipping import _shrink
from gradxform.core import chain, transformation
from gradxform.define import pytree
from gradxform.directions import momentum as heavy_ball
from gradxform.hyper import LearningRate, Momentum, NonNegative, at_step, scalar
from gradxform.leafwise import RuleState
from gradxform.numerics import abs_sq, wide_dtype
from gradxform.regularise import Key, _key_data
from gradxform.stepsize import scale_by_learning_rate
from gradxform.transform import Transform
from gradxform.whole import whole


def _examples(owner: str, grads) -> int:
    leaves = jax.tree.leaves(grads)
    sizes = {x.shape[:1] for x in leaves}
    if len(sizes) > 1 or () in sizes:
        shapes = {path: x.shape for path, x in zip(trees.paths(grads), leaves, strict=True)}
        raise ValueError(f"{owner}: the first axis of every leaf must be that of the examples; got the shapes {shapes}")
    return sizes.pop()[0] if sizes else 0


def _squares(x):
    return jnp.sum(abs_sq(x.astype(wide_dtype(x.dtype))), axis=tuple(range(1, x.ndim)))


def _clipped_sum(x, factor):
    dtype = wide_dtype(x.dtype)
    return jnp.tensordot(factor.astype(dtype), x.astype(dtype), axes=1)


def per_example_global_norm_clip(grads, l2_norm_clip):
    """Clip each example's gradient to a norm of at most c over all leaves, and add them up.

        Σᵢ gᵢ min(1, c / ‖gᵢ‖), and how many examples were clipped

    Raises:
        ValueError: the leaves do not share their first axis.

    Source: M. Abadi et al., Deep Learning with Differential Privacy (2016), algorithm 1.
    """
    n = _examples("per_example_global_norm_clip", grads)
    square = sum((_squares(x) for x in jax.tree.leaves(grads)), jnp.zeros(n))
    factor = _shrink(square, l2_norm_clip)
    clipped = trees.tree_map(lambda x: _clipped_sum(x, factor).astype(x.dtype), grads)
    return clipped, jnp.sum(factor < 1)


def per_example_layer_norm_clip(grads, global_l2_norm_clip, uniform: bool = True):
    """Clip each example's gradient leaf by leaf, so that the whole is no longer than C, and add them up.

    Of K leaves, leaf k is clipped to C / √K (`uniform`), or to C √(nₖ / n), n its number of parameters. Gives the sums and,
    for each leaf, how many examples were clipped.

    Raises:
        ValueError: the leaves do not share their first axis.

    Source: H. B. McMahan et al., Learning Differentially Private Recurrent Language Models (2018), section 2.
    """
    _examples("per_example_layer_norm_clip", grads)
    leaves, structure = jax.tree.flatten(grads)
    sizes = [1 if uniform else x[0].size for x in leaves]
    shares = [(size / sum(sizes)) ** 0.5 for size in sizes]
    results = [
        per_example_global_norm_clip(x, global_l2_norm_clip * share) for x, share in zip(leaves, shares, strict=True)
    ]
    return structure.unflatten([s for s, _ in results]), structure.unflatten([n for _, n in results])


@pytree(static=("name",))
class Aggregate(Transform):
    """Built by `differentially_private_aggregate`."""

    per_example: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]
    l2_norm_clip: Any
    noise_multiplier: Any
    key: Any
    name: str = "differentially_private_aggregate"

    def init(self, params):
        return RuleState(jnp.zeros((), jnp.int32), {"key": _key_data(params, key=self.key)})

    def update(self, updates, state, params=None, **extra):
        bound = scalar(self.name, "l2_norm_clip", at_step(self.l2_norm_clip, state.step))
        noise = scalar(self.name, "noise_multiplier", at_step(self.noise_multiplier, state.step))
        n = _examples(self.name, updates)
        clipped, _ = per_example_global_norm_clip(updates, bound)
        leaves, structure = jax.tree.flatten(clipped)
        following, *keys = jax.random.split(jax.random.wrap_key_data(state.slots["key"]), len(leaves) + 1)
        out = []
        for x, key in zip(leaves, keys, strict=True):
            dtype = wide_dtype(x.dtype)
            spread = jnp.asarray(bound, dtype) * jnp.asarray(noise, dtype)
            out.append(((x.astype(dtype) + spread * jax.random.normal(key, x.shape, dtype)) / n).astype(x.dtype))
        step = state.step + jnp.ones((), jnp.int32)
        return structure.unflatten(out), RuleState(step, {"key": jax.random.key_data(following)})


@whole
def differentially_private_aggregate(l2_norm_clip: NonNegative, noise_multiplier: NonNegative, key: Key):
    """The mean of clipped gradients of single examples, with Gaussian noise.

        u = (Σᵢ gᵢ min(1, c / ‖gᵢ‖) + σ c 𝒩(0, 1)) / n

    c = `l2_norm_clip`, σ = `noise_multiplier`. It comes first, and is given gradients with an axis of n examples in front.

    Memory: the key, 8 bytes.

    Raises:
        ValueError: the leaves do not share their first axis.

    Source: M. Abadi et al., Deep Learning with Differential Privacy (2016), algorithm 1.

    Not: for `accumulate`, which would average noised means; nor an accountant of the privacy that is spent.
    """
    return Aggregate(l2_norm_clip, noise_multiplier, key)


@transformation
def dpsgd(
    learning_rate: LearningRate,
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: Key,
    momentum: Momentum | None = None,
    nesterov: bool = False,
):
    """Stochastic gradient descent with differential privacy: each example's gradient clipped, their mean noised.

        u = (Σᵢ gᵢ min(1, c / ‖gᵢ‖) + σ c 𝒩(0, 1)) / n
        p ← p - α u                                 or with momentum, as in `sgd`

    It is given gradients with an axis of n examples in front.

    Memory: 8 bytes; with momentum 4 more per parameter.

    Source: M. Abadi et al., Deep Learning with Differential Privacy (2016), algorithm 1.
    """
    return chain(
        differentially_private_aggregate(l2_norm_clip, noise_multiplier, key),
        None if momentum is None else heavy_ball(momentum, nesterov=nesterov),
        scale_by_learning_rate(learning_rate),
    )
