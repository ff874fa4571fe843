"""A call that remembers its arguments.

Everything a user builds with gradxform, an optimizer or a schedule, is the value of a plain
function of a few arguments. `Call` keeps that function and those arguments, and is a pytree of the
numeric ones. All the rest follows: it prints as the code that builds it, compares and hashes by
value, pickles, stacks, batches and differentiates.
"""

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradxform.display.code import code, plain

ARRAY = np.ndarray | np.generic | jax.Array

# What arguments are called elsewhere, and here.
NICKNAMES = {
    "learning_rate": ("lr", "eta", "alpha", "step_size", "stepsize", "learningrate", "rate"),
    "b1": ("beta1", "beta_1", "beta", "betas", "momentum"),
    "b2": ("beta2", "beta_2", "betas", "rho"),
    "momentum": ("b1", "beta", "beta1", "mu"),
    "decay": ("rho", "alpha", "beta", "beta2", "b2", "gamma"),
    "eps": ("epsilon",),
    "weight_decay": ("wd", "l2"),
    "max_norm": ("clip_norm", "clipnorm", "max_grad_norm"),
    "key": ("seed", "rng"),
}


def meant(name: str, known) -> list[str]:
    """Which of the known names somebody means by another one, if any."""
    found = [k for k in known if name.lower() in NICKNAMES.get(k, ())][: 1 + (name == "betas")]
    return found or difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)


def _unknown(words: str, name: str, known) -> TypeError:
    near = meant(name, known)
    hint = f"; did you mean {' and '.join(near)}?" if near else ""
    return TypeError(f"{words} {name!r}; it has {list(known)}{hint}")


