"""Whether a small model may pass clearly normal frames, so that the standard model sees only the rest.

    python -m capsule_edge.evaluation.cascade SMALL STANDARD --data DIR [--out-of-fold SMALL.npz STANDARD.npz]

A frame passes where the small model's probability of ``normal`` is at or above a threshold; it is then never shown to
the standard model. What that costs is counted where it hurts: of the frames that show a finding and that the standard
model alone marks (its most probable label is not normal), the share that passes, for each video; the loss of a video,
0 to 1. The threshold is the lowest for which conformal risk control bounds the expected loss of a further video
(Angelopoulos et al., ICLR 2024, theorem 1): n / (n + 1) x mean loss + 1 / (n + 1) <= risk. The videos are the unit, so
n is their number, and no risk below 1 / (n + 1) can be certified, whatever the frames say. Everything that is counted
over frames, and everything on the videos that a threshold was chosen on, is an estimate.

``--data`` is answered by both files, which must not have been trained on it; ``--out-of-fold`` takes what
``train.folds`` kept of two recipes (their common folds). Prints a table for each and last one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.backends import open_model
from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.spec import ModelSpec

from ._module import run_module
from .datasets import load_dataset
from .predict import Predictions, predict

__all__ = ["Frames", "Times", "assess", "certify_threshold", "pair_answers", "pair_out_of_fold"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RISKS = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Frames:
    """N frames that both models have answered and neither has seen.

    ``margin`` is the small model's log odds of normal, ``marked`` where the standard model's most probable label is
    not normal, ``abnormal`` where the frame shows a finding, ``videos`` the video of each.
    """

    margin: Floats
    marked: Bools
    abnormal: Bools
    videos: npt.NDArray[np.str_]

    @property
    def at_stake(self) -> Bools:
        """Findings that the standard model alone marks."""
        return self.marked & self.abnormal


@dataclass(frozen=True)
class Times:
    """Core time of a frame, ms: reading (decoding and conversion), the two models, and what else a cascade adds."""

    reading: float
    small: float
    standard: float
    added: float = 0.0

    def saving(self, passed: float) -> float:
        """The cascade's time by the standard model's alone, where ``passed`` (0..1) of the frames pass."""
        alone = self.reading + self.standard
        return (self.reading + self.small + self.added + (1 - passed) * self.standard) / alone

    @property
    def least_share(self) -> float:
        """The share that must pass before anything is saved."""
        return (self.small + self.added) / self.standard


def video_losses(frames: Frames, threshold: float) -> Floats:
    """The loss of each video that has a frame at stake, in the order of their names."""
    stake = frames.at_stake
    videos = np.unique(frames.videos[stake])
    passed = frames.margin >= threshold
    return np.array([passed[stake & (frames.videos == video)].mean() for video in videos], np.float64)


def certify_threshold(frames: Frames, risk: float) -> float:
    """The lowest threshold (log odds) that certifies ``risk``; infinite, so that nothing passes, where none does."""
    count = len(np.unique(frames.videos[frames.at_stake]))
    # The loss falls just above a frame at stake, and nowhere else.
    places = np.nextafter(np.unique(frames.margin[frames.at_stake]), np.inf)
    low, high = -1, len(places)
    while high - low > 1:
        middle = (low + high) // 2
        mean = float(video_losses(frames, places[middle]).mean())
        if (count * mean + 1) / (count + 1) <= risk + 1e-12:
            high = middle
        else:
            low = middle
    return float(places[high]) if high < len(places) else math.inf


def assess(frames: Frames, risks: Sequence[float] = RISKS) -> dict[str, Any]:
    """What can be certified with these videos, and what it saves and costs.

    Raises ``InputError`` with fewer than two videos with a finding that the standard model marks.
    """
    stake = frames.at_stake
    videos = np.unique(frames.videos[stake])
    if len(videos) < 2:
        raise InputError(
            f"{len(videos)} videos have a finding that the standard model marks, needed are 2 or more",
            hint="give more videos",
        )
    least = 1 / (len(videos) + 1)
    lines = []
    for risk in sorted({least, *(risk for risk in risks if risk > least)}):
        threshold = certify_threshold(frames, risk)
        lines.append(
            {"risk": _round(risk), **_measure(frames, threshold), "left_out": _left_out(frames, risk)}
        )
    return {
        "frames": len(frames.margin),
        "normal": int((~frames.abnormal).sum()),
        "at_stake": int(stake.sum()),
        "videos": len(np.unique(frames.videos)),
        "n": len(videos),
        "least_risk": _round(least),
        "cannot_be_certified": [risk for risk in risks if risk < least],
        "standard_sensitivity": _round(float(stake.sum() / max(1, frames.abnormal.sum()))),
        "thresholds": lines,
    }


def _measure(frames: Frames, threshold: float) -> dict[str, Any]:
    passed = frames.margin >= threshold
    normal, stake = ~frames.abnormal, frames.at_stake
    return {
        "probability": None if math.isinf(threshold) else _round(1 / (1 + math.exp(-threshold)), 9),
        "passed_normal": _share(passed, normal),
        "passed_normal_by_video": _round(_by_video(frames, passed, normal)),
        "passed_abnormal": _share(passed, frames.abnormal),
        "lost": _share(passed, stake),
        "lost_by_video": _round(float(video_losses(frames, threshold).mean())),
        "false_marks_spared": _share(passed, frames.marked & normal),
    }


def _left_out(frames: Frames, risk: float) -> dict[str, float | None]:
    """Each video under the threshold that the others certify for that risk, or for the least that so few can."""
    losses, shares = [], []
    for video in np.unique(frames.videos):
        inside = frames.videos == video
        others = _take(frames, ~inside)
        least = 1 / (len(np.unique(others.videos[others.at_stake])) + 1)
        threshold = certify_threshold(others, max(risk, least))
        passed = frames.margin >= threshold
        if (stake := inside & frames.at_stake).any():
            losses.append(float(passed[stake].mean()))
        if (normal := inside & ~frames.abnormal).any():
            shares.append(float(passed[normal].mean()))
    return {
        "lost_by_video": _round(float(np.mean(losses))),
        "worst_video": _round(max(losses)),
        "passed_normal_by_video": _round(float(np.mean(shares))) if shares else None,
    }


def _take(frames: Frames, which: Bools) -> Frames:
    return Frames(frames.margin[which], frames.marked[which], frames.abnormal[which], frames.videos[which])


def _by_video(frames: Frames, passed: Bools, among: Bools) -> float:
    shares = [passed[among & (frames.videos == video)].mean() for video in np.unique(frames.videos[among])]
    return float(np.mean(shares)) if shares else math.nan


def _share(passed: Bools, among: Bools) -> float | None:
    return _round(float(passed[among].mean())) if among.any() else None


def _round(value: float, digits: int = 4) -> float:
    return round(value, digits)


def _margin(logits: npt.NDArray[Any], column: int) -> Floats:
    """Log odds of a label: no probability of one hides how sure a model is."""
    values = logits.astype(np.float64)
    others = np.delete(values, column, axis=1)
    top = others.max(axis=1)
    return np.asarray(values[:, column] - top - np.log(np.exp(others - top[:, None]).sum(axis=1)), np.float64)


def normal_key(spec: ModelSpec) -> str:
    """The one label of role ``normal``. Raises ``ModelError`` where there is not one."""
    keys = [label.key for label in spec.labels if label.role == "normal"]
    if len(keys) != 1:
        raise ModelError(f"the model {spec.name} has {len(keys)} labels of role normal, needed is 1")
    return keys[0]


def pair_answers(
    small: Predictions, standard: Predictions, *, normal: str, temperature: float = 1.0
) -> Frames:
    """Both models' answers to the same frames. Raises ``InputError`` where they are not the same or name no video."""
    if small.files != standard.files or small.keys != standard.keys:
        raise InputError("the two models have not answered the same frames with the same labels")
    if small.logits is None or any(video is None for video in small.video_ids):
        raise InputError(
            "needed are logits, and a video_id for each frame", hint="use a data set with labels.csv"
        )
    column = small.keys.index(normal)
    return Frames(
        _margin(small.logits / temperature, column),
        standard.predicted != column,
        standard.labels != column,
        np.array(small.video_ids, np.str_),
    )


