"""Training with PyTorch on an accelerator: the same architectures, the same weights files, no TensorFlow.

In: training frames and a recipe. Out: FP32 weights by fold, and weights trained for 8 bits.
Must not know: TensorFlow, file formats of export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .batch_feed import BatchFeed
    from .torch_graph import TorchGraph
    from .torch_qat import GridTrainer
    from .torch_training import GpuTrainer, build_graph
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        batch_feed="BatchFeed",
        torch_graph="TorchGraph",
        torch_qat="GridTrainer",
        torch_training="GpuTrainer build_graph",
    )

__all__ = ["BatchFeed", "GpuTrainer", "GridTrainer", "TorchGraph", "build_graph"]
