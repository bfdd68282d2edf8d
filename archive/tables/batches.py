"""Write the results of an archive to Parquet files, a batch of results at a time.

    tables/model=<first 12 digits of its hash>/batch-00000001/frames.parquet, events.parquet, ...

A batch is a folder that is moved into place when all its files are written, so its tables always agree. Batches never
change. A result that a newer one replaces stays in its batch; the views of ``query`` leave it out.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError

from ..engines import TaskEngine
from ..manifest import READ_STATES, Manifest
from ..packages import load_package
from .schema import TABLES, table_schema

__all__ = ["TableTask", "tabulated_keys", "update_tables", "write_batch"]

# A batch ends when it holds so many results or frames: its tables then take some tens of megabytes in memory.
_RESULTS, _FRAMES = 256, 500_000
_NEEDED_FOR = "the tables of an archive"


@dataclass(frozen=True)
class TableTask:
    """A batch to be written.

    Attributes:
        number: of the batch.
        model_sha256: of the model that made the results.
        keys: of the results.
    """

    number: int
    model_sha256: str
    keys: tuple[str, ...]

    @property
    def place(self) -> str:
        """Path of the batch below the folder of the tables."""
        return f"model={self.model_sha256[:12]}/batch-{self.number:08d}"


def update_tables(
    out: Path, open_engine: Callable[[], TaskEngine], *, alive: Callable[[], None] = lambda: None
) -> list[str]:
    """Write the results that are in no table yet. Call it while holding the archive's lease.

    Args:
        out: the archive's folder.
        open_engine: opens an engine whose work is ``write_batch`` and whose setup is ``out``; called if work is due.
        alive: called now and then.

    Returns:
        What could not be written, in sentences.
    """
    _remove_leftovers(out)
    tasks = list(_due(out))
    if not tasks:
        return []
    engine = open_engine()
    faults: list[str] = []
    waiting, running = iter(tasks), 0
    try:
        while True:
            while running < engine.slots and (task := next(waiting, None)) is not None:
                engine.submit(task.number, task)
                running += 1
            if not running:
                return faults
            for number, result in engine.wait(1.0):
                running -= 1
                found = result if isinstance(result, list) else [f"batch {number}: {result.message}"]
                faults += map(str, found)
            alive()
    finally:
        engine.close()


def write_batch(out: Path, task: TableTask) -> list[str]:
    """Write the tables of a batch and return what could not be read of it, in sentences. Runs in a worker."""
    rows = _Rows()
    faults = []
    for key in task.keys:
        try:
            rows.add(out / "results" / key[:2] / key, key)
        except CapsuleEdgeError as error:
            faults.append(str(error))
    if not rows.count:
        return faults
    try:
        _write(out / "tables" / task.place, rows.tables())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        faults.append(f"{out / 'tables' / task.place} cannot be written: {reason}")
    return faults


def tabulated_keys(out: Path) -> set[str]:
    """Return the keys of the results that are in the tables."""
    parquet = load_package("pyarrow.parquet", needed_for=_NEEDED_FOR)
    found: set[str] = set()
    for path in (out / "tables").glob("model=*/batch-*/sources.parquet"):
        try:
            found.update(parquet.read_table(path, columns=["key"], partitioning=None)["key"].to_pylist())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read: {error}",
                hint="remove its folder; the next 'archive read' writes it again",
            ) from error
    return found


def _due(out: Path) -> Iterator[TableTask]:
    """Yield the batches to write: results of one model each."""
    known = tabulated_keys(out)
    table = Manifest(out).table(["state", "key", "model_sha256", "frames"])
    of_model: dict[str, dict[str, int]] = {}
    for row in table.to_pylist():
        if row["state"] in READ_STATES and row["key"] not in known:
            of_model.setdefault(row["model_sha256"], {})[row["key"]] = row["frames"] or 0
    numbers = [int(path.name.rpartition("-")[2]) for path in (out / "tables").glob("model=*/batch-*")]
    number = max(numbers, default=0)
    for model, frames_of in of_model.items():
        held: list[str] = []
        frames = 0
        for key, count in frames_of.items():
            held.append(key)
            frames += count
            if len(held) == _RESULTS or frames >= _FRAMES:
                number += 1
                yield TableTask(number, model, tuple(held))
                held, frames = [], 0
        if held:
            number += 1
            yield TableTask(number, model, tuple(held))


class _Rows:
    """The rows of a batch."""

    def __init__(self) -> None:
        self.count = 0
        self._labels: list[str] = []
        self._frames: list[Any] = []
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES if name != "frames"}

    def add(self, folder: Path, key: str) -> None:
        """Add a result.

        Raises:
            InputError: one of its files cannot be read.
        """
        try:
            study = json.loads((folder / "study.json").read_text("utf-8"))
            frames, labels = _read_frames(folder / "frames.csv", key)
            rows = {name: list(make(key, study)) for name, make in _MAKERS.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the result {folder} cannot be read: {error}", hint="remove it and read again"
            ) from error
        self._labels = self._labels or labels
        rows["models"] = [{**rows["models"][0], "labels": labels}]
        if rows["models"][0] in self._rows["models"]:
            del rows["models"]
        for name, found in rows.items():
            self._rows[name] += found
        self._frames.append(frames)
        self.count += 1

    def tables(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the ``pyarrow.Table`` of each table."""
        arrow = load_package("pyarrow", needed_for=_NEEDED_FOR)
        schema = table_schema("frames", self._labels)
        yield "frames", arrow.concat_tables([each.select(schema.names).cast(schema) for each in self._frames])
        for name, rows in self._rows.items():
            yield name, arrow.Table.from_pylist(rows, schema=table_schema(name))


