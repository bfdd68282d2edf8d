"""Training with PyTorch on an accelerator: the same architectures, the same weights files, no TensorFlow.

In: training frames and a recipe. Out: FP32 weights by fold, and weights trained for 8 bits.
Must not know: TensorFlow, file formats of export.
"""
