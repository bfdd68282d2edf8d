"""Decode a video file: one ``Frame`` for each frame that is there, in presentation order, none left out or made up.

    container = scan("video.mp4")
    for frame in decode(container):
        if frame.status == "ok":
            frame.rgb()

FFmpeg conceals damage; this module reports it. A frame that FFmpeg could not decode cleanly, or that builds on such a
frame, is ``corrupt``. Damage that no decoder notices cannot be seen here.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..errors import InputError
from .coded_pictures import PacketRole
from .container import Container
from .ffmpeg import PacketOutput, decode_packets, open_recording, quote
from .frame import Detail, Frame
from .gop import decode_gops, presentation_places
from .orientation import Orientations
from .packets import REORDER

__all__ = ["FrameBuilder", "decode", "decode_closed_gops", "fetch_images", "marks_keys", "packets_behind"]

# Codecs whose decoder marks key frames, established with every encoder of FFmpeg. Other decoders mark none (QuickTime
# RLE and Graphics, Apple Video, SVQ1, MS Video 1, Flash Screen Video, CineForm) or too few (Cinepak, by its container);
# for them the container's mark counts alone.
_KEY_MARKING = (
    "h264 hevc vvc av1 vp3 vp5 vp6 vp7 vp8 vp9 theora mpeg1video mpeg2video mpeg4 h261 h263 flv1"
    " msmpeg4v1 msmpeg4v2 msmpeg4v3 wmv1 wmv2 wmv3 vc1 rv10 rv20 rv30 rv40 cavs dirac snow ffv1 zmbv"
    " gif png"
)
_MARK_KEYS = frozenset(_KEY_MARKING.split())
# Stop waiting for an image after this many further packets: a decoder delays its output by at most what it reorders.
_PATIENCE = REORDER


def marks_keys(codec: str) -> bool:
    """Return whether the decoder of a codec marks key frames. If not, the container's mark counts alone."""
    return codec in _MARK_KEYS


def decode(container: Container, *, first_packet: int = 0) -> Generator[Frame]:
    """Decode every frame of a recording in presentation order, as it is asked for.

    At most some sixty images are held. The file is closed when the generator ends or is closed.

    Args:
        container: of a video file, from ``scan``.
        first_packet: start at this packet: 0, or the first packet of a closed GOP.

    Raises:
        InputError: the file changed since it was scanned.
    """
    needed = None
    if first_packet:
        needed = bytes(first_packet) + b"\1" * (len(container.packets) - first_packet)
    with open_recording(container.path, container.place) as (source, stream):
        outputs = decode_packets(container.path, source, stream, container.packets, needed=needed)
        yield from FrameBuilder(container).frames(outputs, first_packet)


@contextmanager
def decode_closed_gops(
    container: Container, *, first_packet: int = 0
) -> Iterator[Iterator[tuple[int, Generator[Frame]]]]:
    """Decode closed GOPs independently: several threads may each take the frames of one.

    Yields the index of the first frame and the frames of each closed GOP, in file order. Both the iterator and the
    frames may end in ``ClosedGopError`` (see ``gop.decode_gops``).
    """
    builder = FrameBuilder(container)
    with decode_gops(container, first_packet) as gops:
        yield ((builder.first_frame(first), builder.frames(outputs, first)) for first, outputs in gops)


