"""200 steps on a small network, side by side with Optax: the same method, name by name, with Optax's own defaults."""

import inspect
import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import gradxform as gx

STEPS = 200
LIMIT = {"float64": 1e-9, "float32": 1e-5}
# Optax loses ρₜ in a float32 difference at first: `test_float32_is_nearer_to_float64_than_optax`
LOOSE = {("radam", "float32"): 3e-5, ("radam_nesterov", "float32"): 3e-5}


def is_kernel(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def old_optimistic_adam(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optax.optimistic_adam(*args, **kwargs)


def wide(schedule):
    """Optax's schedules round their step to float32."""
    return lambda step: schedule(jnp.asarray(step, float))


def parts(ours, theirs, rate=1e-3):
    """A transformation that is no optimizer yet."""
    return lambda: gx.chain(ours(), gx.scale(-rate)), lambda: optax.chain(
        theirs(), optax.scale(-rate)
    )


# name: (ours, Optax's), defaults wherever a method trains with them
PAIRS = {
    "adabelief": (lambda: gx.adabelief(2e-3), lambda: optax.adabelief(2e-3)),
    "adabelief_nesterov": (
        lambda: gx.adabelief(2e-3, nesterov=True),
        lambda: optax.adabelief(2e-3, nesterov=True),
    ),
    "adamaxw": (lambda: gx.adamaxw(4e-3), lambda: optax.adamaxw(4e-3)),
    "adan": (lambda: gx.adan(2e-3, weight_decay=0.02), lambda: optax.adan(2e-3, weight_decay=0.02)),
    "amsgrad": (
        lambda: gx.amsgrad(2e-3, bias_correction_mu=False, bias_correction_nu=False),
        lambda: optax.amsgrad(2e-3, bias_correction_mu=False, bias_correction_nu=False),
    ),
    "fromage": (lambda: gx.fromage(1e-2), lambda: optax.fromage(1e-2)),
    "fromage_fading": (
        lambda: gx.fromage(gx.exponential_decay(1e-2, 50, 0.5)),
        lambda: optax.fromage(wide(optax.exponential_decay(1e-2, 50, 0.5))),
    ),
    "lamb": (
        lambda: gx.lamb(1e-2, weight_decay=0.02, mask="**/kernel"),
        lambda: optax.lamb(1e-2, weight_decay=0.02, mask=is_kernel),
    ),
    "lars": (lambda: gx.lars(1.0, 1e-4), lambda: optax.lars(1.0, 1e-4)),
    "lars_masked": (
        lambda: gx.lars(0.02, 1e-4, "**/kernel", 0.1, 1e-6, "**/kernel", 0.8, True),
        lambda: optax.lars(0.02, 1e-4, is_kernel, 0.1, 1e-6, is_kernel, 0.8, True),
    ),
    "lion": (lambda: gx.lion(3e-4), lambda: optax.lion(3e-4)),
    "nadamw": (
        lambda: gx.nadamw(2e-3, weight_decay=0.02, mask="**/kernel"),
        lambda: optax.nadamw(2e-3, weight_decay=0.02, mask=is_kernel),
    ),
    "novograd": (
        lambda: gx.novograd(1e-2, weight_decay=0.01),
        lambda: optax.novograd(1e-2, weight_decay=0.01),
    ),
    "optimistic_adam": (lambda: gx.optimistic_adam(1e-3), lambda: old_optimistic_adam(1e-3)),
    "optimistic_adam_v2": (
        lambda: gx.optimistic_adam_v2(1e-3),
        lambda: optax.optimistic_adam_v2(1e-3),
    ),
    "optimistic_gradient_descent": (
        lambda: gx.optimistic_gradient_descent(0.05, 1.0, 0.5),
        lambda: optax.optimistic_gradient_descent(0.05, 1.0, 0.5),
    ),
    "radam": (lambda: gx.radam(2e-3), lambda: optax.radam(2e-3)),
    "radam_nesterov": (
        lambda: gx.radam(2e-3, nesterov=True),
        lambda: optax.radam(2e-3, nesterov=True),
    ),
    "rprop": (
        lambda: gx.rprop(1e-3, max_step_size=0.02),
        lambda: optax.rprop(1e-3, max_step_size=0.02),
    ),
    "sign_sgd": (lambda: gx.sign_sgd(5e-4), lambda: optax.sign_sgd(5e-4)),
    "signum": (lambda: gx.signum(5e-4), lambda: optax.signum(5e-4)),
    "sm3": (lambda: gx.sm3(5e-2), lambda: optax.sm3(5e-2)),
    "yogi": (lambda: gx.yogi(5e-3), lambda: optax.yogi(5e-3)),
    "acprop": (
        lambda: gx.acprop(1e-3, weight_decay=0.02),
        lambda: contrib.acprop(1e-3, weight_decay=0.02),
    ),
    "ademamix": (lambda: gx.ademamix(1e-3, b3=0.99), lambda: contrib.ademamix(1e-3, b3=0.99)),
    "ademamix_ramp": (
        lambda: gx.ademamix(1e-3, b3=0.99, alpha=gx.linear_schedule(0.0, 5.0, 100)),
        lambda: contrib.ademamix(1e-3, b3=0.99, alpha=wide(optax.linear_schedule(0.0, 5.0, 100))),
    ),
    "simplified_ademamix": (
        lambda: gx.simplified_ademamix(2e-5, alpha=2.0, weight_decay=0.1),
        lambda: contrib.simplified_ademamix(2e-5, alpha=2.0, weight_decay=0.1),
    ),
    "adopt": (lambda: gx.adopt(2e-3), lambda: contrib.adopt(2e-3)),
    "adopt_nesterov": (
        lambda: gx.adopt(2e-3, nesterov=True, use_clipping=False, eps=1e-2),
        lambda: contrib.adopt(2e-3, nesterov=True, use_clipping=False, eps=1e-2),
    ),
    "scale_by_adam": parts(gx.scale_by_adam, optax.scale_by_adam),
    "scale_by_adamax": parts(gx.scale_by_adamax, optax.scale_by_adamax),
    "scale_by_amsgrad": parts(gx.scale_by_amsgrad, optax.scale_by_amsgrad),
    "scale_by_adan": parts(gx.scale_by_adan, optax.scale_by_adan),
    "scale_by_ademamix": parts(
        partial(gx.scale_by_ademamix, b3=0.99), partial(contrib.scale_by_ademamix, b3=0.99)
    ),
    "scale_by_lion_smooth": parts(
        partial(gx.scale_by_lion, mode="smooth"), partial(optax.scale_by_lion, mode="smooth")
    ),
    "scale_by_lion_refined": parts(
        partial(gx.scale_by_lion, mode="refined"), partial(optax.scale_by_lion, mode="refined")
    ),
    "scale_by_novograd": parts(gx.scale_by_novograd, optax.scale_by_novograd),
    "scale_by_param_block_norm": parts(
        gx.scale_by_param_block_norm, optax.scale_by_param_block_norm
    ),
    "scale_by_param_block_rms": parts(
        gx.scale_by_param_block_rms, optax.scale_by_param_block_rms, 0.2
    ),
    "scale_by_sm3": parts(partial(gx.scale_by_sm3, b2=0.95), partial(optax.scale_by_sm3, b2=0.95)),
    "scale_by_trust_ratio": parts(
        partial(gx.scale_by_trust_ratio, 0.1, 0.5, 0.01),
        partial(optax.scale_by_trust_ratio, 0.1, 0.5, 0.01),
    ),
    "scale_by_yogi": parts(gx.scale_by_yogi, optax.scale_by_yogi),
}


def problem(dtype):
    rng = np.random.default_rng(7)
    shapes = {"in": (6, 8), "out": (8, 3)}
    params = {
        layer: {
            "kernel": rng.standard_normal(shape) / shape[0] ** 0.5,
            "bias": 0.1 * rng.standard_normal(shape[1]),
        }
        for layer, shape in shapes.items()
    }
    x = rng.standard_normal((STEPS, 16, 6))
    y = np.tanh(x @ rng.standard_normal((6, 3)))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x, y))


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"])
    return jnp.mean((hidden @ params["out"]["kernel"] + params["out"]["bias"] - y) ** 2)


