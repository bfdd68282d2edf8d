"""Draw results as PNG files: distribution of latency, throughput, accuracy against latency, scaling, memory.

Everything here needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

__all__ = ["PLOTS", "plot_memory", "plot_result", "plot_scaling"]

PLOTS = ("latency.png", "throughput.png", "pareto.png")

Entries = Sequence[Mapping[str, Any]]
Styles = Sequence[Mapping[str, Any]]


def plot_result(document: Mapping[str, Any], accuracy: Mapping[str, float] | None = None) -> dict[str, bytes]:
    """Draw a result of ``capsule-edge bench``.

    Args:
        document: the result.
        accuracy: macro-F1 of models by their SHA-256.

    Returns:
        PNG files by name: ``latency.png``, ``throughput.png`` and, if ``accuracy`` knows one of the models,
        ``pareto.png``.
    """
    entries = document["entries"]
    styles = _choose_styles(entries)
    made = {
        "latency.png": _plot_latency(entries, styles),
        "throughput.png": _plot_throughput(entries, styles),
    }
    if any(entry["sha256"] in (accuracy or {}) for entry in entries):
        made["pareto.png"] = _plot_accuracy(entries, styles, accuracy or {})
    return made


def _plot_latency(entries: Entries, styles: Styles) -> bytes:
    """Draw the cumulative distribution of the first latency of each entry."""
    figure, axes = _open_figure(10, 4.5)
    for entry, style in zip(entries, styles, strict=True):
        times = np.sort(entry["latency"][0]["times_ms"])
        shares = np.arange(1, len(times) + 1) / len(times)
        axes.plot(times, shares, **{**style, "marker": ""}, label=_name(entry))
    threads = entries[0]["latency"][0]["threads"]
    axes.set(xscale="log", xlabel="latency of one frame, ms", ylabel="share of rounds",
             title=f"Latency, {threads} thread{'s' * (threads > 1)}")  # fmt: skip
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(_label_2_and_5)
    axes.grid(visible=True, which="both", linewidth=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    return _to_png(figure)


def _plot_throughput(entries: Entries, styles: Styles) -> bytes:
    """Draw frames per second against streams, one panel per batch size."""
    batches = sorted({row["batch"] for row in entries[0]["throughput"]})
    figure, panels = _open_figure(4 + 3 * len(batches), 4.5, 1, len(batches), sharey=True, squeeze=False)
    for axes, batch in zip(panels[0], batches, strict=True):
        for entry, style in zip(entries, styles, strict=True):
            rows = [row for row in entry["throughput"] if row["batch"] == batch]
            counts = [row["streams"] for row in rows]
            axes.plot(counts, [row["frames_per_s"] for row in rows], **style, label=_name(entry))
        axes.set(yscale="log", xticks=counts, xlabel="threads that call the model at once",
                 title=f"batches of {batch}" if batch > 1 else "one frame per call")  # fmt: skip
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(_label_2_and_5)
        axes.grid(visible=True, which="both", linewidth=0.3)
    panels[0][0].set(ylabel="frames per second")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return _to_png(figure)


def _plot_accuracy(entries: Entries, styles: Styles, accuracy: Mapping[str, float]) -> bytes:
    """Draw accuracy against latency, with the line of the entries that no other entry beats in both."""
    known = [
        (entry, style) for entry, style in zip(entries, styles, strict=True) if entry["sha256"] in accuracy
    ]
    # Wall-clock medians mean nothing if the times never became steady.
    steady = all(entry["latency"][0]["steady"] for entry, _ in known)
    field, name = ("p50_ms", "p50") if steady else ("core_ms", "core time")
    figure, axes = _open_figure(9, 4.5)
    points = [(entry["latency"][0][field], accuracy[entry["sha256"]]) for entry, _ in known]
    for (entry, style), point in zip(known, points, strict=True):
        axes.plot(*point, **{**style, "linestyle": ""}, label=_name(entry))
    front = sorted(p for p in points if not any(other[0] < p[0] and other[1] >= p[1] for other in points))
    axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="grey", linewidth=1, zorder=0)
    axes.set(
        xlabel=f"{name} of one frame, ms", ylabel="macro-F1", title="Accuracy against latency", xlim=(0, None)
    )
    axes.grid(visible=True, linewidth=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    return _to_png(figure)


def _choose_styles(entries: Entries) -> list[dict[str, Any]]:
    """Return a style per entry: a colour for each file, a line and a marker for each backend."""
    files, backends = (list(dict.fromkeys(entry[of] for entry in entries)) for of in ("file", "backend"))
    lines, markers = ("-", "--", ":", "-."), "os^D"
    styles = []
    for entry in entries:
        at = backends.index(entry["backend"]) % len(lines)
        colour = f"C{files.index(entry['file']) % 10}"
        styles.append({"color": colour, "linestyle": lines[at], "marker": markers[at], "markersize": 5})
    return styles


def _label_2_and_5(value: float, _position: int | None = None) -> str:
    """Label the ticks at 2 and 5 between powers of ten, and no other."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def plot_scaling(found: Mapping[str, Any]) -> bytes:
    """Draw the result of ``scaling`` as a PNG: against length, frame size, cores and recordings at once."""
    figure, ((time, memory), (size, rate)) = _open_figure(9, 6.5, 2, 2)
    from_zero = {"xlim": (0, None), "ylim": (0, None)}
    rows = found["length"]
    frames = [row["frames"] for row in rows]
    time.plot(frames, [row["core_s"] for row in rows], "o-", label="core time")
    time.plot(frames, [row["seconds"] for row in rows], "o--", label="wall time")
    time.set(xlabel="frames", ylabel="seconds", title="Time against length", **from_zero)
    time.legend(fontsize="small")
    memory.plot(frames, [row["peak_mb"] or np.nan for row in rows], "o-")
    memory.set(xlabel="frames", ylabel="MB", title="Peak memory against length", **from_zero)
    size.plot([row["side"] ** 2 / 1e6 for row in found["size"]],
              [1e3 * row["core_s"] / row["frames"] for row in found["size"]], "o-")  # fmt: skip
    size.set(xlabel="megapixels per frame", ylabel="core ms per frame", title="Frame size", **from_zero)
    for name, key, label in (("cores", "cores", "cores"), ("at_once", "recordings", "recordings at once")):
        counts, rates = ([row[of] for row in found[name]] for of in (key, "frames_per_s"))
        rate.plot(counts, rates, "o-", label=label)
    rate.set(xlabel="number", ylabel="frames per second", title="Cores, recordings at once", ylim=(0, None))
    rate.legend(fontsize="small")
    return _to_png(figure)


