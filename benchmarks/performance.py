"""The tables of committed results in README.md and docs/benchmarks.md: made of them, never by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .architectures import read_accuracy, render_architectures
from .details import render_details
from .documents import to_table, update_document
from .peers import OURS
from .reference_exam import FRAMES
from .results import Result

__all__ = ["render_peers", "render_performance", "render_reach", "update_documents"]

# The columns of the README's table, by file.
_COLUMNS = {
    "capsule-edge.fp32.onnx": "standard FP32",
    "capsule-edge.int8.onnx": "standard INT8",
    "capsule-edge-small.fp32.onnx": "small FP32",
    "capsule-edge-small.int8.onnx": "small INT8",
}
_BIG = {precision: f"capsule-edge-224.{precision}.onnx" for precision in ("fp32", "int8")}
_PLAIN = "cv2-onnxruntime"

Results = Mapping[str, Result]
Entry = Mapping[str, Any]


def update_documents(root: Path, results: Results, shipped: Mapping[str, str]) -> None:
    """Put the tables between their markers. Raises ``InputError`` where a document has none."""
    update_document(root / "README.md", render_performance(results, shipped), mark="performance")
    document = root / "docs/benchmarks.md"
    update_document(document, render_peers(results, shipped), mark="peers")
    update_document(document, render_reach(results), mark="reach")
    update_document(document, render_details(results, shipped), mark="details")
    architectures = render_architectures(results.get("architectures"), read_accuracy(root))
    update_document(root / "docs/models.md", architectures, mark="architectures")


def render_performance(results: Results, shipped: Mapping[str, str]) -> str:
    """The README's table of the models that ship, with what it was measured on and whether that still ships."""
    if "models" not in results:
        return "Not measured yet: `python -m capsule_edge.benchmarks.all`."
    entries = _entries(results)
    wide = list(_COLUMNS)

    def cells(backend: str, tell: Callable[[Entry], str]) -> list[str]:
        found = [entries.get((name, backend)) for name in wide]
        return ["" if entry is None else tell(entry) for entry in found]

    def to_twin(name: str) -> str:
        row = _paired_row(entries, name)
        return "" if row is None else _short(row["core_ratio"])

    rows = [
        [
            "one frame, one thread, core time in onnxruntime, ms",
            *cells("onnxruntime", lambda e: f"{_core(e):.2f}"),
        ],
        ["in OpenVINO, ms", *cells("openvino", lambda e: f"{_core(e):.2f}")],
        ["INT8 to FP32, onnxruntime", *map(to_twin, wide)],
        ["frames a second, batches of 16 on two threads", *cells("onnxruntime", lambda e: f"{_best(e):.0f}")],
        [
            "process start to first answer, s",
            *cells("onnxruntime", lambda e: f"{e['startup']['cold_start_s']:.2f}"),
        ],
        ["memory, MB", *cells("onnxruntime", lambda e: f"{e['startup']['peak_mb'] or 0:.0f}")],
    ]
    peers = results.get("peers-exam")
    if peers is not None:
        rates = _rates(peers)
        plain = rates.get((_PLAIN, _BIG["fp32"]))
        ours = [rates.get((f"{OURS}onnxruntime", name)) for name in wide]
        told = [f"{median(one):.0f}" if one else "" for one in ours]
        rows.append(["an examination read on two cores, frames a second behind its start", *told])
        if plain:
            gain = [f"{_paired(one, plain):.1f}" if one else "" for one in ours]
            rows.append(["to a plain loop of cv2 and onnxruntime (MobileNetV2, 224 px, FP32)", *gain])
    table = to_table(["", *_COLUMNS.values()], rows, right=len(wide))
    return f"{table}\n\n{_sentences(results, shipped)}"


def _sentences(results: Results, shipped: Mapping[str, str]) -> str:
    model = results["models"]
    parts = []
    if "scaling" in results:
        found = results["scaling"].found
        whole, growth = found["length"][-1], found["growth"]
        memory = f", {whole['peak_mb']:.0f} MB" if whole["peak_mb"] else ""
        parts.append(
            f"{whole['frames']:,} frames with the small model on {whole['cores']} cores: {whole['seconds']:.0f} s"
            f"{memory}; core time grows with the length to the power of {growth['time_exponent']:.2f}."
        )
    stale = sorted({path for result in results.values() for path in result.replaced(shipped)})
    if stale:
        parts.append(
            f"**Measured with earlier files** of {', '.join(f'`{path}`' for path in stale)}: due to be measured again."
        )
    # What reads no file that ships has a table of its own.
    told = [one for one in results.values() if one.models]
    commits = sorted({one.commit for one in told})
    loads = [one.machine["load_1min"] for one in told if one.machine["load_1min"] is not None]
    load = f", load up to {max(loads):.1f}" if loads else ""
    if any(one.was_disturbed for one in told):
        parts.append(
            "**Other programs ran meanwhile**: core times, and what is made of them, are to be relied on; frames a"
            " second and seconds are worse than on an idle machine, and not alike for all."
        )
    parts.append(
        f"Measured {max(one.measured for one in told)[:10]} on {model.machine['cpu']['name']},"
        f" {model.machine['cores_allowed']} cores{load}, at {', '.join(f'`{commit}`' for commit in commits)} by"
        " `python -m capsule_edge.benchmarks.all`; [results](benchmarks/results), [how](docs/benchmarks.md)."
    )
    return "\n".join(parts)


