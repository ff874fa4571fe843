"""Losses are not gradxform's: each name here is Optax's own, resolved when it is asked for.

`gradxform.losses.softmax_cross_entropy` is `optax.losses.softmax_cross_entropy`, and so is
`gradxform.softmax_cross_entropy`.
"""

from gradxform.interop.optax.names import loss as __getattr__  # noqa: F401
