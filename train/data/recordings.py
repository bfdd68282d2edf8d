"""Frames of labelled recordings: decoded and prepared as reading does, so training sees what the model will read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset, Sample
from capsule_edge.evaluation.recordings import LabelledRecording, LabelledRecordings, NormalStretch
from capsule_edge.runtime.cores import count_cores
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import PixelBuffers, make_batches, prepare, settle_field_of_view
from capsule_edge.runtime.recording import Container, Frame, read_frames, scan

from ..config import TrainConfig
from .frames import TrainingFrames

__all__ = [
    "check_hard_weight",
    "check_recordings",
    "check_weighing",
    "decode_recordings",
    "images_beside",
    "lost_frames",
    "recording_frames",
    "recording_labels",
    "with_recorded",
    "without_recorded",
]

Pixels = npt.NDArray[np.uint8]

_BATCH = 16
# A truth table that belongs to another recording differs by minutes. Times of the right one may be rounded.
_LARGEST_DIFFERENCE_S = 1.0


def recording_frames(
    recordings: Sequence[LabelledRecording],
    keys: Sequence[str],
    spec: InputSpec,
    stretches: Sequence[NormalStretch] = (),
) -> TrainingFrames:
    """Decode and prepare the labelled frames of recordings, several recordings at once.

    Corrupt frames are left out and named in ``unreadable``.

    Args:
        recordings: the recordings with their truth.
        keys: the labels of the model, in order.
        spec: the input of the model.
        stretches: normal frames on which a model raised events; they become ``hard``.

    Raises:
        InputError: a label is not among ``keys``, a recording cannot be read, its truth does not fit it, a stretch
            does not fit, or no frame can be read.
    """
    frames = recording_labels(recordings, keys, stretches)
    pixels = np.empty((len(frames), spec.size, spec.size, 3), np.uint8)

    def keep(row: int, frame: Pixels) -> None:
        pixels[row] = frame

    readable = decode_recordings(recordings, spec, keep)
    if not readable.any():
        raise InputError(f"none of the {len(frames)} frames of the recordings can be read")
    whole = replace(frames, pixels=pixels)
    if readable.all():
        return whole
    kept = whole.take(np.flatnonzero(readable))
    return replace(kept, unreadable=lost_frames(recordings, readable))


def recording_labels(
    recordings: Sequence[LabelledRecording], keys: Sequence[str], stretches: Sequence[NormalStretch] = ()
) -> TrainingFrames:
    """Return the labelled frames of recordings without their pixels (N, 0, 0, 3). No video is opened.

    Args:
        recordings: the recordings with their truth.
        keys: the labels of the model, in order.
        stretches: as for ``recording_frames``.

    Raises:
        InputError: a label is not among ``keys``, or a stretch does not fit.
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
        hard=_hard_rows(recordings, stretches) if stretches else None,
    )


def _hard_rows(
    recordings: Sequence[LabelledRecording], stretches: Sequence[NormalStretch]
) -> npt.NDArray[np.bool_]:
    """Return which labelled frames lie in a stretch and do not carry its label, bool (N,).

    Stretches of recordings that are not drawn, such as those of ``val``, mark nothing.

    Raises:
        InputError: no stretch is of one of the recordings, or a stretch holds no such frame.
    """
    starts = np.cumsum([0, *(len(recording.rows) for recording in recordings)])
    hard = np.zeros(int(starts[-1]), bool)
    of_drawn = 0
    for recording, start in zip(recordings, starts, strict=False):
        for stretch in stretches:
            if stretch.recording not in (recording.video.name, recording.video.stem):
                continue
            of_drawn += 1
            inside = [
                at for at, row in enumerate(recording.rows, int(start))
                if stretch.first_index <= row.index <= stretch.last_index and row.label != stretch.label
            ]  # fmt: skip
            if not inside:
                raise InputError(
                    f"the stretch {stretch.first_index} to {stretch.last_index} of {stretch.recording} "
                    f"({stretch.label}) holds no frame of another label in {recording.truth}",
                    hint="list the stretches again with this truth table",
                )
            hard[inside] = True
    if not of_drawn:
        raise InputError(
            f"none of the {len(stretches)} stretches is of a recording that is drawn, such as "
            f"{stretches[0].recording}",
            hint="list the stretches of the recordings that are trained on",
        )
    return hard


