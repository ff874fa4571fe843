"""Bad input: each is an error, where the user made it, that names the argument or the path."""

import inspect
import math
import re
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import TRANSFORMATIONS

import gradxform as gx
from gradxform.core.chain import Named
from gradxform.core.hyper import Decay, Range
from gradxform.core.transform import Transform
from gradxform.interop.optax import aliases
from gradxform.testing import LAWS, check_law, check_transformation

PARAMS = {"enc": {"kernel": jnp.ones((2, 3))}, "bias": jnp.ones(3)}

# Every constructor, every number, found through the annotations

NEEDED: dict[str, dict[str, Any]] = {
    "manual_schedule": {"values": (1.0, 2.0), "boundaries": (3,)},
    "join_schedules": {"schedules": (1.0, 2.0), "boundaries": (3,)},
    "per_epoch": {"schedule": (0.1,), "steps_per_epoch": 10},
    "from_function": {"function": abs},
    "piecewise_interpolate_schedule": {"interpolate_type": "linear", "init_value": 1.0},
}


def constructors():
    found = {name: getattr(gx, name) for name in [*dir(gx), *aliases.__all__]}
    return {name: f for name, f in found.items() if hasattr(f, "build")}


def ranges(constructor) -> dict[str, Range]:
    return {name: c for name, c in constructor.converters.items() if isinstance(c, Range)}


@lru_cache(maxsize=1)
def registered() -> dict[Any, dict[str, Any]]:
    """The arguments of one instance of each constructor in the registry."""
    found: dict[Any, dict[str, Any]] = {}
    for entry in TRANSFORMATIONS.values():
        try:
            tx = entry.make()
        except (TypeError, ValueError):  # one broken entry fails its own laws, not every test here
            continue
        for part in (tx, *getattr(tx, "items", {}).values()):
            if isinstance(part, Named):
                found.setdefault(part._function, part.arguments)
    return found


def needed(constructor) -> dict[str, Any]:
    """Legal arguments: those of the registry's instance, or a value for each that has no default."""
    if constructor in registered():
        return dict(registered()[constructor])
    if constructor.__name__ in NEEDED:
        return dict(NEEDED[constructor.__name__])
    parameters = inspect.signature(constructor).parameters.values()
    of = ranges(constructor)
    return {
        p.name: inside(of[p.name])[0] if p.name in of else 0 if p.name == "key" else gx.sgd(0.1)
        for p in parameters
        if p.default is p.empty
    }


def outside(r: Range) -> list[Any]:
    """Numbers just outside the interval at each end, and NaN and the infinities that are not its end."""
    low, high = r.low, r.high
    bad = [math.nan, -math.inf, *([] if r.interval.endswith("inf]") else [math.inf])]
    bad += (
        []
        if math.isinf(low)
        else [
            low
            if r.interval[0] == "("
            else -1e-30
            if low == 0
            else np.nextafter(low, -math.inf).item()
        ]
    )
    bad += (
        []
        if math.isinf(high)
        else [high if r.interval[-1] == ")" else np.nextafter(high, math.inf).item()]
    )
    return bad


def inside(r: Range) -> list[float]:
    low, high = r.low, r.high
    some = [0.5, 1.0, 2.0, 1e-3, -3.0, 1e6, low, high]
    return [
        x
        for x in some
        if r._contains(np.asarray(x)) and math.isfinite(x) and (not r.integer or x == int(x))
    ]


NUMBERS = [(name, argument) for name, f in constructors().items() for argument in ranges(f)]


def test_the_walk_finds_the_constructors():
    assert {
        "adam",
        "sgd",
        "rmsprop",
        "ema",
        "clip_by_global_norm",
        "reduce_on_plateau",
        "linear_schedule",
    } <= constructors().keys()
    assert {argument for name, argument in NUMBERS if name == "adam"} == {
        "learning_rate",
        "b1",
        "b2",
        "eps",
        "eps_root",
    }
    assert len(NUMBERS) > 90
    numeric = {
        f
        for _, f in constructors().items()
        if any(isinstance(p.default, float) for p in inspect.signature(f).parameters.values())
    }
    for f in numeric:  # a float default without an interval would escape this file
        plain = {
            n for n, p in inspect.signature(f).parameters.items() if isinstance(p.default, float)
        } - ranges(f).keys()
        assert not plain, f"{f.__name__}: {plain} have no interval"


