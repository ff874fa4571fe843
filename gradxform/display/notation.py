"""From the Unicode notation of the docstrings to LaTeX: `m ← β₁ m + (1 - β₁) g` to `m \\leftarrow
\\beta_{1} m + ...`.

A quotient becomes a fraction: its numerator the product before the bar, its denominator the one
factor after it. Words of more than one letter are upright text, `sign(x)` and its like are
functions.
"""

import math
import re
from functools import cache
from typing import NamedTuple
from unicodedata import category, normalize

_NAMES = """alpha beta gamma delta varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau
    varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"""


GREEK = dict(zip("αβγδεζηθκλμνξπρστφχψωΓΔΘΛΞΠΣΦΨΩ", _NAMES.split(), strict=True))


SYMBOLS = {letter: f"\\{name}" for letter, name in GREEK.items()} | {
    "∇": r"\nabla", "∞": r"\infty", "𝒩": r"\mathcal{N}", "⋯": r"\cdots", "…": r"\dots",
    "∂": r"\partial", "ℓ": r"\ell",
}  # fmt: skip


RELATIONS = {"←": r"\leftarrow", "=": "=", "⇔": r"\Leftrightarrow", "≡": r"\equiv"}


OPERATORS = RELATIONS | {
    "+": "+", "-": "-", "·": r"\cdot", "×": r"\times", "±": r"\pm", "⊙": r"\odot", "<": "<",
    ">": ">", "≥": r"\ge", "≤": r"\le", "≠": r"\ne", "≈": r"\approx", "∈": r"\in", "→": r"\to",
    "−": "-", "⊗": r"\otimes", "⊤": r"\top",
}  # fmt: skip


OPEN = {
    "(": ("(", ")", r"\right)"), "[": ("[", "]", r"\right]"), "{": (r"\{", "}", r"\right\}"),
    "⌊": (r"\lfloor", "⌋", r"\right\rfloor"), "⌈": (r"\lceil", "⌉", r"\right\rceil"),
    "⟨": (r"\langle", "⟩", r"\right\rangle"), "|": ("|", "|", r"\right|"),
    "‖": (r"\|", "‖", r"\right\|"),
}  # fmt: skip


_HIGH, _PLAIN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ᵃᵇᶜᵈᵉʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᵀ", "0123456789+-()abcdehijklmnoprstuvwxyzT"


HIGH = dict(zip(_HIGH, _PLAIN, strict=True))


HIGH |= {"ᵅ": r"\alpha", "ᵞ": r"\gamma", "ᵝ": r"\beta", "′": r"\prime"}


LOW = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₜᵢⱼₖᵣₙₛ", "0123456789+-tijkrns", strict=True))


ACCENTS = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar"}


LEFT = re.compile(r"^(\S[^←=⇔]{0,13}?) [←=⇔] ")  # the left side of an equation


ATOM = re.compile(r"\w[\u0302-\u0304]?[₀-₉]?")  # a single letter


UNKNOWN = r"\text{?}"  # for a character that has no LaTeX here


SUMS = {"Σ": r"\sum", "Π": r"\prod"}


ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]"}


_TOKEN = re.compile(
    r"(?P<code>`[^`]*`|\"[^\"]*\")|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)"
    r"|(?P<word>[A-Za-z]+(?:[-'][a-z]{2,}|'s|_[A-Za-z0-9]{2,})+|[A-Za-z]{2,}(?:_\w)?\d?)"
    r"|(?P<letter>\w_[a-z]+|\w|\S)"
)


class _Token(NamedTuple):
    kind: str
    text: str
    spaced: bool  # whether a space stands before it
    high: str = ""
    low: str = ""
    accent: str = ""


class _Item(NamedTuple):
    kind: str  # factor, word, operator, punctuation
    tex: str
    inner: str = ""  # of a group in parentheses, what is in it


