"""Files and command lines that nobody would write, drawn with fixed seeds: they work, or end in one clear line.

And in exit code 2, before anything is compiled.
"""

import io
import zipfile
from dataclasses import fields

import numpy as np
import pytest

from gradxform.cli import data
from gradxform.cli import main as cli
from gradxform.cli.problems import Problem
from gradxform.cli.settings import Settings, flag

TEXTS = [
    "", " ", "nan", "inf", "-inf", "-1", "0", "1", "2", "0.5", "1e-46", "1e39", "1e400", "-1e-3", "a",
    "a,b", ",", ",,1", ":", "1:2", "2:1:3", "1:2:0", "1:2:3", "0:1:3", "1:2:3:4", "lin:", "lin:0:1:4",
    "true", "False", "none", "all", "adam", "adam,lion", "sophia", "Adam", "x" * 5000, "a\nb", "é💥",
    "-", "--", "1_000", "٣", "0x10", "9" * 30, "9" * 5000, "[1]", "{}", "=", "a=", "=b", "'", '"', "\\",
    "../..", ".", "/", "/dev/null", "/dev/null/x", "a/b/c", "%", "%s", "$HOME", "~", "mlp", "cnn",
    "linear", "digits", "wine", "os:getcwd", "os:nothing", "math:pi", "a:b:c", ":b", "a:", "NUL\0",
]  # fmt: skip
AXES = [
    "learning_rate", "b1", "l2", "label_smoothing", "init_scale", "batch_size", "epochs", "hidden",
    "seed", "key", "tx", "tx.b1", "data", "validation", "eps", "nesterov", "convention", "mu_dtype",
    "lr", "beta1", "", ".", "*", "b1.b1",
]  # fmt: skip
TOML = ['3', '"3"', "-1", "1.5", "true", "[]", "[1]", '["a"]', "[[1]]", "{}", "{a=1}", "nan", "inf",
        "1979-05-27", '""', '"all"', '"1:2:3"', "0x7fffffffffffffff", "["]  # fmt: skip


SOUND = {
    int: ["1", "3", "1"],
    float: ["0.5", "1e-3"],
    str: ["1", "sgd,adam", "wine"],
    list: ["0.25,0.5"],
}


