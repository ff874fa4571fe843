"""Execute the notebooks, and check or write their renderings.

    python notebooks/run.py                  all: execute, and check that each rendering belongs to its source
    python notebooks/run.py 03 08 --write    some: execute and write NN_name.ipynb beside NN_name.py

A notebook is a jupytext percent script. Each runs in a fresh kernel with JAX on the CPU and fails on an error, after
LIMIT seconds of processor time, on anything written to stderr (warnings), and on what would differ from one machine to the next.
"""

import argparse
import asyncio
import base64
import hashlib
import io
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

HERE = Path(__file__).resolve().parent
LIMIT = 100  # seconds of processor time for one notebook: a busy machine fails none
IDLE = 5  # times as long it may take by the clock
LARGEST = {"image/png": 100_000, "text/html": 700_000}  # bytes; animations come as HTML
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PLACES = {
    str(HERE.parent),
    str(Path.home()),
    sys.prefix,
    sys.base_prefix,
    tempfile.gettempdir(),
} - {"/", "/usr"}
UNSTABLE = re.compile(r"\b0x[0-9a-f]{8,}|(?<![\w./])/(?:home|Users|tmp)/\w")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Failed(Exception):
    """Why a notebook is not as it must be."""


class ThisPython(KernelSpecManager):
    """The kernel is the interpreter that runs this script, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name):
        command = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def find(names, here=HERE):
    """The sources that the names mean (`03`, `03_momentum`, a path), in order; all of them without names."""
    sources = sorted(here.glob("[0-9][0-9]_*.py"))
    chosen = set()
    for name in names:
        stem = Path(name).stem
        matching = {
            source
            for source in sources
            if source.stem == stem or source.stem.startswith(f"{stem}_")
        }
        if not matching:
            raise SystemExit(
                f"no notebook {name!r}; there are: {', '.join(source.stem for source in sources)}"
            )
        chosen |= matching
    return sorted(chosen) if names else sources


def read(source):
    """The cells of a source, without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    seen = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}{cell.source}".encode()).hexdigest()[
            :8
        ]
        seen[digest] += 1
        cell.id = f"{digest}-{seen[digest]}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def cells(notebook):
    """What a rendering must share with its source."""
    return [
        (cell.cell_type, cell.source, sorted(cell.metadata.get("tags", [])))
        for cell in notebook.cells
    ]


async def execute(notebook, limit=LIMIT):
    """Run all cells in a fresh kernel, in place; return the processor time it took, in seconds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Sockets in a folder of our own: no ports that two kernels could both choose, and nothing on the network.
        sockets = (
            {} if os.name == "nt" else {"transport": "ipc", "ip": f"{folder}/kernel"}
        )
        return await _execute(
            notebook,
            limit,
            AsyncKernelManager(kernel_spec_manager=ThisPython(), **sockets),
        )


async def _execute(notebook, limit, manager):
    # when each cell began, and its source
    started = [(time.perf_counter(), "(the start of the kernel)")]

    def begin(cell, cell_index):
        if cell.cell_type == "code":
            started.append((time.perf_counter(), cell.source))

    resources = {"metadata": {"path": str(HERE)}}
    client = NotebookClient(
        notebook, km=manager, timeout=None, resources=resources, on_cell_start=begin
    )
    # most of the time is compilation
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
    fixed = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags.strip(),
        "PYTHONHASHSEED": "0",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }
    environment = {**os.environ, **fixed}
    execution = asyncio.ensure_future(
        client.async_execute(env=environment, cleanup_kc=True)
    )
    seconds = 0.0
    while not execution.done():
        await asyncio.wait({execution}, timeout=0.2)
        seconds = max(seconds, processor_time(manager))
        idle = time.perf_counter() - started[0][0] > IDLE * limit
        if seconds > limit or idle:
            break
    late = not execution.done()
    if late and manager.has_kernel:
        await manager.shutdown_kernel(now=True)
    try:
        await execution
    except CellExecutionError as error:
        raise Failed(ESCAPES.sub("", str(error))) from None
    except DeadKernelError:
        if not late:
            raise Failed(f"its kernel died in the cell\n{started[-1][1]}") from None
    except Exception as error:  # whatever a kernel does when it is ended
        if not late:
            raise Failed(f"{type(error).__name__}: {error}") from error
    if late:
        ends = [begun for begun, _ in started[1:]] + [time.perf_counter()]
        longest, source = max(
            (end - begun, source)
            for end, (begun, source) in zip(ends, started, strict=True)
        )
        raise Failed(
            f"it had not ended after {seconds:.0f} s of processor time, of which it may use "
            f"{limit:g}; the longest cell took {longest:.0f} s by the clock:\n{source}"
        )
    return seconds


def processor_time(manager):
    """Seconds that a kernel and its children have computed; 0 where it is gone."""
    try:
        kernel = psutil.Process(manager.provisioner.pid)
        return sum(sum(one.cpu_times()[:2]) for one in [kernel, *kernel.children(True)])
    except (psutil.Error, AttributeError):
        return 0.0


def small_png(encoded):
    """A PNG, base64 in and out, with a palette: of 256 colours, or of as many fewer as LARGEST asks for."""
    original = base64.b64decode(encoded)
    picture = Image.open(io.BytesIO(original))
    small = original
    for colours in (256, 96, 48, 24):
        if (
            len(small) <= LARGEST["image/png"]
            and Image.open(io.BytesIO(small)).mode == "P"
        ):
            break
        buffer = io.BytesIO()
        reduced = picture.convert("RGB").quantize(
            colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        reduced.save(buffer, format="png", optimize=True)
        small = buffer.getvalue()
    return base64.b64encode(small).decode()


def joined(outputs):
    """The outputs, with text that a kernel sent in several pieces as one."""
    last = None
    for output in outputs:
        if (
            output.output_type == "stream"
            and last is not None
            and last.get("name") == output.name
        ):
            last.text += output.text
            continue
        last = output
        yield output


def normalise(notebook):
    """Keep what readers see, and nothing that changes from run to run or from machine to machine."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = (
            {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        )
        if cell.cell_type != "code":
            continue
        cell.outputs = list(joined(cell.outputs))
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = small_png(data["image/png"])
            # repository pages and nbconvert show no image/gif, but a picture in HTML
            if "image/gif" in data:
                gif = data.pop("image/gif").replace("\n", "")
                data["text/html"] = (
                    f'<img alt="{data["text/plain"]}" src="data:image/gif;base64,{gif}">'
                )
            if "metadata" in output:
                output.metadata = {
                    kind: size
                    for kind, size in output.metadata.items()
                    if kind == "image/png"
                }
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]


