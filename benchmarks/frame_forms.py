"""Measure how much a video frame differs when it comes as RGB or as a JPEG instead of its own planes.

    python -m capsule_edge.benchmarks.frame_forms [MODEL...]

Every tenth frame of the shared ``train`` recordings is preprocessed four times: from its own planes (version 2), as
the RGB array that ``Frame.rgb`` gives, as a JPEG of quality 95 (4:2:0), and by version 1. The first is compared with
each of the others: the differences of the values inside the field of view, and each model's labels. A MODEL that was
trained on version 1 is given version 2 all the same. The last line of output is JSON; ``--write`` puts the table into
``docs/preprocessing.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import Backend, InputSpec, default_model, most_probable, open_model
from capsule_edge.runtime.preprocessing import (
    FieldOfView,
    preprocess,
    preprocess_frame,
    settle_field_of_view,
)
from capsule_edge.runtime.recording import Frame, decode_still, read_frames, scan

from .documents import to_table, update_document

__all__ = ["FORMS", "compare_forms", "find_train_recordings", "prepare_forms"]

FORMS = ("RGB", "JPEG", "version 1")
DOCUMENT = Path("docs/preprocessing.md")
_QUALITY = 95
_BATCH = 64

Pixels = npt.NDArray[np.uint8]


class _Differences:
    """Counts of the absolute differences between model inputs inside the field of view."""

    def __init__(self, spec: InputSpec) -> None:
        white = np.full((spec.size, spec.size, 3), 255, np.uint8)
        self._inside = preprocess(white, replace(spec, crop="none")) > 0
        self._counts = np.zeros(256, np.int64)

    def add(self, one: Pixels, other: Pixels) -> None:
        self._counts += np.bincount(cv2.absdiff(one, other)[self._inside], minlength=256)

    def describe(self) -> dict[str, Any]:
        """Return p50, p99 and maximum in levels, and the share of values that differ by more than 3 levels."""
        below = np.cumsum(self._counts) / self._counts.sum()
        p50, p99 = (int(np.searchsorted(below, share)) for share in (0.5, 0.99))
        most = int(np.flatnonzero(self._counts)[-1])
        return {"p50": p50, "p99": p99, "max": most, "share_above_3": round(1 - float(below[3]), 6)}


def find_train_recordings(folder: Path) -> list[Path]:
    """Return the recordings of ``train`` videos that ``index.csv`` of a folder lists.

    Raises:
        InputError: there is no readable ``index.csv``.
    """
    try:
        with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
            return [folder / row["file"] for row in csv.DictReader(file) if row["split"] == "train"]
    except (OSError, KeyError) as error:
        raise InputError(
            f"{folder} has no index.csv with the columns file and split ({error})",
            hint="set CAPSULE_EDGE_DATA to the folder that holds recordings/",
        ) from None


def prepare_forms(frame: Frame, spec: InputSpec, box: FieldOfView | None) -> dict[str, Pixels]:
    """Return the model input of a frame by each way: ``planes``, and those of ``FORMS``.

    Args:
        frame: a decoded frame with an image.
        spec: input of the model; its version of the preprocessing is ignored.
        box: the recording's field of view.
    """
    box = box if box is not None else FieldOfView.whole(frame.rgb())
    second = replace(spec, preprocessing=2)
    rgb = frame.rgb()
    encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    jpeg = decode_still(encoded.tobytes())
    assert jpeg is not None
    return {
        "planes": preprocess_frame(frame, second, box),
        "RGB": preprocess(rgb, second, box),
        "JPEG": preprocess(jpeg.rgb, second, box),
        "version 1": preprocess_frame(frame, replace(spec, preprocessing=1), box),
    }


def compare_forms(recordings: Sequence[Path], backend: Backend, *, every: int = 10) -> dict[str, Any]:
    """Compare the model inputs of every so many frames, and the model's labels for them.

    Returns:
        ``frames``; and for each of ``FORMS`` the differences in levels (``p50``, ``p99``, ``max``,
        ``share_above_3``), ``same_label`` (share of frames) and ``max_abs_dp``.

    Raises:
        InputError: a recording cannot be read, or none has a frame with an image.
    """
    spec = backend.spec.input
    differences = {form: _Differences(spec) for form in FORMS}
    answers: dict[str, list[Any]] = {form: [] for form in ("planes", *FORMS)}
    for batch in _batches(recordings, spec, every):
        for form in FORMS:
            for forms in batch:
                differences[form].add(forms["planes"], forms[form])
        for form, found in answers.items():
            found.append(backend.run(np.stack([forms[form] for forms in batch])).probabilities)
    if not answers["planes"]:
        raise InputError(
            "the recordings hold no frame with an image", hint="name a folder with sound recordings"
        )
    whole = {form: np.concatenate(found) for form, found in answers.items()}
    labels = {form: most_probable(found) for form, found in whole.items()}
    return {
        "frames": len(labels["planes"]),
        "forms": {
            form: differences[form].describe()
            | {
                "same_label": round(float(np.mean(labels[form] == labels["planes"])), 5),
                "max_abs_dp": round(float(np.abs(whole[form] - whole["planes"]).max()), 4),
            }
            for form in FORMS
        },
    }


def _batches(recordings: Sequence[Path], spec: InputSpec, every: int) -> Iterator[list[dict[str, Pixels]]]:
    """Yield the prepared forms of every so many frames, some at a time."""
    batch: list[dict[str, Pixels]] = []
    for recording in recordings:
        container = scan(recording)
        with closing(read_frames(container, range(container.present))) as read:
            box, frames = settle_field_of_view(read, spec)
            for frame in frames:
                if frame.index % every == 0 and frame.image is not None:
                    batch.append(prepare_forms(frame, spec, box))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
    if batch:
        yield batch


def _to_text(results: Sequence[dict[str, Any]]) -> str:
    """Return the table, and a line about what was measured."""
    head = [
        "model",
        "size",
        "frame as",
        "p50",
        "p99",
        "maximum",
        "above 3 levels",
        "same label",
        "largest change",
    ]
    rows = [
        [
            result["model"],
            f"{result['size']} px",
            {"JPEG": f"JPEG, quality {_QUALITY}"}.get(form, form),
            *(str(found[name]) for name in ("p50", "p99", "max")),
            f"{found['share_above_3']:.3%}",
            f"{found['same_label']:.2%}",
            f"{found['max_abs_dp']:.3f}",
        ]
        for result in results
        for form, found in result["forms"].items()
    ]
    trained = "; ".join(
        f"{result['model']} is a model of version {result['trained_on']}" for result in results
    )
    return f"{to_table(head, rows, right=6)}\n\n{results[0]['frames']} frames; {trained}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _make_parser().parse_args(arguments)
    if options.every < 1:
        raise UsageError(f"--every is {options.every}, allowed is 1 or more", hint="10 compares 2,600 frames")
    recordings = find_train_recordings(options.recordings)
    results = []
    for model in options.models or [default_model(), default_model("small")]:
        with closing(open_model(model, threads=1)) as backend:
            found = compare_forms(recordings, backend, every=options.every)
            spec = backend.spec
            about = {"model": spec.name, "trained_on": spec.input.preprocessing or 1, "size": spec.input.size}
            results.append(about | found)
    text = _to_text(results)
    print(text)
    if options.write:
        update_document(DOCUMENT, text, mark="forms")
    print(json.dumps({"benchmark": "frame_forms", "every": options.every, "results": results}))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.frame_forms",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="model files or installed names (default: both installed)"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        default=Path(os.environ.get("CAPSULE_EDGE_DATA") or ".") / "recordings",
        help="folder with recordings and index.csv (default: recordings/ in CAPSULE_EDGE_DATA)",
    )
    parser.add_argument("--every", type=int, default=10, help="compare every so many frames (default: 10)")
    parser.add_argument("--write", action="store_true", help=f"write the table into {DOCUMENT}")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
