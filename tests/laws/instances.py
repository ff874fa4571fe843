"""What the laws run over: every public transformation, made by machine from its constructor.

An instance has the defaults of its constructor, and one more for each value of `convention`; what
has no default is given by its name or type (`gradxform.testing.tools.representative`). By hand stand
only the arguments whose defaults would show nothing in three steps on small leaves, other flags,
compositions, what an update needs, and the laws that do not hold, each with its reason.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx
from gradxform.core.frozen import trained
from gradxform.core.transform import Transform
from gradxform.testing.samples import tree
from gradxform.testing.tools import constructors, representative


@dataclass(frozen=True)
class Entry:
    """A public transformation under test.

    Attributes:
        make: gives a representative instance.
        extra: the keyword arguments its update needs, as constants.
        exceptions: laws that do not hold for it, each with the reason.
    """

    make: Callable[[], Transform]
    extra: Mapping[str, Any] = field(default_factory=dict)
    exceptions: Mapping[str, str] = field(default_factory=dict)


def _quartic(params):
    leaves = [jnp.asarray(p, float) for p in jax.tree.leaves(trained(params))]
    # so that the Hessian is not diagonal
    together = sum((jnp.sum(p) for p in leaves), jnp.zeros(()))
    return sum((jnp.sum(p**4) / 12 + jnp.sum(p**2) / 2 for p in leaves), together**2 / 4)


def _slope(params, i):
    return jax.grad(_quartic)(trained(params))


def _halve(updates, params):
    return gx.tree.tree_map(lambda u: u / 2, updates)


def _halve_leaf(u, p):
    return u / 2


def _signed(u, at, *, step_size):
    """u ← a sign(u)"""
    return step_size * jnp.sign(u)


def _two_examples(updates, params):
    return gx.tree.tree_map(lambda u: jnp.stack([u, u / 2]), updates)


_DRAWN = {"magnitudes": "in double precision it draws other numbers"}

_PROJECTOR = {"counter": "each projector has a key of its own, that of its step"}

_RANDOM = _DRAWN | {
    "subtree": "each leaf draws from its own key, split by the number of leaves",
    "temporary": "the random bits are drawn before they are added",
}

_WHOLE_TREE = {
    "subtree": "the norm is that of the whole tree",
    "table": "the bound is one number for the whole tree",
}

_WATCHING = {"table": "what it watches, and its patience, are the same for the whole tree"}

_WARMING = {"table": "the momentum's warm-up is one product for the whole tree"}

_COPYING = {
    "temporary": "the step and the new E[Δ²] both read the old one, of which XLA:CPU keeps a copy, as for Optax's"
}

_BRANCHING = {
    "temporary": "the branch that is not taken needs the updates as an array of their own"
}

_STOPPING = {"counter": "its k-th step, or its condition, is told by the counter, which stands"}

_CALLING = _STOPPING | {"value": "its function is repr's by name, and is not written out"}

_CHOOSING = {
    "temporary": "where the old state is chosen it is read once more, of which XLA:CPU keeps a copy, as for Optax's"
}

_AVERAGING = {
    "temporary": "the parameters and the kept ones both read each other, of which XLA:CPU keeps a copy, as for Optax's"
}

_WEIGHED = {"table": "the weights of the average are the same for the whole tree"} | _AVERAGING

_SPIKING = {"table": "the bound is one number for the whole tree"} | _CHOOSING

_WHOLE_TREE_TABLE = {"table": "it measures the whole tree"}

_WHOLE_TREE_LOSS = {"subtree": "the gradient before is that of the loss of the whole tree"}

_ASCENDING = _WHOLE_TREE_LOSS | {
    "magnitudes": "the loss at the point it ascends to is itself no number",
    "temporary": "the point it ascends to is a tree like the parameters",
    "zero_gradient": "a traced sync_period makes a loop of that length, which has no derivative in reverse",
}

_BETTING = {
    "temporary": "the step and the new reward both read the old ones, of which XLA:CPU keeps a copy"
}

_SUMMED = {"temporary": "XLA:CPU stores quotients before it adds them up"}

_PROJECTING = {
    "temporary": "the decomposition and the way back from the subspace are products of matrices"
}

_PRODUCTS = {"temporary": "products of matrices are stored"}
_ROOTS = _STOPPING | {"temporary": "second moments and their roots are products of matrices"}

_LENGTH = {
    "temporary": "a step's length is known only when all of it is, so it is stored before it is shortened"
}

_STEP_FREE = {
    "subtree": "the step size is learned from the whole tree",
    "table": "the step size is one number for the whole tree",
}

_MEASURED = {"temporary": "the decayed gradient is stored before it is measured"}

_PRIVATE = _DRAWN | {
    "subtree": "each leaf draws from its own key, split by the number of leaves, and the norm is that of the whole tree",
    "table": "the bound is one number for the whole tree",
    "temporary": "the examples' gradients are as many times the parameters, and the random bits are drawn before they are added",
}

_LEARNING = _DRAWN | {
    "temporary": "factors are fitted to products of matrices, beside a matrix of random numbers"
}

_LATE = {
    "temporary": "the step reads the state as it was before this gradient, of which XLA:CPU keeps a copy, as for Optax's"
}

_SCALED = {
    "temporary": "the step is formed before it is measured and scaled, as for Optax's, which has two and more"
}


# constructor -> arguments in place of its defaults
ARGUMENTS: dict[str, dict[str, Any]] = {
    "MultiSteps": {"use_grad_mean": False},
    "adafactor": {"min_dim_size_to_factor": 2, "weight_decay_rate": 0.01},
    "adagc": {"beta": 0.9, "warmup_steps": 2},
    "adam_l2": {"l2": 0.1},
    "adam_mini": {"blocks": (0,)},
    "apply_every": {"k": 2},
    "apollo": {"rank": 1, "update_proj_gap": 2},
    "asgd": {"learning_rate": 0.1},
    "came": {"learning_rate": 0.1, "b3": 0.99},  # 1 - 0.9999 keeps few digits of float32
    "dadapt_adamw": {"estim_lr0": 0.01},
    "dog": {"init_step": ("heuristic", 0.01)},
    "eigenbasis": {"decay": 0.9, "every": 2},
    "galore": {"rank": 1, "update_proj_gap": 2},
    "kl_shampoo": {"precondition_frequency": 2},
    "in_basis": {"basis": gx.eigenbasis(0.9, 2)},
    "kl_eigenbasis": {"decay": 0.9, "every": 2},
    "kl_soap": {"precondition_frequency": 2, "eps": 1.0},
    "lawa": {"window": 2},
    "leading_basis": {"rank": 1, "every": 2},
    "masked": {"inner": gx.chain(gx.ema(0.9), gx.scale_by_rms(0.99))},
    "mechanize": {"base_optimizer": gx.sgd(1.0), "s_init": 0.01},
    "momentum": {"dampening": 0.1},
    "momentum_plus_gradient": {"decay": 0.9, "alpha": 0.5},
    "momo": {"learning_rate": 0.1},
    "momo_adam": {"learning_rate": 0.1},
    "monitor": {
        "measures": {"norm": gx.global_norm, "mean": gx.measure_with_ema(gx.global_norm, 0.9)}
    },
    "params_ema": {"decay": 0.9},
    "partition": {
        "transforms": {"fast": gx.adam(0.1), "rest": gx.sgd(0.1)},
        "param_labels": gx.by_path({"**": "fast"}),
    },
    "polyak_sgd": {"max_learning_rate": 0.5},
    "prodigy": {"estim_lr0": 0.1, "estim_lr_coef": 10.0},
    "qhadam": {"nu2": 0.8},
    "random_basis": {"rank": 1, "every": 2},
    "reduce_on_plateau": {"factor": 0.5, "patience": 2},
    "rmsprop": {"learning_rate": 0.01},
    "sam": {"adv_optimizer": gx.sgd(0.1)},
    "scale_by_apollo": {"rank": 1, "update_proj_gap": 2},
    "scale_by_asgd": {"learning_rate": 0.1, "t0": 0.0},
    "scale_by_distance_over_gradients": {"reps_rel": 0.01},
    "scale_by_dowg": {"init_estim_sq_dist": 0.1},
    "scale_by_factored_rms": {"min_dim_size_to_factor": 2},
    "scale_by_galore": {"rank": 1, "update_proj_gap": 2},
    "scale_by_kl_shampoo": {"precondition_frequency": 2},
    "scale_by_kl_soap": {"precondition_frequency": 2, "eps": 1.0},
    "scale_by_polyak": {"f_min": 0.1, "max_learning_rate": 0.5},
    "scale_by_quasi_hyperbolic_rms": {"nu": 0.8},
    "scale_by_radam": {"threshold": 1.5},
    "scale_by_rectified_rms": {"threshold": 1.5},
    "scale_by_schedule": {"step_size_fn": gx.linear_schedule(1.0, 0.5, 10)},
    "scale_by_shampoo": {"decay": 0.9, "relative_eps": 0.01, "precondition_frequency": 2},
    "scale_by_simplified_ademamix": {"alpha": 0.5},
    "scale_by_soap": {"precondition_frequency": 2, "eps": 1.0},
    "scale_by_sophia": {
        "b2": 0.5,
        "eps": 0.1,
        "gamma": 1.0,
        "clip_threshold": 100.0,
        "update_interval": 2,
    },
    "qk_clip": {"tau": 0.25, "queries": "**", "keys": None, "heads": ()},
    "schedule_free": {"base_optimizer": gx.sgd(0.1)},
    "schedule_free_adamw": {"learning_rate": 0.1, "warmup_steps": 2},
    "schedule_free_sgd": {"learning_rate": 0.1, "warmup_steps": 2},
    "shampoo": {"b2": 0.9, "relative_eps": 0.01, "precondition_frequency": 2},
    "scion": {"radius": 1.0, "sign_radius": 1.0},  # at 3000 three steps leave no digits
    "skip_spikes": {"threshold": 1.5, "warmup": 1},
    # where gradients have no rank, a small ε makes steps of rounding
    "soap": {"precondition_frequency": 2, "eps": 1.0},
    "sophia": {"eps": 1e-3, "gamma": 1.0, "clip_threshold": 100.0, "update_interval": 2},
    "swa": {"start": 1, "period": 2},
    "two_emas": {"alpha": 2.0},
    "zclip": {"decay": 0.9, "warmup_steps": 1},
    "scale_by_came": {"b3": 0.99},
}

# another instance -> its constructor and arguments
FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam_nesterov": ("adam", {"nesterov": True}),
    "adafactor_momentum": ("adafactor", {"learning_rate": 0.1, "momentum": 0.9}),
    "add_decayed_weights_cautious": ("add_decayed_weights", {"kind": "cautious"}),
    "add_decayed_weights_independent": ("add_decayed_weights", {"kind": "independent"}),
    "amsgrad_uncorrected": ("amsgrad", {"bias_correction_nu": False}),
    "centralize_last": ("centralize", {"outputs": "last"}),
    "ema_biased": ("ema", {"debias": False}),
    "ema_nesterov": ("ema", {"nesterov": True}),
    "ema_nesterov_biased": ("ema", {"debias": False, "nesterov": True}),
    "freeze_but": ("freeze", {"mask": False, "inner": gx.adam(0.1)}),
    "galore_paper": ("galore", {"convention": "paper"}),
    "lookahead_reset": ("lookahead", {"reset_state": True}),
    "momentum_nesterov": ("momentum", {"dampening": 0.0, "nesterov": True}),
    "momentum_torch": ("momentum", {"dampening": 0.5, "convention": "torch"}),
    "momo_adapted": ("momo", {"lower_bound": 0.1, "adapt_lower_bound": True}),
    "params_ema_biased": ("params_ema", {"debias": False}),
    # in bfloat16 another order of sums may round the other way
    "muon_torch": ("muon", {"convention": "torch", "compute_dtype": "float32"}),
    "polyak_sgd_paper": ("polyak_sgd", {"variant": "sps+", "convention": "paper"}),
    "prodigy_safeguarded": ("prodigy", {"beta3": 0.9, "safeguard_warmup": True}),
    "quasi_hyperbolic_debiased": ("quasi_hyperbolic", {"debias": True}),
    "reduce_on_plateau_torch": (
        "reduce_on_plateau",
        {"patience": 1, "mode": "max", "convention": "torch"},
    ),
    "reduce_variance_exact": ("reduce_variance", {"exact": True}),
    "rmsprop_centered": ("rmsprop", {"centered": True, "momentum": 0.9}),
    "rmsprop_momentum_torch": ("rmsprop", {"momentum": 0.9, "convention": "torch"}),
    "rprop_torch": ("rprop", {"convention": "torch"}),
    "sam_opaque": ("sam", {"opaque_mode": True}),
    "scale_by_adopt_nesterov": ("scale_by_adopt", {"nesterov": True, "use_clipping": False}),
    "scale_by_amsgrad_uncorrected": ("scale_by_amsgrad", {"bias_correction_mu": False}),
    "scale_by_belief_nesterov": ("scale_by_belief", {"nesterov": True}),
    "scale_by_factored_rms_full": ("scale_by_factored_rms", {"factored": False}),
    "scale_by_lion_refined": ("scale_by_lion", {"mode": "refined"}),
    "scale_by_lion_smooth": ("scale_by_lion", {"mode": "smooth"}),
    "scale_by_rms_debiased": ("scale_by_rms", {"eps_in_sqrt": False, "bias_correction": True}),
    "scale_by_rms_debiased_keras": (
        "scale_by_rms",
        {"eps_in_sqrt": False, "bias_correction": True, "convention": "keras"},
    ),
    "scale_by_rms_max_keras": ("scale_by_rms_max", {"convention": "keras"}),
    "scale_by_rms_max_paper": ("scale_by_rms_max", {"convention": "paper"}),
    "scale_by_rms_max_torch": ("scale_by_rms_max", {"convention": "torch"}),
    "scale_by_rss_outside": (
        "scale_by_rss",
        {"initial_accumulator_value": 0.0, "eps": 1e-7, "eps_in_sqrt": False},
    ),
    "scale_by_shampoo_blocks": (
        "scale_by_shampoo",
        {"block_size": 2, "sides": "short", "precondition_frequency": 1},
    ),
    "scale_by_shampoo_sum": (
        "scale_by_shampoo",
        {"decay": None, "exponent": -0.5, "sides": "left"},
    ),
    "scale_by_stddev_debiased": ("scale_by_stddev", {"eps": 1.0, "bias_correction": True}),
    "scale_by_trust_ratio_bounded": (
        "scale_by_trust_ratio",
        {"min_norm": 0.1, "trust_coefficient": 0.5, "eps": 0.1, "max_norm": 1.0},
    ),
    "schedule_free_sgd_at_z": ("schedule_free_sgd", {"r": 1.0, "decay_at": "z"}),
    "sgd_momentum": ("sgd", {"momentum": 0.9}),
    "sgd_nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "skip_spikes_zscore": ("skip_spikes", {"threshold": 2.0, "by": "zscore"}),
    "sophia_paper": ("sophia", {"convention": "paper"}),
    "trace_nesterov": ("trace", {"nesterov": True}),
}

_VALUE, _LOSS, _NONE = {"value": np.float32(0.5)}, {"obj_fn": _quartic}, {}

# constructor or instance -> the keyword arguments its update needs
EXTRA: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("momo", "momo_adam", "polyak_sgd", "reduce_on_plateau", "scale_by_polyak"), _VALUE
    ),
    **dict.fromkeys(
        ("hutchinson_estimator_diag_hessian", "reduce_variance_exact", "scale_by_sophia", "sophia"),
        _LOSS,
    ),
    "qk_clip": {"max_logits": np.float32(1.0)},
    "sam_opaque": {"grad_fn": _slope},
}

# constructor or instance, which comes first -> the laws that do not hold
EXCEPTIONS: dict[str, Mapping[str, str]] = {
    "measure_with_ema": {"table": "the average is one for the whole tree"},
    **dict.fromkeys(
        (
            "acprop",
            "adan",
            "adopt",
            "optimistic_adam",
            "optimistic_adam_v2",
            "optimistic_gradient_descent",
            "rprop",
            "scale_by_acprop",
            "scale_by_adan",
            "scale_by_adopt",
            "scale_by_optimistic_gradient",
            "scale_by_rprop",
        ),
        _LATE,
    ),
    **dict.fromkeys(
        ("cautious", "lamb", "lars", "scale_by_clipped_rms", "scale_by_sm3", "sm3", "stable_adamw"),
        _SCALED,
    ),
    **dict.fromkeys(("lars_paper", "rprop_torch", "scale_by_rprop_torch"), _NONE),
    **dict.fromkeys(("add_noise", "noisy_sgd"), _RANDOM),
    **dict.fromkeys(("hutchinson_estimator_diag_hessian", "scale_by_sophia", "sophia"), _RANDOM),
    **dict.fromkeys(("nadam_keras", "nadam_paper", "nadam_torch"), _WARMING),
    **dict.fromkeys(("nadamw_keras", "nadamw_paper", "nadamw_torch"), _WARMING),
    "nesterov_ema_scheduled": _WARMING,
    **dict.fromkeys(("adadelta", "scale_by_adadelta"), _COPYING),
    **dict.fromkeys(("clip_by_global_norm", "normalize_by_update_norm", "zclip"), _WHOLE_TREE),
    "adagc": {"subtree": "during warm-up the norm is that of the whole tree"},
    "monitor": _WHOLE_TREE_TABLE,
    "reduce_on_plateau": _WATCHING,
    **dict.fromkeys(("adafactor", "came", "mars", "reduce_variance", "scale_by_came"), _LENGTH),
    **dict.fromkeys(("hyperball", "radial_brake"), _LENGTH),
    "reduce_variance_exact": _LENGTH | _WHOLE_TREE_LOSS,
    **dict.fromkeys(("kron", "scale_by_kron"), _LEARNING),
    **dict.fromkeys(("adamuon", "muon", "normuon"), _PRODUCTS),
    **dict.fromkeys(
        ("orthogonalize", "scale_by_adamuon", "scale_by_muon", "scale_by_normuon"), _PRODUCTS
    ),
    **dict.fromkeys(("scale_by_dion", "scale_by_lmo", "scion", "dion", "spectral_clip"), _PRODUCTS),
    **dict.fromkeys(("galore", "in_basis", "scale_by_galore"), _PROJECTING),
    **dict.fromkeys(("eigenbasis", "kl_eigenbasis", "leading_basis"), _PROJECTING),
    **dict.fromkeys(("kl_soap", "scale_by_kl_soap", "scale_by_soap", "soap"), _PROJECTING),
    **dict.fromkeys(("apollo", "scale_by_apollo"), _LENGTH | _DRAWN | _PROJECTOR),
    **dict.fromkeys(("kl_shampoo", "scale_by_kl_shampoo", "scale_by_shampoo", "shampoo"), _ROOTS),
    "scale_by_shampoo_blocks": {"temporary": _ROOTS["temporary"]},
    "graft": _LENGTH,
    **dict.fromkeys(
        (
            "mechanize",
            "momo",
            "polyak_sgd",
            "prodigy",
            "scale_by_dog",
            "scale_by_dowg",
            "scale_by_polyak",
        ),
        _STEP_FREE,
    ),
    **dict.fromkeys(("dog", "dowg"), _STEP_FREE | _MEASURED),
    **dict.fromkeys(("dadapt_adamw", "momo_adam"), _STEP_FREE | _SUMMED),
    **dict.fromkeys(("cocob", "scale_by_cocob"), _BETTING),
    **dict.fromkeys(("MultiSteps", "accumulate", "every", "sam"), _BRANCHING),
    **dict.fromkeys(("conditionally_mask", "conditionally_transform"), _BRANCHING | _CALLING),
    **dict.fromkeys(("apply_if_finite", "restart", "skip_nonfinite"), _CHOOSING),
    "sam_opaque": _ASCENDING,
    "adafactor_torch": _LENGTH
    | {"magnitudes": "the bound of its second moment is the precision's own"},
    "scale_by_stddev_debiased": {"magnitudes": "the first corrected variance is rounding alone"},
    "apply_every": _STOPPING,
    "lookahead_reset": _AVERAGING | _STOPPING,
    "skip_spikes": _SPIKING,
    "lawa": _AVERAGING,
    "lookahead": _AVERAGING | _STOPPING,
    "gpa": _WEIGHED | {"magnitudes": "its update is a difference of parameters, rounded as these"},
    **dict.fromkeys(("schedule_free", "schedule_free_adamw", "schedule_free_sgd"), _WEIGHED),
}

# compositions, and what is no constructor
OTHERS: dict[str, Entry] = {
    "cautious_part": Entry(
        lambda: gx.chain(gx.cautious(gx.scale_by_adam(), descends=False), gx.scale(-0.1)),
        exceptions=_SCALED,
    ),
    "chain": Entry(
        lambda: gx.chain(
            gx.clip_by_global_norm(1.0),
            gx.chain(gx.ema(0.9), gx.scale_by_rms(0.99)),
            gx.scale(-0.1),
        ),
        exceptions=_WHOLE_TREE,
    ),
    "differentially_private_aggregate": Entry(  # two examples
        lambda: gx.chain(
            gx.stateless(_two_examples), gx.differentially_private_aggregate(0.5, 0.1, 0)
        ),
        exceptions=_PRIVATE,
    ),
    "dpsgd": Entry(
        lambda: gx.chain(gx.stateless(_two_examples), gx.dpsgd(0.1, 0.5, 0.1, 0, 0.9)),
        exceptions=_PRIVATE,
    ),
    "inject_hyperparams": Entry(lambda: gx.inject_hyperparams(gx.adam)(0.1)),
    "leafwise": Entry(lambda: gx.leafwise(_signed, step_size=0.1)),
    "scale_by_deviation": Entry(  # after a direction
        lambda: gx.chain(gx.ema(0.9, debias=False), gx.scale_by_deviation(0.9, 1e-3, 1e-6))
    ),
    "stateless": Entry(lambda: gx.stateless(_halve)),
    "stateless_with_tree_map": Entry(lambda: gx.stateless_with_tree_map(_halve_leaf)),
    "tunable": Entry(lambda: gx.tunable(gx.adam(0.1))),
}


def _made(constructor, given: dict[str, Any]):
    """The instance, whose weights decay where they can."""
    decays = "weight_decay" in inspect.signature(constructor).parameters
    known = ARGUMENTS.get(constructor.__name__, {})
    tx = representative(constructor, **({"weight_decay": 0.1} if decays else {}) | known | given)
    known = {*inspect.signature(constructor).parameters, *constructor.synonyms}
    return _of_matrices(tx) if "matrices" in known else tx


def _of_matrices(tx):
    """What takes matrices alone, for the matrices; the rest passes by."""
    try:
        jax.eval_shape(tx.init, tree())
    except ValueError as error:
        if "is no matrix" not in str(error):
            raise
        return gx.partition({"matrix": tx, "rest": gx.identity()}, gx.matrix_labels())
    return tx


def _entry(constructor, name: str, given: dict[str, Any]) -> Entry:
    of = constructor.__name__
    extra, exceptions = (x.get(name, x.get(of, {})) for x in (EXTRA, EXCEPTIONS))
    return Entry(partial(_made, constructor, given), extra, exceptions)


def _by_machine() -> dict[str, Entry]:
    found = {}
    for name, constructor in constructors().items():
        found[name] = _entry(constructor, name, {})
        default = inspect.signature(constructor).parameters.get("convention")
        for value in constructor.conventions:
            if default is not None and value != default.default:
                found[f"{name}_{value}"] = _entry(
                    constructor, f"{name}_{value}", {"convention": value}
                )
    return found


TRANSFORMATIONS: dict[str, Entry] = (
    _by_machine()
    | {name: _entry(getattr(gx, of), name, given) for name, (of, given) in FLAGS.items()}
    | OTHERS
)
