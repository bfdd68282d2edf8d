"""Show the frames of one recording by index, exactly as the model saw them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import Backend, InputSpec
from capsule_edge.runtime.preprocessing import (
    FIELD_FRAMES,
    FieldOfView,
    find_field_of_view,
    preprocess_frame,
)
from capsule_edge.runtime.recording import Container, Frame, scan

from .activation import Activation, map_activation
from .availability import Access, DecodingStoppedError, FrameUnavailable, StaleSourceError
from .byte_cache import ByteCache
from .encoded import encode_jpeg, encode_png, shrink_picture
from .file_mark import FileMark
from .frame_reading import open_reading
from .read_ahead import Neighbourhood, ReadAhead
from .strip import Strip, choose_indices, make_strip

__all__ = ["USUAL_URGENCY", "Caches", "FrameSource", "at_urgency", "giving_up"]

Pixels = npt.NDArray[np.uint8]

# Some 1,100 frames of a capsule of 336 x 336 pixels, or 60 frames of 1080p.
DECODED_BYTES = 192 << 20
ENCODED_BYTES = 32 << 20
# Bytes that a frame without picture is counted as.
_BARE_BYTES = 256
# Longer side of a small picture, pixels, and the limits of a strip.
THUMBNAIL = 96
LARGEST_TILE = 512
STRIP = 64
# A step of more frames than this is a jump: it says nothing about where the next one goes.
FAR = 12
# A thread that waits for another one to decode asks this often whether its own frame is still wanted.
_ASK_S = 0.1
# Urgency is 0 to 7, 0 the most urgent (RFC 9218, 4.1). This is the one of a request that names none.
USUAL_URGENCY = 3
# Comes after every call that waits, see ``_rank``.
_NOBODY = 16, -1
_numbers = count()
_given_up: ContextVar[Callable[[], bool]] = ContextVar("given_up", default=lambda: False)
_urgency: ContextVar[int] = ContextVar("urgency", default=USUAL_URGENCY)


@contextmanager
def giving_up(given_up: Callable[[], bool]) -> Iterator[None]:
    """Let this thread's calls of ``FrameSource`` end early while the block runs.

    Args:
        given_up: asked often; True ends the call with ``DecodingStoppedError``. The decoder keeps its place, so the
            next call goes on from there; a jump begins again.
    """
    before = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(before)


@contextmanager
def at_urgency(urgency: int) -> Iterator[None]:
    """Let this thread's calls of ``FrameSource`` go before others, or after them, while the block runs.

    Args:
        urgency: 0 to 7, 0 the most urgent. A call that is decoding lets a more urgent one go first, after the frame
            that it is at. A picture that is less urgent than usual is none that a person looks at: its neighbours are
            not prepared.
    """
    before = _urgency.set(urgency)
    try:
        yield
    finally:
        _urgency.reset(before)


@dataclass(frozen=True, slots=True)
class Caches:
    """The caches that sources share, and the thread that fills them ahead.

    Attributes:
        decoded: decoded frames by (number of the source, frame index).
        encoded: pictures by (number of the source, frame index, kind, size).
        ahead: prepares the neighbours of the frame that is looked at.
    """

    decoded: ByteCache[Frame]
    encoded: ByteCache[bytes]
    ahead: ReadAhead

    @classmethod
    def of_size(cls, decoded_bytes: int = DECODED_BYTES, encoded_bytes: int = ENCODED_BYTES) -> Caches:
        """Return empty caches that hold at most so many bytes."""
        return cls(ByteCache(decoded_bytes), ByteCache(encoded_bytes), ReadAhead())


class FrameSource:
    """The frames of one recording. Any number of threads may use it.

    Attributes:
        container: of the recording.
        frames: number of container frames, those that are missing included.

    Example:
        with FrameSource.open("video.mp4") as source:
            jpeg = source.jpeg(4711)
    """

    def __init__(
        self,
        container: Container,
        *,
        field_of_view: FieldOfView | None = None,
        input: InputSpec | None = None,
        caches: Caches | None = None,
        sound: bool = False,
    ) -> None:
        self.container = container
        self.frames = container.frames
        self._input, self._field_of_view = input, field_of_view
        self._owns_caches = caches is None
        self._caches = caches or Caches.of_size()
        self._number = next(_numbers)
        self._mark = FileMark.of(container)
        self._reading = open_reading(container, sound=sound)
        self._decoding = threading.Lock()
        # Threads that want a frame now; reading ahead gives way to them.
        self._waiting = 0
        # Rank and frame of those among them that have not had their turn yet, and the lowest one, which goes first.
        self._queue: list[tuple[int, int]] = []
        self._first = _NOBODY
        self._idle = threading.Condition()
        self._closed = False
        self._shown: int | None = None
        self._tried = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        stream: int | None = None,
        field_of_view: FieldOfView | None = None,
        input: InputSpec | None = None,
        caches: Caches | None = None,
        sound: bool = False,
    ) -> FrameSource:
        """Open a recording: a video file, a folder of images, a TIFF or a DICOM file. Its frames are listed once.

        Args:
            path: of the recording.
            stream: number of the video stream; None for the one with most pictures.
            field_of_view: of the study; None to find it in the first frames, as a reading of the whole recording does.
            input: of the model that read it; needed for ``model_input`` and ``input_sha256``.
            caches: shared with other sources; None for caches of its own.
            sound: a reading of the whole recording found no damage: frames are decoded faster.

        Raises:
            InputError: the path cannot be read as a recording.
            UsageError: there is no video stream of this number.
        """
        container = scan(path, stream=stream)
        return cls(container, field_of_view=field_of_view, input=input, caches=caches, sound=sound)

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the recording and drop its frames from the caches. A second call does nothing."""
        with self._idle:
            self._closed = True
            self._idle.notify_all()
        self._caches.ahead.forget(self._number)
        if self._owns_caches:
            self._caches.ahead.close()
        self.release()
        self._caches.decoded.forget_owner(self._number)
        self._caches.encoded.forget_owner(self._number)

    def release(self) -> None:
        """Close the files, to be opened again for the next frame. The frames stay in the caches.

        Files that a thread decodes from just now stay open.
        """
        if self._decoding.acquire(blocking=self._closed):
            try:
                self._reading.release()
            finally:
                self._decoding.release()

    def frame(self, index: int) -> Frame:
        """Return a frame with its image, as the runtime decodes it.

        Args:
            index: place in presentation order, from 0.

        Raises:
            FrameUnavailable: the frame is corrupt or missing.
            UsageError: there is no such frame.
            StaleSourceError: the recording changed or went away since it was opened, or the source is closed.
        """
        return self._sound_frame(index)

    def picture(self, index: int) -> Pixels:
        """Return the picture of a frame, uint8 RGB (height, width, 3), upright. Raises as ``frame``."""
        return self.frame(index).rgb()

    def jpeg(self, index: int, size: int | None = None) -> bytes:
        """Return the picture of a frame as JPEG: quality 92, 4:4:4.

        Args:
            index: of the frame.
            size: most pixels of the longer side; None for the size of the recording.

        Raises:
            As ``frame``.
        """
        shown = self._shown
        jumps = shown is None or abs(index - shown) > FAR
        data = self._encode(index, size, "jpeg", encode_jpeg, jumps=jumps)
        if _urgency.get() <= USUAL_URGENCY:
            self._look_ahead(index, size)
        return data

    def thumbnail(self, index: int, size: int = THUMBNAIL) -> bytes:
        """Return a small picture of a frame as ``jpeg``, without preparing its neighbours."""
        return self._encode(index, size, "jpeg", encode_jpeg)

    def strip(self, start: int, end: int, *, size: int = THUMBNAIL, most: int = STRIP) -> Strip:
        """Return the frames of the range [start, end) side by side.

        Args:
            start, end: frame indices.
            size: longer side of each frame, 1 to ``LARGEST_TILE`` pixels.
            most: number of frames, at most ``STRIP``; of a longer range, so many are taken, evenly spread.

        Raises:
            UsageError: the range is empty or leaves the recording, or a number is out of range.
            StaleSourceError: the recording changed or went away since it was opened.
        """
        if not 0 <= start < end <= self.frames:
            raise UsageError(f"frames are [{start}, {end}), allowed is a range in [0, {self.frames})")
        if not (1 <= size <= LARGEST_TILE and 1 <= most <= STRIP):
            raise UsageError(
                f"size is {size} and most {most}, allowed are 1 to {LARGEST_TILE} and 1 to {STRIP}"
            )
        width, height = self.shape
        longer = max(width, height)
        tile = (
            max(1, round(min(size, longer) * height / longer)),
            max(1, round(min(size, longer) * width / longer)),
        )
        return make_strip(self.picture, choose_indices(start, end, most), *tile)

    def png(self, index: int, size: int | None = None) -> bytes:
        """Return the picture of a frame as PNG, without loss. Arguments and errors as ``jpeg``."""
        return self._encode(index, size, "png", encode_png)

    def model_input(
        self, index: int, *, input: InputSpec | None = None, field_of_view: FieldOfView | None = None
    ) -> Pixels:
        """Return the model's input for a frame, uint8 RGB (size, size, 3), C-contiguous.

        Args:
            index: of the frame.
            input: of the model; None for the one that the source was opened with.
            field_of_view: of the study; None for the one that the source was opened with.

        Raises:
            UsageError: the input is not known.
            FrameUnavailable, InputError: as ``frame``.
        """
        spec = input or self._input
        if spec is None:
            raise UsageError(
                "the model's input is not known", hint="open the source with the input of a model"
            )
        frame = self.frame(index)
        return np.ascontiguousarray(preprocess_frame(frame, spec, self._box(spec, field_of_view)))

    def input_sha256(
        self, index: int, *, input: InputSpec | None = None, field_of_view: FieldOfView | None = None
    ) -> str:
        """Return the SHA-256 of ``model_input``: 64 hexadecimal digits. Arguments and errors as there."""
        pixels = self.model_input(index, input=input, field_of_view=field_of_view)
        return hashlib.sha256(pixels.data).hexdigest()

    def activation(
        self, index: int, label: str, backend: Backend, *, field_of_view: FieldOfView | None = None
    ) -> Activation:
        """Return where in a frame the model sees evidence for a label.

        Args:
            index: of the frame.
            label: key of a label of the model.
            backend: the opened model; its own input is used.
            field_of_view: of the study; None for the one that the source was opened with.

        Raises:
            UsageError: the model has no such label.
            FrameUnavailable, InputError, BackendError: as ``frame`` and ``map_activation``.
        """
        spec = backend.spec.input
        pixels = self.model_input(index, input=spec, field_of_view=field_of_view)
        width, height = self.shape
        box = self._box(spec, field_of_view) or FieldOfView(0, 0, width, height)
        return Activation(map_activation(backend, pixels, label), box)

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of the upright pictures, pixels."""
        container = self.container
        size = container.width, container.height
        return size[::-1] if container.transposed else size

    @property
    def cached_bytes(self) -> int:
        """Size of what the caches hold, those of other sources included."""
        return self._caches.decoded.bytes + self._caches.encoded.bytes

    def access(self) -> Access:
        """Return how fast any frame can be shown. Tries once whether the file can be read from its middle.

        Raises:
            StaleSourceError: the recording changed or went away since it was opened.
        """
        if not self._tried:
            entry = self._reading.last_entry
            self._check(entry)
            with self._turn(entry, _rank()):
                # One frame shows whether the entry is found; without it, decoding would begin at the file's start.
                self._reading.read(entry, self._keeper(entry), lambda: True)
            self._tried = True
        return self._reading.access()

    def prepare(
        self, index: int, size: int | None, stopped: Callable[[], bool], *, encode: bool = True
    ) -> None:
        """Decode a frame, and encode it for the page. Gives way to ``frame``; returns early if ``stopped()``.

        For ``ReadAhead``. Errors are left to whoever asks for the frame.
        """
        try:
            if not 0 <= index < self.container.present:
                return
            self._mark.check(index)
            frame = self._caches.decoded.find((self._number, index))
            while frame is None and not (stopped() or self._closed):
                frame = self._decode_ahead(index, stopped)
            if encode and frame is not None and not frame.detail:
                self._encode(index, size, "jpeg", encode_jpeg)
        except InputError:
            return

    def _decode_ahead(self, index: int, stopped: Callable[[], bool]) -> Frame | None:
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting or self._closed)
        with self._decoding:
            if self._closed:
                return None
            found = self._caches.decoded.find((self._number, index))
            if found is not None:
                return found
            return self._reading.read(
                index, self._keeper(index), lambda: bool(self._waiting) or self._closed or stopped()
            )

    def _look_ahead(self, index: int, size: int | None) -> None:
        before, self._shown = self._shown, index
        step = 0 if before is None else index - before
        direction = (step > 0) - (step < 0) if abs(step) <= FAR else 0
        self._caches.ahead.ask(self._number, self, Neighbourhood(index, size, direction))

    def _box(self, spec: InputSpec, field_of_view: FieldOfView | None) -> FieldOfView | None:
        if spec.crop == "none":
            return None
        if field_of_view is not None:
            return field_of_view
        if self._field_of_view is None:
            self._field_of_view = self._find_field_of_view()
        return self._field_of_view

    def _find_field_of_view(self) -> FieldOfView | None:
        """Find the field of view as a reading of the whole recording does; None where no frame has a picture."""
        images: list[Pixels] = []
        for index in range(self.container.present):
            frame = self._find(index)
            if frame.image is not None:
                images.append(frame.rgb())
            if len(images) == FIELD_FRAMES:
                break
        return find_field_of_view(images) if images else None

    def _encode(
        self,
        index: int,
        size: int | None,
        kind: str,
        encode: Callable[[Pixels], bytes],
        *,
        jumps: bool = False,
    ) -> bytes:
        if size is not None and size < 1:
            raise UsageError(f"size is {size}, allowed is 1 or more")
        self._check(index)
        key = self._number, index, kind, size
        found = self._caches.encoded.find(key)
        if found is None:
            picture = self._sound_frame(index, jumps=jumps).rgb()
            found = encode(picture if size is None else shrink_picture(picture, size))
            self._caches.encoded.keep(key, found, len(found))
            if self._closed:
                # Closing drops the frames: this one came too late for that.
                self._caches.encoded.forget([key])
        return found

    def _check(self, index: int) -> None:
        """Raise unless there is such a frame and the recording is still the one that was opened."""
        if self._closed:
            raise StaleSourceError("the recording was closed", hint="open it again")
        if not 0 <= index < self.frames:
            raise UsageError(f"frame is {index}, allowed are 0 to {self.frames - 1}")
        self._mark.check(index)
        if index >= self.container.present:
            raise FrameUnavailable(index, "missing")

    def _sound_frame(self, index: int, *, jumps: bool = False) -> Frame:
        """Return a frame with its image. Raises as ``frame``."""
        frame = self._find(index, jumps=jumps)
        if frame.detail:
            raise FrameUnavailable(index, "corrupt", frame.detail)
        return frame

    def _find(self, index: int, *, jumps: bool = False) -> Frame:
        """Return a frame, sound or corrupt.

        Args:
            index: of the frame.
            jumps: the frames before it were not shown, so that those between need not be decoded now.
        """
        self._check(index)
        found = self._caches.decoded.find((self._number, index))
        return found or self._decode(index, jumps=jumps)

    @contextmanager
    def _turn(self, index: int, rank: int) -> Iterator[None]:
        """Decode alone while the block runs. The call of the lowest rank goes first."""
        given_up = _given_up.get()
        with self._queued(rank, index):
            while not self._take(rank):
                if given_up():
                    raise _stopped(index)
        try:
            if given_up():
                raise _stopped(index)
            yield
        finally:
            self._decoding.release()

    def _take(self, rank: int) -> bool:
        """Wait for a moment for the turn of a queued call. Return whether it came."""
        with self._idle:
            self._idle.wait_for(lambda: self._first[0] == rank, _ASK_S)
        if not self._decoding.acquire(timeout=_ASK_S):
            return False
        if self._first[0] < rank:
            self._decoding.release()
            return False
        return True

    @contextmanager
    def _queued(self, rank: int, index: int) -> Iterator[None]:
        """Count a call that waits for its turn while the block runs."""
        with self._idle:
            self._queue.append((rank, index))
            self._first = min(self._queue)
        try:
            yield
        finally:
            with self._idle:
                self._queue.remove((rank, index))
                self._first = min(self._queue, default=_NOBODY)
                self._idle.notify_all()

    def _decode(self, index: int, *, jumps: bool) -> Frame:
        rank = _rank(jumps=jumps)
        with self._idle:
            self._waiting += 1
        try:
            while True:
                with self._turn(index, rank):
                    frame = self._decode_now(index, rank, jumps=jumps)
                if frame is not None:
                    return frame
        finally:
            with self._idle:
                self._waiting -= 1
                self._idle.notify_all()

    def _decode_now(self, index: int, rank: int, *, jumps: bool) -> Frame | None:
        """Return a frame; None where a call of a lower rank waits for its turn."""
        given_up = _given_up.get()
        # Another thread may have decoded it meanwhile.
        found = self._caches.decoded.find((self._number, index))
        if found is not None:
            return found
        if self._closed:
            raise StaleSourceError("the recording was closed", hint="open it again")

        def pause() -> bool:
            first, wanted = self._first
            return self._closed or (first < rank and wanted != index) or given_up()

        frame = self._read(index, pause, jumps=jumps)
        if frame is None and self._closed:
            raise StaleSourceError("the recording was closed", hint="open it again")
        if frame is None and given_up():
            raise _stopped(index)
        if frame is not None:
            # The file may have been replaced after the check that came before decoding.
            self._mark.check(index)
        return frame

    def _read(self, index: int, pause: Callable[[], bool], *, jumps: bool) -> Frame | None:
        keep = self._keeper(index)
        frame = self._reading.jump(index, pause) if jumps else None
        if frame is None:
            return self._reading.read(index, keep, pause)
        keep(frame)
        return frame

    def _keeper(self, index: int) -> Callable[[Frame], None]:
        """Return what keeps the frames that are decoded on the way to a frame: the last ones that have room."""
        most = self._caches.decoded.most_bytes // 2
        container = self.container
        room = max(1, most // (container.width * container.height * 3 // 2 or 1))

        def keep(frame: Frame) -> None:
            if frame.index > index - room:
                self._caches.decoded.keep((self._number, frame.index), frame, _weigh(frame))

        return keep


def _rank(*, jumps: bool = False) -> int:
    """Return the place of this thread's call among those that wait: by urgency, a jump before the others of its own."""
    return 2 * _urgency.get() + (not jumps)


def _stopped(index: int) -> DecodingStoppedError:
    return DecodingStoppedError(f"frame {index} is not wanted any more", hint="ask for it again")


def _weigh(frame: Frame) -> int:
    """Return the size of a frame's image in bytes."""
    if isinstance(frame.image, VideoFrame):
        return _BARE_BYTES + sum(plane.buffer_size for plane in frame.image.planes)
    return _BARE_BYTES + (0 if frame.image is None else frame.image.nbytes)