def plot_memory(trace: Sequence[tuple[float, float, float]], found: Mapping[str, Any]) -> bytes:
    """Draw the memory of a reading over time as a PNG, with a line at 250 MB.

    Args:
        trace: rows of seconds, MB in all, and MB without pages of libraries and files (``reading.trace_memory``).
        found: the result of ``reading``; ``frames`` and ``cores`` go into the title.
    """
    figure, axes = _open_figure(8, 4)
    seconds = [second for second, *_ in trace]
    axes.plot(seconds, [whole for _, whole, _ in trace], label="in all")
    axes.plot(seconds, [own for *_, own in trace], ":", color="C0",
              label="without pages of libraries and files")  # fmt: skip
    axes.axhline(250, color="grey", linewidth=0.8)
    axes.set(
        xlabel="seconds",
        ylabel="memory, MB",
        title=f"{found['frames']:,} frames read on {found['cores']} cores",
        xlim=(0, None),
        ylim=(0, None),
    )
    axes.legend(fontsize="small", loc="lower right")
    return _to_png(figure)


def _open_figure(width: float, height: float, *grid: int, **options: Any) -> Any:
    """Return a figure of that size in inches and its axes, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(*grid, figsize=(width, height), layout="constrained", **options)


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['file']} ({entry['backend']})"


def _to_png(figure: Any) -> bytes:
    from matplotlib import pyplot

    made = BytesIO()
    # Without matplotlib's version, so that equal figures give equal bytes.
    figure.savefig(made, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return made.getvalue()
