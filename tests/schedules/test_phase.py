"""What repeats goes on repeating: to the last step that a counter holds, the phase is exact."""

from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx

LAST = 2**31 - 1


def triangle(step, up=5, down=5):
    within = step % (up + down)
    return within / up if within <= up else (up + down - within) / down


def half_cosine(step, steps=10):
    return 0.5 * (1 + np.cos(np.pi * (step % steps) / steps))


CYCLIC = gx.cyclic_schedule(0.0, 1.0, 5)
REPEATING = {
    "cyclic": (CYCLIC, triangle),
    "uneven": (gx.cyclic_schedule(0.0, 1.0, 3, 4), lambda k: triangle(k, 3, 4)),
    "long": (gx.cyclic_schedule(0.0, 1.0, 5_000_001), lambda k: triangle(k, 5_000_001, 5_000_001)),
    "restarts": (gx.cosine_restarts_schedule(1.0, 10, 1.0), half_cosine),
    "per step": (gx.per_epoch(CYCLIC, 1), triangle),
    "per epoch": (gx.per_epoch(CYCLIC, 3), lambda k: triangle(k // 3)),
    "after a warm-up": (gx.warmup(7) >> CYCLIC, lambda k: triangle(k - 7)),
    "joined": (
        gx.join_schedules((gx.linear_schedule(0.0, 1.0, 5), CYCLIC), (7,)),
        lambda k: triangle(k - 7),
    ),
    "sum": (0.5 * CYCLIC + 1.0, lambda k: 0.5 * triangle(k) + 1.0),
}


@pytest.mark.parametrize("name", REPEATING)
def test_the_phase_is_exact_at_every_step(name):
    schedule, expected = REPEATING[name]
    begins = (20, 2**24 - 2, 2**27 + 1, 2**30 + 3, LAST - 12)
    steps = [begin + k for begin in begins for k in range(13)]
    got = jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32))
    np.testing.assert_allclose(got, list(map(expected, steps)), rtol=1e-5, atol=2e-6)


def test_a_fractional_period_keeps_what_single_precision_says_it_is():
    period = np.float64(np.float32(0.1) * np.float32(33.0))
    schedule = gx.cosine_restarts_schedule(1.0, float(period), 1.0)
    steps = np.array([7, 2**24 + 5, LAST - 3])
    got = jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32))
    np.testing.assert_allclose(got, half_cosine(steps.astype(np.float64), period), atol=2e-5)


def test_traced_lengths_and_steps_between_two_keep_their_meaning():
    got = jax.jit(lambda schedule, step: schedule(step))(CYCLIC, jnp.int32(LAST))
    assert got == pytest.approx(triangle(LAST))
    assert CYCLIC(3.5) == pytest.approx(0.7)
    assert (gx.warmup(2.5) >> CYCLIC)(3) == pytest.approx(0.1)
    assert gx.per_epoch(CYCLIC, 0.5)(2**29 + 1) == pytest.approx(triangle(2**30 + 2))
    # at step 12 the height is (12 - 2 up) / up
    slope = jax.grad(lambda up: gx.cyclic_schedule(0.0, 1.0, up)(12))(5.0)
    assert slope == pytest.approx(-12 / 25)


def test_every_repeating_schedule_is_here():
    """A schedule is known by its arguments: what repeats has a period among these."""
    words = {"step_size_up", "t_mul", "steps_per_epoch"}
    made = {name: getattr(gx, name) for name in dir(gx) if hasattr(getattr(gx, name), "build")}
    kinds = {
        n: f for n, f in made.items() if issubclass(signature(f).return_annotation, gx.Schedule)
    }
    repeat = {n for n, f in kinds.items() if words & signature(f).parameters.keys()}
    assert repeat == {"cyclic_schedule", "cosine_restarts_schedule", "per_epoch"}
