"""Begin again, for all parameters or for some; and a saved state in the structure of another
optimizer's.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from gradxform.core import Call, InjectStatefulHyperparamsState, Schedule, Transform, TunableState
from gradxform.core import leaves as trees
from gradxform.core.labels import ByPath, as_mask, label_leaves
from gradxform.state.access import Path, _fit, _nodes, _recorded, _split, _within, owners

__all__ = ["migrate", "reset"]


def reset(state, tx: Transform, params, where=None):
    """The state as it was before the first update, for all parameters or for some of them.

    With `where`, what belongs to the chosen parameters begins again: averages, accumulators. Step
    counters and what is kept once for the whole tree go on. The numbers of a `tunable` state stay
    as they are in both cases.

    Args:
        state: the state of `tx`; it is not changed.
        tx: the transformation.
        params: the parameters.
        where: a path pattern, a predicate `f(path, leaf)`, a tree of booleans or a function
            `f(params)`; None for all of it.

    Raises:
        ValueError: a pattern that matches nothing; a state of another transformation.
    """
    fresh = tx.init(params)
    if jax.tree.structure(fresh) != jax.tree.structure(state):
        what = "reset: this state belongs to another transformation or to other parameters"
        raise ValueError(f"{what}: {jax.tree.structure(state)}")
    if where is not None:
        mask = as_mask.convert("reset", "where", where)
        flags = label_leaves("reset", mask, params, True)
        chosen = [path for path, flag in zip(trees.paths(params), flags, strict=True) if flag]
        new = {path: leaf for path, leaf, owner in owners(fresh, params) if owner in chosen}
        return _mapped(state, (), new.get)
    return _keep_numbers(state, fresh)


def _mapped(node, path: Path, f):
    names, children, build = _split(node)
    if not names:
        kept = isinstance(node, Schedule | ByPath) or not jax.tree.leaves(node)
        return node if kept else f(path, node)
    rows = zip(names, children, strict=True)
    return build([_mapped(child, (*path, name), f) for name, child in rows])


def _keep_numbers(old, new):
    if isinstance(old, TunableState):
        return TunableState(old.tx, _keep_numbers(old.inner, new.inner))
    if isinstance(old, InjectStatefulHyperparamsState):
        inner = _keep_numbers(old.inner_state, new.inner_state)
        return new._replace(hyperparams=old.hyperparams, inner_state=inner)
    names, children, build = _split(new)
    if not names or isinstance(new, Call):
        return new
    return build([_keep_numbers(o, n) for o, n in zip(_split(old)[1], children, strict=True)])


def migrate(state, into, *, strict: bool = True):
    """A saved state in the structure of another optimizer's: what has the same name keeps its
    value.

        state = migrate(saved, tx.init(params))

    For an optimizer that has gained or lost parts, or was wrapped. A part without slots of its own
    is no obstacle: its step count becomes that of the saved state, its record of a learning rate
    stays fresh where none was saved. Names match where one path is the end of the other, so that
    the state of `adam(1e-3)` fits into `chain(clip_by_global_norm(1.0), adam(1e-3))`. The saved
    state may be the plain dicts and lists that a checkpoint gives, those of a Flax nnx optimizer
    among them.

    Args:
        state: the saved state.
        into: a fresh state of the new optimizer.
        strict: whether a saved value without a place, or a slot without a saved value, is an error;
            otherwise it is dropped or stays fresh.

    Raises:
        ValueError: as `strict` has it, or shapes that differ, each listed.
    """
    given = list(_leaves(state))
    wrapped = all(path[-1] == "value" for path, _ in given)  # as a checkpoint has nnx Variables

    def plain(path: Path) -> Path:
        return tuple(name for name in path if name not in ("slots", ""))

    saved = {plain(path[:-1] if wrapped else path): x for path, x in given}
    records = [*map(plain, _recorded(state)), *_recorded(into)]  # which the next update makes
    steps = sorted((path for path in saved if path[-1:] == ("step",)), key=len)
    used: list[Path] = []
    missing, unfit = [], []

    def value(path: Path, fresh):
        path = plain(path)
        ends = [path] if path in saved else [p for p in saved if _end(p, path) or _end(path, p)]
        longest = [p for p in ends if len(p) == max(map(len, ends))]
        if len(longest) != 1:
            if path[-1:] == ("step",) and steps:
                return _fit("migrate", "step", fresh, saved[steps[0]])
            if not _within(path, records):
                missing.append("/".join(path))
            return fresh
        used.append(longest[0])
        old = saved[longest[0]]
        if jnp.shape(old) != jnp.shape(fresh):
            unfit.append(f"{'/'.join(path)}: {jnp.shape(old)} saved, {jnp.shape(fresh)} here")
            return fresh
        return jnp.asarray(old, fresh.dtype)

    out = _mapped(into, (), value)
    left = [path for path in saved if path not in used and path[-1:] != ("step",)]
    idle = ["/".join(path) for path in left if not _within(path, records)]
    if unfit or (strict and (missing or idle)):
        raise ValueError(
            f"migrate: shapes that differ: {unfit[:8]}; without a saved value: {missing[:8]}; "
            f"saved without a place: {idle[:8]}"
        )
    return out


def _leaves(state) -> Iterator[tuple]:
    for path, node in _nodes(state):
        if not _split(node)[0] and jax.tree.leaves(node):
            yield path, node


def _end(short: Path, long: Path) -> bool:
    return 1 < len(short) < len(long) and long[-len(short) :] == short
