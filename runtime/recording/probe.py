"""Decode a little before reading, to learn what the container does not say: orientation, and order in AVI."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import InputError
from .ffmpeg import StreamPlace, decode_packets, drain, open_decoder, open_recording, send
from .orientation import orientation_of

__all__ = ["is_transposed", "order_shown"]


def is_transposed(path: Path, stream: VideoStream, first: Sequence[Packet[VideoStream]]) -> bool:
    """Return whether the upright image has the stored rows as columns, by the first frame that can be decoded.

    Args:
        path: of the recording.
        stream: its video stream.
        first: its first packets.
    """
    try:
        decoder = open_decoder(path, stream)
    except InputError:  # raised again when the recording is read
        return False
    waiting: dict[int, int | None] = {}
    images: list[tuple[int, VideoFrame]] = []
    for index, packet in enumerate(first):
        images = send(decoder, packet, index, waiting).images
        if images:
            break
    for _, image in images or drain(decoder, waiting):
        orientation = orientation_of(image)
        return orientation is not None and orientation.transposed
    return False


def order_shown(path: Path, stream_place: StreamPlace, count: int) -> list[int]:
    """Return the packet indices in the order in which the decoder shows their frames.

    For a container that does not store that order. A frame that the decoder never shows follows the one stored before
    it.

    Args:
        path: of the recording.
        stream_place: of its video stream.
        count: number of packets.
    """
    place: dict[int, int] = {}
    with open_recording(path, stream_place) as (source, stream):
        for output in decode_packets(path, source, stream):
            for index, _ in output.images:
                place[index] = len(place)
    places = accumulate(range(count), lambda last, index: place.get(index, last), initial=-1)
    return [index for _, index in sorted(zip(list(places)[1:], range(count), strict=True))]
