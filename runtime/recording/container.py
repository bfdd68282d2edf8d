"""List every frame of a video file before any is decoded.

``scan_video`` reads the number of frames that the header announces. It lists the packets in the file, with the order
and the times at which their frames are shown. For a plain MP4 it reads the sample tables alone (``mp4_tables``). In
all other files it demuxes the packets once, which costs little more than reading the file.
"""

from __future__ import annotations

import hashlib
import stat
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .appended import AppendedRecording, divide
from .damage_lines import damage_detection
from .ffmpeg import StreamPlace, quote
from .file_window import FragmentedFile, StoredFile
from .frame_count import can_hold, count_frames, is_truncated
from .leading_pictures import find_leading, leave_out_leading, warn_of_leading
from .leftovers import (
    warn_of_appended,
    warn_of_encrypted,
    warn_of_growth,
    warn_of_header,
    warn_of_shape,
    warn_of_streams,
)
from .orientation import Orientation
from .packets import PacketInfo, PacketTable, Presentation, list_times, present, unreliable
from .probe import decode_order
from .scanned_stream import ScannedStream, scan_stream
from .timecode import TimeKind, time_kind
from .truncation import Boxes, read_boxes
from .warning import DamageDetection, RecordingWarning, TimesSource

__all__ = ["Container", "PacketInfo", "PacketTable", "list_pictures", "scan_video"]

_BLOCK = 1 << 20

_AGAIN = "copy it again from the recorder"
_REBUILD = f"{_AGAIN}, or rebuild the index with a repair tool and an intact recording of the same device"


@dataclass(frozen=True)
class Container:
    """A recording as its container describes it. Times are seconds from the first presented frame.

    Attributes:
        path: of the file.
        format: FFmpeg's name of the container format.
        codec: FFmpeg's name of the codec.
        intra_only: every frame of this codec decodes by itself.
        width, height: of the stored images, in pixels.
        colorspace: matrix code point of ITU-T H.273 (2: untagged).
        color_range: 1 limited, 2 full, 0 untagged.
        time_base: seconds per tick.
        announced: number of frames that the header announces; None where it announces none.
        truncated: the file ends before its header says; None where the container does not say.
        edited_out: number of announced frames that the edit list discards.
        start_pts: of the first presented frame, ticks.
        duration_s: from the first presented frame to the end of the last.
        frame_distance_s: median distance between frames; None for a single frame.
        packets: in decoding order.
        order: the presented packets as indices into ``packets``, in presentation order.
        pts: of the presented frames, ticks.
        times_s: of the presented frames.
        transposed: the upright image has ``height`` columns and ``width`` rows.
        orientation: how the first image is turned; None for an upright one.
        times: ``container`` if order and times are the container's, ``inferred`` if the decoder told them.
        damage_detection: how much of the damage in a frame the codec's decoder reports.
        warnings: what was read in spite of an odd field, was inferred, or lies in the file and is not read.
        stream: number of the video stream that is read, as ffprobe shows it.
        size: of the file in bytes when it was scanned; None for a series of images. Nothing behind them is read.
        place: of the stream in the file, to open it again.
    """

    path: Path
    format: str
    codec: str
    intra_only: bool
    width: int
    height: int
    colorspace: int
    color_range: int
    time_base: Fraction
    announced: int | None
    truncated: bool | None
    edited_out: int
    start_pts: int
    duration_s: float
    frame_distance_s: float | None
    packets: PacketTable = field(repr=False)
    order: array[int] = field(repr=False)
    pts: array[int] = field(repr=False)
    times_s: array[float] = field(repr=False)
    transposed: bool = field(default=False, kw_only=True)
    orientation: Orientation | None = field(default=None, kw_only=True)
    times: TimesSource = field(default="container", kw_only=True)
    damage_detection: DamageDetection = field(default="full", kw_only=True)
    warnings: tuple[RecordingWarning, ...] = field(default=(), kw_only=True)
    stream: int = field(default=0, kw_only=True)
    size: int | None = field(default=None, kw_only=True)
    place: StreamPlace = field(default=StreamPlace(), kw_only=True, repr=False)

    def digest(self) -> str:
        """Return the SHA-256 of the file's first ``size`` bytes: those that are read, also while the file grows.

        Raises:
            InputError: the file is no longer there, or is shorter now.
        """
        whole, left = hashlib.sha256(), self.size or 0
        try:
            with self.path.open("rb") as file:
                while left and (block := file.read(min(left, _BLOCK))):
                    whole.update(block)
                    left -= len(block)
        except OSError as error:
            raise InputError(
                f"{quote(self.path)} went away while it was read: {error.strerror or error}"
            ) from error
        if left:
            raise InputError(f"{quote(self.path)} became shorter while it was read", hint="read it again")
        return whole.hexdigest()

    def stream_digest(self) -> str | None:
        """Return the SHA-256 of the bit stream where it lies inside another file (DICOM); None for other recordings.

        Raises:
            InputError: the file is no longer there.
        """
        if not self.place.fragments:
            return None
        try:
            whole = hashlib.sha256()
            with FragmentedFile(self.path, self.place.fragments).open("rb") as file:
                while block := file.read(_BLOCK):
                    whole.update(block)
            return whole.hexdigest()
        except OSError as error:
            raise InputError(
                f"{quote(self.path)} went away while it was read: {error.strerror or error}"
            ) from error

    def growth(self) -> tuple[RecordingWarning, ...]:
        """Return a warning where the recording has grown since it was scanned. Call it when it has been read."""
        if self.size is None:
            return ()
        try:
            added = self.path.stat().st_size - self.size
        except OSError:  # a recording that went away was still read
            return ()
        return (warn_of_growth(self.path, f"{added:,} bytes"),) if added > 0 else ()

    @property
    def present(self) -> int:
        """Number of frames that are there to be shown."""
        return len(self.order)

    @property
    def frames(self) -> int:
        """Number of container frames: ``announced`` less ``edited_out``, or ``present`` if that is larger."""
        return max((self.announced or 0) - self.edited_out, self.present)

    @property
    def missing(self) -> int:
        """Number of frames that were announced and are not there."""
        return self.frames - self.present

    @property
    def container_source(self) -> Literal["header", "packets", "unknown"]:
        """The source of ``frames``. ``unknown``: the file is cut, and nothing says how many frames it had."""
        if self.announced is not None and self.announced - self.edited_out >= self.present:
            return "header"
        return "unknown" if self.truncated else "packets"

    @property
    def time_kind(self) -> TimeKind:
        """``capture`` if the file keeps the capsule's timing, ``playback`` if it plays faster."""
        return time_kind(self.frame_distance_s)


