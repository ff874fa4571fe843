"""What is kept: written whole or not at all, read back only if sound, and the same bits after any interruption."""

import json

import numpy as np
import pytest
from sweep_problems import DATA, line, paced

import gradxform as gx
from gradxform.sweep import Progress, Unsound, grid, sweep
from gradxform.sweep.store import Folder, Memory, fingerprint, write_atomically

ADAM, OTHER = gx.adam(0.1), gx.adam(0.1, b2=0.99)
SPACE = grid(learning_rate=[0.01, 0.1, 0.3], seed=range(2))


class Stop(Progress):
    """Interrupts after so many chunks."""

    def __init__(self, after):
        self.left, self.trained, self.found = after, 0, 0

    def done(self, members, trial, metric, mode, seconds, compile_seconds):
        self.trained += len(members)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def kept(self, members):
        self.found += members


def test_it_goes_on_where_it_was(tmp_path):
    """After an interruption only the rest is trained, and the results are the same bits."""
    whole = sweep(line, SPACE, chunk=2, out=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        sweep(line, SPACE, chunk=2, out=tmp_path / "b", progress=Stop(1))
    rest = Stop(99)
    again = sweep(line, SPACE, out=tmp_path / "b", progress=rest)  # in the chunks it was begun with
    assert (rest.found, rest.trained) == (2, 4)
    for name, x in whole.history.items():
        assert np.array_equal(again.history[name], x)
    assert all(np.array_equal(again.params(i)["w"], whole.params(i)["w"]) for i in range(6))
    idle = Stop(99)
    sweep(line, SPACE, chunk=2, out=tmp_path / "b", progress=idle)
    assert (idle.found, idle.trained) == (6, 0)


CHANGES = {
    "numbers": lambda out: sweep(
        line, grid(learning_rate=[0.01, 0.1, 0.4], seed=range(2)), chunk=2, out=out
    ),
    "data": lambda out: sweep(
        lambda tx=ADAM, key=None, data=DATA | {"y": DATA["y"] + 1}: line(tx, key, data=data),
        SPACE,
        out=out,
    ),
    "program": lambda out: sweep(
        lambda tx=ADAM, key=None, data=DATA: line(tx, key, data=data, l2=0.5), SPACE, out=out
    ),
    "base": lambda out: sweep(
        lambda tx=OTHER, key=None, data=DATA: line(tx, key, data=data), SPACE, out=out
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_sweep_is_refused(tmp_path, change):
    """Other settings, other data, other code, another optimizer: the folder is named, and left alone."""
    sweep(
        lambda tx=ADAM, key=None, data=DATA: line(tx, key, data=data),
        SPACE,
        chunk=2,
        out=tmp_path / "s",
    )
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*.*")}
    with pytest.raises(Unsound, match="holds another sweep"):
        CHANGES[change](tmp_path / "s")
    assert before == {path: path.read_bytes() for path in (tmp_path / "s").rglob("*.*")}


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "foreign", "moved"])
def test_a_file_that_is_not_sound_is_named(tmp_path, fault):
    """Half-written, altered, of another sweep, or in the place of another chunk: never trusted."""
    sweep(line, SPACE, chunk=2, out=tmp_path / "s")
    chunks = tmp_path / "s" / "chunks"
    file, content = chunks / "0-00001.npz", (chunks / "0-00001.npz").read_bytes()
    if fault == "foreign":
        sweep(line, grid(learning_rate=[0.5, 0.6, 0.7], seed=range(2)), chunk=2, out=tmp_path / "t")
        content = (tmp_path / "t" / "chunks" / "0-00001.npz").read_bytes()
    middle = len(content) // 2
    file.write_bytes({
        "cut": content[:middle], "empty": b"", "foreign": content, "moved": (chunks / "0-00000.npz").read_bytes(),
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
    }[fault])  # fmt: skip
    with pytest.raises(Unsound, match=r"0-00001\.npz (is damaged|belongs to another).*delete it"):
        sweep(line, SPACE, chunk=2, out=tmp_path / "s")


def test_a_damaged_plan_is_named(tmp_path):
    """The plan is checked before anything is read."""
    sweep(line, SPACE, chunk=2, out=tmp_path / "s")
    plan = tmp_path / "s" / "sweep.json"
    plan.write_text(plan.read_text()[:40])
    with pytest.raises(Unsound, match=r"sweep\.json is damaged"):
        sweep(line, SPACE, chunk=2, out=tmp_path / "s")


def test_parts_of_a_write_are_never_read(tmp_path):
    """What a killed process left half-written lies beside the results and is ignored."""
    whole = sweep(line, SPACE, chunk=2, out=tmp_path / "s")
    chunks = tmp_path / "s" / "chunks"
    (chunks / ".0-00001.npz.x.part").write_bytes((chunks / "0-00001.npz").read_bytes()[:99])
    (chunks / "0-00001.npz").unlink()
    again = sweep(line, SPACE, chunk=2, out=tmp_path / "s")
    assert np.array_equal(again.history["loss"], whole.history["loss"])


def test_write_atomically_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    """A write that fails leaves what was there, and nothing else."""
    file = tmp_path / "x"
    write_atomically(file, b"old")
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_fingerprints_do_not_depend_on_addresses():
    """The same text with other addresses is the same program."""
    assert (
        fingerprint("<function f at 0x7f00>")
        == fingerprint("<function f at 0x1234ab>")
        != fingerprint("<function g at 0x7f00>")
    )


def test_waiting_ends(tmp_path):
    """A process that waits for another that never comes says for what."""
    folder = Folder(tmp_path / "s", patience=0.1)
    folder.open({"fingerprint": "f", "facts": {}, "chunks": [(0, [0])]}, True)
    with pytest.raises(TimeoutError, match="chunk 0-00000"):
        folder.wait(["0-00000"])
    with pytest.raises(RuntimeError, match="never run"):
        Memory().wait(["0-00000"])
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["fingerprint"] == "f"


def test_pausing_and_folder_agree(tmp_path):
    """The same bits in memory and on disk."""
    one, two = sweep(paced, SPACE, every=5), sweep(paced, SPACE, every=5, out=tmp_path / "s")
    assert np.array_equal(one.history["loss"], two.history["loss"])
    assert np.array_equal(one.params(2)["w"], two.params(2)["w"])
