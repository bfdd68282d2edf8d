"""List every frame of a video file before any is decoded.

``scan_video`` reads the number of frames that the header announces. It lists the packets in the file, with the order
and the times at which their frames are shown. For a plain MP4 it reads the sample tables alone (``mp4_tables``). In
all other files it demuxes the packets once, which costs little more than reading the file.
"""

from __future__ import annotations

import hashlib
import stat
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from av.video.stream import VideoStream

from ..errors import InputError
from .damage_lines import damage_detection
from .ffmpeg import MOST_PIXELS, open_recording, picture_packets, quote
from .leading_pictures import find_leading, leave_out_leading, warn_of_leading
from .mp4_tables import read_tables
from .packets import REORDER, PacketInfo, PacketTable, list_times, present
from .probe import is_transposed, order_shown
from .timecode import TimeKind, time_kind
from .truncation import Boxes, avi_is_cut, matroska_is_cut, read_boxes
from .warning import DamageDetection, RecordingWarning, TimesSource

__all__ = ["Container", "PacketInfo", "PacketTable", "scan_video"]

# 38 hours at 30 frames a second. A header that announces more is damaged, and the ledger would be filled with missing
# frames.
_MOST_FRAMES = 1 << 22

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
        transposed: the upright image has ``height`` columns and ``width`` rows (``orientation``).
        times: ``container`` if order and times are the container's, ``inferred`` if the decoder told them.
        damage_detection: how much of the damage in a frame the codec's decoder reports.
        leading: packets at the start whose pictures build on what came before it; no frames (``leading_pictures``).
        warnings: what was read in spite of an odd field, was inferred, or lies in the file and is not read.
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
    times: TimesSource = field(default="container", kw_only=True)
    damage_detection: DamageDetection = field(default="full", kw_only=True)
    leading: frozenset[int] = field(default=frozenset(), kw_only=True, repr=False)
    warnings: tuple[RecordingWarning, ...] = field(default=(), kw_only=True)

    def digest(self) -> str:
        """Return the SHA-256 of the file. Raise ``InputError`` where it is no longer there."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(
                f"{quote(self.path)} went away while it was read: {error.strerror or error}"
            ) from error

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


def scan_video(path: str | Path) -> Container:
    """List every frame of a video file. The images are not decoded.

    Raises:
        InputError: the file is missing, unreadable or no recording, has no video stream or no frame, or lacks the
            index that says where its frames are.
    """
    path = Path(path)
    size, boxes = _examine(path)
    found = _read_stream(path, size, boxes)
    packets = found.packets
    if packets.edited_out.all():
        of = f" of the {found.header_frames} it announces" if found.header_frames else ""
        raise InputError(f"{quote(path)} holds no picture{of}", hint=_AGAIN)
    announced, edited_out = _count_frames(path, boxes, found)
    leading: frozenset[int] = frozenset()
    if found.format != "avi" or found.reorders:
        leading = find_leading(path, found.codec, packets, stamped=found.format != "avi")
    packets, left_out = leave_out_leading(packets, leading)
    announced = None if announced is None else announced - left_out
    # AVI has no presentation times, and FFmpeg gives H.264 in it the decoding order.
    shown = None
    if found.format == "avi" and found.reorders and packets.ascending:
        shown = order_shown(path, len(packets))
    order, pts, line = present(packets, shown)
    times_s, ticks = list_times(line, found.time_base)
    distance = None if ticks is None else ticks * found.time_base
    return Container(
        path=path,
        format=found.format,
        codec=found.codec,
        intra_only=found.intra_only,
        width=found.width,
        height=found.height,
        colorspace=found.colorspace,
        color_range=found.color_range,
        time_base=found.time_base,
        announced=announced,
        truncated=_is_truncated(path, size, boxes, found),
        edited_out=edited_out,
        start_pts=pts[0],
        duration_s=float((line[-1] - line[0]) * found.time_base + (distance or 0)),
        frame_distance_s=None if distance is None else float(distance),
        transposed=found.transposed,
        packets=packets,
        order=order,
        pts=pts,
        times_s=times_s,
        damage_detection=damage_detection(found.codec),
        leading=leading,
        warnings=warn_of_leading(left_out),
    )


@dataclass(frozen=True)
class _Stream:
    """The video stream of an opened file, as the file describes it.

    ``index`` holds (time stamp, position, length, edited out) of each entry of the demuxer's index. It is copied
    before the first packet is read.
    """

    format: str
    codec: str
    intra_only: bool
    width: int
    height: int
    colorspace: int
    color_range: int
    time_base: Fraction
    header_frames: int
    reorders: bool
    transposed: bool
    packets: PacketTable
    from_tables: bool
    index: list[tuple[int, int, int, bool]]


def _read_stream(path: Path, size: int, boxes: Boxes | None) -> _Stream:
    with open_recording(path) as (source, stream):
        context = stream.codec_context
        codec = context.codec.canonical_name
        if not 0 < context.width * context.height <= MOST_PIXELS:
            raise InputError(
                f"{quote(path)} announces {context.width} x {context.height} pixels, "
                f"allowed are 1 to {MOST_PIXELS} in all",
                hint=f"its header is damaged: {_AGAIN}",
            )
        tables = None
        if boxes is not None and not boxes.fragmented and codec in ("h264", "hevc"):
            tables = read_tables(path, stream, size)
        # The index as the header gives it: reading on adds entries in some containers.
        index = [] if tables is not None else _index(stream)
        stored = picture_packets(source, stream)
        first = list(islice(stored, REORDER))
        packets = tables or PacketTable.of(
            PacketInfo(each.pts, each.dts, each.size, each.is_keyframe, each.is_corrupt, each.is_discard)
            for each in chain(first, stored)
        )
        # PyAV 19 has a number class of its own for time bases.
        tick_s = stream.time_base
        return _Stream(
            format=source.format.name,
            codec=codec,
            intra_only=context.codec.intra_only,
            width=context.width,
            height=context.height,
            colorspace=int(context.colorspace),
            color_range=int(context.color_range),
            time_base=Fraction(tick_s.numerator, tick_s.denominator) if tick_s else Fraction(1, 1),
            header_frames=stream.frames,
            reorders=bool(context.has_b_frames),
            # Opens the decoder, so it comes after all that is read from the codec's context.
            transposed=is_transposed(path, stream, first),
            packets=packets,
            from_tables=tables is not None,
            index=index,
        )


def _count_frames(path: Path, boxes: Boxes | None, found: _Stream) -> tuple[int | None, int]:
    """Return the number of frames that the header announces, and how many the edit list discards."""
    announced = found.header_frames if 0 < found.header_frames <= _MOST_FRAMES else None
    edited_out = int(found.packets.edited_out.sum())
    if boxes is not None and boxes.fragmented:
        return None, edited_out
    if found.from_tables or announced is None:
        return announced, edited_out
    if boxes is not None:
        announced -= sum(length == 0 for _, _, length, _ in found.index)
        kept = sum(not discard for _, _, _, discard in found.index)
        if kept != found.header_frames:
            edited_out = max(0, _count_unedited(path) - kept)
    elif found.format == "avi":
        ticks = [ticks for ticks, *_ in found.index] or [each.dts or 0 for each in found.packets]
        announced -= _empty_slots(ticks)
    return announced, edited_out


def _is_truncated(path: Path, size: int, boxes: Boxes | None, found: _Stream) -> bool | None:
    """Return whether the file ends before its own header says; None where the container does not say."""
    if boxes is not None and boxes.fragmented:
        return boxes.overrun or (False if boxes.closed else None)
    if found.from_tables:
        return False
    if boxes is not None:
        return any(position + length > size for _, position, length, _ in found.index)
    if found.format == "avi":
        with path.open("rb") as file:
            return avi_is_cut(file, size)
    if found.format.startswith("matroska"):
        with path.open("rb") as file:
            return matroska_is_cut(file, size)
    return None


def _index(stream: VideoStream) -> list[tuple[int, int, int, bool]]:
    return [(entry.timestamp, entry.pos, entry.size, entry.is_discard) for entry in stream.index_entries]


def _examine(path: Path) -> tuple[int, Boxes | None]:
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


def _count_unedited(path: Path) -> int:
    """Return the number of index entries of an MP4 when its edit list is not applied."""
    with open_recording(path, ignore_editlist="1") as (_, stream):
        return len(stream.index_entries)


def _empty_slots(ticks: Sequence[int]) -> int:
    """Return the number of ticks without a frame, up to the last frame of an AVI.

    An AVI has one place for a frame at each tick. An empty place means "show the last frame again".
    """
    return max(0, ticks[-1] + 1 - len(ticks))
