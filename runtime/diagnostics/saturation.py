"""Whether an engine's 8-bit sums saturate on this machine, found by trying it, and what follows from that.

On x86 CPUs without VNNI, onnxruntime's MLAS and oneDNN (OpenVINO) add two products of 8 bits in 16, with saturation
(onnxruntime issue 14642). A model whose weights allow such sums answers otherwise there than everywhere else. Flags of
the CPU tell less than a trial: libraries can be told to leave instructions unused, and not every system names them.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from ..errors import ModelError
from ..inference import BACKENDS, Backend, ModelSpec, open_model

__all__ = [
    "PROBE",
    "PROBE_LOGIT",
    "answers_wrongly_here",
    "probe_path",
    "refuse_saturation",
    "saturates_here",
]

PROBE = "saturation-probe"
PROBE_LOGIT = 10.0


def probe_path() -> Path:
    """The model that ``export.tools.saturation_probe`` writes."""
    return Path(str(resources.files(__package__) / "assets" / f"{PROBE}.onnx"))


@cache
def saturates_here(backend: str) -> bool:
    """Whether that backend's sums saturate on this machine.

    LiteRT widens before it adds (XNNPACK multiplies s8 by s8), which the log shows on such a CPU; it is not tried.
    Raises as ``open_model`` does.
    """
    if BACKENDS[backend].reads != "ONNX":
        return False
    model = open_model(probe_path(), backend=backend, threads=1)
    side = model.spec.input.size
    logit = float(model.run(np.full((1, side, side, 3), 255, np.uint8)).logits[0, 1])
    model.close()
    # Half where it saturates, whole elsewhere.
    return logit < 0.75 * PROBE_LOGIT


def answers_wrongly_here(spec: ModelSpec, backend: str) -> bool:
    """Whether a model is known to be unsafe where sums saturate, and they do here."""
    return spec.precision == "int8" and spec.saturation_safe is False and saturates_here(backend)


def refuse_saturation(model: Backend) -> None:
    """Raises ``ModelError`` for a model that this machine answers wrongly."""
    if answers_wrongly_here(model.spec, model.name):
        raise ModelError(
            f"{model.path} is not saturation-safe, and on this CPU {model.name} adds in 16 bits: its answers"
            " would differ from those that were measured",
            hint="use a saturation-safe file as the default model is, the FP32 file, or the TFLite file with --backend"
            " litert; --allow-saturation reads all the same",
        )
