"""What the laws run over: every public transformation with a representative instance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx
from gradxform.core.transform import Transform


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


def _value():
    return {"value": np.float32(0.5)}


def _quartic(params):
    leaves = [jnp.asarray(p, float) for p in jax.tree.leaves(params)]
    together = sum(
        (jnp.sum(p) for p in leaves), jnp.zeros(())
    )  # so that the Hessian is not diagonal
    return sum((jnp.sum(p**4) / 12 + jnp.sum(p**2) / 2 for p in leaves), together**2 / 4)


def _slope(params, i):
    return jax.grad(_quartic)(params)


def _loss():
    return {"obj_fn": _quartic}


_RANDOM = {
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


_CALLING = {"value": "its condition is a function, which repr names and does not write out"}


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
    "temporary": "the point it ascends to is a tree like the parameters",
    "zero_gradient": "a traced sync_period makes a loop of that length, which has no derivative in reverse",
}


_BETTING = {
    "temporary": "the step and the new reward both read the old ones, of which XLA:CPU keeps a copy"
}


_SUMMED = {"temporary": "XLA:CPU stores quotients before it adds them up"}


_PROJECTING = {
    "table": "the gap and the scale are one number for the whole tree",
    "temporary": "the decomposition and the way back from the subspace are products of matrices",
}


_LENGTH = {
    "temporary": "a step's length is known only when all of it is, so it is stored before it is shortened"
}


_STEP_FREE = {
    "subtree": "the step size is learned from the whole tree",
    "table": "the step size is one number for the whole tree",
}


_PRIVATE = {
    "subtree": "each leaf draws from its own key, split by the number of leaves, and the norm is that of the whole tree",
    "table": "the bound is one number for the whole tree",
    "temporary": "the examples' gradients are as many times the parameters, and the random bits are drawn before they are added",
}


_LATE = {
    "temporary": "the step reads the state as it was before this gradient, of which XLA:CPU keeps a copy, as for Optax's"
}


_SCALED = {
    "temporary": "the step is formed before it is measured and scaled, as for Optax's, which has two and more"
}


ADAPTIVE: dict[str, Entry] = {
    # parts
    "quasi_hyperbolic": Entry(lambda: gx.quasi_hyperbolic(0.9, 0.7)),
    "quasi_hyperbolic_debiased": Entry(lambda: gx.quasi_hyperbolic(0.9, 0.7, True)),
    "momentum_plus_gradient": Entry(lambda: gx.momentum_plus_gradient(0.9, 0.5)),
    "scale_by_rectified_rms": Entry(lambda: gx.scale_by_rectified_rms(0.9, threshold=1.5)),
    "scale_by_rms_power": Entry(lambda: gx.scale_by_rms_power(0.9)),
    "scale_by_quasi_hyperbolic_rms": Entry(lambda: gx.scale_by_quasi_hyperbolic_rms(0.9, 0.8)),
    "scale_by_atan2": Entry(lambda: gx.scale_by_atan2(0.9)),
    "scale_by_clipped_rms": Entry(lambda: gx.scale_by_clipped_rms(0.9), exceptions=_SCALED),
    "scale_by_adam": Entry(lambda: gx.scale_by_adam(0.9, 0.99)),
    "scale_by_adamax": Entry(lambda: gx.scale_by_adamax(0.9, 0.99)),
    "scale_by_amsgrad": Entry(lambda: gx.scale_by_amsgrad(0.9, 0.99, bias_correction_mu=False)),
    "scale_by_belief": Entry(lambda: gx.scale_by_belief(0.9, 0.99)),
    "scale_by_belief_nesterov": Entry(lambda: gx.scale_by_belief(0.9, 0.99, nesterov=True)),
    "scale_by_yogi": Entry(lambda: gx.scale_by_yogi(0.9, 0.99)),
    "scale_by_yogi_paper": Entry(lambda: gx.scale_by_yogi(0.9, 0.99, convention="paper")),
    "scale_by_radam": Entry(lambda: gx.scale_by_radam(0.9, 0.99, threshold=1.5)),
    "scale_by_radam_torch": Entry(
        lambda: gx.scale_by_radam(0.9, 0.99, threshold=1.5, convention="torch")
    ),
    "scale_by_ademamix": Entry(lambda: gx.scale_by_ademamix(0.9, 0.99)),
    "scale_by_simplified_ademamix": Entry(lambda: gx.scale_by_simplified_ademamix(0.9, 0.99, 0.5)),
    "scale_by_adan": Entry(lambda: gx.scale_by_adan(), exceptions=_LATE),
    "scale_by_adan_paper": Entry(lambda: gx.scale_by_adan(convention="paper"), exceptions=_LATE),
    "scale_by_adopt": Entry(lambda: gx.scale_by_adopt(), exceptions=_LATE),
    "scale_by_adopt_nesterov": Entry(
        lambda: gx.scale_by_adopt(nesterov=True, use_clipping=False), exceptions=_LATE
    ),
    "scale_by_acprop": Entry(lambda: gx.scale_by_acprop(), exceptions=_LATE),
    "scale_by_acprop_authors": Entry(
        lambda: gx.scale_by_acprop(convention="authors"), exceptions=_LATE
    ),
    "scale_by_optimistic_gradient": Entry(
        lambda: gx.scale_by_optimistic_gradient(), exceptions=_LATE
    ),
    # the Adam family
    "acprop": Entry(lambda: gx.acprop(0.1, weight_decay=0.1), exceptions=_LATE),
    "adabelief": Entry(lambda: gx.adabelief(0.1)),
    "adam_atan2": Entry(lambda: gx.adam_atan2(0.1, weight_decay=0.1)),
    "adamaxw": Entry(lambda: gx.adamaxw(0.1, weight_decay=0.1)),
    "adan": Entry(lambda: gx.adan(0.1, weight_decay=0.1), exceptions=_LATE),
    "adan_authors": Entry(
        lambda: gx.adan(0.1, weight_decay=0.1, convention="authors"), exceptions=_LATE
    ),
    "ademamix": Entry(lambda: gx.ademamix(0.1, weight_decay=0.1)),
    "adopt": Entry(lambda: gx.adopt(0.1), exceptions=_LATE),
    "laprop": Entry(lambda: gx.laprop(0.1, weight_decay=0.1)),
    "laprop_pytorch_optimizer": Entry(
        lambda: gx.laprop(0.1, weight_decay=0.1, convention="pytorch_optimizer")
    ),
    "nadamw": Entry(lambda: gx.nadamw(0.1, weight_decay=0.1)),
    "noisy_sgd": Entry(lambda: gx.noisy_sgd(0.1, key=1), exceptions=_RANDOM),
    "optimistic_adam": Entry(lambda: gx.optimistic_adam(0.1), exceptions=_LATE),
    "optimistic_adam_v2": Entry(lambda: gx.optimistic_adam_v2(0.1), exceptions=_LATE),
    "optimistic_gradient_descent": Entry(
        lambda: gx.optimistic_gradient_descent(0.1), exceptions=_LATE
    ),
    "padam": Entry(lambda: gx.padam(0.1, weight_decay=0.1)),
    "padam_pytorch_optimizer": Entry(lambda: gx.padam(0.1, convention="pytorch_optimizer")),
    "qhadam": Entry(lambda: gx.qhadam(0.1, nu2=0.8, weight_decay=0.1)),
    "qhm": Entry(lambda: gx.qhm(0.1)),
    "radam": Entry(lambda: gx.radam(0.1)),
    "simplified_ademamix": Entry(lambda: gx.simplified_ademamix(0.1, weight_decay=0.1)),
    "stable_adamw": Entry(lambda: gx.stable_adamw(0.1), exceptions=_SCALED),
    "yogi": Entry(lambda: gx.yogi(0.1)),
    # signs
    "scale_by_sign": Entry(lambda: gx.scale_by_sign()),
    "scale_by_lion": Entry(lambda: gx.scale_by_lion()),
    "scale_by_lion_smooth": Entry(lambda: gx.scale_by_lion(mode="smooth")),
    "scale_by_lion_refined": Entry(lambda: gx.scale_by_lion(mode="refined")),
    "scale_by_rprop": Entry(lambda: gx.scale_by_rprop(0.1), exceptions=_LATE),
    "lion": Entry(lambda: gx.lion(0.1, weight_decay=0.1)),
    "rprop": Entry(lambda: gx.rprop(0.1), exceptions=_LATE),
    "rprop_torch": Entry(lambda: gx.rprop(0.1, convention="torch")),
    "sign_sgd": Entry(lambda: gx.sign_sgd(0.1)),
    "signum": Entry(lambda: gx.signum(0.1)),
    # one scale for a whole leaf
    "scale_by_param_block_norm": Entry(lambda: gx.scale_by_param_block_norm()),
    "scale_by_param_block_rms": Entry(lambda: gx.scale_by_param_block_rms()),
    "scale_by_trust_ratio": Entry(lambda: gx.scale_by_trust_ratio()),
    "scale_by_trust_ratio_bounded": Entry(
        lambda: gx.scale_by_trust_ratio(0.1, 0.5, 0.1, max_norm=1.0)
    ),
    "scale_by_novograd": Entry(lambda: gx.scale_by_novograd(weight_decay=0.1)),
    "scale_by_sm3": Entry(lambda: gx.scale_by_sm3(), exceptions=_SCALED),
    "fromage": Entry(lambda: gx.fromage(0.1)),
    "lamb": Entry(lambda: gx.lamb(0.1, weight_decay=0.1), exceptions=_SCALED),
    "lamb_pytorch_optimizer": Entry(
        lambda: gx.lamb(0.1, weight_decay=0.1, convention="pytorch_optimizer"), exceptions=_SCALED
    ),
    "lamb_keras": Entry(
        lambda: gx.lamb(0.1, weight_decay=0.1, convention="keras"), exceptions=_SCALED
    ),
    "lars": Entry(lambda: gx.lars(0.1, weight_decay=0.1), exceptions=_SCALED),
    "lars_paper": Entry(lambda: gx.lars(0.1, weight_decay=0.1, convention="paper")),
    "novograd": Entry(lambda: gx.novograd(0.1, weight_decay=0.1)),
    "sm3": Entry(lambda: gx.sm3(0.1), exceptions=_SCALED),
    # agreement with the gradient
    "cautious": Entry(lambda: gx.cautious(gx.adam(0.1)), exceptions=_SCALED),
    "cautious_lion_pytorch": Entry(
        lambda: gx.cautious(gx.adam(0.1), convention="lion_pytorch"), exceptions=_SCALED
    ),
    "cautious_part": Entry(
        lambda: gx.chain(gx.cautious(gx.scale_by_adam(), descends=False), gx.scale(-0.1)),
        exceptions=_SCALED,
    ),
    "grams": Entry(lambda: gx.grams(gx.adam(0.1))),
}


def _even(step):
    return step % 2 == 0


def _halve(updates, params):
    return gx.tree.tree_map(lambda u: u / 2, updates)


def _halve_leaf(u, p):
    return u / 2


def _signed(u, at, *, step_size):
    return step_size * jnp.sign(u)


def _two_examples(updates, params):
    return gx.tree.tree_map(lambda u: jnp.stack([u, u / 2]), updates)


TRANSFORMATIONS: dict[str, Entry] = {
    **ADAPTIVE,
    # directions
    "momentum": Entry(lambda: gx.momentum(0.9, 0.1)),
    "momentum_nesterov": Entry(lambda: gx.momentum(0.9, nesterov=True)),
    "momentum_torch": Entry(lambda: gx.momentum(0.9, 0.5, convention="torch")),
    "trace": Entry(lambda: gx.trace(0.9, nesterov=True)),
    "ema": Entry(lambda: gx.ema(0.9)),
    "ema_biased": Entry(lambda: gx.ema(0.9, debias=False)),
    "ema_nesterov": Entry(lambda: gx.ema(0.9, nesterov=True)),
    "ema_nesterov_biased": Entry(lambda: gx.ema(0.9, debias=False, nesterov=True)),
    "nesterov_ema_scheduled": Entry(lambda: gx.nesterov_ema_scheduled(0.9), exceptions=_WARMING),
    "two_emas": Entry(lambda: gx.two_emas(0.9, 0.99, 2.0)),
    "correct_bias": Entry(lambda: gx.correct_bias(0.9)),
    # preconditioners
    "scale_by_rss": Entry(lambda: gx.scale_by_rss()),
    "scale_by_rss_outside": Entry(lambda: gx.scale_by_rss(0.0, 1e-7, eps_in_sqrt=False)),
    "scale_by_rms": Entry(lambda: gx.scale_by_rms(0.9)),
    "scale_by_rms_debiased": Entry(
        lambda: gx.scale_by_rms(0.9, eps_in_sqrt=False, bias_correction=True)
    ),
    "scale_by_rms_keras": Entry(
        lambda: gx.scale_by_rms(0.9, eps_in_sqrt=False, bias_correction=True, convention="keras")
    ),
    "scale_by_inf_norm_keras": Entry(lambda: gx.scale_by_inf_norm(0.9, convention="keras")),
    "scale_by_stddev": Entry(lambda: gx.scale_by_stddev(0.9)),
    "scale_by_stddev_debiased": Entry(lambda: gx.scale_by_stddev(0.9, 1.0, bias_correction=True)),
    "scale_by_adadelta": Entry(lambda: gx.scale_by_adadelta(0.9), exceptions=_COPYING),
    "scale_by_rms_max": Entry(lambda: gx.scale_by_rms_max(0.9)),
    "scale_by_rms_max_torch": Entry(lambda: gx.scale_by_rms_max(0.9, convention="torch")),
    "scale_by_rms_max_keras": Entry(lambda: gx.scale_by_rms_max(0.9, convention="keras")),
    "scale_by_rms_max_paper": Entry(lambda: gx.scale_by_rms_max(0.9, convention="paper")),
    "scale_by_nadam_rms": Entry(lambda: gx.scale_by_nadam_rms(0.9)),
    "scale_by_inf_norm": Entry(lambda: gx.scale_by_inf_norm(0.9)),
    "scale_by_yogi_rms": Entry(lambda: gx.scale_by_yogi_rms(0.9)),
    "scale_by_deviation": Entry(
        lambda: gx.chain(gx.ema(0.9, debias=False), gx.scale_by_deviation(0.9, 1e-3, 1e-6))
    ),
    # step size
    "scale": Entry(lambda: gx.scale(0.5)),
    "scale_by_schedule": Entry(lambda: gx.scale_by_schedule(gx.linear_schedule(1.0, 0.5, 10))),
    "scale_by_learning_rate": Entry(lambda: gx.scale_by_learning_rate(0.1)),
    "reduce_on_plateau": Entry(lambda: gx.reduce_on_plateau(0.5, 2), _value(), _WATCHING),
    "reduce_on_plateau_torch": Entry(
        lambda: gx.reduce_on_plateau(0.5, 1, mode="max", convention="torch"), _value(), _WATCHING
    ),
    # clipping
    "clip": Entry(lambda: gx.clip(0.5)),
    "clip_by_leaf_norm": Entry(lambda: gx.clip_by_leaf_norm(0.5)),
    "clip_by_global_norm": Entry(lambda: gx.clip_by_global_norm(0.5), exceptions=_WHOLE_TREE),
    "clip_by_block_rms": Entry(lambda: gx.clip_by_block_rms(0.5)),
    "adaptive_grad_clip": Entry(lambda: gx.adaptive_grad_clip(0.1)),
    "zclip": Entry(lambda: gx.zclip(2.5, 0.9, 1), exceptions=_WHOLE_TREE),
    "adagc": Entry(
        lambda: gx.adagc(1.05, 1.0, 0.9, 2),
        exceptions={"subtree": "during warm-up the norm is that of the whole tree"},
    ),
    # single examples, of which the entries make two
    "differentially_private_aggregate": Entry(
        lambda: gx.chain(
            gx.stateless(_two_examples), gx.differentially_private_aggregate(0.5, 0.1, 0)
        ),
        exceptions=_PRIVATE,
    ),
    "dpsgd": Entry(
        lambda: gx.chain(gx.stateless(_two_examples), gx.dpsgd(0.1, 0.5, 0.1, 0, 0.9)),
        exceptions=_PRIVATE,
    ),
    # shape and sign of the gradient
    "centralize": Entry(lambda: gx.centralize()),
    "centralize_last": Entry(lambda: gx.centralize(outputs="last")),
    "normalize_by_update_norm": Entry(
        lambda: gx.normalize_by_update_norm(0.5), exceptions=_WHOLE_TREE
    ),
    "keep_params_nonnegative": Entry(lambda: gx.keep_params_nonnegative()),
    # what is measured
    "snapshot": Entry(lambda: gx.snapshot("norm", gx.global_norm)),
    "monitor": Entry(
        lambda: gx.monitor(
            {"norm": gx.global_norm, "mean": gx.measure_with_ema(gx.global_norm, 0.9)}
        ),
        exceptions=_WHOLE_TREE_TABLE,
    ),
    # what is added and cleaned
    "add_decayed_weights_cautious": Entry(lambda: gx.add_decayed_weights(0.1, kind="cautious")),
    "add_decayed_weights_independent": Entry(
        lambda: gx.add_decayed_weights(0.1, kind="independent")
    ),
    "add_decayed_weights": Entry(lambda: gx.add_decayed_weights(0.1)),
    "add_noise": Entry(lambda: gx.add_noise(0.1, 0.55, 0), exceptions=_RANDOM),
    "zero_nans": Entry(lambda: gx.zero_nans()),
    # second moments in less memory
    "scale_by_factored_rms": Entry(lambda: gx.scale_by_factored_rms(min_dim_size_to_factor=2)),
    "scale_by_factored_rms_full": Entry(lambda: gx.scale_by_factored_rms(factored=False)),
    "scale_by_came": Entry(lambda: gx.scale_by_came(b3=0.99), exceptions=_LENGTH),
    "scale_by_block_rms": Entry(lambda: gx.scale_by_block_rms(0.9)),
    "scale_by_galore": Entry(lambda: gx.scale_by_galore(1, 2), exceptions=_PROJECTING),
    "adafactor": Entry(
        lambda: gx.adafactor(0.1, 2, momentum=0.9, weight_decay_rate=0.01), exceptions=_LENGTH
    ),
    "adafactor_torch": Entry(
        lambda: gx.adafactor(convention="torch", weight_decay_rate=0.01), exceptions=_LENGTH
    ),
    "adafactor_keras": Entry(
        lambda: gx.adafactor(convention="keras", weight_decay_rate=0.01), exceptions=_LENGTH
    ),
    "adafactor_paper": Entry(lambda: gx.adafactor(convention="paper"), exceptions=_LENGTH),
    "came": Entry(lambda: gx.came(0.1, b3=0.99, weight_decay=0.01), exceptions=_LENGTH),
    "adam_mini": Entry(lambda: gx.adam_mini(0.1, blocks=(0,))),
    "galore": Entry(lambda: gx.galore(0.1, 1, 2), exceptions=_PROJECTING),
    "galore_paper": Entry(lambda: gx.galore(0.1, 1, 2, convention="paper"), exceptions=_PROJECTING),
    # step sizes of their own
    "scale_by_polyak": Entry(lambda: gx.scale_by_polyak(0.1, 0.5), _value(), _STEP_FREE),
    "polyak_sgd": Entry(
        lambda: gx.polyak_sgd(0.5, variant="sps+", convention="paper"), _value(), _STEP_FREE
    ),
    "momo": Entry(lambda: gx.momo(0.1, weight_decay=0.01), _value(), _STEP_FREE),
    "momo_adapted": Entry(
        lambda: gx.momo(0.1, lower_bound=0.1, adapt_lower_bound=True), _value(), _STEP_FREE
    ),
    "momo_adam": Entry(
        lambda: gx.momo_adam(0.1, weight_decay=0.01), _value(), _STEP_FREE | _SUMMED
    ),
    "scale_by_dog": Entry(lambda: gx.scale_by_dog(("learning_rate", 0.01)), exceptions=_STEP_FREE),
    "dog": Entry(lambda: gx.dog(1.0, ("heuristic", 0.01)), exceptions=_STEP_FREE),
    "scale_by_distance_over_gradients": Entry(lambda: gx.scale_by_distance_over_gradients(0.01)),
    "scale_by_dowg": Entry(lambda: gx.scale_by_dowg(0.1), exceptions=_STEP_FREE),
    "dowg": Entry(lambda: gx.dowg(), exceptions=_STEP_FREE),
    "prodigy_prodigyopt": Entry(
        lambda: gx.prodigy(estim_lr0=0.1, estim_lr_coef=10.0, convention="prodigyopt"),
        exceptions=_STEP_FREE,
    ),
    "dadapt_adamw": Entry(lambda: gx.dadapt_adamw(estim_lr0=0.01), exceptions=_STEP_FREE | _SUMMED),
    "prodigy": Entry(
        lambda: gx.prodigy(estim_lr0=0.1, estim_lr_coef=10.0, weight_decay=0.01),
        exceptions=_STEP_FREE,
    ),
    "prodigy_safeguarded": Entry(
        lambda: gx.prodigy(beta3=0.9, estim_lr0=0.1, estim_lr_coef=10.0, safeguard_warmup=True),
        exceptions=_STEP_FREE,
    ),
    "scale_by_cocob": Entry(lambda: gx.scale_by_cocob(), exceptions=_BETTING),
    "cocob": Entry(lambda: gx.cocob(), exceptions=_BETTING),
    "mechanize": Entry(lambda: gx.mechanize(gx.sgd(1.0), s_init=0.01), exceptions=_STEP_FREE),
    # sums of gradients
    "scale_by_madgrad": Entry(lambda: gx.scale_by_madgrad(0.1)),
    "madgrad": Entry(lambda: gx.madgrad(0.1, weight_decay=0.01)),
    "scale_by_asgd": Entry(lambda: gx.scale_by_asgd(0.1, t0=0.0)),
    "asgd": Entry(lambda: gx.asgd(0.1, weight_decay=0.01)),
    "reduce_variance": Entry(lambda: gx.reduce_variance(), exceptions=_LENGTH),
    "reduce_variance_exact": Entry(
        lambda: gx.reduce_variance(exact=True), _loss(), _LENGTH | _WHOLE_TREE_LOSS
    ),
    "mars": Entry(lambda: gx.mars(0.1, weight_decay=0.01), exceptions=_LENGTH),
    # curvature
    "hutchinson_estimator_diag_hessian": Entry(
        lambda: gx.hutchinson_estimator_diag_hessian(0), _loss(), _RANDOM
    ),
    "scale_by_sophia": Entry(
        lambda: gx.scale_by_sophia(
            b2=0.5, eps=0.1, gamma=1.0, clip_threshold=100.0, update_interval=2
        ),
        _loss(),
        _RANDOM,
    ),
    "sophia": Entry(
        lambda: gx.sophia(
            0.1, eps=1e-3, gamma=1.0, clip_threshold=100.0, update_interval=2, convention="paper"
        ),
        _loss(),
        _RANDOM,
    ),
    # composition
    "identity": Entry(lambda: gx.identity()),
    "stateless": Entry(lambda: gx.stateless(_halve)),
    "stateless_with_tree_map": Entry(lambda: gx.stateless_with_tree_map(_halve_leaf)),
    "chain": Entry(
        lambda: gx.chain(
            gx.clip_by_global_norm(1.0),
            gx.chain(gx.ema(0.9), gx.scale_by_rms(0.99)),
            gx.scale(-0.1),
        ),
        exceptions=_WHOLE_TREE,
    ),
    "leafwise": Entry(lambda: gx.leafwise(_signed, step_size=0.1)),
    "tunable": Entry(lambda: gx.tunable(gx.adam(0.1))),
    # where, when, and after
    "set_to_zero": Entry(lambda: gx.set_to_zero()),
    "masked": Entry(lambda: gx.masked(gx.chain(gx.ema(0.9), gx.scale_by_rms(0.99)), "**")),
    "partition": Entry(
        lambda: gx.partition(
            {"fast": gx.adam(0.1), "rest": gx.sgd(0.1)}, gx.by_path({"**": "fast"})
        )
    ),
    "multi_transform": Entry(lambda: gx.multi_transform({"fast": gx.sgd(0.1)}, "fast")),
    "freeze": Entry(lambda: gx.freeze("**")),
    "freeze_but": Entry(lambda: gx.freeze(False, gx.adam(0.1))),
    "selective_transform": Entry(lambda: gx.selective_transform(gx.adam(0.1), freeze_mask=False)),
    "accumulate": Entry(lambda: gx.accumulate(gx.adam(0.1), 2), exceptions=_BRANCHING),
    "MultiSteps": Entry(lambda: gx.MultiSteps(gx.sgd(0.1), 2, False), exceptions=_BRANCHING),
    "apply_every": Entry(lambda: gx.apply_every(2)),
    "every": Entry(lambda: gx.every(2, gx.adam(0.1)), exceptions=_BRANCHING),
    "conditionally_mask": Entry(
        lambda: gx.conditionally_mask(gx.adam(0.1), _even), exceptions=_BRANCHING | _CALLING
    ),
    "conditionally_transform": Entry(
        lambda: gx.conditionally_transform(gx.ema(0.9), _even), exceptions=_BRANCHING | _CALLING
    ),
    "restart": Entry(lambda: gx.restart(gx.adam(0.1), 2), exceptions=_CHOOSING),
    "skip_nonfinite": Entry(lambda: gx.skip_nonfinite(gx.adam(0.1)), exceptions=_CHOOSING),
    "apply_if_finite": Entry(lambda: gx.apply_if_finite(gx.adam(0.1), 3), exceptions=_CHOOSING),
    "master_weights": Entry(lambda: gx.master_weights(gx.adamw(0.1))),
    "skip_spikes": Entry(lambda: gx.skip_spikes(gx.adam(0.1), 1.5, warmup=1), exceptions=_SPIKING),
    "skip_spikes_zscore": Entry(
        lambda: gx.skip_spikes(gx.adam(0.1), 2.0, warmup=1, by="zscore"), exceptions=_SPIKING
    ),
    "sam_opaque": Entry(
        lambda: gx.sam(gx.adam(0.1), gx.sgd(0.1), opaque_mode=True), {"grad_fn": _slope}, _ASCENDING
    ),
    "sam": Entry(lambda: gx.sam(gx.adam(0.1), gx.sgd(0.1)), exceptions=_BRANCHING),
    "params_ema": Entry(lambda: gx.params_ema(gx.adam(0.1), 0.9)),
    "params_ema_biased": Entry(lambda: gx.params_ema(gx.adam(0.1), 0.9, debias=False)),
    "swa": Entry(lambda: gx.swa(gx.adam(0.1), 1, 2)),
    "lawa": Entry(lambda: gx.lawa(gx.adam(0.1), 2), exceptions=_AVERAGING),
    "lookahead": Entry(lambda: gx.lookahead(gx.adam(0.1), 2, 0.5), exceptions=_AVERAGING),
    "lookahead_reset": Entry(
        lambda: gx.lookahead(gx.adam(0.1), 2, 0.5, reset_state=True), exceptions=_AVERAGING
    ),
    "schedule_free": Entry(lambda: gx.schedule_free(gx.sgd(0.1), 0.1), exceptions=_WEIGHED),
    "schedule_free_sgd": Entry(
        lambda: gx.schedule_free_sgd(0.1, 2, weight_decay=0.1), exceptions=_WEIGHED
    ),
    "schedule_free_adamw": Entry(
        lambda: gx.schedule_free_adamw(0.1, 2, convention="paper"), exceptions=_WEIGHED
    ),
    "schedule_free_sgd_at_z": Entry(
        lambda: gx.schedule_free_sgd(0.1, 2, weight_decay=0.1, r=1.0, decay_at="z"),
        exceptions=_WEIGHED,
    ),
    "schedule_free_adamw_keras": Entry(
        lambda: gx.schedule_free_adamw(0.1, 2, weight_decay=0.1, convention="keras"),
        exceptions=_WEIGHED,
    ),
    "gpa": Entry(lambda: gx.gpa(gx.adam(0.1)), exceptions=_WEIGHED),
    # named optimizers
    "sgd": Entry(lambda: gx.sgd(0.1)),
    "sgd_momentum": Entry(lambda: gx.sgd(0.1, 0.9)),
    "sgd_nesterov": Entry(lambda: gx.sgd(0.1, 0.9, nesterov=True)),
    "adagrad": Entry(lambda: gx.adagrad(0.1)),
    "adagrad_torch": Entry(lambda: gx.adagrad(0.1, convention="torch")),
    "adagrad_paper": Entry(lambda: gx.adagrad(0.1, convention="paper")),
    "adadelta": Entry(lambda: gx.adadelta(1.0, weight_decay=0.01), exceptions=_COPYING),
    "rmsprop": Entry(lambda: gx.rmsprop(0.01)),
    "rmsprop_centered": Entry(lambda: gx.rmsprop(0.01, centered=True, momentum=0.9)),
    "rmsprop_torch": Entry(lambda: gx.rmsprop(0.01, momentum=0.9, convention="torch")),
    "adam": Entry(lambda: gx.adam(0.1)),
    "adam_nesterov": Entry(lambda: gx.adam(0.1, nesterov=True)),
    "adam_uncorrected": Entry(lambda: gx.adam_uncorrected(0.1)),
    "adamw_paper": Entry(lambda: gx.adamw(0.1, weight_decay=0.1, convention="paper")),
    "adamw": Entry(lambda: gx.adamw(0.1, weight_decay=0.1)),
    "adam_l2": Entry(lambda: gx.adam_l2(0.1, l2=0.1)),
    "nadam": Entry(lambda: gx.nadam(0.1)),
    "nadam_torch": Entry(lambda: gx.nadam(0.1, convention="torch"), exceptions=_WARMING),
    "nadam_keras": Entry(lambda: gx.nadam(0.1, convention="keras"), exceptions=_WARMING),
    "nadam_paper": Entry(lambda: gx.nadam(0.1, convention="paper"), exceptions=_WARMING),
    "adamax": Entry(lambda: gx.adamax(0.1)),
    "amsgrad": Entry(lambda: gx.amsgrad(0.1)),
    "amsgrad_paper": Entry(lambda: gx.amsgrad(0.1, convention="paper")),
    "amsgrad_uncorrected": Entry(lambda: gx.amsgrad(0.1, bias_correction_nu=False)),
}
