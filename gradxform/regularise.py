"""What is added to a gradient, and what is cleaned from it: weight decay and L2, noise, NaN."""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradxform.core import transformation
from gradxform.define import code
from gradxform.hyper import ByPath, NonNegative, Real, WeightDecay
from gradxform.labels import as_mask, is_predicate, label_leaves
from gradxform.leafwise import PerLeaf, leafwise


@dataclass(frozen=True, repr=False)
class _Flags:
    """A mask as a pattern of a table: a tree of booleans, or a function of the parameters that gives one."""

    mask: Any

    def __repr__(self):
        return code(self.mask)

    def flags(self, owner: str, paths: Any, leaves: list[Any]) -> list[bool]:
        """Whether each leaf is chosen; a tree that does not fit the parameters is an error."""
        return label_leaves(owner, self.mask, paths.structure.unflatten(leaves), True)


class _Where:
    """Which leaves: a path pattern, a predicate f(path, leaf), a tree of booleans, or a function f(params) that gives one."""

    static = True
    text = (
        "which leaves: a path pattern, a predicate f(path, leaf), a tree of booleans like the parameters or a prefix of it, "
        "or a function f(params) that gives one"
    )

    def __repr__(self):
        return "leaves"

    def convert(self, owner: str, name: str, x: Any):
        if isinstance(x, _Flags):
            return x
        mask = as_mask.convert(owner, name, x)
        return mask if isinstance(mask, str) or is_predicate(mask) else _Flags(mask)


Where = Annotated[Any, _Where()]


def _decay(u, at, *, weight_decay):
    if isinstance(weight_decay, float) and weight_decay == 0:
        return u  # a constant zero costs nothing; Adadelta has one by default
    return u + weight_decay * at.p


def _decay_independent(u, at, *, weight_decay):
    return u - weight_decay * at.p


def _decay_cautious(u, at, *, weight_decay):
    outward = jnp.real(jnp.conj(u) * at.p) >= 0
    return u + weight_decay * jnp.where(outward, at.p, jnp.zeros_like(at.p))


_DECAYS = {"decoupled": _decay, "independent": _decay_independent, "cautious": _decay_cautious}


@transformation
def add_decayed_weights(
    weight_decay: WeightDecay = 0.0, mask: Where | None = None, *, where: Where | None = None, kind: str = "decoupled"
):
    """Add a share of the weights.

        u ← u + λ p                    "decoupled"
        u ← u + λ p where u p ≥ 0      "cautious": decay only where the step already goes towards zero
        u ← u - λ p                    "independent": for the end of a chain, after the learning rate

    Its place in the chain is its meaning: before everything else it is L2 regularisation (the gradient of λ‖p‖²/2, which
    a preconditioner then rescales); after the preconditioner, before the learning rate, it is decoupled weight decay (AdamW), scaled
    by the learning rate; after that, "independent" of the learning rate, with a schedule of its own if one likes.

    Args:
        weight_decay: λ, a number, a schedule or a table by path.
        where: which leaves: a path pattern ("**/kernel"), a predicate `f(path, leaf)`, a tree of booleans or a prefix of it, or a
            function `f(params)` that gives one.
        mask: Optax's name for the same.
        kind: which of the three.

    Memory: none.

    Raises:
        ValueError: update() without params; a pattern that matches no leaf; an unknown kind.

    Source: I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization (2019), algorithms 1 and 2, "independent" as their
    ηλ; L. Chen et al., Cautious Weight Decay (2025), algorithm 1.
    """
    if kind not in _DECAYS:
        raise ValueError(f"add_decayed_weights: kind must be one of {sorted(_DECAYS)}; got {kind!r}")
    if mask is not None and where is not None:
        raise TypeError("add_decayed_weights: mask and where are the same; give one")
    where = mask if where is None else where
    table = weight_decay if where is None else ByPath((where, "**"), (weight_decay, 0.0))
    return leafwise(_DECAYS[kind], weight_decay=table)


def _add_noise(u, at, *, eta, gamma):
    noise = jax.random.normal(at.scalars, u.shape, u.dtype)
    return u + jnp.sqrt(eta / at.t.astype(jnp.real(u).dtype) ** gamma) * noise


def _split_key(updates, at, key):
    following, sample = jax.random.split(jax.random.wrap_key_data(key))
    keys = jax.random.split(sample, len(updates))
    return PerLeaf(list(keys)), jax.random.key_data(following)


def _key_data(params, *, key):
    key = jnp.asarray(key)
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.key(key)
    return jnp.array(jax.random.key_data(key))


class _Key:
    """A random key: an integer, a key, or the raw data of one."""

    text = "an integer, a key of jax.random, or the raw data of one"

    def __repr__(self):
        return "key"

    def convert(self, owner: str, name: str, x: Any):
        dtype = getattr(x, "dtype", None)
        typed = dtype is not None and (jnp.issubdtype(dtype, jax.dtypes.prng_key) or jnp.issubdtype(dtype, jnp.integer))
        raw = dtype == jnp.uint32 and x.ndim == 1
        if isinstance(x, bool) or not (isinstance(x, int) or (typed and (raw or x.ndim == 0)) or isinstance(x, Tracer)):
            raise TypeError(f"{owner}: {name} must be a random key or an integer; got {code(x)}")
        return jax.random.wrap_key_data(jnp.asarray(x)) if raw else x


Key = Annotated[Any, _Key()]


@transformation
def add_noise(eta: NonNegative, gamma: Real, key: Key):
    """Add Gaussian noise whose variance falls with time: u ← u + 𝒩(0, η / tᵞ).

    Args:
        eta: η, the variance at the first step, in squared units of the update.
        gamma: γ, the power of its decay; the paper uses 0.55.
        key: an integer or a `jax.random` key; its data lives in the state.

    Memory: the key, 8 bytes.

    Source: A. Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks (2015), equation 1.
    """
    return leafwise(_add_noise, measure=_split_key, memory={"key": _key_data}, eta=eta, gamma=gamma, key=key)


def _zero_nans(u, at, found):
    nan = jnp.isnan(u)
    return jnp.where(nan, jnp.zeros_like(u), u), jnp.any(nan)


def _false(p):
    return jnp.zeros((), bool)


@transformation
def zero_nans():
    """Replace NaN entries by 0; infinite entries stay.

    Memory: one boolean per leaf, `found_nan`: whether the last update had any there.
    """
    return leafwise(_zero_nans, slots={"found_nan": _false})
