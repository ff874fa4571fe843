"""`python -m gradxform` is the command `gradxform`.

`python -m gradxform --join HOST:PORT PROCESSES INDEX sweep ...` is one process of several. It joins
the others before anything else is imported: JAX must not have looked at its devices by then.
"""

import sys

import jax


def main(argv: list[str]) -> int:
    """Join the other processes where there are any, then run the command; returns its exit code."""
    if argv[:1] == ["--join"]:
        _, coordinator, processes, index, *argv = argv
        jax.distributed.initialize(
            coordinator, int(processes), int(index), initialization_timeout=120
        )
    from gradxform.cli.main import main as command

    return command(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
