"""How optimizers and schedules show themselves in a notebook: valid LaTeX, the lines that the arguments choose, the numbers."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest
from instances import TRANSFORMATIONS

import gradxform as gx
from gradxform.display.latex import _composed, _parts, first_block, to_mathematics
from gradxform.display.notation import SYMBOLS, UNKNOWN, normal, number, to_latex

COMMANDS = {
    "begin", "end", "frac", "sqrt", "text", "textbf", "mathrm", "mathcal", "operatorname", "left", "right", "phantom", "qquad",
    "leftarrow", "Leftrightarrow", "equiv", "cdot", "times", "pm", "odot", "ge", "le", "ne", "approx", "in", "to", "otimes", "top",
    "hat", "tilde", "bar", "prime", "sum", "prod", "textstyle", "lfloor", "rfloor", "lceil", "rceil", "langle", "rangle", "infty",
    "surd", "sim", "backslash",
} | {name[1:].partition("{")[0] for name in SYMBOLS.values()}  # fmt: skip

SCHEDULES = {
    "constant": lambda: gx.constant_schedule(0.1),
    "linear": lambda: gx.linear_schedule(1.0, 0.0, 100),
    "cosine": lambda: gx.cosine_decay_schedule(1.0, 100),
    "step": lambda: gx.step_decay(1.0, 0.5, 20),
    "exponential": lambda: gx.exponential_decay(1.0, 20, 0.5),
    "natural": lambda: gx.natural_exp_decay(1.0, 0.1),
    "inverse time": lambda: gx.inverse_time_decay(1.0, 0.1),
    "inverse root": lambda: gx.inverse_sqrt_decay(1.0),
    "polynomial": lambda: gx.polynomial_schedule(1.0, 0.0, 2, 100),
    "pieces": lambda: gx.piecewise_constant_schedule(1.0, {10: 0.1}),
    "manual": lambda: gx.manual_schedule([1.0, 0.1], [10]),
    "joined": lambda: gx.join_schedules([gx.linear_schedule(0.0, 1.0, 5), lambda step: 1.0], [5]),
    "warm-up": lambda: gx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100),
    "sequence": lambda: 3e-4 * (gx.warmup(10) >> gx.constant(60) >> gx.cooldown(30)),
    "rex": lambda: gx.rex_schedule(1.0, 100),
    "cyclic": lambda: gx.cyclic_schedule(0.0, 1.0, 10),
    "restarts": lambda: gx.cosine_restarts_schedule(1.0, 10),
    "function": lambda: gx.from_function(lambda step: 1.0),
    "per epoch": lambda: gx.per_epoch(gx.step_decay(1.0, 0.5, 2), 10),
}


def check(latex):
    """Raise where KaTeX or MathJax would: braces, environments, delimiters, commands, other alphabets."""
    assert latex.startswith("$$")
    assert latex.endswith("$$")
    body = latex[2:-2]
    assert r"\text{?}" not in body
    assert body.isascii(), [c for c in body if not c.isascii()]
    bare = re.sub(r"\\[\\{}_%#&$|;, ]", "", body)
    assert not set(bare) & set("$#%"), bare
    depth = 0
    for c in bare:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0, bare
    assert depth == 0, bare
    assert len(re.findall(r"\\left(?![a-z])", body)) == len(
        re.findall(r"\\right(?![a-z])", body)
    ), body
    assert body.count(r"\begin{aligned}") == body.count(r"\end{aligned}") > 0
    unknown = set(re.findall(r"\\([A-Za-z]+)", re.sub(r"\\\\", " ", body))) - COMMANDS
    assert not {x for x in unknown if not re.match(r"(left|right)(?=$)", x)}, unknown
    assert not re.search(r"[_^][_^ ]|\^\{\}|_\{\}|\}\^\{[^{}]*\}\^", bare), bare


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_every_transformation_is_valid_latex(name):
    tx = TRANSFORMATIONS[name].make()
    check(tx._repr_latex_())
    assert repr(tx).isprintable()  # the terminal keeps its code
    shown = []

    def trace(tx):
        shown.append(tx._repr_latex_())
        return jnp.zeros(())

    jax.eval_shape(trace, tx)
    check(shown[0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_valid_latex(name):
    check(SCHEDULES[name]()._repr_latex_())


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("m ← β₁ m + (1 - β₁) g", r"m \leftarrow \beta_{1} m + \left( 1 - \beta_{1} \right) g"),
        (
            "p - α m̂ / (√(v̂ + ε₀) + ε)",
            r"p - \frac{\alpha \hat{m}}{\sqrt{\hat{v} + \varepsilon_{0}} + \varepsilon}",
        ),
        ("1 - β₁ᵗ⁺¹", r"1 - \beta_{1}^{t+1}"),
        ("u / (√w + ε)²ᵖ", r"\frac{u}{\left( \sqrt{w} + \varepsilon \right)^{2p}}"),
        ("‖g‖²", r"\left\| g \right\|^{2}"),
        ("init · rate^x", r"\text{init}\ \cdot {\text{rate}}^{x}"),
        ("a / b^2 c", r"\frac{a}{{b}^{2}} c"),
        ("sign(g)", r"\operatorname{sign}\left( g \right)"),
        ("Σᵢ gᵢ", r"\textstyle\sum_{i} g_{i}"),
        ("s a factored mean", r"s\ \text{a}\ \text{factored}\ \text{mean}"),
        ("∛v + 1e-8", r"\sqrt[3]{v} + 10^{-8}"),
        ("p_k + λ_rel", r"p_{k} + \lambda_{\mathrm{rel}}"),
        ("ρ∞ - f̄", r"\rho_{\infty} - \bar{f}"),
        ("L^-1/4 g R^-1/4", r"{L}^{-1/4} g {R}^{-1/4}"),
        ("A^1/2 / b^2 / c", r"\frac{\frac{{A}^{1/2}}{{b}^{2}}}{c}"),
        ("Q⁻ᵀ V Rᵀ", r"Q^{-T} V R^{T}"),
    ],
)
def test_notation(text, latex):
    assert to_latex(text) == latex


@pytest.mark.parametrize(
    "text", ["(", "a)", "√", "/", "^", "|x", "a / ", "x^-", "⟨", "\\", "_", "§ 𝕏", "", "α_"]
)
def test_notation_takes_what_is_no_formula(text):
    shown = to_latex(text).replace(UNKNOWN, "")
    check(f"$$\\begin{{aligned}} {shown} \\end{{aligned}}$$")


@pytest.mark.parametrize(
    ("x", "latex"),
    [
        (0.9, "0.9"),
        (1e-8, "10^{-8}"),
        (3e-4, r"3 \cdot 10^{-4}"),
        (0.001, "0.001"),
        (0.0, "0"),
        (float("inf"), r"\infty"),
    ],
)
def test_numbers(x, latex):
    assert number(x) == latex


def lines(tx):
    return _composed(tx, {name: x for name, x in tx.arguments.items() if _parts(x)})[0]


def test_the_arguments_choose_the_lines():
    assert lines(gx.sgd(0.1)) == ["p ← p - α g"]
    assert lines(gx.sgd(0.1, 0.9)) == ["v ← β v + g", "p ← p - α v"]
    assert lines(gx.sgd(0.1, 0.9, nesterov=True, convention="keras")) == [
        "u = -α g",
        "v ← β v + u",
        "p ← p + u + β v",
    ]
    assert lines(gx.ema(0.9, debias=False)) == ["m ← β m + (1 - β) u", "u = m"]
    assert lines(gx.scale_by_lion(mode="refined"))[2:] == ["u = min(max(c, -1), 1)"]
    assert lines(gx.scale_by_inf_norm(0.9, convention="keras")) == [
        "v ← max(β v, |g|)",
        "u ← u / (v + ε)",
    ]
    assert lines(gx.adam(0.1, convention="keras"))[-1] == normal(
        "p ← p - α √(1 - β₂ᵗ) m̂ / (√(v + ε₀) + ε)"
    )
    for tx in gx.adam(0.1), gx.adabelief(0.1), gx.lamb(0.1):
        corrected = "ŝ = s" if tx.name == "adabelief" else "v̂ = v"
        assert normal(f"{corrected} / (1 - β₂ᵗ)") in lines(tx)
    assert lines(gx.clip(0.5)) == ["u ← min(max(u, -δ), δ)"]
    assert lines(gx.set_to_zero()) == ["u ← 0"]


MOMENTS = [
    "m ← β₁ m + (1 - β₁) g",
    "m̂ = m / (1 - β₁ᵗ)",
    "v ← β₂ v + (1 - β₂) g²",
    "v̂ = v / (1 - β₂ᵗ)",
]

READS = {
    "adam": (gx.adam(0.1), MOMENTS, "p ← p - α m̂ / (√(v̂ + ε₀) + ε)"),
    "a decay that enters the gradient": (
        gx.adam_l2(0.1), ["g ← g + λ p", *MOMENTS], "p ← p - α m̂ / (√v̂ + ε)"
    ),
    "a sum in parentheses": (gx.sgd(0.1, 0.9, nesterov=True), ["v ← β v + g"], "p ← p - α (g + β v)"),
    "constants that are 0, a letter that is taken": (
        gx.rmsprop(0.1, momentum=0.9),
        ["v ← β v + (1 - β) g²", "w ← μ w - α g / (√(v + ε))"],
        "p ← p + w",
    ),
    "a step that is used twice has a name": (
        gx.lars(0.1, 0.1), ["u = g + λ p", "v ← β v - α u [η ‖p‖ / (‖u‖ + ε)]"], "p ← p + v"
    ),
    "the last rule says what the parameter is": (
        gx.madgrad(0.1, weight_decay=0.1),
        ["u = g + λ p", "η = (α + ε) √t", "s ← s + η u", "v ← v + η u²"],
        "p ← β p + (1 - β) (p₀ - s / (∛v + ε))",
    ),
    "the letters of the constructor": (
        gx.simplified_ademamix(0.1),
        ["m ← β₁ m + g", "v ← β₂ v + (1 - β₂) g²", "v̂ = v / (1 - β₂ᵗ)"],
        "p ← p - η ((m + α g) / (√(v̂ + ε₀) + ε) + λ p)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_the_rules_read_as_one_text(name):
    tx, before, last = READS[name]
    assert lines(tx) == [normal(line) for line in [*before, last]]


def test_wrappers_show_what_is_inside():
    shown = gx.lookahead(gx.adam(0.1), 5, 0.5)._repr_latex_()
    check(shown)
    assert re.findall(r"\\textbf\{([^}]*)\}", shown) == ["lookahead", "adam"]
    assert r"s &\leftarrow s + \alpha \left( p - s \right)" in shown
    assert r"k = 5,\; \alpha = 0.5" in shown
    shown = gx.partition({"a": gx.sgd(0.1), "b": gx.adamw(0.1)}, lambda p: p)._repr_latex_()
    assert re.findall(r"\\textbf\{([^}]*)\}", shown) == ["partition", "sgd", "adamw"]


def test_a_constructor_shows_its_docstring_at_its_defaults():
    shown = to_mathematics(gx.cooldown)
    check(shown)
    assert "r &= 1 - x" in shown
    assert r"\sqrt" not in shown
    assert first_block(gx.cooldown, {"shape": "sqrt"})[-1] == "r = 1 - √x"
    check(to_mathematics(gx.adam))
    check(to_mathematics(gx.skip_spikes))


def test_rules_that_differ_by_parameter_show_the_docstring():
    for tx in (gx.kron(matrices=gx.matrix()), gx.adafactor(0.1, matrices="names")):
        shown = tx._repr_latex_()
        check(shown)
        assert r"\text{with }\alpha = 0" in shown
    assert r"u &= P \hat{m} \qquad" in gx.kron()._repr_latex_()


def test_the_numbers_are_filled_in():
    shown = gx.adam(3e-4, b1=0.8)._repr_latex_()
    assert (
        r"\alpha = 3 \cdot 10^{-4},\; \beta_{1} = 0.8,\; \beta_{2} = 0.999,\; \varepsilon = 10^{-8}"
        in shown
    )
    assert r"\frac{\alpha \hat{m}}{\sqrt{\hat{v} + \varepsilon_{0}} + \varepsilon}" in shown
    table = gx.adamw(
        gx.linear_schedule(1.0, 0.0, 10), weight_decay=gx.by_path({"**/kernel": 0.1, "**": 0.0})
    )
    shown = table._repr_latex_()
    assert r"\alpha = \text{linear\_schedule}\left( \text{init\_value} = 1" in shown
    assert r"\lambda = \left\{ \text{'**/kernel'}: 0.1,\; \text{'**'}: 0 \right\}" in shown
    check(shown)
    assert (
        r"\alpha = \left( 0.001, 0.01 \right)"
        in gx.stack([gx.adam(1e-3), gx.adam(1e-2)])._repr_latex_()
    )


def test_a_chain_shows_its_parts_in_order():
    shown = gx.chain(gx.clip(1.0), ("slow", gx.ema(0.9)), optax.scale(-1.0))._repr_latex_()
    titles = re.findall(r"\\textbf\{([^}]*)\}", shown)
    assert titles[:2] == ["clip", "slow"]
    assert len(titles) == 3
    assert re.findall(r"\\textbf\{([^}]*)\}", gx.skip_nonfinite(gx.adam(0.1))._repr_latex_()) == [
        r"skip\_nonfinite",
        "adam",
    ]


def test_a_method_of_ones_own_shows_its_rules():
    @gx.transformation
    def mine(decay: gx.hyper.Decay = 0.9):
        """u = sign(m), m ← β m + (1 - β) g."""
        return gx.chain(gx.ema(decay, debias=False), gx.scale_by_sign())

    @gx.transformation
    def silent(decay: gx.hyper.Decay = 0.9):
        return gx.chain(gx.ema(decay, debias=False), gx.scale_by_sign())

    assert lines(mine()) == lines(silent()) == ["m ← β m + (1 - β) u", "u = sign(m)"]
    assert re.findall(r"\\textbf\{([^}]*)\}", silent()._repr_latex_()) == ["silent"]
