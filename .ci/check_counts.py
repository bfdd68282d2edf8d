"""Compare counts that do not depend on the load of the machine with those of the last change; fail if one grew.

    python .ci/check_counts.py [--write]

Three things are counted. Operators in the graph that onnxruntime runs for each model that ships: more float
convolutions, or more quantising between layers, make an INT8 model slow. Bytes written for a fixed recording. And, if
Valgrind and a C compiler are installed, instructions and allocations for one frame with each INT8 model. Times are not
judged. ``--write`` makes the present counts the new baseline; use it after a change of a model, or with a reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from capsule_edge.benchmarks.instructions import count_frame, find_missing_tool
from capsule_edge.export.verify.graph_checks import count_operators
from capsule_edge.runtime import Reader, write_study
from capsule_edge.runtime.inference import default_model
from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording
from capsule_edge.runtime.results import prepare_folder

BASELINE = Path(__file__).with_name("counts.json")
FRAMES = 120
# Allowed growth, relative. Counts of operators are exact. Bytes change with the version of an encoder, instructions by
# .1 % from run to run, allocations by one.
MOST_GROWTH = {"operators": 0.0, "bytes_written": 0.1, "instructions": 0.01, "allocations": 0.02}
# Counted by Valgrind, which is not installed everywhere; they hold for one version of onnxruntime.
PER_FRAME = ("instructions", "allocations")
GROUPS = {
    "integer convolutions": ("QLinearConv", "ConvInteger"),
    "float convolutions": ("Conv", "FusedConv", "NhwcFusedConv"),
    "quantising and back": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}


def count(*, instructions: bool = True) -> dict[str, dict[str, float]]:
    """Return the counts by kind, then by name.

    Args:
        instructions: whether to count instructions and allocations too, if Valgrind is installed.
    """
    operators = {}
    for path in sorted(default_model().parent.glob("*.onnx")):
        found = count_operators(path)
        for group, names in GROUPS.items():
            operators[f"{path.name}: {group}"] = sum(found.get(name, 0) for name in names)
        # onnxruntime lays FP32 graphs out by the width of the processor's vectors, so their total varies.
        if ".int8." in path.name:
            operators[f"{path.name}: all"] = sum(found.values())
    with tempfile.TemporaryDirectory() as folder:
        written = _write_study(Path(folder))
    counts = {"operators": operators, "bytes_written": written}
    if instructions and find_missing_tool() is None:
        found = {path.name: count_frame(path) for path in sorted(default_model().parent.glob("*.int8.onnx"))}
        for kind in PER_FRAME:
            counts[kind] = {name: float(getattr(one, kind)) for name, one in found.items()}
    return counts


def models() -> dict[str, str]:
    """Return SHA-256 of the counted models by file name."""
    files = sorted(default_model().parent.glob("*.onnx"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_study(folder: Path) -> dict[str, float]:
    """Read a rendered recording, write its study, and return the size of each file."""
    recording = folder / "phantom.mp4"
    write_recording(recording, Phantom(DEMO_SEED, frames=FRAMES))
    with Reader.open(threads=1) as reader:
        study = reader.read(recording)
    out = prepare_folder(folder / "out", overwrite=False)
    written = write_study(study, out, timing={}, colours=study.colours)
    return {name: float(written[name].stat().st_size) for name in sorted(written) if name != "timing.json"}


def judge(before: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a sentence for each count that grew by more than is allowed, or that is missing."""
    faults = []
    for kind, counts in before.items():
        if kind in PER_FRAME and kind not in now:
            continue
        for name, was in counts.items():
            found = now.get(kind, {}).get(name)
            if found is None:
                faults.append(f"{name} is not counted any more")
            # Fewer integer convolutions are a fault: float convolutions then do their work.
            elif "integer" in name and found < was:
                faults.append(f"{name}: {found:g}, was {was:g}")
            elif "integer" not in name and found > was * (1 + MOST_GROWTH[kind]):
                faults.append(
                    f"{name}: {found:g}, was {was:g}, allowed is {100 * MOST_GROWTH[kind]:.0f} % more"
                )
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="make the present counts the new baseline")
    now = {"models": models(), "onnxruntime": onnxruntime.__version__, "counts": count()}
    if parser.parse_args().write:
        if "instructions" not in now["counts"]:
            raise SystemExit(f"error: instructions cannot be counted here: {find_missing_tool()}")
        BASELINE.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
        print(f"wrote {BASELINE}")
        return
    before = json.loads(BASELINE.read_text("utf-8"))
    if before["models"] != now["models"]:
        raise SystemExit("error: the baseline is of other models (python .ci/check_counts.py --write)")
    if "instructions" not in now["counts"]:
        print(f"instructions are not counted: {find_missing_tool()}")
    elif before["onnxruntime"] != now["onnxruntime"]:
        print(f"instructions are not compared: the baseline is of onnxruntime {before['onnxruntime']}")
        for kind in PER_FRAME:
            del now["counts"][kind]
    for kind, counts in now["counts"].items():
        for name, value in counts.items():
            was = before["counts"].get(kind, {}).get(name)
            print(f"{kind.replace('_', ' ')}, {name}: {value:g}, was {was}")
    faults = judge(before["counts"], now["counts"])
    if faults:
        raise SystemExit("error: " + "; ".join(faults))


if __name__ == "__main__":
    main()
