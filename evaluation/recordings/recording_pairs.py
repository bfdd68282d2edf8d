"""Pair the result folders of runs with the truth tables of a folder of labelled recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec

from ..datasets import video_mark
from .labelled_recordings import load_recordings

__all__ = ["RecordingPair", "hash_of_recordings", "pair_recordings", "seen_in_training"]

# The code of the warning in ``study.json``.
_SEEN = "seen_in_training"


@dataclass(frozen=True)
class RecordingPair:
    """The result of a run and the truth of the recording that it read.

    Attributes:
        run: The result folder, or its ``frames.csv``.
        truth: The truth table.
        video: The id of the video that the recording belongs to; None: the recording is a video of its own.
    """

    run: Path
    truth: Path
    video: str | None = None


def pair_recordings(runs: Path, recordings: Path, split: str | None = None) -> list[RecordingPair]:
    """Pair ``RUNS/<stem>/frames.csv`` with ``DIR/<stem>.truth.csv`` for each recording of a split.

    Args:
        runs: The folder that holds a result folder for each recording, named like the recording.
        recordings: The folder of recordings, as ``load_recordings`` reads it.
        split: The split, as ``load_recordings`` takes it.

    Raises:
        InputError: The folder of recordings cannot be read, or a recording has no result.
        UsageError: The folder of recordings has no such split.
    """
    labelled = load_recordings(recordings, split=split).recordings
    for one in labelled:
        frames = runs / one.video.stem / "frames.csv"
        if not frames.is_file():
            raise InputError(
                f"{frames} is not there, the recording {one.video.name} of {recordings} needs it",
                hint=f"capsule-edge run {one.video} --out {runs / one.video.stem}",
            )
    return [RecordingPair(runs / one.video.stem, one.truth, one.video_id) for one in labelled]


def seen_in_training(pairs: Sequence[RecordingPair], spec: ModelSpec, sha256: str | None) -> list[str]:
    """Return the names of the runs whose model was trained on the video of the recording.

    Either the run's study warns of it, or this model made the run and names the video as training data.

    Args:
        pairs: The runs. One without a readable ``study.json`` is passed over.
        spec: The model.
        sha256: The SHA-256 of the model's file; None where it has no file.
    """
    trained_on = set(spec.provenance.get("training_videos", ()))
    names = []
    for pair in pairs:
        study = _study(pair)
        reader, source = _text(study, "model", "sha256"), Path(_text(study, "source", "name")).stem
        own = reader == sha256 and trained_on & {video_mark(source), video_mark(pair.video or source)}
        if own or any(_text(warning, "code") == _SEEN for warning in study.get("warnings") or ()):
            names.append(_folder(pair).name)
    return names


def hash_of_recordings(pairs: Sequence[RecordingPair]) -> list[str]:
    """Return the sorted SHA-256 of the recordings, as far as the runs have a readable ``study.json``."""
    return sorted({_text(_study(pair), "source", "sha256") for pair in pairs} - {""})


def _folder(pair: RecordingPair) -> Path:
    return pair.run if pair.run.is_dir() else pair.run.parent


def _study(pair: RecordingPair) -> dict[str, Any]:
    """Return the study of a run, empty where there is none."""
    try:
        study = json.loads((_folder(pair) / "study.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return study if isinstance(study, dict) else {}


def _text(document: Any, *keys: str) -> str:
    """Return the text at a place in a JSON document, "" where there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, str) else ""
