"""What a recording's container holds, listed before a picture is decoded.

``scan`` walks the packets once and accounts for each: what the header announces, what is there, in which
order and when it is shown. The pictures are not decoded, so the pass costs little more than reading the
file.
"""

from __future__ import annotations

import hashlib
import heapq
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median_low
from typing import Literal

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .errors import InputError
from .events import time_kind
from .extents import Boxes, avi_is_cut, matroska_is_cut, read_boxes
from .ffmpeg import (
    MOST_PIXELS,
    decode_packets,
    drain,
    open_decoder,
    open_recording,
    picture_packets,
    quote,
    send,
)
from .orientation import orientation_of

__all__ = ["REORDER", "Container", "Sample", "scan"]

# No codec shows a picture more than 16 places away from where it is stored (H.264, HEVC); twice that
# leaves room for paired fields. Time stamps wilder than this keep the file's order, which bounds the
# pictures held while decoding.
REORDER = 32
# 38 hours at 30 frames a second. A header that announces more is damaged, and would fill the ledger with
# nothing.
_MOST_FRAMES = 1 << 22

_AGAIN = "copy it again from the recorder"
_REBUILD = f"{_AGAIN}, or rebuild the index with a repair tool and an intact recording of the same device"


@dataclass(frozen=True, slots=True)
class Sample:
    """One packet that carries a picture.

    ``pts`` and ``dts`` are the file's, in ticks of the time base; ``size`` is in bytes. ``flagged``: the
    demuxer got only a part of it or met errors in it. ``edited_out``: the edit list discards it; it is
    decoded, never shown.
    """

    pts: int | None
    dts: int | None
    size: int
    key: bool
    flagged: bool
    edited_out: bool


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
    samples: tuple[Sample, ...] = field(repr=False)
    order: tuple[int, ...] = field(repr=False)
    pts: tuple[int, ...] = field(repr=False)
    times_s: tuple[float, ...] = field(repr=False)
    transposed: bool = field(default=False, kw_only=True)

    def digest(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

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
        # The index as the header gives it: reading on adds entries in some containers.
        index = [(entry.timestamp, entry.pos, entry.size, entry.is_discard) for entry in stream.index_entries]
        first: list[Packet[VideoStream]] = []
        found: list[Sample] = []
        for each in picture_packets(source, stream):
            found.append(
                Sample(each.pts, each.dts, each.size, each.is_keyframe, each.is_corrupt, each.is_discard)
            )
            if len(first) < REORDER:
                first.append(each)
        samples = tuple(found)
        kind, header, reorders = source.format.name, stream.frames, bool(context.has_b_frames)
        colorspace, color_range = int(context.colorspace), int(context.color_range)
        time_base = stream.time_base or Fraction(1, 1)
        transposed = _is_transposed(path, stream, first)
    if all(sample.edited_out for sample in samples):
        of = f" of the {header} it announces" if header else ""
        raise InputError(f"{quote(path)} holds no picture{of}", hint=_AGAIN)

    announced = header if 0 < header <= _MOST_FRAMES else None
    truncated: bool | None = None
    edited_out = sum(sample.edited_out for sample in samples)
    if boxes is not None and boxes.fragmented:
        announced = None
        truncated = boxes.overrun or (False if boxes.closed else None)
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
    ascending = all(a.pts is not None and b.pts is not None and a.pts < b.pts for a, b in pairwise(samples))
    shown = _shown_order(path, len(samples)) if kind == "avi" and reorders and ascending else None
    order, pts, stamps = _present(samples, shown)
    distances = [later - earlier for earlier, later in pairwise(stamps)]
    distance = median_low(distances) * time_base if distances else None
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
        duration_s=float((stamps[-1] - stamps[0]) * time_base + (distance or 0)),
        frame_distance_s=None if distance is None else float(distance),
        transposed=transposed,
        samples=samples,
        order=tuple(order),
        pts=tuple(pts),
        times_s=tuple(float((stamp - stamps[0]) * time_base) for stamp in stamps),
    )


def _is_transposed(path: Path, stream: VideoStream, first: Sequence[Packet[VideoStream]]) -> bool:
    """Whether the upright picture has rows for columns, by the first picture that can be decoded."""
    try:
        decoder = open_decoder(path, stream)
    except InputError:  # said when it is read
        return False
    waiting: dict[int, int | None] = {}
    pictures: list[tuple[int, VideoFrame]] = []
    for index, packet in enumerate(first):
        pictures = send(decoder, packet, index, waiting).pictures
        if pictures:
            break
    for _, picture in pictures or drain(decoder, waiting):
        orientation = orientation_of(picture)
        return orientation is not None and orientation.transposed
    return False


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


def _shown_order(path: Path, count: int) -> list[int]:
    """Decoding indices in the order in which the decoder shows them, for a container that cannot tell.

    A picture that the decoder never shows stays behind the one stored before it.
    """
    place: dict[int, int] = {}
    with open_recording(path) as (source, stream):
        for step in decode_packets(path, source, stream):
            for index, _ in step.pictures:
                place[index] = len(place)
    places = accumulate(range(count), lambda last, index: place.get(index, last), initial=-1)
    return [index for _, index in sorted(zip(list(places)[1:], range(count), strict=True))]


def _present(
    samples: Sequence[Sample], shown: Sequence[int] | None
) -> tuple[list[int], list[int], list[int]]:
    """(indices into ``samples``, pts, ticks on one ascending time line) of the presented samples.

    The order is that of the time stamps, within ``REORDER`` places of the stored order; ``shown``
    overrides it. Where the stamps start anew (recordings joined end to end) the time line goes on.
    """
    stamps = _unwrap(samples)
    presented = [index for index, sample in enumerate(samples) if not sample.edited_out]
    if shown is not None:
        line = sorted(stamps[index] for index in presented)
        return [index for index in shown if not samples[index].edited_out], line, line
    order: list[int] = []
    heap: list[tuple[int, int]] = []
    for index in presented:
        heapq.heappush(heap, (stamps[index], index))
        if len(heap) > REORDER:
            order.append(heapq.heappop(heap)[1])
    order += [heapq.heappop(heap)[1] for _ in range(len(heap))]
    pts = [stamps[index] if (own := samples[index].pts) is None else own for index in order]
    return order, pts, list(accumulate((stamps[index] for index in order), max))


def _unwrap(samples: Sequence[Sample]) -> list[int]:
    """A time stamp in ticks for each sample: its pts, else its dts, else that of the sample before."""
    own: list[int] = []
    for sample in samples:
        stamp = sample.dts if sample.pts is None else sample.pts
        own.append((own[-1] if own else 0) if stamp is None else stamp)
    stamps: list[int] = []
    recent: deque[int] = deque(maxlen=REORDER)
    offset = 0
    for index, stamp in enumerate(own):
        # A new start, not one damaged stamp: several pictures lie before everything that is still being
        # reordered.
        if len(recent) == REORDER and max(own[index : index + 4]) + offset < min(recent):
            step = (max(recent) - min(recent)) // (REORDER - 1)
            offset = max(recent) + step - stamp
        stamps.append(stamp + offset)
        recent.append(stamp + offset)
    return stamps
