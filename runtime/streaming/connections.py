"""One connection to a network source (RTSP, HTTP): the length that it announces, and its pictures as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..recording import (
    MOST_PIXELS,
    OPEN_OPTIONS,
    Orientations,
    decode_logged,
    marks_keys,
    open_decoder,
    orientation_of,
    to_rgb,
)
from .pipe_formats import RgbArray

__all__ = ["Connection", "Length"]

# The formats that cameras send. Play lists and scripts are left out: they name other hosts and files.
_FORMATS = "rtsp,rtp,mpjpeg,mjpeg,mpegts,mov,mp4,matroska,webm,flv,h264,hevc,image2pipe,jpeg_pipe,png_pipe"
_PROTOCOLS = "http,https,httpproxy,rtsp,rtp,srtp,udp,tcp,tls"
# A connection that is silent for this long is lost, s.
_TIMEOUT_S = 10.0
# An RTSP recording ends with the start of its last picture, whose duration is not sent. One second is two pictures of
# the slowest capsule.
_LAST_S = 1.0


@dataclass(frozen=True)
class Length:
    """The length that a source announces; None for what it does not announce.

    Two connections to the same recording announce equal lengths.

    Attributes:
        size: bytes (HTTP).
        pictures: pictures (the index of an MP4).
        duration_s: seconds (RTSP).
    """

    size: int | None
    pictures: int | None
    duration_s: float | None

    @property
    def known(self) -> bool:
        """True if the source announces any length."""
        return (self.size, self.pictures, self.duration_s) != (None, None, None)


class Connection:
    """Connect to a network source. Use it in a ``with`` block.

    Attributes:
        length: the announced length; None for a camera, a source that announces none.
        ended: whether a recording was sent to its end.
        cut: whether a recording that ended lacks pictures that it announced.
        answered: whether a picture has arrived.

    Raises:
        av.error.FFmpegError, OSError: the source does not answer.
        ValueError: the source sends no video.
    """

    def __init__(self, address: str) -> None:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": _PROTOCOLS}
        rtsp = address.startswith("rtsp")
        if rtsp:
            options["rtsp_transport"] = "tcp"
        else:
            # By default FFmpeg 8.1 sends "Connection: close" and then still requests its next range on the same
            # connection, so the first picture of an MP4 whose index is at the end is lost. With this option it keeps
            # the connection open.
            options["multiple_requests"] = "1"
        self._address = address
        self._source = av.open(
            address,
            options={"max_pixels": str(MOST_PIXELS)},
            container_options=options,
            timeout=_TIMEOUT_S,
            **OPEN_OPTIONS,
        )
        self.ended = self.cut = self.answered = False
        if not self._source.streams.video:
            self._source.close()
            raise ValueError("it sends no video")
        self._stream = self._source.streams.video[0]
        # A source without a length has a size below 0 in PyAV 18, and None in PyAV 19.
        duration, size = self._source.duration, self._source.size or 0
        self._sized = size > 0
        length = Length(
            # Motion JPEG comes from a camera, and cameras may invent a length. It counts only once it is reached.
            size=size if size > 0 and self._source.format.name != "mpjpeg" else None,
            pictures=self._stream.frames or None,
            duration_s=duration / av.time_base if rtsp and duration and duration > 0 else None,
        )
        self.length = length if length.known else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def pictures(self) -> Iterator[RgbArray | None]:
        """Yield the pictures, uint8 RGB (height, width, 3); None for a damaged one and those after it to a key frame.

        Every connection to a recording yields the same pictures in the same order: a picture that arrived in part is
        dropped when the connection is lost.

        Raises:
            av.error.FFmpegError: the connection is lost.
        """
        decoder = open_decoder(Path(self._address), self._stream)
        orientations: Orientations | None = None
        codec = decoder.codec
        decoder_marks_keys = marks_keys(codec.canonical_name)
        broken = True
        for packet in self._packets():
            failed = packet is not None and packet.is_corrupt
            pictures: list[VideoFrame] = []
            # The decoder delays pictures. The packet carries this list to its picture: whether the container calls it a
            # key frame, and behind that a mark if it is damaged.
            marks: list[bool] = []
            if packet is not None:
                marks.append(packet.is_keyframe)
                packet.opaque = marks
            try:
                pictures, complained = decode_logged(decoder, packet)
                if complained:
                    marks.append(True)
            except av.error.FFmpegError:
                failed = packet is not None
            if failed and not pictures:
                broken = True
                yield None
            for picture in pictures:
                self.answered = True
                own: list[bool] = picture.opaque if isinstance(picture.opaque, list) else []
                key = codec.intra_only or (picture.key_frame if decoder_marks_keys else own[:1] == [True])
                orientations = orientations or Orientations(decoder.name, orientation_of(picture))
                orientations.follow(picture)
                sound = not (failed or own[1:] or picture.is_corrupt)
                broken = not sound or (broken and not key)
                yield None if broken else to_rgb(picture)

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Yield the packets that carry a picture, then None to flush the decoder if nothing more will come."""
        count, shown_s = 0, 0.0
        held: Packet[VideoStream] | None = None
        lost: av.error.FFmpegError | None = None
        packets = self._source.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                packet, lost = None, error
            if packet is None or not packet.size:
                break
            count += 1
            if packet.pts is not None and packet.time_base is not None:
                shown_s = max(shown_s, float(packet.pts * packet.time_base))
            if self.length is None:
                yield packet
                continue
            # Yield one packet late, to know which packet was the last before a loss.
            if held is not None:
                yield held
            held = packet
        if self.length is not None:
            self._settle(count, shown_s, lost)
            if held is not None and (self.ended or not held.is_corrupt):
                yield held
        elif lost is None:
            # FFmpeg raises an error if fewer bytes arrive than were announced.
            self.ended = self._sized
        if self.length is None or self.ended:
            yield None
        if lost is not None and not self.ended:
            raise lost

    def _settle(self, count: int, shown_s: float, lost: av.error.FFmpegError | None) -> None:
        """Decide whether a recording of known length has ended.

        Args:
            count: packets received.
            shown_s: latest picture time received, s.
            lost: the error that ended the connection, if any.
        """
        assert self.length is not None
        pictures, duration_s = self.length.pictures, self.length.duration_s
        if pictures is not None and count >= pictures:
            # Some servers announce no length in bytes, and FFmpeg reports the end of their data as an error.
            self.ended = True
        elif duration_s is not None:
            self.ended = shown_s >= duration_s - _LAST_S
        elif lost is None:
            # FFmpeg raises an error if fewer bytes arrive than were announced.
            self.ended, self.cut = True, pictures is not None
