"""An optimizer or a schedule as mathematics, for a notebook: its equations, its numbers, and its
parts in order.
"""

import inspect
import re
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradxform.display.code import code
from gradxform.display.equations import LEFT, equations
from gradxform.display.notation import number, to_latex, upright

# An argument -> the symbols that stand for it; the first one in the equations is shown.
SYMBOLS: dict[str, str] = {
    "learning_rate": "α_lr α α₀", "b1": "β₁ β", "b2": "β₂", "b3": "β₃", "beta": "β", "beta1": "β₁", "decay": "β", "rho": "ρ",
    "eps": "ε", "eps_root": "ε₀", "eps1": "ε₁", "eps2": "ε₂", "epsilon": "ε", "weight_decay": "λ w", "l2": "λ", "momentum": "μ β",
    "dampening": "d", "nu": "ν", "nu1": "ν₁", "nu2": "ν₂", "alpha": "α κ", "gamma": "γ", "eta": "η", "threshold": "threshold τ c",
    "max_norm": "c n", "max_delta": "δ", "step_size": "a", "step_size_fn": "a", "scale_factor": "c", "clipping": "c", "a": "a", "b": "b",
    "power": "power", "every_k": "k", "every_k_schedule": "k",
    "k": "k", "sync_period": "k", "slow_step_size": "α", "trust_coefficient": "η",
    "eta_minus": "η⁻", "eta_plus": "η⁺", "lambda_rel": "λ_rel", "lambda_abs": "λ_abs", "min_scale": "min", "init_value": "init",
    "end_value": "end", "peak_value": "peak", "transition_steps": "steps", "transition_begin": "begin", "decay_rate": "rate",
    "smooth_beta": "s", "total_steps": "T", "l2_norm_clip": "c", "noise_multiplier": "σ", "scale": "s",
}  # fmt: skip


def _is_value(x: Any) -> bool:
    return hasattr(type(x), "_repr_latex_") or hasattr(x, "patterns")


def _is_call(x: Any) -> bool:
    return hasattr(type(x), "arguments")


def to_mathematics(value) -> str:
    """LaTeX for a notebook, `$$...$$`: the equations of a transformation or a schedule, its parts
    in order, its numbers.
    """
    return f"$${_aligned(_rows(value))}$$"


def _aligned(rows: list[str]) -> str:
    return r"\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"


def _rows(value, name: str = "") -> list[str]:
    """The lines of a display: a title, the equations, the numbers, and what is inside."""
    arguments = value.arguments if _is_call(value) else _fields(value)
    inner = {key: x for key, x in arguments.items() if _parts(x)}
    whole = inner and not _is_call(value)  # named after what is inside, as a state is
    name = name or (
        type(value).__name__.lower() if whole else getattr(value, "name", type(value).__name__)
    )
    title = rf"&\textbf{{{upright(name)[6:-1]}}}"
    if isinstance(getattr(value, "items", None), dict):  # a chain
        rows = [row for part, tx in value.items.items() for row in _rows(tx, part)]
        return rows or [title, to_row("u ← u")]
    lines = equations(value._function, arguments) if _is_call(value) else []
    expanded = value.expand() if not lines and not inner and hasattr(value, "expand") else None
    if (
        expanded is not None
        and isinstance(getattr(expanded, "items", None), dict)
        and expanded.items
    ):
        return [title, rf"&\left|\; {_aligned(_rows(expanded))} \right."]
    rows = [
        title,
        *(
            to_row(line)
            for line in lines
            or (
                []
                if inner
                else [f"a(step) = `{name}`" if hasattr(value, "table") else f"u ← `{name}`(u)"]
            )
        ),
    ]
    if numbers := _numbers(value, arguments, lines):
        rows += _wrapped(numbers)
    for key, x in inner.items():
        for label, part in _parts(x).items():
            shown = upright(f"{key} {label}".strip().replace("_", " "))
            rows.append(rf"&{shown}: \left|\; {_aligned(_rows(part))} \right.")
    return rows


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


