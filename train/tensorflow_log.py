"""Keep TensorFlow's own log off the terminal, where it would drown what a command says."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["import_quietly"]

_PACKAGES = ("tensorflow", "tf_keras", "tensorflow_model_optimization")


def import_quietly() -> None:
    """Import TensorFlow without its log, and silence the log from then on. Call it before anything imports TensorFlow.

    Keras 3 then uses TensorFlow too, whatever the environment asks for: a process with TensorFlow and PyTorch crashes.
    Errors are still raised. If the environment sets TF_CPP_MIN_LOG_LEVEL, nothing is silenced: 0 shows everything.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Its libraries write some lines before they read the variable.
    with _without_stderr():
        for package in _PACKAGES:
            with suppress(ModuleNotFoundError):
                importlib.import_module(package)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Divert this process's stderr, also of C++ code, into a file; show it if the block raises an error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 2)
            yield
        except BaseException:
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
