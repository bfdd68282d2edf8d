"""Layers of Keras that scale say together which pixels they are for, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

# The layers of each model, and the pixels that it states.
MODELS: list[tuple[str, str | None]] = [
    ("L.Rescaling(1 / 255)", "0..255"),
    ("L.Rescaling(2.0, offset=-1.0)", "0..1"),
    ("L.Rescaling(0.5, offset=0.5)", None),
    ("L.Rescaling(2.0)", None),
    ("L.Rescaling(0.5, offset=0.5), L.Normalization(mean=[.485, .456, .406], variance=[.0524, .0502, .0506])", None),
    ("L.Rescaling(1 / 255), L.Normalization(mean=[.485, .456, .406], variance=[.0524, .0502, .0506])", "0..255"),
    ("L.Normalization(mean=[.485, .456, .406], variance=[.0524, .0502, .0506])", "0..1"),
    ("L.Normalization(mean=[-.03, -.09, -.19], variance=[.21, .2, .2])", None),
    ("L.Normalization(mean=.1, variance=.16, axis=None)", None),
    ("L.Normalization(mean=[120., 100., 80.], variance=[3600., 2500., 1600.])", "0..255"),
    ("L.Dropout(0.1)", None),
]  # fmt: skip
PROGRAM = """
import json, sys
import keras
from capsule_edge.export.adopt.sources.keras_models import read_scaling
L = keras.layers
found = []
for text in json.loads(sys.argv[1]):
    model = keras.Sequential([keras.Input((16, 16, 3)), *eval(f"[{text}]"), L.Flatten(), L.Dense(2)])
    scaling, notes = read_scaling(model)
    found.append([scaling, len(notes)])
print(json.dumps(found))
"""


def test_scaling_layers_are_judged_together() -> None:
    texts = json.dumps([text for text, _ in MODELS])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, texts], check=True, capture_output=True, timeout=300,
        env=_environment(),
    )  # fmt: skip
    found: Any = json.loads(done.stdout.splitlines()[-1])
    for (text, stated), (scaling, notes) in zip(MODELS, found, strict=True):
        assert scaling == stated, text
        assert notes == text.count("Rescaling") + text.count("Normalization"), text


def _environment() -> dict[str, str]:
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **quiet}
