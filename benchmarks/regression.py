"""Compare two results of ``capsule-edge bench`` and find the changes that are larger than noise.

The figures of two runs are not paired, and the load of a machine differs between them. A change therefore counts only
if the 95 % intervals do not overlap and the figure has moved by more than ``tolerance``. Results of different machines
are compared by their ratios alone. Ratios are compared only if they are relative to the same file and backend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from capsule_edge.runtime.errors import InputError

from .bench import SCHEMA

__all__ = ["Change", "compare_results", "read_result"]

Verdict = Literal["slower", "faster", "noise"]
_KEYS = ("file", "backend", "threads", "p50_ms", "p50_95_ms", "ratio", "ratio_95")


@dataclass(frozen=True)
class Change:
    """A figure of one file on one backend in both results.

    Attributes:
        file: name of the model file.
        backend: name of the backend.
        threads: threads per call; for throughput the number of streams.
        figure: ``p50_ms``, ``ratio``, or ``frames_per_s, batch N``. The first entry has no ``ratio``.
        before: the figure in the earlier result.
        after: the figure in the later result.
        change: after / before - 1.
        verdict: ``slower``, ``faster`` or ``noise``.
    """

    file: str
    backend: str
    threads: int
    figure: str
    before: float
    after: float
    change: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_result(path: Path) -> dict[str, Any]:
    """Read a document that ``bench`` wrote.

    Raises:
        InputError: the file cannot be read or is no such document.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, needed is {SCHEMA!r}")
        for row in _rows(document).values():
            for name in _KEYS:
                row[name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no result of bench: {error}", hint="write one with capsule-edge bench MODEL --json"
        ) from None
    return document


def compare_results(
    before: Mapping[str, Any], after: Mapping[str, Any], *, tolerance: float = 0.05
) -> tuple[list[Change], bool]:
    """Compare every figure that both results have.

    Args:
        before: the earlier document.
        after: the later document.
        tolerance: relative change that a figure must exceed to count.

    Returns:
        The changes, and whether both results are of the same processor and number of cores.

    Raises:
        InputError: the results have no figure in common.
    """
    same = all(
        _of_machine(before, name) == _of_machine(after, name) for name in ("name", "architecture", "cores")
    )
    old, new = _rows(before), _rows(after)
    changes = [
        change
        for key in old
        if key in new
        for change in _compare_latency(key, old[key], new[key], tolerance, same_machine=same)
    ]
    if same:
        changes += _compare_throughput(before, after, tolerance)
    if not changes:
        raise InputError(
            "the two results have no figure in common", hint="measure the same files, backends and threads"
        )
    return changes, same


def _compare_latency(
    key: tuple[str, str, int],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    tolerance: float,
    *,
    same_machine: bool,
) -> list[Change]:
    figures = [("p50_ms", "p50_95_ms")] if same_machine else []
    # The first entry's ratio is relative to itself.
    itself = [1, 1] in (before["ratio_95"], after["ratio_95"])
    if not itself and before["reference"] == after["reference"]:
        figures.append(("ratio", "ratio_95"))
    return [
        _judge(key, figure, before[figure], after[figure], before[interval], after[interval], tolerance)
        for figure, interval in figures
    ]


def _compare_throughput(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float
) -> list[Change]:
    """Compare frames per second. Results of earlier versions have no intervals for it and are skipped."""
    old, new = _rates(before), _rates(after)
    changes = []
    for (file, backend, batch, streams), row in old.items():
        other = new.get((file, backend, batch, streams))
        if other is not None:
            figures = (row["frames_per_s"], other["frames_per_s"])
            intervals = (row["frames_per_s_95"], other["frames_per_s_95"])
            name = f"frames_per_s, batch {batch}"
            changes.append(
                _judge((file, backend, streams), name, *figures, *intervals, tolerance, more_is_slower=False)
            )
    return changes


def _rates(document: Mapping[str, Any]) -> dict[tuple[str, str, int, int], dict[str, Any]]:
    return {
        (entry["file"], entry["backend"], row["batch"], row["streams"]): row
        for entry in document["entries"]
        for row in entry["throughput"]
        if "frames_per_s_95" in row
    }


def _judge(
    key: tuple[str, str, int],
    figure: str,
    before: float,
    after: float,
    was: list[float],
    now: list[float],
    tolerance: float,
    *,
    more_is_slower: bool = True,
) -> Change:
    change = after / before - 1
    verdict: Verdict = "noise"
    if now[0] > was[1] and change > tolerance:
        verdict = "slower" if more_is_slower else "faster"
    elif now[1] < was[0] and change < -tolerance:
        verdict = "faster" if more_is_slower else "slower"
    return Change(*key, figure, before, after, round(change, 4), verdict)


def _rows(document: Mapping[str, Any]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the latencies by file, backend and threads.

    Results of earlier versions do not name the reference of a ratio: it is the first entry.
    """
    first = (
        {name: document["entries"][0][name] for name in ("file", "backend")} if document["entries"] else {}
    )
    return {
        (entry["file"], entry["backend"], row["threads"]): {"reference": first, **entry, **row}
        for entry in document["entries"]
        for row in entry["latency"]
    }


def _of_machine(document: Mapping[str, Any], name: str) -> Any:
    return document["machine"]["cpu"][name]
