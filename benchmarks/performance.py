"""Render the tables of README.md and docs/benchmarks.md from committed results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_AT_224 = {precision: f"capsule-edge-224.{precision}.onnx" for precision in ("fp32", "int8")}
# Name and file of the row that speeds are relative to.
_PLAIN_LOOP = ("cv2-onnxruntime", _AT_224["fp32"])
_MODEL_ALONE = ("benchmark_app", _AT_224["int8"])

Results = Mapping[str, Result]
Entry = Mapping[str, Any]
# Frames per second in each round, by name and file.
Rates = Mapping[tuple[str, str], Sequence[float]]


def update_documents(root: Path, results: Results, shipped: Mapping[str, str]) -> None:
    """Put the tables between the markers of README.md, docs/benchmarks.md and docs/models.md.

    Args:
        root: root of the repository.
        results: the committed results.
        shipped: SHA-256 of the present models by path (``results.hash_models``).

    Raises:
        InputError: a document lacks its markers.
        OutputError: a document cannot be written.
    """
    update_document(root / "README.md", render_performance(results, shipped), mark="performance")
    document = root / "docs/benchmarks.md"
    update_document(document, render_peers(results, shipped), mark="peers")
    update_document(document, render_reach(results), mark="reach")
    update_document(document, render_details(results, shipped), mark="details")
    architectures = render_architectures(results.get("architectures"), read_accuracy(root))
    update_document(root / "docs/models.md", architectures, mark="architectures")


def render_performance(results: Results, shipped: Mapping[str, str]) -> str:
    """Return the README's table of speed, with a line that says how it was measured. At most 12 lines in all.

    Args:
        results: the committed results.
        shipped: SHA-256 of the present models by path.
    """
    if "models" not in results:
        return "Not measured yet: `python -m capsule_edge.benchmarks.all`."
    entries = _entries(results)

    def cells(backend: str, text: Callable[[Entry], str]) -> list[str]:
        found = [entries.get((file, backend)) for file in _COLUMNS]
        return ["" if entry is None else text(entry) for entry in found]

    pairs = [_int8_row(entries, file) for file in _COLUMNS]
    rows = [
        [
            "one frame on one thread, onnxruntime: median core time, ms",
            *cells("onnxruntime", lambda entry: f"{_core_ms(entry):.2f}"),
        ],
        [
            "one frame on one thread, OpenVINO: median core time, ms",
            *cells("openvino", lambda entry: f"{_core_ms(entry):.2f}"),
        ],
        [
            "core time of INT8 relative to FP32 of the same network, both measured in turns (onnxruntime)",
            *("" if pair is None else _short(pair["core_ratio"]) for pair in pairs),
        ],
        [
            "batches of 16 frames on two threads: frames per second",
            *cells("onnxruntime", lambda entry: f"{_throughput(entry):.0f}"),
        ],
        [
            "from the start of a fresh process to its first answer: seconds",
            *cells("onnxruntime", lambda entry: f"{entry['startup']['cold_start_s']:.2f}"),
        ],
        [
            "peak memory of that process with batches of 16 frames: MB",
            *cells("onnxruntime", lambda entry: f"{entry['startup']['peak_mb'] or 0:.0f}"),
        ],
        *_examination_rows(results),
    ]
    table = to_table(["", *_COLUMNS.values()], rows, right=len(_COLUMNS))
    return f"{table}\n\n{' '.join(_sentences(results, shipped))}"


def _examination_rows(results: Results) -> Iterator[list[str]]:
    """Yield the README's rows about reading a whole examination."""
    if "peers-exam" not in results:
        return
    rates = _rates(results["peers-exam"])
    plain = rates.get(_PLAIN_LOOP)
    ours = [rates.get((f"{OURS}onnxruntime", file)) for file in _COLUMNS]
    speeds = [f"{median(one):.0f}" if one else "" for one in ours]
    yield ["reading an examination on two cores: frames per second, start-up excluded", *speeds]
    if plain:
        gains = [f"{_speedup(one, plain):.1f}" if one else "" for one in ours]
        yield [
            "that speed relative to a plain loop of OpenCV and onnxruntime (MobileNetV2, 224 px, FP32)",
            *gains,
        ]


