"""`gradxform sweep`: flags, a TOML file, the files it writes, and one clear line for every mistake."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from gradxform.cli import main as cli
from gradxform.cli.experiment import Experiment
from gradxform.cli.parsing import parse_axis
from gradxform.cli.problems import Problem
from gradxform.cli.settings import Settings
from gradxform.cli.sweep import plots as sweep_plots
from gradxform.cli.sweep.experiment import Swept
from gradxform.cli.sweep.judged import has_seeds, settings
from gradxform.cli.sweep.write import answers, cells
from gradxform.sweep import Distribution, grid, sweep
from gradxform.sweep.engine import Engine

SMALL = [
    *("sweep", "--data", "wine", "--hidden", "8", "--epochs", "2", "--seeds", "2", "--chunk", "4"),
    *("--axis", "learning_rate=0.01,0.1", "--axis", "b1=0.8,0.9"),
]
FILES = {
    "report.html",
    "members.csv",
    "curves.png",
    "sensitivity.png",
    "parallel.png",
    "heat.png",
    "sweep.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished sweep of eight members."""
    path = tmp_path_factory.mktemp("sweep") / "out"
    assert cli.main([*SMALL, "--out", str(path), "--quiet"]) == 0
    return path


def test_it_writes_what_it_says(folder, capsys):
    """A table of every member, four pictures, a page that names the best."""
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    lines = (folder / "members.csv").read_text().splitlines()
    assert len(lines) == 9
    assert lines[0].startswith("member,learning_rate,b1,seed,")
    assert lines[0].endswith(",epochs,diverged")
    page = (folder / "report.html").read_text()
    assert "Best: learning_rate 0.1, b1 0." in page
    assert "settings cannot be told" in page
    assert "the mean over 2 seeds" in page
    assert "among the better half" in page
    assert "vs first" in page
    assert "validation accuracy,\u00a0%" in page
    assert ">steps<" not in page
    assert "tx = adam(learning_rate=" in page
    assert page.count("<figure>") == 4
    assert "http" not in re.sub(r"data:[^\"]*", "", page).replace("http-equiv", "")
    assert all(
        (folder / name).read_bytes().startswith(b"\x89PNG")
        for name in FILES
        if name.endswith("png")
    )


def scored(scores, **axes):
    """A sweep whose members have these scores, in the order of the space."""
    found = sweep(
        lambda at: {"val_accuracy": at}, grid(at=[float(x) for x in scores]), metric="val_accuracy"
    )
    return replace(found, space=grid(axes), mode="max")


def test_settings_are_judged_over_their_seeds_and_single_ones_are_not():
    """Three settings with three seeds: two are close, one is far; of one that lost a seed nothing is said."""
    found = scored(
        [0.95, 0.96, 0.97, 0.94, 0.96, 0.96, 0.5, 0.51, 0.49], b1=[0.1, 0.2, 0.3], seed=[0, 1, 2]
    )
    judged = settings(found)
    assert [one.setting["b1"] for one in judged] == [0.1, 0.2, 0.3]
    assert [one.alike for one in judged] == [True, True, False]
    assert judged[1].difference == pytest.approx(-0.02 / 3, abs=1e-6)
    assert 0.01 < judged[1].margin < 0.1
    said = answers(found, judged)
    assert (
        said[0]
        == "2 of 3 settings cannot be told from the best over 3 seeds, on these validation rows."
    )
    assert said[1] == "Best: b1 0.1: validation accuracy 96.0 %, the mean over 3 seeds."
    heads, rows = cells(found, judged)
    assert heads[:4] == ["", "b1", "validation accuracy,\u00a0%", "vs first"]
    assert rows[0][2:4] == ["96.0 ± 1.0", "first"]
    assert rows[2][3].startswith("−46.0 ± ")
    lost = replace(found, diverged=np.arange(9) == 3)
    judged = settings(lost)
    assert [one.setting["b1"] for one in judged] == [0.1, 0.3, 0.2]
    assert np.isnan(judged[2].margin)
    assert cells(lost, judged)[1][2][3] == "–"
    single = scored([0.95, 0.96, 0.5], b1=[0.1, 0.2, 0.3])
    assert not has_seeds(single)
    said = answers(single, [])
    assert said[0] == "Best of 3 members: b1 0.2: validation accuracy 96.0 %."
    assert "use --seeds 5" in said[1]


