"""What `compare` and `sweep` share: from command line to folder, in one process or several."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gradxform.cli.problems import Problem, need
from gradxform.cli.settings import Settings

MARKERS = {"compare": "settings.json", "sweep": "sweep.json"}  # what a command writes first
PAUSE = 5  # tenths of a second without a sign of life between two chunks of one process


def started_by_hand(settings: Settings) -> bool:
    """Whether this is one process of several, each started by hand."""
    last, index = settings.processes - 1, settings.process
    if index is None:
        return False
    if not 0 <= index <= last:
        raise Problem(f"--process must lie between 0 and {last}, for --processes; got {index}")
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


def holds(path: Path, command: str) -> bool:
    """Whether a folder holds what a command began."""
    return (path / MARKERS[command]).exists()


def claim(path: Path, command: str, settings: Settings, files: tuple[str, ...]) -> None:
    """Make the folder of a command, or go on with one that it began; nothing of another command, or
    of the user's own, is ever written over.
    """
    if settings.process:  # the others find what the first one made
        return
    (other,) = MARKERS.keys() - {command}
    goes_on = settings.resume or settings.process is not None
    try:
        if path.exists() and not path.is_dir():
            raise Problem(f"--out {path}: is a file, not a folder")
        if holds(path, other):
            text = f"holds results of gradxform {other}; choose another folder"
            raise Problem(f"--out {path}: {text}")
        if holds(path, command) and not goes_on:
            text = "holds results already; go on with --resume, or choose another folder"
            raise Problem(f"--out {path}: {text}")
        if not holds(path, command):
            if settings.resume and settings.process is None:
                what = {"compare": "comparison", "sweep": "sweep"}[command]
                raise Problem(f"--resume: {path} holds no {what} to go on with")
            if there := [name for name in files if (path / name).exists()]:
                text = f"{there[0]} is there already; it would be written over"
                raise Problem(f"--out {path}: {text}; choose another folder")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:  # a full disk is known before training
            file.write(bytes(4096))
    except OSError as error:
        raise Problem(f"--out {path}: cannot be written: {error.strerror}") from error


def with_out(words: list[str], path: Path) -> list[str]:
    """The words of a command, with its folder named."""
    named = any(word == "--out" or word.startswith("--out=") for word in words)
    return words if named else [*words, "--out", str(path)]


def resumed(command: str, path: Path) -> str:
    """How to go on with a folder."""
    words = [word for word in shlex.split(command) if word != "--resume"]
    return f"go on with {shlex.join([*with_out(words, path), '--resume'])}"


def shared_out(settings: Settings, path: Path, command: str) -> bool:
    """Run the processes of a command here and wait; whether all of them ended well."""
    words = [*with_out(shlex.split(command)[1:], path), "--resume", "--quiet", "--process"]
    child, count = [sys.executable, "-m", "gradxform", "--child"], settings.processes
    ended_well = together([[*child, *words, str(i)] for i in range(count)], path)
    if not ended_well:
        text = f"gradxform: error: a process ended early; {resumed(command, path)}"
        print(text, file=sys.stderr)
    return ended_well


def together(commands: list[list[str]], path: Path) -> bool:
    """Run commands side by side, and wait; whether all of them ended well. After one has failed,
    the others finish what they train, by their signs of life under a folder, and are ended then.

    Each holds the end of a pipe that closes with this process, however it ends.
    """
    how: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    started, idle = [subprocess.Popen(command, **how) for command in commands], 0
    try:
        while living := [i for i, process in enumerate(started) if process.poll() is None]:
            if any(process.returncode for process in started):
                idle = 0 if any(any(path.rglob(f".{i}.alive")) for i in living) else idle + 1
            if idle > PAUSE:
                break
            time.sleep(0.1)
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
            process.communicate()  # waits, and closes the pipe
    return not any(process.returncode for process in started)
