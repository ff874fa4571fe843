"""The programs that train the members of one group: vmap over the members, over all devices, in
chunks that fit.
"""

import math
import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradxform.numerics import is_key
from gradxform.sweep.members import Group
from gradxform.sweep.store import digest, flat
from gradxform.train.paced import Paced, Trained, trained
from gradxform.versions import shard_map

SHARE = 0.5  # of the memory that is free, for what a chunk needs on the devices
COMPILERS = ThreadPoolExecutor(max(2, os.cpu_count() or 1))  # XLA compiles without Python's lock


class Traced(NamedTuple):
    """A function of arrays as JAX has seen it: called as the function is, and not traced from
    Python again.
    """

    jaxpr: Any
    out: Any  # what it returns, as shapes

    @classmethod
    def of(cls, f: Callable, *args):
        """Trace a function of arrays or shapes."""
        return cls(*jax.make_jaxpr(f, return_shape=True)(*args))

    def __call__(self, *args):
        leaves = jaxpr_as_fun(self.jaxpr)(*jax.tree.leaves(args))
        return jax.tree.structure(self.out).unflatten(leaves)

    def __str__(self):
        return f"{self.jaxpr.jaxpr}" + digest(flat(self.jaxpr.consts))


class MemberTrace(NamedTuple):
    """What one member does, each part traced once; a training that cannot pause has no steps, and
    is `first`.

    first: (batched, shared) -> carry or Trained. draw: (batched, shared, carry) -> what a step
    draws. step: (batched, shared, carry, drawn) -> (carry, (metrics, whether it ran, whether it
    goes on)). last: (batched, shared, carry) -> the parameters to keep.
    """

    steps: int
    first: Traced
    draw: Traced
    step: Traced
    last: Traced

    @property
    def draws(self) -> bool:
        """Whether a step of one that has steps draws by a program of its own."""
        return bool(jax.tree.leaves(self.draw.out))

    @property
    def params(self):
        """The parameters to keep, as shapes."""
        return self.last.out if self.steps else self.first.out.params


