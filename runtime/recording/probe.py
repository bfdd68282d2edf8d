"""Decode before reading, to learn what the container does not say: orientation, odd fields, the order of the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import InputError
from .colour import odd_colour
from .ffmpeg import StreamPlace, decode_packets, drain, open_decoder, open_recording, send
from .file_window import StoredFile
from .orientation import Orientation, odd_orientation, orientation_of
from .packets import PacketTable
from .warning import RecordingWarning

__all__ = ["FirstImage", "contradicts_stamps", "decode_order", "probe_first_image"]

# Packets at the start whose order is checked: more than the pictures between two P-pictures.
_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class FirstImage:
    """The facts that the first image of a recording shows and its container does not state.

    Attributes:
        orientation: how it is turned; None for an upright one.
        warnings: its odd fields. The images that follow are read the same way.
    """

    orientation: Orientation | None = None
    warnings: tuple[RecordingWarning, ...] = ()

    @property
    def transposed(self) -> bool:
        """True where the upright image has the stored rows as columns."""
        return self.orientation is not None and self.orientation.transposed


def probe_first_image(
    path: StoredFile, stream: VideoStream, first: Sequence[Packet[VideoStream]]
) -> FirstImage:
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


def contradicts_stamps(stream: VideoStream, first: Sequence[Packet[VideoStream]]) -> bool:
    """Return whether the decoder shows the first packets in another order than their stamps say.

    Args:
        stream: whose decoder ``probe_first_image`` has opened.
        first: its first packets.
    """
    decoder = stream.codec_context
    if not decoder.is_open:
        return False
    decoder.flush_buffers()
    waiting: dict[int, int | None] = {}
    shown: list[int] = []
    for index, packet in enumerate(first[:_SAMPLE]):
        shown += [number for number, _ in send(decoder, packet, index, waiting).images]
    shown += [number for number, _ in drain(decoder, waiting)]
    stamps = [(first[number].pts, first[number].is_keyframe) for number in shown]
    # The clock may start anew among them, with a key frame; that is no contradiction.
    return any(
        stamp is not None and before is not None and stamp < before and not key
        for (before, _), (stamp, key) in pairwise(stamps)
    )


def decode_order(path: StoredFile, stream_place: StreamPlace, packets: PacketTable) -> list[int]:
    """Return the packet indices in the order in which the decoder shows their frames. It decodes the recording.

    A frame that the decoder never shows follows the one stored before it.

    Args:
        path: of the recording.
        stream_place: of its video stream.
        packets: of the recording, in decoding order.
    """
    count = len(packets)
    place: dict[int, int] = {}
    with open_recording(path, stream_place) as (source, stream):
        for output in decode_packets(path, source, stream, packets):
            for index, _ in output.images:
                place[index] = len(place)
    places = accumulate(range(count), lambda last, index: place.get(index, last), initial=-1)
    return [index for _, index in sorted(zip(list(places)[1:], range(count), strict=True))]
