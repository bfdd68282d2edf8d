"""Decode frames by index: go on with a decoder that is near, or begin at the key frame before.

``VideoReading`` keeps a few decoders open, each at its place in the file. Playing forward goes on with the one that has
just shown the frame before, also in a file that can be decoded from its start alone. ``SeriesReading`` reads images,
each of which stands alone. Both serve one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.recording import (
    Container,
    Entries,
    Frame,
    FrameBuilder,
    FrameDecoder,
    ImageSeries,
    SeekError,
    find_entries,
    read_series,
)

from .availability import Access

__all__ = ["FrameReading", "SeriesReading", "VideoReading", "open_reading"]

# Decoders that are kept open at their place: two panes, and one that reads ahead.
_MOST_RUNS = 3
# Beginning anew costs about as much as decoding this many frames.
_COST_OF_SEEKING = 8
# A jump over more frames than this keeps no place to go on from when it is given up, so ``read`` takes it.
_MOST_JUMPED = 2000
# A demuxer that has found none of this many entries finds none at all.
_MOST_LOST = 4
# Pictures of a sound recording that are decoded at the same time. Pixels and order are those of one thread.
_SOUND_THREADS = 2
# The same for a jump. A picture waits for rows of the one before it, so more than there are cores keep these busy.
_JUMP_THREADS = 4
# Pixels that one core decodes in about 150 ms: some 170 frames of 336 x 336 pixels.
_FAST_PIXELS = 20_000_000
# Reading a file of this many bytes takes about 150 ms.
_FAST_BYTES = 64 << 20


class FrameReading(Protocol):
    """Reads the frames of one recording."""

    def read(self, index: int, keep: Callable[[Frame], None], pause: Callable[[], bool]) -> Frame | None:
        """Return a frame, sound or corrupt.

        Args:
            index: of a frame that is there.
            keep: called with each frame that is decoded on the way, the wanted one included.
            pause: asked after each frame on the way; True ends the call early, with None. The next call goes on.
        """
        ...

    def jump(self, index: int, pause: Callable[[], bool]) -> Frame | None:
        """Return a frame without those before it, where that is faster; else None, and ``read`` is to be called.

        Args:
            index: of a frame that is there.
            pause: asked on the way; True ends the call early, with None.
        """
        ...

    @property
    def last_entry(self) -> int:
        """Index of the last frame at which decoding may begin."""
        ...

    def access(self) -> Access:
        """Return how fast any frame can be shown, as far as that is known."""
        ...

    def release(self) -> None:
        """Close all files. The next ``read`` opens them again."""
        ...


def open_reading(container: Container, *, sound: bool = False) -> FrameReading:
    """Return the reading of a recording. No file is opened yet.

    Args:
        container: of the recording.
        sound: a reading of the whole recording found no damage.
    """
    if isinstance(container, ImageSeries):
        return SeriesReading(container)
    return VideoReading(container, sound=sound)


@dataclass(slots=True)
class _Run:
    """A decoder on its way through the file.

    Attributes:
        entry: number of the entry at which it began.
        next: index of the frame that comes next.
        trusted: its frames have the fate that a reading of the whole recording gives them.
        fresh: no frame has come yet.
    """

    decoder: FrameDecoder
    frames: Generator[Frame]
    entry: int
    next: int
    trusted: bool
    fresh: bool = True

    def close(self) -> None:
        self.frames.close()


class VideoReading:
    """Read frames of a video file."""

    def __init__(self, container: Container, entries: Entries | None = None, *, sound: bool = False) -> None:
        self._container = container
        self._threads = _SOUND_THREADS if sound else 1
        self.entries = entries or find_entries(container)
        self._builder = FrameBuilder(container)
        # The last one is the one that was used last.
        self._runs: list[_Run] = []
        self._idle: list[FrameDecoder] = []
        # Entries whose own frame is not sound: decoding does not begin anew there.
        self._unfit: set[int] = set()
        # Number of entries that the demuxer did not find, and whether it found any.
        self._lost, self._found = 0, False
        # Where a picture on which nothing builds can be told, and left out.
        self._jumps = sound and container.codec == "h264"
        self._jumper: FrameDecoder | None = None
        self._missed = 0

    def read(self, index: int, keep: Callable[[Frame], None], pause: Callable[[], bool]) -> Frame | None:
        """Return a frame; see ``FrameReading``."""
        while True:
            run = self._run_before(index)
            try:
                frame = self._advance(run, index, keep, pause)
            except SeekError:
                self._drop(run, broken=True)
                self._note_lost(run.entry)
                continue
            except BaseException:
                self._drop(run, broken=True)
                raise
            if frame is not None or run in self._runs:
                return frame

    def jump(self, index: int, pause: Callable[[], bool]) -> Frame | None:
        """Return a frame without those before it; see ``FrameReading``."""
        start = self._start_for(index)
        far = index - self._first_frame(start)
        near = any(0 <= index - run.next <= far // 2 for run in self._runs)
        if not self._jumps or near or not _COST_OF_SEEKING <= far <= _MOST_JUMPED:
            return None
        if self._jumper is None:
            self._jumper = FrameDecoder(self._container, self._builder, threads=_JUMP_THREADS)
        try:
            frame = self._jumper.jump(int(self.entries.packets[start]), index, pause)
        except SeekError:
            self._note_lost(start)
            return None
        if frame is None and not pause():
            self._note_missed(start)
        return frame

    def _note_missed(self, entry: int) -> None:
        """Take note of an entry from which a frame did not come out whole. After some, jump no more."""
        if entry:
            self._unfit.add(entry)
        self._missed += 1
        if self._missed == _MOST_LOST and self._jumper is not None:
            self._jumper.close()
            self._jumps, self._jumper = False, None

    @property
    def last_entry(self) -> int:
        """Index of the last frame at which decoding may begin."""
        return self._first_frame(-1)

    def access(self) -> Access:
        """Return how fast any frame can be shown: by the largest distance between two entries."""
        container = self._container
        entries = self.entries
        places = np.arange(container.present)
        numbers = np.searchsorted(entries.frames, places, side="right") - 1
        decoded = places - entries.frames[numbers - entries.open[numbers]] + 1
        usual, most = int(np.percentile(decoded, 95)), int(decoded.max())
        if usual * container.width * container.height <= _FAST_PIXELS:
            return Access("fast", "", usual, most)
        if self._lost and not self._found:
            reason = "the file gives no way to begin in its middle"
        elif len(self.entries) == 1:
            reason = "the file has no key frame but its first"
        else:
            reason = f"up to {most:,} frames have to be decoded for one"
        return Access("slow", f"Frames take longer to show, because {reason}.", usual, most)

    def release(self) -> None:
        """Close all files."""
        for run in self._runs:
            run.close()
        for decoder in [*self._idle, *(run.decoder for run in self._runs)]:
            decoder.close()
        if self._jumper is not None:
            self._jumper.close()
        self._runs, self._idle, self._jumper = [], [], None

    def _advance(
        self, run: _Run, index: int, keep: Callable[[Frame], None], pause: Callable[[], bool]
    ) -> Frame | None:
        """Decode up to a frame. Return None where it is to pause, or where the run turned out to be unfit."""
        for frame in run.frames:
            if run.fresh and run.entry and frame.detail:
                break
            self._trust(run, frame)
            run.next = frame.index + 1
            if run.trusted:
                keep(frame)
                if frame.index == index:
                    return frame
            elif frame.index >= index:
                break
            if pause():
                return None
        if run.entry:
            # It began where it cannot: a later entry than the one that the frame builds on.
            self._unfit.add(run.entry)
            self._drop(run)
            return None
        raise AssertionError(f"frame {index} of {self._container.present} did not come")

    def _trust(self, run: _Run, frame: Frame) -> None:
        """Trust a run from the first frame on at which the decoder has begun anew (``random_access``)."""
        if run.fresh:
            self._found |= run.entry > 0
            run.trusted = not self.entries.open[run.entry]
        elif not run.trusted:
            run.trusted = self.entries.confirms(frame)
        run.fresh = False

    def _first_frame(self, entry: int) -> int:
        return int(self.entries.frames[entry])

    def _run_before(self, index: int) -> _Run:
        """Return the run from which a frame is reached first; begin one where that is nearer."""
        start = self._start_for(index)
        near = [run for run in self._runs if run.next <= index and (run.trusted or run.entry <= start)]
        nearest = max(near, key=lambda run: run.next, default=None)
        if nearest is None or nearest.next + _COST_OF_SEEKING < self._first_frame(start):
            return self._begin(start)
        self._runs.remove(nearest)
        self._runs.append(nearest)
        return nearest

    def _start_for(self, index: int) -> int:
        """Return the number of the entry to begin at; further back with each one that is unfit."""
        entry, step = self.entries.start_for(index), 1
        while entry in self._unfit:
            entry, step = max(entry - step, 0), 2 * step
        return entry

    def _begin(self, entry: int) -> _Run:
        while len(self._runs) >= _MOST_RUNS:
            self._drop(self._runs[0])
        if self._idle:
            decoder = self._idle.pop()
        else:
            decoder = FrameDecoder(self._container, self._builder, threads=self._threads)
        frames = decoder.frames_from(int(self.entries.packets[entry]))
        run = _Run(decoder, frames, entry, self._first_frame(entry), trusted=entry == 0)
        self._runs.append(run)
        return run

    def _drop(self, run: _Run, *, broken: bool = False) -> None:
        run.close()
        if run in self._runs:
            self._runs.remove(run)
        if broken:
            run.decoder.close()
        else:
            self._idle.append(run.decoder)

    def _note_lost(self, entry: int) -> None:
        """Take note of an entry that the demuxer does not find. If it finds none, begin at the file's start only."""
        if entry:
            self._unfit.add(entry)
        self._lost += 1
        if not self._found and self._lost >= min(_MOST_LOST, len(self.entries) - 1):
            for run in [*self._runs]:
                self._drop(run)
            self.entries = self.entries.only_first()


