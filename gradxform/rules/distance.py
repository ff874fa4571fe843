"""Step sizes from how far the parameters have come: DoG and its kin, D-Adaptation, Prodigy.

The initial parameters, or sums that stand for them, are kept in the state; all that is learned of
the whole tree is a few scalars.
"""

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp

from gradxform.core import Hyper, PerLeaf, Real, Value, WeightDecay, leafwise, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.hyper import Decay, DType, Epsilon, LearningRate, NonNegative, Positive, Range
from gradxform.core.slots import copied, dtype_name, real_zeros, zeros
from gradxform.display.code import code
from gradxform.numerics import abs_sq, bias_correction, divide_by_root, lerp, safe_divide, safe_sqrt
from gradxform.rules.measures import (
    average,
    cast,
    copy,
    distance_squared,
    each,
    inner,
    leaf_zero,
    leaves_of,
    like,
    norm,
    number,
    real_zeros_like,
    squared,
    times_scalar,
    total,
    wide,
    zero,
    zeros_like,
)

__all__ = ["dadapt_adamw", "prodigy", "scale_by_dog", "scale_by_dowg"]


@pytree(static=("kind",))
class InitStep(Value):
    """The first step of DoG: ("distance" | "learning_rate" | "heuristic", value)."""

    kind: str
    value: Hyper

    def __repr__(self):
        return code((self.kind, self.value))


class _InitStep:
    """A pair of a kind and a number."""

    def convert(self, owner: str, name: str, x) -> InitStep:
        kind, value = (x.kind, x.value) if isinstance(x, InitStep) else x
        if kind not in ("distance", "learning_rate", "heuristic"):
            kinds = "'distance', 'learning_rate' or 'heuristic'"
            raise ValueError(f"{owner}: {name} must begin with {kinds}; got {kind!r}")
        return InitStep(kind, Range("[0, inf)", "a size").convert(owner, f"{name}[1]", value))


class _Pair:
    """Two numbers of a range."""

    def __init__(self, each: Range):
        self.each = each

    def convert(self, owner: str, name: str, x):
        if not isinstance(x, list | tuple) or len(x) != 2:
            raise TypeError(f"{owner}: {name} must be a pair of numbers; got {code(x)}")
        return tuple(self.each.convert(owner, f"{name}[{i}]", v) for i, v in enumerate(x))


Decays = Annotated[Hyper, _Pair(Range("[0, 1]", "a share of the old average kept at each step"))]
FirstStep = Annotated[Hyper, _InitStep()]


def _given(params, *, first):
    return number(first)


def _of_norm(params, *, first):
    return jnp.asarray(first, float) * (1 + trees.global_norm(params).astype(float))


def _dog_step(updates, at, x0, max_dist, square_sum, *, eps, first):
    """r ← max(r, ‖p - p₀‖)      from r₀, or r₀ (1 + ‖p₀‖)
    G ← G + ‖u‖²
    s = r / √(G + ε)
    """
    dtype = max_dist.dtype
    come = safe_sqrt(total(distance_squared, at.p, leaves_of(x0))).astype(dtype)
    max_dist = jnp.maximum(max_dist, come)
    square_sum = square_sum + trees.sum_of_squares(updates).astype(dtype)
    rate = safe_divide(max_dist, safe_sqrt(square_sum + jnp.asarray(eps, dtype)))
    return rate, x0, max_dist, square_sum


def _dog_step_from_rate(updates, at, x0, max_dist, square_sum, *, eps, first):
    """r ← max(r, ‖p - p₀‖)
    G ← G + ‖u‖²
    s = r / √(G + ε)      r₀ at the first step
    """
    rate, *kept = _dog_step(updates, at, x0, max_dist, square_sum, eps=eps, first=first)
    return jnp.where(at.t == 1, jnp.asarray(first, rate.dtype), rate), *kept


