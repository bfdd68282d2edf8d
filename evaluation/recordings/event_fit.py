"""Fit the event parameters of a model on recordings that it has not seen, and measure the result.

    python -m capsule_edge.evaluation.recordings.event_fit MODEL --fit RESULT TRUTH --hold RESULT TRUTH --out FILE

``--fit`` and ``--hold`` are repeatable. RESULT is the folder that ``capsule-edge run`` wrote, or its ``frames.csv``.
The model that read the recording must not have been trained on its video (use the model of another fold). MODEL gives
the labels, and the thresholds from which the search starts. ``--hold`` recordings are scored and never searched.

The search covers a grid of ``smoothing_s, max_gap_s, min_frames, release, merge_s``. For each point of the grid it
chooses the thresholds of all labels together, so that the most findings are hit (``findings`` defines that) with at
most ``--budget`` false events in 1,000 frames. Among equal points it prefers, in this order, fewer false events, a
higher temporal mAP@.5, and the point nearest to the middle of the grid. A label without a finding in the ``--fit``
recordings keeps the model's threshold. It is raised only if the budget cannot be met otherwise.

FILE has ``events`` and ``operating_points`` as a ModelSpec has them, and ``measured``: the scores on the ``--fit``
recordings; with each of them left out in turn and fitted on the others (quote this figure); on the ``--hold``
recordings; and for frame-by-frame thresholds fitted the same way. ``--into RUN`` writes the fitted values into the spec
of a training's ``run.json``, from which ``export`` makes the model files. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError, ModelError
from capsule_edge.runtime.inference import EventParameters, ModelSpec, OperatingPoint, open_model

from .._files import write_text
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
    """Fit event parameters and measure them.

    Args:
        spec: The model, with the thresholds from which the search starts.
        fitted: The recordings to fit on.
        held: Recordings that are scored only.
        budget: The largest number of false events in 1,000 frames.

    Returns:
        The JSON-ready document that the command writes.

    Raises:
        InputError: The recordings to fit on have no finding.
    """
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
    """Return a spec with the ``events`` and ``operating_points`` of a fit, validated.

    Raises:
        ModelError: The result is not a valid spec.
    """
    changed = spec.to_dict() | {
        "events": document["events"],
        "operating_points": spec.to_dict()["operating_points"] | document["operating_points"],
    }
    return ModelSpec.from_json(json.dumps(changed))


def put_into_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the result of a fit into the spec in a training's ``run.json``.

    Raises:
        InputError: The folder holds no ``run.json`` with a spec.
        ModelError: The fitted spec is not valid.
        OutputError: The file cannot be written; it is unchanged.
    """
    run, spec = _read_run(folder)
    run["spec"] = {
        key: value for key, value in fitted_spec(spec, document).to_dict().items() if key != "precision"
    }
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / "run.json", text)


def _read_run(folder: Path) -> tuple[dict[str, Any], ModelSpec]:
    """Return a training's ``run.json`` and the spec in it. Raise ``InputError`` if there is none."""
    path = folder / "run.json"
    try:
        run: dict[str, Any] = json.loads(path.read_text("utf-8"))
        spec = ModelSpec.from_json(json.dumps({**run["spec"], "precision": "fp32"}))
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise InputError(
            f"{path} has no spec of a training: {error}",
            hint="name the folder that 'capsule-edge train' wrote",
        ) from None
    return run, spec


def _left_out(
    spec: ModelSpec, fitted: Sequence[RecordingAnswers], budget: float, *, frame_by_frame: bool = False
) -> dict[str, Any] | None:
    """Score each recording with parameters fitted on the others; None with fewer than two recordings."""
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
    """Return operating points at the fitted thresholds, with sensitivity and specificity of single frames there."""
    names = " and ".join(answers.recording for answers in fitted)
    points = {}
    for key, threshold in fit.thresholds.items():
        rows = [answers.answered for answers in fitted]
        column = spec.keys.index(key)
        is_label = np.concatenate([a.labels[at] == key for a, at in zip(fitted, rows, strict=True)])
        above = np.concatenate(
            [a.probabilities[at, column] >= threshold for a, at in zip(fitted, rows, strict=True)]
        )
        positive, negative = int(is_label.sum()), int((~is_label).sum())
        if not positive and threshold == spec.operating_points[key].threshold:
            points[key] = spec.operating_points[key]
            continue
        points[key] = OperatingPoint(
            threshold,
            int((above & is_label).sum()) / positive if positive else None,
            1 - int((above & ~is_label).sum()) / negative if negative else None,
            f"single frames of {names}, where the events were fitted",
            spec.operating_points[key].provisional if not positive else False,
        )
    return points


def main() -> None:
    options = _parse_arguments()
    if options.into is not None:
        # Check the folder before a search of minutes.
        _read_run(options.into)
    spec = open_model(options.model).spec
    fitted, held = (
        [read_answers(run, truth, spec, capture_fps=options.capture_fps) for run, truth in pairs]
        for pairs in (options.fit, options.hold)
    )
    document = fit_document(spec, fitted, held, budget=options.budget)
    fitted_spec(spec, document)
    write_text(options.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if options.into is not None:
        put_into_run(options.into, document)
    _print_fit(document)
    print(json.dumps(document, allow_nan=False))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair: dict[str, Any] = {"nargs": 2, "action": "append", "type": Path, "metavar": ("RESULT", "TRUTH")}
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file with the labels and thresholds")
    parser.add_argument("--fit", required=True, help="recording to fit on; repeatable", **pair)
    parser.add_argument("--hold", default=[], help="recording to score only; repeatable", **pair)
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        help="largest number of false events in 1,000 frames, default %(default)s",
    )
    parser.add_argument("--capture-fps", type=float, help="frames a second at which the capsules recorded")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="JSON file to write")
    parser.add_argument("--into", type=Path, metavar="RUN", help="training whose run.json takes the result")
    options = parser.parse_args()
    if not 0 <= options.budget < math.inf:
        parser.error(f"the budget is {options.budget}, allowed is 0 or more")
    if options.capture_fps is not None and not 0 < options.capture_fps < math.inf:
        parser.error(f"the capture rate is {options.capture_fps}, allowed is more than 0")
    return options


def _print_fit(document: Mapping[str, Any]) -> None:
    rule = EventParameters(**document["events"])
    print(
        f"smoothing {rule.smoothing_s:g} s, gaps {rule.max_gap_s:g} s, at least {rule.min_frames} frames, release "
        f"{rule.release:g}, merge equal events within {rule.merge_s:g} s"
    )
    measured = document["measured"]
    by_frame = {f"{name}, frame by frame": row for name, row in measured["frame_by_frame"].items()}
    for name, row in {**measured, **by_frame}.items():
        if row and "hit" in row:
            print(
                f"{name:24} {row['hit']:3} of {row['findings']} findings hit, {row['seen']} seen, "
                f"{row['matched']['hits']} at IoU .5; "
                f"{row['false_events_per_1000_frames']:.2f} false events in 1,000 frames"
            )


if __name__ == "__main__":
    run_module(main)
