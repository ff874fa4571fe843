"""What names and shapes tell of matrices, in models of Flax nnx, Equinox, torch and Haiku."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradxform as gx
from gradxform.matrices.declaration import views


class Block(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(
            num_heads=2, in_features=8, qkv_features=8, rngs=rngs
        )
        self.qkv = nnx.Linear(8, 24, use_bias=False, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.lora = nnx.LoRA(8, 2, 16, rngs=rngs)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(20, 8, rngs=rngs)
        self.patch_embed = nnx.Conv(3, 8, (4, 4), rngs=rngs)
        self.pos_embed = nnx.Param(jnp.zeros((1, 16, 8)))
        self.layers = nnx.vmap(Block, in_axes=0, out_axes=0)(rngs.fork(split=3))
        self.blocks = nnx.List([Block(rngs)])
        self.experts = nnx.vmap(lambda rngs: nnx.Linear(8, 6, rngs=rngs))(rngs.fork(split=3))
        self.cell = nnx.OptimizedLSTMCell(8, 4, rngs=rngs)
        self.conv = nnx.Conv(8, 5, (3,), rngs=rngs)
        self.group = nnx.GroupNorm(8, num_groups=2, rngs=rngs)
        self.lm_head = nnx.Linear(8, 20, rngs=rngs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_flax_nnx():
    params = nnx.state(nnx.eval_shape(lambda: Model(nnx.Rngs(0))), nnx.Param)
    tree = nnx.to_pure_dict(params)
    found = zip(gx.tree.paths(tree), views("muon", None, tree), strict=True)
    heads = {f"attention/{x}/kernel": "[8, 8]" for x in ("key", "out", "query", "value")}
    block = heads | {"qkv/kernel": "3×[8, 8]", "lora/lora_a": "[8, 2]", "lora/lora_b": "[2, 16]"}
    assert {path: str(view) for path, view in found if view} == {
        "patch_embed/kernel": "[48, 8]",
        **{f"layers/{path}": f"3×{view}" for path, view in block.items()},
        **{f"blocks/0/{path}": view for path, view in block.items()},
        "experts/kernel": "3×[8, 6]",
        "cell/dense_h/kernel": "[4, 16]",
        "cell/dense_i/kernel": "[8, 16]",
        "conv/kernel": "[24, 5]",
    }


@pytest.mark.parametrize(
    ("path", "shape", "bias", "view"),
    [
        ("layers/mlp/weight", (4, 5, 3), (4, 5), "4×[3, 5]"),  # Equinox, stacked
        ("conv1/weight", (5, 3, 2), (5, 1), "[6, 5]"),
        ("conv1/weight", (5, 3, 2), (5,), "[6, 5]"),  # torch
        ("blocks/conv/weight", (4, 5, 3, 2), (4, 5, 1), "4×[6, 5]"),
        ("layers/norm/weight", (4, 5), (4, 5), None),
        ("layers/ln_1/weight", (4, 5), None, None),
        ("cell/weight_hh", (20, 5), (20,), "[5, 20]"),
        ("attention/in_proj_weight", (24, 8), None, "3×[8, 8]"),
        ("patch_embed/weight", (8, 3, 4, 4), (8, 1, 1), "[48, 8]"),
        ("embed/weight", (20, 8), None, None),
        ("layers/embed/embedding", (4, 20, 8), None, None),
        ("ScanBlock_0/Dense_0/kernel", (4, 3, 5), None, "4×[3, 5]"),
        ("layers/query/kernel", (4, 3, 5), None, "4×[3, 5]"),  # a stack, without heads
        ("layers_0/query/kernel", (4, 3, 5), None, "[4, 15]"),
        ("layers/0/out/kernel", (3, 5, 4), None, "[15, 4]"),
        ("moe/wi", (4, 3, 5), None, "4×[3, 5]"),
        ("layers/dense/kernel", (4, 4, 5), (4, 5), "4×[4, 5]"),
        ("encoder/positional_encoding", (20, 8), None, None),
        ("c_attn/kernel", (8, 20), None, "[8, 20]"),  # fused otherwise
    ],
)
def test_a_name_and_a_shape(path, shape, bias, view):
    module, _, name = path.rpartition("/")
    leaves = {name: shape} | ({} if bias is None else {"bias": bias})
    tree = {module: {k: jax.ShapeDtypeStruct(x, np.float32) for k, x in leaves.items()}}
    found = zip(gx.tree.paths(tree), views("muon", None, tree), strict=True)
    assert {k: str(x) for k, x in found if x} == ({} if view is None else {path: view})


@pytest.mark.parametrize(
    ("path", "shape", "bias", "words"),
    [
        ("dense/kernel", (4, 3, 5), None, "may be a stack of matrices"),
        ("linear/weight", (4, 3, 5), None, "may be a stack of matrices"),
        ("dense/kernel", (4, 4, 5), (4, 5), "may be a stack of matrices"),  # its bias tells of two
        ("dense/kernel", (4, 3, 5), (4, 5), "'dense/kernel': matrix(rows=1, columns=2), '**'"),
        ("dense/kernel", (4, 3, 5), (3, 5), "'dense/kernel': matrix(rows=0, columns=(1, 2)),"),
        ("dense/kernel", (2, 4, 3, 5), (3, 5), ": matrix(rows=(0, 1), columns=(2, 3)), '**'"),
        ("conv/kernel", (9, 9, 4, 5), (9, 9, 5), ": matrix(rows=2, columns=3), '**': 'names'"),
    ],
)
def test_where_a_name_does_not_tell_the_error_says_what_to_write(path, shape, bias, words):
    module, _, name = path.rpartition("/")
    leaves = {name: shape} | ({} if bias is None else {"bias": bias})
    tree = {module: {k: jax.ShapeDtypeStruct(x, np.float32) for k, x in leaves.items()}}
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        views("muon", None, tree)
    if "matrix(rows" in words:
        written = str(error.value).partition("matrices=")[2]
        table = eval(written, vars(gx))
        told = views("muon", table, {module: {name: tree[module][name]}})
        assert told == [view for view in views("muon", table, tree) if view]


def test_a_b_beside_a_w_is_a_bias():
    tree = {"layers/~/linear": {"w": np.zeros((4, 3, 5)), "b": np.zeros((4, 5))}}
    assert [view and str(view) for view in views("muon", None, tree)] == [None, "4×[3, 5]"]
    lora = {"lora": {"a": np.zeros((8, 2)), "b": np.zeros((2, 8))}}
    assert list(map(str, views("muon", None, lora))) == ["[8, 2]", "[2, 8]"]
