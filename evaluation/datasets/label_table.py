"""Read the ``labels.csv`` of a data set, and find the files that it names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from capsule_edge.runtime.errors import InputError

from .class_folders import split_name
from .label_keys import LabelKeys
from .samples import ListingRemark, Sample, listed
from .table_rows import is_missing, read_rows

__all__ = ["COLUMNS", "FileFinder", "LabelTable"]

COLUMNS = "file,label,source,video_id,frame_number,split"

# Spreadsheets and pandas write a column of whole numbers with a hole in it as 12.0.
_WHOLE = re.compile(r"(\d{1,18})([.,]0*)?")


class LabelTable:
    """The rows of one ``labels.csv``.

    Args:
        root: The folder of the data set. Files are named relative to it.
        table: The table.
        keys: Turns class names into label keys.
    """

    def __init__(self, root: Path, table: Path, keys: LabelKeys) -> None:
        self._table, self._keys = table, keys
        self._finder = FileFinder(root)
        self._repeated: list[str] = []

    def samples(self) -> list[Sample]:
        """Return a sample for each row. A row that repeats an earlier one is left out, and counted in ``remarks``.

        Raises:
            InputError: A row lacks its file or label, or two rows of one file contradict each other.
        """
        first: dict[tuple[Path, str, str | None], Sample] = {}
        hint = f"its columns are {COLUMNS}; file and label are required"
        for line, row in read_rows(self._table, ("file", "label"), hint=hint):
            sample = self._sample(line, row)
            if sample is None:
                continue
            earlier = first.setdefault((sample.file, sample.label, sample.split), sample)
            if earlier is not sample:
                self._check_repeated(earlier, sample)
        return list(first.values())

    def remarks(self) -> list[ListingRemark]:
        """Return what the table holds and was not read as a frame of its own."""
        count = len(self._repeated)
        if not count:
            return []
        what = f"{count} row{'s' * (count > 1)} of {self._table.name} repeat{'s' * (count == 1)} an earlier row and"
        message = f"{what} count{'s' * (count == 1)} once ({listed(self._repeated)})"
        return [ListingRemark("repeated_rows", count, message, tuple(self._repeated))]

    def _sample(self, line: int, cell: Mapping[str, str]) -> Sample | None:
        where = f"{self._table} line {line}"
        if not cell["file"]:
            raise InputError(f"{where} has no file", hint="every frame needs a file and a label")
        label = self._keys.key_of(cell["label"], where)
        number = cell.get("frame_number", "")
        whole = _WHOLE.fullmatch(number)
        if not is_missing(number) and whole is None:
            raise InputError(f"{where}: frame_number is {number!r}, it must be a whole number or empty")
        if label is None:
            return None
        columns = ("source", "video_id", "split")
        given = {name: None if is_missing(cell.get(name, "")) else cell[name] for name in columns}
        return Sample(
            file=self._finder.find(cell["file"], where),
            label=label,
            source=given["source"],
            video_id=given["video_id"],
            frame_number=int(whole[1]) if whole else None,
            split=split_name(given["split"]),
            line=line,
        )

    def _check_repeated(self, earlier: Sample, sample: Sample) -> None:
        for field in ("video_id", "frame_number", "source"):
            one, two = getattr(earlier, field), getattr(sample, field)
            if one != two:
                raise InputError(
                    f"{self._table} lines {earlier.line} and {sample.line} list {sample.file.name} with the {field} "
                    f"{one!r} and {two!r}",
                    hint="leave the wrong row out",
                )
        self._repeated.append(f"line {sample.line} repeats line {earlier.line}")


class FileFinder:
    """Find the files that a table names, also where another system wrote the names.

    Backslashes separate folders where no file has the name as it stands. A name in another Unicode form (macOS
    decomposes letters with accents) or in other case finds its file if only one fits.

    Args:
        root: The folder that the names are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inside: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str, where: str) -> Path:
        """Return the file, or the place where it should be.

        Args:
            name: The file as the table names it.
            where: The place of the name, for messages.

        Raises:
            InputError: Several files fit.
        """
        path = self._root / name
        try:
            if not path.exists():
                path = self._like(self._root / name.replace("\\", "/"), where)
        except OSError as error:  # the name is too long for the disk, or a folder may not be opened
            what = f"the file {name[:80]!r} cannot be looked up"
            raise InputError(f"{where}: {what}: {error.strerror or error}") from None
        return Path(os.path.normpath(path)) if ".." in path.parts else path

    def _like(self, path: Path, where: str) -> Path:
        """Return the file whose name differs in Unicode form or case alone, or ``path`` if there is none."""
        if path.exists() or path == path.parent:
            return path
        parent = path.parent if path.parent in (self._root, path) else self._like(path.parent, where)
        fitting = self._names(parent).get(_folded(path.name), [])
        if len(fitting) > 1:
            raise InputError(
                f"{where}: no file is named {path.name!r}, and several are like it: "
                f"{', '.join(ascii(str(parent / name)) for name in fitting)}",
                hint="write the name as the disk has it",
            )
        return parent / (fitting[0] if fitting else path.name)

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._inside:
            names: dict[str, list[str]] = defaultdict(list)
            if folder.is_dir():
                for each in sorted(os.listdir(folder)):
                    names[_folded(each)].append(each)
            self._inside[folder] = names
        return self._inside[folder]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
