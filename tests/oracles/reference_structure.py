"""Float64 NumPy references of what has structure: schedules, clipping, factored and low-rank moments, step sizes of their own.

As in reference.py: `grads` is [T, *shape], or a function of the parameter with `steps=`; results are [T, *shape], the parameter after
each step. Methods that look at the whole tree take the tree as one flat vector. Nothing here may import gradxform.
"""

import math

import numpy as np
from reference import Walk

# Schedules


def onecycle(step, ends, values, cosine):
    """Smith and Topin 2018: through (end, value), beginning at (0, values[0])."""
    begin = 0.0
    for end, start, value in zip(ends, values[:-1], values[1:], strict=True):
        if step <= end:
            x = (step - begin) / (end - begin)
            return (
                value + (start - value) / 2 * (1 + math.cos(math.pi * x))
                if cosine
                else start + x * (value - start)
            )
        begin = end
    return values[-1]


def cosine_restarts(step, init, first, t_mul=2.0, m_mul=1.0, alpha=0.0):
    """Loshchilov and Hutter 2017, equation 5, section 4."""
    length, height = first, 1.0
    while step >= length:
        step, length, height = step - length, length * t_mul, height * m_mul
    return init * ((1 - alpha) * height * 0.5 * (1 + math.cos(math.pi * step / length)) + alpha)


def cyclic(step, low, high, up, down, mode="triangular", gamma=1.0):
    """Smith 2017, section 3."""
    cycle, within = divmod(step, up + down)
    y = within / up if within <= up else (up + down - within) / down
    scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**step}[mode]
    return low + (high - low) * y * scale


def cooldown_shape(x, shape, power=2.0):
    """Hägele et al. 2024, section 3."""
    return {
        "linear": 1 - x,
        "sqrt": 1 - math.sqrt(x),
        "cosine": 0.5 * (1 + math.cos(math.pi * x)),
        "power": (1 - x) ** power,
    }[shape]


def wsd(step, peak, warmup, stable, decay, init=0.0, end=0.0, shape="linear", power=2.0):
    """Hu et al. 2024, section 4."""
    if step < warmup:
        return init + (peak - init) * step / warmup
    if step < warmup + stable:
        return peak
    return end + (peak - end) * cooldown_shape(
        min((step - warmup - stable) / decay, 1.0), shape, power
    )


def rex(step, init, steps, end=0.0):
    """Chen et al. 2021, equation 2."""
    z = 1 - min(step / steps, 1.0)
    return end + (init - end) * z / (0.5 + 0.5 * z)


# Clipping


def zclip(
    grads,
    x0,
    learning_rate,
    *,
    threshold=2.5,
    decay=0.97,
    warmup_steps=25,
    max_norm=1.0,
    eps=1e-6,
    steps=None,
):
    """Kumar et al. 2025, algorithm 1: gradient descent with outliers of the norm pulled in; statistics of the warm-up first."""
    walk, seen, mean, variance, zclip.spikes = Walk(grads, x0, steps), [], 0.0, 0.0, 0
    for t, g in walk:
        norm = kept = np.linalg.norm(g)
        if t <= warmup_steps:
            seen.append(norm)
            mean, variance = np.mean(seen), np.var(seen)
        else:
            z = (norm - mean) / (math.sqrt(variance) + eps)
            if z > threshold:
                kept, zclip.spikes = mean + threshold**2 / z * math.sqrt(variance), zclip.spikes + 1
            mean = decay * mean + (1 - decay) * kept
            variance = decay * variance + (1 - decay) * (kept - mean) ** 2
        walk.x = walk.x - learning_rate * g * min(kept / norm, max_norm / norm, 1.0)
    return walk.path


