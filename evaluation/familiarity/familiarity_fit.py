"""Fit the rule that sets unfamiliar frames aside, and show what it catches.

    python -m capsule_edge.evaluation.familiarity.familiarity_fit MODEL --data DIR --out FILE [--into RUN]

The rule measures the colours and the texture of a frame as the model gets it. MODEL gives the labels and the
preprocessing; its weights play no part. The frames are those of ``--split`` in the data set DIR, by default ``train``.
The threshold is the smallest that sets aside at most ``--most`` of the frames of every finding, each frame measured by
a fit without its video. Frames of ``val`` are for a later check and must not be used here.

FILE has ``familiarity`` as a ModelSpec has it, and ``measured``: the frames set aside by class, and the share set aside
by disturbance, on ``--frames`` frames. With ``--compare FOLD_MODEL`` (repeatable) it has the same tables for two
measures of the model's answers; each frame is answered by a model that has not seen its video. With ``--tell SPLIT``
it has the frames of another split that the chosen rule sets aside. ``--into RUN`` writes the rule into the spec of a
training's ``run.json``. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import FamiliarityRule, ModelSpec, find_model, open_model
from capsule_edge.runtime.preprocessing import AppearanceDistance, describe_appearance, preprocess

from .._files import write_text
from .._module import run_module
from .._run_records import put_records, read_run_spec, with_records
from ..datasets import Dataset, folds, load_dataset, read_frame
from .answer_measures import FoldModels, compare_measures
from .appearance_fit import MOST, FoldRows, count_by_class, fit_rule
from .disturbances import DISTURBANCES

__all__ = ["describe_frames", "fit_document", "tell_frames"]

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

_FOLDS = 5
_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class DescribedFrames:
    """The statistics of a data set's frames.

    Attributes:
        labels: The label key of each frame.
        statistics: float64 (N, statistics).
        drawn: Some of the frames as model input, by row.
        answers: Logits and spatial means of ``features``, float64 (N, 2 * labels); None without models.
        numbers: The number of the model that answered each frame; empty without models.
    """

    labels: list[str]
    statistics: Floats
    drawn: dict[int, Pixels]
    answers: Floats | None
    numbers: list[int]


def describe_frames(
    dataset: Dataset, spec: ModelSpec, *, draw: int, models: FoldModels | None = None, seed: int = 0
) -> DescribedFrames:
    """Read the frames of a data set and describe each.

    Args:
        dataset: The labelled frames.
        spec: Its input is the preprocessing.
        draw: Number of frames to keep, drawn at random.
        models: Models to answer the frames.
        seed: Of the drawing.

    Raises:
        InputError: A frame cannot be read.
    """
    samples = dataset.samples
    drawn_rows = set(np.random.default_rng(seed).permutation(len(samples))[:draw].tolist())
    statistics, answers, numbers = [], [], []
    drawn: dict[int, Pixels] = {}
    for at in range(0, len(samples), _CHUNK):
        chunk = samples[at : at + _CHUNK]
        pixels = np.stack([preprocess(read_frame(sample), spec.input) for sample in chunk])
        statistics.append(describe_appearance(pixels))
        # Copies: a view would keep all frames of the chunk.
        drawn.update({at + row: pixels[row].copy() for row in range(len(chunk)) if at + row in drawn_rows})
        if models is not None:
            numbers += [models.choose(sample.video_id) for sample in chunk]
            answers.append(models.answer(pixels, numbers[at:]))
    return DescribedFrames(
        [sample.label for sample in samples],
        np.concatenate(statistics),
        drawn,
        np.concatenate(answers) if answers else None,
        numbers,
    )


def fit_document(
    dataset: Dataset, spec: ModelSpec, *, draw: int, most: float = MOST, models: FoldModels | None = None
) -> dict[str, Any]:
    """Fit the rule and return the JSON-ready document that the command writes.

    Args:
        dataset: The labelled frames.
        spec: The model.
        draw: Number of frames on which the disturbances are measured.
        most: The largest share of the frames of a finding that may be set aside.
        models: Models to compare measures of their answers with.

    Raises:
        InputError: A frame cannot be read, or there are too few frames or videos.
    """
    frames = describe_frames(dataset, spec, draw=draw, models=models)
    fold_rows = folds(dataset, _FOLDS)
    findings = [spec.keys[column] for column in spec.index_of("finding")]
    fit = fit_rule(frames.statistics, frames.labels, findings, fold_rows, most=most, drawn=frames.drawn)
    return {
        "familiarity": dataclasses.asdict(fit.rule),
        "data": {"name": dataset.root.name, "split": dataset.split, "frames": len(frames.labels)},
        "most": most,
        "drawn": len(frames.drawn),
        "measured": fit.to_dict(),
        "compared": _compare(frames, findings, fold_rows, models, most),
    }


def tell_frames(dataset: Dataset, spec: ModelSpec, rule: FamiliarityRule | None) -> dict[str, Any]:
    """Return the frames of a data set that a rule sets aside, by label key.

    Args:
        dataset: The labelled frames.
        spec: Its input is the preprocessing.
        rule: The rule.

    Raises:
        InputError: A frame cannot be read.
        UsageError: There is no rule.
    """
    if rule is None:
        raise UsageError("there is no rule that sets frames aside")
    frames = describe_frames(dataset, spec, draw=0)
    beyond = AppearanceDistance(rule).of_statistics(frames.statistics) > rule.threshold
    return {"split": dataset.split, "classes": count_by_class(frames.labels, beyond)}


def _compare(
    frames: DescribedFrames,
    findings: Sequence[str],
    fold_rows: FoldRows,
    models: FoldModels | None,
    most: float,
) -> dict[str, Any] | None:
    """Return the tables of ``compare_measures``, and the number of frames whose video every model has seen."""
    if models is None or frames.answers is None:
        return None
    drawn = np.stack(list(frames.drawn.values()))
    numbers = [frames.numbers[row] for row in frames.drawn]
    disturbed = {each.name: models.answer(each.apply(drawn), numbers) for each in DISTURBANCES}
    tables = compare_measures(frames.answers, frames.labels, findings, fold_rows, disturbed, most=most)
    return {"seen_by_every_model": models.seen, **tables}


def main() -> None:
    options = _parse_arguments()
    spec = open_model(find_model(options.model)).spec
    if options.into is not None:
        _check_run(options.into, spec)
    models = None
    if options.compare:
        models = FoldModels([open_model(path) for path in options.compare], spec)
    dataset = load_dataset(options.data, split=options.split)
    document = fit_document(dataset, spec, draw=options.frames, most=options.most, models=models)
    if options.tell is not None:
        told = load_dataset(options.data, split=options.tell)
        rule = with_records(spec, {"familiarity": document["familiarity"]}).familiarity
        document["told"] = tell_frames(told, spec, rule)
    write_text(options.out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if options.into is not None:
        put_records(options.into, {"familiarity": document["familiarity"]})
    _print_tables(document)
    print(json.dumps(document, allow_nan=False))


def _check_run(folder: Path, spec: ModelSpec) -> None:
    """Raise ``InputError`` unless the training has the input of the model: the rule holds for no other."""
    _, own = read_run_spec(folder)
    if own.input != spec.input:
        raise InputError(
            f"the input of {folder} is {own.input}, that of the model is {spec.input}",
            hint="name a model that was exported from this training",
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="model file with the labels and the preprocessing")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set to fit on")
    parser.add_argument("--split", default="train", help="split of the data set, default %(default)s")
    parser.add_argument(
        "--most",
        type=float,
        default=MOST,
        help="largest share of the frames of a finding that may be set aside, default %(default)s",
    )
    parser.add_argument(
        "--frames", type=int, default=200, help="frames to draw each disturbance on, default %(default)s"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        action="append",
        default=[],
        metavar="FOLD_MODEL",
        help="model whose answers are measured too; repeatable",
    )
    parser.add_argument("--tell", metavar="SPLIT", help="split on which the chosen rule is only measured")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="JSON file to write")
    parser.add_argument("--into", type=Path, metavar="RUN", help="training whose run.json takes the rule")
    options = parser.parse_args()
    if not 0 <= options.most < 1:
        parser.error(f"the largest share is {options.most}, allowed is 0 up to 1, without 1")
    if options.frames < 1:
        parser.error(f"the number of frames is {options.frames}, allowed is 1 or more")
    return options


def _print_tables(document: Mapping[str, Any]) -> None:
    print(f"threshold {document['familiarity']['threshold']:.3f}")
    told = document.get("told")
    for title, table in (("", document["measured"]), (f"{told['split']} " if told else "", told or {})):
        for key, row in table.get("classes", {}).items():
            counts = f"{row['set_aside']:5} of {row['frames']:5} frames set aside ({row['share']:.1%})"
            print(f"{title + key:28} {counts}")
    compared = document["compared"] or {}
    for name, row in document["measured"]["disturbances"].items():
        others = "".join(
            f"   {measure} {table['disturbances'][name]:4.0%}"
            for measure, table in compared.items()
            if measure != "seen_by_every_model"
        )
        print(f"{row['expected']:6} {name:21} {row['set_aside']:4.0%} set aside{others}")
    if compared.get("seen_by_every_model"):
        count = compared["seen_by_every_model"]
        print(f"warning: every model has seen the videos of {count} frames it answered", file=sys.stderr)


if __name__ == "__main__":
    run_module(main)
