"""Find the pictures of a data set that is sorted into one folder for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import is_hidden

from .samples import IMAGE_SUFFIXES, ListingRemark, listed

__all__ = ["ClassFolders", "is_data_folder", "split_name"]

_SPLITS = {"training": "train", "valid": "val", "validation": "val"}
_SPLIT_FOLDERS = {"train", "val", "test", *_SPLITS}
_OF_WINDOWS = {"thumbs.db", "desktop.ini"}


def split_name(name: str | None) -> str | None:
    """Return the common name of a split: ``Validation`` is ``val``."""
    return _SPLITS.get(name.lower(), name.lower()) if name else None


def is_data_folder(path: Path) -> bool:
    """Return whether a folder may hold data: it is not hidden (``is_hidden``), and not the ``__MACOSX`` of archives."""
    return not is_hidden(path) and not path.name.startswith("__")


@dataclass
class ClassFolders:
    """The class folders of a data set, read from ``root``.

    Attributes:
        root: The folder of the data set.
        empty: Class folders without a picture.
        outside: Pictures that lie in no class folder.
        unread: The number of other files by suffix.
    """

    root: Path
    empty: list[Path] = field(default_factory=list)
    outside: list[Path] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    def pictures(self) -> Iterator[tuple[Path, str, str | None]]:
        """Yield the file, the name of the class folder and the split of each picture.

        Raises:
            InputError: There is no class folder with pictures, a class folder holds folders with pictures, or a name
                is not UTF-8.
        """
        root = self._unwrapped()
        folders = self._folders(root)
        splits = [f for f in folders if f.name.lower() in _SPLIT_FOLDERS and self._folders(f)]
        if splits:
            for folder in set(folders) - set(splits):
                self.outside += self._below(folder)
        for folder in {self.root, root, *splits}:
            self.outside += self._images(folder)
        classes: list[tuple[str | None, Path]] = [(None, f) for f in folders]
        if splits:
            classes = [(s.name, f) for s in splits for f in self._folders(s)]
        found = [(split, folder, self._images(folder)) for split, folder in classes]
        for _, folder in classes:
            self._check_flat(folder)
        if not any(images for _, _, images in found):
            raise InputError(
                f"{self.root} has no labels.csv and no class folders with images",
                hint="write labels.csv (file,label,source,video_id,frame_number,split) or sort the frames into one "
                "folder for each class",
            )
        for split, folder, images in found:
            if not images:
                self.empty.append(folder)
            for file in images:
                yield file, folder.name, split_name(split)

    def remarks(self) -> list[ListingRemark]:
        """Return what lies in the folder and was not read."""
        found = []
        if self.outside:
            names = tuple(sorted(file.relative_to(self.root).as_posix() for file in self.outside))
            found.append(
                ListingRemark(
                    "outside_classes",
                    len(names),
                    f"{len(names)} pictures lie outside the class folders and are not read ({listed(names)})",
                    names,
                )
            )
        if self.unread:
            names = tuple(f"{count} {suffix}" for suffix, count in self.unread.most_common())
            found.append(
                ListingRemark(
                    "unread_files",
                    self.unread.total(),
                    f"{self.unread.total()} files of the class folders are not named as pictures and are not read "
                    f"({listed(names)})",
                    names,
                )
            )
        return found

    def _unwrapped(self) -> Path:
        """Return ``root``, or the single folder in it into which an archive was unpacked."""
        folders = self._folders(self.root)
        if len(folders) != 1 or self._images(folders[0]) or folders[0].name.lower() in _SPLIT_FOLDERS:
            return self.root
        (wrapper,) = folders
        inside = self._folders(wrapper)
        deep = any(f.name.lower() in _SPLIT_FOLDERS and self._folders(f) for f in inside)
        return wrapper if deep or any(self._images(f) for f in inside) else self.root

    def _check_flat(self, folder: Path) -> None:
        for inner in self._folders(folder):
            pictures = self._below(inner)
            if pictures:
                raise InputError(
                    f"the class folder {folder} holds the folder {inner.name!r} with {len(pictures)} pictures, and "
                    "folders in class folders are not read: they may be patients or classes of their own",
                    hint="move the pictures into the class folder, or write a labels.csv that names each file",
                )
        for path in folder.iterdir():
            if is_hidden(path) or path.name.lower() in _OF_WINDOWS or not path.is_file():
                continue
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                self.unread[path.suffix.lower() or "without a suffix"] += 1

    def _folders(self, parent: Path) -> list[Path]:
        return sorted(self._named(p) for p in parent.iterdir() if p.is_dir() and is_data_folder(p))

    def _images(self, folder: Path) -> list[Path]:
        found = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p))
        return sorted(self._named(p) for p in found if not p.is_dir())

    def _below(self, folder: Path) -> list[Path]:
        """Return the pictures of a folder and of the folders in it."""
        found = []
        for place, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if is_data_folder(Path(name))]
            here = (Path(place, name) for name in files if not is_hidden(Path(name)))
            found += [file for file in here if file.suffix.lower() in IMAGE_SUFFIXES]
        return found

    def _named(self, path: Path) -> Path:
        """Return the path. Raise ``InputError`` if its name is not UTF-8: no table and no report can hold it."""
        try:
            path.name.encode()
        except UnicodeEncodeError:
            shown = path.name.encode("utf-8", "surrogateescape")
            raise InputError(
                f"the name {shown!r} in {str(path.parent)!a} is not UTF-8, so no table can hold it",
                hint="rename it, for instance with: convmv -f latin1 -t utf8 --notest",
            ) from None
        return path
