"""Record in a model file the videos that it was trained on, and count frames of these videos in a data set.

A model file identifies a video by the first eight hexadecimal digits of the SHA-256 of its ``video_id``. That is short
and does not reveal the name. Two data sets of 60 videos each share a mark by accident with a probability of one in a
million (60 * 60 / 2^32). An id is a name, not an identity: the same video may bear another id elsewhere, so no match
does not mean that a video is new to the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from capsule_edge.runtime.inference import ModelSpec, video_mark

from .samples import Sample

__all__ = ["describe_frames", "describe_overlap", "training_overlap", "training_provenance", "video_mark"]


def training_provenance(samples: Iterable[Sample], learnt_from: Iterable[ModelSpec] = ()) -> dict[str, Any]:
    """Return what the provenance of a ModelSpec records about training videos.

    Args:
        samples: The frames that the model is trained on.
        learnt_from: The teachers of a distilled model. It has seen their training videos through them.

    Returns:
        ``training_videos``, the sorted marks, if a video is known; ``training_frames_without_video``, a count, if a
        frame names no video.
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
    """Count the frames whose video id is one that any of the models was trained on.

    Args:
        specs: The models.
        video_ids: The video of each frame, None where it is unknown.

    Returns:
        ``frames`` and ``videos``, the counts; ``frames_without_video``, frames of unknown videos. None if no model
        records its training videos.
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
    """Describe the result of ``training_overlap`` in one line, without a full stop.

    Args:
        overlap: What ``training_overlap`` returned.
        frames: The number of all frames.
    """
    # This text is part of certificates and model cards.
    if overlap is None:
        return "the model file does not say which videos it was trained on"
    seen, videos, nameless = (overlap[name] for name in ("frames", "videos", "frames_without_video"))
    if videos:
        line = f"{seen:,} of the {frames:,} frames are of videos that the model was trained on"
        line += f" ({videos:,} video{'s' * (videos > 1)}): it has seen them"
    else:
        line = f"no video id of the {frames:,} frames matches one that the model was trained on"
    return line + (f"; {nameless:,} name no video" if nameless else "")


def describe_frames(frames: int, videos: int) -> str:
    """Return the size of a data set in words: "40 frames of 4 videos", or that their patients are unknown.

    Args:
        frames: The number of frames.
        videos: The number of videos that they name.
    """
    if not videos:
        return f"{frames:,} frames that name no video (patients unknown)"
    return f"{frames:,} frames of {videos:,} videos"
