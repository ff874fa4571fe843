"""gradxform: gradient transformations for JAX, as pytrees of their hyperparameters."""

from gradxform import hyper, plot, schedules, sweep, tree, tree_utils
from gradxform.core.chain import (
    apply_updates,
    chain,
    identity,
    look_ahead,
    stack,
    stateless,
    stateless_with_tree_map,
    transformation,
)
from gradxform.core.labels import by_path
from gradxform.core.leaf import PerLeaf
from gradxform.core.leafwise import RuleState, leafwise
from gradxform.core.leaves import global_norm
from gradxform.core.schedule import (
    Schedule,
    from_function,
    in_sequence,
    product_of_schedules,
    schedule,
    sum_of_schedules,
)
from gradxform.core.slots import real_zeros, zeros
from gradxform.core.tunable import inject_hyperparams, tunable
from gradxform.interop.optax.aliases import (
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
from gradxform.interop.optax.state import import_optax_state
from gradxform.interop.optax.tree_utils import tree_map_params
from gradxform.interop.torch_state import import_torch_state
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
from gradxform.optimizers.descent import dpsgd
from gradxform.optimizers.products import (
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
from gradxform.optimizers.step_free import schedule_free_adamw, schedule_free_sgd
from gradxform.rules.clipping import (
    adagc,
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_leaf_norm,
    unitwise_norm,
    zclip,
)
from gradxform.rules.coin_betting import scale_by_cocob
from gradxform.rules.curvature import hutchinson_estimator_diag_hessian
from gradxform.rules.differences import (
    fourth_root,
    scale_by_acprop,
    scale_by_adan,
    scale_by_adopt,
    scale_by_optimistic_gradient,
)
from gradxform.rules.directions import (
    correct_bias,
    ema,
    momentum,
    momentum_plus_gradient,
    nesterov_ema_scheduled,
    quasi_hyperbolic,
    trace,
    two_emas,
)
from gradxform.rules.distance import (
    dadapt_adamw,
    prodigy,
    scale_by_distance_over_gradients,
    scale_by_dog,
    scale_by_dowg,
)
from gradxform.rules.dual_averaging import reduce_variance, scale_by_asgd, scale_by_madgrad
from gradxform.rules.factored import scale_by_block_rms, scale_by_came, scale_by_factored_rms
from gradxform.rules.layerwise import (
    scale_by_novograd,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_sm3,
    scale_by_trust_ratio,
)
from gradxform.rules.noise import (
    add_noise,
    differentially_private_aggregate,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
)
from gradxform.rules.normalize import (
    centralize,
    keep_params_nonnegative,
    normalize_by_update_norm,
    zero_nans,
)
from gradxform.rules.polyak import momo, momo_adam, scale_by_polyak
from gradxform.rules.preconditioners import (
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
from gradxform.rules.rms_variants import (
    scale_by_atan2,
    scale_by_clipped_rms,
    scale_by_quasi_hyperbolic_rms,
    scale_by_rectified_rms,
    scale_by_rms_power,
)
from gradxform.rules.signs import scale_by_lion, scale_by_rprop, scale_by_sign
from gradxform.rules.step_size import (
    reduce_on_plateau,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from gradxform.rules.weight_decay import add_decayed_weights
from gradxform.schedules.algebra import (
    constant,
    cooldown,
    rex_schedule,
    stretch,
    warmup,
    warmup_linear_decay_schedule,
    wsd_schedule,
)
from gradxform.schedules.basic import (
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
from gradxform.schedules.cycles import (
    cosine_onecycle_schedule,
    cosine_restarts_schedule,
    cyclic_schedule,
    linear_onecycle_schedule,
    piecewise_interpolate_schedule,
    sgdr_schedule,
)
from gradxform.state.access import get, numbers, set
from gradxform.state.describe import describe
from gradxform.state.migrate import migrate, reset
from gradxform.state.monitor import measure_with_ema, monitor, snapshot
from gradxform.train import EarlyStopping, Training, batches, fit
from gradxform.train.hypergradient import hypergradient
from gradxform.wrappers.accumulation import MultiSteps, accumulate, microbatch
from gradxform.wrappers.averaging import eval_params, lawa, lookahead, params_ema, swa
from gradxform.wrappers.cautious import cautious, grams
from gradxform.wrappers.conditional import (
    apply_every,
    conditionally_mask,
    conditionally_transform,
    every,
    restart,
)
from gradxform.wrappers.galore import GaLoreDimensionNumbers, scale_by_galore
from gradxform.wrappers.masking import (
    freeze,
    masked,
    multi_transform,
    partition,
    selective_transform,
    set_to_zero,
)
from gradxform.wrappers.master_weights import master_weights
from gradxform.wrappers.mechanic import mechanize
from gradxform.wrappers.sam import sam, sam_gradient
from gradxform.wrappers.schedule_free import gpa, schedule_free
from gradxform.wrappers.skipping import (
    apply_if_finite,
    skip_large_updates,
    skip_nonfinite,
    skip_not_finite,
    skip_spikes,
)
from gradxform.wrappers.sophia import scale_by_sophia

__version__ = "0.1.0"


def __getattr__(name: str):
    """Optax's modules of names, and what is Optax's own: losses, projections, linear algebra."""
    import importlib

    if name in ("contrib", "losses", "transforms"):
        return importlib.import_module(f"gradxform.{name}")
    return importlib.import_module("gradxform.interop.optax.names").find(name)
