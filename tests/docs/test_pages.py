"""The pages are true: their code runs from top to bottom, and the links between them lead somewhere."""

import re
from pathlib import Path

import jax
import pytest

import gradxform as gx

DOCS = Path(__file__).parents[2] / "docs"
GENERATED = ("_build", "api", "notebooks")
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in GENERATED)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


def name(page):
    return page.relative_to(DOCS).as_posix()


def test_the_pages_are_found():
    names = {
        "from_optax.md",
        "from_torch.md",
        "recipes/fine_tuning.md",
        "recipes/pretraining.md",
        "recipes/gan.md",
    }
    assert names | {"recipes/dp_sgd.md", "recipes/meta_learning.md"} <= {
        name(page) for page in WITH_CODE
    }


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=pytest.mark.slow if p.parent.name == "recipes" else ())
        for p in WITH_CODE
    ],
    ids=name,
)
def test_the_code_runs(page):
    """All blocks of a page, one after another; what a page claims, it asserts."""
    text = page.read_text(encoding="utf-8")
    namespace: dict = {"__name__": "page"}
    with jax.numpy_dtype_promotion("standard"):
        for block in BLOCK.finditer(text):
            above = "\n" * text[: block.start(1)].count(
                "\n"
            )  # so that an error names the line of the page
            exec(compile(above + block[1], str(page), "exec"), namespace)
    assert "assert " in text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        made = target.startswith(
            ("api/", "../api/", "../../api/", "notebooks/", "../notebooks/")
        )  # by docs/conf.py, which checks them
        assert made or re.match(r"https?:", target) or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=lambda page: page.name)
def test_the_names_exist(page):
    """What stands in the text as `gx.name` is a public name."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for path in re.findall(r"`(?:gx|gradxform)\.([a-zA-Z_][\w.]*)", text):
        x = gx
        for name in path.split("."):
            x = getattr(x, name)
