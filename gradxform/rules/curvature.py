"""The diagonal of the Hessian, estimated. The update needs `obj_fn=`, the loss as a function of the
parameters.
"""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from gradxform.core.call import pytree
from gradxform.core.chain import whole
from gradxform.core.leafwise import RuleState
from gradxform.core.transform import Transform, require_params
from gradxform.numerics import increment
from gradxform.rules.noise import Key, _key_data

__all__ = ["hutchinson_estimator_diag_hessian"]


def _random_signs(key, x):
    # beside zeros like x, so that it varies over the devices that x varies over
    return jnp.zeros_like(x) + jax.random.rademacher(key, x.shape, jnp.float32).astype(x.dtype)


@pytree(static=("name",))
class Hutchinson(Transform):
    """Built by `hutchinson_estimator_diag_hessian`."""

    equation: ClassVar[str] = "u = z ⊙ H z      H the Hessian of the loss, z random signs"
    key: Key
    name: str = "hutchinson_estimator_diag_hessian"

    def init(self, params):
        return RuleState(jnp.zeros((), jnp.int32), {"key": _key_data(params, key=self.key)})

    def update(self, updates, state, params=None, obj_fn: Callable | None = None, **extra):
        require_params(self.name, params)
        if obj_fn is None:
            needed = "the keyword argument obj_fn=, the loss as a function of the parameters"
            raise TypeError(f"{self.name}: update() needs {needed}")
        following, sample = jax.random.split(jax.random.wrap_key_data(state.slots["key"]))
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(sample, len(leaves))
        signs = list(map(_random_signs, keys, leaves))
        product = jax.jvp(jax.grad(obj_fn), (params,), (structure.unflatten(signs),))[1]
        products, like = map(structure.flatten_up_to, (product, updates))
        rows = zip(products, signs, like, strict=True)
        estimate = structure.unflatten([(h * z).astype(u.dtype) for h, z, u in rows])
        memory = {"key": jax.random.key_data(following)}
        return estimate, RuleState(increment(state.step), memory)


@whole
def hutchinson_estimator_diag_hessian(random_seed: Key = 0):
    """An unbiased estimate of the diagonal of the Hessian, in place of the updates: z ⊙ H z, z
    random signs.

    `update(..., obj_fn=loss)`, where `loss(params)` is a scalar, the loss of this batch.

    Memory: the key, 8 bytes. Time: about three gradients.

    Raises:
        TypeError: update() without obj_fn.

    Source: C. Bekas, E. Kokiopoulou, Y. Saad, An Estimator for the Diagonal of a Matrix (2007).
    """
    return Hutchinson(random_seed)
