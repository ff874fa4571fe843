"""An optimizer or a schedule as mathematics, for a notebook: its equations, its numbers, and what
it wraps.

The equations of a transformation are those of its rules, one after another. A rule carries its own:
lines in its docstring, or in an attribute `equation` where they depend on its fields, with `u` for
the update so far, `g` for the gradient, and a letter of `SYMBOLS` for each argument. What the rules
of a named optimizer do to u is read as one expression, and its arguments give the letters.
"""

import inspect
import re
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradxform.display import notation as tex
from gradxform.display.code import code

# An argument or slot -> the letters that stand for it, the usual one first; its name if none does.
SYMBOLS: dict[str, str] = {
    "learning_rate": "α η", "b1": "β₁ β", "b2": "β₂", "b3": "β₃", "beta": "β", "decay": "β",
    "rho": "ρ", "momentum": "β μ", "eps": "ε", "eps_root": "ε₀", "eps1": "ε₁", "eps2": "ε₂",
    "epsilon": "ε", "weight_decay": "λ w", "l2": "λ", "weight_decay_rate": "λ", "lambd": "λ ω",
    "dampening": "d", "nu": "ν", "nu1": "ν₁", "nu2": "ν₂", "alpha": "α κ", "gamma": "γ", "eta": "η",
    "optimism": "o", "scaling": "σ", "step_size": "a s", "step_size_fn": "a", "rate": "α η",
    "scale_factor": "c", "threshold": "z₀ c τ", "clipping_threshold": "d", "max_norm": "c",
    "min_norm": "n", "max_delta": "δ", "clipping": "c", "cap": "c", "trust_coefficient": "η",
    "min_scale": "ε₂", "sync_period": "k", "slow_step_size": "α", "period": "k", "every_k": "k",
    "every_k_schedule": "k", "update_interval": "k", "update_proj_gap": "k", "clip_threshold": "ρ",
    "eta_minus": "η⁻", "eta_plus": "η⁺", "min_step_size": "s₋", "max_step_size": "s₊",
    "lambda_rel": "λ_rel", "lambda_abs": "λ_abs", "warmup_steps": "T", "smooth_beta": "s",
    "momentum_decay": "ψ", "decay_rate": "γ rate", "step_offset": "t₀", "t0": "t₀", "f_min": "f*",
    "max_learning_rate": "γ", "lower_bound": "f*", "estim_lr0": "d₀", "estim_lr_coef": "c",
    "reps_rel": "a", "global_scale": "s", "first": "r₀ D₀", "weight_lr_power": "q",
    "l2_norm_clip": "c", "noise_multiplier": "σ", "scale": "s", "rank": "r", "s_init": "s₀",
    "num_betas": "n", "selected": "φ", "accumulation_size": "n", "init_value": "init",
    "end_value": "end", "peak_value": "peak", "base_value": "base", "max_value": "max",
    "transition_steps": "steps", "transition_begin": "begin", "total_steps": "T", "value": "value",
    "m1": "m₁", "m2": "m₂", "v_max": "w", "e_g": "E_g", "e_x": "E_x", "product": "Πₜ",
    "previous": "p₋₁ g₋₁ u₋₁ h", "last": "g₋₁", "s_row": "R'", "s_col": "C'", "v_row": "R",
    "v_col": "C", "mu": "μᵣ μ", "x0": "p₀", "squares": "v", "bets": "θ", "absolute": "G",
    "reward": "R", "average_params": "a", "slow_params": "s", "last_params": "P", "saved": "n",
    "total": "a", "max_dist": "r", "square_sum": "G", "square_dist": "D", "weighted": "V",
    "estim_lr": "d", "numerator": "r", "barf": "f\u0304", "lb": "l", "weight_sum": "W",
    "precond_lr": "μ", "precond_probability": "π", "q_left": "Q", "q_right": "R",
    "exponent": "q", "relative_eps": "ρ", "precondition_frequency": "k", "left": "L", "right": "R",
    "start_preconditioning_step": "t₀", "left_root": "A", "right_root": "B",
    "every": "k", "shampoo_beta": "β", "growth": "γ", "norm": "n",
    "left_basis": "U", "right_basis": "V", "left_values": "λ",
    "right_values": "μ", "projector": "P",
    "max_lr": "α_max", "start": "t₀", "mean": "μ", "variance": "v", "found_nan": "nan",
    "consistent_rms": "c",
    "tau": "τ", "floor": "c", "outward": "a", "inward": "b", "radius": "R ρ", "q": "Q",
}  # fmt: skip

