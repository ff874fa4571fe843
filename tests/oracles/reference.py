"""Float64 NumPy references of the textbook methods, each written from its paper.

    path = adam(grads, x0, 1e-3, convention="torch")        # [T, *shape], the parameter after each step

`grads` is a fixed sequence [T, *shape], or a function of the parameter together with `steps=T`. A learning
rate is a number or a function of the step, which is 0 at the first update; t = step + 1. Where
implementations put different equations or defaults under one name, `convention=` chooses: "paper", "optax"
(0.2.8), "torch" (2.13.0) or "keras" (3.15.1); a default written as None follows it. torch_golden.py holds
what torch computed, and test_reference.py compares with it, with Optax and with Keras.

Nothing here is optimized, and nothing may import gradxform: the library is judged by these lines.
"""

import math

import numpy as np

CONVENTIONS = ("paper", "optax", "torch", "keras")


class Walk:
    """The parameter, moved by the loop body: `for t, g in walk: walk.x = walk.x - ...`."""

    def __init__(self, grads, x0, steps=None):
        if callable(grads) == (steps is None):
            raise TypeError("give `steps` with a gradient function, and only then")
        self.x = np.array(x0, np.float64)
        self.gradient = grads if callable(grads) else None
        self.grads = None if callable(grads) else np.asarray(grads, np.float64)
        self.steps = len(self.grads) if steps is None else steps
        self.points = []

    def __iter__(self):
        for t in range(1, self.steps + 1):
            g = (
                self.grads[t - 1]
                if self.gradient is None
                else np.asarray(self.gradient(self.x), np.float64)
            )
            if g.shape != self.x.shape:
                raise ValueError(
                    f"gradient of shape {g.shape} for a parameter of shape {self.x.shape}"
                )
            yield t, g
            self.points.append(self.x)

    @property
    def path(self):
        return np.stack(self.points)


def of_step(value):
    """A number or a function of the step, as a function of the step."""
    return value if callable(value) else lambda step: value


def default(given, convention, **by_convention):
    """`given`, or what the convention uses where nothing was given."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}; got {convention!r}")
    if given is not None:
        return given
    if convention not in by_convention:
        raise ValueError(f"the {convention!r} convention has no default here: give a value")
    return by_convention[convention]


def over(a, b):
    """a / b, and 0 where b = 0: the pseudo-inverse that methods without an epsilon imply."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


# Directions


def sgd(grads, x0, learning_rate, *, steps=None):
    """Robbins and Monro 1951; Cauchy 1847: x = x - lr g."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    for t, g in walk:
        walk.x = walk.x - rate(t - 1) * g
    return walk.path


def momentum(
    grads,
    x0,
    learning_rate,
    decay,
    *,
    dampening=0.0,
    nesterov=False,
    convention="optax",
    steps=None,
):
    """Polyak 1964; Sutskever et al. 2013, eqs. 1-2: v = decay v + (1 - dampening) g, x = x - lr v.

    nesterov: x = x - lr (decay v + (1 - dampening) g), see `nesterov`.
    Differences: paper and Keras keep lr inside the buffer (v = decay v + lr g), Optax and torch apply it
    after, so they part when lr changes; torch leaves the first gradient undamped (v_1 = g_1); torch refuses
    dampening with nesterov.
    """
    rate_in_buffer = default(None, convention, paper=True, keras=True, optax=False, torch=False)
    if convention == "torch" and nesterov and dampening:
        raise ValueError("torch has no dampened Nesterov momentum")
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    v = np.zeros_like(walk.x)
    for t, g in walk:
        lr = rate(t - 1)
        share = 1.0 if convention == "torch" and t == 1 else 1.0 - dampening
        new = share * g * (lr if rate_in_buffer else 1.0)
        v = decay * v + new
        u = decay * v + new if nesterov else v
        walk.x = walk.x - (u if rate_in_buffer else lr * u)
    return walk.path


def nesterov_lookahead(gradient, x0, learning_rate, decay, *, steps):
    """Nesterov 1983 as Sutskever et al. 2013, eqs. 3-4: v = decay v - lr g(x + decay v), x = x + v."""
    rate, x = of_step(learning_rate), np.array(x0, np.float64)
    v, points = np.zeros_like(x), []
    for step in range(steps):
        v = decay * v - rate(step) * np.asarray(gradient(x + decay * v), np.float64)
        x = x + v
        points.append(x)
    return np.stack(points)


def nesterov(grads, x0, learning_rate, decay, *, convention="optax", steps=None):
    """Bengio et al. 2013, simplified Nesterov: v = decay v + g, x = x - lr (g + decay v).

    With constant lr, x here is the look-ahead point y_t = x_t + decay (x_t - x_{t-1}) of
    `nesterov_lookahead`.
    """
    return momentum(
        grads, x0, learning_rate, decay, nesterov=True, convention=convention, steps=steps
    )


def ema(grads, x0, learning_rate, decay, *, debias=True, steps=None):
    """Kingma and Ba 2015, section 3: m = decay m + (1 - decay) g, x = x - lr m / (1 - decay^t)."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m = np.zeros_like(walk.x)
    for t, g in walk:
        m = decay * m + (1 - decay) * g
        walk.x = walk.x - rate(t - 1) * (m / (1 - decay**t) if debias else m)
    return walk.path