def test_the_page_closes_what_it_opens(folder):
    """Every element is closed, in order."""

    class Nesting(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "source"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Nesting()
    parser.feed((folder / "report.html").read_text())
    assert not parser.open


@pytest.mark.slow
def test_resume_trains_only_what_is_missing(folder, capsys):
    """With --resume the finished chunk stays as it is; without, the folder is refused."""
    chunks = sorted((folder / "chunks").iterdir())
    assert len(chunks) == 2
    before = (folder / "members.csv").read_bytes()
    chunks[1].unlink()
    kept = chunks[0].stat().st_mtime_ns
    assert cli.main([*SMALL, "--out", str(folder), "--resume", "--quiet"]) == 0
    assert chunks[0].stat().st_mtime_ns == kept
    assert (folder / "members.csv").read_bytes() == before
    assert cli.main([*SMALL, "--out", str(folder)]) == 2
    assert "holds results already" in capsys.readouterr().err


MISTAKES = {
    "--axis learning_rat=0.1": "nothing is named 'learning_rat'; did you mean 'tx.learning_rate'?",
    "--axis b1=0.5,1.5": "adam: b1 must lie in [0, 1]; got 1.5",
    "--axis b1": "expected NAME=VALUES",
    "--axis b1=1:2": "expected a list",
    "--axis b1=2:1:3": "expected a list",
    "--methods adamm": "unknown method 'adamm'; did you mean adam?",
    "--data nothing.csv": "nothing.csv: no such file",
    "--process 1": "--process must lie between 0 and 0, for --processes; got 1",
    "--process 0": "--process needs --out",
    "--processes 0": "--processes must be at least 1",
    "--rungs 5,2 --epochs 6 --hidden 4": "rungs must ascend",
    "--rungs a": "expected epochs",
    "--resume --out nowhere": "holds no sweep to go on with",
    "missing.toml": "missing.toml: cannot be read",
    "--axis hidden=a": "--axis hidden=a: expected whole numbers, such as 32,64x64",
    "--axis hidden=8x0": "hidden must hold widths of at least 1",
    "--axis l2=-1": "l2 must be finite and not negative",
    "--axis l2=0,nan": "l2 must be finite and not negative",
    "--axis label_smoothing=2": "label_smoothing must lie in [0, 1]",
    "--axis label_smoothing=-1": "label_smoothing must lie in [0, 1]",
    "--axis label_smoothing=nan": "label_smoothing must lie in [0, 1]",
    "--axis l2=true": "--axis l2=True: True is no number; expected a list",
    "--axis init_scale=nan": "init_scale must be finite",
    "--axis batch_size=8,9999": "is larger than the training part",
    "--axis batch_size=8.5": "expected whole numbers, a list such as 32,64",
    "--axis epochs=0": "epochs must be at least 1",
    "--axis key=1": "is made of the seed: --axis seed=0,1,2",
    "--axis tx=adam": "the methods are chosen with --methods",
    "--axis seed=4294967297": "seed must be a whole number of at least 0, below 2**32",
    "--axis seed=a": "seed must be a whole number",
    "--axis b1=0.8;0.9": "'0.8;0.9' is no number; expected a list such as 0.8,0.9",
    "--axis beta1=0.8": "nothing is named 'beta1'; did you mean 'tx.b1'? Candidates:",
    "--axis b1=0.8 --axis b1=0.9": "--axis b1: is given twice",
    "--axis learning_rate=1e-46": "learning_rate=1e-46 is 0 in float32",
    "--axis learning_rate=0:1:9999999": "expected a list",
    "--axis b1=lin:0:0.9:999 --axis b2=lin:0:0.9:999 --axis eps=1,2": "more than 1,000,000 members",
    "--random 99999999": "at most 1,000,000",
    "--methods dpsgd": "it needs the gradient of each example",
    "--out under/file --data wine --out file/x": "cannot be written",
    "--wait nan": "--wait must be positive and finite",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(words, capsys, tmp_path, monkeypatch):
    """Exit code 2 and a line that names the culprit, before anything is compiled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Engine, "start", lambda *_: pytest.fail("compiled"))
    (tmp_path / "file").write_text("")
    assert cli.main(["sweep", "--quiet", *words.split()]) == 2
    error = capsys.readouterr().err
    assert MISTAKES[words] in error
    assert error.count("\n") == 1


def test_a_toml_file_and_flags(tmp_path):
    """Flags override the file; axes of both are merged."""
    file = tmp_path / "s.toml"
    file.write_text(
        'data = "wine"\nepochs = 7\nhidden = [4, 4]\nmethods = ["adam", "nadam"]\nrungs = [2]\n'
        '[axes]\nb1 = [0.8, 0.9]\nb2 = "0.9"\n'
    )
    chosen = Settings.of("sweep", {"epochs": 3, "axes": ["b2=0.99,0.999"]}, str(file))
    assert chosen.data == "wine"
    assert (chosen.epochs, chosen.hidden, chosen.methods, chosen.rungs) == (
        3,
        (4, 4),
        ("adam", "nadam"),
        (2,),
    )
    assert chosen.axes == {"b1": [0.8, 0.9], "b2": [0.99, 0.999]}
    space = Swept(Experiment.of(chosen)).space()
    assert len(space) == 2 * 9 * 4
    file.write_text("epoch = 3")
    with pytest.raises(Problem, match="did you mean epochs"):
        Settings.of("sweep", {}, str(file))
    file.write_text("= 3")
    with pytest.raises(Problem, match="is no TOML"):
        Settings.of("sweep", {}, str(file))


def test_axes():
    """Lists, ranges in the logarithm or not, ranges to draw from, architectures."""
    assert parse_axis("b1", "0.8,0.9", False) == [0.8, 0.9]
    assert parse_axis("lr", "1e-3:1e-1:3", False) == pytest.approx([1e-3, 1e-2, 1e-1])
    assert parse_axis("b1", "lin:0:1:3", False) == [0, 0.5, 1]
    assert parse_axis("hidden", "32,64x64", False) == [(32,), (64, 64)]
    assert parse_axis("batch_size", "32,64", False) == [32, 64]
    assert isinstance(parse_axis("lr", "1e-3:1", True), Distribution)
    assert isinstance(parse_axis("lr", [1, 2], True), Distribution)


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=pytest.mark.slow) for x in ("cosine", "step")] + ["warmup_cosine"],
)
def test_a_schedule_takes_the_rate_as_its_peak(name):
    """With a schedule, `learning_rate` sweeps its first or highest value."""
    given = {"data": "wine", "schedule": name, "epochs": 2, "axes": ["learning_rate=0.1,0.2"]}
    experiment = Swept(Experiment.of(Settings.of("sweep", given)))
    found = sweep(experiment.train(), experiment.space())
    assert len(found.groups) == 1
    assert found.scores.shape == (2,)
    assert found.history["train_loss"][0, -1] != found.history["train_loss"][1, -1]


def test_pictures_of_odd_sweeps():
    """One member, all diverged, one name only, values that are no numbers, a metric that is negative."""
    odd = [
        (lambda x: x, grid(x=[1.0])),
        (lambda x: x / 0.0 if isinstance(x, float) else x * float("nan"), grid(x=[1.0, 2.0])),
        (lambda x, kind: x if kind == "a" else -x, grid(x=[1.0, 2.0], kind=["a", "b"])),
    ]
    for train, space in odd:
        found = sweep(train, space)
        for draw in (
            sweep_plots.curves,
            sweep_plots.sensitivity,
            sweep_plots.parallel,
            sweep_plots.heat,
        ):
            assert draw(found).startswith(b"\x89PNG")


@pytest.mark.slow
def test_processes_share_the_work(tmp_path, folder):
    """Two processes give the same table as one."""
    assert cli.main([*SMALL, "--out", str(tmp_path / "two"), "--processes", "2", "--quiet"]) == 0
    one, two = (
        (path / "members.csv").read_text().splitlines() for path in (folder, tmp_path / "two")
    )
    assert [line.split(",")[:4] for line in one] == [line.split(",")[:4] for line in two]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('epochs = "3"', "--epochs '3': expected a number, a whole one"),
        ("epochs = 2.5", "--epochs 2.5: expected a number, a whole one"),
        ("epochs = true", "--epochs True: expected a number, a whole one"),
        ("data = 3", "--data 3: expected a text"),
        ('seeds = "a"', "--seeds 'a': expected a number"),
        ("methods = 3", "unknown method '3'"),
        ('dropout = "x"', "--dropout 'x': expected a number"),
        ("quiet = 1", "--quiet 1: expected true or false"),
        ("hidden = true", "--hidden 'True': expected whole numbers"),
        ("rungs = [[1]]", "--rungs '[1]': expected epochs"),
        ("out = 3", "--out 3: expected a text"),
        ("axes = 3", "axes must be a table"),
        ("[axes]\nb1 = []", "--axis b1: has no values"),
        ("[axes]\nb1 = [[1]]", "--axis b1: [1] is neither a number nor a text"),
        ("[axes]\nb1 = [1979-05-27]", "is neither a number nor a text"),
    ],
)
def test_an_entry_of_another_kind_is_one_line(tmp_path, entry, says):
    """Whatever TOML holds, the flag is named."""
    (tmp_path / "s.toml").write_text(entry)
    with pytest.raises(Problem) as caught:
        Settings.of("sweep", {}, str(tmp_path / "s.toml"))
    assert says in str(caught.value)


def test_entries_that_can_be_read_are(tmp_path):
    """One width, a list of rates, flags as words."""
    (tmp_path / "s.toml").write_text("hidden = 64\nrungs = [2]\n[axes]\nnesterov = 'true,False'")
    found = Settings.of("sweep", {}, str(tmp_path / "s.toml"))
    assert (found.hidden, found.rungs) == ((64,), (2,))
    assert found.axes == {"nesterov": [True, False]}
    space = Swept(
        Experiment.of(Settings.of("sweep", {"data": "wine", "axes": ["epochs=lin:1:3:3"]}))
    )
    assert {one["epochs"] for one in space.space()} == {1, 2, 3}
