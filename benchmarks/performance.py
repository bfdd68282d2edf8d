"""The tables of committed results in README.md and docs/benchmarks.md: made of them, never by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .architectures import read_accuracy, render_architectures
from .documents import to_table, update_document
from .results import Result

__all__ = ["render_peers", "render_performance", "render_reach", "update_documents"]

# The columns of the README's table, by file.
_COLUMNS = {
    "capsule-edge.fp32.onnx": "standard FP32",
    "capsule-edge.int8.onnx": "standard INT8",
    "capsule-edge-small.fp32.onnx": "small FP32",
    "capsule-edge-small.int8.onnx": "small INT8",
}
_TWIN = {name: name.replace(".int8.", ".fp32.") for name in _COLUMNS if ".int8." in name}
_BIG = {precision: f"capsule-edge-224.{precision}.onnx" for precision in ("fp32", "int8")}
_OURS, _PLAIN = "capsule-edge, ", "cv2-onnxruntime"

Results = Mapping[str, Result]
Entry = Mapping[str, Any]


def update_documents(root: Path, results: Results, shipped: Mapping[str, str]) -> None:
    """Put the tables between their markers. Raises ``InputError`` where a document has none."""
    update_document(root / "README.md", render_performance(results, shipped), mark="performance")
    document = root / "docs/benchmarks.md"
    update_document(document, render_peers(results), mark="peers")
    update_document(document, render_reach(results), mark="reach")
    architectures = render_architectures(results.get("architectures"), read_accuracy(root))
    update_document(root / "docs/models.md", architectures, mark="architectures")


def find_stale(results: Results, shipped: Mapping[str, str]) -> list[str]:
    """The files that a result was measured with and that ship no more as they were; made ones do not ship."""
    return sorted(
        {
            path
            for result in results.values()
            for path, digest in result.models.items()
            if shipped.get(path) != digest
        }
    )


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
        mine, twin = (entries.get((one, "onnxruntime")) for one in (name, _TWIN.get(name, "")))
        return "" if mine is None or twin is None else _short(_core(mine) / _core(twin))

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
        ours = [rates.get((f"{_OURS}onnxruntime", name)) for name in wide]
        told = [f"{median(one):.0f}" if one else "" for one in ours]
        rows.append(["an examination read on two cores, frames a second", *told])
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
    stale = find_stale(results, shipped)
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


def render_peers(results: Results) -> str:
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
            gain = f"{_paired(row['frames_per_s'], plain):.2f}" if plain else ""
            core = "" if row["core_ms"] is None else f"{row['core_ms']:.2f}"
            share = "" if row["agreement"] is None else f"{row['agreement']:.1%}"
            rows.append([row["name"], row["file"], f"{median(row['frames_per_s']):.0f}", gain, core, share])
        head = [
            "reads",
            "with",
            "frames a second",
            "to the plain FP32 loop",
            "core ms a frame",
            "labels as ours",
        ]
        text = f"On {what} ({result.found['frames']:,} frames), {result.found['threads']} threads:\n\n"
        parts.append(text + to_table(head, rows, right=4) + "".join(f"\n\n{line}." for line in missing))
    return "\n\n".join(parts)


def render_reach(results: Results) -> str:
    """The figures aimed at, what was found and whether that reaches them; what is not measured has a dash.

    Where other programs ran too, the verdict says so, and ratios of one frame are of core time.
    """
    entries = _entries(results) if "models" in results else {}
    rates = _rates(results["peers-exam"]) if "peers-exam" in results else {}
    plain = rates.get((_PLAIN, _BIG["fp32"]))
    rows: list[list[str]] = []

    def judge(aim: str, found: float | None, limit: float, of: str, *, least: bool, unit: str = "") -> None:
        if found is None:
            rows.append([aim, "-", "not measured"])
            return
        verdict = "reached" if (found >= limit if least else found <= limit) else "**not reached**"
        disturbed = ", other programs ran" if results[of].was_disturbed else ""
        rows.append([aim, f"{found:.0f}{unit}" if unit else f"{found:.2f}", verdict + disturbed])

    ours = {key: rate for key, rate in rates.items() if key[0].startswith(_OURS) and key[1] in _BIG.values()}
    fastest = max(ours.values(), key=median, default=None)
    judge("the standard network at 224 px, fastest backend, to the plain FP32 loop, end to end: 3 or more",
          _paired(fastest, plain) if fastest and plain else None, 3, "peers-exam", least=True)  # fmt: skip
    mine, app = rates.get((f"{_OURS}openvino", _BIG["int8"])), rates.get(("benchmark_app", _BIG["int8"]))
    judge("INT8 at 224 px, OpenVINO, decoding included, to `benchmark_app`'s model alone: .75 or more",
          _paired(mine, app) if mine and app else None, 0.75, "peers-exam", least=True)  # fmt: skip
    scaling = results.get("scaling")
    whole = scaling.found["length"][-1]["seconds"] if scaling else None
    aim = "the whole examination with the small model, plain install: 30 s or less"
    judge(aim, whole, 30, "scaling", least=False, unit=" s")
    small = rates.get((f"{_OURS}onnxruntime", "capsule-edge-small.int8.onnx"))
    judge("the small model, onnxruntime, to the plain FP32 loop at 224 px: 10 or more",
          _paired(small, plain) if small and plain else None, 10, "peers-exam", least=True)  # fmt: skip
    for what, name, limit in (
        ("the standard network at 224 px", _BIG["int8"], 0.56),
        ("the standard model", "capsule-edge.int8.onnx", 0.6),
        ("the small model", "capsule-edge-small.int8.onnx", 0.5),
    ):
        pair = [entries.get((one, "onnxruntime")) for one in (name, name.replace(".int8.", ".fp32."))]
        settled = all(entry is not None and _one(entry)["steady"] for entry in pair)
        told = [_one(entry)["p50_ms" if settled else "core_ms"] for entry in pair if entry is not None]
        ratio = told[0] / told[1] if len(told) == 2 else None
        aim = f"INT8 to FP32, p50 in onnxruntime, {what}: {_short(limit)} or less"
        judge(aim, ratio, limit, "models", least=False)
    spread = max((_one(e)["p99_ms"] / _one(e)["p50_ms"] for e in entries.values()), default=None)
    aim = "p99 to p50, one thread, idle machine, the worst file and backend: 1.5 or less"
    if spread is not None and results["models"].was_disturbed:
        rows.append([aim, f"{spread:.1f}", "not judged, other programs ran"])
    else:
        judge(aim, spread, 1.5, "models", least=False)
    return to_table(["aim", "found", ""], rows, right=0)


def _entries(results: Results) -> dict[tuple[str, str], Entry]:
    return {(entry["file"], entry["backend"]): entry for entry in results["models"].found["entries"]}


def _one(entry: Entry) -> Mapping[str, Any]:
    """Its latency with one thread."""
    row: Mapping[str, Any] = next(row for row in entry["latency"] if row["threads"] == 1)
    return row


def _core(entry: Entry) -> float:
    return float(_one(entry)["core_ms"])


def _best(entry: Entry) -> float:
    """Frames a second of the largest batch and most streams."""
    return float(max(entry["throughput"], key=lambda row: (row["batch"], row["streams"]))["frames_per_s"])


def _rates(result: Result) -> dict[tuple[str, str], list[float]]:
    rows = result.found["rows"]
    return {(row["name"], row["file"]): row["frames_per_s"] for row in rows if row["frames_per_s"]}


def _paired(mine: Sequence[float], other: Sequence[float]) -> float:
    """Median ratio of the rounds, each of which both took part in."""
    return median(a / b for a, b in zip(mine, other, strict=True))


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
