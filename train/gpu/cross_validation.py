"""Choose a recipe by k-fold over the videos of ``train``; the out-of-fold answers also calibrate what ships.

    python -m capsule_edge.train.gpu.cross_validation --data DIR --configs recipes.json --pretrained NAME=FILE --out DIR

``recipes.json`` maps a name to the fields of ``TrainConfig`` that differ from the defaults. Each recipe leaves one
line of JSON. With ``"keep": true`` it also leaves its folder: ``config.json``, ``out_of_fold.npz``, the weights of
each fold and, as ``all.npz``, those of a fit on all of ``train``; ``"folds": [-1, 0, 1]`` fits these alone, -1 on all.
``"teachers": [NAME...]`` are kept recipes, learnt from: each fold by their models that have not seen its held-out
videos either; ``"start": NAME`` begins with the weights of one. ``--pretrained ARCHITECTURE=FILE`` are backbones to
begin with. Needs PyTorch and Keras 3, and a GPU for all but a trial.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import load_dataset, splits
from capsule_edge.runtime.inference import InputSpec

from ..config import TrainConfig
from ..data import Frames, draw_weights, is_real, load_frames, made_frames, made_of
from ..models import BRANCHED, reparameterise, weights
from .feed import Frozen, answers_file
from .gpu_fit import GpuTrainer, build_graph

FOLD_SEED = 0


def fold_of(frames: Frames, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each frame: stratified by label, no video in two folds."""
    return splits.fold_of(frames.labels, frames.videos, folds, seed=FOLD_SEED)


def folds_of(frames: Frames, folds: int) -> npt.NDArray[np.int64]:
    """``fold_of`` the real frames; -1 for the others."""
    fold = np.full(len(frames), -1)
    real = np.flatnonzero(is_real(frames.videos))
    fold[real] = fold_of(frames.take(real), folds)
    return fold


def kept_from(frames: Frames, fold: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.bool_]:
    """What a model may not learn from that is asked about fold ``number``: its frames, and those made of them."""
    held_out = fold == number
    return np.asarray(held_out | made_of(frames.videos, set(frames.videos[held_out])))


