"""Run a framework in a process of its own, so that Keras 3 and tf_keras never meet and its log stays off the terminal.

A request is a line of JSON on the child's stdin and may be followed by a batch of float32. So is a reply on its
stdout. The child ends when its stdin closes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from typing import IO, Any

import numpy as np

from capsule_edge.runtime import errors
from capsule_edge.runtime.errors import CapsuleEdgeError, ModelError

from ..facts import Floats

__all__ = ["FrameworkProcess", "read_message", "write_message"]

_PROGRAM = "capsule_edge.export.adopt.sources.framework_program"
_QUIET = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
# tf2onnx copies the whole graph before each of its optimisers unless this variable is set, whatever its value
# (1.17; ``tensorflow_graph.call_tf2onnx``). glibc gives blocks from this size on back as soon as they are free.
_SMALL = {"TF2ONNX_CATCH_ERRORS": "FALSE", "MALLOC_MMAP_THRESHOLD_": str(2**20)}


def write_message(stream: IO[bytes], facts: dict[str, Any], batch: Floats | None = None) -> None:
    """Write a message: ``facts``, and a batch (float32, of any shape) if there is one."""
    shape = None if batch is None else list(batch.shape)
    stream.write(json.dumps({**facts, "shape": shape}).encode() + b"\n")
    if batch is not None:
        stream.write(np.ascontiguousarray(batch, "<f4").tobytes())
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], Floats | None] | None:
    """Read a message; None if the stream has ended."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    facts = json.loads(line)
    shape = facts.pop("shape")
    if shape is None:
        return facts, None
    size = 4 * int(np.prod(shape))
    content = stream.read(size)
    return (facts, np.frombuffer(content, "<f4").reshape(shape)) if len(content) == size else None


class FrameworkProcess:
    """A child process that has loaded one model.

    It ends with ``close``, or when nothing refers to it any more. Not safe for use by several threads.

    Args:
        kind: the format of the model, from ``recognise``.
        program: the module that the child runs. It gets ``kind`` as its argument.
    """

    def __init__(self, kind: str, program: str = _PROGRAM) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
        # TensorFlow writes functions as files and is killed before it removes them.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder.name)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", program, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment, **_QUIET, **_SMALL, **places},
        )
        self._end = weakref.finalize(self, _end, self._process, self._log, self._folder)

    def ask(
        self, request: dict[str, Any], batch: Floats | None = None
    ) -> tuple[dict[str, Any], Floats | None]:
        """Send a request and return the reply.

        Raises:
            CapsuleEdgeError: as the child raised it.
            ModelError: the child ended without a reply.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or stdin.closed:
            raise ModelError("the process of the framework has been closed", hint="convert the model again")
        try:
            write_message(stdin, request, batch)
            reply = read_message(stdout)
        except OSError:
            reply = None
        if reply is None:
            code = self._process.wait()
            raise ModelError(f"the process of the framework ended with code {code}: {self._last_line()}")
        facts, answer = reply
        if "error" in facts:
            raise _rebuild(facts["error"])
        return facts, answer

    def close(self) -> None:
        """End the process."""
        self._end()

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it printed nothing"


def _rebuild(error: dict[str, str]) -> CapsuleEdgeError:
    kind: type[CapsuleEdgeError] = getattr(errors, error["kind"])
    return kind(error["message"], hint=error["hint"])


def _end(process: subprocess.Popen[bytes], log: IO[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout, log):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # what was still buffered for a child that is gone
                continue
    process.wait()
    folder.cleanup()
