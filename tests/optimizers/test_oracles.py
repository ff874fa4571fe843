"""Every named optimizer and schedule against float64 NumPy written from the papers, and against what torch computed."""

import inspect
import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from replay import GRADS, LEAVES, META, START, arguments, close, flat, walks
from replay import TORCH as GOLDEN
from thinned import one_in

import gradxform as gx
from gradxform.optimizers import textbook
from gradxform.schedules import basic as schedules

# None of these is a default, and eps is large enough to show in which place it stands
LR, B1, B2, EPS, ROOT = 0.07, 0.8, 0.97, 3e-3, 2e-4
FADING, FADING_ORACLE = gx.exponential_decay(LR, 1, 0.9), lambda step: LR * 0.9**step
B3, B3_ORACLE = (
    gx.linear_schedule(0.9, 0.99, 20),
    lambda step: ref.linear_schedule(step, 0.9, 0.99, 20),
)
ALPHA, ALPHA_ORACLE = (
    gx.linear_schedule(0.1, 2.0, 19),
    lambda step: ref.ademamix_alpha(step, 2.0, 20),
)


def descend(*parts):
    return gx.chain(*parts, gx.scale_by_learning_rate(LR))


# name: (optimizer, oracle). What comes before "/" is the constructor, unless it is a composition.
OPTIMIZERS = {
    "sgd": (lambda: gx.sgd(LR), lambda g, x: ref.sgd(g, x, LR)),
    "sgd/fading": (lambda: gx.sgd(FADING), lambda g, x: ref.sgd(g, x, FADING_ORACLE)),
    **{
        f"sgd/{c}_{'nesterov' if nesterov else 'momentum'}": (
            lambda c=c, n=nesterov: gx.sgd(FADING, 0.8, nesterov=n, convention=c),
            lambda g, x, c=c, n=nesterov: ref.momentum(
                g, x, FADING_ORACLE, 0.8, nesterov=n, convention=c
            ),
        )
        for c in ("torch", "keras", "paper")
        for nesterov in (False, True)
    },
    "sgd/momentum": (lambda: gx.sgd(LR, 0.8), lambda g, x: ref.momentum(g, x, LR, 0.8)),
    "sgd/momentum_fading": (
        lambda: gx.sgd(FADING, 0.8),
        lambda g, x: ref.momentum(g, x, FADING_ORACLE, 0.8),
    ),
    "sgd/nesterov": (
        lambda: gx.sgd(LR, 0.8, nesterov=True),
        lambda g, x: ref.nesterov(g, x, LR, 0.8),
    ),
    "momentum/dampened": (
        lambda: descend(gx.momentum(0.8, dampening=0.3)),
        lambda g, x: ref.momentum(g, x, LR, 0.8, dampening=0.3),
    ),
    "momentum/dampened_nesterov": (
        lambda: descend(gx.momentum(0.8, 0.3, True)),
        lambda g, x: ref.momentum(g, x, LR, 0.8, dampening=0.3, nesterov=True),
    ),
    "momentum/dampened_torch": (
        lambda: descend(gx.momentum(0.8, 0.3, convention="torch")),
        lambda g, x: ref.momentum(g, x, LR, 0.8, dampening=0.3, convention="torch"),
    ),
    "momentum/paper_fading": (
        # the rate inside the velocity, as in the paper: it comes first
        lambda: gx.chain(gx.scale_by_learning_rate(FADING), gx.momentum(0.8)),
        lambda g, x: ref.momentum(g, x, FADING_ORACLE, 0.8, convention="paper"),
    ),
    "trace/nesterov": (
        lambda: descend(gx.trace(0.8, nesterov=True)),
        lambda g, x: ref.nesterov(g, x, LR, 0.8),
    ),
    "ema": (lambda: descend(gx.ema(B1)), lambda g, x: ref.ema(g, x, LR, B1)),
    "ema/biased": (
        lambda: descend(gx.ema(B1, debias=False)),
        lambda g, x: ref.ema(g, x, LR, B1, debias=False),
    ),
    "adagrad": (lambda: gx.adagrad(LR, 0.3, EPS), lambda g, x: ref.adagrad(g, x, LR, 0.3, EPS)),
    "adagrad/from_zero": (
        lambda: gx.adagrad(LR, 0.0, EPS),
        lambda g, x: ref.adagrad(g, x, LR, 0.0, EPS),
    ),
    "adagrad/torch": (
        lambda: gx.adagrad(LR, 0.3, EPS, convention="torch"),
        lambda g, x: ref.adagrad(g, x, LR, 0.3, EPS, convention="torch"),
    ),
    "adadelta": (
        lambda: gx.adadelta(0.7, 0.85, EPS),
        lambda g, x: ref.adadelta(g, x, 0.7, 0.85, EPS),
    ),
    "rmsprop": (lambda: gx.rmsprop(LR, 0.8, EPS), lambda g, x: ref.rmsprop(g, x, LR, 0.8, EPS)),
    "rmsprop/eps_outside": (
        lambda: gx.rmsprop(LR, 0.8, EPS, eps_in_sqrt=False),
        lambda g, x: ref.rmsprop(g, x, LR, 0.8, EPS, eps_in_sqrt=False),
    ),
    "rmsprop/initial_scale": (
        lambda: gx.rmsprop(LR, 0.8, EPS, 0.5),
        lambda g, x: ref.rmsprop(g, x, LR, 0.8, EPS, initial_scale=0.5),
    ),
    "rmsprop/corrected": (
        lambda: gx.rmsprop(LR, 0.8, EPS, bias_correction=True),
        lambda g, x: ref.rmsprop(g, x, LR, 0.8, EPS, bias_correction=True),
    ),
    "rmsprop/centered": (
        lambda: gx.rmsprop(LR, 0.8, EPS, centered=True),
        lambda g, x: ref.rmsprop(g, x, LR, 0.8, EPS, centered=True),
    ),
    "rmsprop/centered_eps_outside": (
        lambda: gx.rmsprop(LR, 0.8, EPS, centered=True, eps_in_sqrt=False),
        lambda g, x: ref.rmsprop(g, x, LR, 0.8, EPS, centered=True, eps_in_sqrt=False),
    ),
    "rmsprop/momentum_fading": (
        lambda: gx.rmsprop(FADING, 0.8, EPS, momentum=0.7),
        lambda g, x: ref.rmsprop(g, x, FADING_ORACLE, 0.8, EPS, momentum=0.7),
    ),
    "rmsprop/nesterov_fading": (
        lambda: gx.rmsprop(FADING, 0.8, EPS, momentum=0.7, nesterov=True),
        lambda g, x: ref.rmsprop(g, x, FADING_ORACLE, 0.8, EPS, momentum=0.7, nesterov=True),
    ),
    "rmsprop/torch_fading": (
        lambda: gx.rmsprop(FADING, 0.8, EPS, momentum=0.7, centered=True, convention="torch"),
        lambda g, x: ref.rmsprop(
            g, x, FADING_ORACLE, 0.8, EPS, momentum=0.7, centered=True, convention="torch"
        ),
    ),
    "rmsprop/keras_fading": (
        lambda: gx.rmsprop(FADING, 0.8, EPS, momentum=0.7, centered=True, convention="keras"),
        lambda g, x: ref.rmsprop(
            g, x, FADING_ORACLE, 0.8, EPS, momentum=0.7, centered=True, convention="keras"
        ),
    ),
    "adam/keras": (
        lambda: gx.adam(LR, B1, B2, EPS, convention="keras"),
        lambda g, x: ref.adam(g, x, LR, B1, B2, EPS, convention="keras"),
    ),
    "adam": (lambda: gx.adam(LR, B1, B2, EPS), lambda g, x: ref.adam(g, x, LR, B1, B2, EPS)),
    "adam/fading": (
        lambda: gx.adam(FADING, B1, B2, EPS),
        lambda g, x: ref.adam(g, x, FADING_ORACLE, B1, B2, EPS),
    ),
    "adam/eps_root": (
        lambda: gx.adam(LR, B1, B2, EPS, ROOT),
        lambda g, x: ref.adam(g, x, LR, B1, B2, EPS, eps_root=ROOT),
    ),
    "adam/nesterov": (
        lambda: gx.adam(LR, B1, B2, EPS, nesterov=True),
        lambda g, x: ref.nadam(g, x, LR, B1, B2, EPS),
    ),
    "adam/uncorrected": (
        lambda: gx.adam(LR, B1, B2, EPS, bias_correction=False),
        lambda g, x: ref.adam(g, x, LR, B1, B2, EPS, debias=False),
    ),
    "adam_uncorrected": (
        # eps inside the root, where the lecture has it
        lambda: gx.adam_uncorrected(LR, B1, B2, EPS),
        lambda g, x: ref.adam(g, x, LR, B1, B2, 0.0, eps_root=EPS, debias=False),
    ),
    "adam_l2": (
        lambda: gx.adam_l2(LR, B1, B2, EPS, 0.2),
        lambda g, x: ref.adam_l2(g, x, LR, B1, B2, EPS, 0.2),
    ),
    "adamw": (
        lambda: gx.adamw(LR, B1, B2, EPS, weight_decay=0.2),
        lambda g, x: ref.adamw(g, x, LR, B1, B2, EPS, 0.2),
    ),
    "adamw/fading": (
        lambda: gx.adamw(FADING, B1, B2, EPS, weight_decay=0.2),
        lambda g, x: ref.adamw(g, x, FADING_ORACLE, B1, B2, EPS, 0.2),
    ),
    **{
        f"adamw/{c}": (
            lambda c=c: gx.adamw(FADING, B1, B2, EPS, weight_decay=0.02, convention=c),
            lambda g, x, c=c: ref.adamw(g, x, FADING_ORACLE, B1, B2, EPS, 0.02, convention=c),
        )
        for c in ("torch", "keras", "paper")
    },
    "adamw/nesterov": (
        lambda: gx.adamw(LR, B1, B2, EPS, weight_decay=0.2, nesterov=True),
        lambda g, x: ref.nadam(
            g, x, LR, B1, B2, EPS, weight_decay=0.2, decoupled_weight_decay=True
        ),
    ),
    **{
        f"nadam/{convention}": (
            lambda c=convention: gx.nadam(LR, B1, B2, EPS, convention=c),
            lambda g, x, c=convention: ref.nadam(g, x, LR, B1, B2, EPS, convention=c),
        )
        for convention in ("optax", "torch", "keras", "paper")
    },
    "adamax": (lambda: gx.adamax(LR, B1, B2, EPS), lambda g, x: ref.adamax(g, x, LR, B1, B2, EPS)),
    "adamax/keras": (
        lambda: gx.adamax(LR, B1, B2, EPS, convention="keras"),
        lambda g, x: ref.adamax(g, x, LR, B1, B2, EPS, convention="keras"),
    ),
    **{
        f"amsgrad/{convention}": (
            lambda c=convention: gx.amsgrad(LR, B1, B2, EPS, convention=c),
            lambda g, x, c=convention: ref.amsgrad(g, x, LR, B1, B2, EPS, convention=c),
        )
        for convention in ("optax", "torch", "keras", "paper")
    },
    "amsgrad/eps_root": (
        lambda: gx.amsgrad(LR, B1, B2, EPS, ROOT),
        lambda g, x: ref.amsgrad(g, x, LR, B1, B2, EPS, eps_root=ROOT),
    ),
    "yogi": (
        # Optax starts m at v's initial value too: with 0 both start there
        lambda: descend(gx.ema(B1), gx.scale_by_yogi_rms(B2, EPS, ROOT, 0.0)),
        lambda g, x: ref.yogi(g, x, LR, B1, B2, EPS, eps_root=ROOT, initial_accumulator_value=0.0),
    ),
    "yogi/initial": (
        lambda: descend(gx.scale_by_yogi_rms(B2, EPS, initial_accumulator_value=0.3)),
        lambda g, x: ref.yogi(g, x, LR, 0.0, B2, EPS, initial_accumulator_value=0.3),
    ),
    "adabelief": (
        lambda: descend(
            gx.ema(B1, debias=False), gx.scale_by_deviation(B2, EPS, ROOT), gx.correct_bias(B1)
        ),
        lambda g, x: ref.adabelief(g, x, LR, B1, B2, EPS, ROOT),
    ),
    "adabelief/paper": (
        lambda: descend(
            gx.ema(B1, debias=False), gx.scale_by_deviation(B2, EPS, EPS), gx.correct_bias(B1)
        ),
        lambda g, x: ref.adabelief(g, x, LR, B1, B2, EPS, convention="paper"),
    ),
    "ademamix": (
        lambda: descend(
            gx.two_emas(B1, 0.99, 3.0),
            gx.scale_by_rms(B2, EPS, eps_in_sqrt=False, bias_correction=True, eps_root=ROOT),
        ),
        lambda g, x: ref.ademamix(g, x, LR, B1, B2, 0.99, 3.0, EPS, eps_root=ROOT),
    ),
    "ademamix/ramps": (
        lambda: descend(
            gx.two_emas(B1, B3, ALPHA),
            gx.scale_by_rms(B2, EPS, eps_in_sqrt=False, bias_correction=True),
            gx.add_decayed_weights(0.2),
        ),
        lambda g, x: ref.ademamix(g, x, LR, B1, B2, B3_ORACLE, ALPHA_ORACLE, EPS, weight_decay=0.2),
    ),
}


