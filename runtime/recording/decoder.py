"""Reads a recording: one record for each picture that is there, in presentation order, none left out or
made up.

    container = scan("video.mp4")
    for picture in decode(container):
        if picture.status == "ok":
            picture.rgb()

What FFmpeg conceals is reported: a picture that it could not decode cleanly, or that builds on such a
picture, is ``corrupt``. Damage that no decoder notices cannot be seen here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..errors import InputError
from .colour import to_rgb
from .container import Container, Sample, scan
from .ffmpeg import Step, decode_packets, open_recording, quote
from .gop import decode_apart, ranks
from .packets import REORDER

__all__ = ["Container", "Picture", "Sample", "apart", "decode", "fetch", "scan", "to_rgb"]

# Packets after which a picture that has not come out will not come. A decoder keeps back at most what it
# reorders.
_PATIENCE = REORDER


@dataclass(frozen=True, slots=True)
class Picture:
    """One present container frame.

    ``pts`` counts ticks of the container's time base; ``time_s`` is seconds from the first presented
    picture. ``detail`` of a corrupt picture is ``damaged`` (its packet is flagged, the decoder reported
    an error or returned nothing for it) or ``depends_on_damaged``; only an ``ok`` picture has a frame.
    """

    index: int
    pts: int
    time_s: float
    status: Literal["ok", "corrupt"]
    detail: Literal["", "damaged", "depends_on_damaged"] = ""
    frame: VideoFrame | None = field(default=None, repr=False, compare=False)

    def rgb(self) -> npt.NDArray[np.uint8]:
        """The picture as uint8 HxWx3 RGB, full range; see ``to_rgb``. Raises ``InputError`` for a corrupt
        one.
        """
        if self.frame is None:
            raise InputError(f"frame {self.index} is corrupt ({self.detail}) and has no picture")
        return to_rgb(self.frame)


def decode(container: Container, *, since: int = 0) -> Generator[Picture]:
    """Every present picture of ``container``, in presentation order, decoded as it is asked for.

    From the sample ``since`` on, which is 0 or begins a group (``groups``). Holds at most some sixty pictures. The file
    is closed when the generator ends or is closed.

    Raises ``InputError`` when the file is no longer the one that was scanned.
    """
    needed = bytes(since) + b"\1" * (len(container.samples) - since) if since else None
    with open_recording(container.path) as (source, stream):
        steps = decode_packets(container.path, source, stream, needed=needed)
        yield from _Account(container).pictures(steps, since)


@contextmanager
def apart(container: Container, since: int = 0) -> Iterator[Iterator[tuple[int, Generator[Picture]]]]:
    """The same in groups, for as long as they can be decoded by themselves: first index and pictures of each.

    They are those of ``groups.decode_apart``, and raise what is said there.
    """
    account = _Account(container)
    with decode_apart(container, since) as found:
        yield ((account.place(first), account.pictures(steps, first)) for first, steps in found)


def fetch(container: Container, wanted: Collection[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Some sound pictures again, by index, in decoding order; only what they build on is decoded with them.

    For pictures that ``decode`` called ``ok``: nothing is judged here. Raises ``InputError`` when the file is no
    longer the one that was scanned.
    """
    samples = container.samples
    place_of = {container.order[index]: index for index in wanted}
    rank = ranks(container)
    starts = np.flatnonzero(samples.keys).tolist() or [0]
    needed = bytearray(len(samples))
    for sample in place_of:
        at = max(bisect_right(starts, sample) - 1, 0)
        if at and rank[sample] < rank[starts[at]]:
            # Shown before the key frame behind which it is stored: it builds on the group before, too.
            at -= 1
        first = starts[at] if starts[at] <= sample else 0
        needed[first : sample + 1] = b"\1" * (sample + 1 - first)
    with open_recording(container.path) as (source, stream):
        for step in decode_packets(container.path, source, stream, needed=needed):
            if step.sent > len(samples) or (step.last and step.sent != len(samples)):
                raise InputError(f"{quote(container.path)} changed while it was read", hint="read it again")
            for sample, frame in step.pictures:
                if sample in place_of:
                    yield place_of[sample], frame


