"""The experiment end to end: what it writes, that it trains what it says, and that nothing is lost."""

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx
from gradxform.cli import data, models
from gradxform.cli import main as cli
from gradxform.cli.compare import run as compare
from gradxform.cli.experiment import CHUNK, Experiment, evaluate, outputs_of
from gradxform.cli.methods import METHODS
from gradxform.cli.settings import SCHEDULES, Settings, is_kernel

FILES = {
    "table.csv",
    "members.csv",
    "curves.png",
    "sensitivity.png",
    "summary.png",
    "report.html",
    "settings.json",
    "results",
}


CHUNK_OF_SGD = "results/sgd/chunks/0-00000.npz"


def lines_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def experiment_of(**changes):
    settings = Settings(data="wine", hidden=(8,), batch_size=16, epochs=2, **changes).check()
    return Experiment.of(settings)


def trained(experiment, name):
    """A method, trained in memory."""
    train = compare.training(experiment, METHODS)
    sweep = compare.prepared(train, experiment, METHODS[name], None, None)
    return compare.train_method(experiment, METHODS[name], sweep)


def test_it_writes_everything(run):
    assert {path.name for path in run.folder.iterdir()} == FILES
    assert {path.name for path in (run.folder / "results").iterdir()} == {"sgd", "adam"}
    for name in ("summary.png", "curves.png", "sensitivity.png"):
        assert (run.folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_table_is_what_the_members_say(run):
    members, table = lines_of(run.folder / "members.csv"), lines_of(run.folder / "table.csv")
    assert len(members) == 2 * 2 * 2
    assert [line["rank"] for line in table] == ["1", "2"]
    validation = [float(line["validation_accuracy"]) for line in table]
    assert validation == sorted(validation, reverse=True)
    for line in table:
        own = [m for m in members if m["method"] == line["method"]]
        by_rate = {}
        for member in own:
            by_rate.setdefault(member["learning_rate"], []).append(member)
        means = {
            rate: np.mean([float(m["val_accuracy"]) for m in group])
            for rate, group in by_rate.items()
        }
        assert means[line["learning_rate"]] == pytest.approx(max(means.values()))
        tests = [float(m["test_accuracy"]) for m in by_rate[line["learning_rate"]]]
        assert float(line["test_accuracy"]) == pytest.approx(np.mean(tests), rel=1e-5)
        assert float(line["test_accuracy_spread"]) == pytest.approx(
            np.std(tests, ddof=1), rel=1e-4, abs=1e-7
        )


def test_it_prints_the_table_and_the_answer(run):
    for text in (
        "sgd",
        "adam",
        "test",
        "accuracy,\u00a0%",
        "epochs to",
        "Target: validation accuracy",
        "Written to",
    ):
        assert text in run.out
    said = " ".join(run.out.split())
    assert "on wine with mlp 8" in said
    assert "A safe choice:" in said
    assert "Best on validation data:" in said
    assert "[2/2] adam: best validation" in run.err


@pytest.mark.slow
def test_a_member_of_the_vmap_is_the_member_trained_alone():
    experiment = experiment_of(
        learning_rates=(0.01, 0.1), seeds=2, schedule="cosine", weight_decay=0.01
    )
    start = compare.start_of(experiment)
    result = trained(experiment, "adam")
    params, key = jax.tree.map(lambda x: x[1], start)
    training = compare.member(experiment, METHODS["adam"], 0.1)
    carry = training.init(params, key)
    for epoch in range(2):
        carry, metrics = training.epoch(carry, experiment.split.train, experiment.split.validation)
        assert float(metrics["val_loss"]) == pytest.approx(
            result.history["val_loss"][epoch, 1, 1], rel=1e-4
        )
    test, rows = evaluate(experiment, carry.params, experiment.split.test)
    assert float(test["accuracy"]) == pytest.approx(result.test["accuracy"][1, 1])
    np.testing.assert_array_equal(rows, result.rows[1, 1])


def test_patience_keeps_the_best_epoch_and_marks_the_diverged():
    experiment = experiment_of(learning_rates=(0.03, 1e30), seeds=1, patience=1)
    result = trained(experiment, "sgd")
    assert result.diverged.tolist() == [[False], [True]]
    assert result.final("val_loss")[0, 0] == np.nanmin(result.history["val_loss"][:, 0, 0])


def test_rows_beyond_a_chunk_are_evaluated_too():
    x = jnp.arange(2 * CHUNK + 3.0)[:, None]
    np.testing.assert_array_equal(outputs_of(lambda p, x: p * x, 2.0, x), 2 * x)


def test_decay_joins_where_it_says_and_acts_on_kernels():
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 3.0)}
    zero = jax.tree.map(jnp.zeros_like, params)

    def step(name, **changes):
        tx = Settings(**changes).transformation(METHODS[name], 0.5, 10)
        return tx.update(zero, tx.init(params), params)[0]

    decoupled = step("sgd", weight_decay=0.1)
    np.testing.assert_allclose(decoupled["kernel"], -0.5 * 0.1 * 2.0, rtol=1e-6)
    np.testing.assert_array_equal(decoupled["bias"], 0)
    np.testing.assert_allclose(
        step("adamw", weight_decay=0.1)["kernel"], -0.5 * 0.1 * 2.0, rtol=1e-6
    )
    np.testing.assert_allclose(step("sgd", l2=0.1)["kernel"], -0.5 * 0.1 * 2.0, rtol=1e-6)
    np.testing.assert_allclose(
        step("adam", l2=0.1)["kernel"], -0.5, rtol=1e-4
    )  # L2 is rescaled, decay is not
    own = gx.adamw(0.5, weight_decay=0.1, mask=is_kernel)
    state = own.init(params)
    np.testing.assert_allclose(
        own.update(zero, state, params)[0]["kernel"], decoupled["kernel"], rtol=1e-6
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_or_peaks_at_the_learning_rate(name):
    schedule = SCHEDULES[name][0](0.3, 100)
    values = [0.3 if name == "none" else float(schedule(step)) for step in range(100)]
    assert max(values) == pytest.approx(0.3)
    assert values[-1] <= max(values)
    doubled = SCHEDULES[name][0](0.6, 100)
    assert name == "none" or float(doubled(50)) == pytest.approx(2 * values[50], rel=1e-5)


@pytest.mark.parametrize("init", ["zeros", "constant", "xavier", "he"])
def test_initialisation_of_the_kernels(init):
    experiment = experiment_of(init=init)
    params = experiment.model.init(jax.random.key(0))
    kernel = np.asarray(params["Dense_0"]["kernel"])
    expected = {
        "zeros": 0.0,
        "constant": 0.0,
        "xavier": (2 / (13 + 8)) ** 0.5,
        "he": (2 / 13) ** 0.5,
    }[init]
    assert kernel.std() == pytest.approx(expected, rel=0.25, abs=1e-6)


def test_dropout_acts_in_training_only():
    experiment = experiment_of(dropout=0.5)
    params, x = experiment.model.init(jax.random.key(0)), experiment.split.test["x"]
    first, second = (experiment.model.apply(params, x, jax.random.key(k)) for k in (0, 1))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(
        experiment.model.apply(params, x), experiment.model.apply(params, x)
    )


def test_the_convolutional_network_takes_images():
    digits = data.load("digits")
    model = models.build("cnn", digits, (8,), "default", 0.0)
    out = jax.eval_shape(
        lambda key: model.apply(model.init(key), jnp.zeros((3, 8, 8, 1))), jax.random.key(0)
    )
    assert out.shape == (3, 10)


def test_resume_trains_only_what_is_missing(run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "again"
    shutil.copytree(run.folder, folder)
    shutil.rmtree(folder / "results" / "adam")
    kept = (folder / CHUNK_OF_SGD).stat().st_mtime_ns
    arguments = [*run.arguments[:-1], str(folder)]
    assert cli.main([*arguments, "--resume"]) == 0
    assert "sgd: finished before" in capsys.readouterr().err
    assert (folder / CHUNK_OF_SGD).stat().st_mtime_ns == kept
    assert (folder / "members.csv").read_text() == (run.folder / "members.csv").read_text()


@pytest.mark.parametrize(
    "change",
    ["--epochs 3", "--l2 0.1", "--seeds 3", "--data breast_cancer", "--learning-rates 0.1"],
)
def test_resume_refuses_other_settings(run, change, capsys):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.folder.rglob("*"))
    assert cli.main([*run.arguments, "--resume", *change.split()]) == 2
    err = capsys.readouterr().err
    assert "holds results of other settings" in err
    assert change.split()[0][2:].replace("-", "_") in err
    assert err.count("\n") == 1
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.folder.rglob("*")) == before


