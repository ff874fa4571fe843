"""What every wrapper is: a transformation around another one.

It is a direction if what it wraps is (the gradient it freezes is then what entered the wrapper),
hands on every extra argument, and never branches in Python on a number.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradxform.core.hyper import one_number
from gradxform.core.transform import Transform, require_params
from gradxform.display.code import code


class Wrapper(Transform):
    """A transformation around another one, `inner`. Subclasses are pytrees that give `init` and
    `step`.
    """

    inner: Transform
    State: ClassVar[type]
    needs_params: ClassVar[bool] = False
    called: str = ""  # its name, where that is not the class's

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.called or type(self).__name__.lower()

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.direction

    def __repr__(self):
        return f"{self.name}({', '.join(f'{k}={code(v)}' for k, v in vars(self).items())})"

    def inside(self, state=None, params=None):
        yield "inner", self.inner, state and state.inner, params

    def number(self, name: str, step, dtype: DTypeLike = jnp.float32):
        """One of its numbers at a step, the same for the whole tree."""
        return jnp.asarray(one_number(self.name, name, getattr(self, name), step), dtype)

    def numbers(self, step, *names, dtype: DTypeLike = jnp.float32):
        """Several of its numbers at a step."""
        return (self.number(name, step, dtype) for name in names)

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        if not isinstance(state, self.State):
            what = f"{self.name}: this state belongs to another transformation"
            raise ValueError(f"{what}: got {type(state).__name__}")
        if self.needs_params:
            require_params(self.name, params)
        return self.step(updates, state, params, gradient, extra)

    def step(self, updates, state, params, gradient, extra):
        """`update`, of a state that is this wrapper's."""
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    def run(self, updates, state, params, gradient, extra):
        """The inner update, in the dtypes that came in."""
        out, new_state = updated(self.inner, updates, state, params, gradient, extra)
        return cast(out, updates), cast(new_state, state)


def updated(tx: Transform, updates, state, params, gradient, extra):
    """`tx.update`, which is told the gradient where there is one beside the updates."""
    known = {} if gradient is None else {"gradient": gradient}
    return tx.update(updates, state, params, **known, **extra)


def cast(tree, like):
    """The tree in the dtypes of another one."""
    return jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like)


def pick(condition, new, old):
    """`new` where the scalar condition holds, `old` elsewhere: fused into what makes `new`, also
    under vmap.
    """
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def zeros_like(tree):
    """Zeros of the shapes and dtypes of a tree."""
    return jax.tree.map(jnp.zeros_like, tree)


def is_multiple(t, k):
    """Whether the integer t is a multiple of k, a whole number of any dtype."""
    return jnp.mod(t, jnp.asarray(k).astype(t.dtype)) == 0


def counter():
    """A count that begins at 0."""
    return jnp.zeros((), jnp.int32)
