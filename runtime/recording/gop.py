"""Closed groups of pictures (GOPs): each decodes by itself, so several decoders of one thread can share a recording.

A decoder with several threads fails to report damage (see ``ffmpeg``); several decoders of one thread each report it.
A closed GOP begins with a frame that resets the decoder (IDR), and no frame of another GOP is shown among its own, so
it decodes to the same images by itself.

This holds for sound streams only. At the first damaged GOP the reader falls back to a single decoder for the rest of
the file. Where that happens depends on the recording alone, so the ledger is the same for any number of decoders.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .coded_pictures import PacketRole
from .container import Container
from .ffmpeg import PacketOutput, drain, open_decoder, open_recording, picture_packets, send

__all__ = [
    "ClosedGopError",
    "count_closed",
    "decode_gops",
    "find_gops",
    "gop_numbers",
    "gop_of",
    "presentation_places",
]

# A GOP ends after this many packets or more: emptying a decoder costs a fraction of a frame.
_SHORTEST = 32
# Longer GOPs would take much memory and keep one thread busy for long. From such a GOP on, decode in order.
_LONGEST = 512
_MOST_BYTES = 1 << 24

# NAL unit types by codec (ITU-T H.264 table 7-1, H.265 table 7-1): slices that reset the decoder, other slices, and
# units that do not change how slices are decoded (delimiters, supplemental information, filler).
_NAL_UNITS = {
    "h264": (frozenset({5}), frozenset({1}), frozenset({6, 9, 12})),
    "hevc": (frozenset({19, 20}), frozenset(range(10)), frozenset({35, 38, 39, 40})),
}


class ClosedGopError(Exception):
    """Decode the recording in order from packet ``first_packet`` on, with one decoder.

    Raised where the next GOP is damaged, too long, or not closed.

    Attributes:
        first_packet: first packet of the GOP before the failed one, or of the failed one if reading began there.
        failed_packet: first packet of the failed GOP.
    """

    def __init__(self, first_packet: int, failed_packet: int) -> None:
        super().__init__(first_packet, failed_packet)
        self.first_packet, self.failed_packet = first_packet, failed_packet


def find_gops(container: Container) -> list[range]:
    """Return the packets of each closed GOP of a recording, in file order.

    A GOP begins at a key frame such that every frame stored before it is shown before it, and every frame stored after
    it is shown after it. The whole recording is one GOP where the container or the codec does not ensure that.
    """
    count = len(container.packets)
    if container.codec not in _NAL_UNITS or not container.format.startswith(("mov", "matroska")):
        return [range(count)]
    places = np.asarray(presentation_places(container))
    before = np.maximum.accumulate(np.concatenate([[-1], places[:-1]]))
    after = np.minimum.accumulate(np.where(places < 0, count, places)[::-1])[::-1]
    starts = [0]
    for start in np.flatnonzero(
        container.packets.keys & (places >= 0) & (before < places) & (after >= places)
    ).tolist():
        if start - starts[-1] >= _SHORTEST:
            starts.append(start)
    return [range(first, end) for first, end in zip(starts, [*starts[1:], count], strict=True)]


def count_closed(container: Container) -> int:
    """Return the number of GOPs, from the first on, that the scan of the packets shows to be short and not damaged.

    Decoding may still find damage in them.
    """
    packets = container.packets
    gops = find_gops(container)
    return next(
        (
            place
            for place, gop in enumerate(gops)
            if not _is_short(gop, packets.sizes) or packets.flagged[gop.start : gop.stop].any()
        ),
        len(gops),
    )


def presentation_places(container: Container) -> array[int]:
    """Return the frame index of each packet, -1 for a packet that is not shown."""
    found = np.full(len(container.packets), -1, np.int64)
    found[np.asarray(container.order)] = np.arange(container.present)
    return array("q", found.tobytes())


def gop_of(gops: Sequence[range], packet: int) -> int:
    """Return the place in ``gops`` of the GOP that a packet belongs to."""
    return bisect_right(gops, packet, key=lambda gop: gop.start) - 1


def gop_numbers(container: Container) -> Callable[[int], int]:
    """Return a function from a frame's index to the number of its closed GOP."""
    places = presentation_places(container)
    starts = [places[gop.start] for gop in find_gops(container)]
    return lambda index: bisect_right(starts, index)


@contextmanager
def decode_gops(
    container: Container, first_packet: int = 0
) -> Iterator[Iterator[tuple[int, Generator[PacketOutput]]]]:
    """Decode closed GOPs independently, starting at the GOP whose first packet is ``first_packet``.

    Any thread may take the outputs of a GOP, and several threads those of several GOPs at once. Close each generator
    before leaving the context.

    Yields:
        (first packet, outputs) of each GOP, in file order; the outputs are those of ``ffmpeg.send``.

    Raises:
        ClosedGopError: the generator of a GOP raises it at the first damaged packet, after the good ones. The outer
            iterator raises it if the next GOP is too long or cannot be decoded by itself.
        InputError: the outer iterator raises it if the file changed since it was scanned.
    """
    gops = find_gops(container)
    with ExitStack() as stack:
        source, stream = stack.enter_context(open_recording(container.path, container.place))
        units = _NalUnits.of(container.codec, stream) if len(gops) > 1 else None
        # A stack of its own: the threads open decoders, and the decoders must outlive the threads.
        decoders = _Decoders(container, stack.enter_context(ExitStack()))
        if units is not None:
            decoders.give(open_decoder(container.path, stream))
        yield _split(container, gops, first_packet, picture_packets(source, stream), decoders, units)


