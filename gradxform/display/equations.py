"""The equations of a constructor with its arguments: those of its docstring, the lines that the
arguments choose.

A docstring's equations stand in an indented block, or in its first sentence after a colon. A remark
after spaces may tie a line to an argument: `momentum=None`, `"hard"`, `optax and torch: …`,
`eps_in_sqrt`. Where one docstring serves more variants than remarks can tell, the table `VARIANTS`
has its lines, with conditions in brackets.
"""

import inspect
import re
from typing import Any

_MOMENTS = """
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) g²
m̂ = m / (1 - β₁ᵗ)      [nesterov!=True, bias_correction!=False]
m̂ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)      [nesterov=True, bias_correction!=False]
m̂ = m      [nesterov!=True, bias_correction=False]
m̂ = β₁ m + (1 - β₁) g      [nesterov=True, bias_correction=False]
v̂ = v / (1 - β₂ᵗ)      [convention!=keras, bias_correction!=False]
v̂ = v      [bias_correction=False]"""


_NADAM = """
m ← β₁ m + (1 - β₁) g      [convention!=paper]
m ← μₜ m + (1 - μₜ) g      [convention=paper]
v ← β₂ v + (1 - β₂) g²
v̂ = v / (1 - β₂ᵗ)      [convention!=paper]
v̂ = β₂ v / (1 - β₂ᵗ)      [convention=paper]
u = [β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)] / (√(v̂ + ε₀) + ε)      [convention=optax]
μₜ = β₁ (1 - 0.96^(0.004 t) / 2),  Πₜ = μ₁ ⋯ μₜ      [convention=torch|paper]
μₜ = β₁ (1 - 0.96^t / 2),  Πₜ = μ₁ ⋯ μₜ      [convention=keras]
u = [μₜ₊₁ m / (1 - Πₜ₊₁) + (1 - μₜ) g / (1 - Πₜ)] / (√(v̂ + ε₀) + ε)      [convention!=optax]"""


_ADAN = """
d = g - g₋₁      0 at the first step
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) d
κ = 1 - β₂      [convention=optax]
κ = β₂      [convention!=optax]
n ← β₃ n + (1 - β₃) (g + κ d)²
m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ),  n̂ = n / (1 - β₃ᵗ)      [convention!=paper]
u = (m̂ + κ v̂) / (√(n̂ + ε₀) + ε)      [convention!=paper]
u = (m + κ v) / (√(n + ε₀) + ε)      [convention=paper]"""


_ADAM_STEP = "m̂ / (√(v̂ + ε₀) + ε)"


_ADAM_KERAS = "√(1 - β₂ᵗ) m̂ / (√(v + ε₀) + ε)"


