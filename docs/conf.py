"""The documentation: README, pages, notebooks as they were last run, and a reference from the docstrings. Built strictly:

sphinx-build -E -W -n --keep-going docs docs/_build/html
"""

import posixpath
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402

project = "gradxform"
author = "The gradxform developers"
copyright = author
version = release = reference.gradxform.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "**.py"]
nitpicky = True
nitpick_ignore_regex = [  # the types of properties: other libraries' pages are not fetched, and ours link names as py:obj
    ("py:class", r"(gradxform|jax|matplotlib|numpy|pandas|typing|collections)\..*")
]
highlight_language = "python"

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
add_module_names = False

html_theme = "furo"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_title = f"gradxform {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False


def _generate(app):
    reference.write(HERE / "api")
    _copy_notebooks(HERE / "notebooks")


def _copy_notebooks(folder: Path):
    """The notebooks as they were last run, and the page that lists them."""
    folder.mkdir(exist_ok=True)
    found = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for old in folder.iterdir():
        if old.name not in {notebook.name for notebook in found}:
            old.unlink()
    for notebook in found:
        shutil.copyfile(notebook, folder / notebook.name)
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    contents = "".join(f"{notebook.stem}\n" for notebook in found)
    (folder / "index.md").write_text(
        f"{_moved_links(text, 'notebooks')}\n```{{toctree}}\n:hidden:\n\n{contents}```\n",
        encoding="utf-8",
    )


MOVED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "notebooks": "notebooks/index.md",
    "notebooks/README.md": "notebooks/index.md",
}


def _moved_links(text: str, folder: str) -> str:
    """Links of a file in a folder of the repository, as links of a page in the same folder of the site."""

    def moved(match):
        target, anchor = match[1], match[2] or ""
        if re.match(r"\w+:|#", target):
            return match[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        place = MOVED.get(
            place,
            place.removeprefix("docs/")
            if place.startswith(("docs/", "notebooks/"))
            else f"../{place}",
        )
        return f"]({posixpath.relpath(place, folder or '.')}{anchor})"

    return re.sub(r"\]\(([^)#]+)(#[^)]*)?\)", moved, text)


def _links(app, relative_path, parent_docname, content):
    """The README and its like are included; their links are relative to the repository."""
    content[0] = _moved_links(content[0], "")


def _docstring(app, what, name, obj, options, lines):
    if what != "module":
        lines[:] = reference.docstring_lines("\n".join(lines), obj)


def _signature(app, what, name, obj, options, signature, returns):
    error = isinstance(obj, type) and issubclass(obj, Exception)
    if what not in ("function", "method", "class") or error:
        return None
    text = reference.signature(obj)
    return (re.sub(r"^\((self|cls)(, )?", "(", text) if what == "method" else text), ""


def _skip(app, what, name, obj, skip, options):
    """Fields of named tuples, which stand under Attributes, and properties that say nothing."""
    silent = isinstance(obj, property) and not obj.__doc__
    return True if silent or type(obj).__name__ == "_tuplegetter" else None


def _to_mathml(self, node: nodes.Element, block: bool):
    """Mathematics as MathML, which needs no script and no network. What the converter does not know it
    would print as it is; here it stops the build."""
    latex = node.astext().strip().replace("{aligned}", "{align*}")  # the one of the two that it knows
    mathml = convert(latex, display="block" if block else "inline")
    if unknown := re.search(r"<m\w+>(&|&amp;|\\\w*)</m", mathml):
        raise ValueError(f"{node.source}: not converted to MathML: {unknown[1]} in {latex}")
    self.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def _link_names(app, doctree):
    """`gx.name` in the text of a page becomes a link to its reference."""
    from sphinx.addnodes import pending_xref

    known = reference.public_names()
    for literal in list(doctree.findall(nodes.literal)):
        match = re.fullmatch(r"(?:gx|gradxform)\.([\w.]+)(?:\(\))?", literal.astext())
        if (
            not match
            or f"gradxform.{match[1]}" not in known
            or isinstance(literal.parent, nodes.reference | pending_xref)
        ):
            continue
        link = pending_xref(
            "",
            refdomain="py",
            reftype="obj",
            reftarget=f"gradxform.{match[1]}",
            refexplicit=True,
            refwarn=True,
        )
        literal.replace_self(link)
        link += literal


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: _to_mathml(self, node, False), None),
        block_renderers=(lambda self, node: _to_mathml(self, node, True), None),
    )
    app.connect("builder-inited", _generate)
    app.connect("include-read", _links)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("doctree-read", _link_names)