SPARE = "wzyxhk"  # letters for a slot whose own letter another rule has taken


def to_mathematics(value) -> str:
    """LaTeX for a notebook, `$$...$$`: the equations of a transformation or a schedule, its
    numbers, and what it wraps. Of a constructor, the equations of its docstring at its defaults.
    """
    return f"$${_aligned(_rows(value))}$$"


def _aligned(rows: list[str]) -> str:
    return r"\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"


def equations(rule) -> list[str]:
    """The equations of a rule, one by one; none where its docstring is anything else."""
    text = getattr(rule, "equation", None) or inspect.getdoc(rule) or ""
    lines = tex.one_by_one(text.splitlines())
    return lines if all(map(tex.LEFT.match, lines)) else []


def first_block(function, arguments: dict) -> list[str]:
    """The equations of a constructor's docstring, its first indented block. A line that ends in
    `name="value"` stands for that value of the argument only.
    """
    doc = inspect.getdoc(getattr(function, "build", function)) or ""
    _, *rest = doc.split("\n\n")
    # a block that ends its docstring has lost its indentation
    blocks = [x for x in rest if x.startswith("    ") or len(rest) == 1]
    lines = next((x.splitlines() for x in blocks if re.search(" [←=⇔] ", x)), [])
    kept = []
    for line in tex.one_by_one(lines):
        found = re.search(r'  +(\w+)=("[\w+-]+"|True|False|None)', line)
        if not (found and found[1] in arguments):
            kept.append(line)
        elif found[2].strip('"') == str(arguments[found[1]]):
            kept.append(line[: found.start()] + re.sub(r"^[:,] *", "   ", line[found.end() :]))
    return kept


def _rows(value, name: str = "") -> list[str]:
    """The lines of a display: a title, the equations, the numbers, and what is inside."""
    if inspect.isfunction(value):
        parameters = inspect.signature(value).parameters
        defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
        return [_title(value.__name__), *map(to_row, first_block(value, defaults))]
    arguments = _arguments(value)
    inner = {key: parts for key, x in arguments.items() if (parts := _parts(x))}
    if not name:  # what only holds others, as a state does, is named after its type
        holds = inner and not hasattr(type(value), "arguments")
        name = type(value).__name__.lower() if holds else _name(value)
    if isinstance(getattr(value, "items", None), dict):  # a chain
        rows = [row for part, tx in value.items.items() for row in _rows(tx, part)]
        return rows or [_title(name), to_row("u ← u")]
    if hasattr(value, "table") or _parted(value):
        lines = first_block(value._function, arguments)
        lines, letters = lines or ([] if inner else [f"a(step) = `{name}`(step)"]), {}
    else:
        lines, letters = _composed(value, inner)
    rows = [_title(name), *map(to_row, lines)]
    if numbers := _numbers(value, arguments, letters, "\n".join(lines)):
        rows += _wrapped(numbers)
    for key, parts in inner.items():
        for label, part in parts.items():
            shown = tex.upright(f"{key} {label}".strip().replace("_", " "))
            rows.append(rf"&{shown}: \left|\; {_aligned(_rows(part))} \right.")
    return rows


def _parted(value) -> bool:
    """Whether it has different rules for different parameters, so that they are not one text."""
    given = {id(x) for parts in map(_parts, _arguments(value).values()) for x in parts.values()}
    found: Any = _rules(value, given) if hasattr(value, "expand") else ()
    wholes = (part.expand() for part in found if part is not value and hasattr(part, "expand"))
    return any(hasattr(whole, "transforms") for whole in wholes)