def normal(text: str) -> str:
    """The text with accents apart from their letters, as all of this module reads it."""
    letters = ("Ll", "Lu")
    return "".join(normalize("NFD", c) if category(c) in letters else c for c in text)


@cache
def symbol(letter: str) -> re.Pattern[str]:
    """Where a letter or a name stands by itself: `m` in `β m²` and not in `max` or `m₁`."""
    return re.compile(rf"(?<![A-Za-z_]){re.escape(normal(letter))}(?![A-Za-z_'*⁺⁻{''.join(LOW)}])")


def one_by_one(lines) -> list[str]:
    """Each equation of a line by itself."""
    apart = re.compile(r"[,;]  +(?=\S[^←=⇔]{0,13}? [←=⇔] )")
    pieces = (apart.split(normal(line).strip()) for line in lines)
    return [piece for row in pieces for piece in row if piece]


def renamed(text: str, changes: dict[str, str]) -> str:
    """Other letters, all at once."""
    changes = {k: v for k, v in changes.items() if v != k}
    if not changes:
        return text
    any_of = re.compile("|".join(f"(?:{symbol(k).pattern})" for k in changes))
    return any_of.sub(lambda found: normal(changes[found[0]]), text)


def without(text: str, letter: str, value: float) -> str:
    """The text where a letter is 0, 1 or -1 and not there any more, if that is possible."""
    x = symbol(letter).pattern
    if value:
        out = re.sub(rf"{x} (?=[\w‖(√])", "" if value > 0 else "-", text)
        out = re.sub(rf" \+ 1 - {x}", "", out) if value > 0 else out
    else:
        out = re.sub(rf"max\(([^(),]+), {x}\)", r"\1", re.sub(rf"\(1 - {x}\) ", "", text))
        out = re.sub(rf" [-+] {x}(?: p)?(?=[),;\]\n]|$| [-+])", "", out)
        out = re.sub(r"(?<=[√^])\((\w[\u0302-\u0304]?)\)", r"\1", out)
    return text if re.search(x, out) else out


def inserted(text: str, step: str) -> str:
    """The right side with an expression for u, in parentheses where it needs them."""
    left = arrow = ""
    if LEFT.match(text):
        left, arrow, text = re.split(r"( [←=⇔] )", text, maxsplit=1)
    level = re.sub(r"‖[^‖]*‖|\|[^|]*\|", "x", step)
    while (flat := re.sub(r"[(\[][^()\[\]]*[)\]]", "x", level)) != level:
        level = flat
    is_sum, negative = re.search(r". [-+] ", level) is not None, level.startswith("-")

    def put(found):
        before, after = text[: found.start()].rstrip(), text[found.end() :]
        tight = before[-1:] in ("√", "/") or after[:1] in ("²", "³", "^")
        factor = before[-1:] not in ("", *"([{|‖,+←=≥")
        followed = re.match(r"( ?[)\]}|‖,]| [-+<>=≥⇔]|  |$)", after) is None
        loose = (is_sum and (factor or followed)) or (negative and factor)
        return f"({step})" if not ATOM.fullmatch(step) and (tight or loose) else step

    right = symbol("u").sub(put, text)
    if left == "u" and right != text and not symbol("u").search(right):
        arrow = " = "
    return signs(left + arrow + right)


def signs(text: str) -> str:
    return text.replace(" + -", " - ")


def to_latex(text: str) -> str:
    """The LaTeX of a line in the notation of the docstrings, for mathematical mode."""
    tokens = _tokens(text)
    items, rest = _sequence(tokens, 0, None)
    while rest < len(tokens):  # a closing bracket that nothing opened
        items.append(_Item("punctuation", _escaped(tokens[rest].text)))
        more, rest = _sequence(tokens, rest + 1, None)
        items += more
    return _joined(items)


def upright(text: str) -> str:
    """Text as it is, in mathematical mode."""
    return rf"\text{{{_escaped(text)}}}"


