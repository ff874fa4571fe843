"""References in float64 NumPy for methods that run in a basis: SOAP and its kin, APOLLO.

Gradients are [T, m, n]; each gives the path of the parameters, [T, m, n].
"""

import numpy as np


def _eigenvectors(a):
    return np.linalg.eigh(a)[1][:, ::-1]


class Adam:
    """Kingma, Ba 2015: m turns with the basis, v stays with its vectors."""

    def __init__(self, b1=0.95, b2=0.95, eps=1e-8, corrected=True):
        self.b1, self.b2, self.eps, self.corrected = b1, b2, eps, corrected
        self.m, self.v, self.t = 0.0, 0.0, 0

    def step(self, g):
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        if not self.corrected:
            return self.m / (np.sqrt(self.v) + self.eps)
        m, v = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return m / (np.sqrt(v) + self.eps)

    def turn(self, left, right, order_left, order_right):
        self.m = left @ self.m @ right.T
        self.v = self.v[order_left][:, order_right]


class Lion:
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, b1=0.9, b2=0.99):
        self.b1, self.b2, self.m = b1, b2, 0.0

    def step(self, g):
        out = np.sign(self.b1 * self.m + (1 - self.b1) * g)
        self.m = self.b2 * self.m + (1 - self.b2) * g
        return out

    def turn(self, left, right, order_left, order_right):
        self.m = left @ self.m @ right.T


class Adagrad:
    """Duchi et al. 2011."""

    def __init__(self, initial=0.1, eps=1e-7):
        self.v, self.eps = initial, eps

    def step(self, g):
        self.v = self.v + g**2
        return g / np.sqrt(self.v + self.eps)

    def turn(self, left, right, order_left, order_right):
        self.v = self.v[order_left][:, order_right]


class Adafactor:
    """Shazeer, Stern 2018, algorithm 4 with a factored second moment."""

    def __init__(self, power=0.8, eps=1e-30):
        self.power, self.eps, self.t, self.rows, self.columns = power, eps, 0, 0.0, 0.0

    def step(self, g):
        self.t += 1
        decay = 1 - self.t**-self.power
        self.rows = decay * self.rows + (1 - decay) * np.mean(g**2 + self.eps, axis=1)
        self.columns = decay * self.columns + (1 - decay) * np.mean(g**2 + self.eps, axis=0)
        return g / np.sqrt(np.outer(self.rows, self.columns) / np.mean(self.rows))

    def turn(self, left, right, order_left, order_right):
        self.rows, self.columns = self.rows[order_left], self.columns[order_right]


class _Shampoo:
    """L and R of Vyas et al. 2024, algorithm 3, each an average of one side's second moments."""

    in_order = True

    def __init__(self, shape, decay):
        self.decay = decay
        self.factors = [np.zeros((size, size)) for size in shape]
        self.bases = [np.eye(size) for size in shape]

    def measure(self, g, first):
        for i, outer in enumerate((g @ g.T, g.T @ g)):
            self.factors[i] = self.decay * self.factors[i] + (1 - self.decay) * outer


class _KlShampoo(_Shampoo):
    """Lin et al. 2025: each factor is measured in the metric of the other."""

    in_order = False

    def __init__(self, shape, decay, initial):
        super().__init__(shape, decay)
        self.initial, self.values = initial, [np.ones(size) for size in shape]

    def measure(self, g, first):
        inverse = [q @ np.diag(1 / v) @ q.T for q, v in zip(self.bases, self.values, strict=True)]
        outers = g @ inverse[1] @ g.T / g.shape[1], g.T @ inverse[0] @ g / g.shape[0]
        for i, outer in enumerate(outers):
            seen = np.diag(self.bases[i].T @ outer @ self.bases[i])
            self.factors[i] = self.decay * self.factors[i] + (1 - self.decay) * outer
            self.values[i] = self.decay * self.values[i] + (1 - self.decay) * seen
            if first:
                self.values[i] = np.full_like(seen, self.initial)


def _power_iteration(a, q, in_order):
    """Vyas et al. 2024, algorithm 4: a power iteration in the order of the eigenvalues, and that."""
    values = np.diag(q.T @ a @ q)
    order = np.argsort(-values, kind="stable") if in_order else np.arange(len(values))
    return np.linalg.qr(a @ q[:, order])[0], order


def in_eigenbasis(
    grads, x0, learning_rate, inner, *, shampoo_beta=0.95, every=10, max_dim=10_000,
    kl_initial=None, sides=(True, True), current=False,
):  # fmt: skip
    """Vyas et al. 2024, algorithm 3, as in the authors' code: the first step finds the bases; every
    later one is made in those of the gradients before it. `inner` has `step` and `turn`.
    """
    x, path, shape = np.array(x0, np.float64), [], np.shape(x0)
    stats = _Shampoo(shape, shampoo_beta)
    if kl_initial is not None:
        stats = _KlShampoo(shape, shampoo_beta, kl_initial)
    rotated = [side and size <= max_dim for side, size in zip(sides, shape, strict=True)]

    def renew(g, k):
        stats.measure(g, k == 0)
        if k % every:
            return
        turns, orders = [], []
        for i, old in enumerate(stats.bases):
            order = np.arange(len(old))
            if rotated[i] and k == 0:
                stats.bases[i] = _eigenvectors(stats.factors[i])
            elif rotated[i]:
                stats.bases[i], order = _power_iteration(stats.factors[i], old, stats.in_order)
            turns.append(stats.bases[i].T @ old)
            orders.append(order)
        if k:
            inner.turn(*turns, *orders)

    for k, g in enumerate(np.asarray(grads, np.float64)):
        if current:
            renew(g, k)
        if k or current:
            left, right = stats.bases
            x = x - learning_rate * (left @ inner.step(left.T @ g @ right) @ right.T)
        if not current:
            renew(g, k)
        path.append(x)
    return np.array(path)


def soap(grads, x0, learning_rate, *, b1=0.95, b2=0.95, shampoo_beta=None, eps=1e-8, **how):
    """SOAP: Adam in the eigenbasis."""
    beta = b2 if shampoo_beta is None else shampoo_beta
    return in_eigenbasis(grads, x0, learning_rate, Adam(b1, b2, eps), shampoo_beta=beta, **how)


def kl_soap(grads, x0, learning_rate, *, initial=0.1, **how):
    """KL-SOAP: Adam in the eigenbasis of KL-Shampoo's factors."""
    return soap(grads, x0, learning_rate, kl_initial=initial, **how)


def apollo(
    grads, x0, learning_rate, projectors, *, b1=0.9, b2=0.999, eps=1e-6, scale=1.0,
    per="columns", growth=1.01,
):  # fmt: skip
    """Zhu et al. 2024, algorithm 1, of matrices with no more rows than columns; the limiter, and
    the bias correction of the step, as in the authors' code. Projectors [T, m, r].
    """
    x, path, last, adam = np.array(x0, np.float64), [], None, Adam(b1, b2, eps, corrected=False)
    for t, (g, p) in enumerate(zip(np.asarray(grads, np.float64), projectors, strict=True), 1):
        low = p.T @ g
        step = adam.step(low)
        axis = 0 if per == "columns" else None
        u = g * (np.linalg.norm(step, axis=axis) / np.linalg.norm(low, axis=axis))
        norm = np.linalg.norm(u)
        if last is not None and norm > growth * last:
            u, norm = u * growth * last / norm, growth * last
        last = norm
        x = x - learning_rate * scale * u * np.sqrt(1 - b2**t) / (1 - b1**t)
        path.append(x)
    return np.array(path)
