"""Every method beyond the textbook against float64 NumPy from its paper, and against what other packages compute."""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as textbook
import reference_catalogue as ref
from replay import GRADS, LEAVES, START, close, recorded, walks

import gradxform as gx
from gradxform.optimizers import adaptive, descent, layerwise, relatives, signs

GOLDEN = recorded("catalogue")

# None of these is a default, and eps is large enough to show in which place it stands
LR, B1, B2, B3, EPS, ROOT, WD = 0.07, 0.8, 0.97, 0.9, 3e-3, 2e-4, 0.2
FADING, FADING_ORACLE = gx.exponential_decay(LR, 1, 0.9), lambda step: LR * 0.9**step


def descend(*parts):
    return gx.chain(*parts, gx.scale_by_learning_rate(LR))


def ramps():
    return {"b3": gx.ademamix_b3(0.99, B1, 20), "alpha": gx.ademamix_alpha(2.0, 20)}


def half(t):
    return 0.5 * t


# name: (optimizer, oracle). What comes before "/" is the constructor, unless it is a composition.
CASES = {
    "sign_sgd": (lambda: gx.sign_sgd(FADING), lambda g, x: ref.sign_sgd(g, x, FADING_ORACLE)),
    "signum": (lambda: gx.signum(LR, 0.8), lambda g, x: ref.signum(g, x, LR, 0.8)),
    "lion": (
        lambda: gx.lion(FADING, B1, B2, None, WD),
        lambda g, x: ref.lion(g, x, FADING_ORACLE, B1, B2, WD),
    ),
    **{
        f"lion/{mode}": (
            lambda mode=mode: descend(gx.scale_by_lion(B1, B2, mode=mode, smooth_beta=0.7)),
            lambda g, x, mode=mode: ref.lion(g, x, LR, B1, B2, 0.0, mode=mode, smooth_beta=0.7),
        )
        for mode in ("hard", "smooth", "refined")
    },
    **{
        f"rprop/{c}": (
            lambda c=c: gx.rprop(LR, 0.4, 1.3, 1e-2, 0.2, convention=c),
            lambda g, x, c=c: ref.rprop(g, x, LR, 0.4, 1.3, 1e-2, 0.2, convention=c),
        )
        for c in ("optax", "torch")
    },
    "nadamw": (
        lambda: gx.nadamw(FADING, B1, B2, EPS, weight_decay=WD),
        lambda g, x: textbook.nadam(
            g, x, FADING_ORACLE, B1, B2, EPS, weight_decay=WD, decoupled_weight_decay=True
        ),
    ),
    **{
        f"nadamw/{c}": (
            lambda c=c: gx.nadamw(LR, B1, B2, EPS, weight_decay=WD, convention=c),
            lambda g, x, c=c: textbook.nadam(
                g, x, LR, B1, B2, EPS, weight_decay=WD, decoupled_weight_decay=True, convention=c
            ),
        )
        for c in ("torch", "keras", "paper")
    },
    **{
        f"adamaxw/{c}": (
            lambda c=c: gx.adamaxw(LR, B1, B2, EPS, WD, convention=c),
            lambda g, x, c=c: ref.adamaxw(g, x, LR, B1, B2, EPS, WD, convention=c),
        )
        for c in ("optax", "keras")
    },
    "adabelief": (
        lambda: gx.adabelief(LR, B1, B2, EPS, ROOT),
        lambda g, x: textbook.adabelief(g, x, LR, B1, B2, EPS, ROOT),
    ),
    "adabelief/nesterov": (
        lambda: gx.adabelief(LR, B1, B2, EPS, ROOT, nesterov=True),
        lambda g, x: textbook.adabelief(g, x, LR, B1, B2, EPS, ROOT, nesterov=True),
    ),
    **{
        f"yogi/{c}": (
            lambda c=c: gx.yogi(LR, B1, B2, EPS, convention=c),
            lambda g, x, c=c: textbook.yogi(g, x, LR, B1, B2, EPS, convention=c),
        )
        for c in ("optax", "paper")
    },
    "yogi/initial": (
        lambda: descend(gx.scale_by_yogi(B1, B2, EPS, ROOT, 0.3)),
        lambda g, x: textbook.yogi(
            g, x, LR, B1, B2, EPS, eps_root=ROOT, initial_accumulator_value=0.3
        ),
    ),
    **{
        f"radam/{c}": (
            lambda c=c: gx.radam(FADING, B1, B2, EPS, convention=c),
            lambda g, x, c=c: ref.radam(g, x, FADING_ORACLE, B1, B2, EPS, convention=c),
        )
        for c in ("optax", "torch", "paper")
    },
    "radam/nesterov": (
        lambda: gx.radam(LR, B1, B2, EPS, ROOT, 6.0, nesterov=True),
        lambda g, x: ref.radam(g, x, LR, B1, B2, EPS, eps_root=ROOT, threshold=6.0, nesterov=True),
    ),
    "radam/short": (
        lambda: gx.radam(LR, B1, 0.6, EPS),
        lambda g, x: ref.radam(g, x, LR, B1, 0.6, EPS),
    ),
    "ademamix": (
        lambda: gx.ademamix(LR, B1, B2, 0.99, 2.0, EPS, ROOT, None, WD),
        lambda g, x: textbook.ademamix(
            g, x, LR, B1, B2, 0.99, 2.0, EPS, eps_root=ROOT, weight_decay=WD
        ),
    ),
    "ademamix/ramps": (
        lambda: gx.ademamix(LR, B1, B2, **ramps(), eps=EPS),
        lambda g, x: textbook.ademamix(
            g,
            x,
            LR,
            B1,
            B2,
            lambda step: textbook.ademamix_b3(step, 0.99, B1, 20),
            lambda step: textbook.ademamix_alpha(step, 2.0, 20),
            EPS,
        ),
    ),
    "simplified_ademamix": (
        lambda: gx.simplified_ademamix(LR, B1, B2, 0.5, EPS, ROOT, WD),
        lambda g, x: ref.simplified_ademamix(g, x, LR, B1, B2, 0.5, EPS, WD, eps_root=ROOT),
    ),
    **{
        f"adan/{c}": (
            lambda c=c: gx.adan(FADING, B1, B2, B3, EPS, ROOT, WD, convention=c),
            lambda g, x, c=c: ref.adan(
                g, x, FADING_ORACLE, B1, B2, B3, EPS, WD, eps_root=ROOT, convention=c
            ),
        )
        for c in ("optax", "authors", "paper")
    },
    **{
        f"adopt/{c}": (
            lambda c=c: gx.adopt(LR, B1, B2, EPS, convention=c),
            lambda g, x, c=c: ref.adopt(g, x, LR, B1, B2, EPS, convention=c),
        )
        for c in ("optax", "pytorch_optimizer")
    },
    "adopt/nesterov": (
        lambda: gx.adopt(LR, B1, B2, EPS, nesterov=True, clip_value_fn=half),
        lambda g, x: ref.adopt(g, x, LR, B1, B2, EPS, nesterov=True, clip=half),
    ),
    "adopt/unclipped": (
        lambda: gx.adopt(LR, B1, B2, EPS, use_clipping=False),
        lambda g, x: ref.adopt(g, x, LR, B1, B2, EPS, clip=None),
    ),
    **{
        f"acprop/{c}": (
            lambda c=c: gx.acprop(LR, B1, B2, EPS, ROOT, WD, convention=c),
            lambda g, x, c=c: ref.acprop(g, x, LR, B1, B2, EPS, ROOT, WD, convention=c),
        )
        for c in ("optax", "authors")
    },
    **{
        f"laprop/{c}": (
            lambda c=c: gx.laprop(FADING, B1, B2, EPS, WD, convention=c),
            lambda g, x, c=c: ref.laprop(g, x, FADING_ORACLE, B1, B2, EPS, WD, convention=c),
        )
        for c in ("paper", "pytorch_optimizer")
    },
    "qhm": (lambda: gx.qhm(LR, B1, 0.6), lambda g, x: ref.qhm(g, x, LR, B1, 0.6)),
    "qhadam": (
        lambda: gx.qhadam(LR, B1, B2, 0.6, 0.7, EPS, WD),
        lambda g, x: ref.qhadam(g, x, LR, B1, B2, 0.6, 0.7, EPS, WD),
    ),
    **{
        f"padam/{c}": (
            lambda c=c: gx.padam(LR, B1, B2, 0.2, EPS, WD, convention=c),
            lambda g, x, c=c: ref.padam(g, x, LR, B1, B2, 0.2, EPS, WD, convention=c),
        )
        for c in ("paper", "pytorch_optimizer")
    },
    "adam_atan2": (
        lambda: gx.adam_atan2(LR, B1, B2, 1.1, 0.7, WD),
        lambda g, x: ref.adam_atan2(g, x, LR, B1, B2, 1.1, 0.7, WD),
    ),
    "stable_adamw": (
        lambda: gx.stable_adamw(LR, B1, B2, EPS, WD),
        lambda g, x: ref.stable_adamw(g, x, LR, B1, B2, EPS, WD),
    ),
    "scale_by_clipped_rms": (
        lambda: descend(gx.ema(B1), gx.scale_by_clipped_rms(B2, EPS)),
        lambda g, x: ref.stable_adamw(g, x, LR, B1, B2, EPS, 0.0),
    ),
    "optimistic_gradient_descent": (
        lambda: gx.optimistic_gradient_descent(FADING, 0.8, 0.6),
        lambda g, x: ref.optimistic(g, x, FADING_ORACLE, 0.8, 0.6),
    ),
    "optimistic_adam": (
        lambda: gx.optimistic_adam(LR, 0.03, B1, B2, EPS),
        lambda g, x: ref.optimistic(g, x, 1.0, LR, 0.03, rule=ref.NadamRule(x, B1, B2, EPS)),
    ),
    "optimistic_adam/paper": (
        lambda: gx.optimistic_adam(LR, b1=B1, b2=B2, eps=EPS, nesterov=False),
        lambda g, x: ref.optimistic(g, x, LR, rule=ref.NadamRule(x, B1, B2, EPS, False)),
    ),
    "optimistic_adam_v2": (
        lambda: gx.optimistic_adam_v2(FADING, alpha=0.8, beta=0.6, b1=B1, b2=B2, eps=EPS),
        lambda g, x: ref.optimistic(
            g, x, FADING_ORACLE, 0.8, 0.6, rule=ref.NadamRule(x, B1, B2, EPS)
        ),
    ),
    **{
        f"lamb/{c}": (
            lambda c=c: gx.lamb(FADING, B1, B2, EPS, ROOT, WD, convention=c),
            lambda g, x, c=c: ref.lamb(
                g, x, FADING_ORACLE, B1, B2, EPS, WD, eps_root=ROOT, convention=c
            ),
        )
        for c in ("optax", "pytorch_optimizer", "keras")
    },
    **{
        f"lars/{c}": (
            lambda c=c: gx.lars(FADING, WD, None, 0.2, EPS, momentum=0.8, convention=c),
            lambda g, x, c=c: ref.lars(g, x, FADING_ORACLE, WD, 0.2, EPS, 0.8, convention=c),
        )
        for c in ("optax", "paper")
    },
    "lars/nesterov": (
        lambda: gx.lars(LR, WD, None, 0.2, EPS, momentum=0.8, nesterov=True),
        lambda g, x: ref.lars(g, x, LR, WD, 0.2, EPS, 0.8, nesterov=True),
    ),
    "fromage": (
        lambda: gx.fromage(FADING, 0.5),
        lambda g, x: ref.fromage(g, x, FADING_ORACLE, 0.5),
    ),
    "novograd": (
        lambda: gx.novograd(LR, B1, 0.6, EPS, ROOT, WD),
        lambda g, x: ref.novograd(g, x, LR, B1, 0.6, EPS, WD, eps_root=ROOT),
    ),
    "sm3": (lambda: gx.sm3(FADING, B1), lambda g, x: ref.sm3(g, x, FADING_ORACLE, B1)),
    "sm3/average": (
        lambda: descend(gx.scale_by_sm3(B1, B2, EPS)),
        lambda g, x: ref.sm3(g, x, LR, B1, B2, EPS),
    ),
    "cautious/adam": (
        lambda: gx.cautious(gx.adam(LR, B1, B2, EPS)),
        lambda g, x: ref.adamw_with(ref.cautious, g, x, LR, B1, B2, EPS),
    ),
    "cautious/lion_pytorch": (
        lambda: gx.cautious(gx.adam(LR, B1, B2, EPS), convention="lion_pytorch"),
        lambda g, x: ref.adamw_with(
            partial(ref.cautious, convention="lion_pytorch"), g, x, LR, B1, B2, EPS
        ),
    ),
    "cautious/adamw": (
        lambda: descend(
            gx.cautious(gx.scale_by_adam(B1, B2, EPS), descends=False), gx.add_decayed_weights(WD)
        ),
        lambda g, x: ref.adamw_with(ref.cautious, g, x, LR, B1, B2, EPS, WD),
    ),
    "grams/adam": (
        lambda: gx.grams(gx.adam(LR, B1, B2, EPS)),
        lambda g, x: ref.adamw_with(ref.grams, g, x, LR, B1, B2, EPS),
    ),
    "grams/adamw": (
        lambda: descend(
            gx.grams(gx.scale_by_adam(B1, B2, EPS), descends=False), gx.add_decayed_weights(WD)
        ),
        lambda g, x: ref.adamw_with(ref.grams, g, x, LR, B1, B2, EPS, WD),
    ),
    **{
        f"amsgrad/{mu}_{nu}": (
            lambda mu=mu, nu=nu: gx.amsgrad(LR, B1, B2, EPS, ROOT, None, mu, nu),
            lambda g, x, mu=mu, nu=nu: textbook.amsgrad(
                g, x, LR, B1, B2, EPS, eps_root=ROOT, bias_correction_mu=mu, bias_correction_nu=nu
            ),
        )
        for mu, nu in ((True, False), (False, True), (False, False))
    },
}


