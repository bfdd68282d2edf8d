"""A result of ``capsule-edge bench`` as rows for people, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .documents import to_table

__all__ = [
    "LATENCY",
    "STARTUP",
    "figure_tables",
    "latency_rows",
    "machine_line",
    "render_markdown",
    "startup_rows",
    "throughput_rows",
]

Rows = list[list[str]]

LATENCY = (
    "file",
    "backend",
    "threads",
    "p50 ms",
    "p90",
    "p95",
    "p99",
    "jitter",
    "core ms",
    "ratio",
    "95 %",
    "core ratio",
    "to",
)
STARTUP = ("file", "backend", "MB", "cold start s", "opening s", "peak memory MB")


def latency_rows(document: Mapping[str, Any]) -> Rows:
    """One row for each entry and number of threads, under ``LATENCY``; times that never settled have a ``~``."""
    rows = []
    for entry in document["entries"]:
        for row in entry["latency"]:
            low, high = row["ratio_95"]
            times = [f"{row[f'{name}_ms']:.2f}" for name in ("p50", "p90", "p95", "p99", "jitter", "core")]
            times[0] += "" if row["steady"] else "~"
            ratios = [f"{row['ratio']:.3f}", f"{low:.3f} .. {high:.3f}", f"{row['core_ratio']:.3f}"]
            about = [entry["file"], entry["backend"], str(row["threads"])]
            rows.append([*about, *times, *ratios, _name_reference(entry, row)])
    return rows


def _name_reference(entry: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What the ratio is to; results of earlier versions do not say it: the first row."""
    other = row.get("reference")
    if other is None:
        return "the first"
    if other["backend"] == entry["backend"]:
        return "itself" if other["file"] == entry["file"] else str(other["file"])
    return f"{other['file']}, {other['backend']}"


def throughput_rows(document: Mapping[str, Any]) -> tuple[tuple[str, ...], Rows]:
    """Frames a second, a column for each batch and number of streams."""
    head = ["file", "backend"]
    entries: Sequence[Mapping[str, Any]] = document["entries"]
    for row in entries[0]["throughput"] if entries else ():
        head.append(f"batch {row['batch']}, {row['streams']} stream{'s' * (row['streams'] > 1)}")
    rows = [
        [entry["file"], entry["backend"], *(f"{row['frames_per_s']:.0f}" for row in entry["throughput"])]
        for entry in entries
    ]
    return tuple(head), rows


def startup_rows(document: Mapping[str, Any]) -> Rows:
    """Under ``STARTUP``; a dash for what was not measured or is not told."""
    rows = []
    for entry in document["entries"]:
        start = entry["startup"] or {}
        cells = [start.get(name) for name in ("cold_start_s", "open_s", "peak_mb")]
        told = ["-" if value is None else f"{value:.0f}" if value > 20 else f"{value:.2f}" for value in cells]
        rows.append([entry["file"], entry["backend"], f"{entry['bytes'] / 1e6:.2f}", *told])
    return rows


def machine_line(document: Mapping[str, Any]) -> str:
    """The machine card in a line; of the system its name alone, which stands first in what the card has."""
    machine = document["machine"]
    cpu = machine["cpu"]
    system = machine["system"].partition("-")[0]
    has = ", ".join(name for name, value in cpu["features"].items() if value) or "no known features"
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items() if value)
    return (
        f"{cpu['name']}, {machine['cores_allowed']} of {cpu['cores']} cores ({has}), governor"
        f" {machine['governor'] or 'unknown'}, load {machine['load_1min']}, {system}, Python"
        f" {machine['python']}, {versions}"
    )


def render_markdown(document: Mapping[str, Any]) -> str:
    """The tables under headings, with what was measured and on what."""
    options = document["options"]
    parts = [
        "# Benchmark",
        machine_line(document),
        f"Latency of one frame over {options['rounds']} rounds in which two take turns: each file and the one that its"
        " ratio is to, with 95 % bootstrap intervals. `core` is the processor's time, which other programs hardly"
        " touch. `~`: the times did not settle.",
        *figure_tables(document),
    ]
    return "\n\n".join(parts) + "\n"


def figure_tables(document: Mapping[str, Any]) -> list[str]:
    """Latency, throughput and start, each after the first under a line that says what it is."""
    head, throughput = throughput_rows(document)
    return [
        to_table(LATENCY, latency_rows(document)),
        "Frames a second:",
        to_table(head, throughput),
        "A fresh process, from its start to the first answer, and the most memory it held with batches of 16:",
        to_table(STARTUP, startup_rows(document)),
    ]
