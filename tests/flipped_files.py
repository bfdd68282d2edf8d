"""Open copies of the shipped small model with one bit flipped, in a process of its own, and print what became of each.

    python tests/flipped_files.py FOLDER COUNT

Prints a line of JSON for each file: ``{"file", "engines": {name: outcome}, "doctor": verdict}``. An outcome is
``equal`` or ``other`` answers, ``refused`` in one line, or ``traceback`` and its text. A verdict is ``correct``,
``wrong``, ``not verified``, ``refused``, or ``internal`` and the text.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from flatbuffers import encode, packer
from flatbuffers.table import Table

from capsule_edge.cli.main import main as capsule_edge
from capsule_edge.runtime import diagnostics
from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.inference import (
    default_model,
    find_format,
    installed_backends,
    open_model,
    readers_of,
    tflite_metadata,
)

SOURCES = (
    default_model("small"),
    Path(__file__).parents[1] / "models" / "capsule-edge-small.int8.tflite",
)
# Values of this many bytes are weights; all else is structure: shapes, scales, names, metadata.
_BULK = 256


def flipped(source: Path, count: int, seed: int = 15) -> Iterator[bytes]:
    """Yield copies with one bit flipped: one of three anywhere, the others outside of the weights."""
    content = source.read_bytes()
    structure = np.ones(len(content), bool)
    for start, end in _onnx_bulk(content) if source.suffix == ".onnx" else _tflite_bulk(content):
        structure[start:end] = False
    places, chosen = np.flatnonzero(structure).tolist(), random.Random(seed)
    for number in range(count):
        copy = bytearray(content)
        copy[chosen.choice(places) if number % 3 else chosen.randrange(len(copy))] ^= 1 << chosen.randrange(8)
        yield bytes(copy)


def _onnx_bulk(content: bytes) -> Iterator[tuple[int, int]]:
    for tensor in onnx.load_from_string(content).graph.initializer:
        if len(tensor.raw_data) >= _BULK:
            start = content.find(tensor.raw_data)
            yield start, start + len(tensor.raw_data)


def _tflite_bulk(content: bytes) -> Iterator[tuple[int, int]]:
    model = Table(content, encode.Get(packer.uoffset, content, 0))
    for buffer in tflite_metadata._tables(model, 4):
        data = tflite_metadata._bytes(buffer, 0)
        if len(data) >= _BULK and not data.startswith(b"{"):
            start = content.find(data)
            yield start, start + len(data)


def open_each(path: Path, frames: Any, right: dict[str, Any]) -> dict[str, str]:
    """Return the outcome by engine."""
    found = {}
    for engine in (name for name in readers_of(find_format(path)) if name in right):
        try:
            answer = open_model(path, backend=engine, threads=1).run(frames)
            same = all(
                np.array_equal(getattr(answer, name), getattr(right[engine], name)) for name in vars(answer)
            )
            found[engine] = "equal" if same else "other"
        except CapsuleEdgeError as error:
            found[engine] = f"traceback {error}" if "\n" in str(error) else "refused"
        except Exception as error:
            found[engine] = f"traceback {type(error).__name__}: {error}"
    return found


def call_doctor(path: Path) -> str:
    """Return the verdict of ``capsule-edge doctor``."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        capsule_edge(["doctor", str(path), "--rounds", "3", "--json"])
    document = json.loads(shown.getvalue())
    if "error" in document:
        known = document["error"]["code"] in ("model", "backend")
        return "refused" if known else f"internal {document['error']['message']}"
    return {True: "correct", False: "wrong", None: "not verified"}[document["correct"]]


def main() -> None:
    """Write COUNT flipped files of each source into FOLDER, one at a time, and print the outcomes."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    # Drawing them takes a second, and they are the same for all files.
    diagnostics.golden_frames = functools.cache(diagnostics.golden_frames)
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    for source in SOURCES:
        engines = [name for name in readers_of(find_format(source)) if name in installed_backends()]
        right = {name: open_model(source, backend=name, threads=1).run(frames) for name in engines}
        for number, content in enumerate(flipped(source, count) if engines else ()):
            file = folder / f"flipped-{number}{source.suffix}"
            file.write_bytes(content)
            print(file, flush=True)
            outcome = {
                "file": file.name,
                "engines": open_each(file, frames, right),
                "doctor": call_doctor(file),
            }
            print(json.dumps(outcome), flush=True)
            file.unlink()


if __name__ == "__main__":
    main()