def mask_unseen(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Out-of-fold logits without the classes that the answering model never saw, and which frames are of seen ones.

    ``seen`` (N, labels) says it of each frame's model. A class of one video is in no training part of its own fold:
    its logit there means nothing.
    """
    return np.where(seen, logits, np.float32(-30.0)), seen[np.arange(len(labels)), labels]


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """What a recipe is chosen by, over the pooled out-of-fold answers."""
    from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

    answer = logits.argmax(1)
    aucs = [roc_auc_score(labels == c, logits[:, c]) for c in np.unique(labels)]
    figures = {
        "macro_f1": f1_score(labels, answer, average="macro", labels=np.unique(labels), zero_division=0),
        "balanced_accuracy": balanced_accuracy_score(labels, answer),
        "mcc": matthews_corrcoef(labels, answer),
        "mean_auc": np.mean(aucs),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


class DataSet:
    """The data set and its rendered frames in each size that a recipe asks for, loaded once."""

    def __init__(self, data: Path, boxes: Path | None = None) -> None:
        self._train = load_dataset(data, split="train")
        self.keys = tuple(self._train.labels)
        self._boxes = boxes
        self._loaded: dict[tuple[int, int, int], Frames] = {}

    def of(self, size: int, config: TrainConfig) -> Frames:
        """The frames of ``train`` at ``size``, behind them those that are rendered and made (``made_frames``)."""
        wanted = (size, config.phantom, config.transplants)
        if wanted not in self._loaded:
            spec = InputSpec(size)
            frames = load_frames(self._train, self.keys, spec)
            made = made_frames(self._train, self.keys, spec, config, self._boxes)
            frames = frames.join(made) if made else frames
            self._loaded[wanted] = frames
        return self._loaded[wanted]

    def teacher(self, folder: Path, part: str, config: TrainConfig) -> Frozen:
        """What the recipe kept in ``folder`` learnt on ``part``, with the frames that ``config`` trains on."""
        own = TrainConfig.read(folder / "config.json")
        graph = build_graph(own.architecture, size=own.size, labels=len(self.keys), branched=False)
        teacher = Frozen(graph, self.of(own.size, config).pixels)
        teacher.assign(read_plain(folder, part))
        return teacher


def run_recipe(
    config: TrainConfig,
    data: DataSet,
    *,
    folds: int,
    initial: weights.Arrays | Path,
    teachers: Sequence[Path] = (),
    keep: Path | None = None,
    only: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Fit every fold, or ``only`` those of which -1 is all of ``train``, and score the out-of-fold answers.

    ``initial`` are the weights to begin with, or the folder of a kept recipe that begins where this one goes on.
    """
    parts = [*([-1] if keep else []), *range(folds)] if only is None else list(only)
    own = data.of(config.size, config)
    names = [folder.name for folder in teachers]
    kept = {n: answers_file(keep.parent, name_part(n), names, config) for n in parts} if keep else {}
    # Where all that the teachers say is known already, they need not be there.
    silent = bool(kept) and all(path and path.exists() for path in kept.values())
    taught = [] if silent else [data.teacher(folder, name_part(parts[0]), config) for folder in teachers]
    trainer = GpuTrainer(config, own, taught)
    real, fold = is_real(own.videos), folds_of(own, folds)
    answers: list[dict[str, npt.NDArray[Any]]] = []
    started, curves = time.monotonic(), []
    for number in parts:
        part = name_part(number)
        for folder, teacher in zip(teachers, taught, strict=False):
            teacher.assign(read_plain(folder, part))
        trainer.feed.begin(kept.get(number))
        curve: list[dict[str, Any]] = []
        among = None if number < 0 else ~kept_from(own, fold, number)
        begin = weights.load(initial / f"{part}.npz") if isinstance(initial, Path) else initial
        fitted = trainer.fit(begin, draw_weights(own, config, among), _note(part, curve))
        curves.append(curve)
        if keep:
            (keep / "config.json").write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
            weights.save(keep / f"{part}.npz", fitted)
        if number < 0:
            continue
        held_out = np.flatnonzero(fold == number)
        seen = np.isin(np.arange(len(own.keys)), own.labels[real & (fold != number)])
        answers.append(
            {
                "logits": trainer.predict(held_out), "labels": own.labels[held_out], "videos": own.videos[held_out],
                "fold": fold[held_out], "seen": np.tile(seen, (len(held_out), 1)),
            }
        )  # fmt: skip
        if keep:
            np.savez_compressed(keep / f"{part}.answers.npz", **answers[-1])  # type: ignore[arg-type]
            gather(keep)
    figures: dict[str, Any] = {}
    if answers:
        logits, labels, seen = (np.concatenate([a[k] for a in answers]) for k in ("logits", "labels", "seen"))
        masked, known = mask_unseen(logits, labels, seen)
        figures = score(masked[known], labels[known])
    figures["parts"] = [name_part(number) for number in parts]
    return {**figures, "seconds": round(time.monotonic() - started, 1), "curves": curves}


def gather(folder: Path) -> None:
    """Put the answers of all folds that lie in a recipe's folder into its ``out_of_fold.npz``."""
    parts = [
        dict(np.load(path)) for path in sorted(folder.glob("fold*.answers.npz")) if path.name.count(".") == 2
    ]
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    np.savez_compressed(folder / "out_of_fold.npz", **whole)  # type: ignore[arg-type]


def read_plain(folder: Path, part: str) -> weights.Arrays:
    """What a recipe learnt on ``part``, of branches that are merged into the convolutions that they add up to."""
    arrays = weights.load(folder / f"{part}.npz")
    branched = TrainConfig.read(folder / "config.json").architecture in BRANCHED
    return reparameterise.merge(arrays) if branched else arrays


def name_part(number: int) -> str:
    """What the weights of a fold are called; of -1, which is all of ``train``."""
    return f"fold{number}" if number >= 0 else "all"


def _note(part: str, curve: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Keep an epoch's line and show it as it comes."""

    def note(line: dict[str, Any]) -> None:
        curve.append(line)
        print(json.dumps({"part": part, **line}), file=sys.stderr, flush=True)

    return note


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pretrained", action="append", default=[], help="ARCHITECTURE=FILE, a backbone")
    parser.add_argument(
        "--boxes", type=Path, help="Kvasir-Capsule's metadata.csv, for recipes with transplants"
    )
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, action="append", help="fit these folds alone; -1 is all of train")
    options = parser.parse_args()
    cv2.setNumThreads(1)  # frames are loaded on threads of our own
    backbones = {
        name: weights.load(Path(file)) for name, file in (p.split("=", 1) for p in options.pretrained)
    }
    data = DataSet(options.data, options.boxes)
    for name, fields in json.loads(options.configs.read_text(encoding="utf-8")).items():
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        teachers = [options.out / teacher for teacher in fields.pop("teachers", ())]
        named = fields.pop("folds", None)
        only = options.only or named
        start = fields.pop("start", None)
        keep = folder if fields.pop("keep", False) else None
        config = TrainConfig(**fields)
        initial = options.out / start if start else backbones.get(config.architecture, {})
        line = run_recipe(
            config, data, folds=options.folds, initial=initial, teachers=teachers, keep=keep, only=only
        )
        curves = line.pop("curves")
        print(json.dumps({"name": name, **line}), flush=True)
        with (options.out / "folds.jsonl").open("a", encoding="utf-8") as journal:
            settings = {**fields, "teachers": [teacher.name for teacher in teachers]}
            journal.write(json.dumps({"name": name, **line, "config": settings, "curves": curves}) + "\n")


if __name__ == "__main__":
    main()
