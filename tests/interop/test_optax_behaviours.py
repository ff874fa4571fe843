"""What Optax 0.2.8 does and gradxform must not: each test passes here and shows that Optax still behaves the other way.

When one of these fails in its Optax half, Optax has changed: drop the comparison, keep the law. `test_N_*` is for number N, here
and, where the behaviour belongs to a wrapper, in the tests of that wrapper:

     1  injected numbers take the dtype of bfloat16 parameters         here
     2  the first update changes the dtypes of the state               here
     3  the second moment of bfloat16 parameters never decays          here
     4  small steps on bfloat16 parameters are lost                    here
     5  accumulation runs the optimizer every time, and keeps an inf   wrappers/test_accumulation.py
     6  a scheduled number cannot be read, and is overridden in vain   here, state/test_state.py
     7  lengths of schedules and plateau factors cannot be batched     here
     8  parameters and a fresh state share buffers                     here, wrappers/test_averaging.py
     9  a zero gradient makes the meta-gradient NaN                    here
    10  what is masked from an optimizer gets its raw gradient         wrappers/test_masking.py
    11  bad numbers, shapes and arguments are accepted                 here
    12  clipping makes NaN of zero and of infinity                     here
    13  two equal optimizers are not equal; none is an argument        here
    14  skipping under vmap is another program than without            wrappers/test_accumulation.py
    15  labels are asked of the updates; a callable tree is none       wrappers/test_masking.py
    16  a clip inside a partition is one clip for each group           wrappers/test_masking.py
"""

import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import gradxform as gx

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_1_injected_numbers_on_bfloat16_parameters():
    """Scalars never take the parameters' dtype: bfloat16(0.999) is 1, and 1 - 1 divides."""
    params = {"w": jnp.array([1.0, -2.0], jnp.bfloat16)}

    theirs = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3)
    state = theirs.init(params)
    updates, _ = theirs.update(params, state, params)
    assert float(state.hyperparams["b2"]) == 1.0
    assert np.isnan(np.asarray(updates["w"], np.float32)).all()

    mine = gx.tunable(gx.adamw(1e-3))
    state = mine.init(params)
    assert float(state.tx.b2) == np.float32(0.999)
    for lr in (1e-3, 2e-3):
        state = state.replace(learning_rate=lr)
        updates, state = mine.update(params, state, params)
        np.testing.assert_allclose(np.asarray(updates["w"], np.float32), [-lr, lr], rtol=1e-2)


def test_1_injected_numbers_change_nothing_else():
    """Held in the state or closed over, the same numbers make the same steps, to the last bits of float32."""
    params = {"w": jnp.linspace(-1.0, 1.0, 8)}

    def train(tx):
        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
            return gx.apply_updates(params, updates), state

        params_, state = params, tx.init(params)
        for _ in range(100):
            params_, state = step(params_, state)
        return params_["w"]

    np.testing.assert_allclose(
        train(gx.tunable(gx.adam(1e-2))), train(gx.adam(1e-2)), rtol=1e-5, atol=1e-6
    )


def drifts(tx, p_dtype, g_dtype):
    """Whether the first update changes a dtype of the state."""
    params, grads = {"w": jnp.ones((2, 2), p_dtype)}, {"w": jnp.ones((2, 2), g_dtype)}
    state = jax.eval_shape(tx.init, params)
    _, after = jax.eval_shape(tx.update, grads, state, params)
    return [x.dtype for x in jax.tree.leaves(state)] != [x.dtype for x in jax.tree.leaves(after)]


DRIFTING = [
    "sgd",
    "adam",
    "adamw",
    "nadamw",
    "lion",
    "lamb",
    "lars",
    "rmsprop",
    "adagrad",
    "amsgrad",
    "adabelief",
    "yogi",
    "radam",
    "adan",
]
DRIFTING_CONTRIB = ["ademamix", "prodigy", "dog", "madgrad"]


@pytest.mark.parametrize("name", [*DRIFTING, *DRIFTING_CONTRIB])
def test_2_state_dtypes_are_a_fixed_point(name):
    arguments = {"momentum": 0.9} if name == "sgd" else {}
    theirs = getattr(optax.contrib if name in DRIFTING_CONTRIB else optax, name)(0.1, **arguments)
    mine = getattr(gx, name)(0.1, **arguments)
    assert drifts(theirs, jnp.bfloat16, jnp.float32)
    dtypes = (jnp.bfloat16, jnp.float16, jnp.float32)
    assert not any(drifts(mine, p, g) for p in dtypes for g in dtypes)
    slots = [
        x
        for x in jax.tree.leaves(jax.eval_shape(mine.init, jnp.ones((2, 2), jnp.bfloat16)))
        if x.ndim
    ]
    assert {x.dtype.name for x in slots} == {"float32"}, "float32 unless asked otherwise"


