"""Laws of the tools around transformations, and representatives of every public constructor, made
from its signature.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator

import jax
from jax import export

import gradxform
from gradxform.core import Range, Transform, global_norm, tunable
from gradxform.core.chain import AnyTransform, chain, identity
from gradxform.interop.optax import aliases
from gradxform.optimizers.textbook import adam
from gradxform.state.access import get, numbers
from gradxform.state.describe import describe
from gradxform.testing.samples import tree


def constructors() -> dict[str, Callable]:
    """Every public constructor of transformations by name, those under Optax's names included."""
    public = vars(gradxform) | {name: getattr(aliases, name) for name in aliases.__all__}
    found = {name: f for name, f in public.items() if hasattr(f, "build")}
    made = {name: inspect.signature(f).return_annotation for name, f in found.items()}
    return {name: f for name, f in found.items() if issubclass(made[name], Transform)}


def representative(constructor: Callable, **given):
    """An instance of a public constructor: what has no default gets a value by its name or type."""
    for p in inspect.signature(constructor).parameters.values():
        if p.default is p.empty and p.name not in given:
            given[p.name] = _value_of(constructor, p.name)
    return constructor(**given)


def _even(step, **extra):
    return step % 2 == 0


_VALUES = {"key": 0, "mask": "**", "freeze_mask": False, "param_labels": "all"}
_VALUES |= {"measure": global_norm, "measure_name": "norm", "measures": {"norm": global_norm}}
_VALUES |= {"should_transform_fn": _even, "init_step": ("learning_rate", 0.01)}


def _value_of(constructor, name: str):
    kind = constructor.converters.get(name)
    if name in _VALUES:
        return _VALUES[name]
    if isinstance(kind, Range):
        shares = {"step size": 0.1, "share of": 0.9}
        share = next((x for text, x in shares.items() if kind.meaning.startswith(text)), 0.5)
        return 2 if kind.integer else share
    return adam(0.1) if isinstance(kind, AnyTransform) else {"all": adam(0.1)}


def _around(tx) -> Iterator[Transform]:
    """The transformation in a chain, in its own state, and inside every wrapper."""
    yield chain(identity(), ("part", tx))
    yield tunable(tx)
    for constructor in constructors().values():
        for p in inspect.signature(constructor).parameters.values():
            kind = constructor.converters.get(p.name)
            if p.default is p.empty and isinstance(kind, AnyTransform):
                yield representative(constructor, **{p.name: tx})
                break
            if p.name == "transforms":
                yield representative(constructor, transforms={"all": tx})


def _told(tx) -> tuple[list[tuple[str, ...]], set[str]]:
    """What the tools say of it: the rules of each parameter, and the paths of its numbers."""
    paths = set()

    def look(params):
        state = tx.init(params)
        paths.update(numbers(tx, state))
        for path in paths:
            get(state, path, tx)
        return state

    described, state = describe(tx, tree()), jax.eval_shape(look, tree())
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    told = [*(row.slots for row in described.rows), described.shared]
    assert sum(sum(slots.values()) for slots in told) == size, f"{tx!r}: describe misses bytes"
    assert repr(tx).isprintable(), repr(tx)
    latex = tx._repr_latex_()
    assert latex[:1] == latex[-1:] == "$", f"{tx!r} in LaTeX: {latex}"
    return [row.rules for row in described.rows], paths


def tools_see_all_of_it(tx, extra):
    """`describe`, `numbers`, `get`, `tunable`, `repr` and LaTeX know it alone, in a chain and
    inside every wrapper.
    """
    rules, paths = _told(tx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a whole optimizer, masked, warns
        for outer in _around(tx):
            seen, known = _told(outer)
            for alone, within in zip(rules, seen, strict=True):
                left = iter(within)
                lost = [rule for rule in alone if rule not in left]
                assert not lost, f"describe({outer!r}) loses {lost}: {within}"
            lost = {path for path in paths if not any(f"/{x}".endswith(f"/{path}") for x in known)}
            assert not lost, f"numbers({outer!r}, state) loses {sorted(lost)}: {sorted(known)}"


PLATFORMS = ("cpu", "cuda", "tpu")


def lowers_for_every_platform(tx, extra):
    """Its step is lowered for CPU, CUDA and TPU, whatever this machine has."""
    params = jax.eval_shape(tree)
    step = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))
    given = params, jax.eval_shape(tx.init, params), params
    exported = export.export(step, platforms=PLATFORMS)(*given)
    assert exported.platforms == PLATFORMS