class SeriesReading:
    """Read images of a series. A DICOM file stays open."""

    def __init__(self, series: ImageSeries) -> None:
        self._series = series
        self._asked = 0
        self._images: Iterator[tuple[int, npt.NDArray[np.uint8] | None]] | None = None

    def read(self, index: int, keep: Callable[[Frame], None], pause: Callable[[], bool]) -> Frame | None:
        """Return a frame; see ``FrameReading``."""
        self._asked = index
        if self._images is None:
            self._images = read_series(self._series, self._requests())
        try:
            _, rgb = next(self._images)
        except BaseException:
            self._images = None
            raise
        frame = Frame(index, rgb, "" if rgb is not None else "damaged")
        keep(frame)
        return frame

    def jump(self, index: int, pause: Callable[[], bool]) -> Frame | None:
        """Return None: each image stands alone."""
        return None

    @property
    def last_entry(self) -> int:
        """Index of the last frame: each stands alone."""
        return self._series.present - 1

    def access(self) -> Access:
        """Return how fast any frame can be shown. A TIFF is read whole for each of its pages."""
        series = self._series
        if series.format == "tiff" and series.path.stat().st_size > _FAST_BYTES:
            reason = "Frames take longer to show, because a large TIFF is read whole for each page."
            return Access("slow", reason, 1, 1)
        return Access("fast", "", 1, 1)

    def release(self) -> None:
        """Let go of the file."""
        self._images = None

    def _requests(self) -> Iterator[int]:
        while True:
            yield self._asked
