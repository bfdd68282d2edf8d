"""Keep TensorFlow's own log off the terminal, where it would drown what a command says."""

from __future__ import annotations

import logging
import os

__all__ = ["quiet_tensorflow"]


def quiet_tensorflow() -> None:
    """Silence TensorFlow's log; call it before TensorFlow is imported.

    What fails still raises an error. A value of TF_CPP_MIN_LOG_LEVEL in the environment is kept: 0 shows everything.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
        for name in ("tensorflow", "absl"):
            logging.getLogger(name).setLevel(logging.ERROR)