def pair_out_of_fold(small: Path, standard: Path, *, column: int) -> Frames:
    """What ``train.folds`` kept of two recipes, in the folds that both have; ``column`` is that of normal.

    Raises ``InputError`` for files that are none, or not of the same frames.
    """
    try:
        one, other = (dict(np.load(path, allow_pickle=False)) for path in (small, standard))
        common = np.intersect1d(one["fold"], other["fold"])
        a, b = (np.isin(kept["fold"], common) for kept in (one, other))
        same = all(np.array_equal(one[name][a], other[name][b]) for name in ("labels", "videos", "fold"))
        if not same or not a.any():
            raise InputError(f"{small} and {standard} do not hold the same frames")
        return Frames(
            _margin(_seen(one)[a], column),
            _seen(other)[b].argmax(axis=1) != column,
            other["labels"][b] != column,
            one["videos"][a].astype(np.str_),
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{small} or {standard} is no out_of_fold.npz: {error}", hint="train.folds leaves it with keep"
        ) from None


def _seen(kept: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Logits (N, labels) without the labels that the model of a fold was never shown, where that is known."""
    return np.where(kept["seen"], kept["logits"], -30.0) if "seen" in kept else kept["logits"]


def render(name: str, found: dict[str, Any], times: Sequence[Times]) -> str:
    """One set of frames as Markdown."""
    lines = [
        f"{name}: {found['frames']:,} frames, {found['n']} of {found['videos']} videos with a finding that the "
        f"standard model marks ({found['at_stake']:,} frames; it marks {found['standard_sensitivity']:.1%} of abnormal "
        "frames). "
        f"Least risk that {found['n']} videos certify: {found['least_risk']:.3f}.",
        "",
        "| certified risk | passes from p(normal) | normal frames passed | marked findings lost, frames | "
        "mean of videos | video left out: lost, worst, normal passed | core time to standard alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in found["thresholds"]:
        left = line["left_out"]
        shares = " to ".join(f"{each.saving(line['passed_normal'] or 0.0):.2f}" for each in times)
        threshold = "never" if line["probability"] is None else f"{line['probability']:.6f}"
        lines.append(
            f"| {line['risk']:.3f} | {threshold} | {line['passed_normal']:.1%} | {line['lost']:.1%} | "
            f"{line['lost_by_video']:.1%} | {left['lost_by_video']:.1%}, {left['worst_video']:.0%}, "
            f"{left['passed_normal_by_video'] or 0.0:.1%} | {shares} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("small", nargs="?", default="small", help="model file, or a name of those installed")
    parser.add_argument("standard", nargs="?", default="standard")
    parser.add_argument("--data", type=Path, help="labelled frames that neither model was trained on")
    parser.add_argument("--split", help="default: val, else all rows")
    parser.add_argument("--out-of-fold", nargs=2, type=Path, metavar=("SMALL.npz", "STANDARD.npz"))
    parser.add_argument("--small-ms", type=float, default=0.43, help="core time of a frame")
    parser.add_argument("--standard-ms", type=float, default=2.4)
    parser.add_argument("--reading-ms", type=float, nargs="+", default=[0.8, 1.5])
    parser.add_argument("--added-ms", type=float, default=0.0, help="a second size, a second batch")
    options = parser.parse_args(arguments)
    if options.data is None and options.out_of_fold is None:
        raise UsageError(
            "no frames were given", hint="use --data DIR or --out-of-fold SMALL.npz STANDARD.npz"
        )
    times = [
        Times(reading, options.small_ms, options.standard_ms, options.added_ms)
        for reading in options.reading_ms
    ]
    document: dict[str, Any] = {
        "times_ms": [vars(each) for each in times],
        "least_share": times[0].least_share,
    }
    for name, frames in _load(options):
        document[name] = assess(frames)
        print(render(name, document[name], times) + "\n")
    print(json.dumps(document, allow_nan=False))


def _load(options: argparse.Namespace) -> list[tuple[str, Frames]]:
    found = []
    with (
        closing(open_model(options.small)) as small,
        closing(open_model(options.standard)) as standard,
    ):
        key = normal_key(small.spec)
        if options.data is not None:
            dataset = load_dataset(options.data, split=options.split)
            answers = predict(small, dataset), predict(standard, dataset)
            pair = pair_answers(*answers, normal=key, temperature=small.spec.temperature)
            found.append((f"split {dataset.split or 'all'}", pair))
        if options.out_of_fold is not None:
            column = sorted(small.spec.keys).index(key)
            found.append(("out of fold", pair_out_of_fold(*options.out_of_fold, column=column)))
    return found


if __name__ == "__main__":
    run_module(main)
