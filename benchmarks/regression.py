"""Two results of ``capsule-edge bench``: what changed by more than noise.

Figures of two runs are not paired, and a machine is never in the same mood twice. So a change counts only when the
95 % intervals lie apart and the middle has moved by more than ``tolerance``; between different machines only the
ratios within each run are compared, and ratios only where they are to the same file and backend.
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
    """One file on one backend with one number of threads: ``figure`` before and after, and what to make of it.

    ``figure`` is ``p50_ms`` or, the first entry's apart, ``ratio``, or ``frames_per_s, batch N``, where ``threads`` are
    the streams; ``change`` is after / before - 1.
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
    """A document that ``bench`` wrote. Raises ``InputError`` for anything else."""
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
    """Every figure that both results have, and whether they were measured on the same kind of machine.

    Raises ``InputError`` when they have no figure in common.
    """
    same = all(
        _of_machine(before, name) == _of_machine(after, name) for name in ("name", "architecture", "cores")
    )
    old, new = _rows(before), _rows(after)
    changes = []
    for key in old:
        if key not in new:
            continue
        figures = ["p50_ms"] if same else []
        # The first entry's ratio is to itself.
        itself = [1, 1] in (old[key]["ratio_95"], new[key]["ratio_95"])
        if not itself and old[key]["reference"] == new[key]["reference"]:
            figures.append("ratio")
        for figure in figures:
            interval = figure.replace("_ms", "") + ("_95_ms" if figure.endswith("_ms") else "_95")
            changes.append(
                _judge(
                    key,
                    figure,
                    old[key][figure],
                    new[key][figure],
                    old[key][interval],
                    new[key][interval],
                    tolerance,
                )
            )
    if same:
        changes += _compare_throughput(before, after, tolerance)
    if not changes:
        raise InputError(
            "the two results have no figure in common", hint="measure the same files, backends and threads"
        )
    return changes, same


def _compare_throughput(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float
) -> list[Change]:
    """Results of earlier versions have no intervals of it, and nothing to compare."""
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
    """In results of earlier versions ratios are to the first entry, and do not say so."""
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
