"""What is kept: written whole or not at all, read back only if sound, and the same bits after any interruption."""

import json
import os
import re
import shutil
import threading
import time

import numpy as np
import pytest
from sweep_problems import DATA, line, paced

import gradxform as gx
from gradxform.sweep import Halving, Population, Progress, Unsound, grid, store, sweep
from gradxform.sweep.run import prepare
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a sweep of six members in three chunks."""
    out = tmp_path_factory.mktemp("store") / "s"
    sweep(line, SPACE, chunk=2, out=out)
    return out


def test_chunks_of_another_cut_are_refused(finished, tmp_path):
    """Without its plan a folder may be cut anew: chunks that hold other members are named."""
    out = shutil.copytree(finished, tmp_path / "s")
    (out / "sweep.json").unlink()
    with pytest.raises(Unsound, match=r"0-00000\.npz holds other members.*delete it"):
        sweep(line, SPACE, chunk=3, out=out)


@pytest.mark.parametrize(
    "chunks",
    [
        [[0, [0, 1]], [0, [2, 3]], [0, [4, 5, 5]]],
        [[0, [0, 1]], [0, [2, 3]], [0, [4]]],
        [[0, [0, 1]], [0, [2, 3]], [0, [4, -1]]],
        [[0, [0, 1]], [0, [2, 3]], [0, [4, 99]]],
        [[0, [0, 1]], [0, [2, 3]], [1, [4, 5]]],
        [[0, [0, 1, 2, 3, 4, 5]], [0, []]],
        [],
    ],
)
def test_a_plan_that_is_no_partition_is_refused(finished, tmp_path, chunks):
    """A member twice, none at all, or one that is not there: nothing is trained by such a plan."""
    out = shutil.copytree(finished, tmp_path / "s")
    plan = json.loads((out / "sweep.json").read_text())
    (out / "sweep.json").write_text(json.dumps(plan | {"chunks": chunks}))
    with pytest.raises(Unsound, match=r"sweep\.json is damaged .*every member once.*all of"):
        sweep(line, SPACE, out=out)


def test_of_two_sweeps_that_begin_at_once_one_plan_counts(finished, tmp_path, monkeypatch):
    """The plan is created where there is none yet; who comes second follows the first one's cut."""
    out, first, write = tmp_path / "s", (finished / "sweep.json").read_bytes(), write_atomically

    def quicker(path, content, over=True):
        if path.name == "sweep.json":
            write(path, first)
        write(path, content, over)

    monkeypatch.setattr(store, "write_atomically", quicker)
    trained = Stop(99)
    sweep(line, SPACE, chunk=3, out=out, progress=trained)
    assert (out / "sweep.json").read_bytes() == first
    assert sorted(path.name for path in (out / "chunks").iterdir()) == [
        f"0-0000{i}.npz" for i in range(3)
    ]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_only_where_there_is_none(tmp_path, monkeypatch, links):
    """Whether the file system has links or not."""
    if not links:
        monkeypatch.setattr("os.link", lambda *_: os.stat(tmp_path / "nowhere"))
    write_atomically(tmp_path / "x", b"one", over=False)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "x", b"two", over=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"one"]


def test_a_process_that_trains_is_waited_for(tmp_path):
    """Signs of life count, however long the chunk takes; a sign that a killed one left does not."""
    plan = {"fingerprint": "f", "facts": {}, "chunks": [(0, [0])]}
    one, two = (Folder(tmp_path / "s", 0.3, process) for process in range(2))
    one.open(plan, True)

    def train():
        with one.alive():
            time.sleep(1.2)
            one.save("0-00000", {"x": np.zeros(1)})

    trainer = threading.Thread(target=train)
    trainer.start()
    two.wait(["0-00000"])
    trainer.join()
    (one.chunks / ".0.alive").touch()
    with pytest.raises(TimeoutError, match=r"without a sign of life for chunk 0-00001"):
        two.wait(["0-00001"])


def test_a_folder_that_lost_its_chunks_trains_them_again(finished, tmp_path):
    """The plan alone is enough."""
    out = tmp_path / "s"
    out.mkdir()
    shutil.copy(finished / "sweep.json", out)
    again = Stop(99)
    sweep(line, SPACE, out=out, progress=again)
    assert (again.found, again.trained) == (0, 6)


def test_what_killed_writers_left_is_removed(tmp_path):
    """An old part goes, one that may still be written stays."""
    folder = Folder(tmp_path / "s", patience=100)
    folder.chunks.mkdir(parents=True)
    for name, age in (("old", 1000), ("new", 0)):
        part = folder.chunks / f".{name}.part"
        part.touch()
        os.utime(part, (time.time() - age,) * 2)
    folder.open({"fingerprint": "f", "facts": {}, "chunks": []}, True)
    assert [path.name for path in folder.chunks.iterdir()] == [".new.part"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"every": 2.5}, "sweep: every must be a Python integer; got 2.5"),
        ({"every": 0}, "sweep: every must be at least 1"),
        ({"every": -1}, "sweep: every must be at least 1"),
        ({"every": True}, "sweep: every must be a Python integer"),
        ({"chunk": 1.5}, "sweep: chunk must be a Python integer"),
        ({"chunk": 0}, "sweep: chunk must be at least 1"),
        ({"memory": -1}, "sweep: memory must be a positive number"),
        ({"patience": 0}, "sweep: patience must be a positive number"),
        ({"devices": []}, "sweep: devices must be a number, or a list of at least one device"),
        ({"devices": 0}, "sweep: devices must lie between 1 and"),
        ({"out": ""}, "sweep: out must name a folder"),
        ({"mode": "least"}, 'sweep: mode must be "min" or "max"'),
        ({"process": (2, 2), "out": "s"}, "index below count"),
        ({"process": (0, 2)}, "2 processes need out=, a folder they share"),
        ({"halving": Halving((2.5,))}, "halving: rungs must be a Python integer; got 2.5"),
        ({"halving": Halving(())}, "halving: rungs must ascend"),
        ({"population": Population(2.5)}, "population: every must be a Python integer; got 2.5"),
        ({"population": Population(0)}, "population: every must lie between 1 and"),
        ({"population": Population(2, factors=())}, "factors must hold positive, finite numbers"),
        ({"population": Population(2, factors=(-1.0,))}, "population: factors must hold positive"),
        ({"population": Population(2, factors=(np.nan,))}, "population: factors must hold"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_by_name(how, says):
    """Before anything is compiled."""
    with pytest.raises((ValueError, TypeError), match=re.escape(says)):
        prepare(paced, SPACE, **how)
