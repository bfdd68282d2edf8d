"""Write the model card of a pair of model files: measured figures, training data, terms and limits.

python -m capsule_edge.evaluation.classification.model_card FP32 INT8 --data DIR --out MODEL_CARD.md
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError, OutputError
from capsule_edge.runtime.inference import NOT_STATED, Backend, ModelSpec, open_model

from .._module import run_module
from ..datasets import Dataset, describe, describe_frames, describe_overlap, load_dataset, training_overlap
from .metrics import evaluate
from .predictions import Predictions, predict

__all__ = ["CardNotes", "render_card"]

FIGURES = ("macro_f1", "balanced_accuracy", "mean_auc", "mcc", "accuracy")
CLASS_FIGURES = ("recall", "specificity", "precision", "f1", "auc")
_HEAD = """# Model card: {name} {version}

{intended}

{architecture} at {size} x {size} px, {labels} labels, FP32 and INT8 (quantisation-aware training; \
{safe}). Input: a capsule frame, uint8 RGB, cropped to its field of view with everything outside the inscribed circle \
black. Temperature {temperature:.3f}, from {held_out}. Operating points and event parameters are provisional.

## Figures

{where}: {frames}{about}; {overlap}. Rendered and made frames are in the training, never in a \
figure. Intervals, where there are enough videos for any, are 95 %, from a bootstrap over videos.
"""

_TERMS = """
## Training and its data

{training}

Temperature and operating points: {held_out}.{patients}

| what | terms |
|---|---|
| model | {license} |
| training data | {data_license} |
"""

_LIMITS = """
## Limits

- A class of one or two videos says little of other patients: the intervals over videos are the honest ones, and where
  they are absent there were too few videos for any.{unassessed}