class _Account:
    """What the container says of its samples, as each picture is judged by it. Serves several threads at once."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._rank = ranks(container)
        self._marks = _Marks(container)

    def place(self, sample: int) -> int:
        """The index of the picture that a group's first sample is."""
        return self._rank[sample] if sample else 0

    def pictures(self, steps: Generator[Step], since: int) -> Generator[Picture]:
        """The pictures of the samples from ``since`` on, in presentation order. Closes the steps."""
        with closing(steps):
            yield from self._settle(steps, since)

    def _settle(self, steps: Iterable[Step], since: int) -> Iterator[Picture]:
        container, rank = self._container, self._rank
        samples = container.samples
        chain = _Chain(self._marks, rank)
        came: dict[int, VideoFrame] = {}
        refused: set[int] = set()
        ready: dict[int, Picture] = {}
        settled, shown = since, self.place(since)
        last: VideoFrame | None = None
        size = container.width, container.height
        for step in steps:
            if step.failed is not None:
                refused.add(step.failed)
            # A picture that comes after it was given up stays what it was called.
            came.update((index, frame) for index, frame in step.pictures if index >= settled)
            if step.sent > len(samples) or (step.last and step.sent != len(samples)):
                raise InputError(f"{quote(container.path)} changed while it was read", hint="read it again")
            # Whether a picture is sound depends on those before it in decoding order, so they are settled
            # in it.
            while settled < step.sent and (
                settled in came or settled in refused or step.last or step.sent - settled > _PATIENCE
            ):
                frame = came.pop(settled, None)
                if (
                    frame is None
                    and settled not in refused
                    and _repeats(container, int(samples.sizes[settled]))
                ):
                    frame = last
                sound = frame is not None and settled not in refused and not frame.is_corrupt
                if frame is not None and (frame.width, frame.height) != size:
                    # The field of view, and so the answer, belongs to one size of picture.
                    sound = False
                detail = chain.judge(settled, sound, frame is not None and frame.key_frame)
                last = frame
                place = rank[settled]
                if place >= 0:
                    ready[place] = Picture(
                        place,
                        container.pts[place],
                        container.times_s[place],
                        "corrupt" if detail else "ok",
                        detail,
                        None if detail else frame,
                    )
                settled += 1
            while shown in ready:
                yield ready.pop(shown)
                shown += 1


def _repeats(container: Container, size: int) -> bool:
    """A packet of MPEG-4 Part 2 that says "the last picture again", for which the decoder returns nothing.

    Encoders write it for a repeated frame. A coded picture takes at least one bit for each macroblock.
    """
    macroblocks = -(-container.width // 16) * -(-container.height // 16)
    return container.codec == "mpeg4" and 8 * size < macroblocks


class _Marks:
    """What the container marks its samples as."""

    def __init__(self, container: Container) -> None:
        self.keys = container.samples.keys.tobytes()
        self.flagged = container.samples.flagged.tobytes()
        # Where the container marks no key frame at all its marks are missing, and the decoder's word
        # counts alone.
        self.unmarked = not any(self.keys)
        self.intra_only = container.intra_only


class _Chain:
    """Which pictures damage reaches: all that follow in decoding order up to the next sound key frame,
    and of those behind it the leading ones, shown before it, which may build on what came before.
    """

    def __init__(self, marks: _Marks, rank: Sequence[int]) -> None:
        self._rank, self._marks = rank, marks
        # Without a key frame to begin with there is nothing to build on.
        self._broken = True
        self._leading_before = -1

    def judge(
        self, index: int, sound: bool, decoded_as_key: bool
    ) -> Literal["", "damaged", "depends_on_damaged"]:
        """The detail of the next sample in decoding order; empty when it is sound and builds on sound
        ones.
        """
        marks = self._marks
        if not sound or marks.flagged[index]:
            self._broken = True
            return "damaged"
        place = self._rank[index]
        # Container and decoder must both say so: an index can be wrong, and containers also mark where a
        # stream that refreshes its pictures in strips begins a round, many pictures before it is whole.
        if marks.intra_only or (decoded_as_key and (marks.unmarked or marks.keys[index])):
            if self._broken:
                self._leading_before = -1 if marks.intra_only else place
            self._broken = False
            return ""
        if self._broken or place < self._leading_before:
            return "depends_on_damaged"
        return ""