@transformation
def scale_by_dog(init_step: FirstStep, eps: Epsilon = 1e-8):
    """Multiply by the distance come over the root of the squared gradients so far: the step size of
    DoG.

        r ← max(r, ‖p - p₀‖),  G ← G + ‖u‖²
        u ← u r / √(G + ε)

    `init_step`: ("distance", r₀); ("heuristic", a) for r₀ = a (1 + ‖p₀‖), a = 1e-6, or 1e-4 with
    batch norm; ("learning_rate", η) for a first step of η u.

    Memory: p₀, 4 bytes per parameter, and two scalars.

    Source: M. Ivgi, O. Hinder, Y. Carmon, DoG is SGD's Best Friend (2023), equation 1. They
    evaluate an average of the parameters.
    """
    measure = _dog_step_from_rate if init_step.kind == "learning_rate" else _dog_step
    begin = {"distance": _given, "heuristic": _of_norm, "learning_rate": zero}[init_step.kind]
    memory, first = {"x0": copy, "max_dist": begin, "square_sum": zero}, init_step.value
    return leafwise(times_scalar, measure=measure, memory=memory, eps=eps, first=first)


def _leaf_distance(p, *, reps_rel):
    dtype = leaf_zero(p).dtype
    return (jnp.asarray(reps_rel, dtype) * (1 + norm(wide(p)))).astype(dtype)


def _leaf_dog(u, at, max_dist, square_sum, x0, *, eps, global_scale):
    """r ← max(r, ‖p - p₀‖)      norms over the leaf
    G ← G + ‖u‖²
    u ← s u r / √(G + ε)
    """
    max_dist = jnp.maximum(max_dist, norm(at.p - x0))
    square_sum = square_sum + jnp.sum(abs_sq(u))
    rate = global_scale * safe_divide(max_dist, safe_sqrt(square_sum + eps))
    return u * rate, max_dist, square_sum, x0


@transformation
def scale_by_distance_over_gradients(
    reps_rel: NonNegative = 1e-6, eps: Epsilon = 1e-8, param_dtype: DType | None = None,
    global_scale: Real = 1.0,
):  # fmt: skip
    """DoG for each leaf by itself: `scale_by_dog` with norms over a leaf, L-DoG.

        r ← max(r, ‖p - p₀‖), from a (1 + ‖p₀‖);  G ← G + ‖u‖²
        u ← s u r / √(G + ε)

    a = `reps_rel`, s = `global_scale`.

    Memory: p₀, 4 bytes per parameter (`param_dtype` to change), and two scalars per leaf.

    Source: M. Ivgi, O. Hinder, Y. Carmon, DoG is SGD's Best Friend (2023), section 3.3.
    """
    x0 = copied(dtype_name(param_dtype))
    slots = {"max_dist": _leaf_distance, "square_sum": leaf_zero, "x0": x0}
    numbers = {"reps_rel": reps_rel, "eps": eps, "global_scale": global_scale}
    return leafwise(_leaf_dog, slots=slots, **numbers)


def _dowg_step(updates, at, x0, square_dist, weighted, *, eps, first):
    """D ← max(D, ‖p - p₀‖²)      from D₀
    V ← V + D ‖u‖²
    s = D / (√V + ε)
    """
    dtype = square_dist.dtype
    come = total(distance_squared, at.p, leaves_of(x0)).astype(dtype)
    square_dist = jnp.maximum(square_dist, come)
    weighted = weighted + square_dist * trees.sum_of_squares(updates).astype(dtype)
    rate = safe_divide(square_dist, safe_sqrt(weighted) + jnp.asarray(eps, dtype))
    return rate, x0, square_dist, weighted


@transformation
def scale_by_dowg(init_estim_sq_dist: NonNegative | None = None, eps: Epsilon = 1e-4):
    """Multiply by the squared distance come over the root of the gradients weighted by it: the step
    size of DoWG.

        r² ← max(r², ‖p - p₀‖²),  V ← V + r² ‖u‖²
        u ← u r² / (√V + ε)

    r² begins at `init_estim_sq_dist`, by default ε.

    Memory: p₀, 4 bytes per parameter, and two scalars.

    Source: A. Khaled, K. Mishchenko, C. Jin, DoWG Unleashed (2023), algorithm 1.
    """
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist
    memory = {"x0": copy, "square_dist": _given, "weighted": zero}
    return leafwise(times_scalar, measure=_dowg_step, memory=memory, eps=eps, first=first)


def _l1(x):
    return jnp.sum(jnp.abs(x))


def _rate(d, learning_rate, b1, b2, t, corrected):
    """d α, with Adam's corrections if asked for."""
    if not corrected:
        return d * learning_rate
    correction = safe_sqrt(bias_correction(b2, t, d.dtype)) / bias_correction(b1, t, d.dtype)
    return d * learning_rate * correction


def _as(number, x):
    return number.astype(jnp.real(x).dtype)


def _first_rate(params, *, estim_lr0):
    return number(estim_lr0)