def _title(name: str) -> str:
    return rf"&\textbf{{{tex.upright(name)[6:-1]}}}"


def _name(value) -> str:
    return getattr(value, "name", type(value).__name__)


def _arguments(value) -> dict:
    """What a value was made of, by name."""
    if hasattr(type(value), "arguments"):
        return value.arguments
    if hasattr(value, "hypers"):
        return value.hypers
    fields = getattr(value, "__dict__", {}).items()
    return {k: v for k, v in fields if (_is_value(v) or isinstance(v, float)) and k[:1] != "_"}


def _is_value(x) -> bool:
    return hasattr(type(x), "_repr_latex_") or hasattr(x, "patterns")


def _parts(x) -> dict:
    """The transformations and schedules that an argument consists of, by name."""
    if _is_value(x) and hasattr(x, "init") and hasattr(x, "update"):
        return {"": x}
    if isinstance(x, dict):
        return {str(k): v for k, v in x.items() if _parts(v)}
    if isinstance(x, tuple | list):
        pairs = [
            v if isinstance(v, tuple) and len(v) == 2 and isinstance(v[0], str) else ("", v)
            for v in x
        ]
        whole = all(_is_value(v) and (hasattr(v, "table") or _parts(v)) for _, v in pairs)
        return {k or str(i): v for i, (k, v) in enumerate(pairs, 1)} if whole else {}
    items: Any = getattr(x, "items", None)
    pairs: Any = items() if callable(items) else ()
    return _parts(dict(pairs))


# --- the rules of a transformation as one text


def _composed(value, inner) -> tuple[list[str], dict[str, tuple]]:
    """The equations of a transformation's rules as one text, and what its letters are: the name of
    an argument or "", and a value.
    """
    tx, owners = _marked(value)
    given = {id(x) for k, v in _arguments(tx).items() if k in inner for x in _parts(v).values()}
    parts = list(_rules(tx, given))
    letters: dict[str, tuple] = {}
    slots: set[str] = set()
    rules = []
    for part in parts:
        if part is None:  # what it wraps
            rules.append(([], True))
            continue
        lines, hypers = _equations(part), _arguments(part)
        text = "\n".join(lines)
        changes = {}
        for name, x in hypers.items():
            owner = name if owners is None else _owner(name, x, owners, _arguments(tx))
            own = own_letter(name, text, changes)
            if own and not owner and isinstance(x, int | float) and x in (-1, 0, 1):
                text = tex.without(text, own, x)
            if own and tex.symbol(own).search(text):
                changes[own] = _new_letter(own, name, owner, x, letters)
        for name, _ in getattr(part, "slots", ()):
            own = own_letter(name, text, changes) or name
            changes[own] = own if own not in slots else next(c for c in SPARE if c not in slots)
            slots.add(changes[own])
        text = tex.renamed(text, changes)
        rules.append((text.splitlines(), getattr(part, "direction", False)))
    whole = tx is not value and hasattr(tx.expand(), "items") and any(map(_steps, parts))
    start = "g" if whole and parts[0] is not None else "u"
    return _joined(rules, start, whole) if rules else ["u ← u"], letters


def _marked(value):
    """The same with numbers that can be told apart, and which argument each of them is; None where
    they are its own.
    """
    if not hasattr(value, "expand"):
        return value, None
    fresh = jax.tree.map(lambda x: x * 1.0 if isinstance(x, float) else x, value._dynamic)
    owners = {}
    for name, x in fresh.items():
        rows = {f"{name}[{i}]": v for i, v in enumerate(x)} if isinstance(x, tuple) else {name: x}
        owners |= {id(leaf): row for row, v in rows.items() for leaf in jax.tree.leaves(v)}
    return type(value)(value._function, fresh, value._static), owners


def _rules(tx, given: set[int]):
    """Its rules in order; None for what it wraps; itself where it does not consist of rules."""
    whole = tx.expand() if hasattr(tx, "expand") else tx
    if id(tx) in given:
        yield None
    elif isinstance(getattr(whole, "items", None), dict):
        for part in whole.items.values():
            yield from _rules(part, given)
    elif whole is not tx and (hasattr(whole, "slots") or hasattr(whole, "expand")):
        yield from _rules(whole, given)
    else:
        yield tx


