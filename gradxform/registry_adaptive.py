"""The part of the registry that lists the Adam family, the methods by signs, and those with one scale for a whole leaf."""

import gradxform as gx
from gradxform.entry import Entry

_RANDOM = {
    "subtree": "each leaf draws from its own key, split by the number of leaves",
    "temporary": "the random bits are drawn before they are added",
}
_LATE = {
    "temporary": "the step reads the state as it was before this gradient, of which XLA:CPU keeps a copy, as for Optax's"
}
_SCALED = {"temporary": "the step is formed before it is measured and scaled, as for Optax's, which has two and more"}

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
    "scale_by_radam_torch": Entry(lambda: gx.scale_by_radam(0.9, 0.99, threshold=1.5, convention="torch")),
    "scale_by_ademamix": Entry(lambda: gx.scale_by_ademamix(0.9, 0.99)),
    "scale_by_simplified_ademamix": Entry(lambda: gx.scale_by_simplified_ademamix(0.9, 0.99, 0.5)),
    "scale_by_adan": Entry(lambda: gx.scale_by_adan(), exceptions=_LATE),
    "scale_by_adan_paper": Entry(lambda: gx.scale_by_adan(convention="paper"), exceptions=_LATE),
    "scale_by_adopt": Entry(lambda: gx.scale_by_adopt(), exceptions=_LATE),
    "scale_by_adopt_nesterov": Entry(lambda: gx.scale_by_adopt(nesterov=True, use_clipping=False), exceptions=_LATE),
    "scale_by_acprop": Entry(lambda: gx.scale_by_acprop(), exceptions=_LATE),
    "scale_by_acprop_authors": Entry(lambda: gx.scale_by_acprop(convention="authors"), exceptions=_LATE),
    "scale_by_optimistic_gradient": Entry(lambda: gx.scale_by_optimistic_gradient(), exceptions=_LATE),
    # the Adam family
    "acprop": Entry(lambda: gx.acprop(0.1, weight_decay=0.1), exceptions=_LATE),
    "adabelief": Entry(lambda: gx.adabelief(0.1)),
    "adam_atan2": Entry(lambda: gx.adam_atan2(0.1, weight_decay=0.1)),
    "adamaxw": Entry(lambda: gx.adamaxw(0.1, weight_decay=0.1)),
    "adan": Entry(lambda: gx.adan(0.1, weight_decay=0.1), exceptions=_LATE),
    "adan_authors": Entry(lambda: gx.adan(0.1, weight_decay=0.1, convention="authors"), exceptions=_LATE),
    "ademamix": Entry(lambda: gx.ademamix(0.1, weight_decay=0.1)),
    "adopt": Entry(lambda: gx.adopt(0.1), exceptions=_LATE),
    "laprop": Entry(lambda: gx.laprop(0.1, weight_decay=0.1)),
    "laprop_pytorch_optimizer": Entry(lambda: gx.laprop(0.1, weight_decay=0.1, convention="pytorch_optimizer")),
    "nadamw": Entry(lambda: gx.nadamw(0.1, weight_decay=0.1)),
    "noisy_sgd": Entry(lambda: gx.noisy_sgd(0.1, key=1), exceptions=_RANDOM),
    "optimistic_adam": Entry(lambda: gx.optimistic_adam(0.1), exceptions=_LATE),
    "optimistic_adam_v2": Entry(lambda: gx.optimistic_adam_v2(0.1), exceptions=_LATE),
    "optimistic_gradient_descent": Entry(lambda: gx.optimistic_gradient_descent(0.1), exceptions=_LATE),
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
    "scale_by_trust_ratio_bounded": Entry(lambda: gx.scale_by_trust_ratio(0.1, 0.5, 0.1, max_norm=1.0)),
    "scale_by_novograd": Entry(lambda: gx.scale_by_novograd(weight_decay=0.1)),
    "scale_by_sm3": Entry(lambda: gx.scale_by_sm3(), exceptions=_SCALED),
    "fromage": Entry(lambda: gx.fromage(0.1)),
    "lamb": Entry(lambda: gx.lamb(0.1, weight_decay=0.1), exceptions=_SCALED),
    "lamb_pytorch_optimizer": Entry(
        lambda: gx.lamb(0.1, weight_decay=0.1, convention="pytorch_optimizer"), exceptions=_SCALED
    ),
    "lamb_keras": Entry(lambda: gx.lamb(0.1, weight_decay=0.1, convention="keras"), exceptions=_SCALED),
    "lars": Entry(lambda: gx.lars(0.1, weight_decay=0.1), exceptions=_SCALED),
    "lars_paper": Entry(lambda: gx.lars(0.1, weight_decay=0.1, convention="paper")),
    "novograd": Entry(lambda: gx.novograd(0.1, weight_decay=0.1)),
    "sm3": Entry(lambda: gx.sm3(0.1), exceptions=_SCALED),
    # agreement with the gradient
    "cautious": Entry(lambda: gx.cautious(gx.adam(0.1)), exceptions=_SCALED),
    "cautious_lion_pytorch": Entry(lambda: gx.cautious(gx.adam(0.1), convention="lion_pytorch"), exceptions=_SCALED),
    "cautious_part": Entry(
        lambda: gx.chain(gx.cautious(gx.scale_by_adam(), descends=False), gx.scale(-0.1)), exceptions=_SCALED
    ),
    "grams": Entry(lambda: gx.grams(gx.adam(0.1))),
}