def _read_frames(path: Path, key: str) -> tuple[Any, list[str]]:
    """Return the rows of a ``frames.csv`` with the key of the result, and the labels of the model."""
    arrow = load_package("pyarrow", needed_for=_NEEDED_FOR)
    reader = load_package("pyarrow.csv", needed_for=_NEEDED_FOR)
    with path.open(encoding="utf-8") as file:
        names = file.readline().rstrip("\n").split(",")
    labels = [name.removeprefix("p_") for name in names if name.startswith("p_")]
    schema = table_schema("frames", labels)
    types = {field.name: field.type for field in schema if field.name != "key"}
    options = reader.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    table = reader.read_csv(path, convert_options=options, read_options=reader.ReadOptions(use_threads=False))
    keys = arrow.array([key], arrow.string()).take(arrow.array([0] * len(table), arrow.int32()))
    return table.append_column("key", keys).select(schema.names), labels


def _events(key: str, study: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return ({"key": key, **event} for event in study["events"])


def _suggestions(key: str, study: dict[str, Any]) -> Iterable[dict[str, Any]]:
    events = {event["id"]: event for event in study["events"]}
    for each in study.get("suggestions") or ():
        leading, precision = events[each["events"][0]], each["precision"] or {}
        yield {
            "key": key,
            **{name: each[name] for name in ("id", "label", "score", "events", "similar")},
            "event": leading["id"],
            "start_s": leading["start_s"],
            "peak_index": leading["peak_index"],
            "precision_estimate": precision.get("estimate"),
            "precision_n": precision.get("n"),
            "alternatives": [other["label"] for other in each["alternatives"]],
        }


def _ledgers(key: str, study: dict[str, Any]) -> Iterable[dict[str, Any]]:
    yield {"key": key, **study["ledger"], "set_aside": (study.get("familiarity") or {}).get("set_aside")}


def _sources(key: str, study: dict[str, Any]) -> Iterable[dict[str, Any]]:
    source, box = study["source"], study["source"]["field_of_view"] or {}
    taken = (
        "name",
        "sha256",
        "codec",
        "width",
        "height",
        "duration_s",
        "time_kind",
        "capture_fps",
        "damage_detection",
    )
    yield {
        "key": key,
        **{name: source[name] for name in taken},
        **{f"view_{side}": box.get(side) for side in ("left", "top", "width", "height")},
        "warnings": [each["code"] for each in study["warnings"]],
        "model_sha256": study["model"]["sha256"],
        "tool_version": study["tool"]["version"],
    }


def _models(_key: str, study: dict[str, Any]) -> Iterable[dict[str, Any]]:
    yield {name: study["model"][name] for name in ("sha256", "name", "version", "precision", "backend")}


_MAKERS: dict[str, Callable[[str, dict[str, Any]], Iterable[dict[str, Any]]]] = {
    "events": _events,
    "suggestions": _suggestions,
    "ledgers": _ledgers,
    "sources": _sources,
    "models": _models,
}


def _write(folder: Path, tables: Iterable[tuple[str, Any]]) -> None:
    """Write the files of a batch beside its place, and move the folder there when all are on the disk."""
    parquet = load_package("pyarrow.parquet", needed_for=_NEEDED_FOR)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
    staged.mkdir()
    try:
        for name, table in tables:
            with (staged / f"{name}.parquet").open("wb") as file:
                parquet.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
        os.rename(staged, folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(staged)


def _remove_leftovers(out: Path) -> None:
    for path in (out / "tables").glob("model=*/.batch-*.tmp"):
        with suppress(OSError):
            shutil.rmtree(path)
