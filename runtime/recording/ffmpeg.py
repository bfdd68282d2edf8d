"""Open recordings with FFmpeg, demux their packets, and decode them without hiding damage.

FFmpeg conceals damage where it can and reports little of it. How much it reports depends on the decoder's threads and
on ``err_detect``. Measured with 200 single-bit flips, each in another frame of a real H.264 recording of 1,417 frames
(FFmpeg 8.1): one thread reports 190 of them, the same in every run; slice threads report 0; frame threads 177 to 190,
differing from run to run. So a decoder always has one thread, and there is no option for it. Several decoders may work
in parallel (``gop``).

FFmpeg may drop a slice with a damaged header and report it in its log alone; the image then shows stale memory. So the
log is read too, in the thread that decodes (``damage_lines``).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
from av.codec.context import Flags, ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from ..errors import InputError
from .coded_pictures import PacketRole
from .damage_lines import reads_log, tell_damage
from .file_window import FileWindow, FragmentedFile, StoredFile
from .packets import PacketTable

__all__ = [
    "MOST_PIXELS",
    "OPEN_OPTIONS",
    "PacketOutput",
    "StreamPlace",
    "decode_logged",
    "decode_packets",
    "drain",
    "open_decoder",
    "open_recording",
    "picture_packets",
    "quote",
    "send",
    "video_streams",
]

# Containers only. A play list or a script (HLS, concat, SDP) named .mp4 would make FFmpeg open other files and hosts.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
# 8192 x 8192. Capsules record 1 Mpixel at most; a damaged header that announces more would take gigabytes.
MOST_PIXELS = 1 << 26
# Recorders write titles and comments in any encoding, and none of them matters here. PyAV 18 refuses such a file
# unless it is told to ignore them; PyAV 19 decodes them without errors and has no such option.
OPEN_OPTIONS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
# Stop reading after this many read errors in a row. If the index is broken, every packet may give such an error.
_MOST_ERRORS = 1000
# Formats of single pictures that store grey from black to white, and whose decoders do not say so.
_FULL_RANGE_GREY = frozenset({"jpeg2000", "targa", "tiff"})
# Intra-only decoders for which "explode" refuses sound images, too: TIFF's refuses each unknown tag. Established with
# every intra-only encoder of FFmpeg.
_REFUSE_SOUND_IMAGES = frozenset({"tiff"})
# FFmpeg's other log lines go to Python's log, which would print them.
logging.getLogger("libav").addHandler(logging.NullHandler())


def quote(path: StoredFile) -> str:
    """Return the path of a file in quotes on one line, with "?" for characters that cannot be printed."""
    return "'" + "".join(c if c.isprintable() else "?" for c in str(path)) + "'"


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """The place of a video stream in a file.

    Attributes:
        number: of the stream, as FFmpeg counts; None for the first video stream that has a decoder.
        start, end: the bytes of the file that are opened; None for its end. A file that grows meanwhile shows the same
            bytes each time it is opened.
        fragments: (start, end) of each fragment of the bit stream, where it lies inside another file (DICOM); then
            ``start`` and ``end`` count the bytes of the stream. Empty where the file is the stream.
    """

    number: int | None = None
    start: int = 0
    end: int | None = None
    fragments: tuple[tuple[int, int], ...] = ()

    @contextmanager
    def open_bytes(self, path: StoredFile) -> Iterator[str | FileWindow]:
        """Yield what FFmpeg opens: the path of the file, or these bytes of it where it holds others."""
        if self.fragments and isinstance(path, Path):
            path = FragmentedFile(path, self.fragments)
        if isinstance(path, Path) and not self.start and self.end in (None, path.stat().st_size):
            # An absolute path: FFmpeg would take a relative "a:b.mp4" for a protocol.
            yield str(path.absolute())
            return
        # Not FFmpeg's "subfile" protocol: it never ends where a damaged header sends it behind the last byte.
        with path.open("rb") as file:
            yield FileWindow(file, self.start, path.stat().st_size if self.end is None else self.end)


_FIRST = StreamPlace()


@contextmanager
def open_recording(
    path: StoredFile, place: StreamPlace = _FIRST, **options: str
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a recording and yield its container and a video stream of it, cover pictures excluded.

    The container is closed on leaving.

    Args:
        path: of the file.
        place: of the stream in the file.
        options: of FFmpeg's demuxer.

    Raises:
        InputError: FFmpeg cannot read the file, or it has no such video stream, or one without a decoder.
    """
    with ExitStack() as stack:
        source = _open_container(path, place, stack, options)
        streams = video_streams(source)
        if not streams:
            kinds = sorted({str(each.type) for each in source.streams})
            raise InputError(
                f"{quote(path)} holds no video" + (f", only {', '.join(kinds)}" if kinds else ""),
                hint="give the file that the capsule's software exported as a video",
            )
        wanted = [each for each in streams if place.number in (None, each.index)]
        if not wanted:
            raise InputError(f"{quote(path)} changed while it was read", hint="read it again")
        stream = next((each for each in wanted if each.codec_context is not None), None)
        if stream is None:
            raise InputError(
                f"{quote(path)} holds video of a kind that FFmpeg cannot decode",
                hint="export the recording as H.264",
            )
        yield source, stream