def number(x: float) -> str:
    """A number in LaTeX: `0.9`, `10^{-8}`, `1.5 \\cdot 10^{-7}`."""
    if not math.isfinite(x):
        return {"inf": r"\infty", "-inf": r"-\infty"}.get(str(x), upright("nan"))
    mantissa, _, exponent = f"{x:.6g}".partition("e")
    if not exponent and x and abs(x) < 1e-3:
        mantissa, _, exponent = f"{x:.5e}".partition("e")
        mantissa = f"{float(mantissa):g}"
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else rf"{mantissa} \cdot {power}"


def _escaped(text: str) -> str:
    special = {c: f"\\{c}" for c in "_{}%#&$"} | dict.fromkeys("\\^~", "")
    out = "".join(special.get(c, c) for c in text)
    return "".join(f"}}{_symbol(c)}\\text{{" if ord(c) > 127 else c for c in out)


def _symbol(c: str) -> str:
    if c.isascii():
        return c if c.isalnum() else _escaped(c)
    if c in HIGH:
        return f"^{{{HIGH[c]}}}"
    if c in LOW:
        return f"{{}}_{{{LOW[c]}}}"
    return (SYMBOLS | OPERATORS).get(c, {"√": r"\surd", "‖": r"\|"}.get(c, UNKNOWN)) + " "


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    end = 0
    for found in _TOKEN.finditer(normal(text)):
        kind, c = str(found.lastgroup), found.group()
        spaced, end = not found.start() or found.start() > end, found.end()
        if tokens and not spaced and kind == "letter":
            last = tokens[-1]
            marked = last.kind == "letter" and (last.text.isalpha() or last.accent)
            if c in ACCENTS:
                tokens[-1] = last._replace(accent=ACCENTS[c])
                continue
            if c in LOW or (c == "∞" and last.text.isalpha()):
                tokens[-1] = last._replace(low=last.low + LOW.get(c, r"\infty"))
                continue
            if c in HIGH or (c in "'*" and marked):
                high = HIGH.get(c) or {"'": r"\prime", "*": "*"}[c]
                tokens[-1] = last._replace(high=last.high + high)
                continue
        c, _, low = c.partition("_") if kind == "letter" and len(c) > 1 else (c, "", "")
        tokens.append(_Token(kind, c, spaced, low=low if len(low) < 2 else rf"\mathrm{{{low}}}"))
    return tokens


def _scripts(token: _Token, tex: str) -> str:
    low, high = token.low and f"_{{{token.low}}}", token.high and f"^{{{token.high}}}"
    return tex + low + high


def _sequence(tokens, i, closing) -> tuple[list[_Item], int]:
    """Items up to the closing bracket, and where it stands."""
    items: list[_Item] = []
    while i < len(tokens):
        kind, c = tokens[i].kind, tokens[i].text
        if c == closing or (c in ")]}⌋⌉⟩" and kind == "letter"):
            break
        if c == "/" and items and items[-1].kind in ("factor", "word") and i + 1 < len(tokens):
            below, i = _factor(tokens, i + 1)
            above = [items.pop()]
            while above[0].kind == "factor" and items and items[-1].kind == "factor":
                above.insert(0, items.pop())
            top = above[0].inner if len(above) == 1 and above[0].inner else _joined(above)
            items.append(_Item("factor", rf"\frac{{{top}}}{{{below.inner or below.tex}}}"))
            continue
        if kind == "letter" and c in OPERATORS:
            item, i = _Item("operator", OPERATORS[c]), i + 1
        elif kind == "letter" and c in ",;:.":
            item, i = _Item("punctuation", c if c in ",;" else rf"\text{{{c}}}"), i + 1
        else:
            item, i = _factor(tokens, i)
        items.append(item)
    return items, i


