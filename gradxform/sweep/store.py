"""What a sweep keeps, in memory or in a folder: a file is written whole or not at all, and read
back only if sound.

OUT/sweep.json            what is swept: its fingerprint, and how it is cut into chunks
OUT/chunks/0-00007.npz    chunk 7 of rung 0: members, metrics, parameters
"""

import hashlib
import io
import json
import os
import re
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.display.code import plain
from gradxform.numerics import is_key

FORMAT = 2


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

    def __init__(self, path, patience: float = 600.0):
        self.path, self.patience = Path(path), patience
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
        if first and not file.exists():
            (self.path / "chunks").mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(plan, indent=1).encode())
        self._until(file.exists, f"{file} to appear")
        try:
            kept = json.loads(file.read_text())
            changed = [k for k in ("format", "fingerprint") if kept[k] != plan[k]]
            kept["chunks"] = [(int(g), [int(i) for i in members]) for g, members in kept["chunks"]]
        except (ValueError, KeyError, TypeError, OSError) as error:
            advice = "choose another folder, or delete this one"
            raise Unsound(f"{file} is damaged ({error}); {advice}") from error
        if changed:
            new, old = plan["facts"], kept.get("facts", {})
            facts = ", ".join(sorted(k for k in {**new, **old} if new.get(k) != old.get(k)))
            what = f"(it differs in: {facts or 'the program'}); choose another folder"
            raise Unsound(f"{self.path} holds another sweep {what}")
        # A process that was killed while it wrote has left a part.
        for part in (self.path / "chunks").glob(".*.part") if first else ():
            if time.time() - part.stat().st_mtime > self.patience:
                part.unlink(missing_ok=True)
        return kept

    def file(self, name: str) -> Path:
        """Where a chunk is kept."""
        return self.path / "chunks" / f"{name}.npz"

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
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **numbered, facts=np.array(json.dumps(facts)))
        write_atomically(self.file(name), file.getvalue())

    def load(self, name, only=""):
        """The arrays of a finished chunk.

        Raises:
            Unsound: the file is damaged, or belongs to another sweep.
        """
        path, advice = self.file(name), "delete it to train its members again"
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                raw = {k: file[f"a{i}"] for i, k in enumerate(facts["dtypes"])}
            sound = digest(raw) == facts["digest"]
            arrays = {k: x.view(np.dtype(facts["dtypes"][k])) for k, x in raw.items()}
        except Exception as error:  # a damaged archive fails in as many ways as there are bytes
            why = f"{type(error).__name__}: {error}"
            raise Unsound(f"{path} is damaged ({why}); {advice}") from error
        chunk = facts.get("chunk")
        if (facts.get("fingerprint"), chunk) != (self.fingerprint, name):
            raise Unsound(f"{path} belongs to another sweep or chunk ({chunk}); {advice}")
        if not sound:
            raise Unsound(f"{path} is damaged (its contents do not match their digest); {advice}")
        return within(only, arrays)

    def wait(self, names):
        """Return when all these chunks are finished, or raise TimeoutError when none comes for
        `patience` seconds.
        """
        for name in names:
            self._until(self.file(name).exists, f"chunk {name}, which another process trains")

    def _until(self, holds, what: str):
        known, since = self._count(), time.monotonic()
        while not holds():
            time.sleep(0.02)
            now = self._count()
            if now != known:
                known, since = now, time.monotonic()
            if time.monotonic() - since > self.patience:
                advice = "run the same sweep again to go on where it is"
                raise TimeoutError(f"sweep: waited {self.patience:g} s for {what}; {advice}")

    def _count(self) -> int:
        chunks = self.path / "chunks"
        return len(list(chunks.iterdir())) if chunks.exists() else 0


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


def write_atomically(path: Path, content: bytes):
    """All of it or nothing, even if the process or the machine stops half-way."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
