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
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import InputError
from .appended import AppendedRecording, divide
from .avi_index import count_last_empty
from .coded_pictures import PacketRole, RoleReader, role_reader
from .damage_lines import damage_detection
from .encryption import EncryptionCount, refuse_encrypted
from .ffmpeg import MOST_PIXELS, StreamPlace, open_recording, picture_packets, quote
from .h264_headers import H264Fields
from .leading_pictures import find_leading, leave_out_leading, warn_of_leading
from .leftovers import (
    fits,
    warn_of_appended,
    warn_of_encrypted,
    warn_of_growth,
    warn_of_header,
    warn_of_shape,
    warn_of_streams,
)
from .mp4_tables import protected_tracks, read_tables
from .orientation import Orientation
from .packets import REORDER, PacketInfo, PacketTable, Presentation, list_times, present, unreliable
from .probe import FirstImage, contradicts_stamps, decode_order, probe_first_image
from .streams import StreamCount, open_stream
from .timecode import TimeKind, time_kind
from .transport import count_pids, count_program_streams
from .truncation import Boxes, announced_bytes, avi_is_cut, matroska_is_cut, read_boxes
from .warning import DamageDetection, RecordingWarning, TimesSource

__all__ = ["Container", "PacketInfo", "PacketTable", "scan_video"]

_BLOCK = 1 << 20

# Frames a second of a recording that announces no rate, and has no stamps.
_COMMON_RATE = Fraction(25)

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
    path = Path(path)
    size, boxes = _examine(path)
    end, parts = divide(path, size)
    if parts:
        # The first recording's, or where all are read the last one's: it says whether the file is cut.
        boxes = parts[-1 if end == size else 0].boxes
    found, left_out = _without_leading(path, _read_readable(path, end, boxes, stream))
    packets = found.packets
    if not len(packets.pictures):
        of = f" of the {found.header_frames} it announces" if found.header_frames else ""
        raise InputError(f"{quote(path)} holds no picture{of}", hint=_AGAIN)
    truncated = _is_truncated(path, end, boxes, found)
    announced, edited_out = _count_frames(path, boxes, found)
    warnings = [*_list_warnings(found, parts, end), *warn_of_leading(left_out)]
    if announced is not None and not _can_hold(path, end, found, announced - edited_out):
        warnings.append(warn_of_header(announced, len(packets)))
        announced = None
    presentation, times = _present(path, found)
    warnings += _warn_of_times(times, len(presentation.restarts))
    if found.format == "mpegts":
        packets = _excuse_joints(packets, presentation.restarts)
    line = presentation.line
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
        place=found.place,
        packets=packets,
        order=presentation.order,
        pts=presentation.pts,
        times_s=times_s,
        times=times,
        damage_detection=damage_detection(found.codec),
    )


def _without_leading(path: Path, found: _Stream) -> tuple[_Stream, int]:
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


def _present(path: Path, found: _Stream) -> tuple[Presentation, TimesSource]:
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


