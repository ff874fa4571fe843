"""gradxform: gradient transformations for JAX, as pytrees of their hyperparameters."""

from gradxform import plot, schedules, sweep, tree, tree_utils
from gradxform.accumulate import MultiSteps, accumulate, microbatch
from gradxform.agreement import cautious, grams
from gradxform.aliases import (
    ConditionFn,
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskOrFn,
    OptState,
    Params,
    ScalarOrSchedule,
    ShouldSkipUpdateFunction,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    Updates,
    bias_correction,
    incremental_update,
    init_empty_state,
    named_chain,
    normalize,
    periodic_update,
    safe_increment,
    safe_int32_increment,
    safe_norm,
    safe_root_mean_squares,
    scale_gradient,
    schedule_free_eval_params,
    unitwise_clip,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
    with_extra_args_support,
)
from gradxform.average import eval_params, lawa, lookahead, params_ema, swa
from gradxform.betting import mechanize, scale_by_cocob
from gradxform.clip_adaptive import adagc, adaptive_grad_clip, unitwise_norm, zclip
from gradxform.clipping import clip, clip_by_block_rms, clip_by_global_norm, clip_by_leaf_norm
from gradxform.core import (
    apply_updates,
    chain,
    identity,
    look_ahead,
    stack,
    stateless,
    stateless_with_tree_map,
    transformation,
)
from gradxform.curvature import hutchinson_estimator_diag_hessian, scale_by_sophia
from gradxform.describe import describe
from gradxform.differences import (
    fourth_root,
    scale_by_acprop,
    scale_by_adan,
    scale_by_adopt,
    scale_by_optimistic_gradient,
)
from gradxform.directions import correct_bias, ema, momentum, nesterov_ema_scheduled, trace, two_emas
from gradxform.distance import dadapt_adamw, prodigy, scale_by_distance_over_gradients, scale_by_dog, scale_by_dowg
from gradxform.dual_averaging import reduce_variance, scale_by_asgd, scale_by_madgrad
from gradxform.factored import scale_by_block_rms, scale_by_came, scale_by_factored_rms
from gradxform.gradient_shape import centralize, keep_params_nonnegative, normalize_by_update_norm
from gradxform.hyper import Schedule, by_path, from_function, schedule
from gradxform.import_optax import import_optax_state
from gradxform.import_torch import import_torch_state
from gradxform.layerwise import (
    scale_by_novograd,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_sm3,
    scale_by_trust_ratio,
)
from gradxform.leafwise import PerLeaf, RuleState, leafwise
from gradxform.low_rank import GaLoreDimensionNumbers, scale_by_galore
from gradxform.moments import (
    momentum_plus_gradient,
    quasi_hyperbolic,
    scale_by_atan2,
    scale_by_clipped_rms,
    scale_by_quasi_hyperbolic_rms,
    scale_by_rectified_rms,
    scale_by_rms_power,
)
from gradxform.monitor import measure_with_ema, monitor, snapshot
from gradxform.optimizers import (
    acprop,
    adabelief,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adam_atan2,
    adam_l2,
    adam_mini,
    adam_uncorrected,
    adamax,
    adamaxw,
    adamw,
    adan,
    ademamix,
    adopt,
    amsgrad,
    asgd,
    came,
    cocob,
    dog,
    dowg,
    fromage,
    galore,
    lamb,
    laprop,
    lars,
    lion,
    madgrad,
    mars,
    nadam,
    nadamw,
    noisy_sgd,
    novograd,
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
    padam,
    polyak_sgd,
    qhadam,
    qhm,
    radam,
    rmsprop,
    rprop,
    sgd,
    sign_sgd,
    signum,
    simplified_ademamix,
    sm3,
    sophia,
    stable_adamw,
    yogi,
)
from gradxform.polyak import momo, momo_adam, scale_by_polyak
from gradxform.preconditioners import (
    scale_by_adadelta,
    scale_by_deviation,
    scale_by_inf_norm,
    scale_by_nadam_rms,
    scale_by_rms,
    scale_by_rms_max,
    scale_by_rss,
    scale_by_stddev,
    scale_by_yogi_rms,
)
from gradxform.privacy import (
    differentially_private_aggregate,
    dpsgd,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
)
from gradxform.products import (
    ademamix_alpha,
    ademamix_b3,
    scale_by_adam,
    scale_by_adamax,
    scale_by_ademamix,
    scale_by_amsgrad,
    scale_by_belief,
    scale_by_radam,
    scale_by_simplified_ademamix,
    scale_by_yogi,
)
from gradxform.regularise import add_decayed_weights, add_noise, zero_nans
from gradxform.sam import sam, sam_gradient
from gradxform.schedule_algebra import (
    constant,
    cooldown,
    in_sequence,
    product_of_schedules,
    rex_schedule,
    stretch,
    sum_of_schedules,
    warmup,
    warmup_linear_decay_schedule,
    wsd_schedule,
)
from gradxform.schedule_cycles import (
    cosine_onecycle_schedule,
    cosine_restarts_schedule,
    cyclic_schedule,
    linear_onecycle_schedule,
    piecewise_interpolate_schedule,
    sgdr_schedule,
)
from gradxform.schedule_free import gpa, schedule_free, schedule_free_adamw, schedule_free_sgd
from gradxform.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    inverse_sqrt_decay,
    inverse_time_decay,
    join_schedules,
    linear_schedule,
    manual_schedule,
    natural_exp_decay,
    per_epoch,
    piecewise_constant_schedule,
    polynomial_schedule,
    step_decay,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from gradxform.select import freeze, masked, multi_transform, partition, selective_transform, set_to_zero
from gradxform.signs import scale_by_lion, scale_by_rprop, scale_by_sign
from gradxform.skip import apply_if_finite, skip_large_updates, skip_nonfinite, skip_not_finite, skip_spikes
from gradxform.slots import real_zeros, zeros
from gradxform.state import get, migrate, numbers, reset, set
from gradxform.stepsize import reduce_on_plateau, scale, scale_by_learning_rate, scale_by_schedule
from gradxform.store import master_weights
from gradxform.sweep import hypergradient
from gradxform.train import EarlyStopping, Training, batches, fit
from gradxform.tree import global_norm
from gradxform.tree_utils import tree_map_params
from gradxform.tunable import inject_hyperparams, tunable
from gradxform.wrap import apply_every, conditionally_mask, conditionally_transform, every, restart

__version__ = "0.1.0"

_BESIDE = (  # in Optax's module of schedules too
    cosine_onecycle_schedule,
    inject_hyperparams,
    linear_onecycle_schedule,
    piecewise_interpolate_schedule,
    sgdr_schedule,
)
schedules.__dict__.update({made.__name__: made for made in _BESIDE})


def __getattr__(name: str):
    """Optax's modules of names, and what is Optax's own: losses, projections, linear algebra."""
    import importlib

    if name in ("compatibility", "contrib", "losses", "transforms"):
        return importlib.import_module(f"gradxform.{name}")
    return importlib.import_module("gradxform.compatibility").find(name)