@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_a_number_outside_its_interval_is_an_error_that_names_it(name, argument):
    constructor = getattr(gx, name)
    r, given = ranges(constructor)[argument], needed(constructor)
    sequence = isinstance(given.get(argument), tuple)
    for bad in outside(r):
        forms = (
            [bad, np.float32(bad), jnp.asarray(bad, jnp.float32)]
            if float(np.float32(bad)) == bad or math.isnan(bad)
            else [bad]
        )
        for x in [*forms, np.array([0.5, bad])]:
            if sequence:
                x = (*given[argument][:-1], x)
            with pytest.raises((ValueError, TypeError)) as error:
                constructor(**given | {argument: x})
            message = str(error.value)
            where = rf"{argument}\[{len(x) - 1}\]" if sequence else argument
            assert re.match(
                rf"{name}: {where} must lie in {re.escape(r.interval)}; got ", message
            ), message
            assert repr(bad) in message, message
    for good in [] if sequence else inside(r):
        constructor(**given | {argument: good})
    assert r.meaning


@pytest.mark.parametrize(
    ("name", "argument"),
    [(n, a) for n, a in NUMBERS if n in ("adam", "reduce_on_plateau", "linear_schedule", "clip")],
)
@pytest.mark.parametrize("bad", ["0.1", b"0.1", True, {}, object(), 1j, {1, 2}, ...])
def test_a_value_of_another_type_is_an_error_that_names_it(name, argument, bad):
    constructor = getattr(gx, name)
    with pytest.raises((TypeError, ValueError), match=rf"{name}: {argument}"):
        constructor(**needed(constructor) | {argument: bad})


@pytest.mark.parametrize(
    "bad", [np.array("a"), np.array(True), np.array(1j), jnp.ones((), bool), jnp.complex64(1j)]
)
def test_an_array_of_no_real_numbers_is_an_error_that_names_it(bad):
    with pytest.raises((TypeError, ValueError), match="adam: b2"):
        gx.adam(0.1, b2=bad)
    with pytest.raises((TypeError, ValueError), match="sgd: learning_rate"):
        gx.sgd(bad)


def test_none_for_a_number_that_is_not_optional():
    assert gx.sgd(0.1, None).momentum is None
    for name, argument in (
        ("sgd", "learning_rate"),
        ("adam", "b1"),
        ("clip", "max_delta"),
        ("reduce_on_plateau", "patience"),
    ):
        constructor = getattr(gx, name)
        with pytest.raises((TypeError, ValueError), match=f"{name}: {argument}"):
            constructor(**needed(constructor) | {argument: None})


@pytest.mark.parametrize("bad", [[0.1, 0.2], (0.1,), []])
def test_a_list_is_no_number(bad):
    with pytest.raises((TypeError, ValueError), match="sgd: learning_rate"):
        gx.sgd(bad)


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, jnp.float32])
def test_a_count_is_a_whole_number(kind):
    with pytest.raises(
        ValueError, match=r"reduce_on_plateau: patience must be a whole number; got .*2\.5"
    ):
        gx.reduce_on_plateau(patience=kind(2.5))
    assert gx.reduce_on_plateau(patience=2.0) == gx.reduce_on_plateau(patience=2)


def test_the_values_of_tables_and_sequences_are_checked_too():
    with pytest.raises(
        ValueError, match=r"sgd: learning_rate\['\*\*/kernel'\] must lie in \[0, inf\); got -1.0"
    ):
        gx.sgd(gx.by_path({"**/kernel": -1.0, "**": 0.1}))
    with pytest.raises(
        ValueError, match=r"boundaries_and_scales\[10\] must lie in \[0, inf\); got -0.5"
    ):
        gx.piecewise_constant_schedule(1.0, {10: -0.5})
    with pytest.raises(
        ValueError, match=r"manual_schedule: boundaries\[1\] must lie in \[0, inf\); got -2"
    ):
        gx.manual_schedule((1.0, 2.0, 3.0), (1, -2))
    with pytest.raises(
        ValueError, match=r"adam: b1 must lie in \[0, 1\]; got jnp.array\(\[0.5, 1.5\], 'float32'\)"
    ):
        gx.adam(0.1, b1=jnp.array([0.5, 1.5]))