@cache
def oracle_walks(traced):
    """Numbers closed over keep their Python precision; numbers that are arguments of the program are arrays."""
    several = {name: make() for name, (make, _) in OPTIMIZERS.items()}
    data = flat(START), flat(GRADS)
    return jax.jit(walks)(several, *data) if traced else jax.jit(partial(walks, several))(*data)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("traced", [False, True], ids=["constant", "traced"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name, traced):
    make, oracle = OPTIMIZERS[name]
    path = oracle_walks(traced)[name]
    assert path.dtype == np.float64
    close(path, oracle(flat(GRADS), flat(START)), err_msg=repr(make()))


ALL = ("optax", "torch", "keras", "paper")
# The paper of AdamW has no default decay
DEFAULTS = {
    **dict.fromkeys(("adagrad", "adadelta", "rmsprop", "adam", "nadam", "adamax", "amsgrad"), ALL),
    "adamw": ("optax", "torch", "keras"),
}


@cache
def default_walks():
    several = {
        f"{name}/{c}": getattr(gx, name)(LR, convention=c)
        for name, choices in DEFAULTS.items()
        for c in choices
    }
    return jax.jit(partial(walks, several))(flat(START), flat(GRADS))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "convention"), [(name, c) for name, choices in DEFAULTS.items() for c in choices]
)
def test_defaults_of_each_convention(name, convention):
    oracle = getattr(ref, name)(flat(GRADS), flat(START), LR, convention=convention)
    close(default_walks()[f"{name}/{convention}"], oracle)