def _sentences(results: Results, shipped: Mapping[str, str]) -> Iterator[str]:
    """Yield the sentences below the README's table."""
    if "scaling" in results:
        found = results["scaling"].found
        whole, growth = found["length"][-1], found["growth"]
        memory = f" and {whole['peak_mb']:.0f} MB" if whole["peak_mb"] else ""
        yield (
            f"The small INT8 model reads {whole['frames']:,} frames on {whole['cores']} cores in"
            f" {whole['seconds']:.0f} s{memory}; core time grows with the length to the power of"
            f" {growth['time_exponent']:.2f}."
        )
    stale = sorted({path for result in results.values() for path in result.replaced(shipped)})
    if stale:
        yield (
            f"**Measured with earlier files** of {', '.join(f'`{path}`' for path in stale)}: due to be measured again."
        )
    # The result that uses no shipped file has a table of its own, in docs/models.md.
    used = [result for result in results.values() if result.models]
    if any(result.was_disturbed for result in used):
        yield (
            "**Other programs ran meanwhile**: core times and ratios of core times are reliable. Frames per second and"
            " seconds are worse than on an idle machine, and not equally for all."
        )
    commits = ", ".join(f"`{commit}`" for commit in sorted({result.commit for result in used}))
    loads = [result.machine["load_1min"] for result in used if result.machine["load_1min"] is not None]
    load = f", load up to {max(loads):.1f}" if loads else ""
    machine = results["models"].machine
    yield (
        f"Measured {max(result.measured for result in used)[:10]} on {machine['cpu']['name']},"
        f" {machine['cores_allowed']} cores{load}, at {commits} by"
        " `python -m capsule_edge.benchmarks.all`; [results](benchmarks/results), [how](docs/benchmarks.md)."
    )


def render_peers(results: Results, shipped: Mapping[str, str]) -> str:
    """Return the tables of ``peers``: every program on the two recordings.

    Args:
        results: the committed results.
        shipped: SHA-256 of the present models by path.
    """
    recordings = {"peers-exam": "the reference examination", "peers-recording": "a real recording"}
    parts = []
    for name, recording in recordings.items():
        if name in results:
            parts.append(_render_recording(results[name], recording, shipped))
        else:
            parts.append(f"On {recording}: not measured yet.")
    return "\n\n".join(parts)


def _render_recording(result: Result, recording: str, shipped: Mapping[str, str]) -> str:
    plain = _rates(result).get(_PLAIN_LOOP)
    able = [row for row in result.found["rows"] if row["reason"] is None]
    unable = [row for row in result.found["rows"] if row["reason"] is not None]
    head = [
        "program",
        "model file",
        "frames per second, whole run",
        "fixed time of a run, s",
        "frames per second without the fixed time",
        "that speed relative to the plain FP32 loop",
        "core ms per frame",
        "frames with the same label as capsule-edge",
    ]
    earlier = ", **of earlier files**" if result.replaced(shipped) else ""
    disturbed = "; **other programs ran meanwhile**" * result.was_disturbed
    frames, threads = result.found["frames"], result.found["threads"]
    title = f"On {recording} ({frames:,} frames), {threads} threads{earlier}{disturbed}:"
    reasons = [f"{row['name']} cannot run here: {row['reason']}." for row in unable]
    table = to_table(head, [_peer_cells(row, plain) for row in able], right=6)
    return "\n\n".join([title, table, *reasons])


def _peer_cells(row: Mapping[str, Any], plain: Sequence[float] | None) -> list[str]:
    gain = f"{_speedup(row['after_start'], plain):.2f}" if plain else ""
    start, core = ("" if row[of] is None else f"{row[of]:.2f}" for of in ("start_s", "core_ms"))
    share = "" if row["agreement"] is None else f"{row['agreement']:.1%}"
    whole, after = (f"{median(row[of]):.0f}" for of in ("frames_per_s", "after_start"))
    name = row["name"].replace(", gated", ", near-duplicate filter")
    return [name, row["file"], whole, start, after, gain, core, share]