def test_3_a_second_moment_of_bfloat16_parameters_decays():
    params = jnp.ones((), jnp.bfloat16)

    def second_moment(tx, get):
        def body(state, g):
            _, state = tx.update(g, state, params)
            return state, get(state)

        gradients = jnp.concatenate([jnp.ones(50), jnp.zeros(3000)]).astype(jnp.bfloat16)
        history = jax.jit(lambda: jax.lax.scan(body, tx.init(params), gradients)[1])()
        return float(history[49]), float(history[-1])

    fed, left = second_moment(optax.scale_by_adam(), lambda state: state.nu)
    assert left == fed > 0.04
    fed, left = second_moment(gx.adam(1e-3), lambda state: state["scale_by_rms"].slots["v"])
    np.testing.assert_allclose(
        [fed, left], [1 - 0.999**50, (1 - 0.999**50) * 0.999**3000], rtol=1e-3
    )


def test_4_small_steps_on_bfloat16_parameters():
    """1 - 0.001 is 1 in bfloat16; a float32 copy adds the steps up, and the parameters are its rounding."""

    def after_a_hundred_steps(tx, apply):
        params = {"w": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2)}
        state = tx.init(params)
        for _ in range(100):
            updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
            params = apply(params, updates)
        return params, state

    theirs, _ = after_a_hundred_steps(optax.sgd(1e-3), optax.apply_updates)
    assert theirs["w"].tolist() == [1.0] * 3
    mine, state = after_a_hundred_steps(gx.master_weights(gx.sgd(1e-3)), gx.apply_updates)
    assert mine["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(state.master["w"], 0.9, atol=1e-5)
    np.testing.assert_array_equal(mine["w"], state.master["w"].astype(jnp.bfloat16))
    np.testing.assert_allclose(mine["b"], 0.9, atol=1e-5)
    assert state.master["b"] is None


def test_4_master_weights_walk_the_float32_path():
    """The inner optimizer sees float32 weights: its state and their rounding are those of a float32 training."""
    start = jnp.linspace(-2, 2, 50)
    wide, narrow = (
        {"w": start.astype(jnp.bfloat16).astype(jnp.float32)},
        {"w": start.astype(jnp.bfloat16)},
    )
    inner = gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(3e-3, weight_decay=0.1))
    tx = gx.master_weights(inner)
    wide_state, state = inner.init(wide), tx.init(narrow)
    for i in range(300):
        g = {"w": jnp.sin(start * i).astype(jnp.bfloat16)}
        updates, wide_state = inner.update({"w": g["w"].astype(jnp.float32)}, wide_state, wide)
        wide = gx.apply_updates(wide, updates)
        updates, state = tx.update(g, state, narrow)
        assert updates["w"].dtype == jnp.bfloat16
        narrow = gx.apply_updates(narrow, updates)
    np.testing.assert_allclose(state.master["w"], wide["w"], atol=1e-6)
    np.testing.assert_allclose(narrow["w"].astype(jnp.float32), wide["w"], rtol=2**-8)


def test_6_a_schedule_cannot_be_overridden_in_silence():
    """Setting the number of a schedule is an error that says so; the state stays whole."""
    params = jnp.ones(2)

    def injected(module):
        tx = module.inject_hyperparams(module.sgd)(
            learning_rate=module.linear_schedule(1.0, 0.0, 10)
        )
        return tx, tx.init(params)

    tx, state = injected(optax)
    state = optax.tree.set(state, learning_rate=jnp.float32(0.5))
    with pytest.raises(AttributeError):
        tx.update(params, state, params)
    tx, state = injected(optax)
    state.hyperparams["learning_rate"] = jnp.float32(0.5)
    np.testing.assert_allclose(tx.update(params, state, params)[0], -1.0)  # and not -0.5

    tx, state = injected(gx)
    with pytest.raises(ValueError, match=r"learning_rate is a schedule.* cannot become"):
        gx.tree.set(state, learning_rate=jnp.float32(0.5))
    with pytest.raises(ValueError, match=r"learning_rate is a schedule.* cannot become"):
        state.hyperparams["learning_rate"] = 0.5
    np.testing.assert_allclose(tx.update(params, state, params)[0], -1.0)


