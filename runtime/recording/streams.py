"""Choose the video stream of a recording that is read, and count the pictures of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ..errors import InputError, UsageError
from .encryption import refuse_encrypted, sealed_streams
from .ffmpeg import StreamPlace, open_recording, picture_packets, quote, video_streams
from .file_window import StoredFile
from .transport import PidCount

__all__ = ["OpenedStream", "StreamCount", "open_stream"]

# Streams within 10 % of the longest are as long. Then the container's default flag decides.
_AS_LONG = 0.9


@dataclass(frozen=True)
class StreamCount:
    """One video stream of a file with several.

    Attributes:
        number: as ``--stream`` takes it and ffprobe shows it. Streams that FFmpeg does not see on opening follow.
        place: where it is opened; None where FFmpeg cannot open it.
        name: of the codec.
        width, height: in pixels.
        pictures: number of them.
        encrypted: number of ``pictures`` that are encrypted.
        default: the container marks it as the stream to show.
    """

    number: int
    place: StreamPlace | None
    name: str
    width: int
    height: int
    pictures: int
    encrypted: int
    default: bool

    @property
    def readable(self) -> int:
        """Number of pictures that can be decoded."""
        return 0 if self.place is None else self.pictures - self.encrypted

    def __str__(self) -> str:
        return f"{self.number} ({self.name}, {self.width} x {self.height}, {self.pictures:,} pictures)"


@dataclass(frozen=True)
class OpenedStream:
    """The stream that is read.

    Attributes:
        source, stream: opened by FFmpeg.
        number: as in ``StreamCount``.
        place: to open it again.
        others: the other video streams of the file, without cover pictures.
    """

    source: InputContainer
    stream: VideoStream
    number: int
    place: StreamPlace
    others: tuple[StreamCount, ...] = ()


@contextmanager
def open_stream(
    path: StoredFile, end: int, number: int | None, pids: Mapping[int, PidCount] | None
) -> Iterator[OpenedStream]:
    """Open a video stream of a file: the one asked for, else the one with most pictures.

    Args:
        path: of the file.
        end: number of bytes of the file that are read.
        number: of the stream; None to choose.
        pids: the packets of a transport stream by PID.

    Raises:
        InputError: the file cannot be opened, or its pictures are encrypted.
        UsageError: there is no stream of this number.
    """
    whole = StreamPlace(None, 0, end)
    with open_recording(path, whole) as (source, stream):
        hidden = _unseen(source, pids or {})
        if len(video_streams(source)) == 1 and not hidden:
            if number not in (None, stream.index):
                raise _no_stream(path, number, f"{stream.index} ({stream.codec_context.name})")
            place = replace(whole, number=stream.index)
            yield OpenedStream(source, stream, stream.index, place)
            return
        counts = _count_streams(path, source, whole, pids or {})
        known = len(source.streams)
    counts += _count_unseen(path, whole, hidden, known)
    chosen = _choose(path, counts, number)
    assert chosen.place is not None
    others = tuple(each for each in counts if each is not chosen and each.pictures)
    with open_recording(path, chosen.place) as (source, stream):
        yield OpenedStream(source, stream, chosen.number, chosen.place, others)


def _choose(path: StoredFile, counts: Sequence[StreamCount], number: int | None) -> StreamCount:
    there = ", ".join(str(each) for each in counts if each.place is not None)
    if number is not None:
        found = next((each for each in counts if each.number == number and each.place is not None), None)
        if found is None:
            raise _no_stream(path, number, there)
        return found
    most = max(each.readable for each in counts)
    if not most:
        if any(each.encrypted for each in counts):
            raise refuse_encrypted(path, sum(each.encrypted for each in counts))
        raise InputError(
            f"{quote(path)} holds no picture in its video streams {there}",
            hint="copy it again from the recorder",
        )
    longest = [each for each in counts if each.readable >= _AS_LONG * most]
    # The first of equals.
    return max([each for each in longest if each.default] or longest, key=lambda each: each.readable)


def _no_stream(path: StoredFile, number: int | None, there: str) -> UsageError:
    return UsageError(
        f"stream is {number}, the video streams of {quote(path)} are {there}",
        hint="leave --stream out to read the stream with most pictures",
    )


def _count_streams(
    path: StoredFile, source: InputContainer, whole: StreamPlace, pids: Mapping[int, PidCount]
) -> list[StreamCount]:
    """Count the pictures of all video streams that FFmpeg sees, by demuxing the file once."""
    streams = video_streams(source)
    pictures = dict.fromkeys((stream.index for stream in streams), 0)
    encrypted = dict(pictures)
    for packet in picture_packets(source, streams):
        pictures[packet.stream.index] += 1
        encrypted[packet.stream.index] += packet.has_sidedata("encryption_info")
    sealed = sealed_streams(path, whole.end or 0, source)
    default = av.stream.Disposition.default
    counts = []
    for stream in streams:
        context, index = stream.codec_context, stream.index
        if index in sealed and not encrypted[index]:
            encrypted[index] = pictures[index]
        scrambled = pids[stream.id].scrambled if stream.id in pids else 0
        counts.append(
            StreamCount(
                number=index,
                place=None if context is None else replace(whole, number=index),
                name="unknown codec" if context is None else context.name,
                width=0 if context is None else context.width,
                height=0 if context is None else context.height,
                pictures=pictures[index] + scrambled,
                encrypted=encrypted[index] + scrambled,
                default=bool(stream.disposition & default),
            )
        )
    return [_with_size(path, each, streams, pids, whole) for each in counts]


def _with_size(
    path: StoredFile,
    count: StreamCount,
    streams: Sequence[VideoStream],
    pids: Mapping[int, PidCount],
    whole: StreamPlace,
) -> StreamCount:
    """Return the count of a stream that begins late in a transport stream with its size, which FFmpeg did not see."""
    pid = next(stream.id for stream in streams if stream.index == count.number)
    if count.width or count.place is None or pid not in pids or not pids[pid].pictures:
        return count
    late = _count_late(path, whole, pid, pids[pid], count.number)
    return count if late.place is None else late


def _unseen(source: InputContainer, pids: Mapping[int, PidCount]) -> dict[int, PidCount]:
    """Return the PIDs with video that FFmpeg did not see on opening."""
    seen = {stream.id for stream in source.streams}
    return {pid: count for pid, count in pids.items() if pid not in seen and count.pictures}


def _count_unseen(
    path: StoredFile, whole: StreamPlace, unseen: Mapping[int, PidCount], known: int
) -> list[StreamCount]:
    found = [
        _count_late(path, whole, pid, count, known + place)
        for place, (pid, count) in enumerate(unseen.items())
    ]
    # A single packet on a PID that is no stream is a packet whose PID is damaged.
    return [each for each in found if each.place is not None or each.pictures > 1]


def _count_late(path: StoredFile, whole: StreamPlace, pid: int, count: PidCount, number: int) -> StreamCount:
    """Count the pictures of a PID that begins late, by opening the file where it begins."""
    place = replace(whole, start=count.begin)
    try:
        with open_recording(path, place) as (source, _):
            stream = next((each for each in video_streams(source) if each.id == pid), None)
            if stream is not None and stream.codec_context is not None:
                context = stream.codec_context
                return StreamCount(
                    number=number,
                    place=replace(place, number=stream.index),
                    name=context.name,
                    width=context.width,
                    height=context.height,
                    pictures=sum(1 for _ in picture_packets(source, stream)) + count.scrambled,
                    encrypted=count.scrambled,
                    default=False,
                )
    except InputError:
        pass
    return StreamCount(number, None, f"PID {pid}", 0, 0, count.pictures, 0, False)
