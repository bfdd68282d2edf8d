"""Count what the recordings of the training data look like: the record ``reference`` of a model file.

    python -m capsule_edge.evaluation.familiarity.reference_fit MODEL --reading VIDEO RESULT --out FILE [--into RUN]

``--reading`` is repeatable. RESULT is the folder that ``capsule-edge run`` wrote for VIDEO. Labels and answers are
those in RESULT, so the model that read VIDEO must not have been trained on it (use the model of another fold). MODEL
gives the labels and the preprocessing. The measure of familiarity is that of RUN where it is given, else that of MODEL;
the histogram of it is null where neither has one.

FILE has ``reference`` as a ModelSpec has it: histograms of ``colour`` (share of red in the mean colour of a frame, in
percent), ``sharpness`` (the statistic ``contrast`` of a frame), ``field_of_view`` (its share of the picture's area, one
value a recording), ``label_shares`` (most probable label of a frame), ``scores`` (score of a suggestion, as the rules
of RUN, else of MODEL, find it in the answers of RESULT), and ``familiarity`` (distance of a frame). Values beyond the
edges count in the outermost bins. ``--into RUN`` writes the record into the spec of a training's ``run.json``. The
last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.events import capture_scale, find_events, suggest
from capsule_edge.runtime.inference import (
    APPEARANCE,
    FamiliarityRule,
    InputSpec,
    ModelSpec,
    ReferenceHistogram,
    find_model,
    open_model,
)
from capsule_edge.runtime.preprocessing import (
    AppearanceDistance,
    FieldOfView,
    PixelBuffers,
    describe_appearance,
    make_batches,
    prepare,
)
from capsule_edge.runtime.recording import hash_recording, read_frames, scan, time_kind
from capsule_edge.runtime.study import FrameRecord, Status

from .._files import write_text
from .._module import run_module
from .._run_records import put_records, read_run_spec

__all__ = ["ReferenceReading", "count_reference", "read_reading"]

Floats = npt.NDArray[np.float64]

_BATCH = 32
_EDGES = {
    "colour": np.linspace(20, 80, 31),
    "sharpness": np.linspace(0, 20, 21),
    "field_of_view": np.linspace(0, 1, 21),
    "scores": np.linspace(0, 1, 21),
}
# Bins of the distance, up to twice the threshold.
_DISTANCE_BINS = 40


@dataclasses.dataclass(frozen=True)
class ReferenceReading:
    """The values of one recording that the histograms count.

    Attributes:
        statistics: float64 (frames, statistics), of ``describe_appearance``.
        area: Share of the picture that the field of view fills, 0..1; None without one.
        labels: The most probable label of each answered frame.
        scores: The scores of the suggestions.
    """

    statistics: Floats
    area: float | None
    labels: list[str]
    scores: list[float]


def read_reading(video: Path, result: Path, spec: ModelSpec) -> ReferenceReading:
    """Read a recording and the result of its reading.

    Args:
        video: The recording.
        result: The folder that ``capsule-edge run`` wrote.
        spec: The preprocessing, and the rules that find and score suggestions in the answers.

    Raises:
        InputError: A file cannot be read, or the result is of another recording or of a model with other labels.
    """
    study = _read_study(result)
    source = study["source"]
    if source["sha256"] != hash_recording(video):
        raise InputError(
            f"{result} is not the result of {video}: its study.json names another file's SHA-256"
        )
    labels = _read_labels(result / "frames.csv")
    if unknown := sorted(set(labels) - set(spec.keys)):
        raise InputError(f"{result} has the labels {unknown}, the model knows {list(spec.keys)}")
    box = None if source["field_of_view"] is None else FieldOfView(**source["field_of_view"])
    return ReferenceReading(
        _describe(video, spec.input, box),
        None if box is None else box.width * box.height / (source["width"] * source["height"]),
        labels,
        _score(result / "frames.csv", spec),
    )


def count_reference(
    readings: Sequence[ReferenceReading], keys: Sequence[str], rule: FamiliarityRule | None
) -> dict[str, ReferenceHistogram | None]:
    """Return the histograms of the record ``reference``; None for a measure without a value.

    Args:
        readings: The recordings.
        keys: The label keys of the model.
        rule: The measure of familiarity.
    """
    statistics = np.concatenate([reading.statistics for reading in readings])
    counts = Counter(label for reading in readings for label in reading.labels)
    scores = [score for reading in readings for score in reading.scores]
    areas = [reading.area for reading in readings if reading.area is not None]
    distances = None
    if rule is not None and rule.threshold > 0:
        edges = np.linspace(0, 2 * rule.threshold, _DISTANCE_BINS + 1)
        distances = _histogram(AppearanceDistance(rule).of_statistics(statistics), edges)
    return {
        "colour": _histogram(statistics[:, APPEARANCE.index("share_of_red")], _EDGES["colour"]),
        "sharpness": _histogram(statistics[:, APPEARANCE.index("contrast")], _EDGES["sharpness"]),
        "field_of_view": _histogram(areas, _EDGES["field_of_view"]),
        "label_shares": ReferenceHistogram(
            None, tuple(float(counts[key]) for key in keys), sum(counts.values())
        ),
        "scores": _histogram(scores, _EDGES["scores"]),
        "familiarity": distances,
    }


def _histogram(values: Iterable[float], edges: Floats) -> ReferenceHistogram | None:
    held = np.array(list(values), np.float64)
    if not len(held):
        return None
    counts = np.histogram(np.clip(held, edges[0], edges[-1]), edges)[0]
    rounded = tuple(round(edge, 6) for edge in edges.tolist())
    return ReferenceHistogram(rounded, tuple(float(count) for count in counts), len(held))


def _describe(video: Path, spec: InputSpec, box: FieldOfView | None) -> Floats:
    """Return the statistics of the sound frames of a recording."""
    container, buffers = scan(video), PixelBuffers()
    rows = [np.empty((0, len(APPEARANCE)))]
    frames = read_frames(container, range(container.present))
    for batch in make_batches(frames, size=_BATCH, field_of_view=box):
        if batch.with_image:
            pixels = prepare(batch, spec, buffers)
            rows.append(describe_appearance(pixels))
            buffers.give(pixels)
    return np.concatenate(rows)


def _read_study(folder: Path) -> dict[str, Any]:
    try:
        study: dict[str, Any] = json.loads((folder / "study.json").read_text("utf-8"))
        _ = (study["source"]["sha256"], study["source"]["field_of_view"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} has no readable study.json: {error}",
            hint="name the folder that 'capsule-edge run' wrote",
        ) from None
    return study


def _read_labels(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row["label"] for row in csv.DictReader(file) if row["label"]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no table of frames: {error}") from None


def _score(path: Path, spec: ModelSpec) -> list[float]:
    """Return the scores of the suggestions that the spec's rules find in the answers of a ``frames.csv``."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frames = [_frame(row, spec.keys, path) for row in rows]
    times = [frame.time_s for frame in frames if frame.time_s is not None]
    distance_s = float(np.median(np.diff(times))) if len(times) > 1 else None
    kind = time_kind(distance_s)
    events = find_events(frames, spec, median_distance_s=distance_s, time_kind=kind)
    scale = capture_scale(spec.events, median_distance_s=distance_s, time_kind=kind, capture_fps=None)
    return [one.score for one in suggest(events, frames, spec, scale=scale)]


