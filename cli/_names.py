"""Name recordings and their result folders in what is printed and written, by file name or, anonymously, by hash."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from capsule_edge.runtime.errors import CapsuleEdgeError, UsageError

if TYPE_CHECKING:
    from capsule_edge.runtime.private_names import PrivateNames

__all__ = ["NameKeeper", "NamedRecording", "name_by_file", "name_by_hash"]


@dataclass(frozen=True)
class NamedRecording:
    """A recording, its results folder, and what both are called.

    Attributes:
        path: the recording.
        folder: for its results.
        shown: the recording in JSON documents and lines.
        title: the recording for people.
        shown_folder: the folder in JSON documents and lines; None if it is not to be shown.
        anonymous: whether the hash stands in place of the file's name.
        error: why the recording has no hash.
    """

    path: Path
    folder: Path
    shown: str
    title: str
    shown_folder: str | None
    anonymous: bool = False
    error: CapsuleEdgeError | None = None

    @property
    def report(self) -> str:
        """The place of the report, for people."""
        if self.shown_folder is None:
            return "report.html in the folder that --out names"
        return str(self.folder / "report.html")


def name_by_file(videos: Sequence[Path], out: Path | None, *, single: bool = True) -> list[NamedRecording]:
    """Return the recordings with the names of their files.

    Args:
        videos: the recordings.
        out: the folder that the user asked for.
        single: a single recording is written into ``out`` itself; otherwise into a folder of its own inside it.

    Raises:
        UsageError: two recordings would share a folder.
    """
    from capsule_edge.runtime.recording import study_name

    alone = single and len(videos) == 1
    named = [_with_file_name(video, _folder(study_name(video), out, alone=alone)) for video in videos]
    _check_folders(named)
    return named


def name_by_hash(videos: Sequence[Path], out: Path | None, *, single: bool = True) -> list[NamedRecording]:
    """Return the recordings with their SHA-256 as name, or ``recording`` and their place where one cannot be read.

    Args:
        videos, out, single: as in ``name_by_file``.

    Raises:
        UsageError: two recordings are the same.
    """
    from capsule_edge.runtime.private_names import PrivateNames
    from capsule_edge.runtime.recording import hash_recording

    named = []
    for place, video in enumerate(videos, start=1):
        error = None
        try:
            name = hash_recording(video)
        except CapsuleEdgeError as found:
            name = f"recording {place}"
            error = PrivateNames({video: name}).clean_error(found)
        folder = _folder(name, out, alone=single and len(videos) == 1)
        shown = None if out is not None else str(folder)
        named.append(NamedRecording(video, folder, name, name, shown, anonymous=True, error=error))
    places: dict[str, int] = {}
    for place, each in enumerate(named, start=1):
        if places.setdefault(each.shown, place) != place:
            raise UsageError(
                f"recordings {places[each.shown]} and {place} are the same, {each.shown}, and would both be written to "
                "one folder",
                hint="leave one of them out",
            )
    return named


def _with_file_name(video: Path, folder: Path) -> NamedRecording:
    return NamedRecording(video, folder, str(video), video.name, str(folder))


def _folder(name: str, out: Path | None, *, alone: bool) -> Path:
    if out is None:
        return Path(f"{name}.capsule-edge")
    return out if alone else out / name


def _check_folders(named: Sequence[NamedRecording]) -> None:
    taken: dict[str, NamedRecording] = {}
    for each in named:
        # Windows and macOS take two names that differ only in case for the same file.
        other = taken.setdefault(str(each.folder).casefold(), each)
        if other is not each:
            raise UsageError(
                f"{other.path} and {each.path} would both be written to {each.folder}",
                hint="read them one at a time, each with its own --out",
            )


class NameKeeper:
    """Keep private names out of the errors of a command; does nothing unless ``anonymous``.

    Args:
        videos: recordings, or the address of a network source.
        folders_and_files: other paths that the user gave, and the words that stand in their place.
        anonymous: whether names are private.
    """

    def __init__(
        self, videos: Sequence[Path], folders_and_files: Mapping[Path | None, str], *, anonymous: bool
    ) -> None:
        self._names: PrivateNames | None = None
        if anonymous:
            self._names = _private_names(videos, folders_and_files)

    def clean(self, error: Exception) -> Exception:
        """Return the error as it may be shown. Of an unexpected error, its text is left out."""
        if self._names is None or isinstance(error, click.ClickException | click.exceptions.Exit):
            return error
        if isinstance(error, CapsuleEdgeError):
            return self._names.clean_error(error).with_traceback(error.__traceback__)
        made = CapsuleEdgeError(
            f"unexpected {type(error).__name__}", hint="run with --debug before the command for details"
        )
        made.code = "internal"
        return made.with_traceback(error.__traceback__)

    def print_traceback(self, error: Exception) -> None:
        """Print the traceback of an error on stderr, as ``clean`` returns the error."""
        shown = self.clean(error)
        click.echo("".join(traceback.format_exception(shown)), err=True, nl=False)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Clean what the block raises, and show no warning of a library, which may quote a path."""
        if self._names is None:
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except BrokenPipeError:
                raise
            except Exception as error:
                _raise_alone(self.clean(error))


def _raise_alone(error: Exception) -> NoReturn:
    """Raise an error without the one that is being handled, whose text would go along."""
    error.__cause__ = None
    error.__suppress_context__ = True
    try:
        raise error
    finally:
        error.__context__ = None


def _private_names(videos: Sequence[Path], others: Mapping[Path | None, str]) -> PrivateNames:
    from capsule_edge import runtime
    from capsule_edge.runtime.private_names import PrivateNames

    from ._lines import STDIN, live_address

    words: dict[Path | str, str] = {path: word for path, word in others.items() if path is not None}
    words |= {Path(folder): "the package" for folder in runtime.__path__}
    recordings = {}
    for place, video in enumerate(videos, start=1):
        address = live_address(video)
        if address is not None:
            words |= dict.fromkeys((address, str(video), *_without_login(address)), "the network source")
        elif video != STDIN:
            recordings[video] = f"recording {place}"
    return PrivateNames(recordings, words)


def _without_login(address: str) -> tuple[str, ...]:
    from capsule_edge.runtime.streaming import Live

    return (Live(address).shown,)
