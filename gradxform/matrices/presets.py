"""Which parameters are matrices, by the names that Flax, Equinox, torch and Haiku give them.

A layer's bias, which has the axes of a batch and of the outputs, is a witness: where it contradicts
a name, or tells what the name does not, there is an error that says what to write. It cannot decide
by itself, since inside a `partition` a matrix method does not see it.
"""

import math
import re
from itertools import pairwise


def _named(words: str):
    """Whether a name has one of these words, between underscores."""
    return re.compile(rf"(^|_)({words})($|_)", re.IGNORECASE).search


is_embedding = re.compile(
    r"embed|(^|_)(wte|wpe|vocab|tokens?|positions?|positional|pos_emb|pos_enc|rel_pos)($|_)",
    re.IGNORECASE,
).search
_is_head = _named(r"head|logits?|classifier|unembed\w*|readout")
_is_norm = re.compile(r"norm|(^|_)(ln|bn|gn)(_|\d|$)", re.IGNORECASE).search
is_vector = _named("bias|scale|beta|gamma|gain|offset")
_is_convolution = re.compile(r"conv", re.IGNORECASE).search
_is_stack = re.compile(r"^(Scan|Vmap)|^(scan|layers|blocks|stack|experts|moe)$|stacked").search
_in_heads = _named("query|key|value|q|k|v|qkv")
_out_of_heads = _named("out|o")
_is_fused = _named("qkv|c_attn|in_proj|query_key_value")
_is_weight = _named("weight")  # outputs first; those of Flax and Haiku are kernels and w

PRESETS = ("names", "flax", "equinox")


def _is_none(modules: list[str], name: str, ndim: int, beside: dict) -> bool:
    """Whether names tell that it is no matrix."""
    table = ndim == 2 or (ndim == 3 and name != "kernel")  # a larger one convolves, as of patches
    within = table and not any("patch" in m.lower() for m in modules)
    return (
        ndim < 2
        or bool(is_vector(name) or is_embedding(name) or (name == "b" and "w" in beside))
        or (within and any(map(is_embedding, modules)))
        or any(_is_norm(x) or _is_head(x) for x in [*modules[-1:], name])
    )


def _of_bias(shape, bias, outputs_first: bool) -> set[tuple[int, int]]:
    """What a layer's bias, a batch and its outputs, tells of its kernel: how many axes are a batch
    and how many are outputs.
    """
    if outputs_first:  # one axis of outputs; a convolution's bias may go on with ones
        size = max((i + 1 for i, n in enumerate(bias) if n != 1), default=1)
        return {(size - 1, 1)} if shape[:size] == bias[:size] else set()
    ways = ((k, len(bias) - k) for k in range(len(bias)) if len(bias) < len(shape))
    return {(k, n) for k, n in ways if shape[:k] + shape[-n:] == bias}


def _of_names(modules: list[str], name: str, shape) -> tuple[int, int] | None:
    """The same by names alone; None where they do not tell."""
    within, ndim = "".join(modules[-1:]), len(shape)
    listed = any(_is_stack(m) and n.isdigit() for m, n in pairwise(modules))
    stacked = any(map(_is_stack, modules)) and not listed
    if ndim == 2:
        return 0, 1
    if _is_convolution(within) or _is_convolution(name):
        return int(stacked), 1
    if name == "kernel" and ndim > 3 - (not stacked):
        if _in_heads(within):
            return ndim - 3, 2
        if _out_of_heads(within):
            return ndim - 3, 1
    if stacked:
        return ndim - 2, 1
    spatial = shape[2:] if _is_weight(name) else shape[:-2]
    return (0, 1) if ndim > 3 and max(spatial) < 16 else None


Sides = tuple[tuple[int, ...], tuple[int, ...], tuple[int, int]]  # rows, columns, their parts


def by_name(preset: str, path: str, shape: tuple[int, ...], beside: dict) -> Sides | None:
    """The matrix that a parameter's name and shape tell of, None for what is none. `beside` are the
    shapes of the others in its module.

    Raises:
        LookupError: names do not tell, or the bias contradicts; with what the bias tells, if any.
    """
    *modules, name = path.split("/")
    ndim = len(shape)
    if _is_none(modules, name, ndim, beside):
        return None
    outputs_first = preset == "equinox" or (preset == "names" and bool(_is_weight(name)))

    def sides(batch: int, outputs: int) -> Sides:
        axes = tuple(range(batch, ndim))
        rows, columns = axes[:-outputs], axes[-outputs:]
        if outputs_first:
            rows, columns = axes[outputs:], axes[:outputs]
        inner, outer = (math.prod(shape[a] for a in side) for side in (rows, columns))
        fused = any(map(_is_fused, [*modules[-1:], name])) and outer == 3 * inner
        return rows, columns, (1, 3 if fused else 1)

    told, bias = _of_names(modules, name, shape), beside.get("bias", beside.get("b"))
    seen = set() if bias is None or ndim == 2 else _of_bias(shape, bias, outputs_first)
    if told is None or (seen and told not in seen):
        raise LookupError(*(sides(*one) for one in seen if len(seen) == 1))
    return sides(*told)