def descend(several, params, x, y):
    """Train with every `{name: (tx, apply_updates)}` in one program: the parameters after each step, and the losses."""

    def step(carry, batch):
        params, states = carry
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *(params[name] for name in several))
        # one compiled gradient for all, so that equal parameters have gradients equal to the bit
        losses, grads = jax.lax.map(lambda p: jax.value_and_grad(loss)(p, *batch), stacked)
        new_params, new_states = {}, {}
        for i, (name, (tx, apply_updates)) in enumerate(several.items()):
            g = jax.tree.map(lambda g, i=i: g[i], grads)
            updates, new_states[name] = tx.update(g, states[name], params[name])
            new_params[name] = apply_updates(params[name], updates)
        return (new_params, new_states), (new_params, dict(zip(several, losses, strict=True)))

    first = (
        dict.fromkeys(several, params),
        {name: tx.init(params) for name, (tx, _) in several.items()},
    )
    return jax.lax.scan(step, first, (x, y))[1]


@cache
def training(dtype):
    several = {(name, "ours"): (ours(), gx.apply_updates) for name, (ours, _) in PAIRS.items()}
    several |= {
        (name, "optax"): (theirs(), optax.apply_updates) for name, (_, theirs) in PAIRS.items()
    }
    # strict promotion stops Optax's bias correction
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        return jax.device_get(jax.jit(partial(descend, several))(*problem(dtype)))


