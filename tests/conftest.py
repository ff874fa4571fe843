"""Tests run with strict dtype promotion and, for those that need several devices, on eight host devices."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # the user's is not for tests

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def standard_promotion():
    """JAX's ordinary promotion, which Optax needs (strict promotion stops its bias correction)."""
    with jax.numpy_dtype_promotion("standard"):
        yield