def _frame(row: dict[str, str], keys: Sequence[str], path: Path) -> FrameRecord:
    """Return a row of ``frames.csv`` as a frame."""
    try:
        cells = [row[f"p_{key}"] for key in keys]
        return FrameRecord(
            int(row["index"]),
            cast(Status, row["status"]),
            time_s=float(row["time_s"]) if row["time_s"] else None,
            detail=row["detail"],
            probabilities=np.array(cells, np.float32) if all(cells) else None,
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is no table of the model's answers: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="model file with the labels and the preprocessing")
    parser.add_argument(
        "--reading",
        nargs=2,
        action="append",
        type=Path,
        required=True,
        metavar=("VIDEO", "RESULT"),
        help="recording and the result of its reading; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="JSON file to write")
    parser.add_argument("--into", type=Path, metavar="RUN", help="training whose run.json takes the record")
    options = parser.parse_args()
    spec = open_model(find_model(options.model)).spec
    rule = spec.familiarity
    if options.into is not None:
        rule = read_run_spec(options.into)[1].familiarity or rule
        # The rules and the weights of the score are those of the training, as the exported file will have them.
        spec = read_run_spec(options.into)[1]
    readings = [read_reading(video, result, spec) for video, result in options.reading]
    counted = count_reference(readings, spec.keys, rule)
    document = {
        "reference": {
            name: None if one is None else dataclasses.asdict(one) for name, one in counted.items()
        },
        "recordings": [video.name for video, _ in options.reading],
    }
    write_text(options.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if options.into is not None:
        put_records(options.into, {"reference": document["reference"]})
    for name, one in counted.items():
        print(f"{name:14} {'not counted' if one is None else f'{one.n} values'}")
    print(json.dumps(document, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
