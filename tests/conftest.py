"""Tests run with strict dtype promotion and, for those that need several devices, on eight host devices.

Most of their time is compilation, so XLA compiles without its optimisations, unless XLA_FLAGS say
how to compile: .ci/run runs the slow tail as users compile.
"""

import gc
import importlib.util
import mmap
import os
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count=8"
QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def known(flag: str) -> bool:
    """Whether this jaxlib has a flag of that name: one that it does not know would end the process."""
    spec = importlib.util.find_spec("jaxlib")
    assert spec is not None
    for folder in map(Path, spec.submodule_search_locations or ()):
        for library in folder.glob("*.so"):
            with (
                open(library, "rb") as f,
                mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as text,
            ):
                if text.find(flag.encode()) >= 0:
                    return True
    return False


if "XLA_FLAGS" not in os.environ:
    quick = (f"--{flag}={value}" for flag, value in QUICK.items() if known(flag))
    os.environ["XLA_FLAGS"] = " ".join((DEVICES, *quick))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # the user's is not for tests

import jax  # noqa: E402
import pytest  # noqa: E402

if not hasattr(jax, "enable_x64"):  # JAX before 0.8
    jax.enable_x64 = importlib.import_module("jax.experimental").enable_x64  # pyright: ignore
jax.config.update("jax_numpy_dtype_promotion", "strict")
gc.set_threshold(50_000, 20, 50)  # tracing makes many objects and few cycles


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


def pytest_terminal_summary(terminalreporter):
    """Which libraries of the ecosystem were missing, so that their tests did not run."""
    skipped = terminalreporter.stats.get("skipped", ())
    missing = [report for report in skipped if "ecosystem" in report.keywords]
    if missing:
        terminalreporter.section("ecosystem: not run")
    for report in missing:
        terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")
