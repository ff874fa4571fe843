"""Batches: every example once, inputs beside their targets, the same from Python and inside a scan."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradxform.train import batches, count, partition, scan_batches, shuffle

KEY = jax.random.key(7)


def make_data(n, xp=np):
    """Inputs whose first column is the number of the example, and targets that repeat it."""
    index = xp.arange(n)
    inputs = xp.stack([index, index * 10, index * 100], axis=1).astype(xp.float32)
    return {"x": inputs, "y": (index.astype(xp.int32), xp.ones((n, 2, 2), xp.float32))}


def seen(parts):
    return [int(i) for part in parts for i in part["y"][0]]


assert_same = chex.assert_trees_all_equal


def test_every_example_once_with_its_target_and_the_last_batch_is_smaller():
    parts = list(batches(KEY, make_data(22), 5))
    assert [len(part["x"]) for part in parts] == [5, 5, 5, 5, 2]
    assert sorted(seen(parts)) == list(range(22))
    assert seen(parts) != list(range(22))
    for part in parts:
        np.testing.assert_array_equal(part["x"][:, 1], 10 * part["y"][0])


def test_last_batch_is_dropped_on_request():
    kept, dropped = (
        list(batches(KEY, make_data(22), 5)),
        list(batches(KEY, make_data(22), 5, drop_last=True)),
    )
    assert len(dropped) == 4
    assert_same(kept[:4], dropped)


def test_the_order_is_that_of_the_key():
    first, again = seen(batches(KEY, make_data(22), 5)), seen(batches(KEY, make_data(22), 5))
    assert first == again != seen(batches(jax.random.key(8), make_data(22), 5))
    assert seen(batches(None, make_data(22), 5)) == list(range(22))


@pytest.mark.parametrize(
    "key", [None, KEY, jax.random.PRNGKey(7)], ids=["in order", "key", "raw key"]
)
@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last"), [(22, 5, False), (22, 5, True), (20, 5, False), (3, 5, False)]
)
def test_scan_sees_the_batches_of_the_iterator(n, batch_size, drop_last, key):
    data = make_data(n)

    def step(carry, batch):
        weights = 1.0 + jnp.arange(
            len(batch["x"]), dtype=jnp.float32
        )  # the order within a batch counts too
        total = jnp.sum(weights * batch["x"][:, 2]) + jnp.sum(batch["y"][0]).astype(jnp.float32)
        return carry * 0.5 + total, {"total": total, "carry": carry}

    scan = jax.jit(scan_batches, static_argnums=(0, 3), static_argnames="drop_last")
    carry, outs = scan(step, jnp.float32(0), data, batch_size, key=key, drop_last=drop_last)
    expected, expected_outs = jnp.float32(0), []
    for batch in batches(key, data, batch_size, drop_last=drop_last):
        expected, out = step(expected, jax.tree.map(jnp.asarray, batch))
        expected_outs.append(out)
    assert_same(outs, jax.tree.map(lambda *xs: jnp.stack(xs), *expected_outs))
    assert_same(carry, expected)


def test_scan_in_a_vmap_over_keys_equals_each_key_alone_and_copies_no_data():
    data, keys = make_data(22, jnp), jax.random.split(KEY, 3)

    def order(key):
        return scan_batches(
            lambda c, b: (c, jnp.sum(b["x"] * b["x"][0, 0])), None, data, 5, key=key
        )[1]

    assert_same(jax.vmap(order)(keys), jnp.stack([order(key) for key in keys]))
    text = str(jax.make_jaxpr(jax.vmap(order))(keys))
    assert "f32[3,5,3]" in text, "the rows of one batch for each member"
    assert not any(shape in text for shape in ("f32[3,22,3]", "f32[3,20,3]")), (
        "the data set copied for each member"
    )


def test_shuffle_is_the_order_of_the_batches():
    data = make_data(22)
    shuffled = shuffle(KEY, data)
    assert_same(list(batches(None, shuffled, 5)), list(batches(KEY, data, 5)))
    assert_same(jax.jit(shuffle)(KEY, data), shuffled)


def test_numpy_stays_numpy_and_jax_stays_jax():
    for key in (None, KEY):
        kinds = {
            type(leaf) for part in batches(key, make_data(7), 3) for leaf in jax.tree.leaves(part)
        }
        assert kinds == {np.ndarray}
        part = next(batches(key, make_data(7, jnp), 3))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(part))
    assert isinstance(shuffle(KEY, make_data(7))["x"], np.ndarray)
    data = make_data(7)
    assert np.shares_memory(next(batches(None, data, 3))["x"], data["x"])


def test_iterator_works_under_jit():
    @jax.jit
    def firsts(key, data):
        return [batch["x"][0, 0] for batch in batches(key, data, 5)]

    expected = [batch["x"][0, 0] for batch in batches(KEY, make_data(12), 5)]
    assert [float(x) for x in firsts(KEY, make_data(12))] == expected


@pytest.mark.parametrize("xp", [np, jnp])
def test_partition(xp):
    data = make_data(22, xp)
    full, last = partition(data, 5)
    assert full["x"].shape == (4, 5, 3)
    assert full["y"][1].shape == (4, 5, 2, 2)
    assert last["x"].shape == (2, 3)
    np.testing.assert_array_equal(full["y"][0].ravel(), np.arange(20))
    np.testing.assert_array_equal(last["y"][0], [20, 21])
    assert type(full["x"]) is type(data["x"])
    assert partition(data, 5, drop_last=True)[1] is None
    assert partition(data, 11)[1] is None
    assert partition(data, 30)[0]["x"].shape == (0, 30, 3)


def test_count():
    assert count(make_data(22)) == 22
    assert jax.eval_shape(lambda data: jnp.zeros(count(data)), make_data(4)).shape == (4,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"x": np.ones((4, 2)), "y": np.ones(3)},
            r"disagree on the number of examples: 'x' has 4, 'y' has 3",
        ),
        ((np.ones(4), [np.ones(4), np.ones(5)]), r"'0' has 4, '1/0' has 4, '1/1' has 5"),
        ({"x": np.ones(4), "scale": np.float32(2)}, r"'scale' is a scalar"),
        ({"x": np.ones((0, 2))}, r"0 examples"),
        ({"x": None}, r"no array"),
    ],
)
def test_bad_data_is_named(data, message):
    for call in (
        count,
        lambda d: shuffle(KEY, d),
        lambda d: batches(KEY, d, 2),
        lambda d: partition(d, 2),
    ):
        with pytest.raises(ValueError, match=message):
            call(data)
    with pytest.raises(ValueError, match=message):
        scan_batches(lambda c, b: (c, None), 0.0, data, 2)


@pytest.mark.parametrize(
    ("batch_size", "options", "error", "message"),
    [
        (0, {}, ValueError, "at least 1; got 0"),
        (5, {"drop_last": True}, ValueError, "batch_size=5 exceeds the 4 examples"),
        (2.0, {}, TypeError, "Python integer; got 2.0"),
    ],
)
def test_bad_batch_size_is_an_error_at_the_call(batch_size, options, error, message):
    data = make_data(4)
    for call in (
        lambda: batches(KEY, data, batch_size, **options),
        lambda: partition(data, batch_size, **options),
        lambda: scan_batches(lambda c, b: (c, None), 0.0, data, batch_size, key=KEY, **options),
    ):
        with pytest.raises(error, match=message):
            call()


def test_an_output_per_example_cannot_be_stacked():
    def step(carry, batch):
        return carry, {"sum": jnp.sum(batch["x"]), "rows": batch["x"][:, 0]}

    with pytest.raises(
        ValueError, match=r"out 'rows' depends on the size of the batch: \(5,\) .* \(2,\)"
    ):
        scan_batches(step, None, make_data(22), 5)
    outs = scan_batches(step, None, make_data(22), 5, drop_last=True)[1]
    assert outs["rows"].shape == (4, 5)
