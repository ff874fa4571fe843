"""Running a sweep: the same results as alone, whatever the batch, the chunks, the devices and the company."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_problems import DATA, fitted, init, line, loss, paced

import gradxform as gx
from gradxform.sweep import Paced, Progress, Space, grid, sweep
from gradxform.sweep.run import prepare

ADAM, SGD = gx.adam(0.1), gx.sgd(0.1)
SPACE = grid(learning_rate=[0.01, 0.1, 1.0], b1=[0.8, 0.95], l2=[0.0, 1e-2], seed=range(2))


@pytest.fixture(scope="module")
def result():
    """A sweep of 24 members in one batch over all devices."""
    return sweep(line, SPACE)


def test_members_are_as_alone(result):
    """Every member equals the training called by itself."""
    for i in (0, 7, 23):
        setting = result.setting(i)
        tx = gx.adam(setting["learning_rate"], setting["b1"])
        params, metrics = jax.jit(functools.partial(line, l2=setting["l2"]))(
            tx, jax.random.key(setting["seed"])
        )
        np.testing.assert_allclose(result.history["loss"][i], metrics["loss"], rtol=2e-5)
        np.testing.assert_allclose(result.params(i)["w"], params["w"], rtol=2e-5, atol=1e-6)
        assert result.optimizer(i) == tx


@pytest.mark.parametrize(
    "options",
    [
        {"chunk": 1, "devices": 1},
        {"chunk": 5, "devices": 1},
        {"chunk": 7, "devices": 2},
        {"devices": 1},
    ],
)
def test_batches_do_not_matter(result, options):
    """Alone or in any batch, on one device or several, to float tolerance."""
    other = sweep(line, SPACE, **options)
    np.testing.assert_allclose(other.history["loss"], result.history["loss"], rtol=5e-5, atol=1e-6)
    assert other.best.index == result.best.index


@pytest.mark.parametrize("train", [line, paced])
@pytest.mark.parametrize("devices", [1, 4])
def test_a_diverging_member_changes_no_bit_of_the_others(train, devices):
    """Beside a member that overflows, every other member has the same bits."""
    calm = sweep(train, grid(learning_rate=[0.1, 0.2, 0.3, 0.4]), devices=devices)
    wild = sweep(train, grid(learning_rate=[0.1, 3e38, 0.3, 0.4]), devices=devices)
    assert wild.diverged.tolist() == [False, True, False, False]
    for i in (0, 2, 3):
        assert np.array_equal(calm.history["loss"][i], wild.history["loss"][i])
        assert np.array_equal(calm.params(i)["w"], wild.params(i)["w"])
    assert not np.isfinite(wild.goodness[1])
    assert 1 not in (wild.best.index, *wild.order()[:3])


@pytest.mark.parametrize("every", [None, 1, 5])
def test_pausing_changes_nothing(result, every):
    """A training that can pause gives the same results, whenever it does."""
    other = sweep(paced, SPACE, every=every)
    np.testing.assert_allclose(other.history["loss"], result.history["loss"], rtol=5e-5, atol=1e-6)


def test_one_compilation_per_structure():
    """Numbers, chunks and seeds compile nothing; each structure compiles once."""
    traces = []

    def train(tx=ADAM, key=None, steps=3):
        traces.append(steps)
        return line(tx, key, steps=steps)

    found = sweep(
        train,
        grid(steps=[3, 4], learning_rate=[0.1, 0.2, 0.3, 0.4], seed=range(3)),
        chunk=5,
        devices=1,
    )
    assert sorted(traces) == [3, 4]
    assert [n for n, _ in found.groups] == [12, 12]
    assert "steps=3" in found.groups[0][1]
    assert np.isnan(found.history["loss"][0, 3])
    assert found.steps.tolist() == [3] * 12 + [4] * 12


class Tape(Progress):
    """Remembers what it is told."""

    listens = True

    def __init__(self):
        self.notes, self.steps, self.members = [], [], 0

    def begin(self, members, notes):
        self.notes = notes

    def step(self, members, step, metrics, metric, mode):
        self.steps.append((step, metrics[metric].shape))

    def done(self, members, trial, metric, mode, seconds, compile_seconds):
        self.members += len(members)


def test_metrics_stream_and_the_grouping_is_said():
    """Progress hears of every few steps of every chunk, and how members are grouped."""
    tape = Tape()
    sweep(
        paced,
        grid(learning_rate=[0.1, 0.2, 0.3], nesterov=[True, False]),
        chunk=2,
        every=4,
        progress=tape,
    )
    assert tape.steps == [(4, (2,)), (8, (2,)), (12, (2,)), (4, (1,)), (8, (1,)), (12, (1,))] * 2
    assert tape.members == 6
    assert tape.notes[0].startswith("2 structures")


def test_fit_helper_stops_early_and_ends_when_all_have():
    """Members that stopped stay as they are; when all have, the chunk ends."""
    steps = []

    class Count(Progress):
        def step(self, members, step, metrics, metric, mode):
            steps.append(step)

    found = sweep(
        fitted(stopping=gx.EarlyStopping(1)),
        grid(learning_rate=[0.0, 3e38]),
        every=1,
        devices=1,
        progress=Count(),
    )
    assert found.steps.tolist() == [2, 1]
    assert found.diverged.tolist() == [False, True]
    assert max(steps) <= 4
    assert np.isnan(found.history["val_loss"][0, 2:]).all()


def test_fit_helper_equals_fit():
    """A member of `sweep.fit` is `gx.fit` with the same numbers."""
    found = sweep(fitted(), grid(learning_rate=[0.05, 0.2], scale=[0.5], l2=[0.1]))
    init_key, run_key = jax.random.split(jax.random.key(0))
    direct = gx.fit(
        functools.partial(loss, l2=0.1), gx.adam(0.2), init(init_key, scale=0.5), DATA,
        key=run_key, epochs=6, batch_size=16, validation=DATA,
    )  # fmt: skip
    np.testing.assert_allclose(found.history["val_loss"][1], direct.history["val_loss"], rtol=2e-5)
    np.testing.assert_allclose(found.params(1)["w"], direct.params["w"], rtol=2e-5)


def test_what_train_may_return():
    """A scalar, metrics, or parameters and metrics; anything else is an error that says so."""
    assert sweep(lambda x, key: x * 2, grid(x=[1.0, 3.0])).scores.tolist() == [2, 6]
    assert (
        sweep(lambda x: {"loss": x, "train_loss": jnp.stack([x, x])}, grid(x=[1.0])).metric
        == "loss"
    )
    with pytest.raises(TypeError, match="'loss' is"):
        sweep(lambda x: {"loss": jnp.zeros((2, 2))}, grid(x=[1.0]))
    with pytest.raises(KeyError, match="accuracy"):
        sweep(lambda x: x, grid(x=[1.0]), metric="accuracy")
    with pytest.raises(ValueError, match="every member diverged"):
        _ = sweep(lambda x: x * jnp.nan, grid(x=[1.0])).best
    with pytest.raises(ValueError, match="devices"):
        sweep(line, SPACE, devices=99)


def test_best_table_and_sensitivity(result):
    """The best comes first; the importance of a name that matters is larger than that of one that does not."""
    table = result.table()
    assert table["member"][0] == result.best.index == int(np.argmin(result.scores))
    assert set(table.columns) == {
        "member",
        "learning_rate",
        "b1",
        "l2",
        "seed",
        "loss",
        "steps",
        "diverged",
    }
    found = result.sensitivity()
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"]["importance"] > 0.5 > found["seed"]["importance"]
    assert found["learning_rate"]["among_best"] < found["learning_rate"]["importance"]
    assert [row["value"] for row in found["b1"]["values"]] == [0.8, 0.95]
    assert result.best.params["w"].shape == (6,)


def test_chunks_fit_the_memory_that_is_given():
    """The chunk is found by asking the compiler, and its program needs no more than was given."""
    space = grid(learning_rate=[0.1], seed=range(64))

    def wide(tx=SGD, key=None):
        params = jax.random.normal(key, (64, 64))
        return tx.update(params, tx.init(params), params)[0], {"loss": jnp.sum(params)}

    tape = Tape()
    budget = 64 * 64 * 4 * 12
    found = sweep(wide, space, memory=budget, devices=1, progress=tape)
    assert tape.members == 64
    sizes = {chunk: sum(1 for c, *_ in found._where if c == chunk) for chunk, *_ in found._where}
    assert len(sizes) > 1
    assert max(sizes.values()) * 64 * 64 * 4 <= budget


@pytest.mark.slow
def test_ten_thousand_members_stream_through_bounded_memory(tmp_path):
    """What lives on the devices is one chunk, however many members there are."""
    peaks = []

    class Watch(Progress):
        def done(self, members, trial, metric, mode, seconds, compile_seconds):
            peaks.append(sum(x.nbytes for x in jax.live_arrays()))

    found = sweep(
        line,
        grid(learning_rate=np.geomspace(1e-3, 1, 100).tolist(), seed=range(100)),
        chunk=500,
        out=tmp_path / "s",
        progress=Watch(),
    )
    assert len(found) == 10_000
    assert len(peaks) == 20
    assert max(peaks[1:]) <= 1.2 * peaks[0] + 1e5
    assert np.isfinite(found.scores).all()
    assert found.params(9_999)["w"].shape == (6,)


def test_bfloat16_keys_and_none_in_results(tmp_path):
    """Parameters of any dtype, keys and absent leaves come back as they were."""

    def train(x, key):
        return {"a": jnp.full((3,), x).astype(jnp.bfloat16), "n": None, "k": key}, {"loss": x}

    for out in (None, tmp_path / "s"):
        params = sweep(train, grid(x=[0.5, 1.5]), out=out).params(1)
        assert params["a"].dtype == jnp.bfloat16
        assert params["a"].tolist() == [1.5] * 3
        assert params["n"] is None
        assert jnp.array_equal(
            jax.random.key_data(params["k"]), jax.random.key_data(jax.random.key(0))
        )


def test_mixed_structures_keep_their_order():
    """Members of several groups stand in the result where they stand in the space."""
    space = grid(learning_rate=[0.1, 0.2], tx={"adam": gx.adam(0.1), "sgd": gx.sgd(0.1)})
    found = sweep(line, space)
    assert [str(s["tx"]) for s in space] == ["adam", "sgd", "adam", "sgd"]
    assert found.optimizer(1) == gx.sgd(0.1)
    alone = sweep(line, grid(tx=[gx.sgd(0.2)]))
    np.testing.assert_allclose(found.history["loss"][3], alone.history["loss"][0], rtol=2e-5)


def test_a_paced_training_needs_no_active():
    """The least a Paced can say: init, step, steps."""
    found = sweep(
        lambda x: Paced(lambda: x, lambda c: (c * 0.5, {"loss": c}), 3), grid(x=[1.0, 2.0])
    )
    assert found.history["loss"].tolist() == [[1, 0.5, 0.25], [2, 1, 0.5]]
    assert float(found.params(0)) == 0.125


@pytest.mark.parametrize("every", [None, 1, 2])
def test_what_is_drawn_apart_changes_nothing(every):
    """A step may take what it draws from a program of its own; results are the same."""

    def train(x, key, apart=True):
        def draw(carry):
            return jax.random.normal(jax.random.fold_in(key, carry[1]))

        def step(carry, drawn=None):
            noise = draw(carry) if drawn is None else drawn
            return (carry[0] + noise, carry[1] + 1), {"loss": carry[0]}

        more = {"draw": draw} if apart else {}
        return Paced(lambda: (x, jnp.zeros((), jnp.int32)), step, 4, lambda c: c[0], **more)

    found = sweep(train, grid(x=[0.5, 1.5], seed=range(2), apart=[True, False]), every=every)
    losses = found.history["loss"].reshape(4, 2, 4)
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-4, atol=1e-5)
    assert len(set(losses[:, 0, 3].tolist())) == 4
    assert found.stacked().shape == (8,)


def test_fit_takes_its_arguments_in_the_order_of_gx_fit():
    """What was once the second argument is named in the message."""
    with pytest.raises(TypeError, match=r"\(loss, tx, params, data\)"):
        gx.sweep.fit(loss, init, ADAM, DATA, epochs=1, batch_size=8)
    by_name = gx.sweep.fit(loss=loss, params=init, tx=ADAM, data=DATA, epochs=1, batch_size=8)
    assert sweep(by_name, grid(learning_rate=[0.1])).history["train_loss"].shape == (1, 1)


def test_arrays_batch_as_numbers_do():
    """An axis may hold arrays: they are stacked along the members."""
    space = grid(x=[jnp.arange(3.0), jnp.ones(3)], scale=[1.0, 2.0])
    found = sweep(lambda x, scale: scale * jnp.sum(x), space)
    assert found.scores.tolist() == [3, 6, 3, 6]
    assert len(found.groups) == 1


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({}, "at least one in it"),
        (0.5, "at least one in it"),
        ({"loss": jnp.ones(2)}, "each metric must be a real scalar; 'loss' is"),
        ({"loss": jnp.ones((), complex)}, "each metric must be a real scalar; 'loss' is"),
        ({"loss": "low"}, "each metric must be a real scalar; 'loss' is 'low'"),
    ],
)
def test_metrics_that_are_no_real_scalars_are_named(metrics, says):
    """Before a step is compiled; a complex one would lose its imaginary part."""
    with pytest.raises(TypeError, match=says):
        sweep(lambda x: Paced(lambda: x, lambda c: (c, metrics), 3), grid(x=[1.0]))


def test_a_training_of_no_steps_is_refused():
    """Where it is built."""
    for steps, says in ((0, "at least 1"), (2.5, "Python integer"), (True, "Python integer")):
        with pytest.raises((ValueError, TypeError), match=f"Paced: steps must be .*{says}"):
            Paced(lambda: 0.0, lambda c: (c, {"loss": c}), steps)
    with pytest.raises(TypeError, match="'loss' is"):
        sweep(lambda x: {"loss": jnp.asarray(x, complex)}, grid(x=[1.0]))


def test_fit_refuses_what_has_no_effect():
    """As gx.fit does."""
    for more, says in (
        ({"evaluate": lambda p, d: {"loss": 0.0}}, "evaluate judges validation data"),
        ({"watch": "accuracy"}, "watch='accuracy' is for stopping or a plateau"),
    ):
        with pytest.raises(ValueError, match=says):
            gx.sweep.fit(loss, ADAM, init, DATA, epochs=1, batch_size=8, **more)


def test_a_table_takes_one_pass(result, monkeypatch):
    """Its time is linear in the members: the names of the space are looked up once."""
    asked, names = [], result.space.names
    monkeypatch.setattr(Space, "names", property(lambda self: asked.append(1) or names))
    assert len(result.table()) == 24
    assert len(asked) == 1


@pytest.mark.slow
def test_a_hundred_thousand_members_start_in_seconds(tmp_path):
    """And ten thousand make a table in one: with room for a loaded machine."""
    many = sweep(lambda x: x, grid(x=np.linspace(0, 1, 10**4).tolist()))
    began = time.perf_counter()
    assert len(many.table()) == 10**4
    assert time.perf_counter() - began < 3
    began = time.perf_counter()
    prepare(line, grid(learning_rate=np.linspace(0, 1, 10**5).tolist()), out=tmp_path).plan()
    assert time.perf_counter() - began < 30