@dataclass(frozen=True)
class _Stream:
    """The video stream of an opened file, as the file describes it.

    ``reorders``: the codec shows frames in another order than they are stored. ``contradicted``: the container's stamps
    are not those of that order. ``step`` is the number of ticks between frames, by the announced rate.
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
    contradicted: bool
    step: Fraction
    first_image: FirstImage
    packets: PacketTable
    from_tables: bool
    index: list[tuple[int, int, int, bool]]
    number: int
    place: StreamPlace
    others: tuple[StreamCount, ...]
    encrypted: int
    scrambled: int
    pixel_ratio: Fraction | None


def _read_readable(path: Path, size: int, boxes: Boxes | None, number: int | None) -> _Stream:
    try:
        return _read_stream(path, size, boxes, number)
    except InputError as error:
        # FFmpeg knows no codec for some encrypted tracks.
        if "encrypted" not in error.message and boxes is not None and protected_tracks(path, size):
            raise refuse_encrypted(path) from error
        raise


def _read_stream(path: Path, size: int, boxes: Boxes | None, number: int | None) -> _Stream:
    pids = count_pids(path, size)
    if pids and not any(count.pictures for count in pids.values()):
        raise refuse_encrypted(path, max(count.scrambled for count in pids.values()))
    with open_stream(path, size, number, pids or count_program_streams(path, size)) as opened:
        source, stream = opened.source, opened.stream
        context = stream.codec_context
        codec = context.codec.canonical_name
        if not 0 < context.width * context.height <= MOST_PIXELS:
            raise InputError(
                f"{quote(path)} announces {context.width} x {context.height} pixels, "
                f"allowed are 1 to {MOST_PIXELS} in all",
                hint=f"its header is damaged: {_AGAIN}",
            )
        header = context.extradata or b""
        tables = None
        if boxes is not None and not boxes.fragmented and _shows_each_packet(codec, header):
            tables = read_tables(path, stream, size)
        # The index as the header gives it: reading on adds entries in some containers.
        index = [] if tables is not None else _index(stream)
        encryption = EncryptionCount()
        stored = picture_packets(source, stream)
        if source.format.name.startswith(("mov", "matroska")):
            stored = encryption.watch(stored)
        first = list(islice(stored, REORDER))
        roles = role_reader(codec, header)
        packets = tables or PacketTable.of(_describe(each, roles) for each in chain(first, stored))
        reorders = bool(context.has_b_frames)
        # Opens the decoder, so it comes after all that is read from the codec's context.
        first_image = probe_first_image(path, stream, first)
        # AVI has no presentation times, and FFmpeg makes some up. In a packed stream none is that of its picture.
        contradicted = reorders and (
            source.format.name == "avi"
            or (roles is not None and roles.packed)
            or contradicts_stamps(stream, first)
        )
        encrypted = 0 if tables is not None else encryption.total(path, size, source, stream, len(packets))
        scrambled = pids[stream.id].scrambled if pids and stream.id in pids else 0
        if encrypted == len(packets) and encrypted + scrambled:
            raise refuse_encrypted(path, encrypted + scrambled)
        # PyAV 19 has a number class of its own for time bases.
        tick_s, rate = stream.time_base, stream.average_rate or _COMMON_RATE
        time_base = Fraction(tick_s.numerator, tick_s.denominator) if tick_s else Fraction(1, 1)
        ratio = stream.sample_aspect_ratio
        return _Stream(
            format=source.format.name,
            codec=codec,
            intra_only=context.codec.intra_only,
            width=context.width,
            height=context.height,
            colorspace=int(context.colorspace),
            color_range=int(context.color_range),
            time_base=time_base,
            header_frames=stream.frames,
            reorders=reorders,
            contradicted=contradicted,
            step=1 / (Fraction(rate.numerator, rate.denominator) * time_base),
            first_image=first_image,
            packets=packets,
            from_tables=tables is not None,
            index=index,
            number=opened.number,
            place=opened.place,
            others=opened.others,
            encrypted=encrypted,
            scrambled=scrambled,
            pixel_ratio=Fraction(ratio.numerator, ratio.denominator) if ratio else None,
        )


def _shows_each_packet(codec: str, header: bytes) -> bool:
    """Return whether each sample of an MP4 is a picture, so that its tables suffice (``coded_pictures``)."""
    return codec == "hevc" or (codec == "h264" and H264Fields(header).frames_only)


def _describe(packet: Packet[VideoStream], roles: RoleReader | None) -> PacketInfo:
    return PacketInfo(
        packet.pts,
        packet.dts,
        packet.size,
        packet.is_keyframe,
        packet.is_corrupt,
        packet.is_discard,
        PacketRole.SHOWS if roles is None else roles(memoryview(packet)),
    )


def _list_warnings(found: _Stream, parts: Sequence[AppendedRecording], end: int) -> list[RecordingWarning]:
    """Return the warnings about what lies in the file beside the pictures that are read.

    Args:
        found: the stream that is read.
        parts: the recordings in the file, if there are several.
        end: of the bytes that are read.
    """
    count = len(found.packets)
    unread = [each for each in parts[1:] if each.start >= end or each.pictures is None]
    if sum(each.pictures or 0 for each in parts if each.start < end) > count:
        # FFmpeg stopped before the recordings behind the first, although it could have read on.
        unread = list(parts[1:])
    return [
        *warn_of_streams(found.others),
        *warn_of_appended([each for each in unread if each.pictures != 0]),
        *warn_of_encrypted(found.encrypted + found.scrambled, count + found.scrambled),
        *warn_of_shape(found.pixel_ratio, found.width, found.height),
    ]


def _count_frames(path: Path, boxes: Boxes | None, found: _Stream) -> tuple[int | None, int]:
    """Return the number of frames that the header announces, and how many the edit list discards."""
    announced = found.header_frames if found.header_frames > 0 else None
    edited_out = int(found.packets.edited_out.sum())
    if announced is not None:
        announced -= found.packets.without_picture
    if boxes is not None and boxes.fragmented:
        return None, edited_out
    if found.from_tables or announced is None:
        return announced, edited_out
    if boxes is not None:
        announced -= sum(length == 0 for _, _, length, _ in found.index)
        kept = sum(not discard for _, _, _, discard in found.index)
        if kept != found.header_frames:
            edited_out = max(0, _count_unedited(path, found.place) - kept)
    elif found.format == "avi":
        ticks = [ticks for ticks, *_ in found.index] or [each.dts or 0 for each in found.packets]
        with path.open("rb") as file:
            announced -= _empty_slots(ticks) + count_last_empty(file)
    return announced, edited_out


def _can_hold(path: Path, size: int, found: _Stream, frames: int) -> bool:
    """Return whether the whole file, as long as it says it is, can hold this number of frames to be shown."""
    missing = frames - int((~found.packets.edited_out).sum())
    return missing <= 0 or fits(
        missing, announced_bytes(path, size, found.index) - int(found.packets.sizes.sum())
    )


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


def _count_unedited(path: Path, place: StreamPlace) -> int:
    """Return the number of index entries of an MP4 when its edit list is not applied."""
    with open_recording(path, place, ignore_editlist="1") as (_, stream):
        return len(stream.index_entries)


def _empty_slots(ticks: Sequence[int]) -> int:
    """Return the number of ticks without a frame, up to the last frame of an AVI.

    An AVI has one place for a frame at each tick. An empty place means "show the last frame again".
    """
    return max(0, ticks[-1] + 1 - len(ticks))