def _leaf_equal(a, b) -> bool:
    if a is b:
        return True
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return False
    if isinstance(a, ARRAY) or isinstance(b, ARRAY):
        if not (hasattr(a, "dtype") and hasattr(b, "dtype")):
            return False
        a, b = plain(a), plain(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


def _leaf_key(x):
    if isinstance(x, Tracer):
        return id(x)
    return plain(x).tobytes() if isinstance(x, ARRAY) else x


class Value:
    """Compares, hashes and refuses assignment by value, as a pytree: its structure, then its
    leaves.
    """

    def __eq__(self, other):
        if self is other:
            return True
        if not isinstance(other, Value):
            return NotImplemented
        (mine, structure), (theirs, other_structure) = map(jax.tree.flatten, (self, other))
        return structure == other_structure and all(map(_leaf_equal, mine, theirs))

    def __hash__(self):
        leaves, structure = jax.tree.flatten(self)
        return hash((structure, *map(_leaf_key, leaves)))


@typing.dataclass_transform(frozen_default=True, eq_default=False)
def pytree(static: tuple[str, ...] = ()):
    """Decorator: a frozen dataclass that is a pytree of its fields, the static ones excepted, and
    compares as a `Value`.
    """

    def decorate(cls):
        cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        children = [f.name for f in dataclasses.fields(cls) if f.name not in static]
        return jax.tree_util.register_dataclass(cls, children, list(static))

    return decorate


class Call(Value):
    """The value of `function(**arguments)`: numbers, schedules and transformations are children,
    the rest is static.
    """

    _function: Callable
    _dynamic: dict
    _static: tuple

    def __init__(self, function, dynamic, static):
        self.__dict__.update(_function=function, _dynamic=dynamic, _static=static)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        flatten = cls._flatten_with_keys, cls._unflatten, cls._flatten
        jax.tree_util.register_pytree_with_keys(cls, *flatten)

    def _flatten(self):
        return tuple(self._dynamic.values()), (self._function, tuple(self._dynamic), self._static)

    def _flatten_with_keys(self):
        children = tuple((jax.tree_util.GetAttrKey(k), x) for k, x in self._dynamic.items())
        return children, self._flatten()[1]

    @classmethod
    def _unflatten(cls, aux, children):
        function, names, static = aux
        return cls(function, dict(zip(names, children, strict=True)), static)

    def __setattr__(self, name, value):
        raise AttributeError(f"{self.name} is immutable; use .replace({name}=...)")

    def __getattr__(self, name: str):
        arguments = self.__dict__.get("_dynamic", {}) | dict(self.__dict__.get("_static", ()))
        name = getattr(self.__dict__.get("_function"), "synonyms", {}).get(name, name)
        if name in arguments:
            return arguments[name]
        missing = f"{type(self).__name__} has no attribute or argument {name!r}"
        raise AttributeError(f"{missing}; arguments: {list(arguments)}")

    def __reduce__(self):
        return type(self), (self._function, self._dynamic, self._static)

    def check(self) -> None:
        """Raise for arguments that do not go together, where the user calls the constructor."""

    @property
    def name(self) -> str:
        """The name of the function that built it."""
        return self._function.__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument by name, in the order of the signature."""
        given = self._dynamic | dict(self._static)
        return {k: given[k] for k in inspect.signature(self._function).parameters if k in given}

    def replace(self, **changes):
        """The same call with other arguments, checked as at construction:
        `tx.replace(learning_rate=3e-4)`.

        With another `convention`, arguments that are still the old one's defaults become the new
        one's.
        """
        kept = self.arguments
        changes = {self._function.synonyms.get(name, name): x for name, x in changes.items()}
        unknown = [name for name in changes if name not in kept]
        if unknown:
            raise _unknown(f"{self.name}: no argument named", unknown[0], kept)
        if "convention" in changes:
            conventions = self._function.conventions
            parameters = inspect.signature(self._function).parameters
            defaults = {name: p.default for name, p in parameters.items()}
            defaults |= conventions.get(kept["convention"], {})
            for k in {name for values in conventions.values() for name in values}:
                if k in kept and _leaf_equal(kept[k], defaults[k]):
                    del kept[k]
        return self._function(**(kept | changes))

    def __repr__(self):
        parameters = inspect.signature(self._function).parameters
        changed = self._function.conventions.get(dict(self._static).get("convention"), {})
        shown = []
        for name, x in self.arguments.items():
            default = parameters[name].default
            same = x is default or (type(x) is type(default) and x == default)
            if name in self._dynamic or name in changed or not same:
                shown.append(f"{name}={code(x)}")
        return f"{self.name}({', '.join(shown)})"


def _with_numbers(doc: str | None, converters: dict):
    """The docstring, and what the types of the arguments say about them."""
    texts = {name: getattr(converter, "text", "") for name, converter in converters.items()}
    lines = [f"    {name}: {text}" for name, text in texts.items() if text]
    return "\n".join([inspect.cleandoc(doc), "", "Numbers:", *lines]) if doc and lines else doc


class Choice:
    """One of a few words, as `Literal["min", "max"]` says."""

    static = True

    def __init__(self, *options: str):
        self.options = options

    def __repr__(self):
        return " | ".join(map(repr, self.options))

    def convert(self, owner: str, name: str, x: str) -> str:
        """The word as it is; another one raises."""
        if isinstance(x, str) and x in self.options:
            return x
        two = len(self.options) == 2
        words = " or ".join(map(repr, self.options)) if two else f"one of {list(self.options)}"
        raise ValueError(f"{owner}: {name} must be {words}; got {code(x)}")


class Flag:
    """True or False."""

    static = True

    def __repr__(self):
        return "bool"

    def convert(self, owner: str, name: str, x) -> bool:
        """The value as a Python bool; what is neither, nor 0 or 1, raises."""
        if isinstance(x, bool | np.bool_) or (isinstance(x, int) and x in (0, 1)):
            return bool(x)
        raise TypeError(f"{owner}: {name} must be True or False; got {code(x)}")


class Whole:
    """A whole number that is known now."""

    static = True

    def __repr__(self):
        return "int"

    def convert(self, owner: str, name: str, x) -> int:
        """The value as a Python int; anything else raises."""
        if isinstance(x, int | np.integer) and not isinstance(x, bool):
            return int(x)
        if isinstance(x, float) and x.is_integer():
            return int(x)
        raise TypeError(f"{owner}: {name} must be a whole number; got {code(x)}")


PLAIN = {bool: Flag(), int: Whole()}


C = typing.TypeVar("C", bound=Call)


def _converters(hints: dict):
    """What converts and checks the value of each parameter: in the metadata of its `Annotated[...]`
    type, the choice that a `Literal[...]` is, or that of a bool or an int.
    """
    found = {name: PLAIN[hint] for name, hint in hints.items() if hint in PLAIN}
    for name, hint in hints.items():
        for option in (hint, *typing.get_args(hint)):
            if typing.get_origin(option) is typing.Literal:
                found[name] = Choice(*typing.get_args(option))
            for extra in getattr(option, "__metadata__", ()):
                if hasattr(extra, "convert"):
                    found[name] = extra
    return found


Conventions = dict[str, dict] | tuple[str, ...] | None


def define(cls: type[C], leading: int = 0, conventions: Conventions = None):
    """Decorator: the function, called, gives a `cls` that remembers the call.

    `leading` parameters (a schedule's `step`) are not arguments of the constructor. `conventions`
    are the values of the argument `convention`, each with the defaults that change with it. An
    argument whose type has synonyms may be given under any of them.
    """
    named = conventions or ()
    changed = named if isinstance(named, dict) else {name: {} for name in named}

    def decorate(function: Callable) -> Callable[..., C]:
        return _constructor(cls, function, leading, changed)

    return decorate


def _constructor(cls, function, leading: int, conventions: dict[str, dict]):
    hints = typing.get_type_hints(function, None, None, True)
    signature, owner, converters = (
        inspect.signature(function),
        function.__name__,
        _converters(hints),
    )
    parameters = list(signature.parameters.values())[leading:]
    optional = {name for name, hint in hints.items() if type(None) in typing.get_args(hint)}
    optional |= {p.name for p in parameters if p.default is None}
    readable = [p.replace(annotation=converters.get(p.name, p.annotation)) for p in parameters]
    public = signature.replace(parameters=readable, return_annotation=cls)
    synonyms = {}
    for name, converter in converters.items():
        others = getattr(converter, "synonyms", ())
        if name in others:
            synonyms |= {other: name for other in others if other not in public.parameters}

    def arguments_of(args, kwargs):
        named = {synonyms.get(name, name): x for name, x in kwargs.items()}
        try:
            if len(named) < len(kwargs):
                same = sorted(kwargs.keys() & {*synonyms, *synonyms.values()})
                raise TypeError(f"{' and '.join(same)} name one argument")
            if unknown := [name for name in named if name not in public.parameters]:
                raise _unknown("got an unexpected keyword argument", unknown[0], public.parameters)
            bound = public.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{owner}: {error}") from None
        given = bound.arguments
        if conventions:
            choice = given.get("convention", public.parameters["convention"].default)
            if not isinstance(choice, str) or choice not in conventions:
                one = f"one of {sorted(conventions)}"
                raise ValueError(f"{owner}: convention must be {one}; got {choice!r}")
            given.update({k: v for k, v in conventions[choice].items() if k not in given})
        bound.apply_defaults()
        return bound.arguments

    @wraps(function)
    def construct(*args, **kwargs):
        dynamic, static, where = {}, [], owner
        try:
            for name, x in arguments_of(args, kwargs).items():
                where = f"{owner}: {name}"
                converter = converters.get(name) if x is not None or name not in optional else None
                if converter:
                    x = converter.convert(owner, name, x)
                number = isinstance(x, Value | float | np.ndarray | np.inexact | jax.Array)
                if number or (converter and not getattr(converter, "static", False)):
                    dynamic[name] = x
                    continue
                try:
                    hash(x)
                except TypeError:
                    raise TypeError(f"{where} must be hashable; got {code(x)}") from None
                static.append((name, x))
            where, made = owner, cls(construct, dynamic, tuple(static))
            made.check()
        except (TypeError, ValueError, OverflowError) as error:
            text = " ".join(str(error).split())
            if error.__class__.__module__ != "builtins" or (
                owner in text and "\n" not in str(error)
            ):
                raise
            raise type(error)(text if owner in text else f"{where}: {text}") from error
        return made

    known = {"build": function, "converters": converters, "conventions": conventions}
    construct.__dict__.update(known, synonyms=synonyms, __signature__=public)
    shown = {p.name: converters[p.name] for p in parameters if p.name in converters}
    construct.__doc__ = _with_numbers(function.__doc__, shown)
    return construct
