"""The references against torch's recorded paths, Optax in float64, and Keras' recorded paths."""

import contextlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
import reference_catalogue as catalogue
import reference_structure as structure
from replay import GRADS, LEAVES, META, START, arguments, close, recorded
from replay import TORCH as GOLDEN

LR = 0.05


@contextlib.contextmanager
def float64_optax():
    """Optax in double precision; its bias correction fails under strict promotion (conftest.py)."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def fading(step):
    return LR * 0.9**step


# torch


def torch_sgd(g, x, rate, case):
    decay, dampening, nesterov = arguments(case, "momentum", "dampening", "nesterov")
    if not decay:
        return ref.sgd(g, x, rate)
    return ref.momentum(
        g, x, rate, decay, dampening=dampening, nesterov=nesterov, convention="torch"
    )


def torch_adagrad(g, x, rate, case):
    slowing, start, eps = arguments(case, "lr_decay", "initial_accumulator_value", "eps")
    return ref.adagrad(
        g,
        x,
        lambda step: ref.inverse_time(step, rate(step), slowing),
        start,
        eps,
        convention="torch",
    )


def torch_adadelta(g, x, rate, case):
    return ref.adadelta(g, x, rate, *arguments(case, "rho", "eps"), convention="torch")


def torch_rmsprop(g, x, rate, case):
    decay, eps, centered, momentum = arguments(case, "alpha", "eps", "centered", "momentum")
    return ref.rmsprop(
        g, x, rate, decay, eps, centered=centered, momentum=momentum, convention="torch"
    )


def torch_adam(g, x, rate, case):
    names = ("betas", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay")
    betas, eps, decay, amsgrad, decoupled = arguments(case, *names)
    if amsgrad:
        assert not decay
        return ref.amsgrad(g, x, rate, *betas, eps, convention="torch")
    if decay:
        method = ref.adamw if decoupled else ref.adam_l2
        return method(g, x, rate, *betas, eps, decay, convention="torch")
    return ref.adam(g, x, rate, *betas, eps, convention="torch")


def torch_adamax(g, x, rate, case):
    betas, eps = arguments(case, "betas", "eps")
    return ref.adamax(g, x, rate, *betas, eps, convention="torch")


def torch_nadam(g, x, rate, case):
    names = ("betas", "eps", "momentum_decay", "weight_decay", "decoupled_weight_decay")
    betas, eps, psi, decay, decoupled = arguments(case, *names)
    return ref.nadam(
        g,
        x,
        rate,
        *betas,
        eps,
        momentum_decay=psi,
        weight_decay=decay,
        decoupled_weight_decay=decoupled,
        convention="torch",
    )


TORCH = {
    "SGD": torch_sgd,
    "Adagrad": torch_adagrad,
    "Adadelta": torch_adadelta,
    "RMSprop": torch_rmsprop,
    "Adam": torch_adam,
    "AdamW": torch_adam,
    "Adamax": torch_adamax,
    "NAdam": torch_nadam,
}


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("name", META["cases"])
def test_torch_path(name, leaf):
    case = META["cases"][name]
    path = TORCH[case["optimizer"]](
        GRADS[leaf],
        START[leaf],
        lambda step: case["kwargs"]["lr"] * case["lr_factor"] ** step,
        case,
    )
    assert path.dtype == np.float64
    close(path, GOLDEN[f"path/{name}/{leaf}"])


def test_golden_file_is_whole():
    paths = {key for key in GOLDEN if key.startswith("path/")}
    assert META["torch"].startswith("2.13.0")
    assert paths == {f"path/{name}/{leaf}" for name in META["cases"] for leaf in LEAVES}
    assert {key for key in GOLDEN if key.startswith("rate/")} == {
        f"rate/{name}" for name in META["schedules"]
    }
    assert all(
        value.dtype == np.float64 and np.isfinite(value).all()
        for key, value in GOLDEN.items()
        if key != "meta"
    )


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("Adagrad", ref.adagrad),
        ("Adadelta", ref.adadelta),
        ("RMSprop", ref.rmsprop),
        ("Adam", ref.adam),
        ("AdamW", ref.adamw),
        ("Adamax", ref.adamax),
        ("NAdam", ref.nadam),
    ],
)
def test_torch_defaults(kind, method):
    explicit = TORCH[kind](
        GRADS["w"], START["w"], lambda step: LR, {"kwargs": META["defaults"][kind]}
    )
    close(method(GRADS["w"], START["w"], LR, convention="torch"), explicit)


# Optax, at constant lr unless the case is about a changing one

G, X = GRADS, START
OPTAX = {
    "sgd": (lambda: optax.sgd(LR), lambda g, x: ref.sgd(g, x, LR)),
    "momentum": (lambda: optax.sgd(LR, 0.9), lambda g, x: ref.momentum(g, x, LR, 0.9)),
    "momentum_fading": (
        lambda: optax.sgd(fading, 0.9),
        lambda g, x: ref.momentum(g, x, fading, 0.9),
    ),
    "nesterov": (
        lambda: optax.sgd(LR, 0.9, nesterov=True),
        lambda g, x: ref.nesterov(g, x, LR, 0.9),
    ),
    "ema": (
        lambda: optax.chain(optax.ema(0.9), optax.scale(-LR)),
        lambda g, x: ref.ema(g, x, LR, 0.9),
    ),
    "ema_biased": (
        lambda: optax.chain(optax.ema(0.9, debias=False), optax.scale(-LR)),
        lambda g, x: ref.ema(g, x, LR, 0.9, debias=False),
    ),
    "momentum_averaged": (
        lambda: optax.chain(optax.ema(0.9, debias=False), optax.scale(-LR)),
        lambda g, x: ref.momentum(g, x, LR, 0.9, dampening=0.9),
    ),
    "adagrad": (lambda: optax.adagrad(LR), lambda g, x: ref.adagrad(g, x, LR)),
    "adagrad_from_zero": (lambda: optax.adagrad(LR, 0.0), lambda g, x: ref.adagrad(g, x, LR, 0.0)),
    "adadelta": (lambda: optax.adadelta(1.0), ref.adadelta),
    "rmsprop": (lambda: optax.rmsprop(LR), lambda g, x: ref.rmsprop(g, x, LR)),
    "rmsprop_eps_outside": (
        lambda: optax.rmsprop(LR, eps_in_sqrt=False),
        lambda g, x: ref.rmsprop(g, x, LR, eps_in_sqrt=False),
    ),
    "rmsprop_centered": (
        lambda: optax.rmsprop(LR, centered=True),
        lambda g, x: ref.rmsprop(g, x, LR, centered=True),
    ),
    "rmsprop_momentum_fading": (
        lambda: optax.rmsprop(fading, momentum=0.9),
        lambda g, x: ref.rmsprop(g, x, fading, momentum=0.9),
    ),
    "rmsprop_nesterov": (
        lambda: optax.rmsprop(fading, momentum=0.9, nesterov=True, initial_scale=0.5),
        lambda g, x: ref.rmsprop(g, x, fading, momentum=0.9, nesterov=True, initial_scale=0.5),
    ),
    "rmsprop_corrected": (
        lambda: optax.rmsprop(LR, bias_correction=True),
        lambda g, x: ref.rmsprop(g, x, LR, bias_correction=True),
    ),
    "adam": (lambda: optax.adam(LR), lambda g, x: ref.adam(g, x, LR)),
    "adam_fading": (
        lambda: optax.adam(fading, b2=0.95),
        lambda g, x: ref.adam(g, x, fading, b2=0.95),
    ),
    "adam_eps_root": (
        lambda: optax.adam(LR, eps_root=1e-4),
        lambda g, x: ref.adam(g, x, LR, eps_root=1e-4),
    ),
    "adam_without_correction": (
        lambda: optax.chain(
            optax.scale_by_amsgrad(b2=1 - 1e-9, bias_correction_mu=False, bias_correction_nu=False),
            optax.scale(-LR),
        ),
        # v only grows at this b2, so AMSGrad without correction is Adam without correction
        lambda g, x: ref.adam(g, x, LR, b2=1 - 1e-9, debias=False),
    ),
    "adam_l2": (
        lambda: optax.chain(optax.add_decayed_weights(0.1), optax.adam(LR)),
        lambda g, x: ref.adam_l2(g, x, LR, weight_decay=0.1, convention="optax"),
    ),
    "adamw": (lambda: optax.adamw(LR), lambda g, x: ref.adamw(g, x, LR)),
    "adamw_fading": (
        lambda: optax.adamw(fading, weight_decay=0.1),
        lambda g, x: ref.adamw(g, x, fading, weight_decay=0.1),
    ),
    "amsgrad": (lambda: optax.amsgrad(LR, b2=0.95), lambda g, x: ref.amsgrad(g, x, LR, b2=0.95)),
    "amsgrad_half_corrected": (
        lambda: optax.chain(
            optax.scale_by_amsgrad(b2=0.95, bias_correction_nu=False), optax.scale(-LR)
        ),
        lambda g, x: ref.amsgrad(g, x, LR, b2=0.95, bias_correction_nu=False),
    ),
    "amsgrad_paper": (
        lambda: optax.chain(
            # eps must be positive for the leaf whose gradients are all zero
            optax.scale_by_amsgrad(
                b2=0.95, eps=1e-300, bias_correction_mu=False, bias_correction_nu=False
            ),
            optax.scale(-LR),
        ),
        lambda g, x: ref.amsgrad(g, x, LR, b2=0.95, convention="paper"),
    ),
    "adamax": (lambda: optax.adamax(LR, b2=0.95), lambda g, x: ref.adamax(g, x, LR, b2=0.95)),
    "nadam": (lambda: optax.nadam(LR), lambda g, x: ref.nadam(g, x, LR)),
    "nadamw": (
        lambda: optax.nadamw(LR, weight_decay=0.1),
        lambda g, x: ref.nadam(g, x, LR, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    "yogi": (lambda: optax.yogi(LR, b2=0.9), lambda g, x: ref.yogi(g, x, LR, b2=0.9)),
    "adabelief": (lambda: optax.adabelief(LR), lambda g, x: ref.adabelief(g, x, LR)),
    "adabelief_nesterov": (
        lambda: optax.adabelief(LR, eps=1e-6, eps_root=1e-5, nesterov=True),
        lambda g, x: ref.adabelief(g, x, LR, eps=1e-6, eps_root=1e-5, nesterov=True),
    ),
    "ademamix": (lambda: optax.contrib.ademamix(LR), lambda g, x: ref.ademamix(g, x, LR)),
    "ademamix_ramps": (
        lambda: optax.contrib.ademamix(
            LR, b3=lambda n: 0.9 + 0.001 * n, alpha=lambda n: 0.2 * n, weight_decay=0.1
        ),
        lambda g, x: ref.ademamix(
            g, x, LR, b3=lambda n: 0.9 + 0.001 * n, alpha=lambda n: 0.2 * n, weight_decay=0.1
        ),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax_path(name):
    make, reference = OPTAX[name]
    with float64_optax():
        tx = make()
        params = {leaf: jnp.asarray(value) for leaf, value in START.items()}
        state, points = tx.init(params), []
        for step in range(META["steps"]):
            grads = {leaf: jnp.asarray(value[step]) for leaf, value in GRADS.items()}
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            points.append({leaf: np.asarray(value) for leaf, value in params.items()})
    for leaf in LEAVES:
        assert points[0][leaf].dtype == np.float64
        close(reference(GRADS[leaf], START[leaf]), np.stack([point[leaf] for point in points]))


KERAS = recorded("keras")
K = {"convention": "keras"}
D = {"b2": 0.95, "weight_decay": 0.1, **K}
KERAS_CASES = {
    "sgd_momentum": lambda g, x: ref.momentum(g, x, fading, 0.9, **K),
    "sgd_nesterov": lambda g, x: ref.nesterov(g, x, fading, 0.9, **K),
    "adagrad": lambda g, x: ref.adagrad(g, x, LR, **K),
    "adadelta": lambda g, x: ref.adadelta(g, x, LR, **K),
    "rmsprop": lambda g, x: ref.rmsprop(g, x, LR, **K),
    "rmsprop_centered": lambda g, x: ref.rmsprop(g, x, fading, centered=True, momentum=0.9, **K),
    "adam": lambda g, x: ref.adam(g, x, LR, **K),
    "adamw": lambda g, x: ref.adamw(g, x, LR, **K),
    "amsgrad": lambda g, x: ref.amsgrad(g, x, LR, b2=0.95, **K),
    "adamax": lambda g, x: ref.adamax(g, x, LR, **K),
    "adamaxw": lambda g, x: catalogue.adamaxw(g, x, LR, **D),
    "nadam": lambda g, x: ref.nadam(g, x, LR, **K),
    "nadamw": lambda g, x: ref.nadam(g, x, LR, decoupled_weight_decay=True, **D),
    "lion": lambda g, x: catalogue.lion(g, x, LR, **K),
    "lamb": lambda g, x: catalogue.lamb(g, x, LR, **K),
    "lamb_decayed": lambda g, x: catalogue.lamb(g, x, fading, **D),
    "adafactor": lambda g, x: structure.adafactor(g, x, LR, **K),
    "adafactor_decayed": lambda g, x: structure.adafactor(g, x, LR, weight_decay=0.1, **K),
    "schedule_free": lambda g, x: structure.schedule_free_adamw(g, x, LR, warmup=6, power=0.0),
    "schedule_free_decayed": lambda g, x: structure.schedule_free_adamw(
        g, x, LR, warmup=6, power=0.0, b2=0.95, weight_decay=0.1, decay="y alone"
    ),
}


def test_keras_file_is_whole():
    assert set(KERAS) == {f"path/{name}/{leaf}" for name in KERAS_CASES for leaf in LEAVES}


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("name", KERAS_CASES)
def test_keras_path(name, leaf):
    limit = (
        1e-6 if name.startswith("adafactor") else 1e-12
    )  # some of Keras' numbers there are float32
    close(KERAS_CASES[name](GRADS[leaf], START[leaf]), KERAS[f"path/{name}/{leaf}"], limit)


# Conventions are different equations, not names for one

FAMILIES = {
    "momentum": lambda c: ref.momentum(G["w"], X["w"], fading, 0.9, dampening=0.5, convention=c),
    "adagrad": lambda c: ref.adagrad(G["w"], X["w"], LR, 0.1, 1e-2, convention=c),
    "rmsprop": lambda c: ref.rmsprop(G["w"], X["w"], fading, 0.9, 1e-4, momentum=0.9, convention=c),
    "adam": lambda c: ref.adam(G["w"], X["w"], LR, eps=1e-4, convention=c),
    "adamw": lambda c: ref.adamw(G["w"], X["w"], LR, eps=1e-4, weight_decay=0.1, convention=c),
    "amsgrad": lambda c: ref.amsgrad(G["w"], X["w"], LR, b2=0.95, eps=1e-4, convention=c),
    "adamax": lambda c: ref.adamax(G["w"], X["w"], LR, eps=1e-2, convention=c),
    "nadam": lambda c: ref.nadam(G["w"], X["w"], LR, eps=1e-4, convention=c),
    "yogi": lambda c: ref.yogi(G["w"], X["w"], LR, initial_accumulator_value=1e-6, convention=c),
}
# Sets of conventions that share one equation once the numbers are equal
SAME = {
    "momentum": [{"paper", "keras"}, {"optax"}, {"torch"}],
    "adagrad": [{"paper", "torch"}, {"optax", "keras"}],
    "rmsprop": [{"paper", "optax", "keras"}, {"torch"}],
    "adam": [{"paper", "optax", "torch"}, {"keras"}],
    "adamw": [{"paper"}, {"optax", "torch"}, {"keras"}],
    "amsgrad": [{"paper"}, {"optax"}, {"torch"}, {"keras"}],
    "adamax": [{"paper", "optax", "torch"}, {"keras"}],
    "nadam": [{"paper"}, {"optax"}, {"torch"}, {"keras"}],
    "yogi": [{"paper"}, {"optax"}],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_conventions_differ_where_they_should(name):
    of = {convention: group for group, names in enumerate(SAME[name]) for convention in names}
    ends = {convention: FAMILIES[name](convention)[-1] for convention in of}
    for one, other in itertools.combinations(of, 2):
        gap = np.max(np.abs(ends[one] - ends[other]))
        assert gap == 0 if of[one] == of[other] else gap > 1e-4, (one, other, gap)


# What follows from the papers alone


def test_nesterov_first_form_visits_the_same_lookahead_points():
    curvature = np.array([[1.0, 0.3], [0.3, 0.5]])
    x0 = np.array([2.0, -1.0])
    x = ref.nesterov_lookahead(lambda p: curvature @ p, x0, 0.1, 0.9, steps=30)
    y = ref.nesterov(lambda p: curvature @ p, x0, 0.1, 0.9, steps=30)
    before = np.concatenate([x0[None], x[:-1]])
    close(y, x + 0.9 * (x - before))
    assert np.max(np.abs(y - x)) > 1e-2


def test_keras_nesterov_visits_the_lookahead_points_when_the_rate_changes():
    x0 = np.array([2.0, -1.0])
    x = ref.nesterov_lookahead(lambda p: p**3, x0, fading, 0.9, steps=30)
    before = np.concatenate([x0[None], x[:-1]])
    close(
        ref.nesterov(lambda p: p**3, x0, fading, 0.9, convention="keras", steps=30),
        x + 0.9 * (x - before),
    )


def test_heavy_ball_is_polyaks_two_step_recurrence():
    def gradient(p):
        return p**3 - p

    x = ref.momentum(gradient, np.array([0.3, 2.0]), 0.05, 0.8, steps=30)
    close(x[2:], x[1:-1] - 0.05 * gradient(x[1:-1]) + 0.8 * (x[1:-1] - x[:-2]))


def test_constant_gradient_closed_forms():
    g, steps = np.array([3.0, -1e-2]), 40
    grads, x0 = np.tile(g, (steps, 1)), np.zeros(2)
    t = np.arange(1, steps + 1)[:, None]
    close(ref.ema(grads, x0, 0.1, 0.9), -0.1 * t * g)
    close(
        np.diff(ref.ema(grads, x0, 0.1, 0.9, debias=False), axis=0, prepend=0),
        -0.1 * (1 - 0.9**t) * g,
    )
    close(
        ref.adagrad(grads, x0, 0.1, convention="paper"),
        -0.1 * np.sign(g) * np.cumsum(1 / np.sqrt(t), axis=0),
    )
    close(ref.adam(grads, x0, 0.1, eps=0.0), -0.1 * t * np.sign(g))
    close(ref.adamax(grads, x0, 0.1, convention="paper"), -0.1 * t * np.sign(g))
    mean_square = np.cumsum(np.sign(g) / np.sqrt(1 - 0.9**t), axis=0)
    close(ref.rmsprop(grads, x0, 0.1, convention="paper"), -0.1 * mean_square)
    # Yogi's v grows by the same (1 - b2) g^2 at each step, where Adam's would approach g^2 ever more slowly
    yogi = np.cumsum((1 - 0.9**t) * g / (np.sqrt(0.01 * t) * np.abs(g) + 1e-3), axis=0)
    close(ref.yogi(grads, x0, 0.1, b2=0.99, convention="paper"), -0.1 * yogi)


def test_dozats_average_is_unbiased_for_a_constant_gradient():
    """m_t = (1 - P_t) g exactly, which torch and Keras lose by averaging with a constant b1."""
    steps, b1, b2 = 12, 0.9, 0.999
    g = 2.0
    mu = [b1 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in range(1, steps + 2)]
    product, x, expected = 1.0, 0.0, []
    for t in range(steps):
        product *= mu[t]
        m_hat = mu[t + 1] * (1 - product) * g / (1 - product * mu[t + 1]) + (1 - mu[t]) * g / (
            1 - product
        )
        x -= 0.1 * m_hat / (math.sqrt(b2) * g + 1e-8)
        expected.append([x])
    close(ref.nadam(np.full((steps, 1), g), np.zeros(1), 0.1, b1, b2, convention="paper"), expected)


def test_keras_epsilon_is_the_paper_epsilon_over_the_correction():
    one = GRADS["w"][:1]
    scaled = 1e-3 / math.sqrt(1 - 0.999)
    close(
        ref.adam(one, X["w"], LR, eps=1e-3, convention="keras"),
        ref.adam(one, X["w"], LR, eps=scaled),
    )


def test_paper_adamw_decays_by_the_schedule_alone():
    paper = ref.adamw(
        G["w"], X["w"], LR, weight_decay=0.1 * LR, eta=lambda n: 0.9**n, convention="paper"
    )
    close(paper, ref.adamw(G["w"], X["w"], fading, weight_decay=0.1))


def test_paper_adabelief_has_one_epsilon():
    paper = ref.adabelief(G["w"], X["w"], LR, eps=1e-5, convention="paper")
    close(paper, ref.adabelief(G["w"], X["w"], LR, eps=1e-5, eps_root=1e-5))


def test_no_optax_flag_gives_the_amsgrad_of_torch():
    torch_path = ref.amsgrad(G["w"], X["w"], LR, b2=0.95, convention="torch")
    for flag in (True, False):
        path = ref.amsgrad(G["w"], X["w"], LR, b2=0.95, bias_correction_nu=flag)
        assert np.max(np.abs(path - torch_path)) > 1e-4


def test_moving_average_starts_at_its_first_value_only_when_corrected():
    values = np.array([[2.0, -1.0], [4.0, 0.0]])
    close(
        ref.moving_average(values, 0.9),
        [[2.0, -1.0], [(0.18 * 2 + 0.2 * 4) / 0.38, -0.09 * 2 / 0.38]],
    )
    close(ref.moving_average(values, 0.9, debias=False), [[0.2, -0.1], [0.58, -0.09]])
    close(ref.moving_average(values, 0.5, debias=False, initial=1.0)[0], [1.5, 0.0])


def test_zero_gradients_move_nothing():
    zeros, x0 = np.zeros((5, 3)), np.arange(3.0)
    methods = (ref.adagrad, ref.rmsprop, ref.adam, ref.amsgrad, ref.adamax, ref.nadam)
    for method in methods:
        for convention in ref.CONVENTIONS:
            close(method(zeros, x0, 0.1, convention=convention), np.tile(x0, (5, 1)))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="convention must be one of"):
        ref.adam(G["w"], X["w"], LR, convention="tensorflow")
    with pytest.raises(ValueError, match="has no default"):
        ref.adamw(G["w"], X["w"], LR, convention="paper")
    with pytest.raises(ValueError, match="dampened Nesterov"):
        ref.momentum(G["w"], X["w"], LR, 0.9, dampening=0.1, nesterov=True, convention="torch")
    with pytest.raises(ValueError, match="gradient of shape"):
        ref.sgd(G["w"], X["b"], LR)
    with pytest.raises(TypeError, match="steps"):
        ref.sgd(lambda x: x, X["b"], LR)


# Schedules


def torch_rates(name):
    case = META["schedules"][name]
    return case["lr"], case["kwargs"], GOLDEN[f"rate/{name}"]


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("step", lambda n, lr, k: ref.step_decay(n, lr, k["gamma"], k["step_size"])),
        (
            "multistep",
            lambda n, lr, k: ref.piecewise_constant_schedule(
                n, lr, dict.fromkeys(k["milestones"], k["gamma"])
            ),
        ),
        ("exponential", lambda n, lr, k: ref.exponential_decay(n, lr, 1, k["gamma"])),
        (
            "linear",
            lambda n, lr, k: ref.linear_schedule(
                n, lr * k["start_factor"], lr * k["end_factor"], k["total_iters"]
            ),
        ),
        (
            "polynomial",
            lambda n, lr, k: ref.polynomial_schedule(n, lr, 0.0, k["power"], k["total_iters"]),
        ),
        (
            "cosine",
            lambda n, lr, k: ref.cosine_decay_schedule(
                n, lr, k["T_max"], k["eta_min"] / lr, convention="torch"
            ),
        ),
    ],
)
def test_torch_schedule(name, schedule):
    lr, kwargs, expected = torch_rates(name)
    close([schedule(step, lr, kwargs) for step in range(len(expected))], expected)


@pytest.mark.parametrize("name", [name for name in META["schedules"] if name.startswith("plateau")])
def test_torch_plateau(name):
    lr, kwargs, expected = torch_rates(name)
    threshold = kwargs["threshold"]
    rtol, atol = (0.0, threshold) if kwargs.get("threshold_mode") == "abs" else (threshold, 0.0)
    scale = ref.reduce_on_plateau(
        GOLDEN["plateau_values"],
        kwargs["factor"],
        kwargs["patience"],
        rtol,
        atol,
        kwargs.get("cooldown", 0),
        kwargs.get("min_lr", 0.0) / lr,
        convention="torch",
    )
    close(lr * scale, expected)


OPTAX_SCHEDULES = {
    "constant_schedule": [{"value": 0.3}],
    "exponential_decay": [
        {"init_value": 0.3, "transition_steps": 7, "decay_rate": 0.5},
        {
            "init_value": 0.3,
            "transition_steps": 7,
            "decay_rate": 0.5,
            "transition_begin": 4,
            "staircase": True,
        },
        {"init_value": 0.3, "transition_steps": 5, "decay_rate": 0.5, "end_value": 0.05},
        {"init_value": 0.3, "transition_steps": 5, "decay_rate": 1.5, "end_value": 0.9},
    ],
    "piecewise_constant_schedule": [
        {"init_value": 0.3, "boundaries_and_scales": {20: 0.5, 5: 0.1}}
    ],
    "polynomial_schedule": [
        {
            "init_value": 0.3,
            "end_value": 0.1,
            "power": 2.5,
            "transition_steps": 20,
            "transition_begin": 4,
        },
        {"init_value": 0.3, "end_value": 0.1, "power": 2, "transition_steps": 0},
    ],
    "linear_schedule": [
        {"init_value": 0.1, "end_value": 0.7, "transition_steps": 11, "transition_begin": -3}
    ],
    "cosine_decay_schedule": [
        {"init_value": 0.3, "decay_steps": 20, "alpha": 0.1, "exponent": 1.5}
    ],
    "warmup_cosine_decay_schedule": [
        {
            "init_value": 0.1,
            "peak_value": 0.7,
            "warmup_steps": 6,
            "decay_steps": 25,
            "end_value": 0.02,
        },
        {
            "init_value": 0.1,
            "peak_value": 0.7,
            "warmup_steps": 0,
            "decay_steps": 25,
            "exponent": 2.0,
        },
    ],
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, arguments) for name, cases in OPTAX_SCHEDULES.items() for arguments in cases],
)
def test_optax_schedule(name, arguments):
    with float64_optax():
        schedule = getattr(optax, name)(**arguments)
        # Optax divides int32 steps in float32 even under x64
        expected = [float(schedule(jnp.float64(step))) for step in range(32)]
    close([getattr(ref, name)(step, **arguments) for step in range(32)], expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"factor": 0.5, "patience": 3, "rtol": 0.01},
        {"factor": 0.5, "patience": 2, "rtol": 0.01, "cooldown": 2},
        {
            "factor": 0.1,
            "patience": 1,
            "rtol": 0.0,
            "atol": 0.05,
            "cooldown": 1,
            "min_scale": 0.005,
        },
    ],
)
def test_optax_plateau(arguments):
    values, scales = GOLDEN["plateau_values"], []
    with float64_optax():
        tx = optax.contrib.reduce_on_plateau(**arguments)
        state, update_fn = tx.init(jnp.zeros(())), jax.jit(tx.update)
        for value in values:
            update, state = update_fn(jnp.ones(()), state, value=jnp.asarray(value))
            scales.append(float(update))
    close(ref.reduce_on_plateau(values, **arguments), scales)
    assert len(set(scales)) > 2


def test_plateau_waits_one_value_longer_in_torch():
    flat = np.ones(8)
    optax_scale = ref.reduce_on_plateau(flat, 0.5, patience=2)
    close(optax_scale, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125])
    close(ref.reduce_on_plateau(flat, 0.5, patience=1, convention="torch"), optax_scale)
    close(
        ref.reduce_on_plateau(flat, 0.5, patience=2, convention="torch"),
        [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25],
    )


def test_plateau_cooldown_is_one_value_shorter_in_keras():
    flat, arguments = np.ones(9), {"factor": 0.5, "patience": 2, "rtol": 0.0, "atol": 1e-4}
    close(
        ref.reduce_on_plateau(flat, cooldown=2, **arguments),
        [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25],
    )
    keras = ref.reduce_on_plateau(flat, cooldown=2, convention="keras", **arguments)
    close(keras, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125])


@pytest.mark.parametrize("convention", ["optax", "keras"])
def test_plateau_patience_of_zero_is_one(convention):
    scale = ref.reduce_on_plateau([3.0, 2.0, 1.0, 1.0, 1.0], 0.5, patience=0, convention=convention)
    close(scale, [1, 1, 1, 0.5, 0.25])


def test_schedules_of_the_textbook():
    for step in (0, 1, 7, 100):
        close(
            ref.natural_exponential(step, 0.3, 0.05),
            ref.exponential_decay(step, 0.3, 1, math.exp(-0.05)),
        )
        close(
            ref.step_decay(step, 0.3, 0.5, 7),
            ref.exponential_decay(step, 0.3, 7, 0.5, staircase=True),
        )
    close([ref.inverse_sqrt(step, 0.6) for step in (0, 3, 8)], [0.6, 0.3, 0.2])
    close([ref.inverse_time(step, 0.6, 0.5) for step in (0, 2, 10)], [0.6, 0.3, 0.1])
    scales = {5: 0.1}
    assert [ref.piecewise_constant_schedule(n, 1.0, scales) for n in (4, 5, 6)] == [1.0, 0.1, 0.1]
    assert [
        ref.piecewise_constant_schedule(n, 1.0, scales, convention="keras") for n in (4, 5, 6)
    ] == [1.0, 1.0, 0.1]
    optax_rates = [ref.warmup_cosine_decay_schedule(n, 0.0, 1.0, 4, 20) for n in range(30)]
    close(
        [
            ref.warmup_cosine_decay_schedule(n, 0.0, 1.0, 4, 16, convention="keras")
            for n in range(30)
        ],
        optax_rates,
    )
    assert optax_rates[4] == 1.0
    assert optax_rates[19] > 0 == optax_rates[20]


def test_ademamix_ramps_end_at_their_targets():
    assert ref.ademamix_alpha(0, 5.0, 100) == 0.05
    assert ref.ademamix_alpha(99, 5.0, 100) == ref.ademamix_alpha(500, 5.0, 100) == 5.0
    half_lives = [
        -math.log(2) / math.log(ref.ademamix_b3(n, 0.9999, 0.9, 100)) for n in range(-1, 100)
    ]
    # the paper derives the ramp of b3 so that the half-life grows linearly
    np.testing.assert_allclose(
        np.diff(half_lives), (half_lives[-1] - half_lives[0]) / 100, rtol=1e-8
    )
    assert ref.ademamix_b3(99, 0.9999, 0.9, 100) == ref.ademamix_b3(500, 0.9999, 0.9, 100) == 0.9999
    close(ref.ademamix_b3(-1, 0.9999, 0.9, 100), 0.9)