def render_peers(results: Results, shipped: Mapping[str, str]) -> str:
    """Each way to read the two recordings: its speed to the plain loop, core time and labels."""
    named = {"peers-exam": "the reference examination", "peers-recording": "a real recording"}
    parts = []
    for name, what in named.items():
        if name not in results:
            parts.append(f"On {what}: not measured yet.")
            continue
        result = results[name]
        rates = _rates(result)
        plain = rates.get((_PLAIN, _BIG["fp32"]))
        rows, missing = [], []
        for row in result.found["rows"]:
            if row["reason"] is not None:
                missing.append(f"{row['name']} cannot run here: {row['reason']}")
                continue
            gain = f"{_paired(row['after_start'], plain):.2f}" if plain else ""
            start, core = ("" if row[of] is None else f"{row[of]:.2f}" for of in ("start_s", "core_ms"))
            share = "" if row["agreement"] is None else f"{row['agreement']:.1%}"
            speeds = [f"{median(row[of]):.0f}" for of in ("frames_per_s", "after_start")]
            rows.append([row["name"], row["file"], speeds[0], start, speeds[1], gain, core, share])
        head = [
            "reads",
            "with",
            "frames a second, in all",
            "start, s",
            "frames a second behind it",
            "to the plain FP32 loop",
            "core ms a frame",
            "labels as ours",
        ]
        earlier = ", **of earlier files**" if result.replaced(shipped) else ""
        disturbed = "; **other programs ran meanwhile**" * result.was_disturbed
        mood = f"{result.found['threads']} threads{earlier}{disturbed}"
        text = f"On {what} ({result.found['frames']:,} frames), {mood}:\n\n"
        parts.append(text + to_table(head, rows, right=6) + "".join(f"\n\n{line}." for line in missing))
    return "\n\n".join(parts)


def render_reach(results: Results) -> str:
    """The figures aimed at, what was found, whether that reaches them, and how far decoding and the model alone would
    let one come; what is not measured has a dash.

    Where other programs ran too, the verdict says so, and ratios of one frame are of core time.
    """
    entries = _entries(results) if "models" in results else {}
    rates = _rates(results["peers-exam"]) if "peers-exam" in results else {}
    bounds = _find_bounds(results)
    rows: list[list[str]] = []

    def judge(
        aim: str,
        found: float | None,
        limit: float,
        of: str,
        *,
        least: bool,
        told: str = "{:.2f}",
        bound: str = "",
    ) -> None:
        most = told.format(bounds[bound]) if bound in bounds else ""
        if found is None:
            rows.append([aim, "-", "not measured", most])
            return
        verdict = "reached" if (found >= limit if least else found <= limit) else "**not reached**"
        disturbed = ", other programs ran" if results[of].was_disturbed else ""
        rows.append([aim, told.format(found), verdict + disturbed, most])

    plain = rates.get((_PLAIN, _BIG["fp32"]))
    ours = {key: rate for key, rate in rates.items() if key[0].startswith(OURS) and key[1] in _BIG.values()}
    fastest = max(ours, key=lambda key: median(ours[key]), default=None)
    with_it = (
        f" (here {fastest[0].removeprefix(OURS)}, {fastest[1].split('.')[1].upper()})" if fastest else ""
    )
    judge(f"the standard network at 224 px, fastest backend{with_it}, to the plain FP32 loop, end to end: 3 or more",
          _paired(ours[fastest], plain) if fastest and plain else None, 3, "peers-exam", least=True,
          bound="to plain, 224")  # fmt: skip
    mine, app = rates.get((f"{OURS}openvino", _BIG["int8"])), rates.get(("benchmark_app", _BIG["int8"]))
    judge("INT8 at 224 px, OpenVINO, decoding included, to `benchmark_app`'s model alone: .75 or more",
          _paired(mine, app) if mine and app else None, 0.75, "peers-exam", least=True, bound="to app")  # fmt: skip
    scaling = results.get("scaling")
    whole = scaling.found["length"][-1]["seconds"] if scaling else None
    judge("the whole examination with the small model, plain install, files and report: 30 s or less",
          whole, 30, "scaling", least=False, told="{:.0f} s", bound="examination")  # fmt: skip
    small = rates.get((f"{OURS}onnxruntime", "capsule-edge-small.int8.onnx"))
    judge("the small model, onnxruntime, to the plain FP32 loop at 224 px: 10 or more",
          _paired(small, plain) if small and plain else None, 10, "peers-exam", least=True,
          bound="to plain, small")  # fmt: skip
    for what, name, limit in (
        ("the standard network at 224 px", _BIG["int8"], 0.56),
        ("the standard model", "capsule-edge.int8.onnx", 0.6),
        ("the small model", "capsule-edge-small.int8.onnx", 0.5),
    ):
        row = _paired_row(entries, name)
        ratio = None if row is None else row["ratio" if row["steady"] else "core_ratio"]
        judge(f"INT8 to FP32, p50 in onnxruntime, {what}: {_short(limit)} or less",
              ratio, limit, "models", least=False)  # fmt: skip
    spreads = {key: _one(entry)["p99_ms"] / _one(entry)["p50_ms"] for key, entry in entries.items()}
    for backends, what in (
        (("onnxruntime",), "onnxruntime"),
        (("openvino", "litert"), "OpenVINO and LiteRT"),
    ):
        worst = max((spread for key, spread in spreads.items() if key[1] in backends), default=None)
        aim = f"p99 to p50, one thread, idle machine, {what}, the worst file: 1.5 or less"
        if worst is not None and results["models"].was_disturbed:
            rows.append([aim, f"{worst:.2f}", "not judged, other programs ran", ""])
        else:
            judge(aim, worst, 1.5, "models", least=False)
    return to_table(["aim", "found", "", "decoding and model alone allow"], rows, right=0)