def _fields(value) -> dict[str, Any]:
    return {
        k: v
        for k, v in getattr(value, "__dict__", {}).items()
        if (_is_value(v) or isinstance(v, float)) and k[:1] != "_"
    }


def _parts(x) -> dict[str, Any]:
    """The transformations that an argument consists of, by name."""
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


def to_row(line: str) -> str:
    """A line of an aligned display: the two sides of its equation, and its remark."""
    equation, *remarks = re.split(r"\s{2,}", line.strip())
    equation, remark = equation.rstrip(","), " ".join(remarks)
    if found := LEFT.match(equation):
        at = found.end(1)
        row = rf"{to_latex(equation[:at])} &{to_latex(equation[at:])}"
    else:
        row = f"&{to_latex(equation)}"
    return row + (rf" \qquad {to_latex(remark)}" if remark else "")


def _numbers(value, arguments, lines: list[str]) -> list[str]:
    """`\\beta_1 = 0.9` for each argument that is a number or was given."""
    text = "\n".join(lines)
    function = getattr(value, "_function", None)
    notes = (
        dict(re.findall(r"(\S+) = `(\w+)`", inspect.getdoc(function.build) or ""))
        if function
        else {}
    )
    named = {name: symbol for symbol, name in notes.items() if symbol != "p"}  # p is the parameter
    parameters = inspect.signature(function).parameters if function else {}
    dynamic = value._dynamic if function else arguments
    out, used = [], set()
    for name, x in arguments.items():
        if x is None or _parts(x) or (name not in dynamic and _same(x, parameters[name].default)):
            continue
        candidates = [named[name]] if name in named else SYMBOLS.get(name, "").split()
        candidates = [s for s in (*candidates, name) if s not in used]
        symbol = next(
            (s for s in candidates if re.search(rf"(?<![\w∞]){re.escape(s)}(?![\w₀-₉⁺⁻])", text)),
            "",
        )
        used.add(symbol)
        if (
            not symbol
            and name in dynamic
            and name in parameters
            and _same(x, parameters[name].default)
        ):
            continue
        shown = to_latex(symbol) if symbol else upright(name)
        out.append(f"{shown} = {_shown(x)}")
    return out


def _same(x, default) -> bool:
    if isinstance(x, tuple) and isinstance(default, tuple):
        return len(x) == len(default) and all(map(_same, x, default))
    return x is default or (isinstance(x, int | float | str) and x == default)


def _shown(x: Any) -> str:
    """A value in LaTeX: numbers as numbers, schedules and tables by name, the rest as code."""
    if isinstance(x, Tracer):
        return upright(code(x))
    if isinstance(x, bool | str) or (callable(x) and not _is_call(x)):
        return upright(code(x))
    if isinstance(x, int | float):
        return number(x)
    if (
        isinstance(x, np.ndarray | np.generic | jax.Array)
        and jax.numpy.issubdtype(x.dtype, np.floating)
        and x.size <= 8
    ):
        entries = [number(float(v)) for v in np.asarray(x, float).ravel()]
        return entries[0] if x.ndim == 0 else rf"\left( {', '.join(entries)} \right)"
    call: Any = x
    if _is_call(x):
        defaults = inspect.signature(call._function).parameters
        shown = ", ".join(
            f"{upright(k)} = {_shown(v)}"
            for k, v in call.arguments.items()
            if v is not None and not _same(v, defaults[k].default)
        )
        return rf"{upright(call.name)}\left( {shown} \right)"
    if (patterns := getattr(x, "patterns", None)) is not None:
        rows = zip(
            patterns, jax.tree.leaves(x, is_leaf=lambda v: _is_value(v) and v is not x), strict=True
        )
        return (
            r"\left\{ "
            + r",\; ".join(f"{upright(code(k))}: {_shown(v)}" for k, v in rows)
            + r" \right\}"
        )
    if isinstance(x, tuple | list):
        return r"\left( " + r",\; ".join(map(_shown, x)) + r" \right)"
    text = code(x)
    return upright(text if len(text) <= 60 else f"{text[:59]}…")
