"""What older versions of JAX call otherwise. The oldest that the tests run on is JAX 0.5.3."""

import importlib

import jax


def shard_map(f, mesh, in_specs, out_specs):
    """`jax.shard_map`, without its checks of what varies from device to device."""
    specs = {"mesh": mesh, "in_specs": in_specs, "out_specs": out_specs}
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, **specs, check_vma=False)
    older = importlib.import_module("jax.experimental.shard_map")  # before 0.6.1
    return older.shard_map(f, **specs, check_rep=False)


def enable_x64(on: bool = True):
    """`jax.enable_x64`: double precision within a `with`, or without it."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(on)
    return importlib.import_module("jax.experimental").enable_x64(on)  # before it moved