def _find_bounds(results: Results) -> dict[str, float]:
    """What there would be if all cores did nothing but decode and run the model, as fast as each goes by itself.

    Decoding and the small model are core time of ``stages-small``; the network at 224 pixels is ``benchmark_app``'s
    with INT8. Only the examination's is told where other programs ran: core time is not slowed by them as rates are.
    """
    if "stages-small" not in results:
        return {}
    each, cores = (results["stages-small"].found[name] for name in ("core_ms_per_frame", "cores"))
    decode_s, small_s = (1e-3 * each[name] / cores for name in ("decode", "infer"))
    bounds = {"examination": FRAMES * (decode_s + small_s)}
    peers = results.get("peers-exam")
    rates = {} if peers is None or peers.was_disturbed else _rates(peers)
    plain, app = rates.get((_PLAIN, _BIG["fp32"])), rates.get(("benchmark_app", _BIG["int8"]))
    if plain:
        bounds["to plain, small"] = 1 / median(plain) / (decode_s + small_s)
    if app:
        bounds["to app"] = 1 / median(app) / (decode_s + 1 / median(app))
    if plain and app:
        bounds["to plain, 224"] = 1 / median(plain) / (decode_s + 1 / median(app))
    return bounds


def _entries(results: Results) -> dict[tuple[str, str], Entry]:
    return {(entry["file"], entry["backend"]): entry for entry in results["models"].found["entries"]}


def _one(entry: Entry) -> Mapping[str, Any]:
    """Its latency with one thread."""
    row: Mapping[str, Any] = next(row for row in entry["latency"] if row["threads"] == 1)
    return row


def _paired_row(entries: Mapping[tuple[str, str], Entry], name: str) -> Mapping[str, Any] | None:
    """The latency of a file in onnxruntime, where that was measured in turns with its FP32 twin."""
    entry = entries.get((name, "onnxruntime"))
    row = None if entry is None else _one(entry)
    twin = {"file": name.replace(".int8.", ".fp32."), "backend": "onnxruntime"}
    return row if row is not None and ".int8." in name and row["reference"] == twin else None


def _core(entry: Entry) -> float:
    return float(_one(entry)["core_ms"])


def _best(entry: Entry) -> float:
    """Frames a second of the largest batch and most streams."""
    return float(max(entry["throughput"], key=lambda row: (row["batch"], row["streams"]))["frames_per_s"])


def _rates(result: Result) -> dict[tuple[str, str], list[float]]:
    """Frames a second behind the start, in each round: of a whole examination the start is nothing."""
    rows = result.found["rows"]
    return {(row["name"], row["file"]): row["after_start"] for row in rows if row["after_start"]}


def _paired(mine: Sequence[float], other: Sequence[float]) -> float:
    """Median ratio of the rounds, each of which both took part in."""
    return median(a / b for a, b in zip(mine, other, strict=True))


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
