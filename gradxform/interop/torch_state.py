"""The `state_dict` of torch's SGD, Adam, AdamW or Muon in the state of the same method here, so
that a run goes on.

Entries may be torch tensors or NumPy arrays; nothing here imports torch.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import Leafwise, RuleState, as_transform
from gradxform.core.leafwise import RECORDED
from gradxform.interop.optax.state import Import, leaves, with_records
from gradxform.matrices.matrixwise import Matrixwise
from gradxform.state.access import with_children
from gradxform.wrappers.masking import Partition

# what torch keeps for SGD with momentum, for Muon, for Adam and AdamW, for these with amsgrad=True
SGD = namedtuple("SGD", ["count", "momentum_buffer"])
Muon = namedtuple("Muon", SGD._fields)
Adam = namedtuple("Adam", ["count", "exp_avg", "exp_avg_sq"])
AMSGrad = namedtuple("AMSGrad", [*Adam._fields, "max_exp_avg_sq"])


class _FromTorch(Import):
    owner = "import_torch_state"
    saved = "the state_dict"
    fields: ClassVar[dict] = {
        "momentum": {"SGD": {"v": "momentum_buffer"}},
        "trace": {"SGD": {"v": "momentum_buffer"}},
        "ema": {"Adam": {"m": "exp_avg"}, "AMSGrad": {"m": "exp_avg"}}
        | {"Muon": {"m": "momentum_buffer"}},
        "scale_by_rms": {"Adam": {"v": "exp_avg_sq"}},
        "scale_by_rms_max": {"AMSGrad": {"v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}},
    }
    rules: ClassVar[dict] = {"scale_by_rms_max": ("_max_debiased",)}
    stepped = False

    def part(self, path: str, tx, state):
        if not isinstance(tx, Partition):
            return super().part(path, tx, state)
        groups = {label: (part, below) for label, part, below, _ in tx.inside(state)}
        at = f"{path}/" if path else ""
        made = {k: self.part(f"{at}{k}", *x) for k, x in groups.items() if _has_leaves(x[1])}
        return with_children(state, {k: x for k, (_, x) in groups.items()} | made)

    def rule(self, path: str, tx: Leafwise | Matrixwise, state: RuleState):
        if self.stepped and "v" in state.slots and tx.direction:
            text = "has the learning rate inside the velocity, which torch has not"
            raise self.error(f"{path} {text}")
        self.stepped |= isinstance(tx, Leafwise) and tx.records
        out = super().rule(path, tx, state)
        if self.step is None:  # a buffer has seen one
            out = RuleState(jnp.ones((), jnp.int32), out.slots)
        return out


def _has_leaves(state) -> bool:
    """Whether a group has parameters: what is remembered of each."""
    is_rule = lambda x: isinstance(x, RuleState)  # noqa: E731
    rules = filter(is_rule, jax.tree.leaves(state, is_leaf=is_rule))
    slots = (x for rule in rules for name, x in rule.slots.items() if name != RECORDED)
    return any(jax.tree.leaves(x) for x in slots)


def _error(text: str) -> ValueError:
    return ValueError(f"import_torch_state: {text}")


def import_torch_state(
    tx, state_dict: Mapping[str, Any], params, names: Sequence[str] | None = None,
    transform: Callable[[str, np.ndarray], Any] | None = None, *, step=None,
):  # fmt: skip
    """The `state_dict()` of torch's SGD, Adam, AdamW or Muon as the state of the same method here.

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        state = import_torch_state(
            adamw(1e-3), optimizer.state_dict(), params, ["dense/kernel", "dense/bias"],
            lambda path, x: x.T if path.endswith("kernel") else x,
        )

    SGD's buffer becomes the slot of `momentum`, `exp_avg` that of `ema`, `exp_avg_sq` that of
    `scale_by_rms`; with amsgrad=True the method is `amsgrad(convention="torch")`. Muon's buffer is
    for `muon(convention="torch")` on the same parameters, all matrices. Numbers are those of `tx`,
    not of the parameter groups.

    Args:
        tx: the optimizer whose state it becomes.
        state_dict: its entries torch tensors on the CPU, or NumPy arrays.
        params: the parameters.
        names: the path of each parameter here, in the order in which torch was given them; by
            default that of the leaves.
        transform: `f(path, array) -> array`, what was done to the weights: a transposition for
            those of `torch.nn.Linear`.
        step: the updates made, for SGD and Muon, of which torch counts none.

    Raises:
        ValueError: another optimizer; a parameter without an entry, or with another shape; names
            that are not the leaves; a part of `tx` that torch's method has not. Each is named.
    """
    if not isinstance(state_dict, Mapping) or not state_dict.keys() >= {"state", "param_groups"}:
        what = "state_dict must have 'state' and 'param_groups'"
        raise _error(f"{what}, as an optimizer's state_dict() gives them")
    tx = as_transform(tx)
    groups, entries = state_dict["param_groups"], state_dict["state"]
    order = [index for group in groups for index in group["params"]]
    flat, structure = jax.tree.flatten(params)
    paths = [path for path, _ in leaves(params)]
    names = paths if names is None else list(names)
    if sorted(names) != sorted(paths):
        missing, unknown = sorted(set(paths) - set(names)), sorted(set(names) - set(paths))
        what = f"missing {missing[:8]}, unknown {unknown[:8]}"
        raise _error(f"names must be the leaves, each once: {what}")
    if len(order) != len(names):
        count = f"the state_dict has {len(order)} parameters, params {len(names)}"
        raise _error(f"{count}: {names[:8]}")
    kind = _kind(groups, entries)
    if kind is None:
        level = _FromTorch((), step=step)
    else:
        found = [entries.get(index, entries.get(str(index), {})) for index in order]
        at, rows = dict(zip(names, found, strict=True)), [*zip(paths, flat, strict=True)]
        each = [[_entry(at, field, *row, transform) for row in rows] for field in kind._fields[1:]]
        count = _count(at, kind, step)
        level = _FromTorch(kind(count, *map(structure.unflatten, each)), "state_dict", count)
    return with_records(tx, level.run(tx, tx.init(params)), params, level.step)


def _kind(groups, entries):
    """The named tuple of the optimizer's values; None for SGD without momentum."""
    keys = {key for group in groups for key in group}
    found = {key for entry in entries.values() for key, x in entry.items() if x is not None}
    if {"momentum", "dampening", "nesterov"} <= keys and found <= {"momentum_buffer"}:
        return SGD if found or any(group["momentum"] for group in groups) else None
    if "ns_coefficients" in keys and found <= {"momentum_buffer"}:
        return Muon
    if {"betas", "amsgrad"} <= keys and found <= {"step", *AMSGrad._fields}:
        flags = {bool(group["amsgrad"]) for group in groups}
        if len(flags) > 1:
            what = "some parameter groups have amsgrad=True and some have not"
            raise _error(f"{what}; import them one by one")
        return AMSGrad if True in flags else Adam
    what = f"this is none of SGD, Adam, AdamW and Muon: it keeps {sorted(found)}"
    raise _error(f"{what}, and its groups have {sorted(keys)}")


def _entry(at, field: str, path: str, leaf, transform):
    x = at[path].get(field)
    if x is None:
        raise _error(f"the state_dict has no {field} for {path!r}")
    x = np.asarray(x)
    x = np.asarray(x if transform is None else transform(path, x))
    if x.shape != leaf.shape:
        hint = "; give transform=" if transform is None and x.shape[::-1] == leaf.shape else ""
        raise _error(f"{field} of {path!r} has shape {x.shape}, the parameter {leaf.shape}{hint}")
    return x


def _count(at, kind, step):
    """The updates made, the same for all parameters."""
    if kind in (SGD, Muon):
        return step
    counts = {path: int(np.asarray(entry.get("step", -1))) for path, entry in at.items()}
    if len(set(counts.values())) > 1 or -1 in counts.values():
        raise _error(f"all parameters must have made the same number of steps; here are {counts}")
    return next(iter(counts.values()))