def adagc(
    grads,
    x0,
    learning_rate,
    *,
    lambda_rel=1.05,
    lambda_abs=1.0,
    beta=0.98,
    warmup_steps=100,
    eps=1e-8,
    steps=None,
):
    """Wang et al. 2025, algorithm 1: gradient descent on one leaf, clipped by what its clipped norm has been."""
    walk, gamma = Walk(grads, x0, steps), math.inf
    for t, g in walk:
        norm = np.linalg.norm(g)
        if t < warmup_steps or t == 1:
            g = g * min(lambda_abs / (norm + eps), 1.0)
            gamma = min(gamma, np.linalg.norm(g))
        else:
            g = g * min(lambda_rel * max(gamma, eps) / max(norm, eps), 1.0)
            gamma = beta * gamma + (1 - beta) * np.linalg.norm(g)
        walk.x = walk.x - learning_rate * g
    return walk.path


# Second moments in less memory


def _rms(x):
    return math.sqrt(np.mean(np.square(x)))


def _factored(row, col):
    """R Cᵀ / mean R, a matrix whose rows and columns have these means."""
    return np.outer(row, col) / np.mean(row)


def adafactor(
    grads,
    x0,
    learning_rate=1e-2,
    *,
    decay_rate=0.8,
    threshold=1.0,
    weight_decay=0.0,
    convention="paper",
    steps=None,
):
    """Shazeer and Stern 2018, algorithms 4 to 6, of a matrix or a vector.

    Differences: torch bounds the moments where the paper adds to them; Keras decays before it measures x.
    """
    walk = Walk(grads, x0, steps)
    row, col, v = 0.0, 0.0, 0.0
    tiny = np.finfo(np.float64).eps
    added = 0.0 if convention == "torch" else 1e-30
    for t, g in walk:
        decay = learning_rate * weight_decay * walk.x
        if convention == "keras":
            walk.x = walk.x - decay
        keep, square = 1 - t**-decay_rate, g**2 + added
        if g.ndim == 2:
            row = keep * row + (1 - keep) * square.mean(1)
            col = keep * col + (1 - keep) * square.mean(0)
            moment = np.outer(row, col) / (
                max(row.mean(), tiny) if convention == "torch" else row.mean()
            )
        else:
            moment = v = keep * v + (1 - keep) * square
        if convention == "torch":
            moment = np.maximum(moment, tiny**2)
        u = g / np.sqrt(moment)
        u = u / max(1.0, _rms(u) / threshold)
        rate = max(1e-3, _rms(walk.x)) * min(learning_rate, 1 / math.sqrt(t))
        walk.x = walk.x - (0 if convention == "keras" else decay) - rate * u
    return walk.path


def came(
    grads,
    x0,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    eps1=1e-30,
    eps2=1e-16,
    threshold=1.0,
    weight_decay=0.0,
    steps=None,
):
    """Luo et al. 2023, algorithm 2."""
    walk = Walk(grads, x0, steps)
    row = col = v = m = s_row = s_col = 0.0
    for _, g in walk:
        square = g**2 + eps1
        if g.ndim == 2:
            row, col = b2 * row + (1 - b2) * square.mean(1), b2 * col + (1 - b2) * square.mean(0)
            u = g / np.sqrt(_factored(row, col))
        else:
            v = b2 * v + (1 - b2) * square
            u = g / np.sqrt(v)
        u = u / max(1.0, _rms(u) / threshold)
        m = b1 * m + (1 - b1) * u
        step = m
        if g.ndim == 2:
            unsure = (u - m) ** 2 + eps2
            s_row, s_col = (
                b3 * s_row + (1 - b3) * unsure.mean(1),
                b3 * s_col + (1 - b3) * unsure.mean(0),
            )
            step = m / np.sqrt(_factored(s_row, s_col))
        walk.x = walk.x - learning_rate * (step + weight_decay * walk.x)
    return walk.path


def adam_mini(
    grads, x0, learning_rate, *, axes=None, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, steps=None
):
    """Zhang et al. 2024, algorithm 1; `axes` are averaged over, None for all."""
    walk, m, v = Walk(grads, x0, steps), 0.0, 0.0
    for t, g in walk:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * np.mean(g**2, axis=axes, keepdims=True)
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        walk.x = walk.x - learning_rate * (step + weight_decay * walk.x)
    return walk.path


