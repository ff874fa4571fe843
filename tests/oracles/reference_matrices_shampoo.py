"""Float64 NumPy references of Shampoo and KL-Shampoo on one matrix, each written from its paper.

As in reference.py: `path = shampoo(grads, x0, 1e-3)` is the parameter [T, m, n] after each step. Nothing here is
optimized, and nothing may import gradxform: the library is judged by these lines.
"""

import numpy as np
from reference import Walk, of_step


def power(a, p, eps=0.0, relative_eps=0.0):
    """a^p of a symmetric matrix, eigenvalues below a share of the largest raised to it, and eps added."""
    w, v = np.linalg.eigh((a + a.T) / 2)
    raised = np.maximum(w, relative_eps * w[-1]) + eps
    return (v * raised**p) @ v.T


def shampoo(
    grads, x0, learning_rate, b1=0.9, b2=0.999, eps=1e-12, weight_decay=0.0, *, relative_eps=1e-6,
    exponent=-0.25, sides=(True, True), precondition_frequency=10, start_preconditioning_step=1,
    nesterov=False, graft_eps=None, graft_b2=0.999, steps=None,
):  # fmt: skip
    """Gupta, Koren, Singer 2018, Algorithm 1, with averages (b2) in place of its sums (b2=None), corrected as in
    Shi et al. 2023, section 3: u = L^p m R^p, as long as Adam's step along m where `graft_eps` is given.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    rows, columns = walk.x.shape
    left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
    m, v = np.zeros_like(walk.x), np.zeros_like(walk.x)
    by_left, by_right = np.eye(rows), np.eye(columns)
    old, new = (1.0, 1.0) if b2 is None else (b2, 1 - b2)
    for t, g in walk:
        m, v = b1 * m + (1 - b1) * g, graft_b2 * v + (1 - graft_b2) * g * g
        ahead = m / (1 - b1**t) if b1 else m
        if nesterov:
            ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        left, right = old * left + new * g @ g.T, old * right + new * g.T @ g
        begun = t >= start_preconditioning_step
        if begun and (t - start_preconditioning_step) % precondition_frequency == 0:
            corrected = 1.0 if b2 is None else 1 - b2**t
            if sides[0]:
                by_left = power(left / corrected, exponent, eps, relative_eps)
            if sides[1]:
                by_right = power(right / corrected, exponent, eps, relative_eps)
        u = by_left @ ahead @ by_right
        if graft_eps is not None:
            adam = ahead / (np.sqrt(v / (1 - graft_b2**t)) + graft_eps)
            u = u * np.linalg.norm(adam) / np.linalg.norm(u) if begun else adam
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path


def kl_shampoo(
    grads, x0, learning_rate, b1=0.9, b2=0.98, weight_decay=0.0, *, relative_eps=1e-6,
    precondition_frequency=1, convention="paper", steps=None,
):  # fmt: skip
    """Lin et al. 2025: L = b L + (1 - b)/n g R^-1 g^T and R = b R + (1 - b)/m g^T L^-1 g at once, both with the
    inverses of the step before (of the last step at which roots were found), and u = L^-1/2 m R^-1/2.

    The paper leaves open where L and R begin: here ("paper") at the root of the mean square of the first gradient,
    in "heavyball" (3.2.1) at 0.1. There the first gradient only begins, u has the roots of the step before, b is that
    of a corrected average, and the roots are by one QR step, which are exact where gradients are diagonal.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    rows, columns = walk.x.shape
    late = convention == "heavyball"
    m, left = np.zeros_like(walk.x), None
    for t, g in walk:
        if left is None:
            size = 0.1 if late else np.sqrt(np.mean(g * g))
            left, right = size * np.eye(rows), size * np.eye(columns)
            roots = [power(x, -0.5) for x in (left, right)]
            if late:
                continue
        m = b1 * m + (1 - b1) * g
        old, inverses = roots, [x @ x for x in roots]
        b = 1 - (1 - b2) / (1 - b2**t) if late else b2
        left = b * left + (1 - b) * g @ inverses[1] @ g.T / columns
        right = b * right + (1 - b) * g.T @ inverses[0] @ g / rows
        if (t - 1) % precondition_frequency == 0:
            roots = [power(x, -0.5, 0.0, relative_eps) for x in (left, right)]
        by_left, by_right = old if late else roots
        walk.x = walk.x - rate(t - 1) * (by_left @ m @ by_right + weight_decay * walk.x)
    return walk.path