SCHEDULES = {
    "linear": (
        lambda n: optax.linear_schedule(1.0, 0.1, n),
        lambda n: gx.linear_schedule(1.0, 0.1, n),
    ),
    "cosine": (
        lambda n: optax.cosine_decay_schedule(1.0, n),
        lambda n: gx.cosine_decay_schedule(1.0, n),
    ),
    "warm-up and cosine": (
        lambda n: optax.warmup_cosine_decay_schedule(0.0, 1.0, n, 4 * n),
        lambda n: gx.warmup_cosine_decay_schedule(0.0, 1.0, n, 4 * n),
    ),
    "exponential": (
        lambda n: optax.exponential_decay(1.0, n, 0.5),
        lambda n: gx.exponential_decay(1.0, n, 0.5),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_7_vmap_over_the_length_of_a_schedule(name):
    theirs, mine = SCHEDULES[name]
    lengths, steps = jnp.array([5, 10, 20]), np.arange(25)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.vmap(lambda n: theirs(n)(3))(lengths)
    batched = jax.jit(jax.vmap(lambda n: jax.vmap(mine(n))(steps)))(lengths)
    for row, n in zip(batched, (5, 10, 20), strict=True):
        np.testing.assert_allclose(row, jax.vmap(theirs(n))(steps), rtol=1e-5, atol=1e-6)


def test_7_vmap_over_an_optimizer_with_a_schedule_and_over_a_plateau_factor():
    params = jnp.ones(3)
    stacked = gx.stack([gx.sgd(gx.linear_schedule(1.0, 0.0, n)) for n in (2, 4)])
    states = jax.vmap(lambda tx: tx.init(params))(stacked)
    for expected in ((1.0, 1.0), (0.5, 0.75), (0.0, 0.5)):
        updates, states = jax.vmap(lambda tx, state: tx.update(params, state))(stacked, states)
        np.testing.assert_allclose(-updates[:, 0], expected)

    def reduced(make):
        def scale(factor):
            tx = make(factor)
            state = tx.init(params)
            for _ in range(3):
                updates, state = tx.update(params, state, value=jnp.float32(1.0))
            return updates[0]

        return jax.vmap(scale)(jnp.array([0.5, 0.1]))

    with pytest.raises(jax.errors.TracerBoolConversionError):
        reduced(lambda factor: optax.contrib.reduce_on_plateau(factor, patience=1))
    np.testing.assert_allclose(
        reduced(lambda factor: gx.reduce_on_plateau(factor, 1)), [0.25, 0.01], rtol=1e-6
    )


def donated_step(tx):
    params = {"w": jnp.arange(4.0), "b": jnp.ones(2)}

    def step(params, state):
        updates, state = tx.update(
            jax.tree.map(jnp.ones_like, params), state, params, value=jnp.float32(1.0)
        )
        return gx.apply_updates(params, updates), state

    params, _ = jax.jit(step, donate_argnums=(0, 1))(params, tx.init(params))
    return np.asarray(params["w"])


def test_8_params_and_a_fresh_state_can_be_donated():
    for theirs in (optax.contrib.dog(), optax.contrib.prodigy()):
        with pytest.raises(Exception, match="donate"):
            donated_step(theirs)
    for mine in (
        gx.adamw(0.1),
        gx.sgd(0.1, 0.9),
        gx.adagrad(0.1),
        gx.amsgrad(0.1),
        gx.chain(
            gx.clip_by_global_norm(1.0), gx.zero_nans(), gx.nadam(0.1), gx.reduce_on_plateau()
        ),
        gx.tunable(gx.adam(jnp.float32(0.1))),
        gx.add_noise(0.0, 0.5, jax.random.key(0)),
        gx.dog(),
        gx.prodigy(),
        gx.lookahead(gx.sgd(0.1), 2, 0.5),
    ):
        assert np.isfinite(donated_step(mine)).all()


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "amsgrad", "nadam"])
def test_9_a_meta_gradient_with_a_zero_gradient_coordinate(name):
    def meta(tx):
        def after_one_step(x):
            g = jnp.array([1.0, 0.0]) * x  # the second coordinate has no gradient
            updates, _ = tx.update(g, tx.init(x), x)
            return jnp.sum((x + updates) ** 2)

        return jax.grad(after_one_step)(jnp.array([1.0, 2.0]))

    theirs = {"eps_in_sqrt": False} if name == "rmsprop" else {}
    assert np.isnan(meta(getattr(optax, name)(0.1, **theirs))).any()
    mine = meta(getattr(gx, name)(0.1, **theirs))
    assert np.isfinite(mine).all()
    np.testing.assert_allclose(mine[1], 4.0, rtol=1e-4)  # that of x², up to adamw's decay


@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": -1e-3},
        {"b1": 1.5},
        {"b2": 1.1},
        {"eps": -1.0},
        {"learning_rate": float("nan")},
    ],
)
def test_11_numbers_out_of_range(arguments):
    arguments = {"learning_rate": 1e-3, **arguments}
    optax.adam(**arguments)
    (name,) = [k for k, v in arguments.items() if v != 1e-3]
    with pytest.raises(ValueError, match=f"adam: {name} must lie in"):
        gx.adam(**arguments)


