"""The models `compare` trains: linear, multilayer perceptron, small convolutional network, or the
user's own.

A model is a Flax linen module called as `module(x, train)` with a batch of rows; it returns [batch,
outputs].
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gradxform.cli.data import Dataset
from gradxform.cli.own import attribute
from gradxform.cli.problems import Problem, need

need("flax")


BUILT_IN = ("linear", "mlp", "cnn")


INITS: dict[str, Callable] = {
    "default": nn.linear.default_kernel_init,
    "zeros": nn.initializers.zeros,
    "constant": nn.initializers.constant(0.1),
    "xavier": nn.initializers.xavier_uniform(),
    "he": nn.initializers.he_normal(),
}


class MLP(nn.Module):
    """Dense layers with ReLU and dropout between them; without hidden layers, a linear model."""

    outputs: int
    hidden: tuple[int, ...]
    kernel_init: Callable
    dropout: float

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=self.kernel_init)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.outputs, kernel_init=self.kernel_init)(x)


class CNN(MLP):
    """Two 3×3 convolutions, of 8 and 16 channels, with ReLU and 2×2 max pooling, then an MLP."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        for channels in (8, 16):
            x = nn.relu(nn.Conv(channels, (3, 3), kernel_init=self.kernel_init)(x))
            x = nn.max_pool(x, (2, 2), (2, 2)) if min(x.shape[1:3]) >= 2 else x
        return MLP(self.outputs, self.hidden, self.kernel_init, self.dropout)(x, train)


class Model(NamedTuple):
    """The pure functions of a model, and what it is called in the report."""

    name: str
    init: Callable  # key -> params
    apply: Callable  # params, x, key (None: no dropout) -> [batch, outputs]
    parameters: int


def build(spec: str, data: Dataset, hidden: tuple | None, init: str, dropout: float) -> Model:
    """Build and try the model that `spec` names on one row of `data`."""
    if spec == "cnn" and not data.is_image:
        has = f"{data.name} has {data.x.shape[1]} features"
        raise Problem(f"--model cnn needs images (rows × height × width); {has}")
    if spec in BUILT_IN:
        hidden = (64, 64) if hidden is None else hidden
        kind = CNN if spec == "cnn" else MLP
        module = kind(data.outputs, () if spec == "linear" else hidden, INITS[init], dropout)
        name = spec if spec == "linear" else f"{spec} {','.join(map(str, hidden))}"
    else:
        if (init, dropout) != ("default", 0.0):
            to = ", ".join(BUILT_IN)
            raise Problem(f"--init and --dropout apply to {to}; {spec} decides these itself")
        module, name = _from_factory(spec, data.outputs), spec
    return _try(name, module, data)


def _from_factory(spec: str, outputs: int) -> nn.Module:
    name = spec.partition(":")[2]
    factory = attribute(f"--model {spec}", spec, f"{', '.join(BUILT_IN)} or module:factory")
    try:
        module = factory(outputs=outputs)
    except (Exception, SystemExit) as error:
        what = f"{name}(outputs={outputs}) failed: {type(error).__name__}: {error}"
        raise Problem(f"--model {spec}: {what}") from error
    if not isinstance(module, nn.Module):
        what = f"{name} returned {type(module).__name__}; expected a flax.linen.Module"
        raise Problem(f"--model {spec}: {what}")
    return module


def _try(name: str, module: nn.Module, data: Dataset) -> Model:
    row = jnp.asarray(np.zeros((2, *data.x.shape[1:]), np.float32))
    takes_train = "train" in inspect.signature(type(module).__call__).parameters

    def call(variables, x, key):
        train: dict = {"train": key is not None} if takes_train else {}
        rngs = None if key is None else {"dropout": key}
        return module.apply(variables, x, rngs=rngs, **train)

    def init(key):
        train: dict = {"train": False} if takes_train else {}
        return module.init({"params": key}, row, **train)

    try:
        variables = jax.eval_shape(init, jax.random.key(0))
        if set(variables) != {"params"}:
            extra = ", ".join(sorted(set(variables) - {"params"})) or "no parameters at all"
            only = "compare trains modules with parameters only"
            raise Problem(f"--model {name}: the module has {extra}; {only}")
        out = jax.eval_shape(call, variables, row, jax.random.key(0))
    except Problem:
        raise
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        first = (str(error).splitlines() or [""])[0]
        why = f"cannot be called on rows of {data.name}: {type(error).__name__}: {first}"
        raise Problem(f"--model {name}: {why}") from error
    if getattr(out, "shape", None) != (2, data.outputs):
        shape = getattr(out, "shape", type(out).__name__)
        what = f"returned {shape} for x of shape {row.shape}; expected {(2, data.outputs)}"
        raise Problem(f"--model {name}: {what}")
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))

    def apply(params, x, key=None):
        return call({"params": params}, x, key)

    return Model(name, lambda key: init(key)["params"], apply, count)
