"""Fits the event parameters of a model on recordings that it has not seen, and says what they are worth.

    python -m capsule_edge.evaluation.recordings.event_fit MODEL --fit RESULT TRUTH --hold RESULT TRUTH --out FILE

``--fit`` and ``--hold`` may be given again. RESULT is what ``capsule-edge run`` left, or its ``frames.csv``, from a
model that has not seen that video (out of fold); MODEL gives the labels, and the thresholds from which the search
starts. ``--hold`` recordings are scored and never searched. Over a grid of ``smoothing_s, max_gap_s, min_frames,
release, merge_s`` the thresholds of all labels are chosen together so that the most findings are hit (``findings``
defines that) with at most ``--budget`` false events in 1,000 frames; among equals the fewest false events, then the
highest temporal mAP@.5, then what is nearest to the middle of the grid. A label without a finding on the ``--fit``
recordings keeps the model's threshold, and is raised only where the budget cannot be met otherwise.

``--into RUN`` puts what was fitted into the spec of a training's ``run.json``, from which ``export`` writes the model
files. OUT has ``events`` and ``operating_points`` as a ModelSpec has them, and ``measured``: on the ``--fit``
recordings, each left out in turn (fitted on the others: the figure to quote), on those held, and for frame-by-frame
thresholding fitted the same way. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, ModelError
from capsule_edge.runtime.inference import EventParameters, ModelSpec, OperatingPoint, open_model

from .._files import write_whole
from .._module import run_module
from .event_search import BUDGET, EventFit, fit_events, read_with
from .findings import score_findings
from .recording_scores import RecordingAnswers, read_answers

__all__ = ["fit_document", "fitted_spec", "put_into_run"]


def fit_document(
    spec: ModelSpec,
    fitted: Sequence[RecordingAnswers],
    held: Sequence[RecordingAnswers] = (),
    *,
    budget: float = BUDGET,
) -> dict[str, Any]:
    """What OUT holds. ``budget`` is false events in 1,000 frames. Raises ``InputError`` without a finding."""
    answers = [*fitted, *held]
    best = fit_events(spec, fitted, budget=budget)
    frames = fit_events(spec, fitted, budget=budget, frame_by_frame=True)
    measured: dict[str, Any] = {
        "fitted": _score(spec, best, fitted),
        "left_out": _left_out(spec, fitted, budget),
        "held": _score(spec, best, held) if held else None,
        "all": _score(spec, best, answers),
        "as_it_was": _score(spec, EventFit.of(spec), answers),
        "frame_by_frame": {
            "fitted": _score(spec, frames, fitted),
            "left_out": _left_out(spec, fitted, budget, frame_by_frame=True),
            "held": _score(spec, frames, held) if held else None,
            "all": _score(spec, frames, answers),
            "thresholds": dict(frames.thresholds),
        },
    }
    return {
        "events": dataclasses.asdict(best.events),
        "operating_points": {
            key: dataclasses.asdict(point) for key, point in _points(spec, best, fitted).items()
        },
        "recordings": {"fitted": [a.recording for a in fitted], "held": [a.recording for a in held]},
        "budget": budget,
        "measured": measured,
    }


def fitted_spec(spec: ModelSpec, document: Mapping[str, Any]) -> ModelSpec:
    """The ModelSpec with the ``events`` and ``operating_points`` of OUT, checked. Raises ``ModelError``."""
    changed = spec.to_dict() | {
        "events": document["events"],
        "operating_points": spec.to_dict()["operating_points"] | document["operating_points"],
    }
    return ModelSpec.from_json(json.dumps(changed))


def put_into_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Change the spec in the ``run.json`` of a training to what was fitted.

    Raises ``InputError``, ``ModelError``, and ``OutputError`` with the file as it was.
    """
    run, spec = _run_of(folder)
    run["spec"] = {
        key: value for key, value in fitted_spec(spec, document).to_dict().items() if key != "precision"
    }
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / "run.json", text, "the training's facts")


def _run_of(folder: Path) -> tuple[dict[str, Any], ModelSpec]:
    """A training's ``run.json`` and the spec in it. Raises ``InputError``."""
    path = folder / "run.json"
    try:
        run: dict[str, Any] = json.loads(path.read_text("utf-8"))
        spec = ModelSpec.from_json(json.dumps({**run["spec"], "precision": "fp32"}))
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise InputError(
            f"{path} holds no spec of a training: {error}", hint="name the folder of a run"
        ) from None
    return run, spec