def constructors(module):
    """The names of the transformations or schedules that a file defines."""
    found = {
        name
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and hasattr(f, "build")
    }
    assert found
    return found


def test_no_optimizer_is_without_an_oracle():
    assert constructors(textbook) - {name.partition("/")[0] for name in OPTIMIZERS} == set()
    choices = {
        f"{name}/{c}" for name in constructors(textbook) for c in getattr(gx, name).conventions
    }
    tested = {
        f"{name}/{convention}"
        for name, all_conventions in DEFAULTS.items()
        for convention in all_conventions
    }
    tested |= {f"sgd/{c}" for c in ALL}  # it has one default, None
    assert choices - tested == {"adamw/paper"}
    assert gx.adadelta(convention="keras").learning_rate == 1e-3


# torch


def torch_sgd(rate, case):
    decay, dampening, nesterov = arguments(case, "momentum", "dampening", "nesterov")
    if not decay:
        return gx.sgd(rate)
    if not dampening:
        return gx.sgd(rate, decay, nesterov=nesterov)
    return gx.chain(
        gx.momentum(decay, dampening, nesterov, convention="torch"), gx.scale_by_learning_rate(rate)
    )


def torch_adagrad(rate, case):
    slowing, start, eps = arguments(case, "lr_decay", "initial_accumulator_value", "eps")
    if slowing:
        assert case["lr_factor"] == 1
        rate = gx.inverse_time_decay(case["kwargs"]["lr"], slowing)
    return gx.adagrad(rate, start, eps, convention="torch")


