"""Gradients in a subspace: a transformation runs on their projections, and its steps come back in
full.
"""

from gradxform.core import Count, Inner, Real, chain, transformation
from gradxform.core.call import pytree
from gradxform.core.states import answers
from gradxform.matrices.bases import leading_basis
from gradxform.matrices.declaration import Matrices, matrix
from gradxform.matrices.in_basis import NAMES, STATIC, BasisState, InBasis
from gradxform.rules.directions import ema
from gradxform.rules.preconditioners import scale_by_rms

__all__ = ["scale_by_galore"]


@answers(**NAMES, projector=lambda state: state.basis.slots["projector"])
class LowRankState(BasisState):
    """State of `scale_by_galore`."""


@pytree(static=STATIC)
class GaLore(InBasis):
    """Built by `scale_by_galore`."""

    State = LowRankState


def _of_two_axes(path: str, leaf):
    """All arrays of two axes are matrices."""
    return matrix() if leaf.ndim == 2 else None


@transformation(conventions={"optax": {}, "paper": {}})
def scale_by_galore(
    rank: int = 128, update_proj_gap: Count = 200, scale: Real = 1.0,
    base_optimizer: Inner | None = None, weight_dimension_numbers: Matrices | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """Run a transformation on low-rank projections of the gradients of matrices.

        P ← the first r left singular vectors of g      at every k-th step
        R = Pᵀ g
        u = s P base(R)      for the other side right vectors, R = g P, u = s base(R) Pᵀ

    Args:
        rank: r, at most the shorter side.
        update_proj_gap: k; its projector is found on the first step and every k-th after it.
        scale: s.
        base_optimizer: what runs on R, and on leaves that are no matrices; it is given no
            parameters. Adam without a learning rate by default.
        weight_dimension_numbers: which axes are rows and columns, as of every matrix method; by
            default only arrays of rank 2 are projected. `GaLoreDimensionNumbers` must name every
            axis.
        convention: "optax" projects the longer side (R is r × the shorter one); "paper" the shorter
            one.

    Memory: 4 bytes times (longer side · r) for P, and the base optimizer's on R, r · the shorter
    side. The other way round in the paper.
    A meta-gradient takes P for a constant: the leading singular vectors have no slope where
    singular values meet.

    Raises:
        ValueError: a rank below 1, an unknown convention, dimension numbers that leave an axis out.

    Source: J. Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection
    (2024), algorithm 2.
    """
    if rank < 1:
        raise ValueError(f"scale_by_galore: rank must lie in [1, inf); got {rank}")
    adam = chain(ema(0.9), scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True))
    inner = adam if base_optimizer is None else base_optimizer
    found = _of_two_axes if weight_dimension_numbers is None else weight_dimension_numbers
    side = "long" if convention == "optax" else "short"
    basis = leading_basis(rank, update_proj_gap, side=side, matrices=found)
    return GaLore(inner, basis, scale, carry=False, called="scale_by_galore")