def scan_video(path: str | Path, *, stream: int | None = None) -> Container:
    """List every frame of a video file. The images are not decoded.

    Args:
        path: of the file.
        stream: number of the video stream, as ffprobe shows it; None for the one with most pictures.

    Raises:
        InputError: the file is missing, unreadable or no recording, has no video stream or no frame, lacks the
            index that says where its frames are, or is encrypted.
        UsageError: the file has no video stream of this number.
    """
    return list_pictures(Path(path), stream)


def list_pictures(path: StoredFile, stream: int | None) -> Container:
    """Return what ``scan_video`` returns, of a video file or of a bit stream inside another file."""
    size, boxes = _examine(path)
    end, parts = divide(path, size)
    if parts:
        # The first recording's, or where all are read the last one's: it says whether the file is cut.
        boxes = parts[-1 if end == size else 0].boxes
    found, left_out = _without_leading(path, scan_stream(path, end, boxes, stream))
    packets = found.packets
    if not len(packets.pictures):
        of = f" of the {found.header_frames} it announces" if found.header_frames else ""
        raise InputError(f"{quote(path)} holds no picture{of}", hint=_AGAIN)
    truncated = is_truncated(path, end, boxes, found)
    announced, edited_out = count_frames(path, boxes, found)
    warnings = [*_list_warnings(found, parts, end), *warn_of_leading(left_out)]
    if announced is not None and not can_hold(path, end, found, announced - edited_out):
        warnings.append(warn_of_header(announced, len(packets)))
        announced = None
    presentation, times = _present(path, found)
    warnings += _warn_of_times(times, len(presentation.restarts))
    if found.format == "mpegts":
        packets = _excuse_joints(packets, presentation.restarts)
    line = presentation.line
    times_s, ticks = list_times(line, found.time_base)
    distance = None if ticks is None else ticks * found.time_base
    place = found.place
    if isinstance(path, FragmentedFile):
        place = replace(place, fragments=path.fragments)
    return Container(
        path=path if isinstance(path, Path) else path.path,
        format=found.format,
        codec=found.codec,
        intra_only=found.intra_only,
        width=found.width,
        height=found.height,
        colorspace=found.colorspace,
        color_range=found.color_range,
        time_base=found.time_base,
        announced=announced,
        truncated=truncated,
        edited_out=edited_out,
        start_pts=presentation.pts[0],
        duration_s=float((line[-1] - line[0]) * found.time_base + (distance or 0)),
        frame_distance_s=None if distance is None else float(distance),
        transposed=found.first_image.transposed,
        orientation=found.first_image.orientation,
        warnings=(*warnings, *found.first_image.warnings),
        stream=found.number,
        size=size,
        place=place,
        packets=packets,
        order=presentation.order,
        pts=presentation.pts,
        times_s=times_s,
        times=times,
        damage_detection=damage_detection(found.codec),
    )


