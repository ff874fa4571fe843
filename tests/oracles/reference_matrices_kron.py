"""PSGD-Kron in float64 NumPy, from X.-L. Li (2015, 2024): steps with given normal numbers V."""

import numpy as np


def spectral_norm(x):
    """Li's lower bound of the norm of a symmetric X: one power step from its longest row."""
    row = x[np.argmax(np.sum(np.abs(x) ** 2, axis=1))]
    step = row @ x
    return np.linalg.norm(step / np.linalg.norm(step) @ x)


def balanced(factors):
    """Factors of the same largest entry, whose product is the same."""
    sizes = [np.abs(q).max() for q in factors]
    return [q * np.prod(sizes) ** (1 / len(sizes)) / s for q, s in zip(factors, sizes, strict=True)]


def kron_step(factors, g, v, precond_lr, max_size=np.inf):
    """One step of both factors on the groups of triangular and of diagonal matrices (Li 2024, table
    1 and section 4), each normalised: dQ = -μ triu(A Aᴴ - B Bᴴ) Q / ‖A Aᴴ + B Bᴴ‖.
    """
    left, right = balanced(factors)
    a = left @ g @ right.conj().T
    b = np.linalg.inv(left).conj().T @ v @ np.linalg.inv(right)
    new = []
    for q, aa, bb in (
        (left, a @ a.conj().T, b @ b.conj().T),
        (right, a.conj().T @ a, b.conj().T @ b),
    ):
        if len(q) > max_size:
            aa, bb = np.diag(np.diag(aa)), np.diag(np.diag(bb))
            size = np.abs(aa + bb).max()
        else:
            size = spectral_norm(aa + bb)
        new.append(q - precond_lr * np.triu(aa - bb) @ q / size)
    return balanced(new)


def kron(gradients, normals, precond_lr=0.1, init_scale=None, max_size=np.inf, measured=None):
    """The whitened gradients of all steps, and the factors after them; `measured` are what the
    factors are fitted to, where that is not what they whiten.
    """
    measured = gradients if measured is None else measured
    first = np.asarray(measured[0])
    if init_scale is None:
        init_scale = np.mean(np.abs(first) ** 2) ** -0.25
    factors = [np.sqrt(init_scale) * np.eye(n) for n in first.shape]
    out = []
    for u, g, v in zip(gradients, measured, normals, strict=True):
        factors = kron_step(factors, g, v, precond_lr, max_size)
        left, right = (q.conj().T @ q for q in factors)
        out.append(left @ u @ right)
    return np.stack(out), factors


def whitening(covariance):
    """The minimum of E[gᴴ P g + vᴴ P⁻¹ v]: P = E[g gᴴ]^-1/2."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * values**-0.5 @ vectors.conj().T
