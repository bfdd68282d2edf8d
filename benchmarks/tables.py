"""Turn a result of ``capsule-edge bench`` into rows of text, and into Markdown."""

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
    "p50, ms",
    "p90, ms",
    "p95, ms",
    "p99, ms",
    "jitter, ms",
    "core p50, ms",
    "ratio",
    "ratio, 95 %",
    "core ratio",
    "reference",
)
STARTUP = ("file", "backend", "file size, MB", "cold start, s", "opening, s", "peak memory, MB")


def latency_rows(document: Mapping[str, Any]) -> Rows:
    """Return one row per entry and number of threads, with the columns of ``LATENCY``.

    A ``~`` marks a median whose times never became steady.
    """
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
    """Name the entry that the ratio is relative to. Results of earlier versions omit it: it is the first entry."""
    other = row.get("reference")
    if other is None:
        return "the first"
    if other["backend"] == entry["backend"]:
        return "itself" if other["file"] == entry["file"] else str(other["file"])
    return f"{other['file']}, {other['backend']}"


def throughput_rows(document: Mapping[str, Any]) -> tuple[tuple[str, ...], Rows]:
    """Return the columns and one row per entry: frames per second by batch size and number of streams."""
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
    """Return one row per entry with the columns of ``STARTUP``. A dash marks a figure that was not measured."""
    rows = []
    for entry in document["entries"]:
        start = entry["startup"] or {}
        cells = [start.get(name) for name in ("cold_start_s", "open_s", "peak_mb")]
        texts = [
            "-" if value is None else f"{value:.0f}" if value > 20 else f"{value:.2f}" for value in cells
        ]
        rows.append([entry["file"], entry["backend"], f"{entry['bytes'] / 1e6:.2f}", *texts])
    return rows


def machine_line(document: Mapping[str, Any]) -> str:
    """Return the machine card as one line, with the operating system's name but not its version."""
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
    """Return a Markdown document: the machine, how the figures were measured, and the tables."""
    options = document["options"]
    parts = [
        "# Benchmark",
        machine_line(document),
        f"Latency of one frame over {options['rounds']} rounds. In each round two files take turns: a file and its"
        " reference, which the last column names; `ratio` is relative to it. Intervals are 95 % bootstraps. `core` is"
        " processor time, which other programs hardly influence. `~` marks times that never became steady.",
        *figure_tables(document),
    ]
    return "\n\n".join(parts) + "\n"


def figure_tables(document: Mapping[str, Any]) -> list[str]:
    """Return the tables of latency, throughput and start, with a line before the second and the third."""
    head, throughput = throughput_rows(document)
    return [
        to_table(LATENCY, latency_rows(document)),
        "Frames per second, by frames per call (batch) and threads that call the model at once (streams):",
        to_table(head, throughput),
        "Cold start (from the start of a fresh process to its first answer), the part of it that opens the model, and"
        " peak memory with batches of 16:",
        to_table(STARTUP, startup_rows(document)),
    ]
