"""Options are written once: what the commands, their help and the facts of a folder know of them."""

import os
import shlex
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import jax
import pytest

from gradxform.cli import main as cli
from gradxform.cli.problems import Problem
from gradxform.cli.running import keep_programs
from gradxform.cli.settings import Settings, flag
from gradxform.sweep import Distribution


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_help_names_every_option_of_its_command_and_no_other(command, capsys):
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    for about in fields(Settings):
        known = command in about.metadata["commands"]
        assert (f"{flag(about)} " in text.replace("\n", " ")) == known, about.name


def test_what_is_given_stands_over_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('seeds = 4\nepochs = 7\nout = "here"\n[axes]\nb1 = "0.5,0.6"\n')
    found = Settings.of("sweep", {"epochs": 2}, str(file))
    assert (found.seeds, found.epochs, found.out, found.methods) == (4, 2, "here", ("adam",))
    assert found.axes == {"b1": [0.5, 0.6]}
    assert Settings.of("sweep", {}).seeds == 1
    assert Settings.of("compare", {}) == Settings()
    file.write_text('epochs = "many"\n')
    with pytest.raises(Problem, match="--epochs 'many': expected a number"):
        Settings.of("sweep", {}, str(file))


def test_facts_hold_what_changes_a_member_and_nothing_else():
    facts = Settings().facts("d")
    for name, other in (("epochs", 3), ("l2", 0.1), ("seeds", 1), ("schedule", "cosine")):
        assert Settings(**{name: other}).facts("d") != facts
    for name, other in (("quiet", True), ("methods", ("sgd",)), ("chunk", 3), ("no_cache", True)):
        assert Settings(**{name: other}).facts("d") == facts
    assert Settings().facts("other") != facts


@pytest.mark.parametrize(
    "words",
    [
        "compare --data wine --hidden 8,4 --methods sgd,adam --learning-rates 0.01:1:3 --target-loss 0.5 --l2 0.1",
        "sweep --random 5 --axis learning_rate=1e-5:1 --axis b1=lin:0:0.9 --axis batch_size=8,16 --rungs 2,6",
        "sweep --axis hidden=32,64x64 --axis nesterov=true,false --schedule cosine --seeds 3",
        "compare",
    ],
)
def test_the_command_of_settings_gives_them_again(words):
    """What the report shows after --resume, or of a TOML file: the whole of it, and no more."""
    name, *options = words.split()
    found = read(name, options)
    command = found.command(name)
    again = read(name, shlex.split(command)[2:])
    assert drawn(again) == drawn(found)
    assert replace(again, axes={}) == replace(found, axes={})
    assert replace(found, resume=True, out="there", quiet=True).command(name) == command


def read(name, options):
    given = vars(cli.parser().parse_args([name, *options]))
    return Settings.of(name, {k: x for k, x in given.items() if k in Settings.__dataclass_fields__})


def drawn(settings):
    """The values of the axes, those that are drawn at some points."""
    axes = settings.axes.items()
    return {k: x.points(7) if isinstance(x, Distribution) else x for k, x in axes}


def test_two_targets_are_refused(capsys):
    assert cli.main(["compare", "--target-loss", "1", "--target-accuracy", "0.5"]) == 2
    assert "--target-loss: not allowed with argument --target-accuracy" in capsys.readouterr().err


def test_programs_are_kept_in_a_folder_for_this_kind_of_processor(tmp_path, monkeypatch):
    names = ["cache_dir", "min_compile_time_secs", "min_entry_size_bytes"]
    names = ["jax_compilation_cache_dir", *(f"jax_persistent_cache_{x}" for x in names[1:])]
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        keep_programs()
        kept = Path(str(jax.config.jax_compilation_cache_dir))
        assert kept.parent == tmp_path / "gradxform" / "programs"
        jax.config.update("jax_compilation_cache_dir", "chosen by the user")
        keep_programs()
        assert jax.config.jax_compilation_cache_dir == "chosen by the user"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.slow
def test_compiled_programs_are_kept_in_the_cache_folder_unless_asked_not_to(tmp_path):
    command = "compare --data wine --methods sgd --learning-rates 0.1 --seeds 1 --epochs 1"
    words = [sys.executable, "-m", "gradxform", *command.split(), "--hidden", "4", "--quiet"]
    kept = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_ENABLE_COMPILATION_CACHE": "true"}
    more = {"cwd": tmp_path, "env": os.environ | kept, "capture_output": True}
    programs = tmp_path / "cache" / "gradxform" / "programs"
    subprocess.run([*words, "--no-cache"], check=True, **more)
    assert not programs.exists()
    subprocess.run(words, check=True, **more)
    assert list(programs.glob("*/*"))


@pytest.mark.slow
def test_processes_share_a_comparison(run, tmp_path):
    """Two processes give the members of one."""
    arguments = [*run.arguments[:-1], str(tmp_path / "two"), "--processes", "2"]
    assert cli.main(arguments) == 0
    one, two = ((path / "members.csv").read_text() for path in (run.folder, tmp_path / "two"))
    assert [line.split(",")[:5] for line in one.splitlines()] == [
        line.split(",")[:5] for line in two.splitlines()
    ]