@pytest.mark.parametrize(("name", "argument"), [(n, a) for n, a in NUMBERS if n not in NEEDED])
def test_traced_numbers_pass(name, argument):
    """No Python branch on a number: a tracer, even one that turns out to lie outside, builds."""
    constructor = getattr(gx, name)
    build = partial(constructor, **{k: v for k, v in needed(constructor).items() if k != argument})
    out = jax.eval_shape(lambda x: build(**{argument: x}), jnp.float32(7.5))
    assert type(out) is type(constructor(**needed(constructor)))
    assert getattr(out, argument).shape == ()


def test_arguments_that_do_not_exist_or_are_missing():
    with pytest.raises(TypeError, match=r"adam: got an unexpected keyword argument 'beta1'"):
        gx.adam(0.1, beta1=0.9)
    with pytest.raises(TypeError, match=r"sgd: missing a required argument: 'learning_rate'"):
        gx.sgd()
    with pytest.raises(TypeError, match=r"sgd: too many positional arguments"):
        gx.sgd(0.1, 0.9, True, None, 5)
    with pytest.raises(TypeError, match=r"adam: mu_dtype must be a dtype; got \[1\]"):
        gx.adam(0.1, mu_dtype=[1])
    with pytest.raises(TypeError, match=r"adam: mu_dtype must be a dtype; got 'a'"):
        gx.adam(0.1, mu_dtype="a")  # bytes, to NumPy
    with pytest.raises(TypeError, match=r"adam: nesterov must be True or False; got \[1\]"):
        gx.adam(0.1, nesterov=[1])


