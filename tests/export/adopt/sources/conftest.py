"""Models that frameworks wrote, each in a process of its own, once for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from ``keras`` or ``tf_keras`` to the folder of models that this framework wrote."""

    @cache
    def write(framework: str) -> Path:
        folder = tmp_path_factory.mktemp(framework)
        program = ROOT / "tests" / "framework_models.py"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(
            [sys.executable, program, framework, folder],
            check=True, capture_output=True, timeout=500, env=environment,
        )  # fmt: skip
        return folder

    return write
