"""Measure the latency of each architecture at each input size, for the table of ``docs/models.md``.

    python -m capsule_edge.benchmarks.architectures [ARCHITECTURE:SIZE]... [--work DIR] [--rounds 120]

The command writes untrained model files (``capsule_edge.export.tools.untrained``, needs the extra ``train``) and
measures one frame on one thread. FP32 and INT8 in onnxruntime and INT8 in OpenVINO take turns, network after network,
in several passes, so that other work on the machine slows all networks alike. The last line of output is JSON. The
accuracies of the table are those of trained models (``read_accuracy``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import BACKENDS, open_model

from .documents import to_table
from .latency import measure_both, summarise
from .machine import describe_machine
from .results import Result

__all__ = [
    "NETWORKS",
    "Accuracy",
    "read_accuracy",
    "read_certified",
    "render_architectures",
    "time_networks",
]

NETWORKS = (
    "efficientnet_lite2:256", "efficientnet_lite0:224", "efficientnet_lite0:160", "mobilenet_v2:224",
    "mobilenet_v2:192", "mobilenet_v2:176", "mobilenet_v2:160", "mobilenet_v2_050:160", "mobilenet_v2_035:128",
    "rep_cnn:160", "rep_cnn:128", "plain_cnn:160", "plain_cnn:128",
)  # fmt: skip
# The network of a recipe that names neither architecture nor size.
RECIPE = {"architecture": "mobilenet_v2", "size": 160}
_PASSES = 4
_FIGURES = ("macro_f1", "mean_auc")
_HOW = "python -m capsule_edge.benchmarks.all --only architectures"
# Precision and engine. Ratios are relative to the first.
_VARIANTS = (("fp32", "onnxruntime"), ("int8", "onnxruntime"), ("int8", "openvino"))

Key = tuple[str, int]
Pair = tuple[float, float]
Figures = dict[str, Any]


@dataclass
class Accuracy:
    """The known accuracy of a network.

    Attributes:
        out_of_fold: macro-F1 and mean AUC of cross-validation.
        fits: number of trained models behind ``out_of_fold``.
        val: macro-F1 and mean AUC on ``val`` of the INT8 file that ships.
    """

    out_of_fold: Pair | None = None
    fits: int = 0
    val: Pair | None = None


def make_networks(networks: Sequence[str], folder: Path) -> list[Figures]:
    """Write untrained model files in a separate process, because TensorFlow's threads would disturb the measurement.

    Args:
        networks: names as ``ARCHITECTURE:SIZE``.
        folder: folder to write into.

    Returns:
        For each network ``architecture``, ``size``, ``parameters``, and the file names ``fp32`` and ``int8``.

    Raises:
        InputError: the process failed; its last line says why.
    """
    words = [sys.executable, "-m", "capsule_edge.export.tools.untrained", str(folder), *networks]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise InputError("the untrained models could not be made", hint="the line before this one says why")
    made: list[Figures] = json.loads(done.stdout.splitlines()[-1])["networks"]
    return made


def time_networks(networks: Sequence[Figures], folder: Path, *, rounds: int) -> list[Figures]:
    """Measure the files of ``make_networks``. Engines that are not installed are left out.

    Args:
        networks: entries of ``make_networks``.
        folder: folder of the files.
        rounds: calls of each file in all passes together.

    Returns:
        The entries with ``fp32_bytes``, ``int8_bytes`` and, under ``PRECISION_ENGINE``, ``p50_ms``, ``p50_95_ms``,
        ``p99_ms``, ``core_ms``, and ``ratio`` and ``ratio_95`` relative to FP32 in onnxruntime.
    """
    variants = [variant for variant in _VARIANTS if BACKENDS[variant[1]].installed]
    opened = [
        [open_model(folder / network[precision], backend=engine, threads=1) for precision, engine in variants]
        for network in networks
    ]
    passes = min(_PASSES, rounds)
    measured: list[list[Any]] = [[] for _ in networks]
    for seed in range(passes):
        for backends, times in zip(opened, measured, strict=True):
            times.append(measure_both(backends, rounds=rounds // passes, seed=seed))
    return [
        {
            **{key: network[key] for key in ("architecture", "size", "parameters")},
            **{f"{one}_bytes": (folder / network[one]).stat().st_size for one in ("fp32", "int8")},
            **_summarise_passes(variants, times),
        }
        for network, times in zip(networks, measured, strict=True)
    ]


def _summarise_passes(variants: Sequence[tuple[str, str]], passes: Sequence[Any]) -> Figures:
    """Return the figures by ``PRECISION_ENGINE`` of wall and core times, (rounds, variants) each, of every pass."""
    wall, core = (np.concatenate([one[kind] for one in passes]) for kind in (0, 1))
    return {
        f"{precision}_{engine}": {
            **{name: row[name] for name in ("p50_ms", "p50_95_ms", "p99_ms", "ratio", "ratio_95")},
            "core_ms": round(float(np.median(core[:, index])) * 1000, 3),
        }
        for index, ((precision, engine), row) in enumerate(zip(variants, summarise(wall), strict=True))
    }


def read_certified(root: Path) -> dict[str, Pair]:
    """Read macro-F1 and mean AUC from the certificates in ``models/certificates``.

    Args:
        root: root of the repository.

    Returns:
        Macro-F1 and mean AUC by the SHA-256 of the certified model.

    Raises:
        InputError: a file is not a certificate.
    """
    found = {}
    for path in sorted((root / "models/certificates").glob("*.shipping.json")):
        try:
            document = json.loads(path.read_text("utf-8"))
            for side in ("a", "b"):
                f1, auc = (float(document[name][side]) for name in _FIGURES)
                found[document["models"][side]["sha256"]] = f1, auc
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no certificate: {error}") from None
    return found


def read_accuracy(root: Path) -> dict[Key, Accuracy]:
    """Read the accuracy of trained networks.

    The out-of-fold figures come from the journal of ``train.gpu.cross_validation``. The recipe with the most fits
    counts, and of several the best. Fits that were run one by one are averaged. A line's fits are its ``parts``
    except the one on all of ``train``; older lines have no ``parts`` and one curve per fold. The figures on ``val``
    come from the certificates of the INT8 files that ship.

    Args:
        root: root of the repository.

    Returns:
        The accuracy by architecture and input size.

    Raises:
        InputError: the journal or a certificate cannot be read.
    """
    answer: dict[Key, Accuracy] = {}
    for key, fits, figures in _read_recipes(root / "models/training/folds.jsonl"):
        one = answer.setdefault(key, Accuracy())
        if one.out_of_fold is None or (fits, figures) > (one.fits, one.out_of_fold):
            one.out_of_fold, one.fits = figures, fits
    certified = read_certified(root)
    for path in (root / "runtime/models").glob("*.int8.onnx"):
        model = open_model(path, threads=1)
        training = model.spec.provenance.get("training", {})
        if model.sha256 in certified and "architecture" in training:
            key = training["architecture"], model.spec.input.size
            answer.setdefault(key, Accuracy()).val = certified[model.sha256]
    return answer


def _read_recipes(journal: Path) -> list[tuple[Key, int, Pair]]:
    """Return for each recipe its network, the number of scored fits, and macro-F1 with mean AUC."""
    recipes: dict[str, list[Figures]] = {}
    try:
        for line in map(json.loads, journal.read_text("utf-8").splitlines()):
            # A fit on all videos has no score.
            if "macro_f1" in line:
                recipes.setdefault(json.dumps([line["name"], line["config"]]), []).append(line)
        answer = []
        for entries in recipes.values():
            config = RECIPE | entries[0]["config"]
            counts = [
                len(set(entry.get("parts", range(len(entry["curves"])))) - {"all"}) for entry in entries
            ]
            f1, auc = (
                float(np.average([entry[name] for entry in entries], weights=counts)) for name in _FIGURES
            )
            answer.append(((config["architecture"], config["size"]), sum(counts), (f1, auc)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{journal} is no journal of folds: {error}") from None
    return answer


def render_architectures(result: Result | None, accuracy: Mapping[Key, Accuracy]) -> str:
    """Return the Markdown table of ``docs/models.md``: one row per network, slowest first.

    Cells of accuracy are empty for a network that was never trained.

    Args:
        result: committed result of this benchmark, or None.
        accuracy: from ``read_accuracy``.
    """
    if result is None:
        return f"Not measured yet: `{_HOW}`."
    rows = []
    for network in sorted(result.found["networks"], key=lambda one: -one["int8_onnxruntime"]["p50_ms"]):
        known = accuracy.get((network["architecture"], network["size"]), Accuracy())
        fp32, int8 = network["fp32_onnxruntime"], network["int8_onnxruntime"]
        openvino = network.get("int8_openvino")
        rows.append(
            [
                f"{network['architecture']}, {network['size']}",
                f"{network['parameters'] / 1e6:.2f}",
                f"{network['fp32_bytes'] / 1e6:.1f}",
                f"{network['int8_bytes'] / 1e6:.1f}",
                f"{fp32['p50_ms']:.2f}",
                f"{int8['p50_ms']:.2f}",
                _short(int8["ratio"], 2),
                "" if openvino is None else f"{openvino['p50_ms']:.2f}",
                *_pair(known.out_of_fold),
                str(known.fits or ""),
                *_pair(known.val),
            ]
        )
    head = (
        "network, size", "parameters, M", "FP32, MB", "INT8, MB", "FP32 p50, ms", "INT8 p50, ms", "INT8 to FP32",
        "INT8 in OpenVINO, ms", "macro-F1 out of fold", "mean AUC", "fits", "macro-F1 on `val`", "mean AUC",
    )  # fmt: skip
    machine = result.machine
    note = (
        f"One thread, one frame; measured {result.measured[:10]} on {machine['cpu']['name']}, onnxruntime"
        f" {machine['versions']['onnxruntime']}, at `{result.commit}` by `{_HOW}`."
    ) + " **Other programs ran meanwhile.**" * result.was_disturbed
    return f"{to_table(head, rows, right=len(head) - 1)}\n\n{note}"


def _pair(figures: Pair | None) -> list[str]:
    return ["", ""] if figures is None else [_short(one, 3) for one in figures]


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.architectures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="ARCHITECTURE:SIZE",
        default=list(NETWORKS),
        help="networks to measure (default: those of the table)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("out/benchmarks/architectures"),
        help="folder for the files (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=120, help="calls of each file (default: %(default)s)")
    options = parser.parse_args(arguments)
    made = make_networks(options.networks, options.work)
    document = {
        "benchmark": "architectures",
        "rounds": options.rounds,
        "machine": describe_machine(),
        "networks": time_networks(made, options.work, rounds=options.rounds),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
