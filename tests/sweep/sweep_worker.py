"""One process of a sweep, for the tests: `python sweep_worker.py OUT PROCESSES INDEX PORT DELAY`."""

import sys
import time

import jax

out, processes, index, port, delay = (
    sys.argv[1],
    int(sys.argv[2]),
    int(sys.argv[3]),
    sys.argv[4],
    float(sys.argv[5]),
)
jax.config.update("jax_num_cpu_devices", 1)
if processes > 1:
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        processes,
        index,
        initialization_timeout=60,
        heartbeat_timeout_seconds=10,
    )

from sweep_problems import paced  # noqa: E402  (devices must be set up first)

from gradxform.sweep import Halving, Progress, grid, sweep  # noqa: E402


class Slow(Progress):
    """Prints every chunk that it trains, and takes its time."""

    def start(self, members, what):
        print("start", index, *members, flush=True)
        time.sleep(delay)

    def done(self, members, trial, metric, mode, seconds, compile_seconds):
        print("done", index, *members, flush=True)


SPACE = grid(learning_rate=[0.01, 0.03, 0.1, 0.3, 1.0], b1=[0.8, 0.9], seed=range(2))
halving = Halving((4,), 0.5) if len(sys.argv) > 6 else None
result = sweep(paced, SPACE, chunk=2, out=out, progress=Slow(), halving=halving, patience=60)
print(
    "best",
    result.best.index,
    result.history["loss"].tobytes().hex(),
    result.params(3)["w"].tobytes().hex(),
    flush=True,
)