VARIANTS = {
    "sgd": """
p ← p - α g      [momentum=None]
v ← β v + g      [momentum!=None, convention=optax|torch]
p ← p - α v      [momentum!=None, convention=optax|torch, nesterov=False]
p ← p - α (g + β v)      [momentum!=None, convention=optax|torch, nesterov=True]
v ← β v + α g      [momentum!=None, convention=keras|paper]
p ← p - v      [momentum!=None, convention=keras|paper, nesterov=False]
p ← p - (α g + β v)      [momentum!=None, convention=keras|paper, nesterov=True]""",
    "trace": "v ← β v + g\nu = v      [nesterov=False]\nu = g + β v      [nesterov=True]",
    "ema": """
m ← β m + (1 - β) g
u = m      [debias=False, nesterov=False]
u = m / (1 - βᵗ)      [debias=True, nesterov=False]
u = β m + (1 - β) g      [debias=False, nesterov=True]
u = β m / (1 - βᵗ⁺¹) + (1 - β) g / (1 - βᵗ)      [debias=True, nesterov=True]""",
    "scale_by_rms": """
v ← β v + (1 - β) g²
v̂ = v / (1 - βᵗ)      [bias_correction=True, convention=optax]
u ← u / √(v + ε)      [eps_in_sqrt=True, bias_correction=False]
u ← u / √(v̂ + ε)      [eps_in_sqrt=True, bias_correction=True, convention=optax]
u ← u / (√(v + ε₀) + ε)      [eps_in_sqrt=False, bias_correction=False]
u ← u / (√(v̂ + ε₀) + ε)      [eps_in_sqrt=False, bias_correction=True, convention=optax]
u ← u √(1 - βᵗ) / √(v + ε)      [eps_in_sqrt=True, bias_correction=True, convention=keras]
u ← u √(1 - βᵗ) / (√(v + ε₀) + ε)      [eps_in_sqrt=False, bias_correction=True, convention=keras]""",
    "rmsprop": """
v ← β v + (1 - β) g²
m ← β m + (1 - β) g      [centered=True]
u = g / √(v + ε)      [centered=False, eps_in_sqrt=True]
u = g / (√v + ε)      [centered=False, eps_in_sqrt=False]
u = g / √(v - m² + ε)      [centered=True, eps_in_sqrt=True]
u = g / (√(v - m²) + ε)      [centered=True, eps_in_sqrt=False]
p ← p - α u      [momentum=None]
w ← μ w - α u      [momentum!=None, convention!=torch]
p ← p + w      [momentum!=None, convention!=torch, nesterov=False]
p ← p + μ w - α u      [momentum!=None, convention!=torch, nesterov=True]
w ← μ w + u      [momentum!=None, convention=torch]
p ← p - α w      [momentum!=None, convention=torch, nesterov=False]
p ← p - α (μ w + u)      [momentum!=None, convention=torch, nesterov=True]""",
    "adam": f"""{_MOMENTS}
p ← p - α {_ADAM_STEP}      [convention!=keras]
p ← p - α {_ADAM_KERAS}      [convention=keras]""",
    "adamw": f"""{_MOMENTS}
p ← p - α ({_ADAM_STEP} + λ p)      [convention=optax|torch]
p ← p - α ({_ADAM_KERAS} + λ p)      [convention=keras]
p ← p - α {_ADAM_STEP} - λ p      [convention=paper]""",
    "adam_l2": (
        f"g ← g + λ p{_MOMENTS.replace(', bias_correction!=False', '')}\np ← p - α m̂ / (√v̂ + ε)"
    ),
    "nadam": f"{_NADAM}\np ← p - α u",
    "nadamw": f"{_NADAM}\np ← p - α (u + λ p)",
    "amsgrad": """
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) g²
m̂ = m / (1 - β₁ᵗ)      [convention!=paper, bias_correction_mu!=False]
m̂ = m      [convention!=paper, bias_correction_mu=False]
w ← max(w, v / (1 - β₂ᵗ))      [convention=optax, bias_correction_nu!=False]
w ← max(w, v)      [convention=optax, bias_correction_nu=False]
w ← max(w, v)      [convention!=optax]
p ← p - α m̂ / (√(w + ε₀) + ε)      [convention=optax]
p ← p - α m̂ / (√(w / (1 - β₂ᵗ) + ε₀) + ε)      [convention=torch]
p ← p - α √(1 - β₂ᵗ) m̂ / (√(w + ε₀) + ε)      [convention=keras]
p ← p - α m / (√(w + ε₀) + ε)      [convention=paper]""",
    "scale_by_amsgrad": """
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) g²
m̂ = m / (1 - β₁ᵗ)      [bias_correction_mu=True]
m̂ = m      [bias_correction_mu=False]
w ← max(w, v / (1 - β₂ᵗ))      [bias_correction_nu=True]
w ← max(w, v)      [bias_correction_nu=False]
u = m̂ / (√(w + ε₀) + ε)""",
    "scale_by_adan": f"{_ADAN}",
    "adan": f"""{_ADAN}
p ← p - α (u + λ p)      [convention=optax]
p ← (p - α u) / (1 + α λ)      [convention!=optax]""",
    "scale_by_adopt": """
x = g / max(√v, ε),  clipped to ±c(t - 1)      [use_clipping=True, convention=optax]
x = g / max(√v, ε),  clipped to ±c(t)      [use_clipping=True, convention=pytorch_optimizer]
x = g / max(√v, ε)      [use_clipping=False]
m ← β₁ m + (1 - β₁) x
v ← β₂ v + (1 - β₂) g²
u = m      [nesterov=False]
u = β₁ m + (1 - β₁) x      [nesterov=True]""",
    "padam": """
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) g²
w ← max(w, v)      [convention=paper]
p ← p - α [m / (√w + ε)^(2 power) + λ p]      [convention=paper]
m̂ = m / (1 - β₁ᵗ)      [convention!=paper]
p ← p - α [m̂ √(1 - β₂ᵗ) / (√v + ε)^(2 power) + λ p]      [convention!=paper]""",
    "lamb": """
m ← β₁ m + (1 - β₁) g
v ← β₂ v + (1 - β₂) g²
m̂ = m / (1 - β₁ᵗ)      [convention!=pytorch_optimizer]
v̂ = v / (1 - β₂ᵗ)      [convention!=pytorch_optimizer]
p ← p - α λ p      [convention=keras]
r = m̂ / (√(v̂ + ε₀) + ε) + λ p      [convention=optax]
r = m / (√(v + ε₀) + ε) + λ p      [convention=pytorch_optimizer]
r = m̂ / (√(v̂ + ε₀) + ε)      [convention=keras]
p ← p - α r ‖p‖ / ‖r‖      [convention!=pytorch_optimizer]
p ← p - α / (1 - β₁ᵗ) · r min(‖p‖, 10) / (‖r‖ + ε)      [convention=pytorch_optimizer]""",
    "skip_spikes": """
spike ⇔ n > τ m̂      n the norm over all leaves      [by=factor]
spike ⇔ n > m̂ + τ √v̂      n the norm over all leaves      [by=zscore]
v ← β v + (1 - β) (n - m̂)²      over the accepted steps, s of them      [by=zscore]
m ← β m + (1 - β) n      over the accepted steps, s of them
m̂ = m / (1 - βˢ)
v̂ = v / (1 - βˢ)      [by=zscore]""",
    "linear_schedule": (
        "a(step) = init + (end - init) x\nx = (step - begin) / steps,  clipped to [0, 1]"
    ),
    "warmup_constant_schedule": """
a(step) = init + (peak - init) step / warmup_steps      up to warmup_steps
a(step) = peak      after""",
    "warmup_cosine_decay_schedule": """
a(step) = init + (peak - init) step / warmup_steps      up to warmup_steps
a(step) = end + (peak - end) ((1 + cos πx) / 2)^exponent      after
x = (step - warmup_steps) / (decay_steps - warmup_steps),  at most 1""",
    "from_function": "a(step) = function(step)",
    "constant": "a(step) = value",
    "correct_bias": "u ← u / (1 - βᵗ)",
    "snapshot": "u ← u",
    "scale_by_learning_rate": "u ← -α u      [flip_sign=True]\nu ← α u      [flip_sign=False]",
}


