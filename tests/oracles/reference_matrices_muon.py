"""Muon and its kin in float64 NumPy, for one matrix [inputs, outputs]: gradients [steps, inputs, outputs], the start, the numbers.

Muon: K. Jordan et al. (2024), with the corrections of Optax or as torch 2.13 has it; J. Liu et al. (2025), equation 4, for the scale.
NorMuon: Z. Li et al. (2025), algorithm 1. AdaMuon: C. Si et al. (2025), algorithm 1. Nesterov's forms are those of the authors' code.
"""

import numpy as np

JORDAN = ((3.4445, -4.7750, 2.0315),) * 5


def newton_schulz(x, table=JORDAN, eps=1e-8, margin=1.0, preconditioning="frobenius"):
    """The polynomials of the singular values, by the singular value decomposition; "aol" by products of matrices."""
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, table, eps, margin, preconditioning).T
    if preconditioning == "aol":
        x = x / np.sqrt(np.maximum(np.abs(x @ x.T).sum(axis=1, keepdims=True), eps))
    elif preconditioning == "schatten":
        x = x / np.sqrt(np.maximum(np.linalg.norm(x @ x.T), eps))
    elif preconditioning == "floored":
        x = x / np.maximum(np.linalg.norm(x), eps)
    else:
        norm = np.linalg.norm(x, 2 if preconditioning == "spectral" else "fro")
        x = x / (margin * norm + eps)
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    for a, b, c in table:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    return (left * sizes) @ right


def by_shape(u, consistent_rms=None):
    """The step's length, by width or for entries of about this size."""
    inputs, outputs = u.shape
    if consistent_rms is None:
        return np.sqrt(max(1, outputs / inputs)) * u
    return consistent_rms * np.sqrt(max(inputs, outputs)) * u


def muon(
    grads, start, learning_rate, beta=0.95, eps=1e-8, weight_decay=0.0, *, nesterov=True, convention="optax",
    adaptive=False, consistent_rms=None, preconditioning="frobenius",
):  # fmt: skip
    """The matrix after each step."""
    p, m, path = start, np.zeros_like(start), []
    torch = convention == "torch"
    how = "floored" if torch else preconditioning
    for t, g in enumerate(grads, 1):
        m = beta * m + (1 - beta) * g
        corrections = (1.0, 1.0, 1.0) if torch else (1 - beta**t, 1 - beta ** (t + 1), 1 - beta**t)
        u = m / corrections[0]
        if nesterov:
            u = beta * m / corrections[1] + (1 - beta) * g / corrections[2]
        o = newton_schulz(u, eps=eps, preconditioning=how)
        o = np.sum(u * o) * o if adaptive else o
        p = p - learning_rate * (by_shape(o, consistent_rms) + weight_decay * p)
        path.append(p)
    return np.array(path)


def _aligned(w, o, consistent_rms):
    if consistent_rms is None:
        return by_shape(np.linalg.norm(o) / np.linalg.norm(w) * w)
    return consistent_rms * np.sqrt(w.size) * w / np.linalg.norm(w)


def normuon(
    grads, start, learning_rate, beta=0.95, b2=0.95, eps=1e-8, weight_decay=0.0, *, nesterov=True,
    consistent_rms=None,
):  # fmt: skip
    """The matrix after each step; with nesterov=False and consistent_rms=0.2 the paper's."""
    p, m, v, path = start, np.zeros_like(start), np.zeros(start.shape[1]), []
    for g in grads:
        m = beta * m + (1 - beta) * g
        o = newton_schulz(beta * m + (1 - beta) * g if nesterov else m, eps=1e-7)
        v = b2 * v + (1 - b2) * np.mean(o**2, axis=0)
        w = o / (np.sqrt(v) + eps)
        p = p - learning_rate * (_aligned(w, o, consistent_rms) + weight_decay * p)
        path.append(p)
    return np.array(path)


def adamuon(
    grads, start, learning_rate, beta=0.95, b2=None, eps=1e-8, weight_decay=0.0, *, nesterov=True,
    consistent_rms=0.2,
):  # fmt: skip
    """The matrix after each step; with nesterov=False the paper's."""
    p, m, v, path = start, np.zeros_like(start), np.zeros_like(start), []
    b2 = beta if b2 is None else b2
    for g in grads:
        m = beta * m + g
        o = newton_schulz(np.sign(g + beta * m if nesterov else m), eps=1e-7)
        v = b2 * v + (1 - b2) * o**2
        w = o / (np.sqrt(v) + eps)
        p = p - learning_rate * (_aligned(w, o, consistent_rms) + weight_decay * p)
        path.append(p)
    return np.array(path)