def check_outputs(notebook):
    """Raise Failed for output that readers must not see: warnings, addresses, places, heavy pictures."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind, largest in LARGEST.items():
                size = len(data.get(kind, "")) * 3 // 4
                if size > largest:
                    raise Failed(
                        f"{kind} of {size} bytes, more than {largest}, in the cell\n{cell.source}"
                    )
            if output.get("name") == "stderr":
                raise Failed(
                    f"{output.text}\nwas written to stderr by the cell\n{cell.source}"
                )
            shown = [str(data[kind]) for kind in data if not kind.startswith("image/")]
            text = "\n".join([output.get("text", ""), output.get("evalue", ""), *shown])
            text = re.sub(r"data:image/[a-z]+;base64,[\w+/=\s]+", "", text)
            found = UNSTABLE.search(text)
            unstable = (
                found.group()
                if found
                else next((place for place in PLACES if place in text), None)
            )
            if unstable:
                raise Failed(
                    f"{unstable!r} differs between machines or runs; it was shown by the cell\n{cell.source}"
                )


def write(notebook, path):
    """Write the rendering as a whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_rendering(notebook, path):
    """Raise Failed unless the rendering at path belongs to these cells."""
    again = f"python notebooks/run.py {path.stem} --write"
    if not path.exists():
        raise Failed(f"there is no {path.name}: {again}")
    rendering = nbformat.read(path, as_version=4)
    if cells(rendering) != cells(notebook):
        raise Failed(f"{path.name} is older than its source: {again}")
    if any(
        cell.cell_type == "code" and cell.source and not cell.execution_count
        for cell in rendering.cells
    ):
        raise Failed(f"{path.name} has cells that were not executed: {again}")


async def run(source, writing, limit=LIMIT):
    """Execute one notebook, then write its rendering or check the one there is; return the seconds it took."""
    notebook = read(source)
    seconds = await execute(notebook, limit)
    normalise(notebook)
    check_outputs(notebook)
    nbformat.validate(notebook)
    rendering = source.with_suffix(".ipynb")
    if writing:
        write(notebook, rendering)
    else:
        check_rendering(notebook, rendering)
    return seconds


async def run_all(sources, jobs, writing, limit=LIMIT):
    """Execute the sources, `jobs` at a time, and report each as it ends; return how many failed."""
    places = asyncio.Semaphore(jobs)

    async def one(source):
        async with places:
            try:
                print(
                    f"{source.stem}: {await run(source, writing, limit):.1f} s",
                    flush=True,
                )
            except Failed as failure:
                print(f"{source.stem}: FAILED\n{failure}\n", flush=True)
                return 1
            except Exception:  # one that fails in its own way must not lose the others
                print(f"{source.stem}: FAILED\n{traceback.format_exc()}", flush=True)
                return 1
        return 0

    return sum(await asyncio.gather(*map(one, sources)))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Execute the notebooks, and check or write their renderings."
    )
    parser.add_argument(
        "names", nargs="*", help="such as 03 or 03_momentum; all without names"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="how many run at a time (2)"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the renderings instead of checking them",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        help=f"seconds of processor time for one ({LIMIT})",
    )
    options = parser.parse_args(arguments)
    sources = find(options.names)
    failed = asyncio.run(run_all(sources, options.jobs, options.write, options.limit))
    print(
        f"{len(sources) - failed} of {len(sources)} notebooks {'written' if options.write else 'as they must be'}"
    )
    return 1 if failed or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