def test_11_a_gradient_of_another_shape():
    params, grads = jnp.ones((2, 2)), jnp.ones((2, 1))
    theirs = optax.adam(0.1)
    updates, _ = theirs.update(grads, theirs.init(params), params)
    assert updates.shape == (2, 2)
    mine = gx.adam(0.1)
    for p in (params, None):
        with pytest.raises(ValueError, match=r"\(2, 1\)"):
            mine.update(grads, mine.init(params), p)


def test_11_a_misspelt_argument():
    params = jnp.ones(2)
    theirs = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau())
    theirs.update(params, theirs.init(params), params, value=1.0, valeu=3.0)
    optax.with_extra_args_support(optax.adam(0.1)).update(
        params, optax.adam(0.1).init(params), params, valeu=3.0
    )
    mine = gx.adam(0.1)
    with pytest.raises(TypeError, match="'valeu'; did you mean 'value'"):
        mine.update(params, mine.init(params), params, valeu=3.0)


def test_12_clipping_at_zero_and_at_infinity():
    def clipped(tx, u):
        return np.asarray(tx.update(u, tx.init(u))[0])

    assert np.isnan(clipped(optax.clip_by_global_norm(0.0), jnp.zeros(2))).all()
    with_inf = clipped(optax.clip_by_global_norm(1.0), jnp.array([1.0, jnp.inf]))
    assert with_inf[0] == 0
    assert np.isnan(with_inf[1])
    for clip in (gx.clip_by_global_norm, gx.clip_by_leaf_norm):
        np.testing.assert_array_equal(clipped(clip(0.0), jnp.zeros(2)), 0.0)
        np.testing.assert_array_equal(clipped(clip(1.0), jnp.array([1.0, jnp.inf])), 0.0)


def test_13_two_equal_optimizers_are_equal():
    assert optax.adam(1e-3) != optax.adam(1e-3)
    assert gx.adam(1e-3) == gx.adam(1e-3)
    assert hash(gx.adam(1e-3)) == hash(gx.adam(1e-3))


def test_13_an_equal_static_argument_retraces_nothing():
    def traces(make):
        seen = []

        def step(tx, params):
            seen.append(tx)
            return tx.update(params, tx.init(params), params)[0]

        jitted = jax.jit(step, static_argnums=0)
        for _ in range(3):
            jitted(make(), jnp.ones(2))
        state_seen = []
        in_state = jax.jit(
            lambda state: state_seen.append(state) or state.apply_gradients(grads=state.params)
        )
        for _ in range(3):
            in_state(TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=make()))
        return len(seen), len(state_seen)

    assert traces(lambda: optax.adam(1e-3)) == (3, 3)
    assert traces(lambda: gx.adam(1e-3)) == (1, 1)


def test_13_an_optimizer_is_an_argument_and_a_result():
    params = jnp.ones(2)

    def step(tx):
        return tx.update(params, tx.init(params), params)[0]

    with pytest.raises(TypeError, match="as an abstract array"):
        jax.jit(step)(optax.adam(1e-3))
    with pytest.raises(TypeError, match=r"[Oo]utput|valid JAX type"):
        jax.vmap(optax.adam)(jnp.array([1e-3, 1e-2]))
    np.testing.assert_allclose(jax.jit(step)(gx.adam(1e-3)), -1e-3, rtol=1e-4)
    sweep = jax.vmap(gx.adam)(jnp.array([1e-3, 1e-2]))
    np.testing.assert_allclose(jax.vmap(step)(sweep)[:, 0], [-1e-3, -1e-2], rtol=1e-4)


def test_13_pickle_and_repr():
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pickle.dumps(optax.adam(1e-3))
    assert "0x" in repr(optax.adam(1e-3))
    tx = gx.adam(1e-3)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert repr(tx) == "adam(learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0)"


def test_the_table_tells_where_each_behaviour_is_tested():
    found: dict[int, set[str]] = {}
    folder = Path(__file__).parents[1]
    for path in folder.rglob("test_*.py"):
        text = path.read_text()
        for number in re.findall(r"^def test_(\d+)_", text, re.MULTILINE):
            assert "optax." in text, path
            here = path == Path(__file__)
            found.setdefault(int(number), set()).add(
                "here" if here else path.relative_to(folder).as_posix()
            )
    rows = re.findall(r"^ +(\d+)  .{62} *(.+)$", __doc__, re.MULTILINE)
    table = {int(number): set(where.split(", ")) for number, where in rows}
    assert table.keys() == set(range(1, 17))
    assert {number: where for number, where in table.items() if number in found} == found
    assert all("none yet" in str(table[number]) for number in table.keys() - found.keys())