def check_recordings(recordings: Sequence[LabelledRecording]) -> None:
    """Check that each recording can be opened and fits its truth. No frame is decoded.

    Raises:
        InputError: a recording cannot be read, or its truth does not fit it.
    """
    for recording in recordings:
        if recording.rows:
            _check_fit(recording, scan(recording.video))


def check_weighing(recordings: Path | None, weigh: Path | None) -> None:
    """Raise ``UsageError`` if a table of stretches comes without the recordings that it is about."""
    if weigh is not None and recordings is None:
        raise UsageError(
            f"the stretches {weigh} come without recordings, so there are no such frames to weigh",
            hint="name the recordings that they are of: --recordings DIR",
        )


def check_hard_weight(config: TrainConfig, *, weighed: bool) -> None:
    """Raise ``UsageError`` if ``config`` weighs hard frames and no table lists them (``weighed``)."""
    if config.hard_weight != 1 and not weighed:
        raise UsageError(
            f"hard_weight is {config.hard_weight}, and no table lists the frames that it weighs",
            hint="name the table: --weigh stretches.csv, or set hard_weight to 1",
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


def images_beside(recordings: LabelledRecordings) -> Dataset:
    """Return a data set without images, with the classes of ``recordings``: for training on recordings alone."""
    return Dataset(
        (), recordings.labels, recordings.folder, recordings.split,
        described=recordings.classes, stated_roles=recordings.stated_roles,
    )  # fmt: skip


def with_recorded(dataset: Dataset, recordings: LabelledRecordings | None) -> Dataset:
    """Return every frame of a training run as a sample: the images, then the labelled frames of the recordings.

    An image that the recordings have too is left out. The file of a recorded frame is its recording.
    """
    if recordings is None:
        return dataset
    recorded = tuple(
        Sample(recording.video, row.label, None, recording.video_id, row.frame_number, recording.split)
        for recording in recordings.recordings
        for row in recording.rows
    )
    left = without_recorded(dataset, recordings.recordings)
    return replace(left, samples=left.samples + recorded)


def decode_recordings(
    recordings: Sequence[LabelledRecording], spec: InputSpec, keep: Callable[[int, Pixels], None]
) -> npt.NDArray[np.bool_]:
    """Decode and prepare the labelled frames, several recordings at once.

    Args:
        recordings: the recordings, with N labelled frames together.
        spec: the input of the model.
        keep: called for each sound frame, in any order and from several threads, with its row (0..N - 1, in the order
            of the recordings and their rows) and its pixels, uint8 (size, size, 3). Copy the pixels: they are reused.

    Returns:
        Which frames could be read, bool (N,).

    Raises:
        InputError: a recording cannot be read, or its truth does not fit it.
    """
    starts = np.cumsum([0, *(len(recording.rows) for recording in recordings)])
    parts = [slice(int(a), int(b)) for a, b in pairwise(starts)]
    readable = np.zeros(int(starts[-1]), bool)

    def one(at: int) -> None:
        part = parts[at]
        for row, pixels in _decode_recording(recordings[at], spec):
            keep(part.start + row, pixels)
            readable[part.start + row] = True

    # The longest recording first, so that no thread is left with it at the end.
    order = sorted(range(len(parts)), key=lambda at: -len(recordings[at].rows))
    with ThreadPoolExecutor(min(count_cores(), max(1, len(parts)))) as pool:
        running = [pool.submit(one, at) for at in order]
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


def _decode_recording(recording: LabelledRecording, spec: InputSpec) -> Iterator[tuple[int, Pixels]]:
    """Decode and prepare one recording.

    Yields:
        The row in ``recording.rows`` and the pixels of each sound frame. The next step reuses the pixels.
    """
    if not recording.rows:
        return
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
            for frame, pixels in zip(batch.with_image, prepared, strict=True):
                yield row_of[frame.index], pixels
            buffers.give(prepared)


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
