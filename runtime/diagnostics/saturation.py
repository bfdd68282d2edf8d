"""Find out whether an engine's 8-bit sums saturate on this machine, and refuse models that are wrong there.

On x86 CPUs without VNNI, onnxruntime's MLAS and oneDNN (OpenVINO) add two 8-bit products in 16 bits, with saturation
(onnxruntime issue 14642). A model whose weights allow such large sums gives other answers there than elsewhere. MLAS
has slower kernels that add in 32 bits, and the onnxruntime backend asks for them where a file is not saturation-safe;
oneDNN has no such switch. A small probe model shows what happens. CPU flags say less than the probe: libraries can be
set not to use an instruction, and some systems do not list the flags.
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
    """Return the path of the probe model, which ``export.tools.saturation_probe`` writes."""
    return Path(str(resources.files(__package__) / "assets" / f"{PROBE}.onnx"))


@cache
def saturates_here(backend: str) -> bool:
    """Return whether a backend's 8-bit sums saturate on this machine.

    LiteRT is not probed. Its kernels (XNNPACK, s8 times s8) widen the products before they add them, as was
    measured on a CPU without VNNI.

    Args:
        backend: name of a backend, a key of ``BACKENDS``.

    Raises:
        BackendError: the backend is not installed; and all that ``open_model`` raises.
    """
    if BACKENDS[backend].reads != "ONNX":
        return False
    model = open_model(probe_path(), backend=backend, threads=1)
    side = model.spec.input.size
    logit = float(model.run(np.full((1, side, side, 3), 255, np.uint8)).logits[0, 1])
    model.close()
    # The logit is PROBE_LOGIT, and half of it if the sums saturate.
    return logit < 0.75 * PROBE_LOGIT


def answers_wrongly_here(spec: ModelSpec, backend: str) -> bool:
    """Return whether a model is marked as not saturation-safe and the backend's sums saturate here."""
    return spec.precision == "int8" and spec.saturation_safe is False and saturates_here(backend)


def refuse_saturation(model: Backend) -> None:
    """Raise ``ModelError`` if this machine would answer wrongly with the opened model."""
    if answers_wrongly_here(model.spec, model.name):
        raise ModelError(
            f"{model.path} is not saturation-safe, and on this CPU {model.name} adds in 16 bits: its answers"
            " would differ from the measured ones",
            hint="read the ONNX file with --backend onnxruntime, or use a saturation-safe file such as the default"
            " model, or the FP32 file; --allow-saturation reads with this file anyway",
        )
