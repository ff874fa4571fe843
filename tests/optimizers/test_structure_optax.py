"""Optimizers with factored or low-rank moments and those that find their own step size follow Optax's for 200 steps."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest
from thinned import one_in
from walking import RTOL, SHAPES, distance

import gradxform as gx


def wide_adafactor(
    learning_rate, min_dim=2, momentum=None, weight_decay=None, threshold=1.0, scaled=True, offset=0
):
    """Optax's adafactor, its decay in the widest float: its own is float32 also in double precision."""

    def decay(step, rate):
        return 1 - jnp.asarray(step + 1, float) ** -rate

    return optax.chain(
        optax.scale_by_factored_rms(True, 0.8, offset, min_dim, decay_rate_fn=decay),
        optax.identity() if threshold is None else optax.clip_by_block_rms(threshold),
        optax.identity()
        if learning_rate is None
        else optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.scale_by_param_block_rms() if scaled else optax.identity(),
        optax.identity() if momentum is None else optax.ema(momentum, debias=False),
        optax.identity() if weight_decay is None else optax.add_decayed_weights(weight_decay),
        optax.scale(-1),
    )


def optax_sgd(*parts):
    return optax.chain(*parts, optax.scale(-0.05))


def ours_sgd(*parts):
    return gx.chain(*parts, gx.scale(-0.05))


def per_kernel(params):
    return jax.tree.map(
        lambda p: optax.contrib.GaLoreDimensionNumbers(1, 0) if p.ndim == 2 else None, params
    )