def torch_rmsprop(rate, case):
    decay, eps, centered, momentum = arguments(case, "alpha", "eps", "centered", "momentum")
    return gx.rmsprop(
        rate, decay, eps, centered=centered, momentum=momentum or None, convention="torch"
    )


def torch_adam(rate, case):
    names = ("betas", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay")
    betas, eps, decay, amsgrad, decoupled = arguments(case, *names)
    if amsgrad:
        assert not decay
        return gx.amsgrad(rate, *betas, eps, convention="torch")
    if decay and decoupled:
        return gx.adamw(rate, *betas, eps, weight_decay=decay)
    return gx.adam_l2(rate, *betas, eps, decay) if decay else gx.adam(rate, *betas, eps)


def torch_adamax(rate, case):
    betas, eps = arguments(case, "betas", "eps")
    return gx.adamax(rate, *betas, eps)


def torch_nadam(rate, case):
    names = ("betas", "eps", "momentum_decay", "weight_decay", "decoupled_weight_decay")
    (b1, b2), eps, momentum_decay, decay, decoupled = arguments(case, *names)
    if not decoupled:
        assert momentum_decay == 0.004
        return gx.chain(
            gx.add_decayed_weights(decay) if decay else None,
            gx.nadam(rate, b1, b2, eps, convention="torch"),
        )
    return gx.chain(
        gx.nesterov_ema_scheduled(b1, momentum_decay),
        gx.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        gx.add_decayed_weights(decay),
        gx.scale_by_learning_rate(rate),
    )


TORCH = {
    "SGD": torch_sgd,
    "Adagrad": torch_adagrad,
    "Adadelta": lambda rate, case: gx.adadelta(rate, *arguments(case, "rho", "eps")),
    "RMSprop": torch_rmsprop,
    "Adam": torch_adam,
    "AdamW": torch_adam,
    "Adamax": torch_adamax,
    "NAdam": torch_nadam,
}


def torch_twin(name):
    case = META["cases"][name]
    lr, factor = case["kwargs"]["lr"], case["lr_factor"]
    return TORCH[case["optimizer"]](
        lr if factor == 1 else gx.exponential_decay(lr, 1, factor), case
    )


@cache
def torch_walks():
    return jax.jit(partial(walks, {name: torch_twin(name) for name in META["cases"]}))(START, GRADS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", META["cases"])
def test_torch_path(name):
    for leaf in LEAVES:
        close(
            torch_walks()[name][leaf],
            GOLDEN[f"path/{name}/{leaf}"],
            err_msg=f"{torch_twin(name)!r}, leaf {leaf}",
        )


# Schedules

BEFORE = gx.exponential_decay(0.3, 5, 0.5)
# name: (schedule, oracle(step), its lengths, the steps at which something changes)
SCHEDULES = {
    "constant_schedule": (
        gx.constant_schedule(0.3),
        lambda n: ref.constant_schedule(n, 0.3),
        (),
        (),
    ),
    "polynomial_schedule": (
        gx.polynomial_schedule(0.3, 0.1, 2.5, 20, 4),
        lambda n: ref.polynomial_schedule(n, 0.3, 0.1, 2.5, 20, 4),
        ("transition_steps", "transition_begin"),
        (4, 24),
    ),
    "polynomial_schedule/root": (
        gx.polynomial_schedule(0.3, 0.1, 0.5, 20),
        lambda n: ref.polynomial_schedule(n, 0.3, 0.1, 0.5, 20),
        ("transition_steps",),
        (20,),
    ),
    "linear_schedule": (
        gx.linear_schedule(0.1, 0.7, 11, 3),
        lambda n: ref.linear_schedule(n, 0.1, 0.7, 11, 3),
        ("transition_steps", "transition_begin"),
        (3, 14),
    ),
    "exponential_decay": (
        gx.exponential_decay(0.3, 7, 0.5),
        lambda n: ref.exponential_decay(n, 0.3, 7, 0.5),
        ("transition_steps",),
        (),
    ),
    "exponential_decay/staircase": (
        gx.exponential_decay(0.3, 7, 0.5, 4, True),
        lambda n: ref.exponential_decay(n, 0.3, 7, 0.5, 4, True),
        ("transition_steps", "transition_begin"),
        (4, 11, 18),
    ),
    "exponential_decay/bounded": (
        gx.exponential_decay(0.3, 5, 0.5, end_value=0.05),
        lambda n: ref.exponential_decay(n, 0.3, 5, 0.5, end_value=0.05),
        ("transition_steps",),
        (13,),
    ),
    "exponential_decay/growing": (
        gx.exponential_decay(0.3, 5, 1.5, end_value=0.9),
        lambda n: ref.exponential_decay(n, 0.3, 5, 1.5, end_value=0.9),
        ("transition_steps",),
        (14,),
    ),
    "step_decay": (
        gx.step_decay(0.3, 0.5, 7),
        lambda n: ref.step_decay(n, 0.3, 0.5, 7),
        ("every",),
        (7, 14),
    ),
    "natural_exp_decay": (
        gx.natural_exp_decay(0.3, 0.05, 2),
        lambda n: ref.natural_exponential(n, 0.3, 0.025),
        ("transition_steps",),
        (),
    ),
    "natural_exp_decay/staircase": (
        gx.natural_exp_decay(0.3, 0.05, 6, staircase=True),
        lambda n: ref.natural_exponential(n // 6, 0.3, 0.05),
        ("transition_steps",),
        (6, 12),
    ),
    "inverse_time_decay": (
        gx.inverse_time_decay(0.3, 0.5, 2),
        lambda n: ref.inverse_time(n, 0.3, 0.25),
        ("transition_steps",),
        (),
    ),
    "inverse_time_decay/staircase": (
        gx.inverse_time_decay(0.3, 0.5, 6, staircase=True),
        lambda n: ref.inverse_time(n // 6, 0.3, 0.5),
        ("transition_steps",),
        (6, 12),
    ),
    "inverse_sqrt_decay": (
        gx.inverse_sqrt_decay(0.6),
        lambda n: ref.inverse_sqrt(n, 0.6),
        ("transition_steps",),
        (),
    ),
    "piecewise_constant_schedule": (
        gx.piecewise_constant_schedule(0.3, {20: 0.5, 5: 0.1}),
        lambda n: ref.piecewise_constant_schedule(n, 0.3, {20: 0.5, 5: 0.1}),
        (),
        (5, 20),
    ),
    "manual_schedule": (
        gx.manual_schedule((0.3, 0.7, 0.01), (5, 20)),
        lambda n: 0.3 if n < 5 else 0.7 if n < 20 else 0.01,
        ("boundaries",),
        (5, 20),
    ),
    "cosine_decay_schedule": (
        gx.cosine_decay_schedule(0.3, 20, 0.1),
        lambda n: ref.cosine_decay_schedule(n, 0.3, 20, 0.1),
        ("decay_steps",),
        (20,),
    ),
    "cosine_decay_schedule/exponent": (
        gx.cosine_decay_schedule(0.3, 20, 0.1, 1.5),
        lambda n: ref.cosine_decay_schedule(n, 0.3, 20, 0.1, 1.5),
        ("decay_steps",),
        (20,),
    ),
    "cosine_decay_schedule/root": (
        gx.cosine_decay_schedule(0.3, 20, 0.1, 0.5),
        lambda n: ref.cosine_decay_schedule(n, 0.3, 20, 0.1, 0.5),
        ("decay_steps",),
        (20,),
    ),
    "join_schedules": (
        gx.join_schedules((BEFORE, gx.linear_schedule(0.7, 0.1, 10)), (8,)),
        lambda n: (
            ref.exponential_decay(n, 0.3, 5, 0.5)
            if n < 8
            else ref.linear_schedule(n - 8, 0.7, 0.1, 10)
        ),
        ("boundaries",),
        (8, 18),
    ),
    "warmup_constant_schedule": (
        gx.warmup_constant_schedule(0.1, 0.7, 6),
        lambda n: ref.linear_schedule(n, 0.1, 0.7, 6),
        ("warmup_steps",),
        (6,),
    ),
    "warmup_cosine_decay_schedule": (
        gx.warmup_cosine_decay_schedule(0.1, 0.7, 6, 25, 0.02, 1.5),
        lambda n: (
            ref.warmup_cosine_decay_schedule(n, 0.1, 0.7, 6, 25, 0.02)
            if n < 6
            else 0.02 + 0.68 * ref.cosine_decay_schedule(n - 6, 1.0, 19) ** 1.5
        ),
        ("warmup_steps", "decay_steps"),
        (6, 25),
    ),
    "warmup_exponential_decay_schedule": (
        gx.warmup_exponential_decay_schedule(0.1, 0.7, 6, 5, 0.5, 2, end_value=0.05),
        lambda n: (
            ref.linear_schedule(n, 0.1, 0.7, 6)
            if n < 6
            else ref.exponential_decay(n - 6, 0.7, 5, 0.5, 2, end_value=0.05)
        ),
        ("warmup_steps", "transition_steps", "transition_begin"),
        (6, 8),
    ),
    "per_epoch": (
        gx.per_epoch([BEFORE], 7),
        lambda n: ref.exponential_decay(n // 7, 0.3, 5, 0.5),
        ("steps_per_epoch",),
        (7, 14),
    ),
}
STEPS = np.arange(40, dtype=np.int32)


@jax.jit
def values_of(schedule, steps=STEPS):
    return jax.vmap(lambda step: jnp.asarray(schedule(step), float))(jnp.asarray(steps))


def test_no_schedule_is_without_an_oracle():
    assert constructors(schedules) - {name.partition("/")[0] for name in SCHEDULES} == set()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    schedule, oracle, _, changes = SCHEDULES[name]
    expected = [oracle(int(step)) for step in STEPS]
    close(values_of(schedule), expected)
    for step in {
        0,
        39,
        *(c + d for c in changes for d in (-1, 0, 1)),
    }:  # a Python int in an eager program, as users look at them
        close(float(schedule(step)), expected[step])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_in_float32(name):
    """At a boundary the counted step must not be rounded to the wrong side."""
    schedule, oracle, _, _ = SCHEDULES[name]
    np.testing.assert_allclose(
        values_of(schedule), [oracle(int(step)) for step in STEPS], rtol=3e-6
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "length"), [(name, length) for name, case in SCHEDULES.items() for length in case[2]]
)
def test_traced_lengths_are_a_loop(name, length):
    schedule = SCHEDULES[name][0]
    old = getattr(schedule, length)
    longer = [
        tuple(x + k for x in old) if isinstance(old, tuple) else old + k for k in (0, 1, 2.5, 9)
    ]
    several = [schedule.replace(**{length: x}) for x in longer]
    batched = jax.vmap(values_of)(gx.stack(several))
    close(batched, np.stack([values_of(s) for s in several]))
    assert len({row.tobytes() for row in np.asarray(batched)}) == len(several)


@jax.jit
def slopes_and_differences(several, h=1e-6):
    """The derivative of each schedule by each of its numbers, in reverse mode and as a central difference."""

    def difference(schedule):
        leaves, structure = jax.tree.flatten(schedule)

        def moved(i, by):
            return values_of(
                structure.unflatten([x + by if j == i else x for j, x in enumerate(leaves)])
            )

        return [(moved(i, h) - moved(i, -h)) / (2 * h) for i in range(len(leaves))]

    return {
        name: (jax.tree.leaves(jax.jacrev(values_of)(s)), difference(s))
        for name, s in several.items()
    }


@cache
def all_slopes():
    return slopes_and_differences({name: case[0] for name, case in SCHEDULES.items()})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", one_in(3, SCHEDULES))
def test_schedule_slopes(name):
    """Finite by every number at every step; away from the boundaries, those of central differences."""
    _, _, _, changes = SCHEDULES[name]
    smooth = np.array([n for n in STEPS if n > 0 and n not in changes])
    if "staircase" in name or name == "step_decay":  # every multiple of the length is a jump
        smooth = np.array([1, 3])
    if name == "per_epoch":  # as there; and where the first epoch begins, its schedule does
        smooth = np.array([8, 10])
    for slope, difference in zip(*all_slopes()[name], strict=True):
        assert np.isfinite(slope).all(), f"{name}: not finite at steps {STEPS[~np.isfinite(slope)]}"
        np.testing.assert_allclose(slope[smooth], difference[smooth], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_prints_the_code_that_builds_it(name):
    schedule = SCHEDULES[name][0]
    again = eval(repr(schedule), {**vars(gx), "jnp": jnp})
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert repr(again) == repr(schedule)
    arrays = jax.tree.map(jnp.float32, schedule)
    assert eval(repr(arrays), {**vars(gx), "jnp": jnp}) == arrays != schedule


def test_per_epoch_takes_a_schedule():
    assert gx.per_epoch(BEFORE, 7) == gx.per_epoch([BEFORE], 7)


def test_no_warmup_is_a_length_of_zero():
    """As in Optax, where a sweep over the length of the warm-up starts at 0."""
    np.testing.assert_allclose(
        values_of(gx.warmup_cosine_decay_schedule(0.1, 0.7, 0, 25)),
        [ref.warmup_cosine_decay_schedule(int(n), 0.1, 0.7, 0, 25) for n in STEPS],
        rtol=3e-6,
        atol=1e-7,
    )


def test_no_warmup_when_traced():
    traced = jax.jit(lambda n: values_of(gx.warmup_cosine_decay_schedule(0.1, 0.7, n, 25.0)))(
        jnp.float32(0)
    )
    np.testing.assert_allclose(
        traced,
        [ref.warmup_cosine_decay_schedule(int(n), 0.1, 0.7, 0, 25) for n in STEPS],
        rtol=3e-6,
        atol=1e-7,
    )


TORCH_SCHEDULES = {
    "step": lambda lr, k: gx.step_decay(lr, k["gamma"], k["step_size"]),
    "multistep": lambda lr, k: gx.piecewise_constant_schedule(
        lr, dict.fromkeys(k["milestones"], k["gamma"])
    ),
    "exponential": lambda lr, k: gx.exponential_decay(lr, 1, k["gamma"]),
    "linear": lambda lr, k: gx.linear_schedule(
        lr * k["start_factor"], lr * k["end_factor"], k["total_iters"]
    ),
    "polynomial": lambda lr, k: gx.polynomial_schedule(lr, 0.0, k["power"], k["total_iters"]),
    "cosine": lambda lr, k: gx.cosine_decay_schedule(lr, k["T_max"], k["eta_min"] / lr),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_torch_schedule(name):
    case, expected = META["schedules"][name], GOLDEN[f"rate/{name}"].copy()
    if name == "cosine":  # torch's rises again after T_max, ours stays
        assert expected[case["kwargs"]["T_max"] + 5] > case["kwargs"]["eta_min"]
        expected[case["kwargs"]["T_max"] :] = case["kwargs"]["eta_min"]
    close(
        values_of(
            TORCH_SCHEDULES[name](case["lr"], case["kwargs"]),
            np.arange(len(expected), dtype=np.int32),
        ),
        expected,
    )


def plateau_rates(tx, values):
    """The scale after each value."""

    def step(state, value):
        update, state = tx.update(jnp.ones(()), state, value=value)
        return state, update

    return jax.lax.scan(step, tx.init(jnp.ones(())), jnp.asarray(values))[1]


# The scale is a float32 scalar, whatever the parameters are
@pytest.mark.parametrize("name", [name for name in META["schedules"] if name.startswith("plateau")])
def test_torch_plateau(name):
    case, expected = META["schedules"][name], GOLDEN[f"rate/{name}"]
    kwargs = case["kwargs"]
    threshold = kwargs["threshold"]
    rtol, atol = (0.0, threshold) if kwargs.get("threshold_mode") == "abs" else (threshold, 0.0)
    tx = gx.reduce_on_plateau(
        kwargs["factor"],
        kwargs["patience"],
        rtol,
        atol,
        kwargs.get("cooldown", 0),
        min_scale=kwargs.get("min_lr", 0.0) / case["lr"],
        convention="torch",
    )
    assert len(set(expected)) > 2
    np.testing.assert_allclose(
        case["lr"] * plateau_rates(tx, GOLDEN["plateau_values"]), expected, rtol=1e-6
    )


@pytest.mark.parametrize("convention", ["optax", "torch"])
@pytest.mark.parametrize(
    "numbers",
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
def test_plateau(numbers, convention):
    values = GOLDEN["plateau_values"]
    expected = ref.reduce_on_plateau(values, **numbers, convention=convention)
    assert len(set(expected)) > 2
    np.testing.assert_allclose(
        plateau_rates(gx.reduce_on_plateau(**numbers, convention=convention), values),
        expected,
        rtol=1e-6,
    )


def test_plateau_waits_with_losses_below_zero():
    """Where Optax and torch have (1 - rtol) best, above a negative best, a plateau counts as better for ever."""
    scales = plateau_rates(gx.reduce_on_plateau(0.5, 2, rtol=0.01), np.full(8, -3.0, np.float32))
    np.testing.assert_array_equal(scales, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125])
    assert math.prod(ref.reduce_on_plateau(np.full(8, -3.0), 0.5, 2, 0.01)) == 1
