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


def mesh_of(arrays):
    """The mesh that the types of arrays name, else the current one; None where there is none."""
    for x in arrays:
        mesh = getattr(getattr(jax.typeof(x), "sharding", None), "mesh", None)
        if mesh is not None and not mesh.empty:
            return mesh
    mesh = jax.sharding.get_abstract_mesh() if hasattr(jax, "set_mesh") else None
    return None if mesh is None or mesh.empty else mesh


def without_types(f, like, mesh):
    """f where shardings are in no types; its results in the types of `like`."""
    specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, like)

    def run(*args):
        with jax.sharding.use_abstract_mesh(mesh):
            return jax.sharding.auto_axes(f, out_sharding=specs)(*args)

    return run
