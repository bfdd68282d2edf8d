"""Counts that do not depend on the machine's mood, held to those of the last change: fails where one grew.

    python .ci/check_counts.py [--write]

Operators in the graph that onnxruntime runs for each model that ships (more float convolutions or more quantising
between layers is how an INT8 model gets slow), bytes written for a fixed recording, and, where Valgrind and a C
compiler are installed, instructions and allocations for one frame with each INT8 model. Times are not looked at.
``--write`` takes the present counts as the new ones; do that with a new model, or with a
reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from capsule_edge.benchmarks.instructions import count_frame, find_lack
from capsule_edge.export.verify.graph_checks import count_operators
from capsule_edge.runtime import Reader, write_study
from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording
from capsule_edge.runtime.reader import default_model
from capsule_edge.runtime.results import prepare_folder
from capsule_edge.runtime.results.files import FILES

BASELINE = Path(__file__).with_name("counts.json")
FRAMES = 120
# Counts of operators are exact. Bytes move with the version of an encoder; instructions come out the same to .1 %,
# allocations the same or one more.
MOST_GROWTH = {"operators": 0.0, "bytes_written": 0.1, "instructions": 0.01, "allocations": 0.02}
# Valgrind's, which is not everywhere, and of one version of onnxruntime.
OF_A_FRAME = ("instructions", "allocations")
GROUPS = {
    "integer convolutions": ("QLinearConv", "ConvInteger"),
    "float convolutions": ("Conv", "FusedConv", "NhwcFusedConv"),
    "quantising and back": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}


def count(*, instructions: bool = True) -> dict[str, dict[str, float]]:
    """By kind, then by name; without ``instructions`` where they are not asked for or cannot be counted here."""
    operators = {}
    for path in sorted(default_model().parent.glob("*.onnx")):
        found = count_operators(path)
        for group, names in GROUPS.items():
            operators[f"{path.name}: {group}"] = sum(found.get(name, 0) for name in names)
        # FP32 graphs are laid out by the width of the processor's vectors; integer ones are not.
        if ".int8." in path.name:
            operators[f"{path.name}: all"] = sum(found.values())
    with tempfile.TemporaryDirectory() as folder:
        written = _write_study(Path(folder))
    counts = {"operators": operators, "bytes_written": written}
    if instructions and find_lack() is None:
        found = {path.name: count_frame(path) for path in sorted(default_model().parent.glob("*.int8.onnx"))}
        for kind in OF_A_FRAME:
            counts[kind] = {name: float(getattr(one, kind)) for name, one in found.items()}
    return counts


def models() -> dict[str, str]:
    """What the counts are of: the shipped files' SHA-256."""
    files = sorted(default_model().parent.glob("*.onnx"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_study(folder: Path) -> dict[str, float]:
    recording = folder / "phantom.mp4"
    write_recording(recording, Phantom(DEMO_SEED, frames=FRAMES))
    with Reader.open(threads=1) as reader:
        study = reader.read(recording)
    out = prepare_folder(folder / "out", overwrite=False)
    write_study(study, out, timing={}, colours=study.colours)
    return {name: float((out / name).stat().st_size) for name in sorted(FILES) if name != "timing.json"}


def judge(before: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What grew by more than is allowed, or is counted no more, in words."""
    faults = []
    for kind, counts in before.items():
        if kind in OF_A_FRAME and kind not in now:
            continue
        for name, was in counts.items():
            found = now.get(kind, {}).get(name)
            if found is None:
                faults.append(f"{name} is not counted any more")
            # Fewer integer convolutions are no gain: what they did is done in float.
            elif "integer" in name and found < was:
                faults.append(f"{name}: {found:g}, was {was:g}")
            elif "integer" not in name and found > was * (1 + MOST_GROWTH[kind]):
                faults.append(
                    f"{name}: {found:g}, was {was:g}, allowed is {100 * MOST_GROWTH[kind]:.0f} % more"
                )
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="take the present counts as the new ones")
    now = {"models": models(), "onnxruntime": onnxruntime.__version__, "counts": count()}
    if parser.parse_args().write:
        if "instructions" not in now["counts"]:
            raise SystemExit(f"error: instructions cannot be counted here: {find_lack()}")
        BASELINE.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
        print(f"wrote {BASELINE}")
        return
    before = json.loads(BASELINE.read_text("utf-8"))
    if before["models"] != now["models"]:
        raise SystemExit("error: the counts are of other models (python .ci/check_counts.py --write)")
    if "instructions" not in now["counts"]:
        print(f"instructions are not counted: {find_lack()}")
    elif before["onnxruntime"] != now["onnxruntime"]:
        print(f"instructions are not compared: they were of onnxruntime {before['onnxruntime']}")
        for kind in OF_A_FRAME:
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