def _gain(g, s, v, eps):
    return inner(g, divide_by_root(s, v, eps, jnp.zeros_like(eps)))


_RATE = {True: "η = d α √(1 - β₂ᵗ) / (1 - β₁ᵗ)", False: "η = d α"}


@dataclass(frozen=True)
class _DadaptStep:
    corrected: bool

    @property
    def equation(self) -> str:
        return f"""{_RATE[self.corrected]}
            r ← √β₂ r + (1 - √β₂) η ⟨u, s / (√v + ε)⟩
            s ← √β₂ s + (1 - √β₂) η u
            v ← β₂ v + (1 - β₂) u²"""

    def __call__(self, updates, at, s, v, estim_lr, numerator, *, learning_rate, b1, b2, eps):
        dtype = estim_lr.dtype
        learning_rate, b1, b2, eps = cast(dtype, learning_rate, b1, b2, eps)
        root, old, before = safe_sqrt(b2), leaves_of(v), leaves_of(s)
        rate = _rate(estim_lr, learning_rate, b1, b2, at.t, self.corrected)
        gain = total(_gain, updates, before, old, numbers=(eps,)).astype(dtype)
        numerator = lerp(rate * gain, numerator, root)
        steps = each(lambda g, x: _as(rate, x) * g.astype(x.dtype), updates, before)
        sums = each(lambda step, x: average(step, x, root), steps, before)
        squares = each(lambda g, x: average(squared(g, x), x, b2), updates, old)
        estimate = safe_divide(numerator, (1 - root) * total(_l1, sums).astype(dtype))
        scalars = PerLeaf([None if x is None else (x, rate) for x in squares])
        return scalars, like(s, sums), like(v, squares), jnp.maximum(estim_lr, estimate), numerator


def _dadapt(u, at, m, *, b1, eps, weight_decay):
    """m ← β₁ m + (1 - β₁) η u
    d ← max(d, r / ((1 - √β₂) ‖s‖₁))
    p ← p - m / (√v + ε) - η λ p
    """
    v, rate = at.scalars
    m = lerp(rate * u, m, b1)
    return -(weight_decay * rate) * at.p - divide_by_root(m, v, eps, 0.0), m


@transformation(conventions=("optax", "pytorch_optimizer"))
def dadapt_adamw(
    learning_rate: LearningRate = 1.0, betas: Decays = (0.9, 0.999), eps: Epsilon = 1e-8,
    estim_lr0: Positive = 1e-6, weight_decay: WeightDecay = 0.0, *, convention: str = "optax",
):  # fmt: skip
    """AdamW whose learning rate is a bound on the distance to the solution, learned from below.

        λ = d α √(1 - β₂ᵗ) / (1 - β₁ᵗ)
        λ = d α                                                     convention="pytorch_optimizer"
        r ← √β₂ r + (1 - √β₂) λ ⟨g, s / (√v + ε)⟩                   (v and s before this step)
        m ← β₁ m + (1 - β₁) λ g,  v ← β₂ v + (1 - β₂) g²,  s ← √β₂ s + (1 - √β₂) λ g
        p ← p - m / (√v + ε) - w λ p,  d ← max(d, r / ((1 - √β₂) ‖s‖₁))

    d begins at `estim_lr0`, w = `weight_decay`. α is 1, or a schedule that ends at 0.

    Conventions: "pytorch_optimizer", unless asked for bias_correction, leaves the correction out. A
    decay that enters the gradient is `add_decayed_weights(w)` before it.

    Memory: 12 bytes per parameter and two scalars.

    Source: A. Defazio, K. Mishchenko, Learning-Rate-Free Learning by D-Adaptation (2023), algorithm
    5.
    """
    measure = _DadaptStep(convention == "optax")
    memory = {"s": zeros_like, "v": real_zeros_like, "estim_lr": _first_rate, "numerator": zero}
    numbers = {"learning_rate": learning_rate, "b1": betas[0], "b2": betas[1], "eps": eps}
    numbers |= {"estim_lr0": estim_lr0, "weight_decay": weight_decay}
    return leafwise(_dadapt, slots={"m": zeros()}, measure=measure, memory=memory, **numbers)


def _way(g, x0, p):
    return inner(g, x0 - p)


