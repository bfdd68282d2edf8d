"""Render the sections of ``docs/benchmarks.md`` that show each committed result in full."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .documents import to_table
from .mlperf import FIGURES
from .results import Result
from .tables import figure_tables, machine_line

__all__ = ["render_details"]

Found = Mapping[str, Any]

_LATENCY_NOTE = (
    "Latency of one frame: percentiles of wall time, and the median of core time. `ratio` and `core ratio` are relative"
    " to the entry in the last column. `~` marks times that never became steady."
)
_STAGES = {
    "sum": "sum of these stages",
    "whole": "the whole pipeline",
    "gate": "not in the sum: near-duplicate filter (off by default)",
    "events": "not in the sum: finding events",
    "write": "not in the sum: writing files and report",
}


def render_details(results: Mapping[str, Result], shipped: Mapping[str, str]) -> str:
    """Return the machines, and a section for each benchmark with its command, date, commit, load and figures.

    Args:
        results: the committed results.
        shipped: SHA-256 of the present models by path; a result of other files says so.
    """
    cards = [{**one.machine, "load_1min": "as said below"} for one in results.values()]
    parts = ["  \n".join(dict.fromkeys(machine_line({"machine": card}) for card in cards))]
    for name, (title, render) in _SECTIONS.items():
        if name not in results:
            parts.append(f"### {title}\n\nNot measured yet.")
            continue
        result = results[name]
        parts.append(f"### {title}\n\n{_describe(result, shipped)}\n\n{render(result.found)}")
    return "\n\n".join(parts)


def _describe(result: Result, shipped: Mapping[str, str]) -> str:
    card = result.machine
    loads = [f"{load:.1f}" for load in (card["load_1min"], result.load_after) if load is not None]
    load = f"load {' to '.join(loads)}, " if loads else ""
    disturbed = ", **other programs ran meanwhile**" if result.was_disturbed else ""
    earlier = ", **of earlier files**" if result.replaced(shipped) else ""
    when = f"{result.measured[:10]} at `{result.commit}`"
    return f"`{result.command}`, {when}, {load}{result.seconds:.0f} s{earlier}{disturbed}."


def _render_models(found: Found) -> str:
    return "\n\n".join([_LATENCY_NOTE, *figure_tables(found)])


def _render_stages(found: Found) -> str:
    each, beside = found["core_ms_per_frame"], found["beside_ms_per_frame"]
    rows = [
        *([name, f"{value:.3f}"] for name, value in each.items()),
        [_STAGES["sum"], f"{found['sum_of_stages_ms']:.3f}"],
        [_STAGES["whole"], f"{found['whole_ms']:.3f}"],
        *([_STAGES[name], f"{value:.4f}"] for name, value in beside.items()),
    ]
    summary = (
        f"`{found['model']}`, {found['cores']} cores: {found['frames_per_s']:,.0f} frames per second. Cores that"
        f" never wait would read {found['allowed_frames_per_s']:,.0f}; the pipeline reaches"
        f" {found['reached']:.2f} of that. On average {found['cores_used']:.2f} cores were at work; the pipeline"
        f" reaches {found['reached_of_cores_given']:.2f} of what these could read."
    )
    return f"{summary}\n\n{to_table(['stage', 'core ms per frame'], rows, right=1)}"


def _render_scaling(found: Found) -> str:
    def row(name: str, one: Found) -> list[str]:
        memory = "" if one["peak_mb"] is None else f"{one['peak_mb']:.0f}"
        core = 1e3 * one["core_s"] / one["frames"]
        return [
            name,
            f"{one['frames']:,}",
            f"{one['seconds']:.1f}",
            f"{core:.2f}",
            f"{one['frames_per_s']:.0f}",
            memory,
        ]

    rows = [
        *(row(f"{one['times']}/{found['length'][-1]['times']} of the examination", one) for one in found["length"]),
        *(row(f"frames of {one['side']} x {one['side']}", one) for one in found["size"]),
        *(row(f"{one['cores']} core{'s' * (one['cores'] > 1)}", one) for one in found["cores"]),
        *(row(f"{one['recordings']} at once", one) for one in found["at_once"]),
    ]  # fmt: skip
    head = ["reading", "frames", "wall time, s", "core ms per frame", "frames per second", "peak memory, MB"]
    growth = found["growth"]
    memory = growth["bytes_per_frame"]
    summary = f"Core time grows with the length to the power of {growth['time_exponent']:.2f}"
    summary += "." if memory is None else f", peak memory by {memory:,.0f} bytes per frame."
    return f"{summary}\n\n{to_table(head, rows, right=5)}"


def _render_mlperf(found: Found) -> str:
    rows = []
    for one in found["results"]:
        name = FIGURES[one["scenario"]]
        value = float(one["summary"][name])
        text = f"{value / 1e6:.3f} ms" if name.endswith("(ns)") else f"{value:.0f}"
        valid = "yes" if one["valid"] else "no"
        rows.append([one["scenario"], name.removesuffix(" (ns)"), text, valid, f"{one['accuracy']:.4f}",
                     f"{one['macro_f1']:.4f}"])  # fmt: skip
    head = [
        "scenario",
        "figure of the scenario",
        "found",
        "valid according to loadgen",
        "accuracy",
        "macro-F1",
    ]
    about = (
        f"`{found['model']}` in {found['backend']}, {found['threads']} threads, {found['seconds']:.0f} s each"
    )
    return f"{about}:\n\n{to_table(head, rows)}"


def _render_instructions(found: Found) -> str:
    rows = [
        [
            one["file"],
            f"{min(one['instructions']) / 1e6:.3f}",
            f"{one['spread']:.3%}",
            str(min(one["allocations"])),
        ]
        for one in found["models"]
    ]
    return to_table(
        ["file", "instructions per frame, millions", "difference of two counts", "allocations per frame"],
        rows,
        right=3,
    )


_SECTIONS: Mapping[str, tuple[str, Callable[[Found], str]]] = {
    "models": ("Latency, throughput, start and memory of each file", _render_models),
    "stages": ("Stages of reading, standard model", _render_stages),
    "stages-small": ("Stages of reading, small model", _render_stages),
    "mlperf": ("MLPerf's scenarios", _render_mlperf),
    "scaling": ("How reading scales", _render_scaling),
    "instructions": ("Instructions and allocations of one frame", _render_instructions),
}
