"""The log of a training run: each step goes to a callback, each epoch also to a CSV file and to TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.results import write_whole

__all__ = ["TrainingLog"]

_COLUMNS = (
    "part",
    "epoch",
    "loss",
    "seconds",
    "rate",
    "held_out",
    "held_out_majority",
    "held_out_balanced_accuracy",
)


class TrainingLog:
    """Log of a run. With ``folder`` None it writes no files, for workers that are not the first.

    ``curve.csv`` has one row for each epoch of each part. If a killed run repeats an epoch, the new row
    replaces the old one. ``tensorboard/`` has the same figures as scalars, for ``tensorboard --logdir``.

    Args:
        folder: the run folder.
        note: called with each line, a dictionary with "part" and the figures.
    """

    def __init__(self, folder: Path | None, note: Callable[[dict[str, Any]], None]) -> None:
        self._folder, self._note = folder, note

    def of(self, part: str) -> Callable[[dict[str, Any]], None]:
        """Return a function that logs the lines of ``part`` ("fp32" or "qat").

        It raises ``OutputError`` if a file cannot be written.
        """

        def write(line: dict[str, Any]) -> None:
            self._note({"part": part, **line})
            if "epoch" in line and self._folder is not None:
                self._to_csv(self._folder / "curve.csv", {"part": part, **line})
                self._to_tensorboard(self._folder / "tensorboard" / part, line)

        return write

    def _to_csv(self, path: Path, line: dict[str, Any]) -> None:
        """Add the row of an epoch, or replace it."""
        text = io.StringIO()
        rows = csv.DictWriter(text, _COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        hint = "the last checkpoint is intact"
        try:
            if path.is_file():
                with path.open(encoding="utf-8", newline="") as stream:
                    earlier = list(csv.DictReader(stream))
                rows.writerows(
                    row
                    for row in earlier
                    if (row["part"], int(row["epoch"])) != (line["part"], line["epoch"])
                )
        except (OSError, KeyError, ValueError) as error:
            raise OutputError(f"{path} cannot be continued: {error}", hint=hint) from None
        rows.writerow(line)
        write_whole(path, text.getvalue().encode("utf-8"), hint=hint)

    def _to_tensorboard(self, folder: Path, line: dict[str, Any]) -> None:
        """Write one event file, as ``tf.summary.scalar`` would; that function needs the package tensorboard."""
        import tensorflow as tf

        kind = tf.compat.v1.SummaryMetadata(data_class=1)  # 1 means scalars
        kind.plugin_data.plugin_name = "scalars"
        try:
            writer = tf.summary.create_file_writer(str(folder))
            with writer.as_default(step=line["epoch"]):
                for name, value in line.items():
                    if name != "epoch":
                        tf.summary.write(name, tf.constant(value, tf.float32), metadata=kind)
            writer.close()
        except (OSError, tf.errors.OpError) as error:
            raise OutputError(
                f"{folder} cannot be written: {error}", hint="the last checkpoint is intact"
            ) from None
