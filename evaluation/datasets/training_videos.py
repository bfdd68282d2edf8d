"""The videos that a model was trained on, as its file carries them, and how many of the frames at hand are of those.

A video is known by the first eight hexadecimal digits of the SHA-256 of its ``video_id``: short, in no need of the
name itself, and alike by accident in one of a million pairs of data sets of 60 videos each (60 * 60 / 2^32).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from capsule_edge.runtime.inference import ModelSpec

from .samples import Sample

__all__ = ["describe_overlap", "training_overlap", "training_provenance", "video_mark"]


def video_mark(video_id: str) -> str:
    """Eight hexadecimal digits that stand for a video."""
    return hashlib.sha256(video_id.encode()).hexdigest()[:8]


def training_provenance(samples: Iterable[Sample], learnt_from: Iterable[ModelSpec] = ()) -> dict[str, Any]:
    """What a ModelSpec's provenance says of the videos: ``training_videos``, sorted, where any is known.

    ``learnt_from`` are teachers, whose videos the model has seen through them. Frames that name no video are counted
    as ``training_frames_without_video``.
    """
    frames = list(samples)
    named = {sample.video_id for sample in frames if sample.video_id is not None}
    marks = {video_mark(video) for video in named}
    for spec in learnt_from:
        marks.update(spec.provenance.get("training_videos", ()))
    nameless = sum(sample.video_id is None for sample in frames)
    return {
        **({"training_videos": sorted(marks)} if marks else {}),
        **({"training_frames_without_video": nameless} if nameless else {}),
    }


def training_overlap(specs: Sequence[ModelSpec], video_ids: Sequence[str | None]) -> dict[str, int] | None:
    """Of the frames of ``video_ids``, how many are of videos that any of the models was trained on.

    ``frames`` and ``videos`` of those; ``frames_without_video``, of which nobody knows. None where no model says what
    it was trained on.
    """
    said = [spec.provenance["training_videos"] for spec in specs if "training_videos" in spec.provenance]
    if not said:
        return None
    marks = {mark for one in said for mark in one}
    seen = [video for video in video_ids if video is not None and video_mark(video) in marks]
    return {
        "frames": len(seen),
        "videos": len(set(seen)),
        "frames_without_video": sum(video is None for video in video_ids),
    }


def describe_overlap(overlap: Mapping[str, int] | None, frames: int) -> str:
    """The same in one line, without a full stop."""
    if overlap is None:
        return "the model file does not say which videos it was trained on"
    seen, videos, nameless = (overlap[name] for name in ("frames", "videos", "frames_without_video"))
    line = f"{seen:,} of the {frames:,} frames are of videos that the model was trained on"
    if videos:
        line += f" ({videos:,} video{'s' * (videos > 1)}): it has seen them"
    return line + (f"; {nameless:,} name no video" if nameless else "")
