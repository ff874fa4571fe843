"""How an optimizer's numbers are stored: parameters narrower than their training needs."""

from typing import ClassVar, NamedTuple

import jax

from gradxform.core import Inner, copied, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.states import answers
from gradxform.core.transform import Transform, check_updates
from gradxform.numerics import wide_dtype
from gradxform.wrappers.wrapper import Wrapper, updated

__all__ = ["master_weights"]


@answers(inner_state="inner")
class MasterWeightsState(NamedTuple):
    """State of `master_weights`: float32 copies of the narrow parameters (None for the others), and
    the inner state.
    """

    master: trees.Tree
    inner: trees.Tree


def _is_narrow(p) -> bool:
    return p.dtype != wide_dtype(p.dtype)


@pytree()
class MasterWeights(Wrapper):
    """Built by `master_weights`."""

    called = "master_weights"
    State: ClassVar[type] = MasterWeightsState
    needs_params: ClassVar[bool] = True
    inner: Transform

    def init(self, params):
        master = trees.tree_map(lambda p: copied()(p) if _is_narrow(p) else None, params)
        return MasterWeightsState(master, self.inner.init(_over(params, master)))

    def step(self, updates, state, params, gradient, extra):
        check_updates("master_weights", updates, params)
        weights = _over(params, state.master)
        wide = trees.tree_map(lambda g: g.astype(wide_dtype(g.dtype)), (updates, gradient))
        steps, inner = updated(self.inner, wide[0], state.inner, weights, wide[1], extra)
        moved = trees.tree_map(lambda m, u: m + u.astype(m.dtype), state.master, steps)

        def difference(u, step, p, m):
            if m is not None:
                step = m.astype(p.dtype).astype(m.dtype) - p.astype(m.dtype)
            return None if u is None else step.astype(u.dtype)

        out = jax.tree.map(difference, updates, steps, params, moved, is_leaf=trees.is_none)
        return out, MasterWeightsState(moved, inner)


def _over(params, master):
    """The parameters, with their float32 copies where there are such."""
    return jax.tree.map(lambda p, m: p if m is None else m, params, master, is_leaf=trees.is_none)


@transformation
def master_weights(inner: Inner):
    """Train bfloat16 or float16 parameters as if they were float32, so that small steps add up
    instead of being rounded away.

        w ← w + u                   float32, with u the inner update of the float32 gradient at w
        p ← round(w)                what the model sees

    Rounded to bfloat16, 1 - 0.001 is 1 again, and a hundred such steps are none. The inner
    optimizer sees w, also for weight decay and trust ratios. The update is round(w) - p, so
    `apply_updates` lands on round(w); where that difference needs more digits than the gradient's
    dtype has it is rounded, and the next step mends it. Parameters of float32 and wider are left to
    the inner optimizer.

    >>> tx, params = gx.master_weights(gx.sgd(1e-3)), jnp.ones((), jnp.bfloat16)
    >>> state = tx.init(params)
    >>> for _ in range(100):
    ...     updates, state = tx.update(jnp.ones((), jnp.bfloat16), state, params)
    ...     params = gx.apply_updates(params, updates)
    >>> float(params)
    0.8984375

    Memory: one slot `master`, 4 bytes per narrow parameter.

    Raises:
        ValueError: `update` was given no params.

    Source: P. Micikevicius et al., Mixed Precision Training (2018), section 3.1.
    """
    return MasterWeights(inner)
