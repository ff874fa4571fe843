"""Muon without its learning rate, and what follows orthogonalisation in it and its kin: how long a
matrix's step is, and second moments of what came out, for each neuron or each entry.

scale_by_muon = ema × orthogonalize
scale_by_normuon = ema × orthogonalize × a mean square for each output
scale_by_adamuon = momentum × sign × orthogonalize × a mean square for each entry
"""

import math

import jax.numpy as jnp

from gradxform.core import Decay, DType, Epsilon, Momentum, Positive, chain, transformation
from gradxform.matrices.declaration import Matrices, matrix
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.matrices.orthogonalize import (
    Coefficients,
    NewtonSchulz,
    Preconditioning,
    frobenius,
    table_of,
)
from gradxform.numerics import abs_sq, divide_by_root, lerp, safe_divide
from gradxform.rules.directions import ema, momentum
from gradxform.rules.signs import scale_by_sign

__all__ = ["scale_by_adamuon", "scale_by_muon", "scale_by_normuon", "scale_by_shape"]


def _scale_by_width(u, at):
    """u ← √(max(1, outputs / inputs)) u"""
    inputs, outputs = at.fans
    return math.sqrt(max(1, outputs / inputs)) * u


def _scale_to_rms(u, at, *, consistent_rms):
    """u ← c √(max(inputs, outputs)) u"""
    return consistent_rms * math.sqrt(max(at.fans)) * u


@transformation
def scale_by_shape(
    weight_dimension_numbers: Matrices | None = None, consistent_rms: Positive | None = None
):
    """Give the step of a matrix whose singular values are 1 the length that its shape asks for.

        u ← √(max(1, outputs / inputs)) u    by default: a layer's output changes alike at any width
        u ← c √(max(inputs, outputs)) u      with c = `consistent_rms`: entries of size c; 0.2 is
                                             about AdamW's

    Args:
        weight_dimension_numbers: also `matrices`: by default [inputs, outputs] for every parameter.

    Memory: none.

    Raises:
        ValueError: a parameter that is no matrix.

    Source: K. Jordan et al., Muon (2024); J. Liu et al., Muon is Scalable for LLM Training (2025),
    equation 4.
    """
    numbers = {} if consistent_rms is None else {"consistent_rms": consistent_rms}
    rule = _scale_to_rms if numbers else _scale_by_width
    matrices = weight_dimension_numbers or matrix()
    how = {"sided": True, "entrywise": True, "name": "scale_by_shape"}
    return matrixwise(rule, matrices=matrices, **how, **numbers)


def newton_schulz(owner, ns_coeffs, ns_steps, eps, matrices, **how):
    """The part that orthogonalizes."""
    rule = NewtonSchulz(table_of(owner, ns_coeffs, ns_steps), **how)
    return matrixwise(rule, matrices=matrices, name="orthogonalize", eps=eps)


_JORDAN = (3.4445, -4.7750, 2.0315)


@transformation
def scale_by_muon(
    ns_coeffs: Coefficients = _JORDAN, ns_steps: int = 5, beta: Decay = 0.95, eps: Epsilon = 1e-8,
    mu_dtype: DType | None = None, *, nesterov: bool = True, adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: Matrices | None = None, compute_dtype: DType | None = None,
):  # fmt: skip
    """`muon` without its learning rate and without regard to shapes, for matrices alone.

        m ← β m + (1 - β) g
        m̂ = β m / (1 - βᵗ⁺¹) + (1 - β) g / (1 - βᵗ)    nesterov=True
        m̂ = m / (1 - βᵗ)                               nesterov=False
        u = orthogonalize(m̂)                           times ⟨m̂, u⟩ where adaptive=True

    Args:
        ns_steps: how many of a triple; a table has its own number.
        adaptive: scale by the dual norm of m̂, of each matrix.
        weight_dimension_numbers: also `matrices`: by default [inputs, outputs] for every parameter.

    Memory: 4 bytes per parameter (`mu_dtype` to change).

    Raises:
        ValueError: a parameter that is no matrix.

    Source: K. Jordan et al., Muon (2024); J. Bernstein, L. Newhouse, Old Optimizer, New Norm
    (2024), for `adaptive`.
    """
    how = {"preconditioning": preconditioning, "dtype": compute_dtype, "dual": adaptive}
    matrices = weight_dimension_numbers or matrix()
    orthogonal = newton_schulz("scale_by_muon", ns_coeffs, ns_steps, eps, matrices, **how)
    return chain(ema(beta, True, mu_dtype, nesterov=nesterov), orthogonal)


def _norm(x):
    _, scale, norm = frobenius(x)
    return scale * norm


