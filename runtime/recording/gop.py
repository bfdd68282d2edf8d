"""Groups of pictures that stand apart from all others: each can be decoded by itself, by a decoder of one thread.

Several threads within a decoder hide damage (``ffmpeg``); several decoders do not. A group begins with a picture
that resets the decoder (IDR), and no picture of another group is shown among its own, so it decodes to the
same pictures by itself. That is relied on only while nothing is wrong: from the first group on that is not whole in
every respect, one decoder reads to the end. Where that happens depends on the recording alone, so the account is the
same for any number of decoders.
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
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ..errors import InputError
from .container import Container
from .ffmpeg import Step, drain, open_decoder, open_recording, picture_packets, quote, send

__all__ = ["NotApartError", "decode_apart", "find_groups", "group_numbers", "group_of", "ranks"]

# A group is not ended before it has so many pictures: emptying a decoder costs a fraction of a picture.
_SHORTEST = 32
# Packets of longer groups are not held in memory, and one thread would be at them for long: from such a group on a
# recording is decoded in order.
_LONGEST = 512
_MOST_BYTES = 1 << 24

# NAL units by codec (ITU-T H.264 table 7-1, H.265 table 7-1): slices that reset the decoder, other slices, and what
# says nothing about how slices are decoded (delimiters, supplemental information, filler).
_NAL_UNITS = {
    "h264": (frozenset({5}), frozenset({1}), frozenset({6, 9, 12})),
    "hevc": (frozenset({19, 20}), frozenset(range(10)), frozenset({35, 38, 39, 40})),
}


class NotApartError(Exception):
    """Groups end here: from the sample ``begin`` on a recording is to be decoded in order, by one decoder."""

    def __init__(self, begin: int) -> None:
        super().__init__(begin)
        self.begin = begin


def find_groups(container: Container) -> list[range]:
    """The samples of a recording, parted in front of key frames that all others are shown before or behind.

    One group where the container or the codec gives no such assurance.
    """
    count = len(container.samples)
    if container.codec not in _NAL_UNITS or not container.format.startswith(("mov", "matroska")):
        return [range(count)]
    rank = np.asarray(ranks(container))
    before = np.maximum.accumulate(np.concatenate([[-1], rank[:-1]]))
    behind = np.minimum.accumulate(np.where(rank < 0, count, rank)[::-1])[::-1]
    starts = [0]
    for start in np.flatnonzero(
        container.samples.keys & (rank >= 0) & (before < rank) & (behind >= rank)
    ).tolist():
        if start - starts[-1] >= _SHORTEST:
            starts.append(start)
    return [range(first, end) for first, end in zip(starts, [*starts[1:], count], strict=True)]


def ranks(container: Container) -> array[int]:
    """The place of each sample among the shown, -1 for one that is not."""
    found = np.full(len(container.samples), -1, np.int64)
    found[np.asarray(container.order)] = np.arange(container.present)
    return array("q", found.tobytes())


def group_of(groups: Sequence[range], sample: int) -> int:
    """The place of the group that a sample belongs to."""
    return bisect_right(groups, sample, key=lambda group: group.start) - 1


def group_numbers(container: Container) -> Callable[[int], int]:
    """What tells of a frame, by its index, the number of the group that it belongs to."""
    rank = ranks(container)
    starts = [rank[group.start] for group in find_groups(container)]
    return lambda index: bisect_right(starts, index)


@contextmanager
def decode_apart(container: Container, since: int = 0) -> Iterator[Iterator[tuple[int, Generator[Step]]]]:
    """The groups from that on which begins with sample ``since``: their first sample, and their steps.

    The steps of a group, as ``ffmpeg.send`` makes them, may be taken by any thread, those of several groups at once;
    each is closed before this context is left. A group in which something is wrong raises ``NotApartError`` behind what
    was sound in it, and so does the iterator where the next group is none that could be decoded by itself. It raises
    ``InputError`` where the file is no longer the one that was scanned.
    """
    groups = find_groups(container)
    with ExitStack() as stack:
        source, stream = stack.enter_context(open_recording(container.path))
        units = _Units.of(container.codec, stream) if len(groups) > 1 else None
        # A stack of its own: decoders are opened by the threads, and must outlive them.
        decoders = _Decoders(container, stack.enter_context(ExitStack()))
        if units is not None:
            decoders.give(open_decoder(container.path, stream))
        yield _apart(container, groups, since, picture_packets(source, stream), decoders, units)


def _apart(
    container: Container,
    groups: Sequence[range],
    since: int,
    packets: Iterator[Packet[VideoStream]],
    decoders: _Decoders,
    units: _Units | None,
) -> Iterator[tuple[int, Generator[Step]]]:
    sizes = container.samples.sizes
    # The group before it prepares the decoder that reads on: it has what one that read all would have.
    before = since
    for group in groups[group_of(groups, since) :]:
        if units is None or len(group) > _LONGEST or int(sizes[group.start : group.stop].sum()) > _MOST_BYTES:
            raise NotApartError(before)
        if group.start == since:
            deque(islice(packets, since), maxlen=0)
        yield (
            group.start,
            _decode(container, group, before, list(islice(packets, len(group))), decoders, units),
        )
        before = group.start
    if next(packets, None) is not None:
        raise InputError(f"{quote(container.path)} changed while it was read", hint="read it again")


class _Units:
    """Whether packets consist of nothing but slices of the expected kind."""

    def __init__(self, codec: str, length_bytes: int) -> None:
        self._reset, self._others, self._silent = _NAL_UNITS[codec]
        self._hevc = codec == "hevc"
        self._length_bytes = length_bytes

    @classmethod
    def of(cls, codec: str, stream: VideoStream) -> _Units | None:
        """None where parameters may come with any packet (ISO/IEC 14496-15 keeps them in the header)."""
        header = stream.codec_context.extradata or b""
        at = 4 if codec == "h264" else 21
        if len(header) <= at or header[0] != 1:
            return None
        return cls(codec, (header[at] & 3) + 1)

    def fit(self, packet: memoryview, *, first: bool) -> bool:
        """Whether it is slices and nothing else that changes the decoder; of the ``first``, such as reset it."""
        wanted, at, end, found = (self._reset if first else self._others | self._reset), 0, len(packet), False
        while at + self._length_bytes < end:
            length = int.from_bytes(packet[at : at + self._length_bytes])
            at += self._length_bytes
            kind = packet[at] >> 1 & 63 if self._hevc else packet[at] & 31
            if kind in wanted:
                found = True
            elif kind not in self._silent:
                return False
            at += length
        return found and at == end


class _Decoders:
    """Decoders of a recording, opened as they are needed; each is used by one thread at a time."""

    def __init__(self, container: Container, stack: ExitStack) -> None:
        self._container, self._stack = container, stack
        self._free: deque[VideoCodecContext] = deque()
        self._opening = threading.Lock()

    def take(self) -> VideoCodecContext:
        try:
            return self._free.pop()
        except IndexError:
            with self._opening:
                _, stream = self._stack.enter_context(open_recording(self._container.path))
            return open_decoder(self._container.path, stream)

    def give(self, decoder: VideoCodecContext) -> None:
        decoder.flush_buffers()
        self._free.append(decoder)


def _decode(
    container: Container,
    group: range,
    before: int,
    packets: Sequence[Packet[VideoStream]],
    decoders: _Decoders,
    units: _Units,
) -> Generator[Step]:
    """A group by itself. Raises ``NotApartError(before)`` behind what was sound."""
    samples, size = container.samples, (container.width, container.height)
    decoder = decoders.take()
    waiting: dict[int, int | None] = {}
    sent = group.start
    try:
        for packet in packets:
            if samples.flagged[sent] or not units.fit(memoryview(packet), first=sent == group.start):
                break
            step = send(decoder, packet, sent, waiting)
            if step.failed is not None or not _sound(step, size, group.start):
                break
            sent += 1
            yield step
        else:
            step = Step(sent, drain(decoder, waiting))
            if sent == group.stop and not waiting and _sound(step, size, group.start):
                yield step
                return
        raise NotApartError(before)
    finally:
        decoders.give(decoder)


def _sound(step: Step, size: tuple[int, int], first: int) -> bool:
    return all(
        not frame.is_corrupt and (frame.width, frame.height) == size and (index > first or frame.key_frame)
        for index, frame in step.pictures
    )
