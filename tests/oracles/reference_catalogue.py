"""Float64 NumPy references of the methods beyond the textbook, each written from its paper.

As in reference.py: `path = lion(grads, x0, 1e-3)` is the parameter [T, *shape] after each step; `grads` is a sequence
[T, *shape] or a function of the parameter together with `steps=T`; a learning rate is a number or a function of the
step. One call is one leaf: a norm is over x. `convention=` is "paper", "optax" (0.2.8), "torch" (2.13.0),
"pytorch_optimizer" (4.1.0) or "authors" (their published code) where these differ.

Nothing here is optimized, and nothing may import gradxform: the library is judged by these lines.
"""

import math

import numpy as np
from reference import Walk, of_step, over


def norm(x):
    """The Euclidean norm of a leaf."""
    return math.sqrt(float(np.sum(x * x)))


class Average:
    """Kingma and Ba 2015, section 3: m = decay m + (1 - decay) x; `hat` is m / (1 - decay^t)."""

    def __init__(self, like, decay, start=0.0):
        self.value, self.decay, self.t = np.full_like(like, start), decay, 0

    def __call__(self, x):
        self.value, self.t = self.decay * self.value + (1 - self.decay) * x, self.t + 1
        return self.value

    @property
    def hat(self):
        return self.value / (1 - self.decay**self.t)


# Signs


def sign_sgd(grads, x0, learning_rate, *, steps=None):
    """Bernstein et al. 2018, Algorithm 1: x = x - lr sign(g)."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    for t, g in walk:
        walk.x = walk.x - rate(t - 1) * np.sign(g)
    return walk.path


def signum(grads, x0, learning_rate, beta=0.9, *, steps=None):
    """Bernstein et al. 2018, Algorithm 2: m = beta m + (1 - beta) g, x = x - lr sign(m)."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m = Average(walk.x, beta)
    for t, g in walk:
        walk.x = walk.x - rate(t - 1) * np.sign(m(g))
    return walk.path


def lion(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.99,
    weight_decay=None,
    *,
    mode="hard",
    smooth_beta=1.0,
    convention="optax",
    steps=None,
):
    """Chen et al. 2023, Program 1: u = sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g; x = x - lr (u + wd x).

    Differences: wd is 1e-3 in Optax, 0 in Keras and lion_pytorch.
    Optax alone: mode "smooth" has tanh(smooth_beta c), "refined" clips c to [-1, 1].
    """
    weight_decay = (
        (1e-3 if convention == "optax" else 0.0) if weight_decay is None else weight_decay
    )
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m = np.zeros_like(walk.x)
    for t, g in walk:
        c = b1 * m + (1 - b1) * g
        u = {"hard": np.sign(c), "smooth": np.tanh(smooth_beta * c), "refined": np.clip(c, -1, 1)}[
            mode
        ]
        m = b2 * m + (1 - b2) * g
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path


def rprop(
    grads,
    x0,
    learning_rate,
    eta_minus=0.5,
    eta_plus=1.2,
    min_step_size=1e-6,
    max_step_size=50.0,
    *,
    convention="optax",
    steps=None,
):
    """Riedmiller and Braun 1993; iRprop- of Igel and Huesken 2000: s grows while g keeps its sign, x = x - s sign(g).

    Where g turned, s shrinks, nothing moves, and g counts as 0 at the next step. Differences: Optax applies each step
    one update late, and drops it where the sign has turned since.
    """
    walk = Walk(grads, x0, steps)
    s, before, waiting = (
        np.full_like(walk.x, learning_rate),
        np.zeros_like(walk.x),
        np.zeros_like(walk.x),
    )
    for _, g in walk:
        agree = np.sign(g) * np.sign(before)
        s = np.where(agree > 0, np.clip(s * eta_plus, min_step_size, max_step_size), s)
        s = np.where(agree < 0, np.clip(s * eta_minus, min_step_size, max_step_size), s)
        before = np.where(agree < 0, 0.0, g)
        now = s * np.sign(before)
        walk.x = walk.x - (np.where(agree < 0, 0.0, waiting) if convention == "optax" else now)
        waiting = now
    return walk.path


# The Adam family


def adamaxw(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    weight_decay=1e-4,
    *,
    convention="optax",
    steps=None,
):
    """Kingma and Ba 2015, Algorithm 2, see `reference.adamax`, with x = x - lr (u + wd x)."""
    eps = (
        {"paper": 0.0, "optax": 1e-8, "torch": 1e-8, "keras": 1e-7}[convention]
        if eps is None
        else eps
    )
    inside, after = (0.0, eps) if convention == "keras" else (eps, 0.0)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), np.zeros_like(walk.x)
    for t, g in walk:
        m(g)
        v = np.maximum(b2 * v, np.abs(g) + inside)
        walk.x = walk.x - rate(t - 1) * (over(m.hat, v + after) + weight_decay * walk.x)
    return walk.path