class Trains(BaseException):
    """Raised where a command would begin to compile."""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder, up to where it would compile; whether it got there."""

    def trains(*_, **__):
        raise Trains

    monkeypatch.setattr("gradxform.cli.sweep.command.prepare", trains)
    monkeypatch.setattr("gradxform.cli.compare.command.run", trains)
    for name in ("sweep", "compare"):
        monkeypatch.setattr(f"gradxform.cli.{name}.command.shared_out", trains)
    monkeypatch.setattr("gradxform.cli.running.keep_programs", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(words):
        try:
            code = cli.main([str(word) for word in words])
        except Trains:
            capsys.readouterr()
            return True
        out, err = capsys.readouterr()
        assert code == 2, (words, code)
        assert out == "", (words, out)
        assert err.startswith("gradxform: error: "), (words, err)
        assert err.count("\n") == 1, (words, err)
        assert len(err) > 30, (words, err)
        return False

    return run


def drawn_command(rng):
    """A command with one to three odd options."""
    name = ("compare", "sweep")[rng.integers(2)]
    known = [about for about in fields(Settings) if name in about.metadata["commands"]]
    words = [name, *(() if rng.random() < 0.3 else ("--data", "wine", "--hidden", "4"))]
    for at in rng.choice(len(known), rng.integers(1, 4), replace=False):
        about, text = known[at], TEXTS[rng.integers(len(TEXTS))]
        kind = about.metadata["kind"]
        if rng.random() < 0.5 and kind in SOUND:
            text = SOUND[kind][rng.integers(len(SOUND[kind]))]
        if kind is list:
            text = f"{AXES[rng.integers(len(AXES))]}={text}"
        words += [flag(about)] if kind is bool else [f"{flag(about)}={text}"]
    return words


def drawn_toml(rng):
    """A file with one to three odd entries."""
    known = [about.name for about in fields(Settings) if "sweep" in about.metadata["commands"]]
    lines = ['data = "wine"', "hidden = [4]"]
    for at in rng.choice(len(known), rng.integers(1, 4), replace=False):
        lines += [f"{known[at]} = {TOML[rng.integers(len(TOML))]}"]
    if rng.random() < 0.5:
        axis = AXES[rng.integers(len(AXES))]
        lines += ["[axes]", f'"{axis}" = {TOML[rng.integers(len(TOML))]}']
    return "\n".join(line for line in lines if rng.random() < 0.95)


def check_commands(command, seed, count):
    rng = np.random.default_rng(seed)
    got = [command(drawn_command(rng)) for _ in range(count)]
    assert 0 < sum(got) < count


def check_files(command, tmp_path, seed, count):
    rng, got = np.random.default_rng(seed), []
    for _ in range(count):
        (tmp_path / "s.toml").write_text(drawn_toml(rng))
        got.append(command(["sweep", "s.toml"]))
    assert 0 < sum(got) < count


def test_odd_command_lines(command):
    check_commands(command, 0, 25)


def test_odd_toml_files(command, tmp_path):
    check_files(command, tmp_path, 0, 25)


@pytest.mark.slow
def test_many_odd_command_lines(command):
    check_commands(command, 1, 1500)


@pytest.mark.slow
def test_many_odd_toml_files(command, tmp_path):
    check_files(command, tmp_path, 1, 800)


CSV = "a,b,c,y\n" + "\n".join(f"{i % 7}.5,{-i},{i}e3,{i % 2}" for i in range(40)) + "\n"
PIECES = [
    ",", ",,", "\n", "\r\n", '"', "'", "nan", "inf", "-inf", "1e39", "1e400", "1e-320", "x", " ", "\t", ";",
    "\0", "é", "\ufeff", "9" * 400, "#", "a,b,c,y\n", "1,2,3,0,5\n", "-", "NA", "True", "\u2028", "\x1a",
]  # fmt: skip


def loaded(path):
    """Load a file and split it: arrays that can be trained on, or a Problem in one line."""
    said = ""
    try:
        found = data.load(str(path))
        parts = data.split(found)
    except Problem as problem:
        said = str(problem)
    else:
        for part in parts[:3]:
            assert part["x"].dtype == np.float32
            assert np.isfinite(part["x"]).all()
            assert np.isfinite(part["y"]).all()
            assert len(part["x"]) == len(part["y"]) > 0
        return True
    assert path.name in said, said
    assert "\n" not in said
    return False


def odd_csv(rng):
    """A table with some pieces put in, cut out or doubled."""
    text = CSV
    for _ in range(rng.integers(1, 4)):
        at, end = sorted(rng.integers(0, len(text), 2))
        end = min(end, at + 12)
        piece = PIECES[rng.integers(len(PIECES))]
        text = [text[:at] + piece + text[at:], text[:at] + text[end:], text[:at] + piece + text[end:],
                text[:end] + text[at:], text[:at]][rng.choice(5, p=[0.4, 0.2, 0.25, 0.1, 0.05])]  # fmt: skip
    return text.encode()


def odd_array(rng):
    """An array of some shape and dtype."""
    shape = [
        (40, 3),
        (40,),
        (40, 1),
        (40, 4, 4),
        (40, 0),
        (0, 3),
        (),
        (3, 40),
        (40, 2, 2, 1),
        (40, 1, 1, 1, 1),
    ]
    kinds = ["f4", "f8", "f2", "i8", "u1", "?", "U3", "S3", "c8", "M8[s]", "m8[s]", "g", [("a", "f4")], "V4"]  # fmt: skip
    x = rng.normal(size=shape[rng.integers(len(shape))]) * 10.0 ** rng.choice(
        [0, 0, 30, -30, 100, 5]
    )
    if x.size and rng.random() < 0.1:
        x.flat[rng.integers(x.size)] = rng.choice([np.nan, np.inf])
    if rng.random() < 0.4:
        return x
    with np.errstate(all="ignore"):
        kind = kinds[rng.integers(len(kinds))]
        try:
            return x.astype(kind)
        except (TypeError, ValueError):
            return np.zeros(x.shape, kind)


def odd_npz(rng):
    """An archive of odd arrays, or a sound one with some bytes changed."""
    file = io.BytesIO()
    if rng.random() < 0.5:
        names = [["x", "y"], ["X", "y"], ["x"], ["x", "y", "z"], []][rng.integers(5)]
        np.savez(file, **{name: odd_array(rng) for name in names})
        return file.getvalue()
    np.savez(file, x=rng.normal(size=(40, 3)), y=np.arange(40) % 2)
    content = bytearray(file.getvalue())
    for at in rng.integers(0, len(content), rng.integers(1, 4)):
        content[at] = rng.integers(256)
    return bytes(content[: rng.integers(len(content))] if rng.random() < 0.2 else content)


@pytest.mark.filterwarnings("ignore")  # of numbers that overflow, and of what pandas makes of text
@pytest.mark.parametrize(
    ("count", "seed"), [(60, 0), pytest.param(3000, 1, marks=pytest.mark.slow)]
)
def test_odd_data_files(tmp_path, count, seed):
    rng, got = np.random.default_rng(seed), []
    for i in range(count):
        name, make = [("odd.csv", odd_csv), ("odd.npz", odd_npz)][i % 2]
        path = tmp_path / name
        path.write_bytes(make(rng))
        got.append(loaded(path))
    assert 0 < sum(got) < count


def test_an_archive_in_an_archive_is_refused(tmp_path):
    """Members that are folders, or headers alone."""
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy/", "")
        file.writestr("y.npy", b"\x93NUMPY")
    assert not loaded(path)