def moving_average(values, decay, *, debias=True, initial=0.0):
    """Kingma and Ba 2015, section 3, of a given sequence: the average after each value."""
    average, averages = np.full(np.shape(values[0]), initial, np.float64), []
    for t, value in enumerate(np.asarray(values, np.float64), start=1):
        average = decay * average + (1 - decay) * value
        averages.append(average / (1 - decay**t) if debias else average)
    return np.stack(averages)


# Preconditioners


def adagrad(
    grads,
    x0,
    learning_rate,
    initial_accumulator_value=None,
    eps=None,
    *,
    convention="optax",
    steps=None,
):
    """Duchi, Hazan and Singer 2011, Figure 1: v = v + g^2, x = x - lr g / (eps + sqrt(v)).

    Differences: paper and torch start v at 0 with eps outside the root (0 and 1e-10); Optax and Keras start
    it at 0.1 with eps inside, g / sqrt(v + 1e-7), and Optax moves nothing where v = 0. torch's lr_decay d is
    lr / (1 + d step), a schedule.
    """
    start = default(
        initial_accumulator_value, convention, paper=0.0, optax=0.1, torch=0.0, keras=0.1
    )
    eps = default(eps, convention, paper=0.0, optax=1e-7, torch=1e-10, keras=1e-7)
    inside = convention in ("optax", "keras")
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    v = np.full_like(walk.x, start)
    for t, g in walk:
        v = v + g**2
        u = over(g, np.sqrt(v + eps) if inside else np.sqrt(v) + eps)
        walk.x = walk.x - rate(t - 1) * u
    return walk.path


def adadelta(grads, x0, learning_rate=1.0, rho=None, eps=None, *, convention="optax", steps=None):
    """Zeiler 2012, Algorithm 1: u = g sqrt(d + eps) / sqrt(v + eps), x = x - lr u.

    v and d are the averages of g^2 and u^2, v = rho v + (1 - rho) g^2; u reads the old d.

    Differences: defaults only. The learning rate is not the paper's, and multiplies after d is updated.
    """
    rho = default(rho, convention, paper=0.95, optax=0.9, torch=0.9, keras=0.95)
    eps = default(eps, convention, paper=1e-6, optax=1e-6, torch=1e-6, keras=1e-7)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    v, d = np.zeros_like(walk.x), np.zeros_like(walk.x)
    for t, g in walk:
        v = rho * v + (1 - rho) * g**2
        u = np.sqrt(d + eps) / np.sqrt(v + eps) * g
        d = rho * d + (1 - rho) * u**2
        walk.x = walk.x - rate(t - 1) * u
    return walk.path


