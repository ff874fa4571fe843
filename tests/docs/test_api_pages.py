"""The reference is whole: every public name has a docstring and stands on one page, which is made from the code."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import gradxform as gx

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented(reference, tmp_path):
    """Every name that the written pages document, with the page."""
    reference.write(tmp_path / "api")
    for page in sorted((tmp_path / "api").glob("*.rst")):
        for name in re.findall(
            r"^\.\. auto(?:class|function):: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            yield name, page.name


def test_every_public_name_stands_on_one_page(reference, tmp_path):
    found = list(documented(reference, tmp_path))
    names = [name for name, _ in found]
    assert len(names) == len(set(names))
    objects = {id(reduced(name)) for name in names}
    for module in (
        "",
        "hyper",
        "interop",
        "numerics",
        "plot",
        "sweep",
        "testing",
        "train",
        "tree",
        "tree_utils",
    ):
        home = importlib.import_module(f"gradxform.{module}".rstrip("."))
        public = getattr(home, "__all__", [name for name in vars(home) if not name.startswith("_")])
        for name in public:
            x = getattr(home, name)
            if (inspect.isroutine(x) or inspect.isclass(x)) and x.__module__.startswith(
                "gradxform"
            ):
                defined_here = (
                    x.__module__ == home.__name__ or hasattr(home, "__all__") or not module
                )
                assert not defined_here or id(x) in objects, (
                    f"{home.__name__}.{name} is on no page of the reference"
                )
    assert dict(found)["gradxform.adam"] == "optimizers.rst"
    assert dict(found)["gradxform.sweep.sweep"] == "sweep.rst"


def reduced(name):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_every_documented_name_has_a_docstring(reference):
    for name, x in reference.public_names().items():
        assert len(inspect.getdoc(x) or "") > 15, name


def new_name(doc, module):
    def novel():
        pass

    novel.__doc__, novel.__module__ = doc, module
    return novel


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (new_name(None, "gradxform.core.chain"), "gradxform.novel has no docstring"),
        (
            new_name("New.", "gradxform.novelties"),
            "gradxform.novel of gradxform.novelties is on no page",
        ),
    ],
)
def test_a_new_public_name_that_is_not_documented_stops_the_build(
    reference, monkeypatch, name, words
):
    monkeypatch.setattr(gx, "novel", name, raising=False)
    monkeypatch.setattr(gx, "__dir__", lambda: [*gx.__all__, "novel"])
    with pytest.raises(LookupError, match=words):
        reference.pages()


def test_pages_that_are_no_more_are_removed_and_others_left_alone(reference, tmp_path):
    (tmp_path / "old.rst").write_text("Old\n===\n")
    reference.write(tmp_path)
    assert not (tmp_path / "old.rst").exists()
    before = {page: page.stat().st_mtime_ns for page in tmp_path.iterdir()}
    reference.write(tmp_path)
    assert before == {page: page.stat().st_mtime_ns for page in tmp_path.iterdir()}


DOCSTRING = """One sentence about `gx.adam` and `beta`.

    v ← β v + g

Some |text| with *one* word, a*b and a_ name.

Args:
    beta: how much,
        in two lines.
    a, b: the others.

Memory: 4 bytes.

Raises:
    ValueError: out of range.

Source: D. P. Kingma (2015).
"""
CONVERTED = r"""One sentence about \ :py:obj:`gx.adam <gradxform.adam>`\  and \ ``beta``\ .


.. code-block:: text

   v ← β v + g


Some \|text\| with *one* word, a\*b and a\_ name.


:param beta: how much, in two lines.
:type beta: ``float``
:param a: the others.
:param b: as \ ``a``\ 
:Memory: 4 bytes.
:raises ValueError: out of range.
:Source: \D. P. Kingma (2015).
"""  # noqa: W291


def test_docstrings_become_restructured_text(reference):
    def function(beta: float, a, b):
        pass

    lines = reference.docstring_lines(DOCSTRING, function)
    assert re.sub(r"\n\n+", "\n\n", "\n".join(lines)) == re.sub(r"\n\n+", "\n\n", CONVERTED)


def test_signatures_show_defaults_as_code(reference):
    assert reference.signature(gx.sgd).startswith("(learning_rate, momentum=None, nesterov=False")
    assert "skip=skip_not_finite" in reference.signature(gx.accumulate)
    types = reference._argument_types(gx.adam)
    assert types["b1"] == "``[0, 1]``"
    assert types["nesterov"] == "``bool``"
