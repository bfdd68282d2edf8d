"""Training with PyTorch on an accelerator: the same architectures, the same weights files, no TensorFlow.

In: training frames and recipes. Out: FP32 weights by fold, and weights trained for 8 bits.
Must not know: TensorFlow, file formats of export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .cross_validation import RecipeData
    from .recipes import Recipe, check_recipes, read_backbones, read_recipes, train_recipes
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        cross_validation="RecipeData",
        recipes="Recipe check_recipes read_backbones read_recipes train_recipes",
    )

__all__ = ["Recipe", "RecipeData", "check_recipes", "read_backbones", "read_recipes", "train_recipes"]