def rmsprop(
    grads,
    x0,
    learning_rate,
    decay=None,
    eps=None,
    *,
    centered=False,
    momentum=0.0,
    nesterov=False,
    initial_scale=0.0,
    bias_correction=False,
    eps_in_sqrt=None,
    convention="optax",
    steps=None,
):
    """Tieleman and Hinton 2012, lecture 6e; centred, with momentum: Graves 2013, arXiv:1308.0850, eqs. 38-41.

    v = decay v + (1 - decay) g^2, u = g / sqrt(v + eps), b = momentum b + lr u, x = x - b;
    centred: sqrt(v - a^2 + eps) with a = decay a + (1 - decay) g.
    Differences: torch has eps outside the root, the others inside (the lecture has none); torch multiplies lr
    after the momentum buffer, the others before, so they part when lr changes; decay is .99 in torch, else
    .9. nesterov, initial_scale and bias_correction are Optax's only; centred and corrected, Optax's first
    variance is g^2 - g^2, so its first step is g / sqrt(eps), or NaN with eps outside the root: no oracle
    there.
    """
    decay = default(decay, convention, paper=0.9, optax=0.9, torch=0.99, keras=0.9)
    eps = default(eps, convention, paper=0.0, optax=1e-8, torch=1e-8, keras=1e-7)
    inside = default(eps_in_sqrt, convention, paper=True, optax=True, torch=False, keras=True)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    v, a, b = np.full_like(walk.x, initial_scale), np.zeros_like(walk.x), np.zeros_like(walk.x)
    for t, g in walk:
        lr = rate(t - 1)
        v = decay * v + (1 - decay) * g**2
        a = decay * a + (1 - decay) * g
        correction = 1 - decay**t if bias_correction else 1.0
        variance = v / correction - (a / correction) ** 2 if centered else v / correction
        u = over(g, np.sqrt(variance + eps) if inside else np.sqrt(variance) + eps)
        new = u if convention == "torch" else lr * u
        b = momentum * b + new
        step = momentum * b + new if nesterov else b
        walk.x = walk.x - (lr * step if convention == "torch" else step)
    return walk.path


# The Adam family


class AdamRule:
    """Kingma and Ba 2015, Algorithm 1, as u(t, g); Keras: the eps-hat form at the end of section 2."""

    def __init__(self, like, b1, b2, eps, eps_root, debias, convention):
        self.m, self.v = np.zeros_like(like), np.zeros_like(like)
        self.b1, self.b2, self.debias, self.convention = b1, b2, debias, convention
        self.eps_root = eps_root
        self.eps = default(eps, convention, paper=1e-8, optax=1e-8, torch=1e-8, keras=1e-7)

    def __call__(self, t, g):
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        c1, c2 = (1 - self.b1**t, 1 - self.b2**t) if self.debias else (1.0, 1.0)
        if self.convention == "keras":
            return math.sqrt(c2) / c1 * over(self.m, np.sqrt(self.v + self.eps_root) + self.eps)
        return over(self.m / c1, np.sqrt(self.v / c2 + self.eps_root) + self.eps)


def adam(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    *,
    eps_root=0.0,
    debias=True,
    convention="optax",
    steps=None,
):
    """Kingma and Ba 2015, Algorithm 1: x = x - lr m_hat / (sqrt(v_hat + eps_root) + eps).

    Differences: Keras has the paper's eps-hat form, lr sqrt(1 - b2^t)/(1 - b1^t) m / (sqrt(v) + eps), with
    eps 1e-7: the same with eps / sqrt(1 - b2^t), so 32 times larger at t = 1. eps_root is Optax's only.
    """
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    u = AdamRule(walk.x, b1, b2, eps, eps_root, debias, convention)
    for t, g in walk:
        walk.x = walk.x - rate(t - 1) * u(t, g)
    return walk.path


