"""The options of an adoption: what the owner says of the model, and what the file may leave open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from capsule_edge.runtime.inference import INTENDED_USE, NOT_STATED, HeldOutBy, InputSpec

from .facts import Channels, OutputKind
from .int8_search import AUTO

__all__ = ["AUTO", "MOST_EPOCHS", "AdoptOptions"]

MOST_EPOCHS = 100
"""The most epochs of fine-tuning."""
_EPOCHS = 3


@dataclass(frozen=True)
class AdoptOptions:
    """Statements about a model beside its file, its labels and the frames.

    Attributes:
        scaling: The scaling of the pixels (``scaling.parse_scaling``); None where the file states it.
        channels: The order of the colours; None where the file or the scaling states it.
        size: The side of the input in pixels, for a file that leaves it open.
        outputs: The meaning of the outputs; None where the file states it.
        crop: Cut frames to the field of view, or not, as in the model's training.
        mask: Black out what lies outside the inscribed ellipse, or not, as in the model's training.
        name: Name of the model; None takes the name of its file.
        version: Version of the model.
        license: Licence of the model.
        held_out: What the owner held out whole of the given frames; None where the owner does not say.
        intended_use: What the model may be used for.
        keep_float: Names of layers that stay in float in the INT8 file; ``auto`` chooses them.
        accept_weak: Adopt a model that is no better than guessing, or not calibrated.
        data_labels: A label map for the class names of the frames.
        split: The split of the frames on which choices are made.
        certify_split: The split on which the certificates are measured; None divides the frames by video.
        finetune: Fine-tune the network of a Keras model for 8 bits, and use the result for INT8 where it is better.
        finetune_data: A data set or a folder of pictures to fine-tune on; None takes the split ``train`` of the data.
        epochs: How often fine-tuning shows each frame, 1 to 100; None is 3.
        tflite: Write an FP32 TFLite file too, where the source allows it.
    """

    scaling: str | None = None
    channels: Channels | None = None
    size: int | None = None
    outputs: OutputKind | None = None
    crop: Literal["field_of_view", "none"] = "none"
    mask: Literal["ellipse", "none"] = "none"
    name: str | None = None
    version: str = NOT_STATED
    license: str = NOT_STATED
    held_out: HeldOutBy | None = None
    intended_use: str = f"Not stated by the owner. {INTENDED_USE}"
    keep_float: tuple[str, ...] = (AUTO,)
    accept_weak: bool = False
    data_labels: Path | None = None
    split: str | None = None
    certify_split: str | None = None
    finetune: bool = False
    finetune_data: Path | None = None
    epochs: int | None = None
    tflite: bool = True

    @property
    def finetuning_epochs(self) -> int:
        """The number of epochs of fine-tuning."""
        return _EPOCHS if self.epochs is None else self.epochs

    def input_spec(self, size: int) -> InputSpec:
        """Return the preprocessing of the adopted model."""
        return InputSpec(size, crop=self.crop, mask=self.mask, preprocessing=2)