CONVENTIONS = {
    n: f for n, f in constructors().items() if "convention" in inspect.signature(f).parameters
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_an_unknown_convention_lists_those_there_are(name):
    constructor = CONVENTIONS[name]
    known = needed(constructor).get("convention", "optax")
    with pytest.raises(ValueError, match=rf"\w+: convention must be .*{known}.*; got 'tf'"):
        constructor(**needed(constructor) | {"convention": "tf"}).init(PARAMS)


def test_contradictory_choices():
    for make, words in (
        (lambda: gx.sgd(0.1, nesterov=True), "sgd: nesterov=True needs a momentum"),
        (lambda: gx.rmsprop(0.1, nesterov=True), "rmsprop: nesterov=True needs a momentum"),
        (
            lambda: gx.momentum(0.9, 0.5, True, convention="torch"),
            "momentum: torch has no nesterov momentum with dampening",
        ),
        (
            lambda: gx.reduce_on_plateau(mode="least"),
            "reduce_on_plateau: mode must be 'min' or 'max'; got 'least'",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make().init(PARAMS)
    with pytest.raises(
        ValueError,
        match="manual_schedule: values must be one more than boundaries; got 2 and 2 boundaries",
    ):
        gx.manual_schedule((1.0, 2.0), (1, 2))(0)


@pytest.mark.parametrize("where", [3, 1.5, {"a": 1}, {"a": jnp.ones(2)}, b"x"])
def test_where_is_a_pattern_a_predicate_or_a_tree_of_booleans(where):
    with pytest.raises(
        TypeError,
        match="adamw: mask must be a path pattern, a predicate f\\(path, leaf\\), a tree of booleans or a func",
    ):
        gx.adamw(0.1, mask=where)


def test_where_of_another_structure_than_the_parameters():
    """A misspelt name in a tree of booleans must not switch the decay of its leaf off in silence."""
    misspelt = {"enc": {"kernel": True}, "bais": True}
    with pytest.raises(ValueError, match="bais"):
        gx.add_decayed_weights(0.5, misspelt).init(PARAMS)
    with pytest.raises(ValueError, match="bias"):
        gx.add_decayed_weights(0.5, {"enc": {"kernel": True}}).init(PARAMS)
    with pytest.raises(ValueError, match="no label for the leaves"):
        gx.add_decayed_weights(0.5, []).init(PARAMS)


@pytest.mark.parametrize("key", [True, 0.5, "0"])
def test_what_is_no_key(key):
    with pytest.raises((TypeError, ValueError), match="add_noise: key"):
        gx.add_noise(0.1, 0.55, key)


@pytest.mark.parametrize("key", [None, [1, 2, 3], {}, jnp.ones(2), jnp.ones((2, 2), jnp.uint32)])
def test_what_looks_less_like_a_key(key):
    with pytest.raises((TypeError, ValueError), match="add_noise: key"):
        gx.add_noise(0.1, 0.55, key)


# Trees

ALL = {
    "sgd": lambda: gx.sgd(0.1),
    "adamw": lambda: gx.adamw(0.1),
    "chain": lambda: gx.chain(gx.clip_by_global_norm(1.0), gx.adam(0.1)),
    "tunable": lambda: gx.tunable(gx.adam(0.1)),
    "foreign": lambda: gx.chain(optax.scale(2.0), gx.sgd(0.1)),
}


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("name", ALL)
def test_gradients_that_do_not_fit(name, how):
    tx = ALL[name]()
    state = tx.init(PARAMS)
    update = tx.update if how == "eager" else jax.jit(tx.update)
    with pytest.raises(
        ValueError,
        match=r"the parameters and the updates differ in structure: only in the parameters: \['enc/kernel'\]",
    ):
        update({"bias": jnp.ones(3)}, state, PARAMS)
    with pytest.raises(
        ValueError,
        match=r"differ in structure: only in the updates: \['bias', 'enc/kernel'\]; only in .*\['b'\]",
    ):
        update(PARAMS, state, {"b": jnp.ones(3)})
    for shape in [(2, 1), (1, 3), (3,), (), (3, 2)]:
        bad = {"enc": {"kernel": jnp.ones(shape)}, "bias": jnp.ones(3)}
        message = (
            rf"update 'enc/kernel' has shape {re.escape(str(shape))}, its parameter has \(2, 3\)"
        )
        with pytest.raises(ValueError, match=message):
            update(bad, state, PARAMS)


def test_gradients_that_do_not_fit_the_state():
    """Without params, too, a gradient of another shape or structure is no broadcast."""
    tx = gx.adam(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"slot 'm' and the updates differ in structure"):
        tx.update({"bias": jnp.ones(3)}, state)
    with pytest.raises(ValueError, match="enc/kernel"):
        tx.update({"enc": {"kernel": jnp.ones((2, 1))}, "bias": jnp.ones(3)}, state)


@pytest.mark.parametrize(
    "bad", [jnp.ones((2, 3), jnp.int32), np.ones((2, 3), bool), np.zeros((2, 3), jax.dtypes.float0)]
)
def test_integer_leaves(bad):
    """A parameter that cannot be optimized is frozen, an update that is none for one that can is an error."""
    params = {"enc": {"kernel": bad}, "bias": jnp.ones(3)}
    name = np.dtype(bad.dtype).name if bad.dtype != jax.dtypes.float0 else ""
    tx = gx.adam(0.1)
    assert gx.get(tx.init(params), "m")["enc"]["kernel"] is None
    state = tx.init(PARAMS)
    with pytest.raises(TypeError, match=rf"adam: update 'enc/kernel' has dtype .*{name}"):
        tx.update(params, state, PARAMS)


def test_leaves_that_are_no_arrays():
    with pytest.raises(TypeError, match="ema: parameter 'a/b' is not an array: 'text'"):
        gx.adam(0.1).init({"a": {"b": "text"}})
    with pytest.raises(TypeError, match="parameter 'words' has dtype <U4; only real and complex"):
        gx.sgd(0.1).init({"words": np.array(["text"])})
    tx = gx.sgd(0.1)
    with pytest.raises(TypeError, match="update 'bias'"):
        tx.update(PARAMS | {"bias": "text"}, tx.init(PARAMS))


def test_python_numbers_as_leaves_are_scalars():
    tx = gx.adam(0.1)
    updates, _ = tx.update({"a": 1.0}, tx.init({"a": 2.0}), {"a": 2.0})
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(gx.apply_updates({"a": 2.0}, updates)["a"], 1.9, rtol=1e-6)


@pytest.mark.parametrize(
    "tx", [gx.adamw(0.1), gx.chain(gx.sgd(0.1), gx.add_decayed_weights(0.1)), gx.adam_l2(0.1)]
)
def test_missing_params(tx):
    with pytest.raises(
        ValueError,
        match=r"add_decayed_weights: update\(\) needs the parameters: update\(updates, state, params\)",
    ):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_state_of_another_chain():
    adam, sgd = gx.adam(0.1), gx.sgd(0.1)
    for tx, state, words in (
        (
            adam,
            sgd.init(PARAMS),
            r"ema: this state belongs to another chain: it has \['scale_by_learning_rate'\], not 'ema'",
        ),
        (sgd, (), "scale_by_learning_rate: this state belongs to another chain: it has tuple"),
        (
            gx.chain(adam),
            adam.init(PARAMS),
            r"adam/ema: this state belongs to another chain: it has \['ema', .*\], not 'adam'",
        ),
        (
            gx.chain(("a", gx.ema(0.9))),
            {"a": gx.trace(0.9).init(PARAMS)},
            r"a: this state .* expected slots \['m'\], got \['v'\]",
        ),
        (
            gx.ema(0.9),
            {"m": PARAMS},
            r"ema: this state belongs to another transformation: expected slots \['m'\], got dict",
        ),
        (
            gx.tunable(adam),
            adam.init(PARAMS),
            "tunable: this state belongs to another transformation",
        ),
        (
            adam,
            optax.adam(0.1).init(PARAMS),
            "ema: this state belongs to another chain: it has tuple",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            tx.update(PARAMS, state, PARAMS)


def test_a_state_for_other_parameters():
    tx = gx.adam(0.1)
    with pytest.raises(
        ValueError,
        match=r"ema: the leaves of slot 'm' and the updates differ in structure: only in the updates: \['bias'\]",
    ):
        tx.update(PARAMS, tx.init({"enc": PARAMS["enc"]}), PARAMS)


@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (4, 4), (3,)])
def test_a_state_for_parameters_of_another_shape(shape):
    tx = gx.adam(0.1)
    state = tx.init({"enc": {"kernel": jnp.ones(shape)}, "bias": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"ema: .*enc/kernel"):
        tx.update(PARAMS, state, PARAMS)


def test_an_array_of_numbers_inside_update():
    tx = gx.adam(jnp.array([0.1, 0.2]))
    words = r"scale_by_learning_rate: learning_rate must be a scalar inside update; got shape \(2,\). .*vmap over the optimizer"
    with pytest.raises(ValueError, match=words):
        tx.update(PARAMS, gx.adam(0.1).init(PARAMS), PARAMS)
    bad = gx.scale(lambda step: jnp.ones(1))
    with pytest.raises(
        ValueError, match=r"scale: step_size must be a scalar inside update; got shape \(1,\)"
    ):
        bad.update(PARAMS, gx.scale(1.0).init(PARAMS))


def test_apply_updates_names_the_leaf():
    with pytest.raises(
        ValueError,
        match=r"apply_updates: update 'enc/kernel' has shape \(2, 1\), its parameter has \(2, 3\)",
    ):
        gx.apply_updates(PARAMS, {"enc": {"kernel": jnp.ones((2, 1))}, "bias": jnp.ones(3)})
    with pytest.raises(
        ValueError,
        match=r"apply_updates: the parameters and the updates differ in structure: .*\['bias'\]",
    ):
        gx.apply_updates(PARAMS, {"enc": PARAMS["enc"]})


@pytest.mark.parametrize("value", [jnp.ones(3), [1.0, 2.0], "low", None])
def test_a_watched_value_that_is_no_scalar(value):
    tx = gx.reduce_on_plateau()
    with pytest.raises((TypeError, ValueError), match="reduce_on_plateau: value"):
        tx.update(PARAMS, tx.init(PARAMS), value=value)


# Rules of users


def _slot(p):
    return jnp.zeros_like(p)


def _broadcasts(u, at):
    return u + jnp.ones((2, 2, 3))


def _reduces(u, at, m):
    return u, jnp.sum(m)


def _forgets_a_slot(u, at, m, v):
    return u, m


def _invents_a_slot(u, at):
    return u, u


def _python_number(u, at):
    return 0.0


def _gives_none(u, at):
    return None


BROKEN_RULES = {
    "broadcasts": (
        lambda: gx.leafwise(_broadcasts),
        r"broadcasts: the rule made an update of shape \(2, 2, 3\)",
    ),
    "another shape": (
        lambda: gx.leafwise(_reduces, slots={"m": _slot}),
        "reduces: the rule returned slots of other shapes",
    ),
    "a slot too few": (
        lambda: gx.leafwise(_forgets_a_slot, slots={"m": _slot, "v": _slot}),
        "forgets_a_slot: the rule returned",
    ),
    "a slot too many": (lambda: gx.leafwise(_invents_a_slot), "invents_a_slot: the rule returned"),
    "a Python number": (lambda: gx.leafwise(_python_number), "python_number"),
    "None": (lambda: gx.leafwise(_gives_none), "gives_none"),
}


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_a_rule_that_does_not_fit_its_leaf_is_named(name):
    make, words = BROKEN_RULES[name]
    tx = make()
    with pytest.raises((ValueError, TypeError), match=words) as error:
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert "(leaf 'bias')" in str(error.value) or "(leaf 'enc/kernel')" in str(error.value)


def test_a_rule_that_fails_on_one_leaf_names_that_leaf():
    def only_matrices(u, at):
        return u if u.ndim == 2 else u[None]

    tx = gx.leafwise(only_matrices)
    with pytest.raises(
        ValueError,
        match=r"only_matrices: .* \(1, 3\) for a gradient of shape \(3,\) \(leaf 'bias'\)",
    ):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def _two_numbers(updates, at):
    return 1.0, 2.0, 3.0


def _no_tuple(updates, at):
    return jnp.ones(())


def _uses_scalars(u, at):
    return u * at.scalars


@pytest.mark.parametrize("measure", [_two_numbers, _no_tuple])
def test_a_measure_that_returns_something_else_is_named(measure):
    """A measure gives (scalars, *memory); without memory that is a tuple of one."""
    tx = gx.leafwise(_uses_scalars, measure=measure)
    with pytest.raises((ValueError, TypeError), match="uses_scalars"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_rule_that_asks_for_what_it_was_not_given():
    def needs_more(u, at, *, size, power):
        return u

    tx = gx.leafwise(needs_more, size=1.0)
    with pytest.raises((TypeError, ValueError), match=r"needs_more.*power"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


# Broken transformations, caught by the kit


def user_transformation(static=()):
    """A plain Transform as users write them, registered as a pytree of its numbers."""

    def register(cls):
        names = [name for name in cls.__annotations__ if name not in static]

        def init(self, *args):
            self.__dict__.update(zip(cls.__annotations__, args, strict=True))

        def unflatten(aux, children):
            self = object.__new__(cls)
            self.__dict__.update(
                zip(names, children, strict=True), **dict(zip(static, aux, strict=True))
            )
            return self

        cls.__init__ = init
        cls.__repr__ = lambda self: f"{cls.__name__}()"
        jax.tree_util.register_pytree_node(
            cls,
            lambda s: ([getattr(s, n) for n in names], tuple(getattr(s, n) for n in static)),
            unflatten,
        )
        return cls

    return register


@user_transformation()
class Drifts(Transform):
    """Its velocity starts in the parameter's dtype and is widened by the first update."""

    decay: float

    def init(self, params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(self, updates, state, params=None, **extra):
        state = jax.tree.map(
            lambda v, u: self.decay * v.astype(jnp.float32) + u.astype(jnp.float32), state, updates
        )
        return jax.tree.map(lambda v, u: v.astype(u.dtype), state, updates), state


@user_transformation()
class Branches(Transform):
    """A Python branch on a number."""

    decay: float

    def init(self, params):
        return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)

    def update(self, updates, state, params=None, **extra):
        if self.decay > 0:
            state = jax.tree.map(lambda v, u: self.decay * v + u.astype(v.dtype), state, updates)
            updates = jax.tree.map(lambda v, u: v.astype(u.dtype), state, updates)
        return updates, state


def _itself(p):
    return p.astype(jnp.float32)  # the same buffer where it is float32 already


def _pulls_back(u, at, anchor, *, pull):
    return u + pull * (at.p - anchor), anchor


def _normalises(u, at, v, *, decay):
    v = decay * v + (1 - decay) * u * u
    return u / (jnp.sqrt(v) + 1e-8), v


def _divides_by_itself(u, at):
    return u / jnp.abs(u)


@user_transformation(static=("calls",))
class Counts(Transform):
    """It counts its steps in Python, which a compiled program never does again."""

    decay: float
    calls: Any

    def __eq__(self, other):
        return isinstance(other, Counts)

    def __hash__(self):
        return 0

    def init(self, params):
        return ()

    def update(self, updates, state, params=None, **extra):
        calls = self.calls.n = getattr(self.calls, "n", 0) + 1
        return jax.tree.map(lambda u: u * (1 - self.decay**calls), updates), state


@user_transformation()
class Broadcasts(Transform):
    """Its updates are one number per row."""

    size: float

    def init(self, params):
        return ()

    def update(self, updates, state, params=None, **extra):
        return jax.tree.map(
            lambda u: self.size * jnp.mean(u, axis=-1, keepdims=True), updates
        ), state


class Calls:
    """Something that remembers, equal to its like."""

    def __eq__(self, other):
        return isinstance(other, Calls)

    def __hash__(self):
        return 1


def _size_of_tree(updates, at):
    return (jnp.asarray(len(updates), float),)


def _by_size(u, at):
    return u / at.scalars


BROKEN = {
    "dtypes": (
        lambda: Drifts(0.9),
        r"goes from \(\(2, 3\), dtype\(bfloat16\), False\) to \(\(2, 3\), dtype\('float32'\)",
    ),
    "retrace": (lambda: Branches(0.9), "bool"),
    "donation": (lambda: gx.leafwise(_pulls_back, slots={"anchor": _itself}, pull=0.1), "donate"),
    "zero_gradient": (
        lambda: gx.leafwise(_normalises, slots={"v": gx.zeros()}, decay=0.9),
        r"derivative by .* is nan",
    ),
    "zero_gradient (value)": (lambda: gx.leafwise(_divides_by_itself), "the loss is nan"),
    "pair": (lambda: Counts(0.9, Calls()), "the pair"),
    "dtypes (shape)": (lambda: Broadcasts(0.9), r"an update has \(2, 1\).* its gradient \(2, 3\)"),
    "subtree": (lambda: gx.leafwise(_by_size, measure=_size_of_tree), "the leaf b alone"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_kit_catches_a_broken_transformation_and_names_the_law(name):
    make, words = BROKEN[name]
    law = name.split(" ")[0]
    with pytest.raises(AssertionError, match=rf"breaks the law '{law}'") as error:
        check_transformation(make())
    assert re.search(words, str(error.value)), str(error.value)
    assert LAWS[law].__doc__ in str(error.value)


def test_a_count_in_python_breaks_the_laws_of_compilation_too():
    """Also where a count happens to agree in the first two calls, the compiled program is another one."""
    with pytest.raises(AssertionError, match="breaks the law 'associative'"):
        check_law("associative", Counts(0.9, Calls()))


def _signed(u, at, m, *, decay, size):
    m = decay * m + (1 - decay) * u
    return size * jnp.sign(m), m


def test_the_kit_passes_a_sound_transformation_of_a_user():
    check_transformation(
        gx.leafwise(_signed, slots={"m": gx.zeros()}, direction=True, decay=0.9, size=0.1)
    )


@gx.transformation
def signed(decay: Decay = 0.9):
    """u = sign(m)."""
    return gx.leafwise(_signed, slots={"m": gx.zeros()}, direction=True, decay=decay, size=0.1)


def test_the_kit_passes_a_named_transformation_of_a_user():
    check_law("value", signed(0.8))
    check_law("value", signed(gx.linear_schedule(0.5, 0.9, 10)))


def test_exceptions_of_the_kit_must_be_real():
    with pytest.raises(
        AssertionError,
        match="keeps the law 'subtree' although it is listed as an exception: no reason",
    ):
        check_law("subtree", gx.sgd(0.1), exceptions={"subtree": "no reason"})
    with pytest.raises(
        ValueError, match="check_transformation: no law is called 'gravity'; the laws are"
    ):
        check_transformation(gx.sgd(0.1), exceptions={"gravity": "because"})
    check_law("dtypes", Drifts(0.9), exceptions={"dtypes": "known"})