def test_results_are_never_overwritten_by_accident(run, capsys):
    assert cli.main(run.arguments) == 2
    assert "holds results already; go on with --resume" in capsys.readouterr().err


def test_results_of_another_jax_are_not_gone_on_with(run, tmp_path, capsys, monkeypatch):
    """Members of two versions would stand in one table."""
    folder = shutil.copytree(run.folder, tmp_path / "out")
    monkeypatch.setattr("jax.__version__", "0.0.1")
    assert cli.main([*run.arguments[:-1], str(folder), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "sgd holds another sweep (it differs in: jax); choose another folder" in said
    assert said.count("\n") == 1


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    at = len(content) // 2  # within its numbers
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda content: b""], ids=["cut", "flipped", "emptied"]
)
def test_damaged_results_are_named(run, tmp_path, damage, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(run.folder, folder)
    file = folder / "results" / "adam" / "chunks" / "0-00000.npz"
    file.write_bytes(damage(file.read_bytes()))
    assert cli.main([*run.arguments[:-1], str(folder), "--resume"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{file} is damaged" in err
    (folder / "settings.json").write_text("{")
    assert cli.main([*run.arguments[:-1], str(folder), "--resume"]) == 2
    assert "settings.json is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interruption_keeps_what_finished_and_says_how_to_go_on(
    run, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "interrupted"
    train = compare.train_method

    def interrupted(experiment, method, sweep):
        if method.name == "adam":
            raise KeyboardInterrupt
        return train(experiment, method, sweep)

    monkeypatch.setattr(compare, "train_method", interrupted)
    arguments = [*run.arguments[:-1], str(folder)]
    assert cli.main(arguments) == 130
    out, err = capsys.readouterr()
    assert "sgd" in out
    assert err.strip().endswith(f"--out {folder} --resume")
    assert [line["method"] for line in lines_of(folder / "table.csv")] == ["sgd"]
    assert "adam not trained yet" in (folder / "report.html").read_text()
    monkeypatch.setattr(compare, "train_method", train)
    assert cli.main([*arguments, "--resume", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert len(lines_of(folder / "table.csv")) == 2


def test_an_interruption_before_anything_finished(run, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "train_method", interrupted)
    assert cli.main([*run.arguments[:-1], str(tmp_path / "early")]) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_method_that_fails_does_not_lose_the_others(run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "failed"
    shutil.copytree(run.folder, folder)
    shutil.rmtree(folder / "results" / "adam")

    def failing(*_):
        raise ValueError("cannot be trained\non this")

    monkeypatch.setattr(compare, "train_method", failing)
    assert cli.main([*run.arguments[:-1], str(folder), "--resume"]) == 1
    out, err = capsys.readouterr()
    assert "adam could not be trained: ValueError: cannot be trained" in " ".join(out.split())
    assert "Traceback" not in err
    assert "Traceback" in (folder / "adam.error.txt").read_text()
    assert [line["method"] for line in lines_of(folder / "table.csv")] == ["sgd"]


@pytest.mark.slow
def test_regression_with_a_factory_and_every_training_option(tmp_path, monkeypatch, capsys):
    (tmp_path / "line_models.py").write_text(
        "import flax.linen as nn\n\ndef line(outputs): return nn.Dense(outputs)\n"
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.savez(tmp_path / "line.npz", X=x, y=x @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=60))
    monkeypatch.chdir(tmp_path)
    command = "compare --data line.npz --model line_models:line --methods sgd --learning-rates 0.1 --seeds 1"
    command += " --epochs 20 --schedule warmup_cosine --weight-decay 1e-4 --l2 1e-4 --patience 10"
    command += " --target-loss 0.2 --quiet"
    assert cli.main(command.split()) == 0
    assert "squared error" in capsys.readouterr().out
    (row,) = lines_of(tmp_path / "compare-line-line_models-line" / "table.csv")
    assert float(row["test_loss"]) < 0.2
    facts = json.loads((tmp_path / "compare-line-line_models-line" / "settings.json").read_text())
    assert facts["model_digest"]
    assert cli.main([*command.split(), "--resume"]) == 0
    assert not (tmp_path / "compare-line-line_models-line-2").exists()
