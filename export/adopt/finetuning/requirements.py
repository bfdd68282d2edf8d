"""Check the options of fine-tuning and the kind of the source, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from capsule_edge.evaluation._extras import TRAINING, require
from capsule_edge.runtime.errors import UsageError

from ..options import AUTO, MOST_EPOCHS, AdoptOptions
from ..sources import recognise

__all__ = ["check_requirements"]

_NAMES = {"savedmodel": "a SavedModel", "tflite": "a TFLite file", "onnx": "an ONNX file"}


def check_requirements(model: Path, options: AdoptOptions) -> None:
    """Check that a model can be fine-tuned with these options, as far as that shows before it is loaded.

    Raises:
        UsageError: An option contradicts another, or the source is no Keras file.
        PackageError: TensorFlow, tf_keras or TFMOT is not installed.
    """
    if not options.finetune:
        for option, given in (("--finetune-data", options.finetune_data), ("--epochs", options.epochs)):
            if given is not None:
                raise UsageError(
                    f"{option} goes with --finetune only", hint=f"add --finetune, or leave {option} out"
                )
        return
    if options.epochs is not None and not 1 <= options.epochs <= MOST_EPOCHS:
        raise UsageError(f"--epochs is {options.epochs}, allowed is 1 to {MOST_EPOCHS}")
    named = [name for name in options.keep_float if name != AUTO]
    if named:
        raise UsageError(
            f"--keep-float {named[0]} does not go with --finetune: the layers of the fine-tuned network have names of"
            " their own",
            hint="use --keep-float auto or none, or leave --finetune out",
        )
    kind = "onnx" if model.suffix.lower() == ".onnx" else recognise(model)
    if kind in _NAMES:
        raise UsageError(
            f"--finetune needs the layers of a Keras model, and {model} is {_NAMES[kind]}",
            hint="give the .keras or .h5 file that it was made from, or leave --finetune out",
        )
    require(*TRAINING, extra="train", what="adopt --finetune")
