"""Keep the recordings that are being read open, with caches that they share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import FieldOfView

from .frame_source import DECODED_BYTES, ENCODED_BYTES, Caches, FrameSource

__all__ = ["FrameStore"]


@dataclass(slots=True)
class _Slot:
    opening: threading.Lock = field(default_factory=threading.Lock)
    source: FrameSource | None = None


class FrameStore:
    """Open recordings by key; the last ones stay open. Any thread may use it. Close it when it is done.

    Args:
        most_sources: number of recordings that stay open.
        decoded_bytes: size of the decoded frames that are kept, of all recordings together.
        encoded_bytes: size of the encoded pictures that are kept.

    Example:
        source = store.open(study_id, path, field_of_view=box, input=spec)
        jpeg = source.jpeg(4711)
    """

    def __init__(
        self,
        *,
        most_sources: int = 6,
        decoded_bytes: int = DECODED_BYTES,
        encoded_bytes: int = ENCODED_BYTES,
    ) -> None:
        self.caches = Caches.of_size(decoded_bytes, encoded_bytes)
        self._most = most_sources
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._opened: WeakKeyDictionary[FrameSource, Hashable] = WeakKeyDictionary()
        self._deleted: set[Hashable] = set()
        self._lock = threading.Lock()
        self._closed = False

    def open(
        self,
        key: Hashable,
        path: str | Path,
        *,
        stream: int | None = None,
        field_of_view: FieldOfView | None = None,
        input: InputSpec | None = None,
        sound: bool = False,
        verify: Callable[[], None] = lambda: None,
    ) -> FrameSource:
        """Return the source of a key; open it if it is not open. Several threads that ask for it open it once.

        The arguments count when the source is opened. Do not close what is returned; ``discard`` does.

        Args:
            key: of the recording, such as the id of a study.
            path, stream, field_of_view, input, sound: as in ``FrameSource.open``.
            verify: called before and after the recording is opened; it raises where that is not the expected one. An
                open source checks by itself that its files stay as they were.

        Raises:
            As ``FrameSource.open`` and ``verify``; ``InputError`` after ``close``.
        """
        with self._lock:
            if self._closed:
                raise InputError("the frames were closed", hint="start the service again")
            if _study_of(key) in self._deleted:
                raise InputError("the study was deleted", hint="reload the list of studies")
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
        with slot.opening:
            if slot.source is None:
                verify()
                opened = FrameSource.open(
                    path,
                    stream=stream,
                    field_of_view=field_of_view,
                    input=input,
                    caches=self.caches,
                    sound=sound,
                )
                try:
                    # The file may have been replaced between the first call and its opening.
                    verify()
                except BaseException:
                    opened.close()
                    raise
                slot.source = opened
                self._note_opened(key, opened)
            source = slot.source
        self._trim()
        return source

    def discard(self, key: Hashable, source: FrameSource | None = None) -> None:
        """Close the source of a key, and drop its frames: the study was deleted or read anew, or its file changed.

        Args:
            key: of the recording.
            source: close this source only; another one was opened after it, and is kept.
        """
        with self._lock:
            slot = self._slots.get(key)
            if slot is None or (source is not None and slot.source is not source):
                return
            del self._slots[key]
        with slot.opening:
            if slot.source is not None:
                slot.source.close()

    def discard_study(self, study: Hashable) -> None:
        """Close every source whose key is a tuple that begins with ``study``, and drop all frames from the caches.

        The study was deleted. Sources that were let go of count too: a thread may still hold one.
        """
        with self._lock:
            self._deleted.add(study)
            keys = [key for key in self._slots if _study_of(key) == study]
        for key in keys:
            self.discard(key)
        with self._lock:
            opened = [source for source, key in self._opened.items() if _study_of(key) == study]
        for source in opened:
            source.close()
        # The caches do not know of which study a source was that is gone.
        self.caches.decoded.clear()
        self.caches.encoded.clear()

    def close(self) -> None:
        """Close every source. A second call does nothing."""
        with self._lock:
            self._closed = True
            keys = list(self._slots)
        for key in keys:
            self.discard(key)
        self.caches.ahead.close()

    def _note_opened(self, key: Hashable, source: FrameSource) -> None:
        with self._lock:
            self._opened[source] = key
            deleted = _study_of(key) in self._deleted
        if deleted:
            # The study was deleted while its recording was opened.
            source.close()

    def _trim(self) -> None:
        """Let go of the sources that were not used for longest.

        They are released and not closed: a thread may still hold one. It opens its file again where it has to.
        """
        with self._lock:
            surplus = [self._slots.popitem(last=False)[1] for _ in range(len(self._slots) - self._most)]
        for slot in surplus:
            if slot.source is not None:
                slot.source.release()


def _study_of(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) else key
