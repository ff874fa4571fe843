"""The README is true: its table comes from the code, its examples run, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_methods_is_the_generated_one():
    from gradxform.cli.catalogue import markdown
    from gradxform.cli.methods import METHODS

    shown = re.search(r"<!-- methods: .*? -->\n(.*?)\n<!-- end of methods -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == markdown(METHODS), "run: gradxform list --markdown"


def test_the_catalogue_is_the_generated_one():
    import gradxform
    from gradxform.cli.catalogue import families

    shown = re.search(
        r"<!-- catalogue: .*? -->\n(.*?)\n<!-- end of catalogue -->", README, re.DOTALL
    )
    assert shown is not None
    assert shown[1] == families(gradxform), "run: gradxform list --families"


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 8
    namespace: dict = {}
    with jax.numpy_dtype_promotion("standard"):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    assert (
        namespace["result"].history["train_loss"][-1] < namespace["result"].history["train_loss"][0]
    )
    assert namespace["losses"].shape == (3,)


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