NUMBERS = {
    "learning_rate": LR, "b1": B1, "b2": B2, "b3": B3, "eps": EPS, "eps_root": ROOT,
    "weight_decay": WD, "beta": B1, "decay": B1,
}  # fmt: skip


def by_name(name):
    """A method and the reference of its name, called alike: the letters of a paper are the names here and there."""
    oracle, make = getattr(ref, name), getattr(gx, name)
    known = inspect.signature(oracle).parameters.keys() & inspect.signature(make).parameters.keys()
    numbers = {key: NUMBERS[key] for key in known & NUMBERS.keys()}
    return lambda: make(**numbers), lambda g, x: oracle(g, x, **numbers)


def constructors(module):
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name for name, f in functions if f.__module__ == module.__name__ and hasattr(f, "build")
    }


NAMED = set().union(*map(constructors, (adaptive, descent, layerwise, relatives, signs)))
written = {name.partition("/")[0] for name in CASES}
# Every method that has a reference of its name, also one that comes tomorrow, without a line here
CASES |= {name: by_name(name) for name in sorted(NAMED - written) if hasattr(ref, name)}
for plain in ("signum", "lion"):  # of those written out, to try the comparison by name
    CASES[f"{plain}/by_name"] = by_name(plain)


@cache
def library_walks(traced):
    """Numbers closed over keep their Python precision; numbers that are arguments of the program are arrays."""
    several = {name: make() for name, (make, _) in CASES.items()}
    if traced:
        return jax.jit(walks)(several, START, GRADS)
    return jax.jit(partial(walks, several))(START, GRADS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "traced", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["constant", "traced"]
)
@pytest.mark.parametrize("name", CASES)
def test_method(name, traced):
    make, oracle = CASES[name]
    path = library_walks(traced)[name]
    for leaf in LEAVES:
        assert path[leaf].dtype == np.float64
        close(path[leaf], oracle(GRADS[leaf], START[leaf]), err_msg=f"{make()!r} at {leaf}")


