"""Fit the score of suggestions on recordings that the model has not seen, and measure its precision.

    python -m capsule_edge.evaluation.recordings.suggestion_fit MODEL --fit RESULT TRUTH [--fit ...] --out FILE
    python -m capsule_edge.evaluation.recordings.suggestion_fit MODEL --folder RUNS --recordings DIR --out FILE

MODEL is a model file, or the folder of a training, whose ``run.json`` is read: run this command after ``event_fit``,
because it finds the events with MODEL's own operating points and event parameters. RESULT is the folder that
``capsule-edge run`` wrote, or its ``frames.csv``. With ``--folder`` each recording of ``DIR/index.csv`` in the split
``--split`` is taken: its result lies in ``RUNS/<stem>``, its truth in ``DIR/<stem>.truth.csv``. The model that read a
recording must not have been trained on its video (use the model of another fold).

FILE has ``suggestions`` as a ModelSpec has it: the weights of the score, the rules of grouping, and the measured
precision by score. ``measured`` has the events and cards before and after grouping, the findings that grouping loses,
and the recordings with a right suggestion among the first 1, 3, 5 and 10. These figures and the precision are
out of fold: each recording is scored with weights fitted on other videos. With ``--rules EVENTS``, the output of
``event_fit``, its events too are found with the rules that were fitted while its video was left out; without it they
flatter, since MODEL's rules were fitted on the same recordings. ``--hold`` recordings, or those of
``--hold-folder``, are scored only. Recordings name videos, not patients: a patient with two videos may be on both
sides. ``--into RUN`` writes the result into the spec in a training's ``run.json``, from which ``export`` makes the
model files, and adds the recordings to ``provenance.fitted_recordings``. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import (
    SEEN_IN_TRAINING,
    EventParameters,
    ModelSpec,
    SuggestionGrouping,
    SuggestionPrecision,
    open_model,
)

from .._files import write_text
from .._module import run_module
from .._run_records import add_fitted_recordings, read_run_spec, write_run_spec
from .recording_pairs import RecordingPair, pair_recordings
from .suggestion_scores import (
    FEWER,
    RANKS,
    ScoredRecording,
    choose_grouping,
    count_cards,
    fit_weights,
    log_loss,
    precision_table,
    rank_rows,
    read_recording,
    score_out_of_fold,
    scored_with,
)

__all__ = ["RIDGES", "RunSource", "fit_suggestions", "fitted_scores", "put_scores_into_run", "read_source"]

RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0)
UNIT = "videos, not patients"


@dataclass(frozen=True)
class RunSource:
    """The recording that a result folder is of.

    Attributes:
        sha256: SHA-256 of the recording; None without a ``study.json``.
        seen_in_training: Whether the study says that its model was trained on the video.
    """

    sha256: str | None
    seen_in_training: bool


def read_source(run: Path) -> RunSource:
    """Return the recording that a result is of, from its ``study.json``.

    Args:
        run: The result folder, or its ``frames.csv``.

    Raises:
        InputError: There is a ``study.json`` and it cannot be read.
    """
    path = (run if run.is_dir() else run.parent) / "study.json"
    if not path.exists():
        return RunSource(None, False)
    try:
        study = json.loads(path.read_text("utf-8"))
        codes = [warning["code"] for warning in study.get("warnings", [])]
        return RunSource(str(study["source"]["sha256"]), SEEN_IN_TRAINING in codes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a readable study.json: {error}") from None


def fit_suggestions(
    spec: ModelSpec,
    fitted: Sequence[ScoredRecording],
    held: Sequence[ScoredRecording] = (),
    *,
    fewer: float = FEWER,
    left_out_rules: bool = False,
) -> dict[str, Any]:
    """Fit the score, the grouping and the precision of suggestions, and measure them.

    The ridge penalty is the one of ``RIDGES`` with the lowest log loss out of fold.

    Args:
        spec: The model whose events these are.
        fitted: The recordings to fit on.
        held: Recordings that are scored only.
        fewer: Share of the cards that grouping should save (``choose_grouping``).
        left_out_rules: State that the events of each recording to fit on were found by rules fitted on the others.

    Returns:
        The JSON-ready document that the command writes, without the hashes of the recordings.

    Raises:
        InputError: There are fewer than two recordings to fit on, or no right or no false event in them.
    """
    by_ridge = {ridge: score_out_of_fold(fitted, spec, ridge=ridge) for ridge in RIDGES}
    ridge = min(RIDGES, key=lambda each: log_loss(by_ridge[each]))
    scored = by_ridge[ridge]
    grouping = choose_grouping(scored, fewer=fewer)
    weights = fit_weights(fitted, spec, ridge=ridge)
    table = precision_table(scored, grouping)
    record = SuggestionPrecision(
        table,
        sum(row.n for row in table),
        _measured_on(scored, sum(row.n for row in table), left_out_rules=left_out_rules),
        weights,
        grouping,
    )
    return {
        "suggestions": dataclasses.asdict(record),
        "recordings": {
            "fitted": [one.recording for one in fitted],
            "held": [one.recording for one in held],
            "unit": UNIT,
        },
        "ridge": ridge,
        "log_loss": {str(each): log_loss(recordings) for each, recordings in by_ridge.items()},
        "measured": {
            "out_of_fold": _figures(scored, grouping),
            "held": _figures([scored_with(one, weights) for one in held], grouping) if held else None,
        },
    }


def _measured_on(recordings: Sequence[ScoredRecording], suggestions: int, *, left_out_rules: bool) -> str:
    # This text is part of the model file and of every report.
    how = (
        "each found and scored with rules fitted on the others"
        if left_out_rules
        else "found with rules that may have been fitted on them, each scored with weights fitted on the others"
    )
    return f"{suggestions} suggestions in {len(recordings)} recordings, {how} ({UNIT})"


def _read_rules(path: Path, spec: ModelSpec) -> dict[str, ModelSpec]:
    """Return the specs with which ``event_fit`` read each recording while its video was left out, by recording.

    Raises:
        InputError: The file is no output of ``event_fit``, or it left no video out.
    """
    try:
        rows = json.loads(path.read_text("utf-8"))["left_out_rules"]
        return {
            row["recording"]: dataclasses.replace(
                spec,
                events=EventParameters(**row["events"]),
                operating_points={
                    key: dataclasses.replace(point, threshold=row["thresholds"].get(key, point.threshold))
                    for key, point in spec.operating_points.items()
                },
            )
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} has no rules of left-out videos: {error}",
            hint="name the file that event_fit wrote with --out, fitted on two videos or more",
        ) from None


def _spec_for(run: Path, rules: Mapping[str, ModelSpec] | None, spec: ModelSpec) -> ModelSpec:
    """Return the spec with which to find the events of a recording to fit on."""
    if rules is None:
        return spec
    name = (run if run.is_dir() else run.parent).name
    if name not in rules:
        raise InputError(
            f"the rules have no recording {name!r}, they have {len(rules)} others",
            hint="fit events on the same recordings",
        )
    return rules[name]


def _figures(recordings: Sequence[ScoredRecording], grouping: SuggestionGrouping) -> dict[str, Any]:
    right = sum(int(one.right.sum()) for one in recordings)
    return {
        "recordings": len(recordings),
        "findings": sum(len(one.findings) for one in recordings),
        "right_events": right,
        "cards": count_cards(recordings, grouping),
        "cards_by_default": count_cards(recordings, None),
        "right_among_first": rank_rows(recordings, grouping),
        "unit": UNIT,
    }


def fitted_scores(spec: ModelSpec, document: Mapping[str, Any]) -> ModelSpec:
    """Return a spec with the ``suggestions`` of a fit and the recordings of the fit in its provenance, validated.

    Raises:
        ModelError: The result is not a valid spec.
    """
    changed = spec.to_dict(every_key=True) | {
        "schema": "capsule-edge/model/2",
        "suggestions": document["suggestions"],
        "provenance": add_fitted_recordings(spec, document["fitted_recordings"]),
    }
    return ModelSpec.from_json(json.dumps(changed))


def put_scores_into_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the result of a fit into the spec in a training's ``run.json``.

    Raises:
        InputError: The folder holds no ``run.json`` with a spec.
        ModelError: The fitted spec is not valid.
        OutputError: The file cannot be written; it is unchanged.
    """
    _, spec = read_run_spec(folder)
    write_run_spec(folder, fitted_scores(spec, document))


