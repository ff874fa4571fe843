"""Adafactor, CAME, SM3 and Adam-mini on the matrices that are declared: each as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx

MATRICES = gx.by_path({"fused": gx.matrix(0, 1, column_parts=3), "**": "names"})
SHAPES = {"fused": (4, 6), "layers": {"kernel": (2, 5, 3)}, "query": {"kernel": (4, 2, 3)}}
SHAPES |= {"conv": {"kernel": (2, 2, 3, 4)}, "bias": (3,), "embedding": (4, 3)}


def gradients(step):
    leaves, structure = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    rng = np.random.default_rng(step)
    return structure.unflatten(jnp.asarray(rng.normal(size=shape), float) for shape in leaves)


def alone(updates):
    """Every matrix by itself, and what is none."""
    fused, conv = updates["fused"], updates["conv"]["kernel"]
    matrices = {f"fused {i}": fused[:, 2 * i : 2 * i + 2] for i in range(3)}
    matrices |= {f"layer {i}": updates["layers"]["kernel"][i] for i in range(2)}
    matrices |= {"conv": conv.reshape(12, 4), "query": updates["query"]["kernel"].reshape(4, 6)}
    return matrices, {"bias": updates["bias"], "embedding": updates["embedding"]}


def walk(tx, trees):
    state, out = tx.init(trees[0]), []
    update = jax.jit(tx.update)
    for g in trees:
        u, state = update(g, state, g)
        out.append(u)
    return out, state


CASES = {
    "scale_by_factored_rms": (
        lambda **how: gx.scale_by_factored_rms(min_dim_size_to_factor=1, **how),
        lambda: gx.scale_by_factored_rms(factored=False),
    ),
    "scale_by_came": (gx.scale_by_came, lambda: gx.scale_by_came(min_dim_size_to_factor=99)),
    "sm3": (lambda **how: gx.sm3(0.1, **how), lambda: gx.sm3(0.1)),
    "scale_by_block_rms": (
        lambda **how: gx.scale_by_block_rms(blocks=(1,), **how),
        gx.scale_by_block_rms,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_matrix_is_treated_as_if_it_were_alone(name):
    make, rest = CASES[name]
    steps = [gradients(i) for i in range(2)]
    got, _ = walk(make(matrices=MATRICES), steps)
    matrices, others = zip(*map(alone, steps), strict=True)
    for mine, m, o in zip(got, walk(make(), matrices)[0], walk(rest(), others)[0], strict=True):
        found, expected = {**alone(mine)[0], **alone(mine)[1]}, {**m, **o}
        for path, x in expected.items():
            np.testing.assert_allclose(found[path], x, rtol=2e-5, atol=1e-6, err_msg=path)


def test_what_is_remembered_has_rows_and_columns_of_each_matrix():
    tx = gx.adafactor(0.1, 3, matrices=MATRICES)
    state = jax.eval_shape(tx.init, gradients(0))["scale_by_factored_rms"]
    rows, columns, full = (state["matrix"].slots[k] for k in ("v_row", "v_col", "v"))
    assert rows["layers"]["kernel"].shape == (2, 5)
    assert columns["query"]["kernel"].shape == (6,)
    assert rows["fused"].shape == (1, 3, 1)  # two columns are fewer than three
    assert full["fused"].shape == (4, 6)
    assert state["rest"].slots["v"]["embedding"].shape == (4, 3)
    mini = gx.adam_mini(0.1, matrices=gx.by_path({"query/kernel": gx.matrix(0, 2), "**": "names"}))
    state = jax.eval_shape(mini.init, gradients(0))["scale_by_block_rms"]
    assert state["matrix"].slots["v"]["query"]["kernel"].shape == (2, 1, 1)  # one for each head


@pytest.mark.parametrize("convention", ["optax", "paper", "torch", "keras"])
def test_a_declaration_of_plain_matrices_changes_no_number(convention):
    trees = [{"kernel": x["fused"], "bias": x["bias"]} for x in map(gradients, range(2))]
    make = {"learning_rate": 0.1, "min_dim_size_to_factor": 1, "convention": convention}
    plain, declared = (walk(gx.adafactor(**make, matrices=m), trees)[0] for m in (None, "names"))
    for x, y in zip(plain, declared, strict=True):
        np.testing.assert_allclose(x["kernel"], y["kernel"], rtol=2e-5)
        np.testing.assert_allclose(x["bias"], y["bias"], rtol=2e-5)


def test_describe_tells_the_group_and_the_matrices():
    rows = {row.path: row for row in gx.describe(gx.kron(matrices=MATRICES), gradients(0)).rows}
    assert {path: row.group for path, row in rows.items() if row.group == "rest"} == {
        "bias": "rest",
        "embedding": "rest",
    }
    fused, layers = (rows[path] for path in ("fused", "layers/kernel"))
    assert fused.group == layers.group == "matrix"
    assert fused.rules[1].startswith("scale_by_kron(3×[4, 2], precond_probability=")
    assert layers.rules[1].startswith("scale_by_kron(2×[5, 3], ")
    table = str(gx.describe(gx.kron(matrices=MATRICES), gradients(0))).splitlines()
    assert "  group   slots  " in table[0]
    assert "  rest    ema/m" in table[1]
    assert "group" not in str(gx.describe(gx.adam(0.1), gradients(0)))