def adam_l2(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    weight_decay=0.0,
    *,
    convention="torch",
    steps=None,
):
    """Loshchilov and Hutter 2019, Algorithm 2, line 6, Adam with L2: Adam of g + weight_decay x."""
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    u = AdamRule(walk.x, b1, b2, eps, 0.0, True, convention)
    for t, g in walk:
        walk.x = walk.x - rate(t - 1) * u(t, g + weight_decay * walk.x)
    return walk.path


def adamw(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    weight_decay=None,
    *,
    eta=1.0,
    convention="optax",
    steps=None,
):
    """Loshchilov and Hutter 2019, Algorithm 2, line 12: x = x - eta (lr m_hat / (sqrt(v_hat) + eps) + wd x).

    Differences: in the paper the decay is multiplied by the schedule eta alone and not by lr; Optax, torch
    and Keras have x = x - eta lr (u + wd x). torch and Keras decay first, x (1 - lr wd), which is the same in
    exact arithmetic. Default wd 1e-4 (Optax), 1e-2 (torch), 4e-3 (Keras); Keras has the eps-hat of `adam`.
    """
    wd = default(weight_decay, convention, optax=1e-4, torch=1e-2, keras=4e-3)
    rate, schedule, walk = of_step(learning_rate), of_step(eta), Walk(grads, x0, steps)
    u = AdamRule(walk.x, b1, b2, eps, 0.0, True, convention)
    for t, g in walk:
        lr = rate(t - 1)
        decay = wd if convention == "paper" else lr * wd
        walk.x = walk.x - schedule(t - 1) * (lr * u(t, g) + decay * walk.x)
    return walk.path


def amsgrad(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    *,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
    convention="optax",
    steps=None,
):
    """Reddi, Kale and Kumar 2018, Algorithm 2: v_max = max(v_max, v), x = x - lr m / sqrt(v_max).

    Differences: the paper corrects nothing and has no eps; Optax takes the maximum of the corrected v_hat;
    torch takes the maximum of v and corrects the result, m_hat / (sqrt(v_max / (1 - b2^t)) + eps); Keras as
    torch with eps-hat. Optax's bias_correction_nu=False never corrects v, so no Optax flag gives torch's.
    """
    eps = default(eps, convention, paper=0.0, optax=1e-8, torch=1e-8, keras=1e-7)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v, v_max = (np.zeros_like(walk.x) for _ in range(3))
    for t, g in walk:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        c1, c2 = 1 - b1**t, 1 - b2**t
        if convention == "paper":
            v_max = np.maximum(v_max, v)
            u = over(m, np.sqrt(v_max) + eps)
        elif convention == "optax":
            v_max = np.maximum(v_max, v / c2 if bias_correction_nu else v)
            u = over(m / c1 if bias_correction_mu else m, np.sqrt(v_max + eps_root) + eps)
        elif convention == "torch":
            v_max = np.maximum(v_max, v)
            u = over(m / c1, np.sqrt(v_max / c2) + eps)
        else:
            v_max = np.maximum(v_max, v)
            u = math.sqrt(c2) / c1 * over(m, np.sqrt(v_max) + eps)
        walk.x = walk.x - rate(t - 1) * u
    return walk.path


def adamax(grads, x0, learning_rate, b1=0.9, b2=0.999, eps=None, *, convention="optax", steps=None):
    """Kingma and Ba 2015, Algorithm 2: n = max(b2 n, |g|), x = x - lr / (1 - b1^t) m / n.

    Differences: the paper has no eps; Optax and torch add it to the new gradient, max(b2 n, |g| + 1e-8), and
    so keep it in the state; Keras adds it to the denominator, n + 1e-7.
    """
    eps = default(eps, convention, paper=0.0, optax=1e-8, torch=1e-8, keras=1e-7)
    in_max = default(None, convention, paper=True, optax=True, torch=True, keras=False)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, n = np.zeros_like(walk.x), np.zeros_like(walk.x)
    for t, g in walk:
        m = b1 * m + (1 - b1) * g
        n = np.maximum(b2 * n, np.abs(g) + (eps if in_max else 0.0))
        walk.x = walk.x - rate(t - 1) * over(m / (1 - b1**t), n if in_max else n + eps)
    return walk.path