def radam(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    *,
    eps_root=0.0,
    threshold=None,
    nesterov=False,
    convention="optax",
    steps=None,
):
    """Liu et al. 2020, Algorithm 2: adaptive only where rho_t exceeds 4, with the rectification r_t.

    rho_t = rho_inf - 2 t b2^t / (1 - b2^t). Differences: Optax and torch need rho_t of 5 (Optax at least, torch more);
    the paper has no eps, Optax's is outside the corrected root, torch's is added before the correction.
    """
    eps = (0.0 if convention == "paper" else 1e-8) if eps is None else eps
    threshold = (4.0 if convention == "paper" else 5.0) if threshold is None else threshold
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    end = 2 / (1 - b2) - 1
    for t, g in walk:
        m(g)
        v(g * g)
        m_hat = (
            b1 * m.value / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t) if nesterov else m.hat
        )
        rho = end - 2 * t * b2**t / (1 - b2**t)
        u = m_hat
        if rho >= threshold:
            r = math.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))
            if convention == "torch":
                u = r * math.sqrt(1 - b2**t) * over(m_hat, np.sqrt(v.value) + eps)
            else:
                u = r * over(m_hat, np.sqrt(v.hat + eps_root) + eps)
        walk.x = walk.x - rate(t - 1) * u
    return walk.path


def simplified_ademamix(
    grads,
    x0,
    learning_rate,
    b1=0.99,
    b2=0.95,
    alpha=0.0,
    eps=1e-8,
    weight_decay=0.0,
    *,
    eps_root=0.0,
    steps=None,
):
    """Morwani et al. 2025: m = b1 m + g, u = (m + alpha g) / (sqrt(v_hat) + eps)."""
    rate, alpha, walk = of_step(learning_rate), of_step(alpha), Walk(grads, x0, steps)
    m, v = np.zeros_like(walk.x), Average(walk.x, b2)
    for t, g in walk:
        m = b1 * m + g
        v(g * g)
        u = over(m + alpha(t - 1) * g, np.sqrt(v.hat + eps_root) + eps)
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path


def adan(
    grads,
    x0,
    learning_rate,
    b1=0.98,
    b2=0.92,
    b3=0.99,
    eps=None,
    weight_decay=0.0,
    *,
    eps_root=None,
    convention="optax",
    steps=None,
):
    """Xie et al. 2022, Algorithm 1, with the paper's betas written as the shares kept, 1 - beta.

    m, v, n average g, g - g_before and (g + b2 (g - g_before))^2; x = (x - lr (m + b2 v) / sqrt(n + eps)) / (1 + lr
    wd). m_1 = g_1, v_1 = 0, n_1 = g_1^2. Differences: the authors' code (and pytorch_optimizer) starts at 0, corrects
    all three, and has eps outside the root. Optax as the code, but with 1 - b2 for b2 in both look-aheads (the paper's
    1 - beta_2 is b2 here), with decay x - lr (u + wd x), and eps_root 1e-8 in `adan` besides.
    """
    eps = (0.0 if convention == "paper" else 1e-8) if eps is None else eps
    eps_root = (0.0 if convention == "authors" else 1e-8) if eps_root is None else eps_root
    share = 1 - b2 if convention == "optax" else b2
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v, n = Average(walk.x, b1), Average(walk.x, b2), Average(walk.x, b3)
    before = None
    for t, g in walk:
        change = np.zeros_like(g) if before is None else g - before
        if convention == "paper" and t == 1:
            m.value, n.value = g, g * g
        else:
            m(g)
            n((g + share * change) ** 2)
        v(change)
        before, lr = g, rate(t - 1)
        if convention == "paper":
            u = over(m.value + share * v.value, np.sqrt(n.value + eps_root) + eps)
        else:
            u = over(m.hat + share * v.hat, np.sqrt(n.hat + eps_root) + eps)
        if convention == "optax":
            walk.x = walk.x - lr * (u + weight_decay * walk.x)
        else:
            walk.x = (walk.x - lr * u) / (1 + lr * weight_decay)
    return walk.path


