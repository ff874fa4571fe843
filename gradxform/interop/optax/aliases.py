"""The smaller public names of Optax: types, counters and norms, target networks, and names for what
exists here under another one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from gradxform.core import Schedule, Transform, inject_hyperparams
from gradxform.core.chain import Chain, Foreign, as_transform, chain, stateless_with_tree_map
from gradxform.display.code import code
from gradxform.interop.export import to_optax
from gradxform.interop.optax import tree_math
from gradxform.interop.optax.classes import EmptyState
from gradxform.interop.optax.tree_utils import tree_map_params
from gradxform.numerics import abs_sq, increment
from gradxform.rules.clipping import unitwise_norm
from gradxform.rules.directions import trace
from gradxform.rules.distance import scale_by_distance_over_gradients
from gradxform.rules.noise import per_example_global_norm_clip, per_example_layer_norm_clip
from gradxform.rules.normalize import normalize_by_update_norm
from gradxform.wrappers.accumulation import MultiSteps
from gradxform.wrappers.averaging import eval_params
from gradxform.wrappers.conditional import apply_every
from gradxform.wrappers.masking import multi_transform, selective_transform
from gradxform.wrappers.skipping import apply_if_finite, skip_large_updates, skip_not_finite

__all__ = ["ConditionFn", "EmptyState", "GradientTransformation", "GradientTransformationExtraArgs"]
__all__ += ["MaskOrFn", "MultiSteps", "OptState", "Params", "ScalarOrSchedule"]
__all__ += ["ShouldSkipUpdateFunction", "TransformInitFn", "TransformUpdateExtraArgsFn"]
__all__ += ["TransformUpdateFn", "Updates", "apply_every", "apply_if_finite", "bias_correction"]
__all__ += ["incremental_update", "init_empty_state", "inject_hyperparams", "multi_transform"]
__all__ += ["named_chain", "normalize", "per_example_global_norm_clip"]
__all__ += ["per_example_layer_norm_clip", "periodic_update", "safe_increment"]
__all__ += ["safe_int32_increment", "safe_norm", "safe_root_mean_squares"]
__all__ += ["scale_by_distance_over_gradients", "scale_gradient", "schedule_free_eval_params"]
__all__ += ["selective_transform", "skip_large_updates", "skip_not_finite"]
__all__ += [
    "stateless_with_tree_map",
    "to_optax",
    "trace",
    "tree_map_params",
    "unitwise_clip",
    "unitwise_norm",
]
__all__ += ["update_infinity_moment", "update_moment", "update_moment_per_elem_norm"]
__all__ += ["with_extra_args_support"]


Params = Any


OptState = Any


ScalarOrSchedule = float | jax.Array | Schedule | Callable


Updates = MaskOrFn = Any


TransformInitFn = Callable[[Params], OptState]


TransformUpdateFn = TransformUpdateExtraArgsFn = Callable[..., tuple[Updates, OptState]]


ShouldSkipUpdateFunction = ConditionFn = Callable


def init_empty_state(params: Params) -> EmptyState:
    """An `init` for a transformation that remembers nothing."""
    del params
    return EmptyState()


class _AnyTransform(type):
    def __instancecheck__(cls, instance):
        if isinstance(instance, Transform):
            return True
        pair = getattr(instance, "_fields", None) == ("init", "update")
        names = {base.__name__ for base in type(instance).__mro__}
        return pair and (cls.__name__ == "GradientTransformation" or cls.__name__ in names)


class GradientTransformation(Transform, metaclass=_AnyTransform):
    """A transformation from a pair of functions, `GradientTransformation(init, update)`; every
    transformation is an instance, and every one of Optax.

    Not: the way to write a new method, which is `leafwise`: its numbers are leaves, those of a pair
    stay closed over.
    """

    def __new__(cls, init, update):
        """The pair as a transformation."""
        return Foreign(init, update)


class GradientTransformationExtraArgs(GradientTransformation):
    """The same: all take extra arguments here. Of Optax's, those that do are instances."""


def with_extra_args_support(tx) -> Transform:
    """The transformation itself: all of them take extra arguments. An `(init, update)` pair becomes
    one.
    """
    return as_transform(tx)


