"""Cross-validation of a recipe over the videos of ``train``, with PyTorch on a GPU.

Each fold learns from teachers that have not seen its held-out videos either. A kept recipe has a folder with
``config.json``, the weights of each fold, the weights of training on all of ``train`` (``all.npz``), and
``out_of_fold.npz``, on which the shipped model is calibrated. With recordings, ``out_of_fold.npz`` has the answers
to their frames too, with the index of each frame in its recording (``places``, -1 for an image).
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import load_training, videos_kept_from, without_videos
from capsule_edge.evaluation.recordings import (
    LabelledRecording,
    NormalStretch,
    load_recordings,
    read_stretches,
)
from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import InputSpec

from ..config import TrainConfig
from ..data import (
    TrainingFrames,
    check_hard_weight,
    check_recordings,
    check_weighing,
    draw_weights,
    fold_of_real,
    is_real,
    load_frames,
    made_frames,
    mask_unseen,
    recording_frames,
    recording_labels,
    withheld_from_fold,
    without_recorded,
)
from ..models import BRANCHED, reparameterise, weights
from .batch_feed import FrozenTeacher, answers_file
from .torch_training import GpuTrainer, build_graph

_RECORDINGS = "recordings.sha256"  # in the folder of a kept recipe; absent or empty without recordings


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the figures by which a recipe is chosen, over the pooled out-of-fold answers.

    Args:
        logits: float32 (N, labels).
        labels: int (N,).
    """
    from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

    answer = logits.argmax(1)
    aucs = [roc_auc_score(labels == c, logits[:, c]) for c in np.unique(labels)]
    with warnings.catch_warnings():
        # Few held-out videos need not show every class.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        balanced = balanced_accuracy_score(labels, answer)
    figures = {
        "macro_f1": f1_score(labels, answer, average="macro", labels=np.unique(labels), zero_division=0),
        "balanced_accuracy": balanced,
        "mcc": matthews_corrcoef(labels, answer),
        "mean_auc": np.mean(aucs),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


class RecipeData:
    """The training data in each size that a recipe asks for, loaded once.

    Args:
        data: the folder of the data set.
        boxes: the table of lesions for transplants.
        recordings: the folder of labelled recordings whose frames are added; None adds none.
        weigh: the table of normal stretches that ``hard_weight`` weighs (``false_events``); None weighs none.
        label_map: the label map, or its file; None: keys follow from the class names.

    Attributes:
        keys: the labels of the data set.
        recorded: identifies the added recordings and the stretches to weigh; empty without any.
        recordings_sha256: identifies the recordings alone, with which the folds change; empty without any.

    Raises:
        InputError: the data set, the recordings or the table cannot be read, or do not fit together.
        UsageError: ``weigh`` comes without recordings.
    """

    def __init__(
        self,
        data: Path,
        boxes: Path | None = None,
        recordings: Path | None = None,
        weigh: Path | None = None,
        label_map: Path | None = None,
    ) -> None:
        self._train = load_training(data, label_map=label_map)
        self.keys = tuple(self._train.labels)
        self._boxes = boxes
        self._loaded: dict[tuple[InputSpec, int, int], TrainingFrames] = {}
        self._recordings: tuple[LabelledRecording, ...] = ()
        self._stretches: tuple[NormalStretch, ...] = ()
        self.recorded = self.recordings_sha256 = ""
        check_weighing(recordings, weigh)
        if recordings is not None:
            kept = videos_kept_from(data, self._train.split, label_map=label_map)
            found = load_recordings(recordings, label_map=label_map).without(kept)
            self._train = without_videos(self._train, found.kept_videos)
            self._stretches = read_stretches(weigh) if weigh else ()
            recording_labels(found.recordings, self.keys, self._stretches)
            check_recordings(found.recordings)
            self._recordings = found.recordings
            self.recordings_sha256 = found.sha256
            self.recorded = found.sha256 + repr(self._stretches)

    def of(self, config: TrainConfig, frames_of: TrainConfig | None = None) -> TrainingFrames:
        """Return the frames of ``train`` and of the recordings, then the rendered frames and the transplants.

        Args:
            config: says the form of the frames.
            frames_of: says which frames are made; ``config`` itself by default.

        Raises:
            UsageError: ``config`` weighs hard frames, and no table lists them.
        """
        made_by = frames_of or config
        check_hard_weight(made_by, weighed=bool(self._stretches))
        wanted = (config.input, made_by.phantom, made_by.transplants)
        if wanted not in self._loaded:
            frames = load_frames(without_recorded(self._train, self._recordings), self.keys, config.input)
            if self._recordings:
                frames = frames.join(
                    recording_frames(self._recordings, self.keys, config.input, self._stretches)
                )
            made = made_frames(self._train, self.keys, config.input, made_by, self._boxes)
            frames = frames.join(made) if made else frames
            self._loaded[wanted] = frames
        return self._loaded[wanted]

    def check_folds(self, folder: Path) -> None:
        """Check that the recipe kept in ``folder`` had the same recordings, and so the same folds.

        A network of other folds has seen frames that are held out here.

        Raises:
            UsageError: it had other recordings.
        """
        path = folder / _RECORDINGS
        known = path.read_text("utf-8").strip() if path.is_file() else ""
        if known != self.recordings_sha256:
            raise UsageError(
                f"the recipe {folder.name} was trained with {_short(known)}, this one has "
                f"{_short(self.recordings_sha256)}: their folds differ",
                hint="give the same --recordings, or train the recipe again",
            )

    def teacher(self, folder: Path, part: str, config: TrainConfig) -> FrozenTeacher:
        """Return the model that the recipe in ``folder`` learnt on ``part``, with the frames of ``config``.

        Raises:
            UsageError: the recipe had other recordings.
        """
        self.check_folds(folder)
        own = TrainConfig.read(folder / "config.json")
        graph = build_graph(own.architecture, size=own.size, labels=len(self.keys), branched=False)
        teacher = FrozenTeacher(graph, self.of(own, config).pixels)
        teacher.assign(read_plain(folder, part))
        return teacher


def run_recipe(
    config: TrainConfig,
    data: RecipeData,
    *,
    folds: int,
    initial: weights.Arrays | Path,
    teachers: Sequence[Path] = (),
    keep: Path | None = None,
    only: Sequence[int] | None = None,
    note: Callable[[dict[str, Any]], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a recipe on every fold and score the pooled out-of-fold answers.

    Args:
        config: the recipe.
        data: the training data.
        folds: number of folds.
        initial: the weights to start from, or the folder of a kept recipe to continue.
        teachers: folders of kept recipes to distil from.
        keep: the folder to keep weights and answers in; None keeps nothing.
        only: the folds to train; -1 stands for all of ``train``. By default all folds, and -1 if ``keep`` is given.
        note: called with a line after each epoch.

    Returns:
        The scores (``score``), the names of the parts, the seconds taken and the curve of each part.

    Raises:
        UsageError: a teacher, or the recipe to continue, had other recordings.
    """
    for folder in (*teachers, *([initial] if isinstance(initial, Path) else [])):
        data.check_folds(folder)
    parts = [*([-1] if keep else []), *range(folds)] if only is None else list(only)
    own = data.of(config)
    names = [folder.name for folder in teachers]
    kept = (
        {n: answers_file(keep.parent, name_part(n), names, config, data.recorded) for n in parts}
        if keep
        else {}
    )
    # If all answers of the teachers are in files already, do not load the teachers.
    all_known = bool(kept) and all(path and path.exists() for path in kept.values())
    loaded = [] if all_known else [data.teacher(folder, name_part(parts[0]), config) for folder in teachers]
    trainer = GpuTrainer(config, own, loaded)
    fold = fold_of_real(own, folds)
    answers: list[dict[str, npt.NDArray[Any]]] = []
    started, curves = time.monotonic(), []
    for number in parts:
        part = name_part(number)
        for folder, teacher in zip(teachers, loaded, strict=False):
            teacher.assign(read_plain(folder, part))
        trainer.feed.begin(kept.get(number))
        curve: list[dict[str, Any]] = []
        among = None if number < 0 else ~withheld_from_fold(own, fold, number)
        begin = weights.load(initial / f"{part}.npz") if isinstance(initial, Path) else initial
        fitted = trainer.fit(begin, draw_weights(own, config, among), _keep_line(part, curve, note))
        curves.append(curve)
        if keep:
            (keep / "config.json").write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
            (keep / _RECORDINGS).write_text(data.recordings_sha256 + "\n", encoding="utf-8")
            weights.save(keep / f"{part}.npz", fitted)
        if number >= 0:
            answers.append(_answer_fold(trainer, own, fold, number))
            if keep:
                np.savez_compressed(keep / f"{part}.answers.npz", **answers[-1])  # type: ignore[arg-type]
                gather(keep)
    figures: dict[str, Any] = _score_pooled(answers) if answers else {}
    figures["parts"] = [name_part(number) for number in parts]
    return {**figures, "seconds": round(time.monotonic() - started, 1), "curves": curves}


def _answer_fold(
    trainer: GpuTrainer, frames: TrainingFrames, fold: npt.NDArray[np.int64], number: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the trained model's answers to the frames of its held-out fold, and which classes it had seen."""
    held_out = np.flatnonzero(fold == number)
    learnt_from = frames.labels[is_real(frames.videos) & (fold != number)]
    seen = np.isin(np.arange(len(frames.keys)), learnt_from)
    return {
        "logits": trainer.predict(held_out),
        "labels": frames.labels[held_out],
        "videos": frames.videos[held_out],
        "fold": fold[held_out],
        "places": frames.recorded_at[held_out],
        "seen": np.tile(seen, (len(held_out), 1)),
    }


def _score_pooled(answers: Sequence[dict[str, npt.NDArray[Any]]]) -> dict[str, float]:
    """Score the answers of all folds together, without classes that their model had not seen."""
    logits, labels, seen = (np.concatenate([a[k] for a in answers]) for k in ("logits", "labels", "seen"))
    masked, known = mask_unseen(logits, labels, seen)
    return score(masked[known], labels[known])


def gather(folder: Path) -> None:
    """Join the answers of all folds in a recipe's folder into its ``out_of_fold.npz``."""
    parts = [
        dict(np.load(path)) for path in sorted(folder.glob("fold*.answers.npz")) if path.name.count(".") == 2
    ]
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    np.savez_compressed(folder / "out_of_fold.npz", **whole)  # type: ignore[arg-type]


def read_plain(folder: Path, part: str) -> weights.Arrays:
    """Read what a recipe learnt on ``part``, with branches merged into plain convolutions."""
    arrays = weights.load(folder / f"{part}.npz")
    branched = TrainConfig.read(folder / "config.json").architecture in BRANCHED
    return reparameterise.merge(arrays) if branched else arrays


def _short(sha256: str) -> str:
    return f"the recordings {sha256[:12]}" if sha256 else "no recordings"


def name_part(number: int) -> str:
    """Return the name of a fold's files: "fold0", "fold1"..., or "all" for -1."""
    return f"fold{number}" if number >= 0 else "all"


def _keep_line(
    part: str, curve: list[dict[str, Any]], note: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """Return a function that adds the line of an epoch to ``curve`` and hands it to ``note``."""

    def keep(line: dict[str, Any]) -> None:
        curve.append(line)
        note({"part": part, **line})

    return keep