def _factor(tokens, i) -> tuple[_Item, int]:
    """One factor, to the power that follows it."""
    item, i = _base(tokens, i)
    while i < len(tokens) - 1 and tokens[i].text == "^":
        tex, i = _fraction(tokens, i + 1)
        if not tex:
            power, i = _base(tokens, i)
            tex = power.inner or power.tex
        item = _Item("factor", f"{{{item.tex}}}^{{{tex}}}")
    return item, i


def _fraction(tokens, i) -> tuple[str, int]:
    """A power that is a fraction of numbers without spaces, -1/4, and where it ends; "" if none."""
    sign = tokens[i].text == "-"
    parts = tokens[i + sign : i + sign + 3]
    if [x.kind for x in parts] != ["number", "letter", "number"] or parts[1].text != "/":
        return "", i
    if parts[1].spaced or parts[2].spaced:
        return "", i
    return f"{'-' * sign}{parts[0].text}/{parts[2].text}", i + sign + 3


def _base(tokens, i) -> tuple[_Item, int]:
    """One factor: a symbol, a number, a group, a root, a function of a group, or a word."""
    if i >= len(tokens):
        return _Item("factor", "{}"), i
    token, following = tokens[i], tokens[i + 1] if i + 1 < len(tokens) else _Token("end", "", True)
    c, kind = token.text, token.kind
    applied = following.text in ("(", "[") and not following.spaced
    before = ""  # what stands before the factor that follows
    if kind == "code":
        return _Item("word", upright(c.strip("`"))), i + 1
    if kind == "number":
        return _Item("factor", _scripts(token, number(float(c)) if "e" in c else c)), i + 1
    if kind == "word":
        if not applied and c not in ("log", "cos", "exp"):
            return _Item("word", _scripts(token, upright(c))), i + 1
        name = c.replace("_", r"\_")
        tex = _scripts(token, rf"\operatorname{{{name}}}")
        before = tex if applied else ""
    elif c in ROOTS:
        under, i = _factor(tokens, i + 1)
        return _Item("factor", f"{ROOTS[c]}{{{under.inner or under.tex}}}"), i
    elif c in OPEN:
        return _group(tokens, i)
    elif c == "a" and following.kind == "word" and len(following.text) > 2:  # the article
        called = i + 2 < len(tokens) and tokens[i + 2].text == "(" and not tokens[i + 2].spaced
        if not called:
            return _Item("word", upright(c)), i + 1
        tex = c
    elif c in OPERATORS:  # a sign: -g, ±c
        tex = before = f"{OPERATORS[c]} "
    elif c in SUMS and (c == "Σ" or not token.low) and (following.text.isalpha() or applied):
        tex = before = rf"\textstyle{_scripts(token, SUMS[c])} "
    else:
        tex = SYMBOLS.get(c) or _symbol(c).strip()
        tex = _scripts(token, rf"\{token.accent}{{{tex}}}" if token.accent else tex)
        before = tex if applied and (c.isalpha() or c in SYMBOLS) else ""
    if not before:
        return _Item("factor", tex), i + 1
    under, i = _factor(tokens, i + 1)
    return _Item("factor", before + under.tex), i


def _group(tokens, i) -> tuple[_Item, int]:
    """What stands in brackets; a bracket that nothing closes, by itself."""
    c = tokens[i].text
    left, right, end = OPEN[c]
    items, at = _sequence(tokens, i + 1, right)
    if at >= len(tokens) or tokens[at].text != right:
        return _Item("factor", left), i + 1
    inside = _joined(items)
    plain = c in "([" and not tokens[at].high and not tokens[at].low
    tex = _scripts(tokens[at], rf"\left{left} {inside} {end}")
    return _Item("factor", tex, inside if plain else ""), at + 1


def _joined(items: list[_Item]) -> str:
    """The items side by side, with spaces around words."""
    out = before = ""
    for item in items:
        if out and item.kind != "punctuation":
            space = r"\;" if before == "punctuation" else " "
            out += r"\ " if "word" in (item.kind, before) else space
        out += item.tex
        before = item.kind
    return out