@dataclass(frozen=True)
class _ProdigyStep:
    safeguard: bool
    corrected: bool

    @property
    def equation(self) -> str:
        return f"""{_RATE[self.corrected]}
            β₃ = √β₂      unless given
            r ← β₃ r + (d / d₀) η ⟨u, p₀ - p⟩
            s ← β₃ s + (d / d₀) {"d" if self.safeguard else "η"} u"""

    def __call__(
        self, updates, at, s, x0, estim_lr, numerator, *,
        learning_rate, b1, b2, estim_lr0, estim_lr_coef, b3=None,
    ):  # fmt: skip
        dtype = estim_lr.dtype
        numbers = learning_rate, b1, b2, estim_lr0, estim_lr_coef
        learning_rate, b1, b2, estim_lr0, estim_lr_coef = cast(dtype, *numbers)
        b3 = safe_sqrt(b2) if b3 is None else jnp.asarray(b3, dtype)
        rate = _rate(estim_lr, learning_rate, b1, b2, at.t, self.corrected)
        way = total(_way, updates, leaves_of(x0), at.p).astype(dtype)
        numerator = b3 * numerator + (estim_lr / estim_lr0) * rate * way
        weight = (estim_lr if self.safeguard else rate) * estim_lr / estim_lr0
        sums = each(
            lambda g, x: _as(b3, x) * x + _as(weight, x) * g.astype(x.dtype), updates, leaves_of(s)
        )
        estimate = estim_lr_coef * safe_divide(numerator, total(_l1, sums).astype(dtype))
        following = jnp.maximum(estim_lr, estimate)
        return (estim_lr, following, rate), like(s, sums), x0, following, numerator


def _prodigy_adam(u, at, m, v, *, b1, b2, eps, weight_decay):
    """m ← β₁ m + (1 - β₁) d u
    v ← β₂ v + (1 - β₂) d² g²
    d ← max(d, c r / ‖s‖₁)
    p ← p - η m / (√v + d ε) - η λ p
    """
    d, following, rate = at.scalars
    m, v = lerp(d * u, m, b1), lerp(abs_sq(d * at.g), v, b2)
    return -(weight_decay * rate) * at.p - rate * divide_by_root(m, v, following * eps, 0.0), m, v


@transformation(conventions=("optax", "prodigyopt"))
def prodigy(
    learning_rate: LearningRate = 1.0, betas: Decays = (0.9, 0.999), beta3: Decay | None = None,
    eps: Epsilon = 1e-8, estim_lr0: Positive = 1e-6, estim_lr_coef: NonNegative = 1.0,
    weight_decay: WeightDecay = 0.0, safeguard_warmup: bool = False, *, convention: str = "optax",
):  # fmt: skip
    """AdamW whose learning rate is a bound on the distance to the solution, learned faster than by
    D-Adaptation.

        λ = d α √(1 - β₂ᵗ) / (1 - β₁ᵗ)
        λ = d α                                                        convention="prodigyopt"
        r ← β₃ r + (d / d₀) λ ⟨g, p₀ - p⟩,  s ← β₃ s + (d / d₀) λ g    (`safeguard_warmup`: d for λ)
        m ← β₁ m + (1 - β₁) d g,  v ← β₂ v + (1 - β₂) d² g²
        d ← max(d, c r / ‖s‖₁)
        p ← p - λ m / (√v + d ε) - w λ p

    d₀ = `estim_lr0`, c = `estim_lr_coef`, w = `weight_decay`, β₃ = √β₂ unless given. α is 1, or a
    schedule that ends at 0.

    Memory: 16 bytes per parameter (m, v, s, p₀) and two scalars.

    Conventions: "prodigyopt", the authors' package unless asked for use_bias_correction, leaves the
    correction out. Its decouple=False is `add_decayed_weights(w)` before it.

    Source: K. Mishchenko, A. Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner
    (2024), algorithm 4.
    """
    slots = {"m": zeros(), "v": real_zeros}
    measure = _ProdigyStep(bool(safeguard_warmup), convention == "optax")
    memory = {"s": zeros_like, "x0": copy, "estim_lr": _first_rate, "numerator": zero}
    numbers = {"learning_rate": learning_rate, "b1": betas[0], "b2": betas[1]}
    numbers |= {} if beta3 is None else {"b3": beta3}
    numbers |= {"eps": eps, "estim_lr0": estim_lr0, "estim_lr_coef": estim_lr_coef}
    numbers |= {"weight_decay": weight_decay}
    return leafwise(_prodigy_adam, slots=slots, measure=measure, memory=memory, **numbers)