def _read_spec(model: Path) -> ModelSpec:
    """Return the spec of a model file, or of the training in a folder."""
    return read_run_spec(model)[1] if model.is_dir() else open_model(model).spec


def main() -> None:
    options = _parse_arguments()
    if options.into is not None:
        # Check the folder before the fit.
        read_run_spec(options.into)
    spec = _read_spec(options.model)
    fit = _pairs(options.fit, options.folder, options.recordings, options.split)
    hold = _pairs(options.hold, options.hold_folder, options.recordings, options.hold_split)
    sources = [read_source(pair.run) for pair in fit]
    for pair, source in zip(fit, sources, strict=True):
        if source.seen_in_training:
            print(
                f"warning: the model of {pair.run} was trained on this video: the scores will be too high",
                file=sys.stderr,
            )
    rules = None if options.rules is None else _read_rules(options.rules, spec)
    fitted, held = (
        [
            read_recording(
                pair.run,
                pair.truth,
                _spec_for(pair.run, known, spec),
                capture_fps=options.capture_fps,
                video=pair.video,
            )
            for pair in pairs
        ]
        for pairs, known in ((fit, rules), (hold, None))
    )
    document = fit_suggestions(spec, fitted, held, fewer=options.fewer, left_out_rules=rules is not None)
    document["fitted_recordings"] = sorted({source.sha256 for source in sources if source.sha256})
    document["seen_in_training"] = [
        one.recording for one, source in zip(fitted, sources, strict=True) if source.seen_in_training
    ]
    fitted_scores(spec, document)
    write_text(options.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if options.into is not None:
        put_scores_into_run(options.into, document)
    _print_fit(document)
    print(json.dumps(document, allow_nan=False))


def _pairs(
    named: Sequence[tuple[Path, Path]], runs: Path | None, recordings: Path | None, split: str
) -> list[RecordingPair]:
    """Return the recordings that are named one by one, then those of a folder."""
    pairs = [RecordingPair(run, truth) for run, truth in named]
    return pairs if runs is None or recordings is None else pairs + pair_recordings(runs, recordings, split)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair: dict[str, Any] = {
        "nargs": 2,
        "action": "append",
        "type": Path,
        "metavar": ("RESULT", "TRUTH"),
        "default": [],
    }
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file, or folder of a training")
    parser.add_argument("--fit", help="recording to fit on; repeatable", **pair)
    parser.add_argument("--hold", help="recording to score only; repeatable", **pair)
    parser.add_argument("--folder", type=Path, metavar="RUNS", help="results to fit on, RUNS/<stem>")
    parser.add_argument(
        "--recordings", type=Path, metavar="DIR", help="folder with index.csv and truth tables"
    )
    parser.add_argument(
        "--rules",
        type=Path,
        metavar="EVENTS",
        help="output of event_fit: find the events of each recording to fit on with the rules of the other videos",
    )
    parser.add_argument("--split", default="train", help="split to fit on, default %(default)s")
    parser.add_argument("--hold-folder", type=Path, metavar="RUNS", help="results to score only, RUNS/<stem>")
    parser.add_argument("--hold-split", default="val", help="split to score only, default %(default)s")
    parser.add_argument(
        "--fewer",
        type=float,
        default=FEWER,
        help="share of the cards that grouping should save, default %(default)s; 0: never lose a finding for it",
    )
    parser.add_argument("--capture-fps", type=float, help="frames a second at which the capsules recorded")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="JSON file to write")
    parser.add_argument("--into", type=Path, metavar="RUN", help="training whose run.json takes the result")
    options = parser.parse_args()
    if not options.fit and options.folder is None:
        parser.error("nothing to fit on: give --fit RESULT TRUTH, or --folder RUNS with --recordings DIR")
    if (options.folder or options.hold_folder) and options.recordings is None:
        parser.error(
            "--folder and --hold-folder need --recordings DIR, which has index.csv and the truth tables"
        )
    if options.capture_fps is not None and not 0 < options.capture_fps < math.inf:
        parser.error(f"the capture rate is {options.capture_fps}, allowed is more than 0")
    if not 0 <= options.fewer <= 1:
        parser.error(f"the share of cards to save is {options.fewer}, allowed is 0 to 1")
    return options