@dataclass(frozen=True)
class _Aim:
    """An aim: the figure found, the limit that it must keep, and the result that it is from.

    ``bound`` is the figure that decoding and the model alone would allow. ``judged`` is False if the figure means
    nothing because other programs ran.
    """

    text: str
    found: float | None
    limit: float
    source: str
    at_least: bool = False
    form: str = "{:.2f}"
    bound: float | None = None
    judged: bool = True

    def to_row(self, results: Results) -> list[str]:
        bound = "" if self.bound is None else self.form.format(self.bound)
        if self.found is None:
            return [self.text, "-", "not measured", bound]
        reached = self.found >= self.limit if self.at_least else self.found <= self.limit
        verdict = "reached" if reached else "**not reached**"
        if not self.judged:
            verdict = "not judged, other programs ran"
        elif results[self.source].was_disturbed:
            verdict += ", other programs ran"
        return [self.text, self.form.format(self.found), verdict, bound]


def render_reach(results: Results) -> str:
    """Return the table of aims: the figure found, the verdict, and what decoding and the model alone would allow.

    If other programs ran during a measurement, its verdict says so.
    """
    bounds = _find_bounds(results)
    aims = [*_speed_aims(results, bounds), *_ratio_aims(results), *_spread_aims(results)]
    head = ["aim", "found", "verdict", "if cores only decoded and ran the model"]
    return to_table(head, [aim.to_row(results) for aim in aims])


def _speed_aims(results: Results, bounds: Mapping[str, float]) -> Iterator[_Aim]:
    """Yield the aims of reading an examination."""
    rates = _rates(results["peers-exam"]) if "peers-exam" in results else {}
    plain, alone = rates.get(_PLAIN_LOOP), rates.get(_MODEL_ALONE)
    ours = [key for key in rates if key[0].startswith(OURS) and key[1] in _AT_224.values()]
    fastest = max(ours, key=lambda key: median(rates[key]), default=("", ""))
    which = f" (here {fastest[0].removeprefix(OURS)}, {fastest[1].split('.')[1].upper()})" if ours else ""
    yield _Aim(
        f"standard network at 224 px, fastest backend{which}: speed of reading relative to the plain FP32 loop, 3 or"
        " more",
        _optional_speedup(rates.get(fastest), plain), 3, "peers-exam", at_least=True, bound=bounds.get("plain, 224"),
    )  # fmt: skip
    yield _Aim(
        "standard network at 224 px, INT8, OpenVINO: speed of reading relative to the model alone (`benchmark_app`),"
        " .75 or more",
        _optional_speedup(rates.get((f"{OURS}openvino", _AT_224["int8"])), alone), 0.75, "peers-exam", at_least=True,
        bound=bounds.get("alone"),
    )  # fmt: skip
    scaling = results.get("scaling")
    yield _Aim(
        "small model, plain install: whole examination with files and report, 30 s or less",
        scaling.found["length"][-1]["seconds"] if scaling else None, 30, "scaling", form="{:.0f} s",
        bound=bounds.get("examination"),
    )  # fmt: skip
    yield _Aim(
        "small model, onnxruntime: speed of reading relative to the plain FP32 loop at 224 px, 10 or more",
        _optional_speedup(rates.get((f"{OURS}onnxruntime", "capsule-edge-small.int8.onnx")), plain), 10, "peers-exam",
        at_least=True, bound=bounds.get("plain, small"),
    )  # fmt: skip


def _ratio_aims(results: Results) -> Iterator[_Aim]:
    """Yield the aims of INT8 relative to FP32. If the times never became steady, core time counts."""
    entries = _entries(results)
    for network, file, limit in (
        ("standard network at 224 px", _AT_224["int8"], 0.56),
        ("standard model", "capsule-edge.int8.onnx", 0.6),
        ("small model", "capsule-edge-small.int8.onnx", 0.5),
    ):
        row = _int8_row(entries, file)
        ratio = None if row is None else row["ratio" if row["steady"] else "core_ratio"]
        text = f"{network}, onnxruntime: median latency of INT8 relative to FP32, {_short(limit)} or less"
        yield _Aim(text, ratio, limit, "models")


