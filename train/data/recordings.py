"""Frames of labelled recordings: decoded and prepared as reading does, so training sees what the model will read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.evaluation.recordings import LabelledRecording
from capsule_edge.runtime.cores import count_cores
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import PixelBuffers, make_batches, prepare, settle_field_of_view
from capsule_edge.runtime.recording import Container, Frame, read_frames, scan

from .frames import TrainingFrames

__all__ = ["decode_recordings", "lost_frames", "recording_frames", "recording_labels", "without_recorded"]

Pixels = npt.NDArray[np.uint8]

_BATCH = 16
# A truth table that belongs to another recording differs by minutes. Times of the right one may be rounded.
_LARGEST_DIFFERENCE_S = 1.0


def recording_frames(
    recordings: Sequence[LabelledRecording], keys: Sequence[str], spec: InputSpec
) -> TrainingFrames:
    """Decode and prepare the labelled frames of recordings, several recordings at once.

    Corrupt frames are left out and named in ``unreadable``.

    Args:
        recordings: the recordings with their truth.
        keys: the labels of the model, in order.
        spec: the input of the model.

    Raises:
        InputError: a label is not among ``keys``, a recording cannot be read, its truth does not fit it, or no frame
            can be read.
    """
    frames = recording_labels(recordings, keys)
    pixels = np.empty((len(frames), spec.size, spec.size, 3), np.uint8)
    readable = decode_recordings(recordings, spec, pixels)
    if not readable.any():
        raise InputError(f"none of the {len(frames)} frames of the recordings can be read")
    whole = TrainingFrames(pixels, frames.labels, frames.videos, frames.keys, (), frames.places)
    if readable.all():
        return whole
    kept = whole.take(np.flatnonzero(readable))
    return TrainingFrames(
        kept.pixels, kept.labels, kept.videos, kept.keys, lost_frames(recordings, readable), kept.places
    )


def recording_labels(recordings: Sequence[LabelledRecording], keys: Sequence[str]) -> TrainingFrames:
    """Return the labelled frames of recordings without their pixels (N, 0, 0, 3). No video is opened.

    Raises:
        InputError: a label is not among ``keys``.
    """
    column = {key: i for i, key in enumerate(keys)}
    for recording in recordings:
        for row in recording.rows:
            if row.label not in column:
                raise InputError(
                    f"{recording.truth} line {row.line} has the label {row.label!r}, allowed is one of "
                    f"{', '.join(keys)}",
                    hint="give the class frames in the data set, or exclude it in a label map (--labels map.yaml)",
                )
    rows = [(recording, row) for recording in recordings for row in recording.rows]
    return TrainingFrames(
        np.empty((len(rows), 0, 0, 3), np.uint8),
        np.array([column[row.label] for _, row in rows], np.int64),
        np.array([recording.video_id for recording, _ in rows], np.str_),
        tuple(keys),
        places=np.array([row.index for _, row in rows], np.int64),
    )


def without_recorded(dataset: Dataset, recordings: Sequence[LabelledRecording]) -> Dataset:
    """Return the images of a data set without the frames that the recordings have too.

    A frame is known by its video and its number. The recording's copy stays, because recordings are what the model
    will read.
    """
    recorded = {
        (recording.video_id, row.frame_number)
        for recording in recordings
        for row in recording.rows
        if row.frame_number is not None
    }
    return dataset.take(
        i for i, sample in enumerate(dataset.samples)
        if (sample.video_id, sample.frame_number) not in recorded
    )  # fmt: skip


def decode_recordings(
    recordings: Sequence[LabelledRecording], spec: InputSpec, pixels: Pixels
) -> npt.NDArray[np.bool_]:
    """Decode and prepare the labelled frames into ``pixels``, several recordings at once.

    Args:
        recordings: the recordings, with N labelled frames together.
        spec: the input of the model.
        pixels: uint8 (N, size, size, 3) to write to, in the order of the recordings and their rows.

    Returns:
        Which frames could be read, bool (N,). The others are left as they were.

    Raises:
        InputError: a recording cannot be read, or its truth does not fit it.
    """
    readable = np.zeros(len(pixels), bool)
    starts = np.cumsum([0, *(len(recording.rows) for recording in recordings)])
    parts = [slice(int(a), int(b)) for a, b in pairwise(starts)]

    def one(recording: LabelledRecording, part: slice) -> None:
        readable[part] = _decode_recording(recording, spec, pixels[part])

    # The longest recording first, so that no thread is left with it at the end.
    order = sorted(range(len(parts)), key=lambda at: -len(recordings[at].rows))
    with ThreadPoolExecutor(min(count_cores(), max(1, len(parts)))) as pool:
        running = [pool.submit(one, recordings[at], parts[at]) for at in order]
        try:
            for each in running:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return readable


def lost_frames(recordings: Sequence[LabelledRecording], readable: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the names of the frames that could not be read, such as ``exam.mp4 frame 12``."""
    names = ((recording.video, row.index) for recording in recordings for row in recording.rows)
    return tuple(
        f"{video} frame {index}" for (video, index), known in zip(names, readable, strict=True) if not known
    )


def _decode_recording(recording: LabelledRecording, spec: InputSpec, pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Decode and prepare one recording. Return which of its rows could be read."""
    readable = np.zeros(len(recording.rows), bool)
    if not recording.rows:
        return readable
    container = scan(recording.video)
    _check_fit(recording, container)
    row_of = {row.index: at for at, row in enumerate(recording.rows)}
    # The field of view comes from the first frames, labelled or not, as it does in reading.
    frames = read_frames(container, range(container.present))
    buffers = PixelBuffers()
    with closing(frames):
        box, all_frames = settle_field_of_view(frames, spec)
        labelled = _until_last(all_frames, row_of)
        for batch in make_batches(labelled, size=_BATCH, field_of_view=box):
            prepared = prepare(batch, spec, buffers)
            rows = [row_of[frame.index] for frame in batch.with_image]
            pixels[rows] = prepared
            readable[rows] = True
            buffers.give(prepared)
    return readable


def _until_last(frames: Iterator[Frame], row_of: dict[int, int]) -> Iterator[Frame]:
    """Yield the labelled frames, and stop after the last of them."""
    last = max(row_of)
    for frame in frames:
        if frame.index in row_of:
            yield frame
        if frame.index >= last:
            return


def _check_fit(recording: LabelledRecording, container: Container) -> None:
    """Refuse a truth table that cannot belong to the recording."""
    known, rows = container.frames, recording.rows
    truth, name = recording.truth, recording.video.name
    if rows[-1].index >= known:
        raise InputError(
            f"{truth} line {rows[-1].line} labels the frame with index {rows[-1].index} and {len(rows)} frames in all,"
            f" {name} has {known} frames (index 0 to {known - 1}): they are not the same recording",
            hint="name each truth table after its own video",
        )
    for row in rows:
        if row.time_s is None or row.index >= container.present:
            continue
        read = container.times_s[row.index]
        if abs(read - row.time_s) > _LARGEST_DIFFERENCE_S:
            raise InputError(
                f"{truth} line {row.line} puts frame {row.index} at {row.time_s} s, in {name} it is at {read:.3f} s:"
                " they are not the same recording",
                hint="name each truth table after its own video, or leave the times empty",
            )
