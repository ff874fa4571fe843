"""Which parameters are matrices, and which of their axes are rows, columns and a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import gradxform as gx
from gradxform.matrices.declaration import views
from gradxform.matrices.matrixwise import oriented


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(11, 8)(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(32)(x)))
        return nn.Dense(11, name="head")(x)


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(10, name="classifier")(x.mean((1, 2)))


def shown(matrices, tree):
    found = views("muon", matrices, tree)
    return {path: str(view) for path, view in zip(gx.tree.paths(tree), found, strict=True) if view}


def params_of(module, x):
    return jax.eval_shape(module.init, jax.random.key(0), x)["params"]


def test_a_flax_transformer_needs_no_declaration():
    attention = "MultiHeadDotProductAttention_0"
    assert shown(None, params_of(Block(), jnp.zeros((2, 5), int))) == {
        "Dense_0/kernel": "[32, 8]",
        "Dense_1/kernel": "[8, 32]",
        **{f"{attention}/{name}/kernel": "[8, 8]" for name in ("key", "query", "value", "out")},
    }


def test_a_flax_cnn_needs_no_declaration():
    found = shown(None, params_of(Convolutions(), jnp.zeros((2, 8, 8, 3))))
    assert found == {"Conv_0/kernel": "[27, 4]"}


def test_the_name_of_a_weight_tells_its_layout():
    tree = {"linear": {"weight": np.zeros((3, 5))}, "conv1": {"weight": np.zeros((4, 2, 3, 3))}}
    assert shown(None, tree) == {"conv1/weight": "[18, 4]", "linear/weight": "[5, 3]"}
    assert shown("flax", tree)["linear/weight"] == "[3, 5]"
    assert shown("equinox", {"w": np.zeros((3, 5))}) == {"w": "[5, 3]"}


TABLE = gx.by_path(
    {
        "heads": gx.matrix(0, 2),
        "fused": gx.matrix(0, 1, column_parts=3),
        "stack": gx.matrix(),
        "conv": gx.matrix((0, 1, 2), 3),
        "emb*": None,
        "**": "names",
    }
)
TREE = {
    "heads": np.arange(24.0).reshape(4, 2, 3),
    "fused": np.arange(24.0).reshape(4, 6),
    "stack": np.arange(24.0).reshape(2, 3, 4),
    "conv": np.arange(36.0).reshape(2, 3, 2, 3),
    "embedding": np.zeros((9, 2)),
    "kernel": np.zeros((2, 5)),
}


def test_a_table_by_path_declares_rows_columns_and_batch():
    assert shown(TABLE, TREE) == {
        "conv": "[12, 3]",
        "fused": "3×[4, 2]",
        "heads": "2×[4, 3]",
        "kernel": "[2, 5]",
        "stack": "2×[3, 4]",
    }
    of = dict(zip(gx.tree.paths(TREE), views("muon", TABLE, TREE), strict=True))
    np.testing.assert_array_equal(of["heads"].apart(TREE["heads"])[1], TREE["heads"][:, 1])
    np.testing.assert_array_equal(of["fused"].apart(TREE["fused"])[0, 2], TREE["fused"][:, 4:])
    np.testing.assert_array_equal(of["stack"].apart(TREE["stack"])[1], TREE["stack"][1])
    np.testing.assert_array_equal(of["conv"].apart(TREE["conv"]), TREE["conv"].reshape(12, 3))


@pytest.mark.parametrize("name", ["heads", "fused", "stack", "conv", "kernel"])
@pytest.mark.parametrize("keep_sides", [True, False])
def test_apart_and_together_are_inverse(name, keep_sides):
    of = dict(zip(gx.tree.paths(TREE), views("muon", TABLE, TREE), strict=True))
    how = oriented(of[name], keep_sides)
    matrices = how.apart(TREE[name])
    assert matrices.shape[-2:] == (how.rows, how.columns)
    assert keep_sides or how.rows <= how.columns
    np.testing.assert_array_equal(how.together(matrices), TREE[name])


def test_optax_dimension_numbers_are_a_declaration():
    dims = gx.MuonDimensionNumbers(1, (0, 2))
    assert shown(dims, {"w": np.zeros((2, 3, 4)), "b": np.zeros(3)}) == {"w": "[3, 8]"}
    tree = {"w": gx.GaLoreDimensionNumbers(), "b": None}
    assert shown(tree, {"w": np.zeros((2, 3)), "b": np.zeros((3, 3))}) == {"w": "[2, 3]"}
    by_function = lambda path, leaf: gx.matrix(1, 0) if path == "w" else None  # noqa: E731
    assert shown(by_function, {"w": np.zeros((2, 3)), "b": np.zeros(3)}) == {"w": "[3, 2]"}
    of_params = lambda params: {"w": gx.matrix(1, 0), "b": None}  # noqa: E731
    assert shown(of_params, {"w": np.zeros((2, 3)), "b": np.zeros(3)}) == {"w": "[3, 2]"}


@pytest.mark.parametrize(
    ("matrices", "shape", "words"),
    [
        (None, (3, 4, 5), r"muon: 'w' of shape \[3, 4, 5\] may be a stack of matrices"),
        (gx.by_path({"v": None}), (2, 2), r"no pattern of \['v'\] covers \['w'\]"),
        (gx.matrix(0, 5), (2, 2, 2), "names an axis that is not there: it has 3"),
        (gx.matrix(0, -2), (2, 2), "names an axis twice"),
        (gx.matrix(0, 1, column_parts=3), (2, 4), "cannot part 4 columns into 3"),
        ("linen", (2, 2), r"must be one of the presets \['names', 'flax', 'equinox'\]"),
        (3, (2, 2), "muon|matrices must be|matrices at ''"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(matrices, shape, words):
    with pytest.raises((ValueError, TypeError), match=words):
        views("muon", matrices, {"w": np.zeros(shape)})


def test_labels_send_matrices_and_the_rest_apart():
    tx = gx.partition(
        {"hidden": gx.sgd(0.1), "rest": gx.adam(0.1)}, gx.matrix_labels(matrix="hidden")
    )
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "absent": None}
    rows = {row.path: row.rules[0] for row in gx.describe(tx, params).rows}
    assert rows["kernel"].startswith("scale_by_learning_rate")
    assert rows["bias"].startswith("ema")
    assert eval(repr(gx.matrix_labels(TABLE)), vars(gx)) == gx.matrix_labels(TABLE)