def nadam(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    *,
    momentum_decay=None,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    convention="optax",
    steps=None,
):
    """Dozat 2016, Algorithm 2: m_hat = mu_{t+1} m / (1 - P_{t+1}) + (1 - mu_t) g / (1 - P_t), then as Adam.

    P_t = mu_1 ... mu_t, mu_t = b1 (1 - 0.96^(t psi) / 2), psi = momentum_decay; Dozat's t / 250 is psi .004.
    Differences: Optax has mu_t = b1; torch psi = .004, Keras psi = 1 and eps 1e-7, both with constant b1 in
    the average m; the paper puts mu_t there too, m = mu_t m + (1 - mu_t) g, and v_hat = b2 v / (1 - b2^t), a
    factor b2 that all others leave out.
    """
    eps = default(eps, convention, paper=1e-8, optax=1e-8, torch=1e-8, keras=1e-7)
    psi = default(momentum_decay, convention, paper=0.004, optax=None, torch=0.004, keras=1.0)
    mu = (lambda t: b1) if psi is None else (lambda t: b1 * (1 - 0.5 * 0.96 ** (t * psi)))
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v, product = np.zeros_like(walk.x), np.zeros_like(walk.x), 1.0
    for t, g in walk:
        lr, x = rate(t - 1), walk.x
        decay = weight_decay * x
        gradient = g if decoupled_weight_decay else g + decay
        average = mu(t) if convention == "paper" else b1
        product = product * mu(t)
        m = average * m + (1 - average) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        m_hat = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * gradient / (1 - product)
        v_hat = (b2 if convention == "paper" else 1.0) * v / (1 - b2**t)
        u = over(m_hat, np.sqrt(v_hat) + eps) + (decay if decoupled_weight_decay else 0.0)
        walk.x = x - lr * u
    return walk.path


def yogi(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-3,
    *,
    eps_root=0.0,
    initial_accumulator_value=None,
    convention="optax",
    steps=None,
):
    """Zaheer et al. 2018, Algorithm 2: v = v - (1 - b2) sign(v - g^2) g^2, x = x - lr m / (sqrt(v) + eps).

    Differences: the paper starts at 0 and corrects nothing; Optax starts both m and v at 1e-6 and divides
    both by 1 - b^t, so m_hat_1 = 9e-6 + g at b1 = .9.
    """
    start = default(initial_accumulator_value, convention, paper=0.0, optax=1e-6)
    corrected = default(None, convention, paper=False, optax=True)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, v = (
        np.full_like(walk.x, start if convention == "optax" else 0.0),
        np.full_like(walk.x, start),
    )
    for t, g in walk:
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        c1, c2 = (1 - b1**t, 1 - b2**t) if corrected else (1.0, 1.0)
        walk.x = walk.x - rate(t - 1) * over(m / c1, np.sqrt(v / c2 + eps_root) + eps)
    return walk.path


def adabelief(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=None,
    eps_root=None,
    *,
    nesterov=False,
    convention="optax",
    steps=None,
):
    """Zhuang et al. 2020, Algorithm 2: s = b2 s + (1 - b2) (g - m)^2 + eps for Adam's v.

    eps inside s accumulates: it is part of the state. Differences: the paper has one eps for both places,
    Optax two (1e-16 each). nesterov is Optax's, as in `nadam`.
    """
    eps = default(eps, convention, optax=1e-16)
    eps_root = default(eps_root, convention, paper=eps, optax=1e-16)
    rate, walk = of_step(learning_rate), Walk(grads, x0, steps)
    m, s = np.zeros_like(walk.x), np.zeros_like(walk.x)
    for t, g in walk:
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m_hat = (
            b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            if nesterov
            else m / (1 - b1**t)
        )
        walk.x = walk.x - rate(t - 1) * over(m_hat, np.sqrt(s / (1 - b2**t)) + eps)
    return walk.path