def named_chain(*args) -> Chain:
    """`chain` of `(name, transformation)` pairs: `state[name]` is the state of each. As there, a
    direction decides what later parts measure; `on_updates` gives Optax's meaning.

    Raises:
        TypeError: an argument that is no such pair.
        ValueError: a name that occurs twice.
    """
    for pair in args:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            what = "every argument must be a (name, transformation) pair"
            raise TypeError(f"named_chain: {what}; got {code(pair)}")
    return chain(*args)


def normalize() -> Transform:
    """Optax's name for `normalize_by_update_norm` without its ε: u ← u / ‖u‖; a zero gradient stays
    zero.
    """
    return normalize_by_update_norm(eps=0.0)


def schedule_free_eval_params(state: OptState, params: Params):
    """Optax's name for `eval_params`, which knows every average and not only that of
    `schedule_free`.
    """
    return eval_params(state, params)


def incremental_update(new_tensors: Params, old_tensors: Params, step_size):
    """p̄ ← α p + (1 - α) p̄, α = `step_size`: one step of a target network, or of an average of
    parameters.

    A leaf keeps the dtype of the average. `params_ema` does the same inside an optimizer, with bias
    correction.
    """
    kept = tree_math.tree_scale(1.0 - step_size, old_tensors)
    moved = tree_math.tree_add_scale(kept, step_size, new_tensors)
    return tree_math.tree_cast_like(moved, old_tensors)


def periodic_update(new_tensors: Params, old_tensors: Params, steps, update_period):
    """p̄ ← p at every k-th step, k = `update_period`: a target network, copied now and then."""
    due, tensors = jnp.mod(steps, update_period) == 0, (new_tensors, old_tensors)
    return jax.lax.cond(due, lambda new, old: new, lambda new, old: old, *tensors)


def safe_increment(count):
    """n + 1, which stays at the largest number of its dtype instead of overflowing.

    Raises:
        ValueError: a count that is neither integer nor real.
    """
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.integer):
        return increment(count)
    if not jnp.issubdtype(count.dtype, jnp.floating):
        raise ValueError(f"safe_increment: a count must be integer or real; got {count.dtype}")
    top = jnp.finfo(count.dtype).max
    return jnp.minimum(count + jnp.ones((), count.dtype), jnp.asarray(top, count.dtype))


safe_int32_increment = safe_increment


bias_correction = tree_math.tree_bias_correction


update_moment = tree_math.tree_update_moment


update_infinity_moment = tree_math.tree_update_infinity_moment


update_moment_per_elem_norm = tree_math.tree_update_moment_per_elem_norm


def safe_norm(x, min_norm, ord: int | float | str | None = None, axis=None, keepdims: bool = False):
    """max(‖x‖, bound), whose slope is 0 up to the bound; arguments as in `jnp.linalg.norm`."""
    norm = partial(jnp.linalg.norm, ord=ord, axis=axis)
    low = norm(x, keepdims=True) <= min_norm
    inside = norm(jnp.where(low, jnp.ones_like(x), x), keepdims=keepdims)
    return jnp.where(low.reshape(inside.shape), jnp.asarray(min_norm, inside.dtype), inside)


def safe_root_mean_squares(x, min_rms):
    """max(√(Σ |x|² / n), bound), whose slope is 0 at and below the bound."""
    low = jnp.sqrt(jnp.mean(abs_sq(x))) <= min_rms
    inside = jnp.sqrt(jnp.mean(abs_sq(jnp.where(low, jnp.ones_like(x), x))))
    return jnp.where(low, jnp.asarray(min_rms, inside.dtype), inside)


def unitwise_clip(g_norm, max_norm, grad, div_eps=1e-6):
    """The gradient, its units shortened to a norm where theirs is larger: the step of
    `adaptive_grad_clip`.

    Raises:
        ValueError: the norms have not the shape of the gradient.
    """
    a, b, c = map(jnp.shape, (g_norm, max_norm, grad))
    if not a == b == c:
        raise ValueError(f"unitwise_clip: all must have one shape; got {a}, {b} and {c}")
    return jnp.where(g_norm < max_norm, grad, grad * (max_norm / jnp.maximum(g_norm, div_eps)))


@jax.custom_jvp
def _scaled(scale, x):
    return x


@_scaled.defjvp
def _scaled_jvp(primals, tangents):
    scale, x = primals
    return x, jnp.asarray(scale, x.dtype) * tangents[1]


def scale_gradient(inputs, scale):
    """The inputs as they are; their gradient, on the way back, c times what it was, c = `scale`."""
    return jax.tree.map(lambda x: _scaled(scale, jnp.asarray(x)), inputs)
