"""Groups of pictures that stand apart from all others, decoded side by side, each by a decoder of one thread.

Several threads within a decoder hide damage (``ffmpeg``); several decoders do not. A group begins with a picture
that resets the decoder (IDR), and no picture of another group is shown among its own, so it decodes to the
same pictures by itself. That is relied on only while nothing is wrong: from the first group on that is not whole in
every respect, one decoder reads to the end. Where that happens depends on the recording alone, so the account is the
same for any number of decoders.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .containers import Container
from .ffmpeg import Step, decode_packets, drain, open_decoder, open_recording, picture_packets, send
from .lanes import side_by_side

__all__ = ["decode_groups", "find_groups"]

# A group is not ended before it has so many pictures: emptying a decoder costs a fraction of a picture.
_SHORTEST = 32
# Packets of longer groups are not held in memory: such a group is decoded as it is read, with none beside it.
_LONGEST = 512
_MOST_BYTES = 1 << 24
# Pictures handed over at once; how many such may wait of the group whose turn it is, and how many bytes of pictures of
# those behind it: enough that the decoder whose turn it is seldom works alone.
_CHUNK = 4
_DEPTH = 4
_AHEAD_BYTES = 10 << 20

# NAL units by codec (ITU-T H.264 table 7-1, H.265 table 7-1): slices that reset the decoder, other slices, and what
# says nothing about how slices are decoded (delimiters, supplemental information, filler).
_NAL_UNITS = {
    "h264": (frozenset({5}), frozenset({1}), frozenset({6, 9, 12})),
    "hevc": (frozenset({19, 20}), frozenset(range(10)), frozenset({35, 38, 39, 40})),
}


class _DoubtError(Exception):
    """A group that cannot be judged by itself."""


def find_groups(container: Container) -> list[range]:
    """The samples of a recording, parted in front of key frames that all others are shown before or behind.

    One group where the container or the codec gives no such assurance.
    """
    count = len(container.samples)
    if container.codec not in _NAL_UNITS or not container.format.startswith(("mov", "matroska")):
        return [range(count)]
    rank = np.full(count, -1, np.int64)
    rank[np.asarray(container.order)] = np.arange(container.present)
    before = np.maximum.accumulate(np.concatenate([[-1], rank[:-1]]))
    behind = np.minimum.accumulate(np.where(rank < 0, count, rank)[::-1])[::-1]
    starts = [0]
    for start in np.flatnonzero(
        container.samples.keys & (rank >= 0) & (before < rank) & (behind >= rank)
    ).tolist():
        if start - starts[-1] >= _SHORTEST:
            starts.append(start)
    return [range(first, end) for first, end in zip(starts, [*starts[1:], count], strict=True)]


def decode_groups(container: Container, lanes: int) -> Generator[Step]:
    """All packets of a recording decoded by up to ``lanes`` decoders, in steps as ``ffmpeg.decode_packets`` makes them.

    After a group that is not whole the steps begin again some groups earlier, with the pictures that are already
    there among them. Close it.
    """
    groups = find_groups(container)
    path = container.path
    whole = 0
    if len(groups) > 1:
        with ExitStack() as stack:
            source, stream = stack.enter_context(open_recording(path))
            if (units := _Units.of(container.codec, stream)) is not None:
                # A stack of its own: decoders are opened by the threads, and must outlive them.
                decoders = _Decoders(container, stack.enter_context(ExitStack()))
                decoders.give(open_decoder(path, stream))
                parts = _parts(container, groups, picture_packets(source, stream), decoders, units)
                size = _CHUNK * container.width * container.height * 3 // 2
                ahead = max(1, _AHEAD_BYTES // size)
                steps = (
                    side_by_side(parts, lanes=lanes, depth=min(_DEPTH, ahead), ahead=ahead)
                    if lanes > 1
                    else _in_turn(parts)
                )
                stack.enter_context(closing(steps))
                try:
                    for some in steps:
                        yield from some
                        if some[-1].last:
                            return
                        whole = some[-1].sent
                except _DoubtError:
                    pass
    # The group before it prepares the decoder: it has what a decoder that read all would have.
    at = next((number for number, group in enumerate(groups) if whole < group.stop), 0)
    first = groups[max(at - 1, 0)].start
    needed = None if first == 0 else bytes(first) + b"\1" * (len(container.samples) - first)
    with open_recording(path) as (source, stream):
        yield from decode_packets(path, source, stream, needed=needed)


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

    def fit(self, packet: bytes, *, first: bool) -> bool:
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


def _parts(
    container: Container,
    groups: Sequence[range],
    packets: Iterator[Packet[VideoStream]],
    decoders: _Decoders,
    units: _Units,
) -> Iterator[Generator[list[Step]]]:
    """The steps of each group, the last of all behind the last group."""
    for group in groups:
        if len(group) <= _LONGEST and container.samples.sizes[group.start : group.stop].sum() <= _MOST_BYTES:
            yield _decode(container, group, list(islice(packets, len(group))), decoders, units)
            continue
        done = threading.Event()
        yield _alone(_decode(container, group, islice(packets, len(group)), decoders, units), done)
        done.wait()
    yield _end(len(container.samples) + sum(1 for _ in islice(packets, 1)))


def _end(sent: int) -> Generator[list[Step]]:
    yield [Step(sent, [], last=True)]


def _in_turn(parts: Iterator[Generator[list[Step]]]) -> Generator[list[Step]]:
    for part in parts:
        with closing(part):
            yield from part


def _alone(steps: Generator[list[Step]], done: threading.Event) -> Generator[list[Step]]:
    try:
        with closing(steps):
            yield from steps
    finally:
        done.set()


def _decode(
    container: Container,
    group: range,
    packets: Sequence[Packet[VideoStream]] | Iterator[Packet[VideoStream]],
    decoders: _Decoders,
    units: _Units,
) -> Generator[list[Step]]:
    """A group by itself, ``_CHUNK`` steps at a time. Raises ``_DoubtError`` behind what was sound."""
    samples, size = container.samples, (container.width, container.height)
    decoder = decoders.take()
    waiting: dict[int, int | None] = {}
    steps: list[Step] = []
    sent = group.start
    try:
        for packet in packets:
            fits = units.fit(bytes(packet), first=sent == group.start) and not samples.flagged[sent]
            step = send(decoder, packet, sent, waiting) if fits else None
            if step is None or step.failed is not None or not _sound(step, size, group.start):
                break
            sent += 1
            steps.append(step)
            if len(steps) == _CHUNK:
                yield steps
                steps = []
        else:
            step = Step(sent, drain(decoder, waiting))
            if sent == group.stop and not waiting and _sound(step, size, group.start):
                yield [*steps, step]
                return
        if steps:
            yield steps
        raise _DoubtError
    finally:
        decoders.give(decoder)


def _sound(step: Step, size: tuple[int, int], first: int) -> bool:
    return all(
        not frame.is_corrupt and (frame.width, frame.height) == size and (index > first or frame.key_frame)
        for index, frame in step.pictures
    )
