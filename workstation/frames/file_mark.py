"""Tell whether a recording is still the file that was opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.recording import Container, ImageSeries, quote

from .availability import StaleSourceError

__all__ = ["FileMark"]

# Device, number, size and time of change of a file.
_Facts = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FileMark:
    """The state of a recording's files when it was opened.

    Attributes:
        paths: the file of each frame; one path where all frames are in one file.
        facts: by path.
    """

    paths: tuple[Path, ...]
    facts: dict[Path, _Facts]

    @classmethod
    def of(cls, container: Container) -> FileMark:
        """Return the mark of a recording that was scanned.

        Raises:
            StaleSourceError: a file is gone.
        """
        paths: tuple[Path, ...] = (container.path,)
        if isinstance(container, ImageSeries):
            paths = tuple(path for path, _ in container.places)
        return cls(paths, {path: _facts(path) for path in dict.fromkeys(paths)})

    def check(self, index: int) -> None:
        """Raise ``StaleSourceError`` unless the file of a frame is as it was."""
        path = self.paths[min(index, len(self.paths) - 1)]
        if _facts(path) != self.facts[path]:
            raise StaleSourceError(
                f"{quote(path)} changed since it was opened", hint="put the earlier file back"
            )


def _facts(path: Path) -> _Facts:
    try:
        found = os.stat(path)
    except OSError as error:
        raise StaleSourceError(
            f"{quote(path)} went away: {(error.strerror or str(error)).lower()}",
            hint="put the recording back where it was",
        ) from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