# The defaults are Optax's where Optax has the name (test_catalogue_optax), the paper's otherwise
DEFAULTS = {
    "radam": ("torch", "paper"),
    "yogi": ("paper",),
    "adan": ("authors", "paper"),
    "adopt": ("pytorch_optimizer",),
    "acprop": ("authors",),
    "lamb": ("pytorch_optimizer", "keras"),
    "lion": ("keras", "lion_pytorch"),
    "adamaxw": ("torch", "keras", "paper"),
    "lars": ("paper",),
    "padam": ("paper", "pytorch_optimizer"),
    "rprop": ("torch",),
    "qhadam": (None,),
    "qhm": (None,),
    "laprop": ("paper", "pytorch_optimizer"),
    "adam_atan2": (None,),
    "stable_adamw": (None,),
}


@cache
def default_walks():
    several = {
        f"{name}/{c}": getattr(gx, name)(LR, **({} if c is None else {"convention": c}))
        for name, choices in DEFAULTS.items()
        for c in choices
    }
    return jax.jit(partial(walks, several))(START, GRADS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "convention"), [(name, c) for name, choices in DEFAULTS.items() for c in choices]
)
def test_defaults_of_each_convention(name, convention):
    oracle = getattr(ref, name, None) or getattr(textbook, name)
    for leaf in LEAVES:
        expected = oracle(
            GRADS[leaf],
            START[leaf],
            LR,
            **({} if convention is None else {"convention": convention}),
        )
        close(default_walks()[f"{name}/{convention}"][leaf], expected)


