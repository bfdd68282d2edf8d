"""What a recording's container holds, listed before a picture is decoded.

``scan`` accounts for each packet: what the header announces, what is there, in which order and when it is shown. The
pictures are not decoded. Of a plain MP4 the sample tables alone are read (``sample_tables``); in all other files
the packets are walked through once, which costs little more than reading the file.
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
from ..events import time_kind
from .ffmpeg import MOST_PIXELS, open_recording, picture_packets, quote
from .mp4_tables import read_tables
from .packets import REORDER, Sample, Samples, list_times, present
from .probe import is_transposed, order_shown
from .truncation import Boxes, avi_is_cut, matroska_is_cut, read_boxes

__all__ = ["Container", "Sample", "Samples", "scan"]

# 38 hours at 30 frames a second. A header that announces more is damaged, and would fill the ledger with
# nothing.
_MOST_FRAMES = 1 << 22

_AGAIN = "copy it again from the recorder"
_REBUILD = f"{_AGAIN}, or rebuild the index with a repair tool and an intact recording of the same device"


@dataclass(frozen=True)
class Container:
    """A recording as its container describes it; times are seconds from the first presented picture.

    ``samples`` are in decoding order. ``order`` lists the presented ones as indices into ``samples``;
    ``pts`` (ticks) and ``times_s`` run along it. ``announced`` is the header's count of pictures, None
    where it has none, and ``edited_out`` how many of them the edit list discards. ``truncated`` is None
    where the container does not say how long it is. ``intra_only``: every picture of this codec stands
    alone. ``transposed``: the upright picture has ``height`` columns and ``width`` rows (``orientation``).
    ``start_pts`` belongs to the first presented picture; ``frame_distance_s`` is the median, None
    for a single picture. ``colorspace`` holds a matrix code point of ITU-T H.273 (2: untagged),
    ``color_range`` is 1 for limited, 2 for full, 0 for untagged.
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
    samples: Samples = field(repr=False)
    order: array[int] = field(repr=False)
    pts: array[int] = field(repr=False)
    times_s: array[float] = field(repr=False)
    transposed: bool = field(default=False, kw_only=True)

    def digest(self) -> str:
        """SHA-256 of the file. Raises ``InputError`` where it is no longer there."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(
                f"{quote(self.path)} went away while it was read: {error.strerror or error}"
            ) from error

    @property
    def present(self) -> int:
        """Pictures that are there to be shown."""
        return len(self.order)

    @property
    def frames(self) -> int:
        """Container frames: the larger of what the header announces and what is there, without the edited
        out.
        """
        return max((self.announced or 0) - self.edited_out, self.present)

    @property
    def missing(self) -> int:
        """Container frames that were announced and are not there."""
        return self.frames - self.present

    @property
    def container_source(self) -> Literal["header", "packets", "unknown"]:
        """Where ``frames`` comes from; ``unknown``: the file is cut, and nothing says how many pictures
        it had.
        """
        if self.announced is not None and self.announced - self.edited_out >= self.present:
            return "header"
        return "unknown" if self.truncated else "packets"

    @property
    def time_kind(self) -> Literal["capture", "playback"]:
        return time_kind(self.frame_distance_s)


def scan(path: str | Path) -> Container:
    """List every picture of the recording at ``path``.

    Raises ``InputError`` when the file is missing, unreadable, no recording, without a video stream or a
    picture, or without the index that says where its pictures are.
    """
    path = Path(path)
    size, boxes = _examine(path)
    with open_recording(path) as (source, stream):
        context = stream.codec_context
        codec, intra_only = context.codec.canonical_name, context.codec.intra_only
        width, height = context.width, context.height
        if not 0 < width * height <= MOST_PIXELS:
            raise InputError(
                f"{quote(path)} announces {width} x {height} pixels, allowed are 1 to {MOST_PIXELS} in all",
                hint=f"its header is damaged: {_AGAIN}",
            )
        tables = None
        if boxes is not None and not boxes.fragmented and codec in ("h264", "hevc"):
            tables = read_tables(path, stream, size)
        # The index as the header gives it: reading on adds entries in some containers.
        index = [] if tables is not None else _index(stream)
        packets = picture_packets(source, stream)
        first = list(islice(packets, REORDER))
        samples = tables or Samples.of(
            Sample(each.pts, each.dts, each.size, each.is_keyframe, each.is_corrupt, each.is_discard)
            for each in chain(first, packets)
        )
        kind, header, reorders = source.format.name, stream.frames, bool(context.has_b_frames)
        colorspace, color_range = int(context.colorspace), int(context.color_range)
        # PyAV 19 has a number class of its own for time bases.
        ticks_s = stream.time_base
        time_base = Fraction(ticks_s.numerator, ticks_s.denominator) if ticks_s else Fraction(1, 1)
        transposed = is_transposed(path, stream, first)
    if samples.edited_out.all():
        of = f" of the {header} it announces" if header else ""
        raise InputError(f"{quote(path)} holds no picture{of}", hint=_AGAIN)

    announced = header if 0 < header <= _MOST_FRAMES else None
    truncated: bool | None = None
    edited_out = int(samples.edited_out.sum())
    if boxes is not None and boxes.fragmented:
        announced = None
        truncated = boxes.overrun or (False if boxes.closed else None)
    elif tables is not None:
        truncated = False
    elif boxes is not None:
        truncated = any(pos + length > size for _, pos, length, _ in index)
        if announced is not None:
            announced -= sum(length == 0 for _, _, length, _ in index)
            kept = sum(not discard for _, _, _, discard in index)
            if kept != header:
                edited_out = max(0, _count_unedited(path) - kept)
    elif kind == "avi":
        with path.open("rb") as file:
            truncated = avi_is_cut(file, size)
        if announced is not None:
            announced -= _empty_slots([ticks for ticks, *_ in index] or [each.dts or 0 for each in samples])
    elif kind.startswith("matroska"):
        with path.open("rb") as file:
            truncated = matroska_is_cut(file, size)

    # AVI has no presentation times, and what FFmpeg makes up for H.264 in it is the decoding order.
    shown = None
    if kind == "avi" and reorders and samples.ascending:
        shown = order_shown(path, len(samples))
    order, pts, line = present(samples, shown)
    times_s, ticks = list_times(line, time_base)
    distance = None if ticks is None else ticks * time_base
    return Container(
        path=path,
        format=kind,
        codec=codec,
        intra_only=intra_only,
        width=width,
        height=height,
        colorspace=colorspace,
        color_range=color_range,
        time_base=time_base,
        announced=announced,
        truncated=truncated,
        edited_out=edited_out,
        start_pts=pts[0],
        duration_s=float((line[-1] - line[0]) * time_base + (distance or 0)),
        frame_distance_s=None if distance is None else float(distance),
        transposed=transposed,
        samples=samples,
        order=order,
        pts=pts,
        times_s=times_s,
    )


def _index(stream: VideoStream) -> list[tuple[int, int, int, bool]]:
    return [(entry.timestamp, entry.pos, entry.size, entry.is_discard) for entry in stream.index_entries]


def _examine(path: Path) -> tuple[int, Boxes | None]:
    """Size in bytes, and the top level of an MP4; every fault that needs no FFmpeg is named here."""
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
    """Index entries of an MP4 when its edit list is not applied."""
    with open_recording(path, ignore_editlist="1") as (_, stream):
        return len(stream.index_entries)


def _empty_slots(ticks: Sequence[int]) -> int:
    """Places of an AVI's even time line that hold no picture ("show the last one again"), up to the last
    picture.
    """
    return max(0, ticks[-1] + 1 - len(ticks))
