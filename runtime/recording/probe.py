"""What a container does not tell and decoding does: a look at its pictures before they are read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import InputError
from .ffmpeg import decode_packets, drain, open_decoder, open_recording, send
from .orientation import orientation_of

__all__ = ["is_transposed", "order_shown"]


def is_transposed(path: Path, stream: VideoStream, first: Sequence[Packet[VideoStream]]) -> bool:
    """Whether the upright picture has rows for columns, by the first picture that can be decoded."""
    try:
        decoder = open_decoder(path, stream)
    except InputError:  # said when it is read
        return False
    waiting: dict[int, int | None] = {}
    pictures: list[tuple[int, VideoFrame]] = []
    for index, packet in enumerate(first):
        pictures = send(decoder, packet, index, waiting).images
        if pictures:
            break
    for _, picture in pictures or drain(decoder, waiting):
        orientation = orientation_of(picture)
        return orientation is not None and orientation.transposed
    return False


def order_shown(path: Path, count: int) -> list[int]:
    """Decoding indices in the order in which the decoder shows them, for a container that cannot tell.

    A picture that the decoder never shows stays behind the one stored before it.
    """
    place: dict[int, int] = {}
    with open_recording(path) as (source, stream):
        for output in decode_packets(path, source, stream):
            for index, _ in output.images:
                place[index] = len(place)
    places = accumulate(range(count), lambda last, index: place.get(index, last), initial=-1)
    return [index for _, index in sorted(zip(list(places)[1:], range(count), strict=True))]