@pytest.mark.parametrize(
    "dtype", [pytest.param(x, marks=pytest.mark.slow) for x in ("float64", "float32")]
)
def test_every_method_follows_optax(dtype):
    paths, losses = training(dtype)
    gaps = {}
    for name in PAIRS:
        pairs = zip(
            jax.tree.leaves(paths[name, "ours"]), jax.tree.leaves(paths[name, "optax"]), strict=True
        )
        gaps[name] = max(float(np.max(np.abs(a - b))) for a, b in pairs)
    means = {
        name: [np.mean(losses[name, "ours"][part]) for part in (slice(20), slice(-20, None))]
        for name in PAIRS
    }
    untrained = {name: mean for name, mean in means.items() if mean[1] >= 0.97 * mean[0]}
    assert untrained == {}, "where nothing is trained, nothing is compared"
    assert {
        name: gap for name, gap in gaps.items() if not gap < LOOSE.get((name, dtype), LIMIT[dtype])
    } == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["radam", "radam_nesterov"])
def test_float32_is_nearer_to_float64_than_optax(name):
    narrow, wide = training("float32")[0], training("float64")[0]

    def error(whose):
        differences = jax.tree.map(
            lambda a, b: np.max(np.abs(a - b)), narrow[name, whose], wide[name, whose]
        )
        return max(jax.tree.leaves(differences))

    assert error("ours") < error("optax") / 3


THEIRS = {**vars(contrib), **vars(optax)}
MINE = {
    name.removesuffix("_nesterov").removesuffix("_fading").removesuffix("_masked") for name in PAIRS
} | {
    "noisy_sgd",
    "scale_by_acprop",
    "scale_by_adopt",
    "scale_by_belief",
    "scale_by_lion",
    "scale_by_optimistic_gradient",
    "scale_by_radam",
    "scale_by_rprop",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
}


@pytest.mark.parametrize("name", sorted(MINE & THEIRS.keys()))
def test_signatures_are_those_of_optax(name):
    """The same argument names in the same order, with the same defaults; ours beside them are keywords."""
    ours, theirs = (inspect.signature(f).parameters for f in (getattr(gx, name), THEIRS[name]))
    for parameter in theirs.values():
        if parameter.name == "seed" or (name, parameter.name) == ("nadamw", "nesterov"):
            continue  # a key may be an integer here; Optax's nadamw is adamw with its nesterov set
        mine = ours[parameter.name]
        assert mine.kind == parameter.kind, f"{name}: {parameter.name}"
        if callable(parameter.default) and parameter.default is not parameter.empty:
            assert mine.default(16.0) == parameter.default(16.0)
        elif parameter.name not in (
            "key",
            "weight_decay_mask",
            "trust_ratio_mask",
        ):  # 0 for None, None for True
            assert mine.default == parameter.default, f"{name}: {parameter.name}"
    in_order = [
        p for p in ours if p in theirs and theirs[p].kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert in_order == [
        p for p in theirs if p in ours and theirs[p].kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert all(ours[p].kind is inspect.Parameter.KEYWORD_ONLY for p in ours if p not in theirs)