def adopt(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.9999,
    eps=1e-6,
    *,
    clip=lambda t: t**0.25,
    nesterov=False,
    convention="optax",
    steps=None,
):
    """Taniguchi et al. 2024, Algorithm 2: v_0 = g_0^2; m = b1 m + (1 - b1) clip(g / max(sqrt(v), eps), c_t), x = x - lr m.

    v takes g in afterwards. Differences: the paper counts t = 1 at the second gradient, as Optax does;
    pytorch_optimizer counts 2 there. nesterov is Optax's.
    """
    late = {"optax": 1, "paper": 1, "pytorch_optimizer": 0}[convention]
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = np.zeros_like(walk.x), None
    for t, g in walk:
        if v is None:
            v = g * g
            continue
        x = g / np.maximum(np.sqrt(v), eps)
        if clip is not None:
            x = np.clip(x, -clip(t - late), clip(t - late))
        m = b1 * m + (1 - b1) * x
        walk.x = walk.x - rate(t - 1) * (b1 * m + (1 - b1) * x if nesterov else m)
        v = b2 * v + (1 - b2) * g * g
    return walk.path


def acprop(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-16,
    eps_root=1e-16,
    weight_decay=0.0,
    *,
    convention="optax",
    steps=None,
):
    """Zhuang et al. 2021, Algorithm 2: x = x - lr g / sqrt(s_before), s = b2 s + (1 - b2) (g - m)^2 + eps.

    The denominator of the first step is 1. Differences: m in s is that of this step in the authors' code, as in
    AdaBelief, and that of the step before in Optax.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, s = np.zeros_like(walk.x), np.zeros_like(walk.x)
    for t, g in walk:
        denominator = 1 + eps if t == 1 else np.sqrt(s / (1 - b2 ** (t - 1))) + eps
        new = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - (m if convention == "optax" else new)) ** 2 + eps_root
        m = new
        walk.x = walk.x - rate(t - 1) * (g / denominator + weight_decay * walk.x)
    return walk.path


def laprop(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-15,
    weight_decay=0.0,
    *,
    convention="paper",
    steps=None,
):
    """Ziyin, Wang and Ueda 2020, Algorithm 1: m averages g / (sqrt(v_hat) + eps); x = x - lr (m_hat + wd x).

    Differences: the authors' code averages lr g / (...) instead, the same while lr stays. pytorch_optimizer divides by
    (sqrt(v) + eps) / sqrt(1 - b2^t), and decays x after the step.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    for t, g in walk:
        v(g * g)
        lr = rate(t - 1)
        if convention == "paper":
            m(over(g, np.sqrt(v.hat) + eps))
            walk.x = walk.x - lr * (m.hat + weight_decay * walk.x)
        else:
            m(over(g, (np.sqrt(v.value) + eps) / math.sqrt(1 - b2**t)))
            walk.x = (walk.x - lr * m.hat) * (1 - lr * weight_decay)
    return walk.path


def qhm(grads, x0, learning_rate, beta=0.999, nu=0.7, *, steps=None):
    """Ma and Yarats 2019, equations 3 and 4: m averages g; x = x - lr ((1 - nu) g + nu m)."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m = Average(walk.x, beta)
    for t, g in walk:
        walk.x = walk.x - rate(t - 1) * ((1 - nu) * g + nu * m(g))
    return walk.path


def qhadam(
    grads,
    x0,
    learning_rate,
    b1=0.995,
    b2=0.999,
    nu1=0.7,
    nu2=1.0,
    eps=1e-8,
    weight_decay=0.0,
    *,
    steps=None,
):
    """Ma and Yarats 2019, section 4: ((1 - nu1) g + nu1 m_hat) / (sqrt((1 - nu2) g^2 + nu2 v_hat) + eps)."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    for t, g in walk:
        m(g)
        v(g * g)
        u = over((1 - nu1) * g + nu1 * m.hat, np.sqrt((1 - nu2) * g * g + nu2 * v.hat) + eps)
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path


def padam(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    power=None,
    eps=None,
    weight_decay=0.0,
    *,
    convention="paper",
    steps=None,
):
    """Chen et al. 2018, Algorithm 1: AMSGrad with v_max^p for its root, x = x - lr m / v_max^p.

    Differences: pytorch_optimizer has no maximum; m / (1 - b1^t) sqrt(1 - b2^t) / (sqrt(v) + eps)^(2p), p = 1/4.
    """
    power = (0.125 if convention == "paper" else 0.25) if power is None else power
    eps = (0.0 if convention == "paper" else 1e-8) if eps is None else eps
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v, largest = Average(walk.x, b1), Average(walk.x, b2), np.zeros_like(walk.x)
    for t, g in walk:
        m(g)
        largest = np.maximum(largest, v(g * g))
        if convention == "paper":
            u = over(m.value, (np.sqrt(largest) + eps) ** (2 * power))
        else:
            u = math.sqrt(1 - b2**t) * over(m.hat, (np.sqrt(v.value) + eps) ** (2 * power))
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path


