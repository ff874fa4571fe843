"""Optimizers that step by signs: every parameter moves as far as every other.

Notation: g gradient, p parameter, α learning rate, β decays, λ weight decay; every optimizer ends
in p ← p - α u.
"""

from gradxform.core import Where, chain, transformation
from gradxform.core.hyper import Decay, Fraction, LearningRate, NonNegative, Positive, WeightDecay
from gradxform.optimizers.products import descent
from gradxform.rules.directions import ema
from gradxform.rules.signs import Growth, OpenDecay, scale_by_lion, scale_by_rprop, scale_by_sign
from gradxform.rules.step_size import scale, scale_by_learning_rate

__all__ = ["lion", "rprop", "sign_sgd", "signum"]


@transformation
def sign_sgd(learning_rate: LearningRate):
    """Gradient descent by the sign of the gradient: p ← p - α sign(g).

    Memory: none.

    Source: J. Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems (2018),
    algorithm 1.
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@transformation
def signum(learning_rate: LearningRate, beta: Decay = 0.9, accumulator_dtype=None):
    """Gradient descent by the sign of an averaged gradient.

        m ← β m + (1 - β) g
        p ← p - α sign(m)

    Memory: 4 bytes per parameter.

    Source: J. Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems (2018),
    algorithm 2.
    """
    return chain(ema(beta, False, accumulator_dtype), scale_by_sign(), *descent(learning_rate))


@transformation(
    conventions={"optax": {}, "keras": {"weight_decay": 0.0}, "lion_pytorch": {"weight_decay": 0.0}}
)
def lion(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: OpenDecay = 0.99, mu_dtype=None,
    weight_decay: WeightDecay = 1e-3, mask: Where | None = None, *, convention: str = "optax",
):  # fmt: skip
    """Lion: the sign of a mean of the gradient and a longer average of it, with decoupled weight
    decay.

        u = sign(β₁ m + (1 - β₁) g)
        m ← β₂ m + (1 - β₂) g
        p ← p - α (u + λ p)

    `mask` limits the decay: "**/kernel", a predicate f(path, leaf), or a tree of booleans. Its
    learning rate is about a tenth of AdamW's, and its weight decay ten times larger.

    Conventions: defaults only. "optax" has λ = 1e-3; "keras" and "lion_pytorch", as the authors'
    code, λ = 0. lion_pytorch's decoupled_weight_decay is `add_decayed_weights(λ,
    kind="independent")` at the end of a chain.

    Memory: 4 bytes per parameter (`mu_dtype` to change).

    Raises:
        ValueError: b2 outside (0, 1]; update() without params.

    Source: X. Chen et al., Symbolic Discovery of Optimization Algorithms (2023), program 1.
    """
    step = scale_by_lion(b1, b2, mu_dtype)
    return chain(step, *descent(learning_rate, weight_decay, mask))


@transformation
def rprop(
    learning_rate: LearningRate, eta_minus: Fraction = 0.5, eta_plus: Growth = 1.2,
    min_step_size: NonNegative = 1e-6, max_step_size: Positive = 50.0, *, convention: str = "optax",
):  # fmt: skip
    """Rprop: a step size for each parameter, which grows while its gradient keeps its sign and
    shrinks when it turns.

        s ← min(η⁺ s, max)  where g and the step before agree,   max(η⁻ s, min)  where they do not
        p ← p - s sign(g), and no step where they do not agree

    s starts at `learning_rate`, which is read at the first step only.

    Conventions: "optax" takes each step one update late, the first update is 0; "torch" does not.

    Memory: 8 bytes per parameter.

    Source: M. Riedmiller, H. Braun, The RPROP algorithm (1993), in the form of C. Igel, M. Hüsken
    (2000): iRprop⁻.

    Not: for mini-batches; `scale_by_rms` is what became of it there.
    """
    sizes = (eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(scale_by_rprop(learning_rate, *sizes, convention=convention), scale(-1.0))