- Not a medical device. Findings are suggestions to be confirmed by a physician.
"""


@dataclass(frozen=True)
class CardNotes:
    """Notes that the maker of a model adds to its card; the card claims none of them by itself.

    Attributes:
        about_videos: a remark on the videos of the data, behind their number.
        floors: figures of simple baselines on the same split, by name.
        terms: Markdown below the table of licences.
        limits: further limits of the model.
    """

    about_videos: str = ""
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    terms: str = ""
    limits: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> CardNotes:
        """Read notes from a JSON file.

        Raises:
            InputError: the file cannot be read or has other fields.
        """
        try:
            notes = cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} holds no notes for a model card: {error}") from None
        return dataclasses.replace(notes, limits=tuple(notes.limits))


def render_card(fp32: Backend, int8: Backend, dataset: Dataset, notes: CardNotes | None = None) -> str:
    """Measure both files on a data set and return the card as Markdown.

    The figures stand beside those of the majority class.

    Args:
        fp32: The FP32 model.
        int8: The INT8 model made from it.
        dataset: The labelled frames.
        notes: What the maker of the model adds.

    Raises:
        InputError: The data set has a label that the models lack, or no frame can be read.
    """
    spec = int8.spec
    findings = [label.key for label in spec.labels if label.role == "finding"]
    answers = {"FP32": predict(fp32, dataset), "INT8": predict(int8, dataset)}
    whole = {name: evaluate(answer, findings=findings) for name, answer in answers.items()}
    training = dict(spec.provenance.get("training", {}))
    data = describe(dataset)
    first = whole["FP32"]
    notes = notes or CardNotes()
    overlap = training_overlap([fp32.spec, spec], answers["INT8"].video_ids)
    # Operating points fitted on recordings name these. The provisional ones name the frames of the temperature fit.
    points = sorted(
        (p for p in spec.operating_points.values() if p.measured_on), key=lambda p: not p.provisional
    )
    held_out = points[0].measured_on if points else "no held-out frames"
    return "\n".join(
        [
            _HEAD.format(
                name=spec.name, version=spec.version, intended=spec.intended_use, size=spec.input.size,
                architecture=training.get("architecture", "unknown"), labels=len(spec.labels),
                safe="safe on CPUs without VNNI" if spec.saturation_safe else "not safe on CPUs without VNNI",
                temperature=spec.temperature, held_out=held_out,
                where=f"Split `{data['split']}` of {data['name']}" if data["split"] else data["name"],
                frames=describe_frames(first["frames"], first["videos"]), about=notes.about_videos,
                overlap=describe_overlap(overlap, first["frames"]),
            ),
            _overall(whole, notes.floors),
            *_without_single_videos(spec, first, answers, findings),
            "\n### By class (INT8, FP32 in brackets)\n",
            _by_class(whole["INT8"], first, spec.operating_points),
            "\n### By source (INT8)\n",
            _by_source(whole["INT8"]),
            _agreement(answers["FP32"], answers["INT8"]),
            _TERMS.format(
                training=_training(spec.provenance, training), held_out=held_out,
                patients=f" {spec.unknown_patients[:1].upper()}{spec.unknown_patients[1:]}." if spec.unknown_patients
                else "",
                license=spec.license, data_license=spec.provenance.get("data_license", NOT_STATED),
            ) + notes.terms,
            _LIMITS.format(unassessed=_unassessed(spec)) + "".join(f"- {limit}\n" for limit in notes.limits),
        ]
    )  # fmt: skip


def _without_single_videos(
    spec: ModelSpec, figures: dict[str, Any], answers: Mapping[str, Predictions], findings: list[str]
) -> list[str]:
    """Return the figures without each class whose frames are all of one video."""
    names = {label.key: label.name for label in spec.labels}
    single = [key for key, row in figures["per_class"].items() if row["support"] and row["videos"] == 1]
    parts = []
    for key in single if len(figures["averaged_over"]) > 2 else []:
        parts.append(f"\n### Without {names[key]}\n\nOne video holds all its frames.\n")
        left = {name: _without(answer, key) for name, answer in answers.items()}
        parts.append(_overall({n: evaluate(a, findings=findings, resamples=0) for n, a in left.items()}))
    return parts


def _unassessed(spec: ModelSpec) -> str:
    roles = {label.role for label in spec.labels}
    if roles & {"landmark", "quality"}:
        return ""
    return "\n- No label is a landmark or a view quality: neither is assessed."


def _without(answers: Predictions, key: str) -> Predictions:
    column = answers.keys.index(key) if key in answers.keys else -1
    return answers.take(np.flatnonzero(answers.labels != column).tolist())


def _overall(
    figures: dict[str, dict[str, Any]], floors: Mapping[str, Mapping[str, float]] | None = None
) -> str:
    lines = ["| | " + " | ".join(FIGURES) + " |", "|---|" + "---|" * len(FIGURES)]
    for name, document in figures.items():
        intervals = document["confidence_intervals"] or {}
        cells = [_number(document[f]) + _interval(intervals.get(f)) for f in FIGURES]
        lines.append(f"| **{name}** | " + " | ".join(cells) + " |")
    for name, floor in (floors or {}).items():
        lines.append(f"| {name} | " + " | ".join(_number(floor.get(f)) for f in FIGURES) + " |")
    baseline = next(iter(figures.values()))["majority_baseline"]
    lines.append(
        f"| always {baseline['label']} | "
        + " | ".join(_number(baseline[figure]) for figure in FIGURES)
        + " |"
    )
    return "\n".join(lines)


def _by_class(int8: dict[str, Any], fp32: dict[str, Any], points: Any) -> str:
    lines = ["| class | frames | videos | sensitivity | specificity | precision | F1 | AUC | threshold |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for key, row in int8["per_class"].items():
        other = fp32["per_class"][key]
        cells = [
            f"{_number(row[f])} ({_number(other[f])})"
            for f in ("recall", "specificity", "precision", "f1", "auc")
        ]
        threshold = _number(points[key].threshold) if key in points else "-"
        lines.append(
            f"| {key} | {row['support']} | {row['videos']} | " + " | ".join(cells) + f" | {threshold} |"
        )
    return "\n".join(lines)


def _by_source(document: dict[str, Any]) -> str:
    lines = [
        "| source | frames | classes | " + " | ".join(FIGURES) + " |",
        "|---|---|---|" + "---|" * len(FIGURES),
    ]
    for source, row in document["per_source"].items():
        cells = " | ".join(_number(row[figure]) for figure in FIGURES)
        lines.append(f"| {source} | {row['frames']} | {len(row['support'])} | {cells} |")
    return "\n".join(lines)


def _agreement(a: Predictions, b: Predictions) -> str:
    same = float((a.predicted == b.predicted).mean())
    worst = float(np.abs(a.probabilities - b.probabilities).max())
    mean = float(np.abs(a.probabilities - b.probabilities).mean())
    return (
        f"\nFP32 and INT8 give the same label on {same:.2%} of the frames; their probabilities differ by {mean:.4f}"
        f" on average, by {worst:.3f} at most.\n"
    )


def _training(provenance: Any, training: dict[str, Any]) -> str:
    if not training:
        return "The file does not say how it was trained."
    settings = ", ".join(f"{key} {value}" for key, value in training.items())
    # Earlier versions counted one video where no frame names one.
    videos = (provenance["videos"] or 0) if "training_videos" in provenance else 0
    split = f"`{provenance['split']}`, " if provenance["split"] else ""
    rendered = provenance["phantom_frames"]
    return (
        f"{describe_frames(provenance['frames'], videos)} ({split}data SHA-256 `{provenance['data_sha256']}`)"
        f"{f' and {rendered} rendered frames' if rendered else ''}{_made(provenance)}. Settings: {settings}."
    )


def _made(provenance: Any) -> str:
    count = provenance.get("transplants")
    return f", and {count:,} with a lesion set in or taken out by the boxes around lesions" if count else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Any) -> str:
    return f" ({ends[0]:.2f}-{ends[1]:.2f})" if ends else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fp32", type=Path, help="the FP32 model file")
    parser.add_argument("int8", type=Path, help="the INT8 model file")
    parser.add_argument("--data", type=Path, required=True, help="folder with the labelled frames")
    parser.add_argument("--split", help="split to measure on; default val, or every row without it")
    parser.add_argument(
        "--notes",
        type=Path,
        help="JSON file of what the maker adds: about_videos, floors, terms, limits",
    )
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    options = parser.parse_args()
    dataset = load_dataset(options.data, split=options.split)
    notes = CardNotes.read(options.notes) if options.notes else None
    card = render_card(open_model(options.fp32), open_model(options.int8), dataset, notes)
    try:
        options.out.write_text(card, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written: {error.strerror}") from None
    print(f"wrote {options.out}")


if __name__ == "__main__":
    run_module(main)
