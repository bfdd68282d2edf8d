"""The one place that talks to FFmpeg: opening a recording, its packets, and the decoder that hides no damage.

FFmpeg conceals what it can and stays silent. How much it admits depends on the decoder's threads and on
``err_detect``. Measured with 200 single-bit flips, each in another picture of a real H.264 recording of
1,417 (FFmpeg 8.1): one thread reports 190 of them, again and again the same; slice threads 0; frame
threads 177 to 190, differing from run to run. So a decoder has one thread, always, and there is no option for
it; several decoders may work side by side (``groups``).

A slice with a damaged header it may leave out and say so in its log alone: the picture shows what lay in its memory.
So its log is listened to, in the thread that decodes.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import InputError

__all__ = [
    "MOST_PIXELS",
    "OPEN_OPTIONS",
    "PacketOutput",
    "decode_heard",
    "decode_packets",
    "drain",
    "open_decoder",
    "open_recording",
    "picture_packets",
    "quote",
    "send",
]

# Containers only: a play list or a script (HLS, concat, SDP) named .mp4 would make FFmpeg open other
# files and hosts.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
# 8192 x 8192. Capsules record about 1 Mpixel at most; a damaged header that claims more would take gigabytes.
MOST_PIXELS = 1 << 26
# Recorders write titles and comments in any encoding, and none of them matters here. PyAV 18 refuses such a file
# unless it is told to ignore them; PyAV 19 decodes them without errors and has no such option.
OPEN_OPTIONS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
# Read errors in a row after which a source is taken as ended: a broken index can point nowhere for every
# sample.
_MOST_ERRORS = 1000
# Decoders that log errors which they report in no other way, and nothing while all is well.
_HEARD = frozenset({"h264", "hevc"})
# Supplemental information has no part in the picture, and some recorders write too little of it.
_HARMLESS = "SEI type"
# Lines from elsewhere go to Python's log, where nobody asked for them.
logging.getLogger("libav").addHandler(logging.NullHandler())


def quote(path: Path) -> str:
    """The path on one line, whatever characters it has."""
    return "'" + "".join(c if c.isprintable() else "?" for c in str(path)) + "'"


@contextmanager
def open_recording(path: Path, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened container and its first video stream (cover pictures apart); closed on leaving.

    ``options`` go to FFmpeg's demuxer. Raises ``InputError`` when FFmpeg cannot read the file, and when
    it holds no video or one without a decoder.
    """
    try:
        # An absolute path: FFmpeg would take a relative "a:b.mp4" for a protocol.
        source = av.open(
            str(path.absolute()),
            options={"max_pixels": str(MOST_PIXELS)},
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file", **options},
            **OPEN_OPTIONS,
        )
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(
            f"{quote(path)} cannot be read as a recording: {reason}",
            hint="MP4, MOV, MKV, WebM, AVI, MPEG-TS and MPEG-PS files are read",
        ) from error
    try:
        cover = av.stream.Disposition.attached_pic
        streams = [each for each in source.streams.video if not each.disposition & cover]
        if not streams:
            kinds = sorted({str(each.type) for each in source.streams})
            raise InputError(
                f"{quote(path)} holds no video" + (f", only {', '.join(kinds)}" if kinds else ""),
                hint="give the file that the capsule's software exported as a video",
            )
        if streams[0].codec_context is None:
            raise InputError(
                f"{quote(path)} holds video of a kind that FFmpeg cannot decode",
                hint="export the recording as H.264",
            )
        yield source, streams[0]
    finally:
        source.close()


