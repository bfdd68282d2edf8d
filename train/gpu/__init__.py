"""Training with PyTorch or JAX on an accelerator, from the same architectures and to the same weights files.

In: packed frames. Out: FP32 weights, folds and quantisation-aware weights. Must not know: TensorFlow at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .cross_validation import fold_of, mask_unseen
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        cross_validation="fold_of mask_unseen",
    )

__all__ = ["fold_of", "mask_unseen"]