def _equations(part) -> list[str]:
    """The equations of a rule and of its measure, or of what is made of something else."""
    whole = part.expand() if hasattr(part, "expand") else part
    rule = getattr(whole, "rule", getattr(whole, "function", whole))
    measure = getattr(whole, "measure", None)
    lines = (equations(measure) if measure else []) + equations(rule)
    if not lines and whole is not part:
        lines = first_block(part._function, part.arguments)
    wraps = any(map(_parts, _arguments(part).values()))
    return lines or ([] if wraps else [f"u ← `{_name(part)}`(u)"])


def own_letter(name: str, text: str, taken=()) -> str:
    """The letter of an argument in a text; "" where none is."""
    candidates = [*SYMBOLS.get(name, "").split(), name]
    free = (s for s in candidates if s not in taken)
    return next((tex.normal(s) for s in free if tex.symbol(s).search(text)), "")


def _owner(name: str, x, owners: dict[int, str], arguments) -> str:
    """The argument that a rule's number is: a number, its schedule, or its table by path."""
    leaves = [leaf for leaf in jax.tree.leaves(x) if not isinstance(leaf, int)]
    found = {owners[id(leaf)] for leaf in leaves if id(leaf) in owners}
    if len(found) != 1 and arguments.get(name, owners) is x:  # a number that cannot be told apart
        return name
    return found.pop() if len(found) == 1 else ""


def _new_letter(own: str, name: str, owner: str, x, letters: dict[str, tuple]) -> str:
    """The letter that a rule's number has in the whole: that of the argument it is."""
    same = [k for k, it in letters.items() if it[0] == owner and (owner or it[1] is x)]
    usual = SYMBOLS.get(owner or name, "").split()
    candidates = [own, *usual] if owner in ("", name) else [*usual, own]
    free = [k for k in map(tex.normal, candidates) if k not in letters]
    new = next(iter([*same, *free]), own)
    letters[new] = owner, x
    return new


def _steps(part) -> bool:
    """Whether a rule is the end of an optimizer: it has the learning rate, or turns the sign."""
    hypers = getattr(part, "hypers", {})
    a = hypers.get("step_size")
    return "learning_rate" in hypers or (isinstance(a, float) and a < 0)


def _joined(rules, step: str, whole: bool) -> list[str]:
    """What the rules make of u as one expression, after the lines it needs; before the first rule u
    is `step`. With `whole` the last line is that of the parameter.
    """
    if len(rules) == 1 and not whole:
        return rules[0][0]
    start, frozen, out = step, step == "u", []
    for i, (lines, direction) in enumerate(rules):
        last = [x for x in lines if x[:2] == "u "]
        alone = len(last) == 1 and "  " not in last[0]
        right = [x.partition(" ← ")[2] or x.partition(" = ")[2] for x in lines]
        uses = sum(len(tex.symbol("u").findall(x)) for x in right)
        later = [x for rule in rules[i + 1 :] for x in rule[0]] if direction else []
        measured = not frozen and any(tex.symbol("g").search(x) for x in [*right, *later])
        if not tex.ATOM.fullmatch(step) and (uses > 1 or measured or not (alone or not last)):
            name = "g" if measured else "u"
            out.append(f"{name} {'←' if tex.symbol(name).search(step) else '='} {step}")
            step = name
        out += [tex.inserted(x, step) for x in lines if not (alone and x is last[0])]
        if alone:
            step = tex.inserted(re.sub("^u [←=] ", "", last[0]), step)
        elif last or not lines:
            step = "u"
        frozen |= direction
    if any(x[:2] == "p " for x in rules[-1][0]):
        return out
    if whole and step != start:
        return [*out, tex.signs(f"p ← p + {step}")]
    if step in (start, "u"):
        return out or ([] if any(not lines for lines, _ in rules) else ["u ← u"])
    return [*out, f"u {'←' if tex.symbol('u').search(step) else '='} {step}"]


