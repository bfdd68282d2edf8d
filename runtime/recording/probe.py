"""Decode a little before reading, to learn what the container does not say: orientation, odd fields, order in AVI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import InputError
from .colour import odd_colour
from .ffmpeg import decode_packets, drain, open_decoder, open_recording, send
from .orientation import Orientation, odd_orientation, orientation_of
from .warning import RecordingWarning

__all__ = ["FirstImage", "order_shown", "probe_first_image"]


@dataclass(frozen=True, slots=True)
class FirstImage:
    """What the first image of a recording shows and its container does not say.

    Attributes:
        orientation: how it is turned; None for an upright one.
        warnings: its odd fields. The images that follow are read the same way.
    """

    orientation: Orientation | None = None
    warnings: tuple[RecordingWarning, ...] = ()

    @property
    def transposed(self) -> bool:
        """Whether the upright image has the stored rows as columns."""
        return self.orientation is not None and self.orientation.transposed


def probe_first_image(path: Path, stream: VideoStream, first: Sequence[Packet[VideoStream]]) -> FirstImage:
    """Return what the first image that can be decoded shows.

    Args:
        path: of the recording.
        stream: its video stream.
        first: its first packets.

    Raises:
        InputError: the image cannot be shown upright (``orientation``).
    """
    try:
        decoder = open_decoder(path, stream)
    except InputError:  # raised again when the recording is read
        return FirstImage()
    waiting: dict[int, int | None] = {}
    images: list[tuple[int, VideoFrame]] = []
    for index, packet in enumerate(first):
        images = send(decoder, packet, index, waiting).images
        if images:
            break
    for _, image in images or drain(decoder, waiting):
        return FirstImage(orientation_of(image), (*odd_orientation(image), *_odd_colour(image)))
    return FirstImage()


def _odd_colour(image: VideoFrame) -> list[RecordingWarning]:
    try:
        return odd_colour(image)
    except InputError:  # raised again when the recording is read
        return []


def order_shown(path: Path, count: int) -> list[int]:
    """Return the packet indices in the order in which the decoder shows their frames.

    For a container that does not store that order. A frame that the decoder never shows follows the one stored before
    it.

    Args:
        path: of the recording.
        count: number of packets.
    """
    place: dict[int, int] = {}
    with open_recording(path) as (source, stream):
        for output in decode_packets(path, source, stream):
            for index, _ in output.images:
                place[index] = len(place)
    places = accumulate(range(count), lambda last, index: place.get(index, last), initial=-1)
    return [index for _, index in sorted(zip(list(places)[1:], range(count), strict=True))]
