"""Fit the event parameters of a model on recordings that it has not seen, and measure the result.

    python -m capsule_edge.evaluation.recordings.event_fit MODEL --folder RUNS --recordings DIR --out FILE
    python -m capsule_edge.evaluation.recordings.event_fit MODEL --fit RESULT TRUTH --hold RESULT TRUTH --out FILE

RESULT is the folder that ``capsule-edge run`` wrote, or its ``frames.csv``. ``--fit`` and ``--hold`` are repeatable.
``--folder`` fits on the recordings of DIR (those of ``--split``, if its ``index.csv`` names splits): the result of
``DIR/exam.mp4`` lies in ``RUNS/exam``, its truth in ``DIR/exam.truth.csv``. ``--hold-split`` holds those of another
split. The model that read a recording must not have been trained on its video (use the model of another fold);
``--out-of-fold`` states that, and the operating points will say so. MODEL, a model file or the folder of a training,
gives the labels and the thresholds from which the search starts. Held recordings are scored and never searched.

The search covers a grid of ``smoothing_s, max_gap_s, min_frames, release, merge_s`` and of one threshold for each
label. It looks for the most findings hit (``findings`` defines that) with at most ``--budget`` false events in 1,000
frames; ``event_search`` says how it avoids lucky points. A label without a finding in the fitted recordings is not
judged. It keeps the model's threshold, which is raised only if the budget cannot be met otherwise.

FILE has ``events`` and ``operating_points`` as a ModelSpec has them, ``not_judged``, and ``measured``: the scores on
the fitted recordings; with each video left out in turn and fitted on the others (quote this figure); on the held
recordings; and for thresholds applied frame by frame, fitted the same way. ``curve`` has the left-out figures for each
of ``--budgets`` (``event_curve``), ``per_recording`` the counts of each recording. The data name videos, not patients:
what is left out is a video, and intervals are over videos. ``--plot FILE`` draws the curve. ``--into RUN`` writes the
fitted values into the spec of a training's ``run.json``, from which ``export`` makes the model files, and adds the
recordings of the fit to ``provenance.fitted_recordings`` (SHA-256). The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import ModelSpec, OperatingPoint, open_model

from .._files import write_text
from .._module import run_module
from .._run_records import add_fitted_recordings, read_run_spec, write_run_spec
from .event_curve import (
    BUDGETS,
    UNIT,
    LeftOut,
    count_recording,
    event_curve,
    frame_budgets,
    why_not_left_out,
)
from .event_curve_report import check_plot, render_fit, write_plot
from .event_search import BUDGET, EventFit, EventSearch, read_with
from .findings import score_findings
from .recording_pairs import RecordingPair, hash_of_recordings, pair_recordings, seen_in_training
from .recording_scores import RecordingAnswers, read_answers

__all__ = ["fit_document", "fitted_spec", "put_into_run"]


def fit_document(
    spec: ModelSpec,
    fitted: Sequence[RecordingAnswers],
    held: Sequence[RecordingAnswers] = (),
    *,
    budget: float = BUDGET,
    budgets: Sequence[float] = BUDGETS,
    out_of_fold: bool = False,
) -> dict[str, Any]:
    """Fit event parameters and measure them.

    Args:
        spec: The model, with the thresholds from which the search starts.
        fitted: The recordings to fit on, at least one.
        held: Recordings that are scored only.
        budget: The largest number of false events in 1,000 frames.
        budgets: The budgets of the curve; ``budget`` is one of them in any case.
        out_of_fold: State that each recording was read by a model that had not seen its video.

    Returns:
        The JSON-ready document that the command writes.

    Raises:
        InputError: The recordings to fit on have no finding.
    """
    wanted = (budget, *budgets)
    events = _Fit.of(spec, fitted, budget, wanted)
    frames = _Fit.of(spec, fitted, budget, frame_budgets(wanted), frame_by_frame=True)
    points = _points(spec, events.best, fitted, out_of_fold=out_of_fold)
    return {
        "events": dataclasses.asdict(events.best.events),
        "operating_points": {key: dataclasses.asdict(point) for key, point in points.items()},
        "not_judged": events.not_judged,
        "unit": UNIT,
        "out_of_fold": out_of_fold,
        "recordings": {"fitted": [a.recording for a in fitted], "held": [a.recording for a in held]},
        "budget": budget,
        "measured": {
            **events.measure(spec, fitted, held),
            "as_it_was": _score(spec, EventFit.of(spec), [*fitted, *held]),
            "frame_by_frame": {
                **frames.measure(spec, fitted, held),
                "thresholds": dict(frames.best.thresholds),
            },
        },
        "per_recording": {
            "left_out": events.left_out and events.left_out.count(budget),
            "held": [count_recording(one, read_with(spec, one, events.best)) for one in held],
        },
        "left_out_rules": events.left_out.rules(budget) if events.left_out else None,
        "curve": event_curve(spec, events.left_out, frames.left_out)
        if events.left_out and frames.left_out
        else None,
        "why_no_curve": events.why_not_left_out,
    }


@dataclasses.dataclass(frozen=True)
class _Fit:
    """The fit on all recordings within one budget, and the fits with each video left out.

    Attributes:
        best: The fit on all recordings.
        budget: The budget, in false events in 1,000 frames.
        left_out: The left-out fits and readings; None where no video can be left out.
        why_not_left_out: The reason for that in one line.
        not_judged: The labels without a finding in the recordings.
    """

    best: EventFit
    budget: float
    left_out: LeftOut | None
    why_not_left_out: str | None
    not_judged: list[str]

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        recordings: Sequence[RecordingAnswers],
        budget: float,
        budgets: Sequence[float],
        *,
        frame_by_frame: bool = False,
    ) -> _Fit:
        """Fit on all recordings, and with each video left out for each of the budgets (``budget`` among them)."""
        search = EventSearch.of(spec, recordings, frame_by_frame=frame_by_frame)
        best = search.fits([budget])[0]
        why = why_not_left_out(search, recordings)
        left_out = None if why else LeftOut.of(spec, search, recordings, budgets)
        return cls(best, budget, left_out, why, search.not_judged)

    def measure(
        self, spec: ModelSpec, fitted: Sequence[RecordingAnswers], held: Sequence[RecordingAnswers]
    ) -> dict[str, Any]:
        """Score the fit on the fitted, the held and all recordings, and the readings with a video left out."""
        return {
            "fitted": _score(spec, self.best, fitted),
            "left_out": None if self.left_out is None else score_findings(self.left_out.at(self.budget)),
            "held": _score(spec, self.best, held) if held else None,
            "all": _score(spec, self.best, [*fitted, *held]),
        }


def fitted_spec(spec: ModelSpec, document: Mapping[str, Any]) -> ModelSpec:
    """Return a spec with the ``events`` and ``operating_points`` of a fit and its recordings, validated.

    Raises:
        ModelError: The result is not a valid spec.
    """
    changed = spec.to_dict() | {
        "provenance": add_fitted_recordings(spec, document.get("fitted_recordings", ())),
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
    _, spec = read_run_spec(folder)
    write_run_spec(folder, fitted_spec(spec, document))


def _score(spec: ModelSpec, fit: EventFit, answers: Sequence[RecordingAnswers]) -> dict[str, Any]:
    return score_findings([read_with(spec, one, fit) for one in answers])


def _points(
    spec: ModelSpec, fit: EventFit, fitted: Sequence[RecordingAnswers], *, out_of_fold: bool
) -> dict[str, OperatingPoint]:
    """Return operating points at the fitted thresholds, with sensitivity and specificity of single frames there."""
    measured_on = _measured_on([answers.recording for answers in fitted], out_of_fold=out_of_fold)
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
            measured_on,
            spec.operating_points[key].provisional if not positive else False,
        )
    return points


def _measured_on(names: Sequence[str], *, out_of_fold: bool) -> str:
    """Return the data behind the operating points in words; few recordings are named, many are counted."""
    which = " and ".join(names) if len(names) <= 2 else f"{len(names)} recordings"
    unseen = ", each read by a model that had not seen its video" if out_of_fold else ""
    return f"single frames of {which}{unseen}, where the events were fitted"


def main() -> None:
    options = _parse_arguments()
    # Check everything that can be wrong before a search of minutes.
    if options.into is not None:
        read_run_spec(options.into)
    if options.plot is not None:
        check_plot(options.plot)
    spec, sha256 = _read_model(options.model)
    fit, hold = _pairs(options)
    seen = seen_in_training([*fit, *hold], spec, sha256)
    _warn_of_training(seen, stated=options.out_of_fold)
    fitted, held = (
        [
            read_answers(pair.run, pair.truth, spec, capture_fps=options.capture_fps, video=pair.video)
            for pair in pairs
        ]
        for pairs in (fit, hold)
    )
    document = fit_document(
        spec,
        fitted,
        held,
        budget=options.budget,
        budgets=options.budgets,
        out_of_fold=options.out_of_fold,
    )
    hashes = hash_of_recordings(fit)
    if again := len(set(hashes).intersection(spec.provenance.get("fitted_recordings", ()))):
        print(
            f"warning: MODEL's thresholds were fitted on {again} of these recordings before. A class whose findings "
            "are all in the video that is left out keeps such a threshold, so the left-out figures flatter",
            file=sys.stderr,
        )
    document |= {"fitted_recordings": hashes, "seen_in_training": seen}
    fitted_spec(spec, document)
    write_text(options.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if options.plot is not None and document["curve"] is not None:
        write_plot(document, options.plot)
    if options.into is not None:
        put_into_run(options.into, document)
    if document["why_no_curve"]:
        print(f"warning: no curve: {document['why_no_curve']}", file=sys.stderr)
    print(render_fit(document))
    print(json.dumps(document, allow_nan=False))


def _read_model(model: Path) -> tuple[ModelSpec, str | None]:
    """Return the spec and the SHA-256 of a model file; a training in a folder has no SHA-256."""
    if model.is_dir():
        return read_run_spec(model)[1], None
    opened = open_model(model)
    return opened.spec, opened.sha256


def _pairs(options: argparse.Namespace) -> tuple[list[RecordingPair], list[RecordingPair]]:
    """Return the recordings to fit on and those to hold."""
    fit = [RecordingPair(*pair) for pair in options.fit]
    hold = [RecordingPair(*pair) for pair in options.hold]
    if options.folder is not None:
        fit += pair_recordings(options.folder, options.recordings, options.split)
        if options.hold_split is not None:
            runs = options.hold_folder or options.folder
            hold += pair_recordings(runs, options.recordings, options.hold_split)
    both = {pair.truth.resolve() for pair in fit} & {pair.truth.resolve() for pair in hold}
    if both:
        raise UsageError(
            f"{sorted(both)[0]} is both fitted and held",
            hint="leave it out of one of the two, or choose another --hold-split",
        )
    return fit, hold


def _warn_of_training(names: Sequence[str], *, stated: bool) -> None:
    """Warn of recordings that MODEL has read and was trained on; refuse them if the user stated the opposite."""
    if not names:
        return
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    text = f"the model that read {shown} was trained on the same video"
    if stated:
        raise InputError(
            f"{text}, but --out-of-fold was given", hint="use the results of the model of another fold"
        )
    print(f"warning: {text}: the figures say nothing about other recordings", file=sys.stderr)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_recordings(parser)
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        help="largest number of false events in 1,000 frames, default %(default)s",
    )
    shown = " ".join(f"{budget:g}" for budget in BUDGETS)
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=BUDGETS, help=f"budgets of the curve, default {shown}"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="JSON file to write")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG or SVG file for the curve")
    parser.add_argument("--into", type=Path, metavar="RUN", help="training whose run.json takes the result")
    options = parser.parse_args()
    for budget in (options.budget, *options.budgets):
        if not 0 <= budget < math.inf:
            parser.error(f"a budget is {budget}, allowed is 0 or more")
    if options.capture_fps is not None and not 0 < options.capture_fps < math.inf:
        parser.error(f"the capture rate is {options.capture_fps}, allowed is more than 0")
    if (options.folder is None) != (options.recordings is None):
        parser.error("--folder and --recordings belong together, only one of them was given")
    if not options.fit and options.folder is None:
        parser.error("no recording to fit on was given: use --folder with --recordings, or --fit")
    return options


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what was read."""
    pair: dict[str, Any] = {
        "nargs": 2,
        "action": "append",
        "default": [],
        "type": Path,
        "metavar": ("RESULT", "TRUTH"),
    }
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file, or folder of a training")
    parser.add_argument("--fit", help="recording to fit on; repeatable", **pair)
    parser.add_argument("--hold", help="recording to score only; repeatable", **pair)
    parser.add_argument("--folder", type=Path, metavar="RUNS", help="folder with a result for each recording")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="folder of the recordings and truths")
    parser.add_argument("--split", help="split of DIR to fit on, default train, or all if there is no split")
    parser.add_argument("--hold-split", metavar="SPLIT", help="split of DIR to score only")
    parser.add_argument(
        "--hold-folder", type=Path, metavar="RUNS", help="results of that split, default the --folder"
    )
    parser.add_argument(
        "--out-of-fold",
        action="store_true",
        help="state that each recording was read by a model that had not seen its video",
    )
    parser.add_argument("--capture-fps", type=float, help="frames a second at which the capsules recorded")


if __name__ == "__main__":
    run_module(main)