def test_no_method_is_without_a_reference():
    elsewhere = {"noisy_sgd", "dpsgd"}  # test_catalogue_behaviour
    assert NAMED - {name.partition("/")[0] for name in CASES} == elsewhere
    for name in NAMED - {"dpsgd"}:
        choices = {c for c in getattr(gx, name).conventions if c != "optax"}
        if name != "nadamw":  # whose defaults but ε are ours
            assert choices <= set(DEFAULTS.get(name, ())), name


# Other packages

ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-3}


def golden_lars(leaf):
    """pytorch_optimizer gives the ratio to matrices only, and multiplies by lr after the momentum."""
    if leaf == "b":
        return gx.chain(gx.momentum(0.9), gx.scale_by_learning_rate(0.05))
    return gx.lars(0.05, 0.1, None, 0.1, convention="paper")


# name: our optimizer for that run, of the leaf where it depends on the leaf
PACKAGES = {
    "rprop": lambda leaf: gx.rprop(0.05, convention="torch"),
    "radam": lambda leaf: gx.radam(0.05, **ADAM, convention="torch"),
    "lion": lambda leaf: gx.lion(0.01, 0.9, 0.95, weight_decay=0.1),
    "lion_cautious": lambda leaf: gx.chain(
        gx.cautious(gx.scale_by_lion(0.9, 0.95), descends=False), gx.scale(-0.01)
    ),
    "lamb": lambda leaf: gx.lamb(0.05, **ADAM, weight_decay=0.1, convention="pytorch_optimizer"),
    "lars": golden_lars,
    "adan": lambda leaf: gx.adan(
        0.05, 0.9, 0.8, 0.95, 1e-3, weight_decay=0.1, convention="authors"
    ),
    "adopt": lambda leaf: gx.adopt(0.05, 0.9, 0.95, convention="pytorch_optimizer"),
    "novograd": lambda leaf: gx.novograd(0.05, 0.9, 0.5, 1e-3, weight_decay=0.1),
    "adabelief": lambda leaf: gx.adabelief(0.05, **ADAM, eps_root=1e-3),
    "yogi": lambda leaf: gx.yogi(0.05, **ADAM),
    "padam": lambda leaf: gx.padam(
        0.05, **ADAM, power=0.2, weight_decay=0.1, convention="pytorch_optimizer"
    ),
    "laprop": lambda leaf: gx.laprop(
        0.05, **ADAM, weight_decay=0.1, convention="pytorch_optimizer"
    ),
    "laprop_cautious": lambda leaf: gx.chain(
        gx.cautious(
            gx.chain(
                gx.scale_by_rms(
                    0.95, 1e-3, eps_in_sqrt=False, bias_correction=True, convention="keras"
                ),
                gx.ema(0.9),
            ),
            descends=False,
        ),
        gx.scale(-0.05),
    ),
    "lion_cautious_lion_pytorch": lambda leaf: gx.chain(
        gx.cautious(gx.scale_by_lion(0.9, 0.95), descends=False, convention="lion_pytorch"),
        gx.add_decayed_weights(0.1),
        gx.scale(-0.01),
    ),
    "signum": lambda leaf: gx.signum(0.05, 0.9),
    "qhm": lambda leaf: gx.qhm(0.05, 0.9, 0.7),
    "qhadam": lambda leaf: gx.qhadam(0.05, 0.9, 0.95, 0.7, 0.8, 1e-3, 0.1),
    "stable_adamw": lambda leaf: gx.stable_adamw(0.05, **ADAM, weight_decay=0.1),
    "ademamix": lambda leaf: gx.ademamix(
        0.05,
        0.9,
        0.95,
        gx.ademamix_b3(0.99, 0.9, 20),
        gx.ademamix_alpha(2.0, 20),
        1e-3,
        weight_decay=0.1,
    ),
    "sm3": lambda leaf: gx.chain(gx.scale_by_sm3(0.9, eps=1e-3), gx.scale(-0.05)),
    "fromage": lambda leaf: gx.fromage(0.05, 0.0),
    "grams": lambda leaf: gx.chain(
        gx.grams(gx.scale_by_adam(**ADAM), descends=False),
        gx.add_decayed_weights(0.1),
        gx.scale(-0.05),
    ),
}


def test_every_recorded_run_is_compared():
    assert {name.split("/")[1] for name in GOLDEN} == set(PACKAGES)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("name", PACKAGES)
def test_other_packages(name, leaf):
    tx = PACKAGES[name](leaf)
    path = jax.jit(partial(walks, {name: tx}))(jnp.asarray(START[leaf]), jnp.asarray(GRADS[leaf]))[
        name
    ]
    # QHAdam's weights are float32 there; LaProp adds 1e-15 inside the root
    limit = {"qhadam": 1e-6, "laprop": 1e-8, "laprop_cautious": 1e-8}.get(name, 1e-10)
    close(path, GOLDEN[f"path/{name}/{leaf}"], limit, err_msg=repr(tx))
