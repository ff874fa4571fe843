"""The notebooks' runner, and what can be said of the notebooks without executing them."""

import asyncio
import base64
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("[0-9]*.py"))
pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def run():
    """The runner, whose libraries come with the extra `notebooks`."""
    spec = importlib.util.spec_from_file_location("notebooks_run", NOTEBOOKS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nbformat():
    return importlib.import_module("nbformat")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebook_asks_answers_and_is_rendered(run, nbformat, source):
    notebook = run.read(source)
    run.check_rendering(notebook, source.with_suffix(".ipynb"))
    run.check_outputs(nbformat.read(source.with_suffix(".ipynb"), as_version=4))
    opening, *_ = (cell.source for cell in notebook.cells)
    assert opening.startswith(f"# {int(source.stem[:2])}. ")
    assert "?" in opening
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "## What to remember" in prose
    assert f"({source.stem}.ipynb)" in (NOTEBOOKS / "README.md").read_text()


def test_names_of_notebooks_by_number_stem_and_path(run):
    assert run.find([]) == SOURCES
    first = SOURCES[0]
    assert (
        run.find(["01"])
        == run.find([first.stem])
        == run.find([f"notebooks/{first.name}"])
        == [first]
    )
    with pytest.raises(SystemExit, match="no notebook 'zz'"):
        run.find(["zz"])


def _source(folder, *cells):
    path = folder / "01_try.py"
    path.write_text("\n".join(f"# %%\n{cell}\n" for cell in cells))
    return path


def test_picture_gets_a_palette_and_the_size_asked_for(run):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "png")
    small = base64.b64decode(run.small_png(base64.b64encode(buffer.getvalue()).decode()))
    assert len(small) < 100_000 < len(buffer.getvalue())
    assert Image.open(io.BytesIO(small)).mode == "P"
    assert run.small_png(base64.b64encode(small).decode()) == base64.b64encode(small).decode()


@pytest.mark.parametrize(
    "text", ["<object object at 0x7fef070c70c0>", f"{NOTEBOOKS}/x", "/home/me/x"]
)
def test_output_that_differs_between_machines_is_refused(run, nbformat, text):
    cell = nbformat.v4.new_code_cell(
        "f()", outputs=[nbformat.v4.new_output("stream", name="stdout", text=text)]
    )
    with pytest.raises(run.Failed, match=r"differs between machines or runs.*\n.*f\(\)"):
        run.check_outputs(nbformat.v4.new_notebook(cells=[cell]))


def test_rendering_is_the_same_each_time_and_goes_stale_with_its_source(run, nbformat, tmp_path):
    picture = "from PIL import Image\nImage.new('RGB', (9, 9))"
    source = _source(
        tmp_path, "# %% [markdown]\n# A title", "print('a', flush=True)\nprint('b')", picture
    )
    with pytest.raises(run.Failed, match=r"there is no 01_try\.ipynb"):
        asyncio.run(run.run(source, writing=False))
    asyncio.run(run.run(source, writing=True))
    written = source.with_suffix(".ipynb").read_text()
    asyncio.run(run.run(source, writing=True))
    assert source.with_suffix(".ipynb").read_text() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01_try.ipynb", "01_try.py"]
    assert 'execution":' not in written
    assert json.loads(written)["metadata"] == run.METADATA
    rendering = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    (output,) = (cell.outputs[0] for cell in rendering.cells if "print" in cell.source)
    assert output.text == "a\nb\n"
    asyncio.run(run.run(source, writing=False))
    source.write_text(source.read_text().replace("'b'", "'c'"))
    with pytest.raises(run.Failed, match="older than its source"):
        asyncio.run(run.run(source, writing=False))


@pytest.mark.parametrize(
    ("cell", "limit", "says"),
    [
        ("1 / 0", 300, "ZeroDivisionError"),
        ("import warnings; warnings.warn('beware')", 300, "beware"),
        ("import os; os._exit(1)", 300, "its kernel died in the cell"),
        (
            "while True: pass",
            4,
            r"after \d s of processor time, of which it may use 4; the longest cell took \d+ s",
        ),
        (
            "import time; time.sleep(300)",
            2,
            r"after \d s of processor time, of which it may use 2; the longest cell took \d+ s",
        ),
    ],
)
def test_notebook_fails_and_leaves_no_rendering(run, tmp_path, cell, limit, says):
    source = _source(tmp_path, "x = 1", cell)
    with pytest.raises(run.Failed, match=says):
        asyncio.run(run.run(source, writing=True, limit=limit))
    assert not source.with_suffix(".ipynb").exists()


def test_a_notebook_that_fails_in_its_own_way_does_not_lose_the_others(
    run, tmp_path, capsys, monkeypatch
):
    first, second = _source(tmp_path, "x = 1"), tmp_path / "02_other.py"
    second.write_text(first.read_text())

    async def odd(source, writing, limit):
        if source == first:
            raise asyncio.InvalidStateError("a race")
        return 1.0

    monkeypatch.setattr(run, "run", odd)
    assert asyncio.run(run.run_all([first, second], 2, writing=True)) == 1
    told = capsys.readouterr().out
    assert "01_try: FAILED" in told
    assert "a race" in told
    assert "02_other: 1.0 s" in told


def test_command_counts_failures(run, tmp_path, capsys):
    source = _source(tmp_path, "1 / 0")
    assert asyncio.run(run.run_all([source], 2, writing=True)) == 1
    assert "01_try: FAILED" in capsys.readouterr().out
