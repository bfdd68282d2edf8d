"""Whatever a recording is, a video or a series of pictures: what it holds, and its frames one after the other."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

from ..preprocessing import Sighted
from . import decoder
from .container import Container
from .gop import NotApartError
from .image_series import Series, is_series, read_series, scan_series

__all__ = ["fetch", "scan", "sight", "sight_apart", "study_name"]

# What a name may end in and still be that of the same recording. Anything else behind a dot is part of the name:
# folders, and files named by a number, as DICOM objects are.
_SUFFIXES = {
    ".3g2", ".3gp", ".asf", ".avi", ".dcm", ".dicom", ".flv", ".m2ts", ".m4v", ".mj2", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogg", ".ogv", ".tif", ".tiff", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip


def study_name(path: Path) -> str:
    """What the results of a recording are named after: a file without the suffix of its format, else the whole name."""
    known = path.suffix.lower() in _SUFFIXES and not path.is_dir()
    return path.stem if known else path.name


def scan(path: str | Path) -> Container:
    """List every picture of the recording at ``path``: a video file, a folder of images, a TIFF or a DICOM file.

    Raises ``InputError`` when it cannot be read as any of these.
    """
    path = Path(path)
    return scan_series(path) if is_series(path) else decoder.scan(path)


def sight(container: Container, wanted: Collection[int], *, since: int = 0) -> Generator[Sighted]:
    """The wanted frames of a recording, by index, in order; decoding ends behind the last of them.

    ``since``: the sample that decoding begins with (``video.decode``).
    """
    if isinstance(container, Series):
        for index, rgb in read_series(container, sorted(wanted)):
            yield Sighted(index, rgb, "" if rgb is not None else "damaged")
        return
    yield from _sighted(decoder.decode(container, since=since), wanted, max(wanted, default=-1))


@contextmanager
def sight_apart(
    container: Container, wanted: Collection[int], *, since: int = 0
) -> Iterator[Iterator[Generator[Sighted]]]:
    """The same in stretches that any threads may decode, several at once (``groups.decode_apart``).

    Both the stretches and the frames of one may end in ``NotApartError``.
    """
    if isinstance(container, Series):
        raise NotApartError(0)
    last = max(wanted, default=-1)
    with decoder.apart(container, since) as groups:
        needed = takewhile(lambda group: group[0] <= last, groups)
        yield (_sighted(pictures, wanted, last) for _, pictures in needed)


def _sighted(pictures: Generator[decoder.Picture], wanted: Collection[int], last: int) -> Generator[Sighted]:
    with closing(pictures):
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
    for index, frame in decoder.fetch(container, wanted):
        yield Sighted(index, frame)
