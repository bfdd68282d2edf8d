"""Plots of a result of ``capsule-edge bench``: how latency is distributed, throughput, accuracy against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

__all__ = ["PLOTS", "plot_memory", "plot_result", "plot_scaling"]


PLOTS = ("latency.png", "throughput.png", "pareto.png")


def plot_result(document: Mapping[str, Any], accuracy: Mapping[str, float] | None = None) -> dict[str, bytes]:
    """The PNG files ``latency.png``, ``throughput.png`` and, where macro-F1 by SHA-256 is given, ``pareto.png``.

    Needs matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = {}
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
    made["latency.png"] = _png(figure)

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
    made["throughput.png"] = _png(figure)

    known = [entry for entry in entries if entry["sha256"] in (accuracy or {})]
    if known and accuracy:
        # Medians by the clock say nothing where the times never settled.
        settled = all(entry["latency"][0]["steady"] for entry in known)
        field, told = ("p50_ms", "p50") if settled else ("core_ms", "core time")
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        points = [(entry["latency"][0][field], accuracy[entry["sha256"]]) for entry in known]
        for entry, point in zip(known, points, strict=True):
            axes.plot(*point, "o", label=_name(entry))
        # What no other is both faster and better than.
        front = sorted(one for one in points if not any(o[0] < one[0] and o[1] >= one[1] for o in points))
        axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="grey", linewidth=1, zorder=0)
        axes.set(
            xlabel=f"{told} of one frame, ms",
            ylabel="macro-F1",
            title="Accuracy against latency",
            xlim=(0, None),
        )
        figure.legend(loc="outside right center", fontsize="small")
        made["pareto.png"] = _png(figure)
    return made


def plot_scaling(found: Mapping[str, Any]) -> bytes:
    """What ``scaling`` found as a PNG: against length, size of frames, cores and recordings at once.

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
    return _png(figure)


def plot_memory(trace: Sequence[tuple[float, float, float]], found: Mapping[str, Any]) -> bytes:
    """What a reading (``reading``) held over its time, as a PNG. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    seconds = [second for second, *_ in trace]
    axes.plot(seconds, [whole for _, whole, _ in trace], label="in all")
    axes.plot(
        seconds, [own for *_, own in trace], ":", color="C0", label="without pages of libraries and files"
    )
    axes.axhline(250, color="grey", linewidth=0.8)
    axes.set(
        xlabel="seconds",
        ylabel="memory, MB",
        title=f"{found['frames']:,} frames read on {found['cores']} cores",
        xlim=(0, None),
        ylim=(0, None),
    )
    axes.legend(fontsize="small", loc="lower right")
    return _png(figure)


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['file']} ({entry['backend']})"


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    made = BytesIO()
    # Without the version of matplotlib, so that the same figures give the same bytes.
    figure.savefig(made, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return made.getvalue()
