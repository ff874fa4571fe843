"""The command line: what it lists and shows, and one clear line for every mistake."""

import inspect
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from gradxform.cli import catalogue
from gradxform.cli import main as cli
from gradxform.cli.compare import run as compare
from gradxform.cli.experiment import Experiment
from gradxform.cli.files import code_of
from gradxform.cli.methods import CONSTRUCTORS, METHODS, OPTIMIZERS, RACED, UNRACED
from gradxform.cli.own import method_of
from gradxform.cli.problems import Problem
from gradxform.cli.settings import Settings

RNG = np.random.default_rng(0)
ROWS = [f"{a:.3f},{b:.3f},{i % 2}" for i, (a, b) in enumerate(RNG.normal(size=(40, 2)))]
MODULE = """
import flax.linen as nn
class Norm(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))
def stateful(outputs): return Norm()
def number(outputs): return 3
def wrong(outputs): return nn.Dense(outputs + 1)
def boom(outputs): raise RuntimeError("no\\nweights")
def leave(outputs): raise SystemExit(0)
"""
METHODS_OF_ONES_OWN = """
import gradxform as gx, optax
def pair(learning_rate):
    '''Adam of Optax, clipped.'''
    return optax.chain(optax.clip(1.0), optax.adam(learning_rate))
def ours(learning_rate): return gx.chain(gx.clip(1.0), gx.adam(learning_rate))
def number(learning_rate): return 3
def boom(learning_rate): raise RuntimeError("no\\nrate")
three = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of damaged files, one fault each."""
    path = tmp_path_factory.mktemp("bad")

    def table(name, *rows, header="a,b,y"):
        (path / name).write_text("\n".join([header, *rows]) + "\n")

    table("fine.csv", *ROWS)
    table("text.csv", *ROWS[:6], "0.1,abc,1", *ROWS[7:])
    table("nan.csv", *ROWS[:6], "0.1,,1", *ROWS[7:])
    table("inf.csv", *ROWS[:6], "0.1,inf,1", *ROWS[7:])
    table("missing_target.csv", *ROWS[:6], "0.1,0.2,", *ROWS[7:])
    table("rare.csv", *ROWS, "0.1,0.2,7")
    table("one.csv", *(row[:-1] + "1" for row in ROWS))
    table("few.csv", *ROWS[:8])
    table("ragged.csv", *ROWS, "1,2,3,4")
    table("headless.csv", *ROWS, header=ROWS[0])
    table("semicolon.csv", *(row.replace(",", ";") for row in ROWS), header="a;b;y")
    (path / "empty.csv").write_text("")
    table("long.csv", *(f"{row},5" for row in ROWS))
    table("huge.csv", *ROWS[:6], f"0.1,{'9' * 400},1", *ROWS[7:])
    held = np.random.default_rng(0).permutation(np.arange(40))[:16]
    targets = np.where(np.isin(np.arange(40), held), 2.5 + np.arange(40), 2.0)
    table("level.csv", *(f"{row[:-2]},{y}" for row, y in zip(ROWS, targets, strict=True)))
    with zipfile.ZipFile(path / "odd.npz", "w") as file:
        file.writestr("x", "text")
        with file.open("y.npy", "w") as member:
            np.save(member, np.arange(30) % 2)
    (path / "leaving.py").write_text("raise SystemExit(3)")
    (path / "junk.npz").write_bytes(b"junk")
    half = np.arange(30) % 2
    np.savez(path / "lengths.npz", x=np.ones((30, 3)), y=half[:-1])
    np.savez(path / "no_y.npz", x=np.ones((30, 3)))
    np.savez(path / "nan.npz", X=np.where(np.arange(90).reshape(30, 3) == 40, np.nan, 1.0), y=half)
    np.savez(path / "text.npz", x=np.full((30, 3), "a"), y=half)
    np.savez(path / "flat.npz", x=np.ones(30), y=half)
    np.savez(path / "constant.npz", x=np.ones((30, 3)), y=np.full(30, 0.5))
    (path / "my_models.py").write_text(MODULE)
    (path / "broken_models.py").write_text("def (")
    (path / "my_methods.py").write_text(METHODS_OF_ONES_OWN)
    return path


