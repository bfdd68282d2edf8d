"""Hold a twin in a process of its own, so that tf_keras never meets the framework of the source."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats
from ..network_layers import NetworkLayer, write_layers
from ..sources import FrameworkProcess
from .trained_ranges import TrainedRange

__all__ = ["TwinProcess"]

_PROGRAM = "capsule_edge.export.adopt.finetuning.twin_program"


class TwinProcess:
    """A twin in a process of its own, which ends with ``close``.

    Args:
        path: The source, for messages.
        layers: The planned layers.
        seed: The seed of everything that is drawn.
    """

    def __init__(self, path: Path, layers: Sequence[NetworkLayer], seed: int) -> None:
        self._path = path
        self._process = FrameworkProcess("tf_keras", _PROGRAM)
        try:
            with tempfile.TemporaryDirectory() as folder:
                write_layers(Path(folder), layers)
                request = {"do": "build", "folder": folder, "seed": seed, "path": str(path)}
                self._process.ask(request)
        except BaseException:
            self.close()
            raise

    def answer(self, batch: Floats) -> Floats:
        """Return the logits of the float twin, float32 (N, labels), for a scaled batch (N, size, size, 3)."""
        _, answers = self._process.ask({"do": "answer"}, batch)
        if answers is None:
            raise ModelError("the process of the twin sent no answers")
        return answers

    def prepare(self, batch: Floats, temperature: float) -> None:
        """Even the channels of the twin and set its ranges on a scaled batch, before the first step."""
        self._process.ask({"do": "prepare", "temperature": temperature}, batch)

    def step(self, batch: Floats, targets: Floats, rate: float) -> float:
        """Train on a scaled batch with the wanted probabilities (N, labels), and return the loss."""
        rows = np.concatenate([batch.reshape(len(batch), -1), targets], axis=1)
        reply, _ = self._process.ask({"do": "step", "rate": rate}, rows)
        return float(reply["loss"])

    def ranges(self, batch: Floats) -> list[TrainedRange]:
        """Return the trained ranges of all values, described on a scaled batch."""
        reply, _ = self._process.ask({"do": "ranges"}, batch)
        return [TrainedRange(tuple(marks), low, high) for marks, low, high in reply["ranges"]]

    def convert(self, out: Path) -> None:
        """Write the float twin with its trained weights as an ONNX file."""
        self._process.ask({"do": "convert", "out": str(out), "path": str(self._path)})

    def close(self) -> None:
        """End the process."""
        self._process.close()