def galore(
    grads,
    x0,
    learning_rate,
    *,
    rank,
    gap,
    scale=1.0,
    convention="paper",
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    steps=None,
):
    """Zhao et al. 2024, algorithm 2, with Adam; the paper projects the shorter side, Optax the longer."""
    walk, m, v = Walk(grads, x0, steps), 0.0, 0.0
    for t, g in walk:
        rows, columns = g.shape
        left = rows < columns if convention == "paper" else rows >= columns
        if (t - 1) % gap == 0:
            u, _, vt = np.linalg.svd(g, full_matrices=False)
            p = u[:, :rank] if left else vt[:rank].T
        low = p.T @ g if left else g @ p
        m, v = b1 * m + (1 - b1) * low, b2 * v + (1 - b2) * low**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        walk.x = walk.x - learning_rate * scale * (p @ step if left else step @ p.T)
    return walk.path


# Step sizes of their own


def polyak(grads, values, x0, *, f_min=0.0, cap=1.0, eps=0.0):
    """Loizou et al. 2021, equation 3."""
    walk = Walk(grads, x0)
    for t, g in walk:
        walk.x = walk.x - g * min((values[t - 1] - f_min) / (np.sum(g**2) + eps), cap)
    return walk.path


def dog(grads, x0, *, first=None, heuristic=1e-6, eps=1e-8):
    """Ivgi et al. 2023, equation 1."""
    walk, r, total = (
        Walk(grads, x0),
        heuristic * (1 + np.linalg.norm(x0)) if first is None else first,
        0.0,
    )
    start = walk.x
    for _, g in walk:
        r, total = max(r, np.linalg.norm(walk.x - start)), total + np.sum(g**2)
        walk.x = walk.x - g * r / math.sqrt(total + eps)
    return walk.path


def dowg(grads, x0, *, first=1e-4, eps=1e-4):
    """Khaled et al. 2023, algorithm 1."""
    walk, r2, weighted = Walk(grads, x0), first, 0.0
    start = walk.x
    for _, g in walk:
        r2 = max(r2, np.sum((walk.x - start) ** 2))
        weighted += r2 * np.sum(g**2)
        walk.x = walk.x - g * r2 / (math.sqrt(weighted) + eps)
    return walk.path


def momo(grads, values, x0, learning_rate, *, beta=0.9, f_min=0.0, weight_decay=0.0):
    """Schaipp et al. 2024, algorithm 1."""
    walk, m, f, gamma = Walk(grads, x0), 0.0, 0.0, 0.0
    for t, g in walk:
        keep = 0.0 if t == 1 else beta
        m, f = keep * m + (1 - keep) * g, keep * f + (1 - keep) * values[t - 1]
        gamma = keep * gamma + (1 - keep) * np.sum(g * walk.x)
        grow = 1 + learning_rate * weight_decay
        tau = min(
            learning_rate, max(0.0, grow * (f - f_min - gamma) + np.sum(m * walk.x)) / np.sum(m**2)
        )
        walk.x = walk.x / grow - tau * m
    return walk.path


def cocob(grads, x0, *, alpha=100.0, eps=1e-8):
    """Orabona and Tommasi 2017, algorithm 2."""
    walk, theta, absolute, reward, largest = Walk(grads, x0), 0.0, 0.0, 0.0, eps
    start = walk.x
    for _, g in walk:
        largest = np.maximum(largest, np.abs(g))
        absolute = absolute + np.abs(g)
        reward = np.maximum(reward - g * (walk.x - start), 0)
        theta = theta - g
        walk.x = start + theta / (largest * np.maximum(absolute + largest, alpha * largest)) * (
            largest + reward
        )
    return walk.path


