"""A space is a sequence of settings, and a setting is a dict from names to values: one member of a
sweep.

    grid(learning_rate=[1e-3, 1e-2], b1=[0.8, 0.9])             every combination: 4 members
    zip(learning_rate=[1e-3, 1e-2], b1=[0.8, 0.9])              side by side: 2 members
    random(100, key, learning_rate=log_uniform(1e-5, 1))        drawn: 100 members
    grid(random(100, key, ...), seed=range(3))                  nested: 300 members
    grid(tx=[adam], b1=[0.8, 0.9]) + grid(tx=[sgd], momentum=[0.9])   one after the other: 3 members

Names that are no identifiers go in a dict: `grid({"ema.decay": [0.9, 0.99]}, learning_rate=[...])`.
A dict of values gives them labels: `grid(tx={"fast": adam(1e-2), "slow": adam(1e-3)})`.
"""

import builtins
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradxform.train.batches import one_key, whole

Setting = dict[str, Any]  # a value for each name


def _plain(x):
    """A number of NumPy as one of Python, which prints as what it is."""
    return x.item() if isinstance(x, np.generic) else x


class Space(Sequence):
    """Settings in order; `a + b` is one space after the other, `a * b` every setting of a with
    every one of b.
    """

    def __init__(self, settings: Iterable[Mapping]):
        self.settings = tuple({name: _plain(x) for name, x in one.items()} for one in settings)

    def __len__(self):
        return len(self.settings)

    def __getitem__(self, i) -> Any:
        return Space(self.settings[i]) if isinstance(i, slice) else self.settings[i]

    def __add__(self, other):
        return Space(self.settings + as_space(other).settings)

    def __mul__(self, other):
        pairs = itertools.product(self.settings, as_space(other).settings)
        return Space(_merged(a, b) for a, b in pairs)

    def __eq__(self, other):
        return isinstance(other, Space) and self.settings == other.settings

    def __hash__(self):
        return hash(tuple(map(repr, self.settings)))

    def __repr__(self):
        return f"<Space of {len(self)} settings of {', '.join(self.names) or 'nothing'}>"

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that some setting gives a value, in order of appearance."""
        return tuple(dict.fromkeys(name for setting in self.settings for name in setting))


@dataclass(frozen=True)
class Labelled:
    """A value with the name it goes by in tables."""

    label: str
    value: Any

    def __repr__(self):
        return self.label


def unlabelled(x):
    """The value, without a label."""
    return x.value if isinstance(x, Labelled) else x


@dataclass(frozen=True)
class Distribution:
    """Numbers or values to draw from, as a function of a uniform number in [0, 1)."""

    quantile: Callable
    name: str

    def draw(self, rng: np.random.Generator):
        """One value."""
        return self.quantile(rng.random())

    def points(self, n: int) -> list:
        """n values evenly spaced in probability, both ends included: `grid(x=log_uniform(1e-4,
        1).points(9))`.
        """
        if n < 1:
            raise ValueError(f"{self.name}: points(n) needs n of at least 1; got {n}")
        return [self.quantile(float(q)) for q in (np.linspace(0, 1, n) if n > 1 else [0.5])]

    def __repr__(self):
        return self.name


def as_space(x) -> Space:
    """A space as it is, one setting, or any iterable of settings."""
    return x if isinstance(x, Space) else Space([x]) if isinstance(x, Mapping) else Space(x)


def grid(*parts, **axes) -> Space:
    """Every combination of the values, the last axis turning fastest; a part is a space or a dict
    of axes.
    """
    space = Space([{}])
    for part in (*parts, axes):
        if isinstance(part, Mapping):
            for name, values in part.items():
                space = space * Space({name: value} for value in _values("grid", name, values))
        else:
            space = space * part
    return space


def zip(*parts, **axes) -> Space:
    """The axes side by side: the first values together, then the second ones.

    Raises:
        ValueError: axes of different lengths.
    """
    spaces: list[tuple[str, Sequence]] = []
    for part in (*parts, axes):
        if isinstance(part, Mapping):
            for name, values in part.items():
                spaces.append((name, [{name: x} for x in _values("zip", name, values)]))
        else:
            spaces.append((repr(part), as_space(part)))
    if len({len(space) for _, space in spaces}) > 1:
        lengths = ", ".join(f"{name} has {len(space)}" for name, space in spaces)
        raise ValueError(f"zip: every axis must be equally long: {lengths}")
    together = builtins.zip(*(space for _, space in spaces), strict=True)
    return Space(_merged(*settings) for settings in together)


def random(n: int, key, *parts, **axes) -> Space:
    """n settings, each axis drawn from its distribution (or as a choice among the values listed).

    The same key gives the same settings, and the first settings of a longer draw are those of a
    shorter one.
    """
    n, axes = whole("random: n", n), {k: x for part in (*parts, axes) for k, x in part.items()}
    for name, x in axes.items():
        if not isinstance(x, Distribution):
            axes[name] = choice(_values("random", name, x))
    if not isinstance(key, int):
        key = np.asarray(jax.random.key_data(one_key(key))).tolist()
    rng = np.random.default_rng(key)
    return Space({name: axis.draw(rng) for name, axis in axes.items()} for _ in range(n))


def uniform(low: float, high: float) -> Distribution:
    """Uniform between low and high."""
    if not -np.inf < low <= high < np.inf:
        must = "must be finite, and low must not exceed high"
        raise ValueError(f"uniform: low and high {must}; got {low} and {high}")
    return Distribution(lambda q: float(low + (high - low) * q), f"uniform({low:g}, {high:g})")


def log_uniform(low: float, high: float) -> Distribution:
    """Uniform in the logarithm: as likely between 0.001 and 0.01 as between 0.01 and 0.1."""
    if not 0 < low <= high < np.inf:
        raise ValueError(f"log_uniform: needs 0 < low <= high, finite; got {low} and {high}")
    span, name = np.log(high / low), f"log_uniform({low:g}, {high:g})"
    return Distribution(lambda q: float(min(high, low * np.exp(span * q))), name)


def choice(values) -> Distribution:
    """One of the values, each as likely."""
    values = _values("choice", "values", values)
    n = len(values)
    return Distribution(lambda q: values[min(int(q * n), n - 1)], f"choice of {n}")


def _values(owner: str, name: str, values) -> list:
    if isinstance(values, Mapping):
        return [Labelled(str(label), value) for label, value in values.items()]
    if isinstance(values, Distribution):
        ways = f"draw from it with random(n, key, ...), or take {name}=….points(n)"
        raise TypeError(f"{owner}: {name} is a distribution; {ways}")
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{owner}: {name} must be a list of values; got {values!r}")
    values = list(values)
    if not values:
        raise ValueError(f"{owner}: {name} has no values")
    return values


def _merged(*settings: Mapping) -> Setting:
    out: Setting = {}
    for setting in settings:
        for name, value in setting.items():
            if name in out:
                raise ValueError(f"space: {name!r} is given twice")
            out[name] = value
    return out
