"""Several processes of one command: who ends whom, and what is said."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradxform.cli import main as cli
from gradxform.cli.running import claim, together
from gradxform.cli.settings import Settings
from gradxform.sweep.store import Folder

WORDS = [sys.executable, "-m", "gradxform"]
SMALL = [
    *("sweep", "--data", "wine", "--hidden", "8", "--quiet", "--chunk", "1"),
    *("--axis", "learning_rate=1e-4:1:12", "--epochs", "40", "--no-cache"),
]


def python(code):
    """A small command."""
    return [sys.executable, "-c", code]


def test_after_a_failure_the_others_finish_what_they_train(tmp_path):
    """One that gives signs of life is left to finish; one that gives none is ended."""
    folder = Folder(tmp_path / "s", process=1)
    done = tmp_path / "done"
    trains = f"import time, pathlib; time.sleep(0.9); pathlib.Path({str(done)!r}).touch()"
    with folder.alive():
        assert not together([python("raise SystemExit(1)"), python(trains)], tmp_path)
    assert done.exists()
    began = time.monotonic()
    assert not together(
        [python("raise SystemExit(1)"), python("import time; time.sleep(60)")], tmp_path
    )
    assert time.monotonic() - began < 20
    assert together([python("pass")] * 2, tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_a_child_ends_with_its_parent_and_leaves_ctrl_c_to_it():
    """However the parent ended: its end of the pipe closes."""
    home = str(Path(cli.__file__).parents[1])
    stub = f"""
import sys, time, types
sys.modules["gradxform"] = package = types.ModuleType("gradxform")  # without JAX
package.__path__ = [{home!r}]
import gradxform.__main__ as command
command.child()
print("on", flush=True)
time.sleep(60)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(python(stub), **pipes) as child:
        assert child.stdout.readline() == b"on\n"
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=20) == 1


def test_the_folder_of_another_command_or_of_the_user_is_left_alone(tmp_path):
    """Nothing is written over that this command did not write."""
    settings, files = Settings.of("sweep", {}), ("report.html", "members.csv")
    cases = {
        "compare": (["settings.json"], "holds results of gradxform compare; choose another"),
        "foreign": (["members.csv"], "members.csv is there already; it would be written over"),
        "again": (["sweep.json"], "holds results already; go on with --resume"),
    }
    for name, (held, says) in cases.items():
        path = tmp_path / name
        path.mkdir()
        for file in held:
            (path / file).write_text("mine")
        with pytest.raises(ValueError, match=says):
            claim(path, "sweep", settings, files)
        assert [file.read_text() for file in path.iterdir()] == ["mine"]
    claim(tmp_path / "again", "sweep", Settings.of("sweep", {"resume": True}), files)
    claim(tmp_path / "new" / "deep", "sweep", settings, files)
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    for bad in (tmp_path / "foreign" / "members.csv" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match=r"--out .*cannot be written"):
            claim(bad, "sweep", settings, files)


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    """Wherever it shows, with the name of the file."""
    for error, says in (
        (OSError(28, "No space left on device", "x.npz"), "x.npz: No space left on device"),
        (TimeoutError("sweep: waited"), "sweep: waited"),
        (MemoryError(), "out of memory"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("gradxform.cli.running.default_folder", fail)
        assert cli.main(["sweep", "--data", "wine"]) == 2
        assert capsys.readouterr().err == f"gradxform: error: {says}\n"


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    """Whenever it shows."""

    def full(*_):
        raise OSError(28, "No space left on device", "chunk.npz")

    monkeypatch.setattr("gradxform.sweep.store.os.fsync", full)
    words = [*SMALL[:6], "--epochs", "1", "--axis", "learning_rate=0.1", "--no-cache"]
    assert cli.main([*words, "--out", str(tmp_path / "full")]) == 2
    assert capsys.readouterr().err == "gradxform: error: chunk.npz: No space left on device\n"


def children(parent):
    """The processes that one has started, on Linux."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def gone(processes, within=20.0):
    """Whether all of these end soon."""
    deadline = time.monotonic() + within
    while any(Path(f"/proc/{i}").exists() for i in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("sent", ["KILL", "INT", "child TERM"])
def test_no_process_is_left_behind(tmp_path, sent):
    """SIGKILL and Ctrl-C of the command end its processes, and SIGTERM ends one of them."""
    out = tmp_path / "out"
    command = [*WORDS, *SMALL, "--out", str(out), "--processes", "2", "--epochs", "1000"]
    environment = os.environ | {"XLA_FLAGS": ""}
    parent = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.glob("chunks/*.npz")):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    started = children(parent.pid)
    assert len(started) == 2
    if sent == "INT":
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    else:
        name = sent.removeprefix("child ")
        os.kill(
            started[1] if sent.startswith("child") else parent.pid, signal.Signals[f"SIG{name}"]
        )
    said = parent.communicate(timeout=120)[1]
    assert gone(started)
    if sent == "INT":
        assert parent.returncode == 130
        assert said.startswith(
            "gradxform: interrupted; what finished is kept: go on with gradxform"
        )
        assert said.count("\n") == 1
    if sent == "child TERM":
        assert parent.returncode == 1
        assert "a process ended early; go on with gradxform sweep" in said
