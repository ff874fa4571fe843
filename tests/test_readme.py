"""The README is true: its commands exist, its code prints what it says, its names and links lead somewhere."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import gradxform as gx

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CATALOGUE = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/recipes").glob("*.md")]


def generated(name):
    found = re.search(rf"<!-- {name}: .*? -->\n(.*?)\n<!-- end of {name} -->", CATALOGUE, re.DOTALL)
    assert found is not None
    return found[1]


def test_it_is_short():
    assert len(README.encode()) < 7000


def test_the_table_of_methods_is_the_generated_one():
    from gradxform.cli.catalogue import markdown
    from gradxform.cli.methods import METHODS

    assert generated("methods") == markdown(METHODS), "run: gradxform list --markdown"


def test_the_catalogue_is_the_generated_one():
    from gradxform.cli.catalogue import QUESTIONS, families

    assert generated("catalogue") == families(gx), "run: gradxform list --families"
    for question in QUESTIONS:
        rows = generated("catalogue").partition(f"## {question}\n")[2].partition("## ")[0]
        assert "`gx." in rows, f"{question} has no answer"


def test_the_code_prints_what_stands_below_it():
    blocks = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, re.DOTALL)
    assert len(blocks) >= 2
    assert any(output for _, output in blocks)
    namespace: dict = {}
    with jax.numpy_dtype_promotion("standard"):
        for block, output in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block, "README.md", "exec"), namespace)
            assert printed.getvalue() == output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_has_at_most_88_columns(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:py|python|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            assert len(line) <= 88, line


def test_the_names_of_its_table_exist():
    table = README.partition("## The catalogue")[2].partition("\n## ")[0]
    names = [name for name in re.findall(r"`([a-z_]\w*)`", table) if name != "convention"]
    assert len(names) > 30
    for name in names:
        assert hasattr(gx, name), name


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_entry_point_answers():
    out = subprocess.run(
        [sys.executable, "-m", "gradxform", "show", "adam"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "m ← β₁ m + (1 - β₁) g" in out.stdout