def _open_container(
    path: StoredFile, place: StreamPlace, stack: ExitStack, options: dict[str, str]
) -> InputContainer:
    """Open a recording; ``stack`` closes it."""
    try:
        source: InputContainer = av.open(
            stack.enter_context(place.open_bytes(path)),
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
    stack.callback(source.close)
    return source


def video_streams(source: InputContainer) -> list[VideoStream]:
    """Return the video streams of an opened file, cover pictures excluded."""
    cover = av.stream.Disposition.attached_pic
    return [each for each in source.streams.video if not each.disposition & cover]


def picture_packets(
    source: InputContainer, stream: VideoStream | list[VideoStream]
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of one or several streams that carry a frame, in decoding order. Read errors are skipped."""
    errors = 0
    while errors < _MOST_ERRORS:
        try:
            for packet in source.demux(stream):
                # Empty packets are FFmpeg's flush mark, and AVI's "show the last frame again".
                if packet.size:
                    errors = 0
                    yield packet  # type: ignore[misc]
            return
        # PyAV raises IndexError for the first packet of a stream that FFmpeg finds after opening, and reads on.
        except (av.error.FFmpegError, IndexError):
            errors += 1


@dataclass(frozen=True, slots=True)
class PacketOutput:
    """The decoder's output for one packet.

    Attributes:
        sent: number of packets sent so far.
        images: (index of its packet, image) of each image that came out.
        failed: index of a packet that the decoder refused, or for which its log reports damage.
        last: no more output will follow.
    """

    sent: int
    images: list[tuple[int, VideoFrame]]
    failed: int | None = None
    last: bool = False


def decode_packets(
    path: StoredFile,
    source: InputContainer,
    stream: VideoStream,
    packets: PacketTable,
    *,
    needed: Sequence[int] | None = None,
) -> Generator[PacketOutput]:
    """Decode all packets and yield the output for each. The last output holds what the decoder had kept back.

    Packets that the edit list discards are decoded and returned like the others: damage in one reaches the frames that
    build on it.

    Args:
        path: of the recording, for error messages.
        source, stream: from ``open_recording``.
        packets: of the recording, in decoding order.
        needed: for each packet, whether to decode it; other packets are skipped. None decodes all packets. Each run
            of consecutive needed packets is decoded separately. The decoder gives out the last images of a run late:
            they are in the output for the packet that follows the run, or in the last output.
    """
    decoder = open_decoder(path, stream)
    waiting: dict[int, int | None] = {}
    shows = packets.roles == PacketRole.SHOWS
    sent = 0
    running = False
    # A file that is being written may hold more packets by now.
    for packet in islice(picture_packets(source, stream), len(packets)):
        if needed is not None and not needed[sent]:
            images: list[tuple[int, VideoFrame]] = []
            if running:
                images = drain(decoder, waiting)
                decoder.flush_buffers()
                running = False
            sent += 1
            yield PacketOutput(sent, images)
            waiting.clear()
            continue
        running = True
        yield send(decoder, packet, sent, waiting, shows=bool(shows[sent]))
        sent += 1
    yield PacketOutput(sent, drain(decoder, waiting), last=True)


def send(
    decoder: VideoCodecContext,
    packet: Packet[VideoStream],
    index: int,
    waiting: dict[int, int | None],
    *,
    shows: bool = True,
) -> PacketOutput:
    """Send a packet to the decoder and return its output.

    Args:
        decoder: from ``open_decoder``.
        packet: to send.
        index: of the packet.
        waiting: index and pts of the packets whose images have not come out yet; updated here.
        shows: the packet carries a picture of its own (``coded_pictures``).
    """
    if shows:
        waiting[index] = packet.pts
    try:
        if packet.is_discard:
            packet = _shown(packet)
        # A new object for each packet: PyAV tells marks apart by identity, and small integers are shared objects.
        packet.opaque = (index,)
        images, failed = decode_logged(decoder, packet)
        return PacketOutput(index + 1, _match(images, waiting), index if failed else None)
    except av.error.FFmpegError:
        return PacketOutput(index + 1, [], index)


def decode_logged(
    decoder: VideoCodecContext, packet: Packet[VideoStream] | None
) -> tuple[list[VideoFrame], bool]:
    """Decode a packet and return its images, and whether the decoder's log reports damage meanwhile.

    Args:
        decoder: from ``open_decoder``.
        packet: to decode; None to drain the decoder.

    Raises:
        av.error.FFmpegError: the decoder refuses the packet.
    """
    if not reads_log(decoder.name):
        return decoder.decode(packet), False
    # Captures this thread's log alone. A program that uses PyAV itself keeps its own log settings.
    with av.logging.Capture() as lines:
        images = decoder.decode(packet)
    return images, bool(lines) and tell_damage(decoder.name, lines)


def drain(decoder: VideoCodecContext, waiting: dict[int, int | None]) -> list[tuple[int, VideoFrame]]:
    """Return the images that the decoder had kept back, with the index of their packets."""
    try:
        return _match(decoder.decode(None), waiting)
    except av.error.FFmpegError:
        return []


def open_decoder(path: StoredFile, stream: VideoStream, *, threads: int = 1) -> VideoCodecContext:
    """Open the stream's decoder with error detection.

    Args:
        path: of the recording, for the error message.
        stream: from ``open_recording``.
        threads: number of pictures that are decoded at the same time. With more than one FFmpeg conceals damage, so
            that is for recordings which are known to be sound.

    Raises:
        InputError: the codec's header is damaged.
    """
    decoder = stream.codec_context
    detect = "crccheck+bitstream+buffer+careful"
    if decoder.name == "h264":
        # "aggressive" also reports bits left over after a slice. In a stream without CABAC the decoder then reported
        # 37 of 60 bit flips instead of 20, without a false alarm.
        detect += "+aggressive"
    if decoder.codec.intra_only and decoder.name not in _REFUSE_SOUND_IMAGES:
        # "explode" makes the decoder raise an error for damage. An intra-only codec reports damage in no other way.
        # Other codecs report it without "explode"; with it they also lose neighbouring frames (378 frames for 190
        # bit flips).
        detect += "+explode"
    decoder.thread_type = ThreadType.NONE if threads == 1 else ThreadType.FRAME
    decoder.thread_count = threads
    decoder.options = {"err_detect": detect, "max_pixels": str(MOST_PIXELS)}
    if decoder.name in _FULL_RANGE_GREY and (decoder.pix_fmt or "").startswith("gray"):
        decoder.color_range = decoder.color_range or ColorRange.JPEG
    decoder.copy_opaque = True
    # Otherwise a picture that is cropped on its left keeps some columns too many, and is not of the announced size.
    decoder.flags |= Flags.unaligned
    if (av.logging.get_level() or 0) < av.logging.ERROR:
        av.logging.set_level(av.logging.ERROR)
    # Otherwise the log line of a second decoder is dropped when it repeats the last one.
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
    """Return a copy of a packet without its discard mark.

    The decoder drops the image of a packet that has the mark, and the report of damage in it.
    """
    copy = Packet(bytes(packet))
    copy.stream = packet.stream
    copy.time_base = packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe, copy.is_corrupt = packet.is_keyframe, packet.is_corrupt
    return copy  # type: ignore[return-value]


def _match(images: list[VideoFrame], waiting: dict[int, int | None]) -> list[tuple[int, VideoFrame]]:
    """Return the images with the index of their packets, and remove these from ``waiting``."""
    found = []
    for image in images:
        mark = image.opaque
        index: int | None = mark[0] if isinstance(mark, tuple) else None
        if index not in waiting:
            # A packet that only says "show an earlier frame again" returns the mark of the earlier packet.
            index = next((i for i, pts in waiting.items() if pts == image.pts), None)
        if index is not None:
            del waiting[index]
            found.append((index, image))
    return found
