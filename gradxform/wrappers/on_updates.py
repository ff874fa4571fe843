"""What an optimizer takes for the gradient, inside a chain: what entered the first direction, or
the updates so far.
"""

from gradxform.core import Inner, Transform, transformation
from gradxform.core.call import pytree
from gradxform.wrappers.wrapper import Wrapper

__all__ = ["on_updates"]


@pytree()
class OnUpdates(Wrapper):
    """Built by `on_updates`."""

    called = "on_updates"
    inner: Transform

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return False

    def reads_gradient(self) -> bool:
        return False

    def inside(self, state=None, params=None):
        yield "", self.inner, state, params

    def init(self, params):
        return self.inner.init(params)

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        return self.run(updates, state, params, None, extra)


@transformation
def on_updates(inner: Inner):
    """Run the inner transformation as Optax does in a chain: the updates so far are its gradient.

        u ← inner(u)      with g = u, whatever entered a direction before

    In a chain a direction (`trace`, `momentum`, `ema`, …) freezes the gradient at what entered it,
    and a preconditioner after it measures that. So `chain(ema(0.9), adam(0.1))` divides by the root
    of the mean square of the raw gradients, and Optax's chain by that of the averaged ones. This
    gives Optax's step, and nothing inside changes what later parts measure:

    >>> tx = gx.chain(gx.ema(0.9), gx.on_updates(gx.adam(0.1)))

    Memory: none beside the inner state.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020), its `chain`.
    """
    return OnUpdates(inner)
