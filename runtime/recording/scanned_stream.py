"""List the packets of one video stream of a file, with all that the file says of them. Little is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import InputError
from .coded_pictures import PacketRole, RoleReader, role_reader
from .encryption import EncryptionCount, refuse_encrypted
from .ffmpeg import MOST_PIXELS, StreamPlace, picture_packets, quote
from .file_window import StoredFile
from .h264_headers import H264Fields
from .mp4_tables import protected_tracks, read_tables
from .packets import REORDER, PacketInfo, PacketTable
from .probe import FirstImage, contradicts_stamps, probe_first_image
from .streams import OpenedStream, StreamCount, open_stream
from .transport import count_pids, count_program_streams
from .truncation import Boxes

__all__ = ["ScannedStream", "scan_stream"]

# Codecs with pictures that are never shown. An AVI gives each of its packets a time of its own.
_HIDES_PICTURES = ("av1", "vp8", "vp9")
# Frames a second of a recording that announces no rate, and has no stamps.
_COMMON_RATE = Fraction(25)


@dataclass(frozen=True)
class ScannedStream:
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


def scan_stream(path: StoredFile, size: int, boxes: Boxes | None, number: int | None) -> ScannedStream:
    """List the packets of a video stream, and take what the file says of it.

    Args:
        path: of the file.
        size: number of bytes of the file that are read.
        boxes: its top level; None where it is no MP4.
        number: of the stream; None for the one with most pictures.

    Raises:
        InputError: the file cannot be read, or is encrypted.
        UsageError: there is no stream of this number.
    """
    try:
        return _scan(path, size, boxes, number)
    except InputError as error:
        # FFmpeg knows no codec for some encrypted tracks.
        if "encrypted" not in error.message and boxes is not None and protected_tracks(path, size):
            raise refuse_encrypted(path) from error
        raise


def _scan(path: StoredFile, size: int, boxes: Boxes | None, number: int | None) -> ScannedStream:
    pids = count_pids(path, size)
    if pids and not any(count.pictures for count in pids.values()):
        raise refuse_encrypted(path, max(count.scrambled for count in pids.values()))
    with open_stream(path, size, number, pids or count_program_streams(path, size)) as opened:
        stream = opened.stream
        context = stream.codec_context
        _check_size(path, context.width, context.height)
        listed = _list_packets(path, size, boxes, opened)
        reorders = bool(context.has_b_frames)
        # Opens the decoder, so it comes after all that is read from the codec's context.
        first_image = probe_first_image(path, stream, listed.first)
        # AVI has no presentation times, and FFmpeg makes some up. In a packed stream none is that of its picture.
        contradicted = reorders and (
            opened.source.format.name == "avi" or listed.packed or contradicts_stamps(stream, listed.first)
        )
        scrambled = pids[stream.id].scrambled if pids and stream.id in pids else 0
        if listed.encrypted == len(listed.packets) and listed.encrypted + scrambled:
            raise refuse_encrypted(path, listed.encrypted + scrambled)
        # PyAV 19 has a number class of its own for time bases.
        tick_s, rate = stream.time_base, stream.average_rate or _COMMON_RATE
        time_base = Fraction(tick_s.numerator, tick_s.denominator) if tick_s else Fraction(1, 1)
        ratio = stream.sample_aspect_ratio
        return ScannedStream(
            format=opened.source.format.name,
            codec=context.codec.canonical_name,
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
            packets=listed.packets,
            from_tables=listed.from_tables,
            index=listed.index,
            number=opened.number,
            place=opened.place,
            others=opened.others,
            encrypted=listed.encrypted,
            scrambled=scrambled,
            pixel_ratio=Fraction(ratio.numerator, ratio.denominator) if ratio else None,
        )


@dataclass(frozen=True)
class _Listed:
    """The packets of a stream; ``first`` are the first ones themselves, to be decoded."""

    packets: PacketTable
    first: list[Packet[VideoStream]]
    index: list[tuple[int, int, int, bool]]
    from_tables: bool
    packed: bool
    encrypted: int


def _list_packets(path: StoredFile, size: int, boxes: Boxes | None, opened: OpenedStream) -> _Listed:
    source, stream = opened.source, opened.stream
    header = stream.codec_context.extradata or b""
    codec = stream.codec_context.codec.canonical_name
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
    if codec in _HIDES_PICTURES and source.format.name != "avi":
        packets = packets.confirm_hidden()
    encrypted = 0 if tables is not None else encryption.total(path, size, source, stream, len(packets))
    return _Listed(packets, first, index, tables is not None, roles is not None and roles.packed, encrypted)


def _check_size(path: StoredFile, width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        raise InputError(
            f"{quote(path)} announces {width} x {height} pixels, allowed are 1 to {MOST_PIXELS} in all",
            hint="its header is damaged: copy it again from the recorder",
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


def _index(stream: VideoStream) -> list[tuple[int, int, int, bool]]:
    return [(entry.timestamp, entry.pos, entry.size, entry.is_discard) for entry in stream.index_entries]