def ademamix(
    grads,
    x0,
    learning_rate,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    alpha=5.0,
    eps=1e-8,
    *,
    eps_root=0.0,
    weight_decay=0.0,
    steps=None,
):
    """Pagliardini, Ablin and Grangier 2024, Algorithm 1: u = (m1_hat + alpha m2) / (sqrt(v_hat) + eps).

    m1 and v are Adam's; m2 = b3 m2 + (1 - b3) g is not corrected; x = x - lr (u + weight_decay x). b3 and
    alpha may be functions of the step. Differences: Optax ships the constants and no ramps (`ademamix_alpha`,
    `ademamix_b3`), and `scale_by_ademamix` defaults to alpha 6, `ademamix` to 5.
    """
    rate, b3, alpha, walk = (
        of_step(learning_rate),
        of_step(b3),
        of_step(alpha),
        Walk(grads, x0, steps),
    )
    m1, m2, v = (np.zeros_like(walk.x) for _ in range(3))
    for t, g in walk:
        m1 = b1 * m1 + (1 - b1) * g
        m2 = b3(t - 1) * m2 + (1 - b3(t - 1)) * g
        v = b2 * v + (1 - b2) * g**2
        u = over(m1 / (1 - b1**t) + alpha(t - 1) * m2, np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        walk.x = walk.x - rate(t - 1) * (u + weight_decay * walk.x)
    return walk.path


def ademamix_alpha(step, alpha, total):
    """Pagliardini et al. 2024, Algorithm 1, f_alpha: min(t alpha / T, alpha) at t = step + 1."""
    return min((step + 1) * alpha / total, alpha)


def ademamix_b3(step, b3, b1, total):
    """Pagliardini et al. 2024, Algorithm 1, f_beta3, from b1 (its beta_start) to b3, at t = step + 1."""
    p = (step + 1) / total
    if p >= 1:
        return b3
    return min(
        math.exp(math.log(b1) * math.log(b3) / ((1 - p) * math.log(b3) + p * math.log(b1))), b3
    )


# Schedules: functions of the step, 0 at the first update


def constant_schedule(step, value):
    """The same value at every step."""
    return float(value)


def step_decay(step, init_value, decay_rate, every):
    """Staircase, init decay_rate^floor(step / every): torch StepLR, Optax exponential_decay(staircase)."""
    return init_value * decay_rate ** (step // every)


def exponential_decay(
    step,
    init_value,
    transition_steps,
    decay_rate,
    transition_begin=0,
    staircase=False,
    end_value=None,
):
    """init decay_rate^((step - begin) / transition_steps), from `begin` on, and not beyond end_value.

    torch ExponentialLR(gamma) is transition_steps = 1, decay_rate = gamma.
    """
    p = max(step - transition_begin, 0) / transition_steps
    value = init_value * decay_rate ** (math.floor(p) if staircase else p)
    if end_value is None:
        return value
    return max(value, end_value) if decay_rate < 1 else min(value, end_value)


def natural_exponential(step, init_value, rate):
    """init e^(-rate step): exponential_decay with decay_rate = e^-rate and transition_steps = 1."""
    return init_value * math.exp(-rate * step)


def inverse_time(step, init_value, rate):
    """init / (1 + rate step). torch Adagrad(lr_decay=rate); Keras InverseTimeDecay(decay_steps=1)."""
    return init_value / (1 + rate * step)


def inverse_sqrt(step, init_value):
    """init / sqrt(t), t = step + 1: Zinkevich 2003; Duchi et al. 2011; the alpha_t of Reddi et al. 2018."""
    return init_value / math.sqrt(step + 1)


def piecewise_constant_schedule(step, init_value, boundaries_and_scales, *, convention="optax"):
    """init times the scales whose boundary was reached.

    Differences: a boundary counts from step >= boundary on in Optax and torch MultiStepLR, from step >
    boundary on in Keras PiecewiseConstantDecay (which takes values, not scales).
    """
    late = default(None, convention, optax=0, torch=0, keras=1)
    return init_value * math.prod(
        s for boundary, s in boundaries_and_scales.items() if step >= boundary + late
    )


def polynomial_schedule(step, init_value, end_value, power, transition_steps, transition_begin=0):
    """(init - end) (1 - (step - begin) / transition_steps)^power + end, constant before and after."""
    if transition_steps <= 0:
        return float(init_value)
    p = min(max(step - max(transition_begin, 0), 0), transition_steps) / transition_steps
    return (init_value - end_value) * (1 - p) ** power + end_value


def linear_schedule(step, init_value, end_value, transition_steps, transition_begin=0):
    """polynomial_schedule of power 1. torch LinearLR takes the two ends as factors of lr."""
    return polynomial_schedule(step, init_value, end_value, 1, transition_steps, transition_begin)


def cosine_decay_schedule(
    step, init_value, decay_steps, alpha=0.0, exponent=1.0, *, convention="optax"
):
    """Loshchilov and Hutter 2017, eq. 5: init ((1 - alpha) (1 + cos(pi step / decay_steps)) / 2 + alpha).

    Differences: after decay_steps Optax and Keras stay at alpha init, torch CosineAnnealingLR rises again
    with the cosine; alpha is a share of init in Optax and Keras, torch's eta_min = alpha init is a rate.
    exponent is Optax's, on the cosine factor.
    """
    clamp = default(None, convention, optax=True, keras=True, torch=False)
    cosine = (1 + math.cos(math.pi * (min(step, decay_steps) if clamp else step) / decay_steps)) / 2
    return init_value * ((1 - alpha) * cosine**exponent + alpha)


def warmup_cosine_decay_schedule(
    step,
    init_value,
    peak_value,
    warmup_steps,
    decay_steps,
    end_value=0.0,
    exponent=1.0,
    *,
    convention="optax",
):
    """Linear from init to peak in warmup_steps (Goyal et al. 2017), then cosine from peak to end.

    Differences: decay_steps counts the warm-up in Optax, and does not in Keras CosineDecay(warmup_target=).
    """
    length = default(None, convention, optax=decay_steps - warmup_steps, keras=decay_steps)
    if step < warmup_steps:
        return linear_schedule(step, init_value, peak_value, warmup_steps)
    alpha = 0.0 if peak_value == 0 else end_value / peak_value
    return cosine_decay_schedule(step - warmup_steps, peak_value, length, alpha, exponent)


def reduce_on_plateau(
    values,
    factor=0.1,
    patience=10,
    rtol=1e-4,
    atol=0.0,
    cooldown=0,
    min_scale=0.0,
    *,
    convention="optax",
):
    """The scale of the learning rate after each value; better means value < (1 - rtol) best - atol.

    Differences: Optax and Keras reduce at the patience-th bad value, torch at the one after. After a
    reduction Optax and torch ignore `cooldown` bad values, Keras one fewer. torch ignores reductions of at
    most 1e-8. torch has rtol or atol, never both; Keras only atol (min_delta, 1e-4). In all, (1 - rtol) best
    lies above a negative best, so that a plateau there counts as better for ever. Optax at patience 0 reduces
    at every improvement; here 0 means 1, as in Keras.
    """
    allowed = default(
        None, convention, optax=max(patience, 1), torch=patience + 1, keras=max(patience, 1)
    )
    best, bad, rest, scale, scales = math.inf, 0, 0, 1.0, []
    for value in values:
        better = value < (1 - rtol) * best - atol
        best, bad = (value, 0) if better else (best, bad + 1)
        if rest > 0:
            rest -= 1
            bad = 1 if convention == "keras" and rest == 0 and not better else 0
        if bad >= allowed:
            new = max(scale * factor, min_scale)
            scale = scale if convention == "torch" and scale - new <= 1e-8 else new
            bad, rest = 0, cooldown
        scales.append(scale)
    return np.array(scales)