def _left_out(
    spec: ModelSpec, fitted: Sequence[RecordingAnswers], budget: float, *, frame_by_frame: bool = False
) -> dict[str, Any] | None:
    """Every recording read with what was fitted on the others; None with fewer than two."""
    if len(fitted) < 2:
        return None
    readings = []
    for at, answers in enumerate(fitted):
        others = [other for i, other in enumerate(fitted) if i != at]
        fit = fit_events(spec, others, budget=budget, frame_by_frame=frame_by_frame)
        readings.append(read_with(spec, answers, fit))
    return score_findings(readings)


def _score(spec: ModelSpec, fit: EventFit, answers: Sequence[RecordingAnswers]) -> dict[str, Any]:
    return score_findings([read_with(spec, one, fit) for one in answers])


def _points(spec: ModelSpec, fit: EventFit, fitted: Sequence[RecordingAnswers]) -> dict[str, OperatingPoint]:
    """Operating points at the fitted thresholds, with what single frames of the recordings give there."""
    names = " and ".join(answers.recording for answers in fitted)
    points = {}
    for key, threshold in fit.thresholds.items():
        column = spec.keys.index(key)
        seen = positive = false = negative = 0
        for answers in fitted:
            rows = answers.answered
            there = answers.labels[rows] == key
            above = answers.probabilities[rows, column] >= threshold
            seen, positive = seen + int((above & there).sum()), positive + int(there.sum())
            false, negative = false + int((above & ~there).sum()), negative + int((~there).sum())
        if not positive and threshold == spec.operating_points[key].threshold:
            points[key] = spec.operating_points[key]
            continue
        points[key] = OperatingPoint(
            threshold,
            seen / positive if positive else None,
            1 - false / negative if negative else None,
            f"single frames of {names}, where the events were fitted",
            spec.operating_points[key].provisional if not positive else False,
        )
    return points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--fit", nargs=2, action="append", type=Path, metavar=("RESULT", "TRUTH"), required=True
    )
    parser.add_argument(
        "--hold", nargs=2, action="append", type=Path, metavar=("RESULT", "TRUTH"), default=[]
    )
    parser.add_argument(
        "--budget", type=float, default=BUDGET, help="false events in 1,000 frames, default %(default)s"
    )
    parser.add_argument("--capture-fps", type=float, help="of the recordings, where it is known")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--into", type=Path, metavar="RUN", help="training whose run.json takes the result")
    options = parser.parse_args()
    if not 0 <= options.budget < math.inf:
        parser.error(f"the budget is {options.budget}, allowed is 0 or more")
    if options.capture_fps is not None and not 0 < options.capture_fps < math.inf:
        parser.error(f"the capture rate is {options.capture_fps}, allowed is more than 0")
    if options.into is not None:
        # Before a search of minutes.
        _run_of(options.into)
    spec = open_model(options.model).spec
    fitted, held = (
        [read_answers(run, truth, spec, capture_fps=options.capture_fps) for run, truth in pairs]
        for pairs in (options.fit, options.hold)
    )
    document = fit_document(spec, fitted, held, budget=options.budget)
    fitted_spec(spec, document)
    write_whole(options.out, json.dumps(document, indent=1, allow_nan=False) + "\n", "the fit")
    if options.into is not None:
        put_into_run(options.into, document)
    rule = EventParameters(**document["events"])
    print(
        f"smoothing {rule.smoothing_s:g} s, gaps {rule.max_gap_s:g} s, at least {rule.min_frames} frames, release "
        f"{rule.release:g}, alike within {rule.merge_s:g} s"
    )
    for name, row in (
        *document["measured"].items(),
        *((f"{name}, frame by frame", row) for name, row in document["measured"]["frame_by_frame"].items()),
    ):
        if row and "hit" in row:
            print(
                f"{name:24} {row['hit']:3} of {row['findings']} findings hit, {row['seen']} seen, "
                f"{row['matched']['hits']} at IoU .5; "
                f"{row['false_events_per_1000_frames']:.2f} false events in 1,000 frames"
            )
    print(json.dumps(document, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
