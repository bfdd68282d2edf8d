"""Keras classifiers for fine-tuning, and frames that they are fine-tuned on, once for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from foreign_models import write_colours
from paths import ROOT


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames of other videos than those of ``colours``."""
    return write_colours(tmp_path_factory.mktemp("finetuning") / "training", frames=80, seed=8, mark="t")


@pytest.fixture(scope="session")
def tunable(tmp_path_factory: pytest.TempPathFactory, training: Path) -> Callable[[str], Path]:
    """Return a function from ``keras`` or ``tf_keras`` to the folder of models that this framework wrote."""

    @cache
    def write(framework: str) -> Path:
        folder = tmp_path_factory.mktemp("tunable") / framework
        program = ROOT / "tests" / "tunable_models.py"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(
            [sys.executable, program, framework, training, folder],
            check=True, capture_output=True, timeout=500, env=environment,
        )  # fmt: skip
        return folder

    return write
