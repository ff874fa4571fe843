"""Several processes on 127.0.0.1: the same table as one, and nothing lost when one is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("sweep_worker.py")
pytestmark = pytest.mark.slow


def start(out, processes, delay=0.0, *more):
    """The processes of one sweep."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return [
        subprocess.Popen(
            [sys.executable, WORKER, str(out), str(processes), str(i), port, str(delay), *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for i in range(processes)
    ]  # fmt: skip


def finish(workers):
    """Their outputs by lines; every one must succeed."""
    outputs = [worker.communicate(timeout=180) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers), "\n".join(
        err[-2000:] for _, err in outputs
    )
    return [out.splitlines() for out, _ in outputs]


def trained(lines, word="done"):
    """The members of every chunk that these processes report."""
    return sorted(
        int(i) for some in lines for line in some if line.startswith(word) for i in line.split()[2:]
    )


@pytest.mark.parametrize("more", [(), ("halving",)])
def test_two_and_four_processes_give_the_table_of_one(tmp_path, more):
    """Every process returns the same bits, and each member was trained once."""
    (one,) = finish(start(tmp_path / "1", 1, 0.0, *more))
    for n in (2, 4):
        lines = finish(start(tmp_path / str(n), n, 0.0, *more))
        assert {some[-1] for some in lines} == {one[-1]}
        assert trained(lines) == trained([one])
        assert all(trained([some]) for some in lines)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_killing_one_loses_nothing(tmp_path, n):
    """After SIGKILL of one process mid-run, the same call finishes; only chunks under way are trained again."""
    (one,) = finish(start(tmp_path / "1", 1))
    out = tmp_path / "killed"
    workers = start(out, n, 0.4)
    chunks = out / "chunks"
    deadline = time.monotonic() + 120
    while len(list(chunks.glob("*.npz")) if chunks.exists() else []) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers[-1].send_signal(signal.SIGKILL)
    time.sleep(0.3)
    for worker in workers:  # as a scheduler does when one process of a job is gone
        worker.kill()
    before = [worker.communicate()[0].splitlines() for worker in workers]
    kept = {path: path.stat().st_mtime_ns for path in chunks.glob("*.npz")}
    assert 3 <= len(kept) < 10
    after = finish(start(out, n))
    assert {some[-1] for some in after} == {one[-1]}
    assert all(path.stat().st_mtime_ns == t for path, t in kept.items())
    assert len(trained(after)) == 20 - 2 * len(kept)
    twice = set(trained(before, "start")) & set(trained(after, "start"))
    assert len(twice) <= 2 * n  # the chunk that each process had under way
