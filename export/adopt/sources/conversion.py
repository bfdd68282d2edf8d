"""Convert a model file of another framework to ONNX, in a process of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats, SourceFacts
from ..network_layers import NetworkLayer, read_layers
from .file_kinds import read_keras_config, recognise
from .framework_process import FrameworkProcess
from .keras_config import check_keras_config

__all__ = ["SourceAnswers", "to_onnx"]


class SourceAnswers:
    """Answers batches with the framework of the source.

    Args:
        process: a process that has loaded the model.
    """

    def __init__(self, process: FrameworkProcess) -> None:
        self._process = process

    def __call__(self, batch: Floats) -> Floats:
        """Return the answers to a batch.

        Args:
            batch: float32 (N, ...), scaled, in the source's layout.

        Returns:
            float32 (N, labels), as the source's last layer leaves them.
        """
        _, answers = self._process.ask({"do": "answer"}, batch)
        if answers is None:
            raise ModelError("the process of the framework sent no answers")
        return answers

    def layers(self) -> tuple[NetworkLayer, ...]:
        """Return the layers of a Keras model, those of nested models in their place.

        Raises:
            UsageError: a layer is used more than once.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._process.ask({"do": "layers", "out": folder})
            return read_layers(Path(folder))

    def tflite(self) -> bytes:
        """Return the network as the bytes of a float TFLite file, with the source's own input and output.

        Raises:
            ModelError: the source computes something that TFLite's own operators do not.
        """
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "network.tflite"
            self._process.ask({"do": "tflite", "out": str(out)})
            return out.read_bytes()

    def close(self) -> None:
        """End the process."""
        self._process.close()


def to_onnx(path: Path, out: Path, *, size: int | None = None) -> SourceFacts:
    """Convert a classifier to a float ONNX file (opset 17, dynamic batch).

    The file is opened with onnxruntime, and its answers are compared with the source's own, before this returns.

    Args:
        path: a ``.keras``, ``.h5`` or ``.tflite`` file, or the folder of a SavedModel.
        out: the ONNX file to write.
        size: the side of the input in pixels, for a model that leaves it open.

    Returns:
        What the source says about itself. ``run`` answers batches with the source's own framework, in a process that
        ends with ``run.close()`` or when nothing refers to it any more.

    Raises:
        InputError: the file cannot be read.
        UsageError: the model leaves the size of its input open and ``size`` is not given, or contradicts it.
        ModelError: the model is no classifier of pictures that can be converted. The message names the layer,
            operation or value.
        PackageError: the framework is not installed.
    """
    kind = recognise(path)
    if kind in ("keras", "tf_keras"):
        check_keras_config(path, read_keras_config(path)[1])
    process = FrameworkProcess(kind)
    try:
        request = {"do": "convert", "path": str(path), "out": str(out), "size": size}
        facts, _ = process.ask(request)
    except BaseException:
        process.close()
        raise
    notes, answers = tuple(facts.pop("notes")), SourceAnswers(process)
    layers = answers.layers if kind in ("keras", "tf_keras") else None
    return SourceFacts(kind=kind, notes=notes, run=answers, layers=layers, tflite=answers.tflite, **facts)
