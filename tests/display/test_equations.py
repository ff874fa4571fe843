"""Every rule carries its equation: it parses, and its letters are the rule's arguments."""

import inspect
import re

import jax.numpy as jnp
import pytest
from instances import TRANSFORMATIONS

import gradxform as gx
from gradxform.core.leafwise import Leafwise
from gradxform.display.latex import equations, own_letter
from gradxform.display.notation import LEFT, SUMS, _tokens, to_latex
from gradxform.matrices.basis import Basis
from gradxform.matrices.kron import Kron
from gradxform.matrices.matrixwise import Matrixwise

GIVEN = "u g p t f i j 𝒩"  # what every rule may name: f is the loss, i and j are axes
FUNCTIONS = {
    "max", "min", "sign", "mean", "size", "atan2", "tanh", "any", "isnan", "decay_rate_fn", "value",
    "inputs", "outputs", "triu", "diag", "rank", "rows", "columns",
}  # fmt: skip
RANDOM = {"key"}  # what only draws has no letter
BESIDE = RANDOM | {"initial", "size"}  # nor has where a basis begins, or the unit of its slots


def rules(tx):
    """Every rule of a transformation, those inside wrappers too: its name, its measure and itself,
    and the names of its numbers and slots.
    """
    if isinstance(tx, Leafwise | Matrixwise):
        functions = [*filter(None, [getattr(tx, "measure", None)]), tx.rule]
        named = set().union(*map(keywords, functions))
        hypers = [name for name in tx.hypers if name in named]
        slots = [name for name, _ in tx.slots + getattr(tx, "memory", ())]
        yield tx.name, functions, dict.fromkeys([*hypers, *slots])
        return
    if isinstance(tx, Basis):
        yield tx.name, [tx.rule], [x for x in (*tx.hypers, *tx.rule.names) if x not in BESIDE]
    elif hasattr(tx, "rule"):
        yield tx.name, [tx.rule], []
    if isinstance(tx, Kron):
        yield tx.name, [tx], ["precond_probability", "precond_lr", "q_left", "q_right"]
    for _, part, *_ in tx.inside():
        yield from rules(part)


def keywords(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


def letters(text):
    """The letters and words of a text, each with its accent and index; μₜ₊₁ is μₜ."""
    found = set()
    for token in _tokens(text):
        letter = token.kind == "letter" and token.text[0].isalpha()
        if token.kind == "word" or (letter and (token.low or token.text not in SUMS)):
            mark = "".join(re.findall(r"\*|\\prime|^[-+]$", token.high))
            found.add((token.text, token.accent, re.sub(r"^t[-+]1$", "t", token.low), mark))
        if "t" in token.high:
            found.add(("t", "", "", ""))
    return found


def check_rule(name, functions, names):
    assert equations(functions[-1]), f"{name}: {functions[-1]} has no equation"
    lines = [line for function in functions for line in equations(function)]
    taken, known = set(), letters(GIVEN)
    for argument in names:
        letter = own_letter(argument, "\n".join(lines), taken)
        assert letter or argument in RANDOM, f"{name}: {argument} is not in its equation"
        taken.add(letter)
        known |= letters(letter)
    for line in lines:
        assert r"\text{?}" not in to_latex(line), line
        equation = line.partition("  ")[0]
        left = LEFT.match(equation)[1]
        free = letters(equation[len(left) :]) - known
        free = {letter for letter in free if letter[0] not in FUNCTIONS}
        assert not free, f"{name}: {sorted(x[0] for x in free)} in {line!r} is nothing it knows"
        known |= letters(left)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_letters_of_a_rule_are_its_arguments(name):
    for rule in rules(TRANSFORMATIONS[name].make()):
        check_rule(*rule)


def _silent(u, at, *, decay):
    return decay * u


def _prose(u, at, *, decay):
    """Shrinks u, where β = 0.9 is usual."""
    return decay * u


def _forgets(u, at, m, *, decay, eps):
    """m ← β m + u
    u = m
    """
    return m / eps, m


def _forgets_a_slot(u, at, m, *, decay):
    """u ← β u"""
    return decay * u, m


def _invents(u, at, *, decay):
    """u ← β u + q"""
    return decay * u


def _too_late(u, at, *, decay):
    """u ← β q
    q = g²
    """
    return decay * u


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (_silent, "has no equation"),
        (_prose, "has no equation"),
        (_forgets, "eps is not in its equation"),
        (_forgets_a_slot, "m is not in its equation"),
        (_invents, "'q'.* is nothing it knows"),
        (_too_late, "'q'.* is nothing it knows"),
    ],
)
def test_the_law_can_fail(rule, message):
    slots = {"m": jnp.zeros_like} if "m" in inspect.signature(rule).parameters else None
    hypers = dict.fromkeys(sorted(keywords(rule)), 0.5)
    (found,) = rules(gx.leafwise(rule, slots=slots, **hypers))
    with pytest.raises(AssertionError, match=message):
        check_rule(*found)


def test_the_walk_reaches_rules_inside_wrappers():
    names = [name for name, *_ in rules(gx.cautious(gx.skip_nonfinite(gx.adam(0.1))))]
    assert names == ["agreement", "ema", "scale_by_rms", "scale_by_learning_rate"]
