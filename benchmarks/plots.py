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
    looks = _find_looks(entries)
    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    for entry, look in zip(entries, looks, strict=True):
        times = np.sort(entry["latency"][0]["times_ms"])
        axes.plot(
            times, np.arange(1, len(times) + 1) / len(times), **look | {"marker": ""}, label=_name(entry)
        )
    threads = entries[0]["latency"][0]["threads"]
    axes.set(xscale="log", xlabel="latency of one frame, ms", ylabel="share of rounds",
             title=f"Latency, {threads} thread{'s' * (threads > 1)}")  # fmt: skip
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(_label_halves)
    axes.grid(visible=True, which="both", linewidth=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    made["latency.png"] = _png(figure)

    batches = sorted({row["batch"] for row in entries[0]["throughput"]})
    figure, panels = pyplot.subplots(
        1, len(batches), figsize=(4 + 3 * len(batches), 4.5), layout="constrained", sharey=True, squeeze=False
    )
    for axes, batch in zip(panels[0], batches, strict=True):
        for entry, look in zip(entries, looks, strict=True):
            rows = [row for row in entry["throughput"] if row["batch"] == batch]
            counts = [row["streams"] for row in rows]
            axes.plot(counts, [row["frames_per_s"] for row in rows], **look, label=_name(entry))
        axes.set(yscale="log", xticks=counts, xlabel="threads, each with calls of its own",
                 title=f"batches of {batch}" if batch > 1 else "one frame a call")  # fmt: skip
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(_label_halves)
        axes.grid(visible=True, which="both", linewidth=0.3)
    panels[0][0].set(ylabel="frames a second")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    made["throughput.png"] = _png(figure)

    known = [at for at, entry in enumerate(entries) if entry["sha256"] in (accuracy or {})]
    if known and accuracy:
        # Medians by the clock say nothing where the times never settled.
        settled = all(entries[at]["latency"][0]["steady"] for at in known)
        field, told = ("p50_ms", "p50") if settled else ("core_ms", "core time")
        figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
        points = [(entries[at]["latency"][0][field], accuracy[entries[at]["sha256"]]) for at in known]
        for at, point in zip(known, points, strict=True):
            axes.plot(*point, **looks[at] | {"linestyle": ""}, label=_name(entries[at]))
        # What no other is both faster and better than.
        front = sorted(one for one in points if not any(o[0] < one[0] and o[1] >= one[1] for o in points))
        axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="grey", linewidth=1, zorder=0)
        axes.set(
            xlabel=f"{told} of one frame, ms",
            ylabel="macro-F1",
            title="Accuracy against latency",
            xlim=(0, None),
        )
        axes.grid(visible=True, linewidth=0.3)
        figure.legend(loc="outside right center", fontsize="small")
        made["pareto.png"] = _png(figure)
    return made


def _find_looks(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A colour for each file, a line and a mark for each backend."""
    files, backends = (list(dict.fromkeys(entry[of] for entry in entries)) for of in ("file", "backend"))
    lines, marks = ("-", "--", ":", "-."), "os^D"
    looks = []
    for entry in entries:
        at = backends.index(entry["backend"]) % len(lines)
        colour = f"C{files.index(entry['file']) % 10}"
        looks.append({"color": colour, "linestyle": lines[at], "marker": marks[at], "markersize": 5})
    return looks


def _label_halves(value: float, _position: int | None = None) -> str:
    """Of the ticks between powers of ten those at 2 and 5."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


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