def _without_leading(path: StoredFile, found: ScannedStream) -> tuple[ScannedStream, int]:
    """Return the stream without the leading pictures at its start that nothing can decode, and their number."""
    if found.format == "avi" and not found.reorders:
        return found, 0
    leading = find_leading(path, found.place, found.codec, found.packets, stamped=not found.contradicted)
    packets, left_out = leave_out_leading(found.packets, leading)
    return replace(found, packets=packets), left_out


def _excuse_joints(packets: PacketTable, restarts: Sequence[int]) -> PacketTable:
    """Return the packets of a transport stream without the demuxer's flags where recordings were joined.

    The packet counters jump at a joint, so the demuxer takes packets for lost. It flags the last packet of the part
    before, or the one before that, depending on how many it held back.
    """
    flagged = packets.flagged.copy()
    for packet in restarts:
        flagged[max(packet - 2, 0) : packet] = False
    return replace(packets, flagged=flagged)


def _present(path: StoredFile, found: ScannedStream) -> tuple[Presentation, TimesSource]:
    """Return the shown packets in order, by the container's stamps or, where these do not suffice, by the decoder."""
    packets = found.packets
    if found.reorders and (found.contradicted or unreliable(packets)):
        return present(packets, decode_order(path, found.place, packets), step=found.step), "inferred"
    if packets.lacks_stamps:
        return present(packets, range(len(packets)), step=found.step), "inferred"
    return present(packets), "container"


def _warn_of_times(times: TimesSource, restarts: int) -> Iterator[RecordingWarning]:
    if times == "inferred":
        yield RecordingWarning(
            "times_inferred",
            "The file's time stamps are incomplete or contradict the order in which the decoder shows the frames. "
            "Order and times are those of the decoder.",
        )
    if restarts:
        again = "once" if restarts == 1 else f"{restarts} times"
        yield RecordingWarning(
            "clock_restarts",
            f"The clock of the file starts anew {again}, as in recordings joined end to end. The parts are read as one "
            "recording, each behind the one before.",
        )


def _list_warnings(
    found: ScannedStream, parts: Sequence[AppendedRecording], end: int
) -> list[RecordingWarning]:
    """Return the warnings about what lies in the file beside the pictures that are read.

    Args:
        found: the stream that is read.
        parts: the recordings in the file, if there are several.
        end: of the bytes that are read.
    """
    count = len(found.packets)
    unread = [each for each in parts[1:] if each.start >= end or each.pictures is None]
    # The parts are counted with all their video streams.
    there = count + sum(each.pictures for each in found.others)
    if sum(each.pictures or 0 for each in parts if each.start < end) > there:
        # FFmpeg stopped before the recordings behind the first, although it could have read on.
        unread = list(parts[1:])
    return [
        *warn_of_streams(found.others),
        *warn_of_appended([each for each in unread if each.pictures != 0]),
        *warn_of_encrypted(found.encrypted + found.scrambled, count + found.scrambled),
        *warn_of_shape(found.pixel_ratio, found.width, found.height),
    ]


def _examine(path: StoredFile) -> tuple[int, Boxes | None]:
    """Return the file's size in bytes and the top level of an MP4. Report every fault that needs no FFmpeg."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{quote(path)} is a folder, needed is a video file", hint="name the file in it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{quote(path)} is no regular file, needed is a video file")
        with path.open("rb") as file:
            boxes = read_boxes(file, status.st_size)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(
            f"{quote(path)} cannot be opened: {reason}", hint="check the path and your rights to it"
        ) from error
    if status.st_size == 0:
        raise InputError(f"{quote(path)} is empty (0 bytes)", hint=_AGAIN)
    if boxes is not None and boxes.index != "whole":
        state = "missing" if boxes.index == "absent" else "incomplete"
        raise InputError(
            f"the index of {quote(path)} is {state} because the file was cut before its end", hint=_REBUILD
        )
    return status.st_size, boxes