_CONVENTIONS = ("optax", "torch", "keras", "paper", "authors", "pytorch_optimizer", "lion_pytorch")


_SECTIONS = re.compile(
    r"\n(?:Memory|Numbers|Source|Raises|Args|Units|Shapes|Conventions|Differences):"
)


LEFT = re.compile(r"^(.{1,14}?) [←=⇔] ")


_CONDITIONS = re.compile(r"\[(\w+!?=[\w!=|, ]+)\]$")


def equations(function, arguments: dict[str, Any]) -> list[str]:
    """The lines that describe a constructor called with these arguments, in the notation of the
    docstrings.
    """
    known = (
        VARIANTS.get(function.__name__) if function.__module__.startswith("gradxform.") else None
    )
    if known is not None:
        held = [_holds(line.strip(), arguments) for line in known.splitlines() if line.strip()]
        return [
            equation
            for holds, line in held
            if holds
            for equation in re.split(r",  (?=\S{1,6} [←=] )", line)
        ]
    doc = _SECTIONS.split(inspect.getdoc(function.build) or "")[0]
    return _with_corrections(_chosen(_lines(doc), arguments), arguments)


def _holds(line: str, arguments) -> tuple[bool, str]:
    """Whether the conditions in brackets at the end of a line hold, and the line without them."""
    found = _CONDITIONS.search(line)
    if not found:
        return True, line
    for condition in found[1].split(", "):
        name, negated, values = re.fullmatch(r"(\w+)(!?)=([\w|]+)", condition).groups()  # pyright: ignore[reportOptionalMemberAccess]
        if (str(arguments.get(name)) in values.split("|")) == bool(negated):
            return False, line
    return True, line[: found.start()].rstrip()


def _lines(doc: str) -> list[str]:
    """The equations of a docstring: its indented lines and those that begin like one, or what its
    first sentence says.
    """
    lines = doc.splitlines()
    found = [
        x.strip() for x in lines[1:] if x.startswith("    ") or re.match(r"(a\(step\)|[ar]) = ", x)
    ]
    if any(re.search(r"[←⇔]| = ", re.split(r"\s{3,}", line)[0]) for line in found):
        return [line.partition(". ")[0].rstrip(".:") for line in found]
    first = " ".join(doc.partition("\n\n")[0].split())
    sentence = re.search(r"(?:^|: )((?:\S{1,7}) [←=] .*)", first) or re.search(
        r": (\S ⊙ .*)", first
    )
    if not sentence:
        return []
    equation = re.split(r"\. |\.$|: |, with | \(with ", sentence[1])[0].replace("; ", "   ")
    return re.split(r", (?=\S{1,7} [←=] )", equation)


