"""One connection to a network source (RTSP, HTTP): what it says of its length, and its pictures as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..recording import MOST_PIXELS, OPEN_OPTIONS, decode_logged, open_decoder, to_rgb

__all__ = ["Connection", "Length"]

Frame = npt.NDArray[np.uint8]

# Of what a camera sends; no play lists or scripts, which name other hosts and files.
_FORMATS = "rtsp,rtp,mpjpeg,mjpeg,mpegts,mov,mp4,matroska,webm,flv,h264,hevc,image2pipe,jpeg_pipe,png_pipe"
_PROTOCOLS = "http,https,httpproxy,rtsp,rtp,srtp,udp,tcp,tls"
# Silence for so long is a lost connection, s.
_TIMEOUT_S = 10.0
# What is sent by time ends with the last picture, whose length is not sent: a second is two pictures of the slowest
# capsule.
_LAST_S = 1.0


@dataclass(frozen=True)
class Length:
    """What a source announces: bytes (HTTP), pictures (the index of an MP4), or seconds (RTSP); None where it does not.

    Two of one recording are equal.
    """

    size: int | None
    pictures: int | None
    duration_s: float | None

    @property
    def known(self) -> bool:
        return (self.size, self.pictures, self.duration_s) != (None, None, None)


class Connection:
    """Opened by its construction; use it in a ``with`` block.

    ``length`` is None for a camera: a source that does not say how long it is. ``ended`` is true once a recording
    was sent to its end, ``cut`` where it then lacks pictures that it announced, ``answered`` once a picture came.

    Raises ``av.error.FFmpegError``, ``OSError`` and ``ValueError`` for what does not answer with video.
    """

    def __init__(self, address: str) -> None:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": _PROTOCOLS}
        rtsp = address.startswith("rtsp")
        if rtsp:
            options["rtsp_transport"] = "tcp"
        else:
            # FFmpeg 8.1 asks for "Connection: close" and then sends its next range down the same connection, so that
            # the first picture behind an index at the end is lost. Asking for more than one it does as it says.
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
            # Motion JPEG is of a camera, which may make a length up: nothing is built on it before it was reached.
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

    def pictures(self) -> Iterator[Frame | None]:
        """uint8 RGB HxWx3; None for one that is damaged and for those that follow it up to the next key frame.

        Of a recording the same come in the same order on every connection: where it is lost, nothing is made of what
        had come in part. Raises ``av.error.FFmpegError`` when the connection is lost.
        """
        decoder = open_decoder(Path(self._address), self._stream)
        broken = True
        for packet in self._packets():
            failed = packet is not None and packet.is_corrupt
            pictures: list[VideoFrame] = []
            # The decoder keeps pictures back: what it complains of is told by the packet's mark.
            spoilt: list[bool] = []
            if packet is not None:
                packet.opaque = spoilt
            try:
                pictures, complained = decode_logged(decoder, packet)
                if complained:
                    spoilt.append(True)
            except av.error.FFmpegError:
                failed = packet is not None
            if failed and not pictures:
                broken = True
                yield None
            for picture in pictures:
                self.answered = True
                sound = not (failed or picture.opaque or picture.is_corrupt)
                broken = not sound or (broken and not (picture.key_frame or decoder.codec.intra_only))
                yield None if broken else to_rgb(picture)

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """The packets that carry a picture; None asks for what the decoder kept back, where nothing more will come."""
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
            # One behind, so that the last before a loss is known as such.
            if held is not None:
                yield held
            held = packet
        if self.length is not None:
            self._settle(count, shown_s, lost)
            if held is not None and (self.ended or not held.is_corrupt):
                yield held
        elif lost is None:
            # FFmpeg raises where fewer bytes came than were announced.
            self.ended = self._sized
        if self.length is None or self.ended:
            yield None
        if lost is not None and not self.ended:
            raise lost

    def _settle(self, count: int, shown_s: float, lost: av.error.FFmpegError | None) -> None:
        """Whether that was the end of a recording of known length."""
        assert self.length is not None
        pictures, duration_s = self.length.pictures, self.length.duration_s
        if pictures is not None and count >= pictures:
            # Some servers tell no length in bytes, and FFmpeg takes the end of what they send for a fault.
            self.ended = True
        elif duration_s is not None:
            self.ended = shown_s >= duration_s - _LAST_S
        elif lost is None:
            # FFmpeg raises where fewer bytes came than were announced.
            self.ended, self.cut = True, pictures is not None
