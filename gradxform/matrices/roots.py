"""Eigendecompositions and powers of symmetric matrices, with derivatives that are finite also where
eigenvalues meet.

All take [..., n, n], Hermitian where complex; of any other matrix the Hermitian part counts. They
scale first: matrices of 1e-36 and of 1e36 do as well as those of 1.
"""

import jax
import jax.numpy as jnp

from gradxform.numerics import real_dtype

__all__ = ["eigh", "matrix_power"]


def adjoint(a):
    """aᵀ, conjugate for complex a."""
    return jnp.conj(a.mT) if jnp.iscomplexobj(a) else a.mT


def _hermitian(a):
    return (a + adjoint(a)) / 2


def _size(a):
    """The largest entry of each matrix, [..., 1, 1]; 1 for a matrix of zeros."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(a)), axis=(-2, -1), keepdims=True, initial=0)
    return jnp.where(size >= jnp.finfo(size.dtype).tiny, size, jnp.ones_like(size))


def _diagonal(x):
    return x[..., None, :] * jnp.eye(x.shape[-1], dtype=x.dtype)


def eigh(a):
    """(w, v): the eigenvalues of symmetric matrices, ascending, and their eigenvectors as columns.

    The derivative of an eigenvector is a sum over the others of their share / (the distance of the
    eigenvalues). Where two eigenvalues are no further apart than they are exact, these directions
    may turn into each other freely: they count as not turning, and the derivative stays finite.

    Shapes: [..., n, n] -> [..., n], [..., n, n].
    """
    size = _size(a)
    w, v = _eigh(_hermitian(a) / size.astype(a.dtype))
    return w * size[..., 0], v


@jax.custom_jvp
def _eigh(a):
    v, w = jax.lax.linalg.eigh(a, symmetrize_input=False)
    return w, v


@_eigh.defjvp
def _eigh_jvp(primals, tangents):
    (a,), (da,) = primals, tangents
    w, v = _eigh(a)
    inside = adjoint(v) @ da @ v
    gap = w[..., None, :] - w[..., :, None]
    apart = jnp.abs(gap) > 10 * a.shape[-1] ** 0.5 * jnp.finfo(w.dtype).eps
    turn = jnp.where(apart, 1 / jnp.where(apart, gap, jnp.ones_like(gap)), jnp.zeros_like(gap))
    dw = jnp.diagonal(inside, axis1=-2, axis2=-1).real
    return (w, v), (dw, v @ (turn.astype(v.dtype) * inside))


def matrix_power(a, p, *, eps=0.0, relative_eps=0.0):
    """Aᵖ of symmetric matrices that have no negative eigenvalues but by rounding.

        A = V diag(w) Vᵀ,  Aᵖ = V diag((max(w, ε_rel max w) + ε)ᵖ) Vᵀ

    The relative one is a floor, not an addition: eigenvalues that are rounding alone are all the
    same then, and others what they are. Where nothing is left, w = ε = ε_rel = 0, it is as for the
    pseudo-inverse: 0 for p < 0, and 0⁰ = 1. The derivative is that of Daleckii and Krein, by
    divided differences of λᵖ and their limit where eigenvalues meet: finite at any rank, and by p
    and by both ε as well.

    Args:
        a: [..., n, n].
        p: the exponent, any number, which may be traced.
        eps: ε, added to the eigenvalues in the unit of `a`.
        relative_eps: ε_rel, a share of the largest one; float32 tells eigenvalues from 0 that are
            about 1e-6 of it.

    Source: Yu. L. Daleckii, S. G. Krein (1965), for the derivative; N. J. Higham, Functions of
    Matrices (2008), theorem 3.11.
    """
    size = _size(a)
    p, eps, relative_eps = (jnp.asarray(x, real_dtype(a.dtype)) for x in (p, eps, relative_eps))
    eps = jnp.broadcast_to(eps, size.shape) / size
    root = _power(_hermitian(a) / size.astype(a.dtype), p, relative_eps, eps[..., 0])
    return root * (size**p).astype(a.dtype)


def _spectrum(a, p, relative_eps, eps):
    """Eigenvalues and eigenvectors, the eigenvalues as they are raised to a power, and the powers
    with their logarithms.
    """
    w, v = _eigh(a)
    raised = jnp.maximum(w, relative_eps * jnp.maximum(w[..., -1:], 0)) + eps
    there = raised > 0
    log = jnp.log(jnp.where(there, raised, jnp.ones_like(raised)))
    return w, v, raised, log, jnp.where(there, _exp(p * log), (p == 0).astype(w.dtype))


def _exp(x):
    """eˣ, at most the root of the largest number."""
    return jnp.exp(jnp.minimum(x, jnp.log(jnp.finfo(x.dtype).max) / 2))


@jax.custom_jvp
def _power(a, p, relative_eps, eps):
    _, v, _, _, powers = _spectrum(a, p, relative_eps, eps)
    return (v * powers[..., None, :].astype(v.dtype)) @ adjoint(v)


@_power.defjvp
def _power_jvp(primals, tangents):
    a, p, relative_eps, eps = primals
    da, dp, drelative, deps = tangents
    w, v, raised, log, powers = _spectrum(a, p, relative_eps, eps)
    inside = adjoint(v) @ da @ v
    largest = jnp.maximum(w[..., -1:], 0)
    low = w < relative_eps * largest
    slopes = _slopes(raised, log, p)
    own = jnp.diagonal(slopes, axis1=-2, axis2=-1)
    dlargest = jnp.where(largest > 0, inside[..., -1, -1:].real, jnp.zeros_like(largest))
    dfloor = drelative * largest + relative_eps * dlargest
    own = own * (deps + jnp.where(low, dfloor, jnp.zeros_like(own))) + powers * log * dp
    change = (slopes * _shares(w, raised, low)).astype(v.dtype) * inside
    change += _diagonal(own).astype(v.dtype)
    out = (v * powers[..., None, :].astype(v.dtype)) @ adjoint(v)
    return out, v @ change @ adjoint(v)


def _pairs(x):
    return x[..., :, None], x[..., None, :]


def _slopes(raised, log, p):
    """(λᵢᵖ - λⱼᵖ) / (λᵢ - λⱼ) with no difference of near numbers: for λ = eˡ it is
    e^((p - 1)(lᵢ + lⱼ)/2) sinh(p (lᵢ - lⱼ)/2) / sinh((lᵢ - lⱼ)/2).
    """
    one, other = _pairs(log)
    half = (one - other) / 2
    met = half == 0
    ratio = jnp.sinh(p * half) / jnp.sinh(jnp.where(met, jnp.ones_like(half), half))
    slopes = _exp((p - 1) / 2 * (one + other)) * jnp.where(met, p, ratio)
    one, other = _pairs(raised > 0)
    return jnp.where(one & other, slopes, jnp.zeros_like(slopes))


def _shares(w, raised, low):
    """(λᵢ - λⱼ) / (wᵢ - wⱼ): 1 where neither lies below the floor, 0 where both do."""
    (one, other), (low_one, low_other) = _pairs(w), _pairs(low)
    raised_one, raised_other = _pairs(raised)
    gap = jnp.where(low_one ^ low_other, one - other, jnp.ones_like(one - other))
    between = jnp.where(gap == 0, jnp.ones_like(gap), (raised_one - raised_other) / gap)
    same = (~low_one).astype(w.dtype)
    return jnp.where(low_one ^ low_other, between, same)
