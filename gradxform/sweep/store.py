"""What a sweep keeps, in memory or in a folder: a file is written whole or not at all, and read
back only if sound.

OUT/sweep.json            what is swept: its fingerprint, and how it is cut into chunks
OUT/chunks/0-00007.npz    chunk 7 of rung 0: members, metrics, parameters
OUT/chunks/.2.alive       while process 2 trains: touched every few seconds
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.display.code import plain
from gradxform.numerics import is_key

FORMAT = 2
DELETE = "delete it to train its members again"
BEAT = 5.0  # seconds between two signs of life, or less where others wait for less


class Unsound(ValueError):
    """A file that is damaged, or that belongs to another sweep; its message names the file and what
    to do.
    """


def flat(tree) -> dict[str, np.ndarray]:
    """The leaves of a tree by path as NumPy arrays; a None leaf is absent, a key is its data."""
    return {_name(path): plain(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "."


def unflat(like, arrays: dict[str, np.ndarray]):
    """The tree of these leaves, shaped like `like` (arrays or shapes) but for the leading axis."""
    found, treedef = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    for path, leaf in found:
        x = arrays[_name(path)]
        if is_key(leaf):
            # not `key_impl`, which takes no shapes
            kind = leaf.dtype._impl.name  # pyright: ignore[reportAttributeAccessIssue]
            x = jax.random.wrap_key_data(jnp.asarray(x), impl=kind)
        leaves.append(x)
    return treedef.unflatten(leaves)


class Memory:
    """Keeps everything in this process."""

    planned = False  # whether there is a plan already

    def __init__(self):
        self.kept: dict[str, dict[str, np.ndarray]] = {}

    def open(self, plan: dict, first: bool) -> dict:
        """The plan to follow."""
        return plan

    def file(self, name: str) -> Path:
        """Where a chunk is kept."""
        return Path(name)

    def alive(self) -> contextlib.AbstractContextManager:
        """Around what may take long: gives signs of life to processes that wait for this one."""
        return contextlib.nullcontext()

    def has(self, name: str) -> bool:
        """Whether a chunk is finished."""
        return name in self.kept

    def save(self, name: str, arrays: dict[str, np.ndarray]):
        """Keep a finished chunk."""
        self.kept[name] = arrays

    def load(self, name: str, only: str = "") -> dict[str, np.ndarray]:
        """The arrays of a finished chunk; with `only`, those that begin with it, named by the
        rest.
        """
        return within(only, self.kept[name])

    def damaged(self, why: str) -> Unsound:
        """The error of a plan that cannot be followed."""
        return Unsound(f"sweep: {why}")

    def wait(self, names: list[str]):
        """Return when all these chunks are finished."""
        missing = [name for name in names if name not in self.kept]
        if missing:
            raise RuntimeError(f"sweep: chunk {missing[0]} was never run")


def within(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}


class Folder(Memory):
    """Keeps everything in a folder, which several processes may share."""

    def __init__(self, path, patience: float = 600.0, process: int = 0):
        self.path, self.patience, self.process = Path(path), patience, process
        self.chunks = self.path / "chunks"
        self.fingerprint = ""

    @property
    def file_of_plan(self) -> Path:
        """Where the plan is kept."""
        return self.path / "sweep.json"

    @property
    def planned(self) -> bool:
        """Whether there is a plan already."""
        return self.file_of_plan.exists()

    def open(self, plan, first):
        """Write the plan, or take up the one of an earlier run of the same sweep.

        Raises:
            Unsound: the folder holds another sweep, or its plan is damaged.
        """
        file = self.file_of_plan
        plan = {"format": FORMAT, **plan}
        self.fingerprint = plan["fingerprint"]
        self.chunks.mkdir(parents=True, exist_ok=True)
        if first and not file.exists():
            with contextlib.suppress(FileExistsError):  # another sweep was quicker: its cut counts
                write_atomically(file, json.dumps(plan, indent=1).encode(), over=False)
        self._until(file.exists, f"{file} to appear")
        try:
            kept = json.loads(file.read_text())
            changed = [k for k in ("format", "fingerprint") if kept[k] != plan[k]]
            kept["chunks"] = [(int(g), [int(i) for i in members]) for g, members in kept["chunks"]]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise self.damaged(str(error)) from error
        if changed:
            new, old = plan["facts"], kept.get("facts", {})
            facts = ", ".join(sorted(k for k in {**new, **old} if new.get(k) != old.get(k)))
            what = f"(it differs in: {facts or 'the program'}); choose another folder"
            raise Unsound(f"{self.path} holds another sweep {what}")
        if first:
            self._sweep_up()
        return kept

    def damaged(self, why):
        advice = f"choose another folder, or delete all of {self.path}"
        return Unsound(f"{self.file_of_plan} is damaged ({why}); {advice}")

    def _sweep_up(self):
        """Remove what processes that were killed while they wrote have left, by the file system's
        own clock.
        """
        parts = list(self.chunks.glob(".*.part"))
        with self.alive() if parts else contextlib.nullcontext():
            for part in parts:
                with contextlib.suppress(FileNotFoundError):
                    if self._sign.stat().st_mtime - part.stat().st_mtime > self.patience:
                        part.unlink()

    @property
    def _sign(self) -> Path:
        return self.chunks / f".{self.process}.alive"

    @contextlib.contextmanager
    def alive(self):
        sign, over = self._sign, threading.Event()

        def beat():
            while not over.wait(min(BEAT, self.patience / 4)):
                with contextlib.suppress(OSError):  # of a full disk, what is kept next will tell
                    sign.touch()

        self.chunks.mkdir(parents=True, exist_ok=True)
        sign.touch()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            sign.unlink(missing_ok=True)

    def file(self, name):
        return self.chunks / f"{name}.npz"

    def has(self, name):
        return self.file(name).exists()

    def save(self, name, arrays):
        facts = {"fingerprint": self.fingerprint, "chunk": name}
        facts["dtypes"] = {k: x.dtype.name for k, x in arrays.items()}
        raw = dict(arrays)
        for k, x in arrays.items():
            if x.dtype.kind not in "biufc":  # bfloat16 and the like
                raw[k] = x.view(f"u{x.dtype.itemsize}")
        facts["digest"] = digest(raw)
        numbered = {f"a{i}": x for i, x in enumerate(raw.values())}
        file = io.BytesIO()  # `allow_pickle` would be one more array to NumPy before 2.1
        numbered["facts"] = np.array(json.dumps(facts))
        np.savez(file, **numbered)  # pyright: ignore[reportArgumentType]
        write_atomically(self.file(name), file.getvalue())

    def load(self, name, only=""):
        """The arrays of a finished chunk.

        Raises:
            Unsound: the file is damaged, or belongs to another sweep.
        """
        path = self.file(name)
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                raw = {k: file[f"a{i}"] for i, k in enumerate(facts["dtypes"])}
            sound = digest(raw) == facts["digest"]
            arrays = {k: x.view(np.dtype(facts["dtypes"][k])) for k, x in raw.items()}
        except Exception as error:  # a damaged archive fails in as many ways as there are bytes
            why = f"{type(error).__name__}: {error}"
            raise Unsound(f"{path} is damaged ({why}); {DELETE}") from error
        chunk = facts.get("chunk")
        if (facts.get("fingerprint"), chunk) != (self.fingerprint, name):
            raise Unsound(f"{path} belongs to another sweep or chunk ({chunk}); {DELETE}")
        if not sound:
            raise Unsound(f"{path} is damaged (its contents do not match their digest); {DELETE}")
        return within(only, arrays)

    def wait(self, names):
        """Return when all these chunks are finished, or raise TimeoutError when no process has
        given a sign of life for `patience` seconds.
        """
        for name in names:
            self._until(self.file(name).exists, f"chunk {name}, which another process trains")

    def _until(self, holds, what: str):
        known, since = self._signs(), time.monotonic()
        looked = since
        while not holds():
            time.sleep(0.02)
            now = time.monotonic()
            if now - looked < min(1.0, self.patience / 8):
                continue
            looked, signs = now, self._signs()
            if signs != known:
                known, since = signs, now
            elif now - since > self.patience:
                advice = "run the same sweep again to go on where it is"
                waited = f"waited {self.patience:g} s without a sign of life"
                raise TimeoutError(f"sweep: {waited} for {what}; {advice}")

    def _signs(self) -> dict[Path, int]:
        """What changes while some process trains: the folder, and the signs of life in it."""
        found = {}
        for path in (self.chunks, *self.chunks.glob(".*.alive")):
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
        return found


def digest(arrays: dict[str, np.ndarray]) -> str:
    """A hash of names, shapes, dtypes and bytes."""
    out = hashlib.sha256()
    for name, x in arrays.items():
        out.update(f"{name} {x.shape} {x.dtype}".encode())
        out.update(np.ascontiguousarray(x).view(np.uint8).data if x.size else b"")
    return out.hexdigest()[:32]


def fingerprint(*parts: str) -> str:
    """A hash of texts, with the addresses of Python objects left out."""
    text = re.sub(r"0x[0-9a-f]+", "0x", "\n".join(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_atomically(path: Path, content: bytes, over: bool = True):
    """All of it or nothing, even if the process or the machine stops half-way; `over=False` raises
    FileExistsError where there is such a file.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        if over:
            os.replace(temporary, path)
        else:
            _create(path, temporary, content)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _create(path: Path, temporary: str, content: bytes):
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("xb") as file:
            file.write(content)
    os.unlink(temporary)