def _split(
    container: Container,
    gops: Sequence[range],
    first_packet: int,
    packets: Iterator[Packet[VideoStream]],
    decoders: _Decoders,
    units: _NalUnits | None,
) -> Iterator[tuple[int, Generator[PacketOutput]]]:
    sizes = container.packets.sizes
    # If one decoder has to take over, it starts one GOP before the failure. By then it is in the same state as a
    # decoder that read the file from the start.
    previous = first_packet
    for gop in gops[gop_of(gops, first_packet) :]:
        if units is None or not _is_short(gop, sizes):
            raise ClosedGopError(previous, gop.start)
        if gop.start == first_packet:
            deque(islice(packets, first_packet), maxlen=0)
        yield gop.start, _decode(container, gop, previous, list(islice(packets, len(gop))), decoders, units)
        previous = gop.start


class _NalUnits:
    """Check that packets consist of slices of the expected kind and nothing else."""

    def __init__(self, codec: str, length_bytes: int) -> None:
        self._reset, self._others, self._neutral = _NAL_UNITS[codec]
        self._hevc = codec == "hevc"
        self._length_bytes = length_bytes

    @classmethod
    def of(cls, codec: str, stream: VideoStream) -> _NalUnits | None:
        """Return the check for a stream; None if the header does not hold the parameter sets (SPS and PPS).

        Then any packet may carry them. ISO/IEC 14496-15 keeps them in the header.
        """
        header = stream.codec_context.extradata or b""
        at = 4 if codec == "h264" else 21
        if len(header) <= at or header[0] != 1:
            return None
        return cls(codec, (header[at] & 3) + 1)

    def fit(self, packet: memoryview, *, first: bool) -> bool:
        """Return whether a packet is slices and neutral units only; slices that reset the decoder if ``first``."""
        wanted, at, end, found = (self._reset if first else self._others | self._reset), 0, len(packet), False
        while at + self._length_bytes < end:
            length = int.from_bytes(packet[at : at + self._length_bytes])
            at += self._length_bytes
            kind = packet[at] >> 1 & 63 if self._hevc else packet[at] & 31
            if kind in wanted:
                found = True
            elif kind not in self._neutral:
                return False
            at += length
        return found and at == end


class _Decoders:
    """A pool of decoders of one recording, opened as they are needed. One thread at a time uses a decoder."""

    def __init__(self, container: Container, stack: ExitStack) -> None:
        self._container, self._stack = container, stack
        self._free: deque[VideoCodecContext] = deque()
        self._opening = threading.Lock()

    def take(self) -> VideoCodecContext:
        try:
            return self._free.pop()
        except IndexError:
            with self._opening:
                _, stream = self._stack.enter_context(
                    open_recording(self._container.path, self._container.place)
                )
            return open_decoder(self._container.path, stream)

    def give(self, decoder: VideoCodecContext) -> None:
        decoder.flush_buffers()
        self._free.append(decoder)


def _decode(
    container: Container,
    gop: range,
    previous: int,
    packets: Sequence[Packet[VideoStream]],
    decoders: _Decoders,
    units: _NalUnits,
) -> Generator[PacketOutput]:
    """Decode one GOP by itself. Raise ``ClosedGopError(previous)`` after the outputs that were sound."""
    flagged, size = container.packets.flagged, (container.width, container.height)
    shows = container.packets.roles == PacketRole.SHOWS
    decoder = decoders.take()
    waiting: dict[int, int | None] = {}
    sent = gop.start
    try:
        for packet in packets:
            if flagged[sent] or not units.fit(memoryview(packet), first=sent == gop.start):
                break
            output = send(decoder, packet, sent, waiting, shows=bool(shows[sent]))
            if output.failed is not None or not _is_sound(output, size, gop.start):
                break
            sent += 1
            yield output
        else:
            output = PacketOutput(sent, drain(decoder, waiting))
            if sent == gop.stop and not waiting and _is_sound(output, size, gop.start):
                yield output
                return
        raise ClosedGopError(previous, gop.start)
    finally:
        decoders.give(decoder)


def _is_short(gop: range, sizes: npt.NDArray[np.int64]) -> bool:
    return len(gop) <= _LONGEST and int(sizes[gop.start : gop.stop].sum()) <= _MOST_BYTES


def _is_sound(output: PacketOutput, size: tuple[int, int], first: int) -> bool:
    return all(
        not image.is_corrupt and (image.width, image.height) == size and (packet > first or image.key_frame)
        for packet, image in output.images
    )
