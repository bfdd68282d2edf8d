"""Whatever a recording is, a video or a series of pictures: what it holds, and its frames one after the other."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from pathlib import Path

from . import video
from .containers import Container
from .series import Series, is_series, read_series, scan_series
from .stages import Sighted

__all__ = ["fetch", "scan", "sight"]


def scan(path: str | Path) -> Container:
    """List every picture of the recording at ``path``: a video file, a folder of images, a TIFF or a DICOM file.

    Raises ``InputError`` when it cannot be read as any of these.
    """
    path = Path(path)
    return scan_series(path) if is_series(path) else video.scan(path)


def sight(container: Container, wanted: Collection[int]) -> Generator[Sighted]:
    """The wanted frames of a recording, by index; decoding ends behind the last of them."""
    if isinstance(container, Series):
        for index, rgb in read_series(container, sorted(wanted)):
            yield Sighted(index, rgb, "" if rgb is not None else "damaged")
        return
    last = max(wanted, default=-1)
    with closing(video.decode(container)) as pictures:  # type: ignore[type-var]
        for picture in pictures:
            if picture.index in wanted:
                yield Sighted(picture.index, picture.frame, picture.detail)
            if picture.index >= last:
                return


def fetch(container: Container, wanted: Collection[int]) -> Iterator[Sighted]:
    """Some sound frames again, in any order; only what they build on is decoded with them."""
    if isinstance(container, Series):
        for index, rgb in read_series(container, sorted(wanted)):
            if rgb is not None:
                yield Sighted(index, rgb)
        return
    for index, frame in video.fetch(container, wanted):
        yield Sighted(index, frame)