def adam_atan2(
    grads, x0, learning_rate, b1=0.9, b2=0.999, a=1.27, b=1.0, weight_decay=0.0, *, steps=None
):
    """Everett et al. 2024: u = a atan2(m_hat, b sqrt(v_hat)) for Adam's quotient."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    for t, g in walk:
        m(g)
        v(g * g)
        walk.x = walk.x - rate(t - 1) * (
            a * np.arctan2(m.hat, b * np.sqrt(v.hat)) + weight_decay * walk.x
        )
    return walk.path


def stable_adamw(
    grads, x0, learning_rate, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01, *, steps=None
):
    """Wortsman et al. 2023, Algorithm 2: AdamW with lr / max(1, RMS), RMS^2 = mean(g^2 / max(v_hat, eps^2)).

    Their beta (1 - beta^(t-1)) / (1 - beta^t) is the bias correction inside the average.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    for t, g in walk:
        m(g)
        v(g * g)
        rms = math.sqrt(np.mean(g * g / np.maximum(v.hat, eps * eps)))
        u = over(m.hat, np.sqrt(v.hat) + eps)
        walk.x = walk.x - rate(t - 1) / max(1.0, rms) * (u + weight_decay * walk.x)
    return walk.path


# Optimism


def optimistic(grads, x0, learning_rate, alpha=1.0, beta=1.0, *, rule=None, steps=None):
    """Mokhtari et al. 2020; Daskalakis et al. 2018: x = x - lr (alpha u + beta (u - u_before)), u_before = u at first.

    u is the gradient, or what `rule(t, g)` makes of it.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    before = None
    for t, g in walk:
        u = g if rule is None else rule(t, g)
        change = 0.0 if before is None else u - before
        before = u
        walk.x = walk.x - rate(t - 1) * (alpha * u + beta * change)
    return walk.path


class NadamRule:
    """Dozat 2016 without its momentum schedule, as u(t, g): Optax's `scale_by_adam(nesterov=True)`."""

    def __init__(self, like, b1=0.9, b2=0.999, eps=1e-8, nesterov=True):
        self.m, self.v, self.b1, self.eps, self.nesterov = (
            Average(like, b1),
            Average(like, b2),
            b1,
            eps,
            nesterov,
        )

    def __call__(self, t, g):
        m, b1 = self.m(g), self.b1
        self.v(g * g)
        ahead = (
            b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            if self.nesterov
            else self.m.hat
        )
        return over(ahead, np.sqrt(self.v.hat) + self.eps)


# One scale for a leaf


def trust(x, u, *, coefficient=1.0, min_norm=0.0, max_norm=math.inf, eps=0.0):
    """You et al. 2020, Algorithm 2, line 10: coefficient phi(norm(x)) / norm(u), and 1 where either is 0."""
    top, bottom = min(max(norm(x), min_norm), max_norm), max(norm(u), min_norm)
    return 1.0 if top == 0 or bottom == 0 else coefficient * top / (bottom + eps)


def lamb(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    weight_decay=0.0,
    *,
    eps_root=0.0,
    convention="optax",
    steps=None,
):
    """You et al. 2020, Algorithm 2: r = m_hat / (sqrt(v_hat) + eps) + wd x, x = x - lr norm(x) / norm(r) r.

    Differences: pytorch_optimizer corrects no bias in r, clamps norm(x) at 10, adds eps to norm(r), divides lr by 1 -
    b1^t. Keras decays first, x (1 - lr wd), measures that x, and has no wd x in r; eps 1e-7.
    """
    eps = (1e-7 if convention == "keras" else 1e-6) if eps is None else eps
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    for t, g in walk:
        m(g)
        v(g * g)
        if convention == "keras":
            walk.x = walk.x * (1 - rate(t - 1) * weight_decay)
            r = over(m.hat, np.sqrt(v.hat + eps_root) + eps)
            ratio = trust(walk.x, r)
        elif convention == "optax":
            r = over(m.hat, np.sqrt(v.hat + eps_root) + eps) + weight_decay * walk.x
            ratio = trust(walk.x, r)
        else:
            r = over(m.value, np.sqrt(v.value + eps_root) + eps) + weight_decay * walk.x
            ratio = trust(walk.x, r, max_norm=10.0, eps=eps) / (1 - b1**t)
        walk.x = walk.x - rate(t - 1) * ratio * r
    return walk.path


