"""What `compare` and `sweep` share: from command line to folder, in one process or several."""

import hashlib
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

from gradxform.cli.problems import Problem, need
from gradxform.cli.settings import Settings


def started_by_hand(settings: Settings) -> bool:
    """Whether this is one process of several, each started by hand."""
    last, index = settings.processes - 1, settings.process
    if (index is None) != (settings.coordinator is None):
        raise Problem("--process and --coordinator go together")
    if index is None:
        return False
    if not 0 <= index <= last:
        raise Problem(f"--process must lie between 0 and {last}; got {index}")
    if not settings.out:
        raise Problem("--process needs --out, a folder that all processes share")
    return True


def keep_programs() -> None:
    """Let JAX keep what it compiles in the user's cache folder, unless the user has chosen one; in
    a folder for each kind of processor, since a home may be shared by several.
    """
    config = need("jax").config
    if config.jax_compilation_cache_dir is not None:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    about = Path("/proc/cpuinfo")
    flags = re.search(r"^flags.*$", about.read_text(), re.M) if about.exists() else None
    kind = f"{platform.machine()} {flags and flags[0]}".encode()
    folder = Path(home) / "gradxform" / "programs" / hashlib.sha256(kind).hexdigest()[:8]
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_folder(command: str, settings: Settings) -> Path:
    """`compare-digits-mlp`, then `compare-digits-mlp-2` and so on; with --resume, the latest that
    exists.
    """
    stem = re.sub(r"[^\w.-]+", "-", f"{command}-{Path(settings.data).stem}-{settings.model}")
    number, path = 1, Path(stem)
    latest = path
    while path.exists():
        number, latest = number + 1, path
        path = Path(f"{stem}-{number}")
    return latest if settings.resume else path


def holds_results(path: Path) -> Problem:
    """The Problem of a folder that must not be written over."""
    text = "holds results already; go on with --resume, or choose another folder"
    return Problem(f"--out {path}: {text}")


def with_out(words: list[str], path: Path) -> list[str]:
    """The words of a command, with its folder named."""
    named = any(word == "--out" or word.startswith("--out=") for word in words)
    return words if named else [*words, "--out", str(path)]


def resumed(command: str, path: Path) -> str:
    """How to go on with a folder."""
    words = [word for word in shlex.split(command) if word != "--resume"]
    return f"go on with {shlex.join([*with_out(words, path), '--resume'])}"


def one_process(coordinator, processes: int, index, words: list[str]) -> list[str]:
    """The command line of one process of several."""
    joined = [coordinator, str(processes), str(index)]
    return [sys.executable, "-m", "gradxform", "--join", *joined, *words]


def shared_out(settings: Settings, path: Path, command: str) -> bool:
    """Run the processes of a command here and wait; whether all of them ended well. The first that
    does not ends the others.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [*with_out(shlex.split(command)[1:], path), "--resume", "--quiet"]
    words += ["--coordinator", address, "--process"]
    count = settings.processes
    commands = [one_process(address, count, i, [*words, str(i)]) for i in range(count)]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        while any(process.poll() is None for process in started):
            if any(process.poll() for process in started):
                break
            time.sleep(0.1)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
    if ended := any(process.returncode for process in started):
        text = f"gradxform: error: a process ended early; {resumed(command, path)}"
        print(text, file=sys.stderr)
    return not ended
