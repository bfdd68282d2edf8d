"""The results of an archive in its folder, each under its key, and the answers of parts that wait to be joined.

results/<first two digits>/<key>/    frames.csv, study.json, report.html, timing.json
work/<key>/                          answers of the parts of a long recording, until they are joined
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime import Study
from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.pipeline import Part, PartAnswers
from capsule_edge.runtime.results import open_run, write_study, write_whole

__all__ = ["ResultStore"]


class ResultStore:
    """The results of an archive.

    Args:
        out: the archive's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def folder(self, key: str) -> Path:
        """Return the folder of a result."""
        return self.out / "results" / key[:2] / key

    def has(self, key: str) -> bool:
        """Return whether a result is there, and whole: its ``study.json`` is written last."""
        return (self.folder(key) / "study.json").is_file()

    def document(self, key: str) -> dict[str, Any] | None:
        """Return the ``study.json`` of a result; None if it is not there or cannot be read."""
        try:
            found = json.loads((self.folder(key) / "study.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, key: str, study: Study, timing: Mapping[str, Any]) -> None:
        """Write a result whole, unless another worker has written it meanwhile.

        Raises:
            OutputError: it cannot be written.
        """
        with open_run(self.folder(key), overwrite=True) as run:
            if not self.has(key):
                write_study(study, run.folder, timing=timing, colours=study.colours)

    def work(self, key: str) -> Path:
        """Return the folder for the parts of a recording."""
        return self.out / "work" / key

    def write_part(self, key: str, part: Part, answers: PartAnswers) -> None:
        """Write the answers of a part, whole or not at all.

        Raises:
            OutputError: they cannot be written.
        """
        arrays = {
            each.name: getattr(answers, each.name)
            for each in fields(PartAnswers)
            if each.name != "failed_packet"
        }
        failed = -1 if answers.failed_packet is None else answers.failed_packet
        buffer = io.BytesIO()
        np.savez(buffer, failed_packet=np.int64(failed), **arrays)
        path = self._part(key, part)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path.parent} cannot be written: {(error.strerror or str(error)).lower()}",
                hint="free some space or check your rights, and run the command again",
            ) from error
        write_whole(path, buffer.getvalue())

    def read_part(self, key: str, part: Part) -> PartAnswers | None:
        """Return the answers of a part; None if they are not there."""
        try:
            with np.load(self._part(key, part), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            failed = int(found.pop("failed_packet"))
            return PartAnswers(**found, failed_packet=None if failed < 0 else failed)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None

    def forget(self, key: str) -> None:
        """Remove the answers of the parts of a recording."""
        with suppress(OSError):
            shutil.rmtree(self.work(key))

    def clear_work(self, *, whole: bool = False) -> None:
        """Remove copies of recordings that a killed run left, so that the next run copies them anew.

        Args:
            whole: remove the answers of parts, too. Without it, the next run goes on with them.
        """
        for path in (self.out / "work").glob("*" if whole else "fetched-*"):
            with suppress(OSError):
                shutil.rmtree(path)

    def _part(self, key: str, part: Part) -> Path:
        kind = "rest" if part.in_order else "part"
        span = part.frames
        return self.work(key) / f"{kind}-{span.start}-{span.stop}-{span.step}-{part.first_packet}.npz"
