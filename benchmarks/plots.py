"""Plots of a result of ``capsule-edge bench``: how latency is distributed, throughput, accuracy against latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plot_result", "plot_scaling"]


def plot_result(
    document: Mapping[str, Any], folder: Path, accuracy: Mapping[str, float] | None = None
) -> list[Path]:
    """Writes ``latency.png``, ``throughput.png`` and, where macro-F1 by SHA-256 is given, ``pareto.png``.

    Needs matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    entries = document["entries"]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for entry in entries:
        row = entry["latency"][0]
        times = np.sort(row["times_ms"])
        axes.plot(
            times, np.arange(1, len(times) + 1) / len(times), label=f"{_name(entry)}, {row['threads']} thr."
        )
    axes.set(xscale="log", xlabel="latency of one frame, ms", ylabel="share of rounds", title="Latency")
    axes.legend(fontsize="small")
    written.append(_save(figure, folder / "latency.png"))

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for entry in entries:
        for batch in sorted({row["batch"] for row in entry["throughput"]}):
            rows = [row for row in entry["throughput"] if row["batch"] == batch]
            label = f"{_name(entry)}, batch {batch}"
            axes.plot(
                [row["streams"] for row in rows], [row["frames_per_s"] for row in rows], "o-", label=label
            )
    axes.set(xlabel="streams", ylabel="frames a second", title="Throughput", ylim=(0, None))
    axes.legend(fontsize="small")
    written.append(_save(figure, folder / "throughput.png"))

    known = [entry for entry in entries if entry["sha256"] in (accuracy or {})]
    if known and accuracy:
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        for entry in known:
            point = (entry["latency"][0]["p50_ms"], accuracy[entry["sha256"]])
            axes.plot(*point, "o")
            axes.annotate(_name(entry), point, textcoords="offset points", xytext=(6, 4), fontsize="small")
        axes.set(
            xlabel="p50 of one frame, ms", ylabel="macro-F1", title="Accuracy against latency", xlim=(0, None)
        )
        written.append(_save(figure, folder / "pareto.png"))
    return written


def plot_scaling(found: Mapping[str, Any], path: Path) -> Path:
    """Draws what ``scaling`` found as one PNG: against length, size of frames, cores and recordings at once.

    Needs matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((time, memory), (size, rate)) = pyplot.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    rows = found["length"]
    frames = [row["frames"] for row in rows]
    time.plot(frames, [row["core_s"] for row in rows], "o-", label="core time")
    time.plot(frames, [row["seconds"] for row in rows], "o--", label="wall time")
    time.set(xlabel="frames", ylabel="seconds", title="Time against length", xlim=(0, None), ylim=(0, None))
    time.legend(fontsize="small")
    memory.plot(frames, [row["peak_mb"] or np.nan for row in rows], "o-")
    memory.set(
        xlabel="frames", ylabel="MB", title="Peak memory against length", xlim=(0, None), ylim=(0, None)
    )
    size.plot([row["side"] ** 2 / 1e6 for row in found["size"]],
              [1e3 * row["core_s"] / row["frames"] for row in found["size"]], "o-")  # fmt: skip
    size.set(
        xlabel="megapixels of a frame", ylabel="core ms a frame", title="Size", xlim=(0, None), ylim=(0, None)
    )
    for name, key, label in (("cores", "cores", "cores"), ("at_once", "recordings", "recordings at once")):
        rate.plot(
            [row[key] for row in found[name]], [row["frames_per_s"] for row in found[name]], "o-", label=label
        )
    rate.set(xlabel="number", ylabel="frames a second", title="Cores, recordings at once", ylim=(0, None))
    rate.legend(fontsize="small")
    return _save(figure, path)


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['file']} ({entry['backend']})"


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