def dadapt_adam(
    grads, x0, learning_rate=1.0, *, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, weight_decay=0.0
):
    """Defazio and Mishchenko 2023, algorithm 5, with Adam's correction of the rate."""
    walk, m, v, s, r, d = Walk(grads, x0), 0.0, 0.0, 0.0, 0.0, d0
    root = math.sqrt(b2)
    for t, g in walk:
        rate = d * learning_rate * math.sqrt(1 - b2**t) / (1 - b1**t)
        r = root * r + (1 - root) * rate * np.sum(g * s / (np.sqrt(v) + eps))
        m, v = b1 * m + (1 - b1) * rate * g, b2 * v + (1 - b2) * g**2
        s = root * s + (1 - root) * rate * g
        d = max(d, r / ((1 - root) * np.sum(np.abs(s))))
        walk.x = walk.x - weight_decay * rate * walk.x - m / (np.sqrt(v) + eps)
    return walk.path


def prodigy(
    grads,
    x0,
    learning_rate=1.0,
    *,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    d0=1e-6,
    coefficient=1.0,
    weight_decay=0.0,
):
    """Mishchenko and Defazio 2024, algorithm 4, with Adam's correction of the rate."""
    walk, m, v, s, r, d = Walk(grads, x0), 0.0, 0.0, 0.0, 0.0, d0
    start, b3 = walk.x, math.sqrt(b2) if b3 is None else b3
    for t, g in walk:
        rate = d * learning_rate * math.sqrt(1 - b2**t) / (1 - b1**t)
        r = b3 * r + d / d0 * rate * np.sum(g * (start - walk.x))
        s = b3 * s + d / d0 * rate * g
        m, v = b1 * m + (1 - b1) * d * g, b2 * v + (1 - b2) * (d * g) ** 2
        d = max(d, coefficient * r / np.sum(np.abs(s)))
        walk.x = walk.x - weight_decay * rate * walk.x - rate * m / (np.sqrt(v) + d * eps)
    return walk.path


def mechanic(grads, x0, base_rate, *, weight_decay=1e-2, eps=1e-8, s_init=1e-6, n=6):
    """Cutkosky et al. 2023, algorithm 1, around gradient descent."""
    walk, m, v, r = Walk(grads, x0), np.zeros(n), np.zeros(n), np.zeros(n)
    start, s, betas = walk.x, np.full(n, s_init), 1 - 0.1 ** np.arange(1, n + 1)
    for _, g in walk:
        before = s.sum()
        pulled = (
            g + weight_decay * before * np.linalg.norm(g) / (np.linalg.norm(walk.x) + eps) * walk.x
        )
        delta = (start - walk.x) / (before + eps)
        h = np.sum(pulled * delta)
        clipped = np.clip(h, -m, m)
        m, v = np.maximum(betas * m, abs(h) + eps), betas**2 * v + h**2
        r = betas * r + clipped * s
        s = (s_init / n * m + np.maximum(r, 0)) / (np.sqrt(v) + eps)
        walk.x = start - s.sum() * (delta + base_rate * g)
    return walk.path


def madgrad(grads, x0, learning_rate, *, momentum=0.9, eps=1e-6):
    """Defazio and Jelassi 2022, algorithm 1; eps added to the rate as in the authors' code."""
    walk, s, v = Walk(grads, x0), 0.0, 0.0
    start = walk.x
    for t, g in walk:
        rate = (learning_rate + eps) * math.sqrt(t)
        s, v = s + rate * g, v + rate * g**2
        walk.x = momentum * walk.x + (1 - momentum) * (start - s / (np.cbrt(v) + eps))
    return walk.path


def mars(
    grads,
    x0,
    learning_rate,
    *,
    b1=0.95,
    b2=0.99,
    gamma=0.025,
    eps=1e-8,
    weight_decay=0.0,
    max_norm=1.0,
):
    """Yuan et al. 2024, algorithm 3, with the last step's gradient in place of the last point's."""
    walk, last, m, v = Walk(grads, x0), 0.0, 0.0, 0.0
    for t, g in walk:
        c = g + gamma * b1 / (1 - b1) * (g - last)
        c, last = c / max(1.0, np.linalg.norm(c) / max_norm), g
        m, v = b1 * m + (1 - b1) * c, b2 * v + (1 - b2) * c**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        walk.x = walk.x - learning_rate * (step + weight_decay * walk.x)
    return walk.path


