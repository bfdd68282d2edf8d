"""The manifest: rows that one driver appends, and the newest row of each recording.

Rows are Parquet, so 100,000 of them are read in a fraction of a second and in little memory.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError

from ..packages import load_package
from .row import READ_STATES, Row
from .segments import Segment, list_segments, publish, remove_leftovers

__all__ = ["Manifest", "Summary"]

SCHEMA = "capsule-edge/archive-manifest/1"
# Files of one level are merged when there are so many: at most some 190 files then hold 250,000 rows.
_MERGED = 64
_TYPES = {"str": "string", "int": "int64", "float": "float64", "bool": "bool_", "State": "string"}
_NEEDED_FOR = "capsule-edge archive"
# Columns that early archives lack.
_ADDED = frozenset({"listed_in"})


@dataclass(frozen=True)
class Summary:
    """Counts over the newest rows.

    Attributes:
        states: number of recordings by state.
        causes: number of recordings that are not read whole, by cause.
        frames: number of frames in the results; copies that share a result count once here and below.
        seconds: core time of all results, seconds.
        suggestions: number of suggestions in the results.
    """

    states: dict[str, int]
    causes: dict[str, int]
    frames: int
    seconds: float
    suggestions: int

    @property
    def recordings(self) -> int:
        """Number of recordings."""
        return sum(self.states.values())


class Manifest:
    """The rows of an archive. Reading needs no lease; writing does.

    Args:
        folder: the archive's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "manifest"
        self._next = 0

    def begin(self) -> None:
        """Prepare to append. Call it once, while holding the lease."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        self._next = max((segment.last for segment in list_segments(self.folder)), default=0) + 1

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as one new file, and merge files where there are many.

        Raises:
            OutputError: another driver has written this file, or it cannot be written. No row is written then.
        """
        if not rows:
            return
        if not self._next:
            raise RuntimeError("begin the manifest first")
        publish(self.folder, Segment(self._next, self._next), _to_bytes(_to_table(rows)))
        self._next += 1
        while (merged := _mergeable(list_segments(self.folder))) is not None:
            self._merge(merged)

    def compact(self) -> None:
        """Merge all files into one, without the rows of what is gone."""
        found = list_segments(self.folder)
        if len(found) > 1:
            self._merge(found, whole=True)

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Return the newest row of each recording as a ``pyarrow.Table``, in the order in which they were written.

        Rows of what is gone are left out.

        Args:
            columns: those to read, beside ``recording`` and ``state``; None for all.

        Raises:
            InputError: a file of the manifest cannot be read.
        """
        # The driver may merge files between the listing and the reading.
        for _ in range(5):
            try:
                return _without_gone(self._read(list_segments(self.folder), columns))
            except FileNotFoundError:
                continue
        return _without_gone(self._read(list_segments(self.folder), columns))

    def rows(self) -> Iterator[Row]:
        """Yield the newest row of each recording."""
        for batch in self.table().to_batches(max_chunksize=4096):
            for values in batch.to_pylist():
                yield Row(**values)

    def summary(self) -> Summary:
        """Return the counts over the newest rows."""
        table = self.table(["state", "cause", "key", "frames", "seconds", "suggestions"])
        states = Counter(table["state"].to_pylist())
        causes = Counter(filter(None, table["cause"].to_pylist()))
        # The copy that was read has the time, the others have 0.
        figures: list[float] = []
        for name in ("frames", "seconds", "suggestions"):
            of_key: dict[str | None, float] = {}
            for key, value in zip(table["key"].to_pylist(), table[name].to_pylist(), strict=True):
                of_key[key] = max(of_key.get(key, 0), value or 0)
            figures.append(sum(value for key, value in of_key.items() if key is not None))
        frames, seconds, suggestions = figures
        return Summary(
            dict(sorted(states.items())),
            dict(causes.most_common()),
            int(frames),
            round(seconds, 3),
            int(suggestions),
        )

    def keys(self) -> set[str]:
        """Return the keys of the results that count."""
        table = self.table(["state", "key"])
        return {
            key
            for state, key in zip(table["state"].to_pylist(), table["key"].to_pylist(), strict=True)
            if state in READ_STATES
        }

    def _merge(self, merged: Sequence[Segment], *, whole: bool = False) -> None:
        table = self._read(merged, None)
        # Where files before these are kept, a row of what is gone still ends one in them.
        rows = _without_gone(table) if whole else table
        publish(self.folder, Segment(merged[0].first, merged[-1].last), _to_bytes(rows))
        for segment in merged:
            (self.folder / segment.name).unlink(missing_ok=True)

    def _read(self, segments: Sequence[Segment], columns: Sequence[str] | None) -> Any:
        arrow = load_package("pyarrow", needed_for=_NEEDED_FOR)
        parquet = load_package("pyarrow.parquet", needed_for=_NEEDED_FOR)
        schema = _schema()
        named = [field.name for field in fields(Row)]
        wanted = named if columns is None else list(dict.fromkeys(["recording", "state", *columns]))
        parts = [schema.empty_table().select(wanted)]
        for segment in segments:
            path = self.folder / segment.name
            try:
                parts.append(_read_columns(parquet, path, parts[0].schema))
            except FileNotFoundError:
                raise
            except (OSError, ValueError, KeyError) as error:
                raise InputError(
                    f"{path} cannot be read: {error}",
                    hint="restore it from a copy; without it the recordings in it would be read again",
                ) from error
        return _newest(arrow.concat_tables([part.cast(parts[0].schema) for part in parts]))


def _read_columns(parquet: Any, path: Path, schema: Any) -> Any:
    """Return the columns of a file; null where an older version did not write a column that may be null."""
    arrow = load_package("pyarrow", needed_for=_NEEDED_FOR)
    with parquet.ParquetFile(path) as file:
        held = set(file.schema_arrow.names)
        table = file.read(
            [name for name in schema.names if name in held or name not in _ADDED], use_threads=False
        )
    for field in schema:
        if field.name in _ADDED and field.name not in held:
            table = table.append_column(field, arrow.nulls(len(table), field.type))
    return table.select(schema.names)


def _without_gone(table: Any) -> Any:
    compute = load_package("pyarrow.compute", needed_for=_NEEDED_FOR)
    return table.filter(compute.not_equal(table["state"], "gone"))


def _newest(table: Any) -> Any:
    """Return the last row of each recording."""
    codes = table["recording"].combine_chunks().dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    np.maximum.at(last, codes, np.arange(len(codes)))
    return table if len(last) == len(codes) else table.take(np.sort(last))


def _mergeable(segments: Sequence[Segment]) -> Sequence[Segment] | None:
    """Return the last files if they are ``_MERGED`` of one level; else None."""
    last = segments[-_MERGED:]
    same = len(last) == _MERGED and len({_level(segment) for segment in last}) == 1
    return last if same else None


def _level(segment: Segment) -> int:
    level = 0
    while _MERGED ** (level + 1) <= segment.span:
        level += 1
    return level


def _to_table(rows: Iterable[Row]) -> Any:
    arrow = load_package("pyarrow", needed_for=_NEEDED_FOR)
    return arrow.Table.from_pylist([asdict(row) for row in rows], schema=_schema())


def _to_bytes(table: Any) -> bytes:
    parquet = load_package("pyarrow.parquet", needed_for=_NEEDED_FOR)
    buffer = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"schema": SCHEMA}), buffer, compression="zstd")
    return buffer.getvalue()


def _schema() -> Any:
    arrow = load_package("pyarrow", needed_for=_NEEDED_FOR)
    return arrow.schema(
        [(field.name, getattr(arrow, _TYPES[str(field.type).split(" ")[0]])()) for field in fields(Row)]
    )
