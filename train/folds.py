"""Choose a recipe by k-fold over the videos of ``train``; the out-of-fold answers also calibrate what ships.

    python -m capsule_edge.train.folds --data DIR --weights backbone.npz --configs recipes.json --out DIR

``recipes.json`` maps a name to the fields of ``TrainConfig`` that differ from the defaults. Each recipe leaves one line of
JSON; ``--keep NAME`` also writes that recipe's out-of-fold logits, the weights of each fold and those of a fit on all of
``train``. Needs a GPU machine with JAX and Keras 3.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.runtime.spec import InputSpec

from . import weights
from .config import TrainConfig
from .data import Frames, load_frames, phantom_frames
from .jax_fit import JaxTrainer

FOLD_SEED = 0


def fold_of(frames: Frames, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each frame: stratified by label, no video in two folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.empty(len(frames), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=FOLD_SEED)
    for number, (_, held_out) in enumerate(splitter.split(frames.labels, frames.labels, frames.videos)):
        fold[held_out] = number
    return fold


def score(logits: npt.NDArray[np.float32], frames: Frames) -> dict[str, Any]:
    """What a recipe is chosen by, over the pooled out-of-fold answers, with the best prior share beside."""
    from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

    present = np.unique(frames.labels)
    prior = np.log(np.bincount(frames.labels, minlength=len(frames.keys)) / len(frames) + 1e-9)
    out: dict[str, Any] = {
        "mean_auc": round(float(np.mean([roc_auc_score(frames.labels == c, logits[:, c]) for c in present])), 4)
    }
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        answer = (logits + share * prior).argmax(1)
        out[f"prior_{share}"] = [
            round(float(f1_score(frames.labels, answer, average="macro", zero_division=0)), 4),
            round(float(balanced_accuracy_score(frames.labels, answer)), 4),
            round(float(matthews_corrcoef(frames.labels, answer)), 4),
        ]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--keep", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    initial = weights.load(options.weights)
    train = load_dataset(options.data, split="train")
    keys = tuple(train.labels)
    trainers: dict[tuple[str, int], JaxTrainer] = {}
    loaded: dict[int, Frames] = {}
    with (options.out / "folds.jsonl").open("a", encoding="utf-8") as journal:
        for name, fields in json.loads(options.configs.read_text(encoding="utf-8")).items():
            config = TrainConfig(**fields)
            spec = InputSpec(config.size)
            frames = loaded.setdefault(config.size, load_frames(train, keys, spec))
            added = phantom_frames(config.phantom, keys, spec, config.seed) if config.phantom else None
            shape = (config.architecture, config.size)
            trainer = trainers.setdefault(shape, JaxTrainer(*shape, len(keys)))
            fold = fold_of(frames, options.folds)
            logits = np.zeros((len(frames), len(keys)), np.float32)
            started, curves = time.monotonic(), []
            for number in range(options.folds):
                part = frames.take(np.flatnonzero(fold != number))
                part = part.join(added) if added else part
                curve: list[dict[str, Any]] = []
                fitted = trainer.fit(part, config, initial, curve.append)
                held_out = np.flatnonzero(fold == number)
                logits[held_out] = trainer.predict(frames.pixels[held_out])
                curves.append(curve)
                if name in options.keep:
                    weights.save(options.out / f"fold{number}.npz", fitted)
            if name in options.keep:
                everything = frames.join(added) if added else frames
                curve = []
                weights.save(options.out / "fp32.weights.npz", trainer.fit(everything, config, initial, curve.append))
                curves.append(curve)
                np.savez_compressed(
                    options.out / "out_of_fold.npz", logits=logits, labels=frames.labels, videos=frames.videos, fold=fold
                )
            line = {"name": name, **score(logits, frames), "seconds": round(time.monotonic() - started, 1)}
            print(json.dumps(line), flush=True)
            journal.write(json.dumps(line | {"config": dataclasses.asdict(config), "curves": curves}) + "\n")
            journal.flush()


if __name__ == "__main__":
    main()