def mars_exact(
    gradient, x0, learning_rate, *, b1=0.95, b2=0.99, gamma=0.025, eps=1e-8, max_norm=1.0, steps
):
    """Yuan et al. 2024, equation 8 as it stands: `gradient(t, x)` is that of step t's batch, at this point and at the last."""
    x, last, m, v, points = np.array(x0), np.array(x0), 0.0, 0.0, []
    for t in range(1, steps + 1):
        g = gradient(t, x)
        c = g + gamma * b1 / (1 - b1) * (g - gradient(t, last))
        c, last = c / max(1.0, np.linalg.norm(c) / max_norm), x
        m, v = b1 * m + (1 - b1) * c, b2 * v + (1 - b2) * c**2
        x = x - learning_rate * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        points.append(x)
    return np.stack(points)


def schedule_free_adamw(
    grads,
    x0,
    learning_rate,
    *,
    warmup=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    power=2.0,
    r=0.0,
    decay="y",
    steps=None,
):
    """Defazio et al. 2024, algorithm 1: y after each step; x is in `schedule_free_adamw.averages`.

    The decay of z is taken from "y" or "z"; Keras decays "y alone", by the rate without warm-up, and weighs with power 0.
    """
    walk, v, total, largest = Walk(grads, x0, steps), 0.0, 0.0, 0.0
    z = x = walk.x
    schedule_free_adamw.averages = averages = []
    for t, g in walk:
        rate = learning_rate * min(1.0, t / warmup) if warmup else learning_rate
        v = b2 * v + (1 - b2) * g**2
        step = rate * g / (np.sqrt(v / (1 - b2**t)) + eps)
        if decay == "y alone":
            x = (walk.x * (1 - learning_rate * weight_decay) - (1 - b1) * z) / b1
            z = z - step
        else:
            z = z - step - rate * weight_decay * (walk.x if decay == "y" else z)
        largest = max(largest, rate)
        weight = t**r * largest**power
        total += weight
        x = (1 - weight / total) * x + weight / total * z
        averages.append(x)
        walk.x = b1 * x + (1 - b1) * z
    return walk.path


def asgd(grads, x0, learning_rate=0.01, *, lambd=1e-4, alpha=0.75, t0=1e6):
    """Polyak and Juditsky 1992, as in torch: the parameters, and after them, the averages."""
    walk, average, averages = Walk(grads, x0), np.array(x0), []
    for t, g in walk:
        rate = learning_rate / (1 + lambd * learning_rate * (t - 1)) ** alpha
        walk.x = walk.x * (1 - lambd * rate) - rate * g
        average = average + (walk.x - average) / max(1, t - 1 - t0)
        averages.append(average)
    return walk.path, np.stack(averages)


def sophia(
    grads,
    hessians,
    x0,
    learning_rate,
    *,
    b1=0.965,
    b2=0.99,
    eps=1e-8,
    gamma=0.01,
    clip=1.0,
    interval=10,
    weight_decay=0.0,
    convention="paper",
):
    """Liu et al. 2024, algorithm 3; Optax corrects the momentum and uses the curvature of before this step."""
    walk, m, h = Walk(grads, x0), 0.0, np.zeros_like(x0)
    for t, g in walk:
        m, before = b1 * m + (1 - b1) * g, h
        if (t - 1) % interval == 0:
            h = b2 * h + (1 - b2) * hessians[t - 1]
        top, used = (m, h) if convention == "paper" else (m / (1 - b1**t), before)
        step = np.clip(top / np.maximum(gamma * used, eps), -clip, clip)
        walk.x = walk.x - learning_rate * (step + weight_decay * walk.x)
    return walk.path