def lars(
    grads,
    x0,
    learning_rate,
    weight_decay=0.0,
    trust_coefficient=0.001,
    eps=0.0,
    momentum=0.9,
    *,
    nesterov=False,
    convention="optax",
    steps=None,
):
    """You, Gitman and Ginsburg 2017, Algorithm 1: w = momentum w + lr ratio (g + wd x), x = x - w.

    ratio = coefficient norm(x) / (norm(g) + wd norm(x)). Differences: Optax divides by norm(g + wd x).
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    w = np.zeros_like(walk.x)
    for t, g in walk:
        d = g + weight_decay * walk.x
        bottom = norm(d) if convention == "optax" else norm(g) + weight_decay * norm(walk.x)
        none = norm(walk.x) == 0 or (norm(d) if convention == "optax" else norm(g)) == 0
        ratio = 1.0 if none else trust_coefficient * norm(walk.x) / (bottom + eps)
        new = rate(t - 1) * ratio * d
        w = momentum * w + new
        walk.x = walk.x - (new + momentum * w if nesterov else w)
    return walk.path


def fromage(grads, x0, learning_rate, min_norm=1e-6, *, steps=None):
    """Bernstein et al. 2020, Algorithm 1: x = (x - lr norm(x) / norm(g) g) / sqrt(1 + lr^2); min_norm is Optax's."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    for t, g in walk:
        lr = rate(t - 1)
        walk.x = (walk.x - lr * trust(walk.x, g, min_norm=min_norm) * g) / math.sqrt(1 + lr * lr)
    return walk.path


def novograd(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.25,
    eps=1e-6,
    weight_decay=0.0,
    *,
    eps_root=0.0,
    steps=None,
):
    """Ginsburg et al. 2019, Algorithm 1: v averages norm(g)^2 from its first value on.

    m = b1 m + g / (sqrt(v) + eps) + wd x, x = x - lr m.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = np.zeros_like(walk.x), None
    for t, g in walk:
        v = norm(g) ** 2 if v is None else b2 * v + (1 - b2) * norm(g) ** 2
        m = b1 * m + over(g, np.full_like(g, math.sqrt(v + eps_root) + eps)) + weight_decay * walk.x
        walk.x = walk.x - rate(t - 1) * m
    return walk.path


def sm3(grads, x0, learning_rate, momentum=0.9, b2=1.0, eps=1e-8, *, steps=None):
    """Anil et al. 2019, Algorithm SM3-II: nu = min_r mu_r + g^2, mu_r = max of nu over the other axes.

    x = x - lr m, m averaging g / sqrt(nu + eps). eps, and b2 < 1 (nu = b2 min mu + (1 - b2) g^2), are Optax's; the
    paper has 0/0 = 0.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    rank = walk.x.ndim
    mu = [
        np.zeros([n if i == axis else 1 for i, n in enumerate(walk.x.shape)])
        for axis in range(rank)
    ]
    m = Average(walk.x, momentum)
    for t, g in walk:
        least = mu[0]
        for bound in mu[1:]:
            least = np.minimum(least, bound)
        nu = b2 * least + (1.0 if b2 == 1 else 1 - b2) * g * g
        mu = [
            np.max(nu, axis=tuple(i for i in range(rank) if i != axis), keepdims=True)
            for axis in range(rank)
        ]
        m(np.where(nu > 0, over(g, np.sqrt(nu + eps)), 0.0))
        walk.x = walk.x - rate(t - 1) * m.value
    return walk.path


# Agreement with the gradient


def cautious(u, g, convention="paper"):
    """Liang et al. 2024, Algorithm 1: keep the entries of u that agree with g, times n / (number kept + 1).

    Differences: lion_pytorch divides by the share kept, at least 1e-5.
    """
    keep = u * g > 0
    return (
        u
        * keep
        / ((np.sum(keep) + 1) / u.size if convention == "paper" else max(np.mean(keep), 1e-5))
    )


def grams(u, g):
    """Cao, Li and Song 2024, Algorithm 1: the size of u, the sign of g."""
    return np.sign(g) * np.abs(u)


def adamw_with(
    agreement, grads, x0, learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, *, steps=None
):
    """AdamW whose step passes through `cautious` or `grams` before the decay is added."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = Average(walk.x, b1), Average(walk.x, b2)
    for t, g in walk:
        m(g)
        v(g * g)
        u = agreement(over(m.hat, np.sqrt(v.hat) + eps), g)
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path