def _chosen(lines: list[str], arguments) -> list[str]:
    """The lines whose remarks fit the arguments, each equation of a line by itself."""
    kept: list[
        tuple[str, list[str], bool]
    ] = []  # left sides, equations, whether tied to an argument
    lost: list[tuple[str, list[str], bool]] = []
    key, before = "", True
    for line in lines:
        line = line.replace("  ⇔  ", " ⇔ ")
        pieces = re.split(r"(?<=[,;])\s{2,}(?=\S{1,6} [←=⇔] )", line)
        last, *remarks = re.split(r"\s{2,}", pieces[-1], maxsplit=1)
        remark = remarks[0] if remarks else ""
        known = {side for sides, _, _ in kept for side in sides.split("|")}
        again = (found := LEFT.match(last)) is not None and found[1] in known
        holds, remark, key = _condition(remark, arguments, key, before, again)
        before = holds is not False
        remark = "" if holds is not None and remark.startswith("as in ") else remark
        parts = [piece.rstrip(",; ") for piece in [*pieces[:-1], last]]
        left = "|".join(found[1] for part in parts if (found := LEFT.match(part)))
        entry = left, [*parts[:-1], f"{parts[-1]}   {remark}".strip()], holds is not None
        if holds is False:
            lost.append(entry)
            continue
        if holds and kept and left and kept[-1][0] == left:  # the same, said for a special case
            kept.pop()
        kept.append(entry)
    sides = {side for left, _, _ in kept for side in left.split("|")}
    missing = [entry for entry in lost if entry[0] and not set(entry[0].split("|")) & sides][
        :1
    ]  # the default, else nothing
    return [equation for _, parts, _ in [*kept, *missing] for equation in parts]


def _condition(remark: str, arguments, key: str, before: bool, again: bool):
    """Whether a remark fits the arguments (None: it says nothing about them), what is left of it,
    the argument it was about.
    """
    head = re.split(r"[:;,]| where | with ", remark, maxsplit=1)[0]
    rest = remark[len(head) :].lstrip(",:; ")
    if found := re.match(r"(\w+)=(\"?)([\w+-]+)\2", remark):
        name, quoted, value = found.groups()
        if name in arguments:
            given = arguments[name]
            words = re.findall(r"[\w+-]+", head)
            literal = quoted or value in ("None", "True", "False") or value.isascii()
            return (
                (str(given) in words if literal else given is not None),
                remark[found.end() :].lstrip(",:; "),
                name,
            )
    if found := re.match(r"\"([\w+-]+)\"", remark):
        texts = (
            [arguments[key]]
            if key in arguments
            else [x for x in arguments.values() if isinstance(x, str)]
        )
        return found[1] in texts, remark[found.end() :].lstrip(",:; "), key
    if again and (found := re.match(r"with `(\w+)`", remark)):
        return bool(arguments.get(found[1])), remark, key
    words = re.findall(r"\w+", head.lower())
    if words and words[0] in _CONVENTIONS and "convention" in arguments:
        return arguments["convention"] in words, rest, "convention"
    if words and isinstance(arguments.get(words[0]), bool):
        return bool(arguments[words[0]]), rest, words[0]
    if words and words[0] == "otherwise" and isinstance(arguments.get(key), bool):
        return not before, rest, key
    if (
        (found := re.match(r"`(\w+)` = ", remark))
        and found[1] in arguments
        and arguments[found[1]] is None
    ):
        return False, remark, key
    return None, remark, key


def _with_corrections(lines: list[str], arguments) -> list[str]:
    """The lines, and what a hat stands for where they do not say it: an average divided by what its
    weights come to.
    """
    text = "\n".join(lines)
    for x, argument, beta, g in (("v", "b2", "β₂", "g²"), ("m", "b1", "β₁", "g")):
        if (
            re.search(f"{x}\u0302(?![₁₂])", text)
            and argument in arguments
            and not re.search(rf"^{x}\u0302? [←=]", text, re.MULTILINE)
        ):
            lines = [f"{x} ← {beta} {x} + (1 - {beta}) {g}", *lines]
    text = "\n".join(lines)
    for x, beta in re.findall(r"^(\w[₁₂]?) ← (β\S*) \1 \+ ", text, re.MULTILINE):
        hat = "ŝ" if x == "s" else f"{x[0]}\u0302{x[1:]}"
        if hat in text and f"{hat} =" not in text:
            lines = [*lines, f"{hat} = {x} / (1 - {beta}ᵗ)"]
    return lines
