"""The child that holds a twin: build it, train it step by step, and write it as ONNX.

    python -m capsule_edge.export.adopt.finetuning.twin_program tf_keras

Requests are ``build`` (a folder that ``write_layers`` wrote, and a seed), ``answer`` (a batch), ``prepare`` (a batch
and the temperature), ``step`` (rows of a frame and its wanted probabilities, and the size of the step), ``ranges`` (a
batch) and ``convert``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats
from ..network_layers import read_layers
from ..sources import read_keras, serve_own_stdout, serve_requests

if TYPE_CHECKING:
    from .twin_network import TwinNetwork

__all__ = ["TwinServer"]


class TwinServer:
    """One twin and the requests to it."""

    def __init__(self) -> None:
        self._twin: TwinNetwork | None = None

    def handle(self, request: dict[str, Any], batch: Floats | None) -> tuple[dict[str, Any], Floats | None]:
        """Answer a request.

        Args:
            request: The request: ``do`` and its parameters.
            batch: Its batch, float32.
        """
        if request["do"] == "build":
            from .twin_network import TwinNetwork

            self._twin = TwinNetwork(read_layers(Path(request["folder"])), request["seed"])
            return {}, None
        twin = self._twin
        if twin is None:
            raise ModelError("the twin has not been built")
        if request["do"] == "convert":
            twin.take_over()
            read_keras(Path(request["path"]), twin.model).convert(Path(request["out"]))
            return {}, None
        assert batch is not None  # the other requests have one
        if request["do"] == "answer":
            return {}, np.asarray(twin.model(batch, training=False), np.float32)
        if request["do"] == "prepare":
            twin.even_channels(batch)
            twin.prepare(batch, request["temperature"])
            return {}, None
        if request["do"] == "ranges":
            twin.take_over()
            return {"ranges": [dataclasses.astuple(each) for each in twin.ranges(batch)]}, None
        return {"loss": self._step(twin, request, batch)}, None

    @staticmethod
    def _step(twin: TwinNetwork, request: dict[str, Any], rows: Floats) -> float:
        """Train on rows that hold the values of a frame and then its wanted probabilities."""
        sides = twin.model.input_shape[1:]
        size = int(np.prod(sides))
        return twin.step(rows[:, :size].reshape(-1, *sides), rows[:, size:], request["rate"])


if __name__ == "__main__":
    serve_own_stdout(
        lambda requests, replies: serve_requests(TwinServer().handle, requests, replies, "tf_keras")
    )
