"""Float64 NumPy references of steps whose norm is controlled, each written from its paper.

A matrix is [inputs, outputs]; the papers', and torch's, are its transpose. As in reference.py a path is the parameter
[T, *shape] after each step. Nothing here is optimized, and nothing may import gradxform.
"""

import math

import numpy as np
from reference import Walk

QUINTIC = (3.4445, -4.7750, 2.0315)


def norm(x, axis=None):
    """Euclidean norms over some axes, which stay."""
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=axis is not None))


def hyperball(grads, x0, learning_rate, *, steps=None):
    """Wen et al. 2026: w = R normalize(w - lr R normalize(u)), R = |w0|; here u is the gradient."""
    walk = Walk(grads, x0, steps)
    radius = norm(walk.x)
    for _, g in walk:
        w = walk.x - learning_rate * radius * g / norm(g)
        walk.x = radius * w / norm(w)
    return walk.path


def update_floor(u, w, floor, axis=None):
    """Skylight 2026: u times floor |w| / |u| where |u| / |w| is below the floor."""
    ratio = norm(u, axis) / norm(w, axis)
    return np.where(ratio < floor, u * floor / ratio, u)


def radial_brake(u, w, outward, inward=1.0):
    """Emerging-Optimizers 2026: w + u, rescaled to the norm |w| + s (|w + u| - |w|)."""
    before, after = norm(w), norm(w + u)
    s = outward if after > before else inward
    return (w + u) * (before + s * (after - before)) / after - w


def spectral_clip(x, bound):
    """Cesista 2025: the singular values cut at the bound."""
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    return (left * np.minimum(sizes, bound)) @ right


def orthogonal(x):
    """U V' of x = U S V'."""
    left, _, right = np.linalg.svd(x, full_matrices=False)
    return left @ right


def newton_schulz(x, steps=5):
    """Jordan et al. 2024: x = x / |x|, then a x + b x x' x + c x x' x x' x."""
    a, b, c = QUINTIC
    x = x / norm(x)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def lmo(g, norm_name, one_hot=False, polar=newton_schulz):
    """Pethick et al. 2025, tables 2 to 4: the u of norm 1 with the largest inner product with g [inputs, outputs]."""
    inputs, outputs = g.shape
    if norm_name == "spectral":
        return math.sqrt(outputs / (1 if one_hot else inputs)) * polar(g)
    if norm_name == "sign":
        return np.sign(g) / (1 if one_hot else inputs)
    if norm_name == "column":
        return math.sqrt(outputs) * g / norm(g, 1) / (1 if one_hot else inputs)
    return g / norm(g, 0) / (1 if one_hot else math.sqrt(inputs))


def scion(
    grads, x0, learning_rate, decay=0.9, radius=50.0, norm_name="spectral", one_hot=False, constrained=True, *, steps=None
):  # fmt: skip
    """Pethick et al. 2025, algorithms 1 and 2: m = decay m + (1 - decay) g, x = (1 - lr) x - lr radius lmo(m)."""
    walk = Walk(grads, x0, steps)
    m = np.zeros_like(walk.x)
    for _, g in walk:
        m = decay * m + (1 - decay) * g
        kept = 1 - learning_rate if constrained else 1.0
        walk.x = kept * walk.x - learning_rate * radius * lmo(m, norm_name, one_hot)
    return walk.path


def dion(grads, x0, q, learning_rate, mu=0.95, weight_decay=0.0, *, steps=None):
    """Ahn et al. 2025, algorithm 1, of a matrix [inputs, outputs] that is wide, with the basis q [outputs, r] at first."""
    walk = Walk(grads, x0, steps)
    m = np.zeros_like(walk.x)
    inputs, outputs = walk.x.shape
    for _, g in walk:
        b = m + g
        p, _ = np.linalg.qr(b @ q)
        r = b.T @ p
        m = b - (1 - mu) * p @ r.T
        q = r / norm(r, 0)
        step = math.sqrt(outputs / inputs) * p @ q.T
        walk.x = walk.x - learning_rate * (step + weight_decay * walk.x)
    return walk.path


def qk_clip(query, key, largest, tau, alpha=0.5):
    """Kimi K2 2025, algorithm 1: weights [inputs, heads, width] of each head times powers of min(1, tau / S)."""
    gamma = np.minimum(1, tau / np.asarray(largest))[:, None]
    return query * gamma**alpha, key * gamma ** (1 - alpha)