def _neurons(u, at, v, *, b2, eps):
    """v ← β₂ v + (1 - β₂) mean(|u|²)      over the inputs of each output
    w = u / (√v + ε)
    u ← ‖u‖ / ‖w‖ w
    """
    v = lerp(jnp.mean(abs_sq(u), axis=0), v, b2)
    w = divide_by_root(u, jnp.broadcast_to(v, u.shape), eps, 0.0)
    return safe_divide(_norm(u), _norm(w)) * w, v


def _entries(u, at, v, *, b2, eps):
    """v ← β₂ v + (1 - β₂) |u|²
    w = u / (√v + ε)
    u ← ‖u‖ / ‖w‖ w
    """
    v = lerp(abs_sq(u), v, b2)
    w = divide_by_root(u, v, eps, 0.0)
    return safe_divide(_norm(u), _norm(w)) * w, v


def _align(u, at, *, consistent_rms):
    """u ← c √(inputs outputs) u / ‖u‖"""
    size = jnp.asarray(math.sqrt(u.size), u.real.dtype)
    return consistent_rms * safe_divide(size, _norm(u)) * u


def steps_by_shape(consistent_rms, matrices):
    """How long a step of NorMuon and AdaMuon is: of entries of exactly this size, or by width."""
    if consistent_rms is None:
        return scale_by_shape(matrices or "names")
    return matrixwise(_align, matrices=matrices, name="align", consistent_rms=consistent_rms)


@transformation
def scale_by_normuon(
    beta: Decay = 0.95, b2: Decay = 0.95, eps: Epsilon = 1e-8, *, nesterov: bool = True,
    ns_coeffs: Coefficients = _JORDAN, ns_steps: int = 5, ns_eps: Epsilon = 1e-7,
    mu_dtype: DType | None = None, compute_dtype: DType | None = None,
    matrices: Matrices | None = None,
):  # fmt: skip
    """`normuon` without its learning rate and without regard to shapes, for matrices alone.

        m ← β m + (1 - β) g
        o = orthogonalize(β m + (1 - β) g)             of m where nesterov=False
        v ← β₂ v + (1 - β₂) mean(o²)                   over the inputs of each output
        w = o / (√v + ε)
        u = ‖o‖ / ‖w‖ w

    Args:
        ns_eps: ε of `orthogonalize`.

    Memory: 4 bytes per parameter, and 4 per output.

    Raises:
        ValueError: a parameter that is no matrix.

    Source: Z. Li et al., NorMuon: Making Muon more efficient and scalable (2025), algorithm 1; the
    Nesterov form and the norm that is kept are those of the authors' code.
    """
    orthogonal = newton_schulz(
        "scale_by_normuon", ns_coeffs, ns_steps, ns_eps, matrices, dtype=compute_dtype
    )
    slots = {"v": MatrixSlot(("columns",), real=True)}
    how = {"matrices": matrices, "keep_sides": True, "name": "scale_by_neurons"}
    neurons = matrixwise(_neurons, slots=slots, **how, b2=b2, eps=eps)
    return chain(ema(beta, False, mu_dtype, nesterov=nesterov), orthogonal, neurons)


@transformation
def scale_by_adamuon(
    beta: Momentum = 0.95, b2: Decay | None = None, eps: Epsilon = 1e-8, *, nesterov: bool = True,
    ns_coeffs: Coefficients = _JORDAN, ns_steps: int = 5, ns_eps: Epsilon = 1e-7,
    mu_dtype: DType | None = None, compute_dtype: DType | None = None,
    matrices: Matrices | None = None,
):  # fmt: skip
    """`adamuon` without its learning rate and without regard to shapes, for matrices alone.

        m ← β m + g
        o = orthogonalize(sign(g + β m))               of sign(m) where nesterov=False
        v ← β₂ v + (1 - β₂) o²
        w = o / (√v + ε)
        u = ‖o‖ / ‖w‖ w

    Args:
        b2: β₂; β by default, as in the paper.
        ns_eps: ε of `orthogonalize`.

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4).

    Raises:
        ValueError: a parameter that is no matrix.

    Source: C. Si, D. Zhang, W. Shen, AdaMuon: Adaptive Muon Optimizer (2025), algorithm 1; the
    Nesterov form is that of the authors' code.
    """
    orthogonal = newton_schulz(
        "scale_by_adamuon", ns_coeffs, ns_steps, ns_eps, matrices, dtype=compute_dtype
    )
    numbers = {"b2": beta if b2 is None else b2, "eps": eps}
    slots = {"v": MatrixSlot(real=True)}
    entries = matrixwise(
        _entries, slots=slots, matrices=matrices, name="scale_by_entries", **numbers
    )
    velocity = momentum(beta, nesterov=nesterov, accumulator_dtype=mu_dtype)
    return chain(velocity, scale_by_sign(), orthogonal, entries)