def picture_packets(source: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets that carry a picture, in decoding order, reading on behind errors."""
    errors = 0
    while errors < _MOST_ERRORS:
        try:
            for packet in source.demux(stream):
                # Empty packets are FFmpeg's flush mark and AVI's "show the last one again".
                if packet.size:
                    errors = 0
                    yield packet
            return
        except av.error.FFmpegError:
            errors += 1


@dataclass(frozen=True, slots=True)
class PacketOutput:
    """What came of sending one packet: the number sent so far, and pictures with the index of their packet.

    ``failed`` is the index of a packet that the decoder refused or complained of; ``last``: nothing more will come.
    """

    sent: int
    images: list[tuple[int, VideoFrame]]
    failed: int | None = None
    last: bool = False


def decode_packets(
    path: Path, source: InputContainer, stream: VideoStream, *, needed: Sequence[int] | None = None
) -> Generator[PacketOutput]:
    """Decode all packets; the last step is what the decoder had kept back.

    With ``needed``, a truth value for each packet, the others are passed over: a stretch of needed ones is
    decoded by itself, and its last pictures come with the packet behind it. Edited-out packets are decoded
    and returned like the others: damage in one spoils what builds on it.
    """
    decoder = open_decoder(path, stream)
    waiting: dict[int, int | None] = {}
    sent = 0
    running = False
    for packet in picture_packets(source, stream):
        if needed is not None and not (sent < len(needed) and needed[sent]):
            pictures = []
            if running:
                pictures = drain(decoder, waiting)
                decoder.flush_buffers()
                running = False
            sent += 1
            yield PacketOutput(sent, pictures)
            waiting.clear()
            continue
        running = True
        yield send(decoder, packet, sent, waiting)
        sent += 1
    yield PacketOutput(sent, drain(decoder, waiting), last=True)


def send(
    decoder: VideoCodecContext, packet: Packet[VideoStream], index: int, waiting: dict[int, int | None]
) -> PacketOutput:
    """Hand a packet to the decoder; ``waiting`` holds those whose pictures have not come (index to pts)."""
    waiting[index] = packet.pts
    try:
        if packet.is_discard:
            packet = _shown(packet)
        # A fresh object each: PyAV keeps marks by identity, and small integers are one object everywhere.
        packet.opaque = (index,)
        pictures, complained = decode_heard(decoder, packet)
        return PacketOutput(index + 1, _match(pictures, waiting), index if complained else None)
    except av.error.FFmpegError:
        return PacketOutput(index + 1, [], index)


def decode_heard(
    decoder: VideoCodecContext, packet: Packet[VideoStream] | None
) -> tuple[list[VideoFrame], bool]:
    """What a decoder of ``open_decoder`` makes of a packet, and whether its log complains of it.

    Raises ``av.error.FFmpegError`` for one that it refuses.
    """
    if decoder.name not in _HEARD:
        return decoder.decode(packet), False
    # Of this thread alone. A program that reads with PyAV itself may listen to more, or to nothing.
    with av.logging.Capture() as said:
        pictures = decoder.decode(packet)
    complained = any(
        level <= av.logging.ERROR and not message.startswith(_HARMLESS) for level, _, message in said
    )
    return pictures, complained


def drain(decoder: VideoCodecContext, waiting: dict[int, int | None]) -> list[tuple[int, VideoFrame]]:
    """The pictures that the decoder had kept back."""
    try:
        return _match(decoder.decode(None), waiting)
    except av.error.FFmpegError:
        return []


def open_decoder(path: Path, stream: VideoStream) -> VideoCodecContext:
    """The stream's decoder: one thread, and errors reported. Raises ``InputError`` for a header that is damaged."""
    decoder = stream.codec_context
    detect = "crccheck+bitstream+buffer+careful"
    if decoder.name == "h264":
        # Finds bits left over behind a slice: 37 in place of 20 of 60 flips without CABAC, no false alarm.
        detect += "+aggressive"
    if decoder.codec.intra_only:
        # Elsewhere an error raised for one picture takes its neighbours along (190 flips cost 378
        # pictures), and damage is reported without it; a picture that stands alone has no other way to
        # report it.
        detect += "+explode"
    decoder.thread_type = ThreadType.NONE
    decoder.thread_count = 1
    decoder.options = {"err_detect": detect, "max_pixels": str(MOST_PIXELS)}
    decoder.copy_opaque = True
    if (av.logging.get_level() or 0) < av.logging.ERROR:
        av.logging.set_level(av.logging.ERROR)
    # Or of two decoders that say the same one after the other, the second would not be heard.
    av.logging.set_skip_repeated(False)
    try:
        decoder.open(strict=False)
    except av.error.FFmpegError as error:
        raise InputError(
            f"{quote(path)} cannot be decoded: its {decoder.name} header is damaged",
            hint="copy it again from the recorder",
        ) from error
    return decoder


def _shown(packet: Packet[VideoStream]) -> Packet[VideoStream]:
    """A copy without the mark for which the decoder would throw the picture, and its damage report, away."""
    copy = Packet(bytes(packet))
    copy.stream = packet.stream
    copy.time_base = packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe, copy.is_corrupt = packet.is_keyframe, packet.is_corrupt
    return copy  # type: ignore[return-value]


def _match(pictures: list[VideoFrame], waiting: dict[int, int | None]) -> list[tuple[int, VideoFrame]]:
    """Pictures with their packets' indices, which are taken out of ``waiting`` (index to pts)."""
    found = []
    for picture in pictures:
        mark = picture.opaque
        index: int | None = mark[0] if isinstance(mark, tuple) else None
        if index not in waiting:
            # A packet that only says "show that earlier picture" returns the earlier one's mark.
            index = next((i for i, pts in waiting.items() if pts == picture.pts), None)
        if index is not None:
            del waiting[index]
            found.append((index, picture))
    return found
