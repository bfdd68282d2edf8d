"""Replace the paths and file names of a user in texts, for results and messages that others may see.

Messages of this package quote paths in several ways (as given, absolute, only the name), and messages of other
libraries quote them too. So texts are cleaned where they leave, not where they are made.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from .errors import CapsuleEdgeError

__all__ = ["PrivateNames"]

# A shorter name says nothing about anybody, and may be any word ("a").
_SHORTEST = 3
_FOLDER, _FILE = "a folder", "a file"


class PrivateNames:
    """The paths that must not appear in any text, and the words that stand in their place.

    Args:
        recordings: words by path. A recording may be a folder; the names of its files are private too.
        others: words by path of a folder or a file, or by address of a network source. The files that the package
            itself writes into a folder are part of it.

    Example:
        >>> PrivateNames({Path("/data/Doe/exam.mp4"): "recording 1"}).clean("'/data/Doe/exam.mp4' is empty")
        'recording 1 is empty'
    """

    def __init__(
        self, recordings: Mapping[Path, str], others: Mapping[Path | str, str] | None = None
    ) -> None:
        others = others or {}
        self._folders = [path for path in recordings if path.is_dir()]
        self._words: dict[str, str] = {}
        for path, word in [*recordings.items(), *others.items()]:
            for form in _forms(path):
                self._words.setdefault(form, word)
        for path in [*recordings, *others]:
            for parent in _absolute(path).parents if isinstance(path, Path) else ():
                if parent.name:
                    self._words.setdefault(str(parent), _FOLDER)
        # Messages quote the name of a recording. So one of small letters alone is taken for an ordinary word
        # ("frames") where it is not quoted.
        named = {form for path in recordings for form in _forms(path)}
        self._words_alone = {form for form in named if re.fullmatch("[a-z]+", form)}

    def clean(self, text: str) -> str:
        """Return the text with other words in place of every private path and name."""
        words = self._words | dict.fromkeys(self._files_in(text), _FILE)
        forms = sorted((form for form in words if len(form) >= _SHORTEST), key=len, reverse=True)
        patterns = (_pattern(form, alone=form not in self._words_alone) for form in forms)
        if not forms:
            return text
        # In one pass, or a word that was put in might be replaced again.
        every = "|".join(f"(?P<form{at}>{pattern})" for at, pattern in enumerate(patterns))
        return re.sub(every, lambda found: words[forms[int((found.lastgroup or "")[4:])]], text)

    def clean_error(self, error: CapsuleEdgeError) -> CapsuleEdgeError:
        """Return a copy of an error with a clean message and hint, and without the errors that led to it.

        Raise it outside of the ``except`` block, or Python adds the error that was caught.
        """
        cleaned = copy.copy(error)
        cleaned.message, cleaned.hint = self.clean(error.message), self.clean(error.hint)
        cleaned.args = (cleaned.message,)
        cleaned.__cause__ = cleaned.__context__ = None
        return cleaned

    def _files_in(self, text: str) -> Iterator[str]:
        """Yield the names and paths of the files of a recording that is a folder, as far as a text has them."""
        for folder in self._folders:
            with suppress(OSError):
                for name in os.listdir(folder):
                    printable = _printable(name)
                    for form in {name, printable}:
                        if len(form) >= _SHORTEST and form in text:
                            yield from (form, str(folder / form), str(_absolute(folder) / form))


def _forms(path: Path | str) -> Iterator[str]:
    """Yield the ways in which a message may write a path."""
    if isinstance(path, str):
        yield path
        return
    for each in dict.fromkeys((path, _absolute(path), path.resolve())):
        for form in (str(each), each.as_posix()):
            yield from (form, _printable(form), form.replace("\\", "\\\\"))
    stem = () if re.fullmatch("[a-z]+", path.stem) else (path.stem,)
    for name in (path.name, _absolute(path).name, *stem):
        yield from (name, _printable(name))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _printable(text: str) -> str:
    """Return the text as ``quote`` of ``recording`` prints it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _pattern(form: str, *, alone: bool) -> str:
    """Return a pattern for a path in quotes, or ``alone`` without, and for what follows it as a part of the path."""
    exact = re.escape(form)
    ways = [rf"{quote}{exact}(?:[\\/][\s\S]*?)?{quote}(?!\w)" for quote in "'\""]
    if alone:
        ways.append(rf"(?<![\w-]){exact}(?:[\\/][^\s'\":]*)?(?!\w)")
    return f"(?i:{'|'.join(ways)})"