class Engine:
    """Compiles each program of a group once for each number of members, and runs it.

    Members are independent, so devices share nothing: each runs its own slice, without any
    collective.
    """

    def __init__(self, train: Callable, group: Group, devices, apart=False):
        self.train, self.group = train, group
        self.apart = apart  # whether one member is traced by itself, as a fingerprint needs it
        self.mesh = Mesh(np.array(devices), ("members",))
        self.compile_seconds = 0.0  # spent on tracing, and on waiting for the compiler
        self.compile_told = 0.0  # what of these some chunk has counted
        self.programs = _programs(train, (group.identity, self.mesh))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.shared = jax.device_put(group.shared_arrays(), device=everywhere)

    @cached_property
    def one(self):
        """The numbers and the seed of one member, as shapes."""
        return jax.tree.map(lambda x: _shape(x, x.shape[1:]), self.rows(np.arange(1)))

    @cached_property
    def shapes(self):
        """The arrays that all members share, as shapes."""
        return jax.tree.map(lambda x: _shape(x, x.shape), self.shared)

    @property
    def member(self) -> MemberTrace:
        """One member, traced."""
        if "member" not in self.programs:
            began = time.perf_counter()
            self.programs["member"] = self._trace()
            self.compile_seconds += time.perf_counter() - began
        return self.programs["member"]

    def _call(self, batched, shared):
        named = self.group.arguments(*batched, shared)  # pyright: ignore[reportCallIssue]
        return self.train(**named)

    def _first(self, batched, shared):
        out = self._call(batched, shared)
        self.programs["steps"] = out.steps if isinstance(out, Paced) else 0
        return jax.tree.map(_strong, out.init()) if isinstance(out, Paced) else trained(out)

    def _trace(self) -> MemberTrace:
        call = self._call

        def draw(batched, shared, carry):
            return call(batched, shared).draw(carry)

        def step(batched, shared, carry, drawn):
            paced = call(batched, shared)
            live = jnp.asarray(paced.active(carry))
            new, metrics = paced.advance(carry, drawn)
            new = jax.tree.map(lambda x, old: _strong(_where(live, x, old)), new, carry)
            wide = {name: jnp.asarray(x, float) for name, x in metrics.items()}
            metrics = {name: jnp.where(live, x, jnp.nan) for name, x in wide.items()}
            return new, (metrics, live, paced.active(new))

        def last(batched, shared, carry):
            return call(batched, shared).params(carry)

        begin = Traced.of(self._first, self.one, self.shapes)
        if not self.programs["steps"]:
            return MemberTrace(0, begin, begin, begin, begin)
        args = self.one, self.shapes, begin.out
        drawn = Traced.of(draw, *args)
        advanced, kept = Traced.of(step, *args, drawn.out), Traced.of(last, *args)
        return MemberTrace(self.steps, begin, drawn, advanced, kept)

    @property
    def steps(self) -> int:
        """The steps of a training that can pause; 0 for one that cannot."""
        if "steps" not in self.programs:
            _ = self.member  # tracing finds them
        return self.programs["steps"]

    def _whole(self, batched, shared) -> Trained:
        out = self.member.first(batched, shared)
        if not self.steps:
            return out
        carry, (metrics, ran, _) = self._advance(self.steps)(batched, shared, out)
        return Trained(self.member.last(batched, shared, carry), metrics, ran)

    def _advance(self, steps: int):
        def f(batched, shared, carry, *drawn):
            def body(carry, _):
                now = drawn[0] if drawn else self.member.draw(batched, shared, carry)
                return self.member.step(batched, shared, carry, now)

            if drawn:
                carry, rest = body(carry, None)
                metrics, live, active = jax.tree.map(lambda x: x[None], rest)
            else:
                carry, (metrics, live, active) = jax.lax.scan(body, carry, length=steps)
            return carry, (metrics, jnp.sum(live.astype(jnp.int32)), active[-1])

        return f

    def padded(self, members: int) -> int:
        """The number of rows a batch of so many members has: every device gets equally many."""
        return -(-members // self.mesh.size) * self.mesh.size

    def start(self, name: str, rows: int) -> Future:
        """Begin to compile a program for so many rows, unless that was begun before.

        It is traced here, under the configuration of this thread, and compiled in another.
        """
        if (name, rows) not in self.programs:
            whole = self._whole
            if name == "first" or ("member" not in self.programs and not self.steps):
                whole = self._first
            if whole == self._whole:
                _ = self.member  # traced, and counted, before the clock starts
            began = time.perf_counter()
            f, *carry = (whole,) if name in ("first", "whole") else self._part(name)
            along, everywhere = PartitionSpec("members"), PartitionSpec()
            specs = along, everywhere, *[along] * len(carry)
            f = jax.vmap(f, in_axes=(0, None, *[0] * len(carry)))
            if self.mesh.size > 1:
                f = shard_map(f, self.mesh, specs, along)
            ins = tuple(NamedSharding(self.mesh, spec) for spec in specs)
            donated = (2,) if name.startswith(("advance", "step")) else ()
            f = jax.jit(f, in_shardings=ins, out_shardings=ins[0], donate_argnums=donated)
            shapes = jax.tree.map(lambda x: _shape(x, (rows, *x.shape)), (self.one, *carry))
            lowered = f.trace(shapes[0], self.shapes, *shapes[1:]).lower()
            if name == "first":  # now it is known what the function returns
                name = "begin" if self.steps else "whole"
            self.programs[name, rows] = COMPILERS.submit(lowered.compile)
            self.compile_seconds += time.perf_counter() - began
        return self.programs[name, rows]

    def _part(self, name: str):
        """A part of a training that pauses, and the shapes of what it takes besides the numbers."""
        _, first, draw, _, last = self.member
        if name == "begin":
            return (first,)
        if name == "step":
            return self._advance(1), first.out, draw.out
        if name.startswith("advance"):
            return self._advance(int(name.removeprefix("advance "))), first.out
        return draw if name == "draw" else last, first.out

    def program(self, name: str, rows: int) -> Any:
        """The compiled program of a name for so many rows."""
        future, began = self.start(name, rows), time.perf_counter()
        future.result()
        self.compile_seconds += time.perf_counter() - began
        return future.result()

    def call(self, name: str, batched, *carry):
        """Run a program; the carry of one that advances is donated."""
        return self.program(name, len(batched[1]))(batched, self.shared, *carry)

    def rows(self, positions: np.ndarray, size: int | None = None):
        """The numbers and seeds of members by position in the group, repeated to fill the batch."""
        rows = self.group.rows(np.resize(positions, self.padded(size or len(positions))))
        return jax.tree.map(lambda x: x.astype(jax.dtypes.canonicalize_dtype(x.dtype)), rows)

    def advance(self, batched, carry, steps: int):
        """So many steps further: `carry, (metrics [n, steps], steps run [n], active [n])`; the
        carry is donated.
        """
        if steps == 1 and self.member.draws:
            return self.call("step", batched, carry, self.call("draw", batched, carry))
        return self.call(f"advance {steps}", batched, carry)

    def names(self, stride: int) -> list[str]:
        """The programs that a training needs which pauses after so many steps, 0 for never."""
        if not (self.steps and stride):
            return ["whole"]
        drawn = stride == 1 and self.member.draws
        return [*(["step", "draw"] if drawn else [f"advance {stride}"]), "begin", "finish"]

    def ahead(self, members: int, stride: Callable[[int], int]):
        """Begin to compile all that so many members need."""
        if "steps" not in self.programs and not self.apart:
            self.start("first", self.padded(members))
        for name in self.names(stride(self.steps) if self.steps else 0):
            self.start(name, self.padded(members))

    def fitting(self, most: int, memory: float | None, stride: Callable[[int], int]) -> int:
        """How many members fit: `most`, or fewer, found by compiling and asking for what the
        program needs.

        `stride` says after how many of its steps a training pauses, 0 for not at all.
        """
        if memory is None:
            first = self.mesh.devices.flat[0]
            sharers = self.mesh.size if first.platform == "cpu" else 1
            memory = SHARE * available(first) / sharers
        name, size = self.names(stride(self.steps) if self.steps else 0)[0], most
        while True:
            need = needed(self.program(name, self.padded(size)))
            if need <= memory or size <= self.mesh.size:
                return size
            rows = max(1, min(int(size * memory / need), size - 1) // self.mesh.size)
            size = -(-most // -(-most // (rows * self.mesh.size)))  # chunks of equal size


_COMPILED = weakref.WeakKeyDictionary()


def _programs(train, key) -> dict:
    """The programs of an earlier sweep of the same function and structure: a search calls sweep
    many times.
    """
    try:
        return _COMPILED.setdefault(train, {}).setdefault(key, {})
    except TypeError:  # what cannot be hashed or referred to weakly is compiled for each sweep
        return {}


def _shape(x, shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, x.dtype)


def _strong(x):
    """An array whose dtype is its own, so that what a step takes and gives agree."""
    x = jnp.asarray(x)
    return x if is_key(x) else jax.lax.convert_element_type(x, x.dtype)


def _where(live, new, old):
    if is_key(new):
        data = jnp.where(live, jax.random.key_data(new), jax.random.key_data(old))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(new))
    return jnp.where(live, new, old)


def needed(compiled) -> int:
    """Bytes that one run of a compiled program takes on each device."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    passed = found.output_size_in_bytes + found.argument_size_in_bytes - found.alias_size_in_bytes
    return found.temp_size_in_bytes + passed


def available(device) -> float:
    """Bytes that are free: on the device, or in this machine where the device is its processor."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * float(lines["MemAvailable"].split()[0])
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return math.inf
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") or math.inf