def _spread_aims(results: Results) -> Iterator[_Aim]:
    """Yield the aims of the spread of latency; it is not judged if other programs ran."""
    entries = _entries(results)
    spreads = {key: _latency(entry)["p99_ms"] / _latency(entry)["p50_ms"] for key, entry in entries.items()}
    judged = "models" not in results or not results["models"].was_disturbed
    for backends, name in (
        (("onnxruntime",), "onnxruntime"),
        (("openvino", "litert"), "OpenVINO and LiteRT"),
    ):
        worst = max((spread for key, spread in spreads.items() if key[1] in backends), default=None)
        text = f"{name}, one thread, idle machine: p99 relative to p50 of the worst file, 1.5 or less"
        yield _Aim(text, worst, 1.5, "models", judged=judged)


def _find_bounds(results: Results) -> dict[str, float]:
    """Compute the figures that would be found if all cores only decoded and ran the model, at the speed of each alone.

    Decoding and the small model are core times of ``stages-small``. The network at 224 pixels is ``benchmark_app`` with
    INT8. If other programs ran during ``peers``, only the examination's time is computed, because core time is not
    slowed by them as frames per second are.
    """
    if "stages-small" not in results:
        return {}
    each, cores = (results["stages-small"].found[name] for name in ("core_ms_per_frame", "cores"))
    decode_s, small_s = (1e-3 * each[name] / cores for name in ("decode", "infer"))
    bounds = {"examination": FRAMES * (decode_s + small_s)}
    peers = results.get("peers-exam")
    rates = {} if peers is None or peers.was_disturbed else _rates(peers)
    plain, alone = rates.get(_PLAIN_LOOP), rates.get(_MODEL_ALONE)
    if plain:
        bounds["plain, small"] = 1 / median(plain) / (decode_s + small_s)
    if alone:
        bounds["alone"] = 1 / median(alone) / (decode_s + 1 / median(alone))
    if plain and alone:
        bounds["plain, 224"] = 1 / median(plain) / (decode_s + 1 / median(alone))
    return bounds


def _entries(results: Results) -> dict[tuple[str, str], Entry]:
    """Return the entries of ``bench`` by file and backend; none if they are not measured."""
    if "models" not in results:
        return {}
    return {(entry["file"], entry["backend"]): entry for entry in results["models"].found["entries"]}


def _latency(entry: Entry) -> Mapping[str, Any]:
    """Return the latency of an entry with one thread."""
    row: Mapping[str, Any] = next(row for row in entry["latency"] if row["threads"] == 1)
    return row


def _int8_row(entries: Mapping[tuple[str, str], Entry], file: str) -> Mapping[str, Any] | None:
    """Return the latency of an INT8 file in onnxruntime if it was measured in turns with its FP32 twin."""
    entry = entries.get((file, "onnxruntime"))
    row = None if entry is None else _latency(entry)
    twin = {"file": file.replace(".int8.", ".fp32."), "backend": "onnxruntime"}
    return row if row is not None and ".int8." in file and row["reference"] == twin else None


def _core_ms(entry: Entry) -> float:
    return float(_latency(entry)["core_ms"])


def _throughput(entry: Entry) -> float:
    """Return frames per second with the largest batch and the most streams."""
    return float(max(entry["throughput"], key=lambda row: (row["batch"], row["streams"]))["frames_per_s"])


def _rates(result: Result) -> dict[tuple[str, str], list[float]]:
    """Return frames per second without the fixed time of a run, which is nothing of a whole examination."""
    rows = result.found["rows"]
    return {(row["name"], row["file"]): row["after_start"] for row in rows if row["after_start"]}


def _speedup(mine: Sequence[float], other: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio within a round."""
    return median(a / b for a, b in zip(mine, other, strict=True))


def _optional_speedup(mine: Sequence[float] | None, other: Sequence[float] | None) -> float | None:
    return _speedup(mine, other) if mine and other else None


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
