"""Choose a recipe by k-fold over the videos of ``train``; the out-of-fold answers also calibrate what ships.

    python -m capsule_edge.train.folds --data DIR --weights backbone.npz --configs recipes.json --out DIR

``recipes.json`` maps a name to the fields of ``TrainConfig`` that differ from the defaults. Each recipe leaves one
line of JSON; ``--keep NAME`` also writes that recipe's out-of-fold logits, the weights of each fold and those of a
fit on all of ``train``. Needs PyTorch and Keras 3, and a GPU for all but a trial.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation import splits
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.runtime.spec import InputSpec

from . import weights
from .config import TrainConfig
from .data import PHANTOM, Frames, draw_weights, load_frames, phantom_frames
from .gpu_fit import GpuTrainer

FOLD_SEED = 0


def fold_of(frames: Frames, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each frame: stratified by label, no video in two folds."""
    return splits.fold_of(frames.labels, frames.videos, folds, seed=FOLD_SEED)


def mask_unseen(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Out-of-fold logits without the classes that a fold's model never saw, and which frames are of classes it saw.

    A class of one video is in no training part of its own fold: its logit there means nothing.
    """
    logits, known = logits.copy(), np.ones(len(labels), bool)
    for number in np.unique(fold):
        here = fold == number
        unseen = np.setdiff1d(np.arange(logits.shape[1]), labels[~here])
        logits[np.ix_(here, unseen)] = -30.0
        known &= ~(here & np.isin(labels, unseen))
    return logits, known


def score(logits: npt.NDArray[np.float32], frames: Frames) -> dict[str, Any]:
    """What a recipe is chosen by, over the pooled out-of-fold answers, with the best prior share beside."""
    from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

    present = np.unique(frames.labels)
    prior = np.log(np.bincount(frames.labels, minlength=len(frames.keys)) / len(frames) + 1e-9)
    out: dict[str, Any] = {
        "mean_auc": round(
            float(np.mean([roc_auc_score(frames.labels == c, logits[:, c]) for c in present])), 4
        )
    }
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        answer = (logits + share * prior).argmax(1)
        out[f"prior_{share}"] = [
            round(float(f1_score(frames.labels, answer, average="macro", zero_division=0)), 4),
            round(float(balanced_accuracy_score(frames.labels, answer)), 4),
            round(float(matthews_corrcoef(frames.labels, answer)), 4),
        ]
    return out


def _note(curve: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Keep an epoch's line and show it as it comes."""

    def note(line: dict[str, Any]) -> None:
        curve.append(line)
        print(json.dumps(line), file=sys.stderr, flush=True)

    return note


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--keep", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)  # frames are loaded on threads of our own
    initial = weights.load(options.weights)
    train = load_dataset(options.data, split="train")
    keys = tuple(train.labels)
    trainers: dict[tuple[str, int, int], tuple[Frames, GpuTrainer]] = {}
    with (options.out / "folds.jsonl").open("a", encoding="utf-8") as journal:
        for name, fields in json.loads(options.configs.read_text(encoding="utf-8")).items():
            config = TrainConfig(**fields)
            shape = (config.architecture, config.size, config.phantom)
            if shape not in trainers:
                spec = InputSpec(config.size)
                frames = load_frames(train, keys, spec)
                if config.phantom:
                    frames = frames.join(phantom_frames(config.phantom, keys, spec, config.seed))
                trainers[shape] = frames, GpuTrainer(config.architecture, frames)
            frames, trainer = trainers[shape]
            real = frames.videos != PHANTOM
            fold = np.full(len(frames), -1)
            fold[real] = fold_of(frames.take(np.flatnonzero(real)), options.folds)
            logits = np.zeros((len(frames), len(keys)), np.float32)
            started, curves = time.monotonic(), []
            if name in options.keep:
                curve: list[dict[str, Any]] = []
                fitted = trainer.fit(config, initial, draw_weights(frames, config), _note(curve))
                weights.save(options.out / "fp32.weights.npz", fitted)
                curves.append(curve)
            for number in range(options.folds):
                curve = []
                chances = draw_weights(frames, config, fold != number)
                fitted = trainer.fit(config, initial, chances, _note(curve))
                held_out = np.flatnonzero(fold == number)
                logits[held_out] = trainer.predict(held_out)
                curves.append(curve)
                if name in options.keep:
                    weights.save(options.out / f"fold{number}.npz", fitted)
                    np.savez_compressed(
                        options.out / "out_of_fold.npz",
                        logits=logits[real], labels=frames.labels[real], videos=frames.videos[real],
                        fold=np.where(fold[real] <= number, fold[real], -1),
                    )  # fmt: skip
            logits, known = mask_unseen(logits[real], frames.labels[real], fold[real])
            frames, logits = frames.take(np.flatnonzero(real)[known]), logits[known]
            line = {"name": name, **score(logits, frames), "seconds": round(time.monotonic() - started, 1)}
            print(json.dumps(line), flush=True)
            journal.write(json.dumps(line | {"config": dataclasses.asdict(config), "curves": curves}) + "\n")
            journal.flush()


if __name__ == "__main__":
    main()