def to_row(line: str) -> str:
    """A line of an aligned display: the two sides of its equation, and its remark."""
    equation, *remarks = re.split(r"\s{2,}", line.strip())
    equation, remark = equation.rstrip(","), " ".join(remarks)
    at = found.end(1) if (found := tex.LEFT.match(equation)) else 0
    row = rf"{tex.to_latex(equation[:at])} &{tex.to_latex(equation[at:])}".lstrip()
    return row + (rf" \qquad {tex.to_latex(remark)}" if remark else "")


def _numbers(value, arguments, letters: dict[str, tuple], text: str) -> list[str]:
    """`\\beta_1 = 0.9` for each argument that is a number or was given, and for the constants."""
    function = getattr(value, "_function", None)
    parameters = inspect.signature(function).parameters if function else {}
    dynamic = value._dynamic if function else arguments
    by_argument = {argument: letter for letter, (argument, _) in letters.items()}
    shown, used = [], set()
    for name, x in arguments.items():
        letter = by_argument.get(name) or own_letter(name, text, used | letters.keys())
        default = name in parameters and _same(x, parameters[name].default)
        if x is None or _parts(x) or (default and (name not in dynamic or not letter)):
            continue
        used.add(letter)
        shown.append(f"{tex.to_latex(letter) if letter else tex.upright(name)} = {_shown(x)}")
    for letter, (argument, x) in letters.items():
        if argument not in arguments and letter not in used and tex.symbol(letter).search(text):
            shown.append(f"{tex.to_latex(letter)} = {_shown(x)}")
    return shown


def _same(x, default) -> bool:
    if isinstance(x, tuple) and isinstance(default, tuple):
        return len(x) == len(default) and all(map(_same, x, default))
    return x is default or (isinstance(x, int | float | str) and x == default)


def _wrapped(numbers: list[str], width: int = 64) -> list[str]:
    """The numbers in rows that are not too long for a page."""
    rows, length = [r"&\text{with }"], 0
    for i, text in enumerate(numbers):
        seen = len(re.sub(r"\\(?:text|left|right)|\\[a-z]+|[{}_^\\]", "", text))
        if length and length + seen > width:
            rows.append(r"&\phantom{\text{with }}")
            length = 0
        rows[-1] += text + (r",\; " if i < len(numbers) - 1 else "")
        length += seen
    return rows


def _shown(x) -> str:
    """A value in LaTeX: numbers as numbers, schedules and tables by name, the rest as code."""
    if isinstance(x, int | float) and not isinstance(x, bool):
        return tex.number(x)
    if isinstance(x, np.ndarray | np.generic | jax.Array) and not isinstance(x, Tracer):
        if jax.numpy.issubdtype(x.dtype, np.floating) and x.size <= 8:
            entries = [tex.number(float(v)) for v in np.asarray(x, float).ravel()]
            return rf"\left( {', '.join(entries)} \right)" if x.ndim else entries[0]
    elif hasattr(type(x), "arguments"):
        call: Any = x
        defaults = inspect.signature(call._function).parameters
        rows = ((k, v) for k, v in call.arguments.items() if not _same(v, defaults[k].default))
        shown = ", ".join(f"{tex.upright(k)} = {_shown(v)}" for k, v in rows if v is not None)
        return rf"{tex.upright(call.name.strip('_'))}\left( {shown} \right)"
    if (patterns := getattr(x, "patterns", None)) is not None:
        values = jax.tree.leaves(x, is_leaf=lambda v: _is_value(v) and v is not x)
        table = zip(patterns, values, strict=True)
        rows = (f"{tex.upright(code(k))}: {_shown(v)}" for k, v in table)
        return r"\left\{ " + r",\; ".join(rows) + r" \right\}"
    if isinstance(x, tuple | list):
        return r"\left( " + r",\; ".join(map(_shown, x)) + r" \right)"
    text = code(x)
    return tex.upright(text if len(text) <= 60 else f"{text[:59]}…")