BAD = [
    ("--data nowhere.csv", "no such file"),
    ("--data digitz", "did you mean digits"),
    ("--data notes.txt", "must end in .csv or .npz"),
    ("--data text.csv", "column 'b', data row 7: 'abc' is not a number"),
    ("--data nan.csv", "column 'b', data row 7: the value is missing or NaN"),
    ("--data inf.csv", "column 'b', data row 7: inf is not a finite"),
    ("--data missing_target.csv", "column 'y', data row 7: the target is missing"),
    ("--data rare.csv", "class '7' has 1 of the 5 rows"),
    ("--data one.csv", "every row has the class '1'"),
    ("--data few.csv", "8 rows are too few"),
    ("--data ragged.csv", "cannot be read as CSV"),
    ("--data headless.csv", "the first line holds numbers"),
    ("--data semicolon.csv", "the separator must be a comma"),
    ("--data empty.csv", "cannot be read as CSV"),
    ("--data junk.npz", "not a .npz archive"),
    ("--data lengths.npz", "x has 30 rows and y has 29"),
    ("--data no_y.npz", "expected arrays named x (or X) and y; found x"),
    ("--data nan.npz", "x[13, 1] is not a finite number"),
    ("--data text.npz", "expected real numbers"),
    ("--data flat.npz", "x has shape (30,)"),
    ("--data constant.npz", "nothing to learn"),
    ("--data fine.csv --target z", "unknown column"),
    ("--data wine --target z", "--target names a column of a .csv file"),
    ("--data diabetes --task classification", "use --task regression"),
    ("--task foo", "unknown --task 'foo'"),
    ("--methods adm,sgd", "did you mean adam"),
    ("--methods ,", "--methods is empty"),
    ("--dropout 1.5", "--dropout must lie in [0, 1); got 1.5"),
    ("--dropout nan", "--dropout must lie in [0, 1)"),
    ("--epochs 0", "--epochs must be at least 1; got 0"),
    ("--epochs many", "invalid int value"),
    ("--seeds 0", "--seeds must be at least 1"),
    ("--seeds 10000", "members per method"),
    ("--patience 0", "--patience must be at least 1"),
    ("--batch-size 0", "--batch-size must be at least 1"),
    ("--data wine --batch-size 500", "larger than the training part"),
    ("--hidden a", "expected whole numbers"),
    ("--hidden 8,0", "widths of at least 1"),
    ("--model linear --hidden 8", "--hidden applies to mlp and cnn"),
    ("--init hee", "did you mean he"),
    ("--schedule cos", "did you mean cosine"),
    ("--weight-decay -1", "--weight-decay must be finite and not negative"),
    ("--l2 nan", "--l2 must be finite"),
    ("--learning-rates 0", "every rate must be positive"),
    ("--learning-rates 1:2", "expected low:high:count"),
    ("--learning-rates a,b", "expected low:high:count"),
    ("--target-accuracy 2", "must lie in (0, 1]"),
    ("--data diabetes --target-accuracy 0.5", "is a regression"),
    ("--target-loss -1", "must be positive"),
    ("--data wine --model cnn", "--model cnn needs images"),
    ("--data wine --model vgg", "or module:factory"),
    ("--data wine --model nowhere:f", "No module named 'nowhere'"),
    ("--data wine --model broken_models:f", "SyntaxError"),
    ("--data wine --model my_models:f", "has no attribute 'f'"),
    ("--data wine --model my_models:number", "returned int; expected a flax.linen.Module"),
    ("--data wine --model my_models:stateful", "the module has batch_stats"),
    (
        "--data wine --model my_models:wrong",
        "returned (2, 4) for x of shape (2, 13); expected (2, 3)",
    ),
    ("--data wine --model my_models:boom", "RuntimeError: no weights"),
    ("--data wine --model my_models:wrong --dropout 0.1", "decides these itself"),
    ("--data wine --out fine.csv", "is a file, not a folder"),
    ("--data wine --resume --out new", "holds no comparison to go on with"),
    ("--nonsense", "unrecognized arguments: --nonsense"),
    ("--learning-rates 1e-46", "every rate must be positive and finite, in float32"),
    ("--learning-rates 1e39", "every rate must be positive and finite, in float32"),
    ("--learning-rates 1:2:9999999999", "expected low:high:count"),
    ("--l2 1e39", "--l2 must be finite"),
    ("--weight-decay 1e-46", "--weight-decay must be finite and not negative, in float32"),
    ("--target-loss inf", "--target-loss must be positive and finite"),
    ("--methods sophia", "it needs obj_fn at its updates"),
    ("--methods Adam", "unknown method 'Adam'; did you mean adam?"),
    (
        "--methods my_methods:number",
        "number(0.01) returned int; expected a transformation, or a pair",
    ),
    ("--methods sgd,my_methods:boom", "boom(0.01) failed: RuntimeError: no rate"),
    ("--methods my_methods:three", "three(0.01) failed: TypeError: 'int' object is not callable"),
    ("--methods my_methods:adm", "has no attribute 'adm'"),
    ("--methods nowhere:f", "cannot import nowhere: ModuleNotFoundError"),
    ("--methods my_methods:", "expected NAME or module:factory"),
    ("--processes 100000", "must be at least 1 and at most 1024"),
    ("--wait 0", "--wait must be positive and finite"),
    ("--data long.csv", "its rows have more fields than its first line, which names 3"),
    ("--data huge.csv", "column 'b', data row 7: inf is not a finite float32"),
    ("--data level.csv", "every target of the training part is 2"),
    ("--data odd.npz", "expected arrays named x (or X) and y; found y"),
    ("--data wine --out fine.csv/under", "--out fine.csv/under: cannot be written"),
    ("--data wine --out /dev/null", "is a file, not a folder"),
    ("--data wine --model my_models:leave", "SystemExit: 0"),
    ("--data wine --model leaving:f", "cannot import leaving: SystemExit: 3"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[arguments for arguments, _ in BAD])
def test_a_mistake_is_one_line_and_exit_code_2(arguments, says, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    assert cli.main(["compare", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradxform: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert says in err
    assert {path for path in set(folder.iterdir()) - before if path.name != "__pycache__"} == set()


def test_list_has_every_method_with_its_source(capsys, monkeypatch):
    for columns in ("120", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        assert cli.main(["list"]) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= int(columns)
        for name, method in METHODS.items():
            assert f"\n{name} " in f"\n{text}"
            assert method.source.split(",")[0].split()[-1] in text


@pytest.mark.parametrize("name", METHODS)
def test_show_has_equation_composition_defaults_and_source(name, capsys):
    assert cli.main(["show", name]) == 0
    text = capsys.readouterr().out
    for part in ("Composition", "(learning_rate=1.0", "Defaults", "learning_rate", "Source:"):
        assert part in text
    assert "←" in text or " = " in text


def test_show_knows_every_public_constructor():
    """Optimizers, rules, wrappers and schedules, each with its arguments."""
    assert {"lion", "freeze", "clip", "cosine_decay_schedule", "dpsgd"} <= CONSTRUCTORS.keys()
    for name, made in CONSTRUCTORS.items():
        text = catalogue.showing(name, OPTIMIZERS, CONSTRUCTORS)
        assert text.startswith(f"{name}\n  ")
        made = OPTIMIZERS[name].constructor if name in OPTIMIZERS else made
        for argument in inspect.signature(made).parameters:
            assert f"\n  {argument} " in text, name
        composed = text.partition("\nComposition\n")[2].partition("\nDefaults\n")[0]
        assert max(map(len, ["", *composed.splitlines()])) <= 120, name
        assert "None[" not in composed, name


def test_a_composition_of_groups_is_told_once_in_lines_that_fit(capsys):
    assert cli.main(["show", "muon"]) == 0
    text = capsys.readouterr().out
    assert text.count("= partition(") == 1
    assert "\n                  matrixwise(orthogonalize, eps=1e-08),\n" in text


def test_list_and_compare_know_every_public_optimizer(capsys):
    """Those that compare cannot race say why."""
    named = {"lion", "prodigy", "lamb", "adafactor", "polyak_sgd", "schedule_free_adamw", "momo"}
    assert named | METHODS.keys() <= RACED.keys()
    assert OPTIMIZERS.keys() - RACED.keys() == UNRACED.keys()
    assert cli.main(["list"]) == 0
    listed = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert OPTIMIZERS.keys() <= listed
    assert Settings.of("compare", {"methods": "lion,prodigy"}).methods == ("lion", "prodigy")
    assert Settings.of("compare", {"methods": "all"}).methods == tuple(METHODS)
    for name in UNRACED:
        with pytest.raises(Problem, match=f"--methods {name}: it needs"):
            Settings.of("compare", {"methods": name})
    for method in RACED.values():
        low, high = method.grid
        assert 0 < low < high
        assert getattr(method.make(low), method.rate) == low


def epoch_of(experiment, name):
    """The shapes of one epoch of a method."""
    run = compare.member(experiment, method_of(name), 0.1)
    params = jax.eval_shape(experiment.model.init, jax.random.key(0))
    carry = jax.eval_shape(run.init, params, jax.random.key(0))
    return jax.eval_shape(lambda c: run.epoch(c, *experiment.parts[:2])[1], carry)


def check_that_it_can_be_raced(names):
    experiment = Experiment.of(Settings(data="wine", hidden=(4,), epochs=1))
    for name in names:
        assert {"val_loss", "val_accuracy"} <= epoch_of(experiment, name).keys()


def test_an_optimizer_beyond_the_textbook_can_be_raced(folder, monkeypatch):
    """A public one, one's own, and a pair of Optax's."""
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    with jax.numpy_dtype_promotion("standard"):  # as Optax wants it
        check_that_it_can_be_raced(["momo", "my_methods:ours", "my_methods:pair"])


def test_a_pair_of_optax_is_a_method_with_one_number(folder, monkeypatch):
    """Its steps are Optax's, the rate may be traced, and the report's code is a call of the factory."""
    optax = pytest.importorskip("optax")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    method = method_of("my_methods:pair")
    assert (method.rate, method.title) == ("learning_rate", "Adam of Optax, clipped.")
    g, tx = np.float32([3.0, -0.1]), method.make(0.2)
    theirs = optax.chain(optax.clip(1.0), optax.adam(0.2))
    step = jax.jit(lambda tx: tx.update(g, tx.init(g), g)[0])
    with jax.numpy_dtype_promotion("standard"):  # as Optax wants it
        np.testing.assert_allclose(step(tx), theirs.update(g, theirs.init(g), g)[0], rtol=1e-6)
    assert jax.tree.leaves(tx) == [0.2]
    assert code_of(tx) == "import my_methods\n\ntx = my_methods.pair(0.2)"
    assert method_of("my_methods:ours").make(0.2).name != tx.name == "pair"


@pytest.mark.slow
def test_every_optimizer_can_be_raced():
    check_that_it_can_be_raced(RACED)


def test_show_of_an_unknown_method(capsys):
    assert cli.main(["show", "adamm"]) == 2
    assert "did you mean adam" in capsys.readouterr().err


def test_help_version_and_nothing(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gradxform ")
    assert cli.main(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "module:factory" in shown
    assert cli.main([]) == 2


def test_list_and_show_need_no_optional_package():
    code = (
        "import sys\n"
        "for name in ('flax', 'sklearn', 'rich', 'matplotlib', 'pandas'): sys.modules[name] = None\n"
        "from gradxform.cli.main import main\n"
        "assert main(['list']) == 0 and main(['show', 'adam']) == 0\n"
        "sys.exit(main(['compare']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == 'gradxform: error: this command needs flax, which is not installed: pip install "gradxform[cli]"\n'
    )