def _print_fit(document: Mapping[str, Any]) -> None:
    record = document["suggestions"]
    print(f"precision by score ({record['measured_on']}):")
    for row in record["precision"]:
        print(
            f"  from {row['score']:.2f}: {row['estimate']:4.0%} right ({row['low']:.0%} to {row['high']:.0%}), "
            f"n = {row['n']}"
        )
    rule = SuggestionGrouping(**record["grouping"])
    print(
        f"grouping: overlap {rule.overlap:g}, similar within {rule.within_s:g} s at a distance of {rule.distance:g}; "
        f"ridge {document['ridge']:g}"
    )
    for name, figures in document["measured"].items():
        if figures:
            _print_figures(name.replace("_", " "), figures)


def _print_figures(name: str, figures: Mapping[str, Any]) -> None:
    cards = figures["cards"]
    fewer = "" if cards["fewer"] is None else f", {cards['fewer']:.0%} fewer"
    print(
        f"{name} ({figures['recordings']} recordings, {UNIT}): {cards['events']} events become "
        f"{cards['suggestions']} suggestions{fewer}; of {figures['findings']} findings {cards['hit_by_events']} are "
        f"hit by an event, {cards['hit_by_suggestions']} by a suggestion, {cards['lost']} only named as an alternative"
    )
    table = figures["right_among_first"]
    print("  recordings with a right one among the first " + ", ".join(map(str, RANKS)) + ":")
    for order in ("suggestions", "events_by_score", "events_by_peak"):
        counts = ", ".join(str(table[order][str(first)]) for first in RANKS)
        print(
            f"    {order.replace('_', ' '):16} {counts} of {table['recordings'][str(RANKS[0])]} with a finding"
        )


if __name__ == "__main__":
    run_module(main)