def fetch_images(container: Container, wanted: Collection[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Decode some sound frames again and yield (frame index, image), those of one attempt in decoding order.

    Only the packets that these frames build on are decoded. Damage is not judged: ask only for frames that ``decode``
    called ``ok``. A frame that does not come out is tried again from an earlier key frame, at last from packet 0.

    Raises:
        InputError: the file changed since it was scanned.
    """
    behind = packets_behind(container)
    attempts = [
        _Attempt(index, container.order[index], *behind[index].tolist()) for index in sorted(set(wanted))
    ]
    while attempts:
        found, refused = set[int](), set[int]()
        shown_by: dict[int, list[int]] = {}
        for each in attempts:
            shown_by.setdefault(each.packet, []).append(each.index)
        for output in _decode_attempts(container, attempts):
            refused |= set() if output.failed is None else {output.failed}
            for packet, image in output.images:
                for index in shown_by.get(packet, ()):
                    found.add(index)
                    yield index, image
        left = [each for each in attempts if each.index not in found and each.packet not in refused]
        attempts = [again for each in left if (again := _try_again(container, each)) is not None]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt to decode a frame again: decode packets ``first`` to ``end`` and take the image of ``packet``."""

    index: int
    packet: int
    first: int
    end: int
    # Number of key frames that the next attempt begins earlier.
    step: int = 1


def _decode_attempts(container: Container, attempts: Sequence[_Attempt]) -> Generator[PacketOutput]:
    packets = container.packets
    needed = bytearray(len(packets))
    for each in attempts:
        needed[each.first : each.end] = b"\1" * (each.end - each.first)
    orientations = Orientations(container.codec, container.orientation)
    with open_recording(container.path, container.place) as (source, stream):
        for output in decode_packets(container.path, source, stream, packets, needed=needed):
            _check_count(container, output, len(packets))
            for _, image in output.images:
                orientations.shows(image, transposed=container.transposed)
            yield output


def _try_again(container: Container, failed: _Attempt) -> _Attempt | None:
    """Return the next attempt for a frame that did not come out; None where there is none.

    A packet of MPEG-4 that only repeats a frame has the image of the packet before. FFmpeg's decoder of H.264 withholds
    the first pictures behind a key mark that is only the beginning of an intra refresh.
    """
    packets = container.packets
    if _repeats(container, int(packets.sizes[failed.packet])):
        shown = np.flatnonzero(packets.roles[: failed.packet] == PacketRole.SHOWS)
        if not len(shown):
            return None
        packet = int(shown[-1])
        first = min(failed.first, _key_before(container, packet))
        return replace(failed, packet=packet, first=first)
    if not (_withholds(container.codec) and failed.first):
        return None
    first = failed.first
    for _ in range(failed.step):
        first = _key_before(container, first - 1) if first else 0
    return replace(failed, first=first, step=2 * failed.step)


def _key_before(container: Container, packet: int) -> int:
    """Return the last packet up to this one that is marked as key; 0 where there is none."""
    keys = np.flatnonzero(container.packets.keys[: packet + 1])
    return int(keys[-1]) if len(keys) else 0


def _withholds(codec: str) -> bool:
    """Return whether the decoder returns no image until one is whole, at the start of what it decodes.

    FFmpeg's decoder of H.264 waits for the end of an intra refresh (recovery point).
    """
    return codec == "h264"


def packets_behind(container: Container) -> npt.NDArray[np.int64]:
    """Return which packets have to be decoded to show each frame: those from a key frame up to its own.

    Returns:
        The first packet and the one after the last, int64 (frames that are there, 2).
    """
    places = np.asarray(presentation_places(container))
    packets = np.asarray(container.order)[: container.present]
    starts = np.flatnonzero(container.packets.keys)
    if not len(starts):
        starts = np.zeros(1, np.int64)
    at = np.maximum(np.searchsorted(starts, packets, side="right") - 1, 0)
    # Shown before the key frame behind which it is stored: it builds on the GOP before, too.
    at -= (at > 0) & (places[packets] < places[starts[at]])
    first = np.where(starts[at] <= packets, starts[at], 0)
    return np.column_stack((first, np.asarray(container.packets.last_of_picture)[packets] + 1))


def _check_count(container: Container, output: PacketOutput, packets: int) -> None:
    if output.last and output.sent != packets:
        raise InputError(f"{quote(container.path)} changed while it was read", hint="read it again")


class FrameBuilder:
    """Turn decoded images into frames, each sound or corrupt. Serves several threads at once."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._places = presentation_places(container)
        self._marks = _Marks(container)

    def first_frame(self, packet: int) -> int:
        """Return the index of the frame that the first packet of a closed GOP carries."""
        return self._places[packet] if packet else 0

    def place_of(self, packet: int) -> int:
        """Return the index of the frame that a packet shows; -1 where it shows none."""
        return self._places[packet]

    def frames(self, outputs: Generator[PacketOutput], first_packet: int) -> Generator[Frame]:
        """Yield the frames of the packets from ``first_packet`` on, in presentation order. Closes ``outputs``."""
        with closing(outputs):
            yield from self._present(outputs, first_packet)

    def _present(self, outputs: Iterable[PacketOutput], first_packet: int) -> Iterator[Frame]:
        judged = _JudgedPackets(self._container, self._places, self._marks, first_packet)
        ready: dict[int, Frame] = {}
        shown = self.first_frame(first_packet)
        for output in outputs:
            _check_count(self._container, output, len(self._container.packets))
            for frame in judged.add(output):
                ready[frame.index] = frame
            while shown in ready:
                yield ready.pop(shown)
                shown += 1


class _JudgedPackets:
    """Turn the decoder's output into frames in decoding order.

    Whether a frame is sound depends on the frames before it in decoding order, so they are judged in that order.
    """

    def __init__(self, container: Container, places: Sequence[int], marks: _Marks, first_packet: int) -> None:
        self._container, self._places = container, places
        self._references = _References(marks, places)
        self._size = container.width, container.height
        self._orientations = Orientations(container.codec, container.orientation)
        self._images: dict[int, VideoFrame] = {}
        self._refused: set[int] = set()
        self._shows = (container.packets.roles == PacketRole.SHOWS).tobytes()
        self._last_packets = container.packets.last_of_picture
        self._next = first_packet
        self._previous: VideoFrame | None = None

    def add(self, output: PacketOutput) -> Iterator[Frame]:
        """Take the output for one packet and yield the frames that are now decided."""
        if output.failed is not None:
            self._refused.add(output.failed)
        for packet, image in output.images:
            # One that is shown in another size counts as damaged, too.
            if not self._orientations.shows(image, transposed=self._container.transposed):
                self._refused.add(packet)
        # Ignore images of packets that were already judged.
        self._images.update((packet, image) for packet, image in output.images if packet >= self._next)
        # The picture of two fields is judged when both are decoded.
        while (
            self._next < len(self._shows)
            and self._last_packets[self._next] < output.sent
            and (
                self._next in self._images
                or not self._shows[self._next]
                or self._next in self._refused
                or output.last
                or output.sent - self._next > _PATIENCE
            )
        ):
            frame = self._judge(self._next)
            self._next += 1
            if frame is not None:
                yield frame

    def _judge(self, packet: int) -> Frame | None:
        """Return the frame of a packet; None where it shows nothing, or the edit list discards it."""
        container = self._container
        image = self._images.pop(packet, None)
        refused = not self._refused.isdisjoint(range(packet, self._last_packets[packet] + 1))
        if not self._shows[packet]:
            self._judge_unshown(packet, refused)
            return None
        if image is None and not refused and _repeats(container, int(container.packets.sizes[packet])):
            image = self._previous
        # A frame of another size counts as damaged, because the field of view holds for one size only.
        sound = (
            image is not None
            and not refused
            and not image.is_corrupt
            and (image.width, image.height) == self._size
        )
        decoded_as_key = image is not None and image.key_frame
        detail = self._references.judge(packet, sound, decoded_as_key, withheld=image is None and not refused)
        self._previous = image
        place = self._places[packet]
        if place < 0:
            return None
        return Frame(
            place,
            None if detail else image,
            detail,
            pts=container.pts[place],
            time_s=container.times_s[place],
        )

    def _judge_unshown(self, packet: int, refused: bool) -> None:
        """Take note of damage in a packet that shows no picture of its own."""
        role = self._container.packets.roles[packet]
        # A decoder may complain about headers without a picture, and about leading pictures. Nothing builds on these.
        if role == PacketRole.HIDDEN or (role == PacketRole.SECOND_FIELD and refused):
            self._references.judge(packet, not refused, False)


def _repeats(container: Container, size: int) -> bool:
    """Return whether a packet of MPEG-4 Part 2 only says "show the last frame again".

    Encoders write it for a repeated frame, and the decoder returns nothing for it. A coded frame takes at least one
    bit for each macroblock.
    """
    macroblocks = -(-container.width // 16) * -(-container.height // 16)
    return container.codec == "mpeg4" and 8 * size < macroblocks


class _Marks:
    """The marks of the packets: which begin anew, which are damaged, and whose word counts.

    ``withholds``: at the start of a recording the decoder returns no image until one is whole (``_withholds``).
    """

    def __init__(self, container: Container) -> None:
        self.keys = container.packets.keys.tobytes()
        self.flagged = container.packets.flagged.tobytes()
        # A container that marks no key frame at all lacks the marks; then the decoder's word counts alone.
        self.unmarked = not any(self.keys)
        self.intra_only = container.intra_only
        self.decoder_marks_keys = marks_keys(container.codec)
        self.withholds = _withholds(container.codec)

    def begin_anew(self, packet: int, decoded_as_key: bool) -> bool:
        """Return whether a sound packet builds on no other packet."""
        if self.intra_only:
            return True
        if not self.decoder_marks_keys:
            return bool(self.keys[packet]) or (self.unmarked and packet == 0)
        # Container and decoder must both call it a key frame. The index can be wrong. And some streams have no key
        # frames but refresh the image strip by strip (intra refresh): containers mark the first strip, although the
        # image is whole only many frames later.
        return decoded_as_key and (self.unmarked or bool(self.keys[packet]))


class _References:
    """The frames that damage reaches.

    Damage reaches all frames that follow in decoding order up to the next sound key frame. It also reaches the leading
    frames of that key frame: they are decoded after it, shown before it, and may build on what came before.

    Nothing comes before the first packet of a recording. If that is a key frame, the decoder itself tells which of its
    leading frames can be decoded, and returns no image for the others (``leading_pictures``).
    """

    def __init__(self, marks: _Marks, places: Sequence[int]) -> None:
        self._places, self._marks = places, marks
        # Without a key frame to begin with there is nothing to build on.
        self._broken = True
        self._leading_before = -1
        # While the decoder has returned no image and reported no damage.
        self._starting = False

    def judge(self, packet: int, sound: bool, decoded_as_key: bool, *, withheld: bool = False) -> Detail:
        """Return the detail of the next packet in decoding order; empty when it and its references are sound.

        Args:
            packet: its index.
            sound: the decoder returned its image and reported no damage.
            decoded_as_key: the decoder calls it a key frame.
            withheld: the decoder returned no image and reported no damage.
        """
        marks = self._marks
        place = self._places[packet]
        first_whole = False
        if packet == 0:
            self._starting = marks.withholds and withheld
        elif self._starting and not withheld:
            self._starting, first_whole = False, sound
        if withheld and not marks.flagged[packet] and 0 <= place < self._leading_before:
            # A leading frame that the decoder withholds for lack of references. No later frame builds on it.
            return "depends_on_damaged"
        if not sound or marks.flagged[packet]:
            self._broken = True
            return "damaged"
        if first_whole or marks.begin_anew(packet, decoded_as_key):
            if self._broken:
                self._leading_before = -1 if marks.intra_only or packet == 0 else place
            self._broken = False
            return ""
        if self._broken or place < self._leading_before:
            return "depends_on_damaged"
        return ""