CON = optax.contrib
# name: (ours, Optax's), and looser limits where a reason is given
PAIRS = {
    "adafactor": (lambda: gx.adafactor(0.1, 2), lambda: wide_adafactor(0.1)),
    "adafactor_unfactored": (lambda: gx.adafactor(0.1, 128), lambda: wide_adafactor(0.1, 128)),
    "adafactor_full": (
        lambda: gx.adafactor(
            0.1,
            2,
            multiply_by_parameter_scale=False,
            clipping_threshold=None,
            momentum=0.9,
            weight_decay_rate=1e-3,
        ),
        lambda: wide_adafactor(0.1, 2, 0.9, 1e-3, None, False),
    ),
    "adafactor_no_rate": (
        lambda: gx.adafactor(min_dim_size_to_factor=2, decay_offset=-3),
        lambda: wide_adafactor(None, offset=-3),
    ),
    "galore": (
        lambda: gx.galore(0.01, 2, 20, weight_decay=0.1),
        lambda: CON.galore(0.01, 2, 20, weight_decay=0.1),
    ),
    "galore_base": (
        lambda: gx.galore(
            0.01,
            3,
            50,
            0.5,
            gx.scale_by_rms(0.9),
            weight_dimension_numbers=gx.GaLoreDimensionNumbers(1, 0),
        ),
        lambda: CON.galore(
            0.01, 3, 50, 0.5, optax.scale_by_rms(0.9), weight_dimension_numbers=per_kernel
        ),
    ),
    "polyak_sgd": (
        lambda: gx.polyak_sgd(0.2, 0.5, 0.01, 1e-3),
        lambda: optax.polyak_sgd(0.2, 0.5, 0.01, 1e-3),
    ),
    "polyak_sgd_plus": (
        lambda: gx.polyak_sgd(0.2, f_min=5.0, variant="sps+"),
        lambda: optax.polyak_sgd(0.2, f_min=5.0, variant="sps+"),
    ),
    "momo": (lambda: gx.momo(0.2, 0.8, 1.0, 0.01), lambda: CON.momo(0.2, 0.8, 1.0, 0.01)),
    "momo_adapted": (
        lambda: gx.momo(0.2, adapt_lower_bound=True),
        lambda: CON.momo(0.2, adapt_lower_bound=True),
    ),
    "momo_adam": (
        lambda: gx.momo_adam(0.05, lower_bound=1.0, weight_decay=0.01),
        lambda: CON.momo_adam(0.05, lower_bound=1.0, weight_decay=0.01),
    ),
    "momo_adam_adapted": (
        lambda: gx.momo_adam(0.05, adapt_lower_bound=True),
        lambda: CON.momo_adam(0.05, adapt_lower_bound=True),
    ),
    "dog": (lambda: gx.dog(1.0, ("heuristic", 1e-2)), lambda: CON.dog(1.0, ("heuristic", 1e-2))),
    "dog_distance": (
        lambda: gx.dog(0.5, ("distance", 0.1), weight_decay=0.1),
        lambda: CON.dog(0.5, ("distance", 0.1), weight_decay=0.1),
    ),
    "dog_rate": (
        lambda: gx.dog(1.0, ("learning_rate", 0.02)),
        lambda: CON.dog(1.0, ("learning_rate", 0.02)),
    ),
    "ldog": (
        lambda: ours_sgd(gx.scale_by_distance_over_gradients(1e-2)),
        lambda: optax_sgd(
            optax.scale_by_distance_over_gradients(
                1e-2, param_dtype=jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
            )
        ),
    ),
    "dowg": (lambda: gx.dowg(1.0, 0.01), lambda: CON.dowg(1.0, 0.01)),
    "dowg_default": (lambda: gx.dowg(weight_decay=0.1), lambda: CON.dowg(weight_decay=0.1)),
    "cocob": (lambda: gx.cocob(), lambda: CON.cocob()),
    "cocob_full": (lambda: gx.cocob(0.5, 10.0, 1e-6, 0.1), lambda: CON.cocob(0.5, 10.0, 1e-6, 0.1)),
    "dadapt_adamw": (
        lambda: gx.dadapt_adamw(0.5, (0.9, 0.99), 1e-6, 1e-3, 0.1),
        lambda: CON.dadapt_adamw(0.5, (0.9, 0.99), 1e-6, 1e-3, 0.1),
    ),
    "prodigy": (lambda: gx.prodigy(estim_lr0=1e-3), lambda: CON.prodigy(estim_lr0=1e-3)),
    "prodigy_full": (
        lambda: gx.prodigy(0.5, (0.8, 0.99), 0.9, 1e-6, 1e-3, 0.7, 0.1, True),
        lambda: CON.prodigy(0.5, (0.8, 0.99), 0.9, 1e-6, 1e-3, 0.7, 0.1, True),
    ),
    "mechanize": (
        lambda: gx.mechanize(gx.sgd(1.0), s_init=1e-3),
        lambda: CON.mechanize(optax.sgd(1.0), s_init=1e-3),
    ),
    "mechanize_adam": (
        lambda: gx.mechanize(gx.adam(1.0), 0.1, 1e-6, 1e-3, 3),
        lambda: CON.mechanize(optax.adam(1.0), 0.1, 1e-6, 1e-3, 3),
    ),
    "madgrad": (
        lambda: gx.madgrad(0.02, 0.8, 0.1, 1e-5),
        lambda: CON.madgrad(0.02, 0.8, 0.1, 1e-5),
    ),
    "sophia": (
        lambda: gx.sophia(
            0.01,
            gamma=0.5,
            update_interval=5,
            hessian_diagonal_fn=gx.hutchinson_estimator_diag_hessian(3),
        ),
        lambda: CON.sophia(
            0.01,
            gamma=0.5,
            update_interval=5,
            hessian_diagonal_fn=CON.hutchinson_estimator_diag_hessian(jax.random.PRNGKey(3)),
        ),
    ),
}
EXTRA = {"sophia": ("obj_fn",)}
# Optax decomposes in float32, and takes the root of the step in float32, also in double precision
DOUBLE = {"galore": 1e-5, "galore_base": 1e-5, "madgrad": 1e-7}
NO_SCALAR = {
    k: shape for k, shape in SHAPES.items() if shape
}  # Optax's layer-wise DoG gives a scalar leaf the shape (1,)


def apart(name, dtype):
    return distance(
        *PAIRS[name],
        dtype,
        EXTRA.get(name, ("value",)),
        shapes=NO_SCALAR if name == "ldog" else SHAPES,
    )


@pytest.mark.parametrize("name", one_in(2, PAIRS))
def test_follows_optax_in_double_precision(name):
    assert apart(name, "float64") < DOUBLE.get(name, RTOL["float64"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_follows_optax_in_single_precision(name):
    assert apart(name, "float32") < RTOL["float32"]


def test_optax_decays_adafactor_in_single_precision():
    """The reason for `wide_adafactor`: with Optax's own schedule the two are a float32 rounding apart."""
    gap = distance(lambda: gx.adafactor(0.1, 2), lambda: optax.adafactor(0.1, 2), "float64")
    assert 1e-9 < gap < 1e-5
