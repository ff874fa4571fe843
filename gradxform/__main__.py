"""`python -m gradxform` is the command `gradxform`.

`python -m gradxform --child sweep ...` is one process of several that a command has started. It
ends when that command does, whatever ended it, and leaves Ctrl-C to it.
"""

import os
import signal
import sys
import threading


def child() -> None:
    """End when the other end of standard input closes, as it does when its process ends; Ctrl-C is
    for that process.
    """

    def wait():
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if argv[:1] == ["--child"]:
        child()
        argv = argv[1:]
    from gradxform.cli.main import main as command

    return command(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
