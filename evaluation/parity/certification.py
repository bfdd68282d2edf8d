"""Compare the answers of model B with those of model A: the figures and gates of a parity certificate.

There are two kinds. A *shipping* certificate compares an FP32 model (A) with the INT8 model (B) that replaces it. A
*conversion* certificate compares a table of the training framework's answers (A) with the exported file (B) that must
give the same answers.

Every difference is B - A. Every interval is a paired bootstrap over videos: both models are measured on the same
resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec

from .._extras import require
from ..classification import (
    LEVEL,
    Predictions,
    Resamples,
    defined,
    ece,
    exact_mcnemar,
    interval,
    mean_defined,
    one_vs_rest_auc,
    rates,
    resample_videos,
    resampled_figures,
    why_no_intervals,
)
from ..datasets import training_overlap

__all__ = ["SCHEMA", "Kind", "certify", "parity_summary", "with_sha256"]

SCHEMA = "capsule-edge/certificate/1"
Kind = Literal["shipping", "conversion"]
Verdict = Literal["pass", "fail", "undecided"]

MIN_AGREEMENT: Mapping[Kind, float] = {"shipping": 0.99, "conversion": 0.999}
MAX_MACRO_F1_LOSS = 0.005
MAX_SENSITIVITY_LOSS = 0.01
MIN_FRAMES, MIN_VIDEOS = 100, 3
# Edges of the histogram of |dp|: from the last bit of a float32 to the opposite answer.
_DP_EDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
_WORST = 5

PredictionPair = tuple[Predictions, Predictions]


def certify(
    a: Predictions,
    b: Predictions,
    *,
    kind: Kind,
    models: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Any],
    specs: Sequence[ModelSpec] = (),
    events: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Certify the answers of model B against those of model A.

    Gates of a shipping certificate:

    - The two give the same label to at least 99 % of the frames.
    - The macro-F1 falls by at most .005.
    - The sensitivity of each class falls by at most 1 point. The 95 % interval of the loss decides: wholly
      within the limit is ``pass``, wholly beyond it ``fail``, otherwise ``undecided``. A class with fewer than 100
      frames or 3 videos is undecided.

    The only gate of a conversion certificate: the same label on at least 99.9 % of the frames.

    Args:
        a: The answers of model A.
        b: The answers of model B, on the same frames in any order.
        kind: ``shipping`` or ``conversion``.
        models: ``a`` and ``b``, each with ``file, name, version, precision, sha256, backend``.
        data: ``name, sha256, split`` of the data set.
        specs: The models' specs, which record their training videos.
        events: What ``event_agreement`` returned for recordings; None without recordings.
        resamples: The number of bootstrap resamples.
        seed: The seed of the bootstrap.

    Returns:
        A JSON-ready document of ``schema/certificate.schema.json``.

    Raises:
        InputError: The two answer for different frames, labels or videos, or there are no frames.
        PackageError: scikit-learn is not installed.
    """
    require("sklearn")
    pair = a, b = _aligned(a, b)
    dp = np.abs(a.probabilities.astype(np.float64) - b.probabilities)
    drawn = resample_videos(a.video_ids, resamples=resamples, seed=seed)
    change = _resampled_change(pair, drawn) if drawn else {}
    figures = _overall(pair, change)
    per_class = _per_class(pair, change, judged=kind == "shipping")
    agreement = float((a.predicted == b.predicted).mean())
    gates = _gates(kind, agreement, figures, per_class)
    document = {
        "schema": SCHEMA,
        "kind": kind,
        "verdict": _worst([gate["verdict"] for gate in gates]),
        "tool": {"name": "capsule-edge", "version": version("capsule-edge")},
        "models": {side: dict(models[side]) for side in ("a", "b")},
        "data": _data(pair, data, specs),
        "gates": gates,
        "agreement": agreement,
        "macro_f1_delta": figures["macro_f1"]["delta"],
        **figures,
        **_probability_differences(dp),
        "mcnemar": _mcnemar(a.predicted == a.labels, b.predicted == b.labels),
        "per_class": per_class,
        "flips": _flips(pair, dp),
        "events": dict(events) if events is not None else None,
        "bootstrap": {
            "method": "paired percentile bootstrap over videos",
            "level": LEVEL,
            "resamples": resamples,
            "seed": seed,
            "reason": None if drawn else why_no_intervals(a.video_ids, resamples),
        },
    }
    return {name: defined(value) for name, value in document.items()}


def _resampled_change(pair: PredictionPair, drawn: Resamples) -> dict[str, npt.NDArray[np.float64]]:
    """Return the difference B - A of every figure in each resample."""
    a, b = (resampled_figures(side.labels, side.probabilities, drawn) for side in pair)
    return {name: b[name] - a[name] for name in a}


def _data(pair: PredictionPair, data: Mapping[str, Any], specs: Sequence[ModelSpec]) -> dict[str, Any]:
    """Return the certificate's ``data``: the data set's description and what was measured of it."""
    a, b = pair
    return {
        **data,
        "frames": len(a),
        "videos": len({video for video in a.video_ids if video is not None}),
        "skipped": sorted(set(a.skipped) | set(b.skipped)),
        "training_overlap": training_overlap(specs, a.video_ids),
    }


def _gates(
    kind: Kind, agreement: float, figures: Mapping[str, Any], per_class: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    gates = [_gate("agreement", agreement, MIN_AGREEMENT[kind], at_least=True)]
    if kind == "shipping":
        loss = figures["macro_f1"]["a"] - figures["macro_f1"]["b"]
        gates.append(_gate("macro_f1_loss", loss, MAX_MACRO_F1_LOSS, at_least=False))
        gates += [
            {"name": f"sensitivity_loss.{key}", "limit": MAX_SENSITIVITY_LOSS, **_class_gate(entry)}
            for key, entry in per_class.items()
        ]
    return gates


def _probability_differences(dp: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the largest and mean |dp| and the histogram over frames; ``dp`` is (frames, labels)."""
    return {
        "max_abs_dp": float(dp.max()),
        "mean_abs_dp": float(dp.mean()),
        "dp_histogram": {
            "edges": list(_DP_EDGES),
            "frames": np.histogram(np.minimum(dp.max(axis=1), 1.0), _DP_EDGES)[0].tolist(),
        },
    }


def with_sha256(certificate: Mapping[str, Any], side: Literal["a", "b"], sha256: str) -> dict[str, Any]:
    """Return the certificate with another SHA-256 of one model.

    The hash of an INT8 file changes when the summary of its certificate is written into it.
    """
    models = {**certificate["models"], side: {**certificate["models"][side], "sha256": sha256}}
    return {**certificate, "models": models}


def parity_summary(*certificates: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise certificates by kind for a model file (``ModelSpec.parity``), without the file's own hash."""
    summary: dict[str, Any] = {}
    for certificate in certificates:
        names = ("verdict", "agreement", "macro_f1_delta", "max_abs_dp", "data")
        undecided = [gate["name"] for gate in certificate["gates"] if gate["verdict"] == "undecided"]
        failed = [gate["name"] for gate in certificate["gates"] if gate["verdict"] == "fail"]
        twin = {"against_sha256": certificate["models"]["a"]["sha256"]}
        summary[certificate["kind"]] = {
            **{name: certificate[name] for name in names},
            "failed": failed,
            "undecided": undecided,
            **twin,
        }
        if certificate["kind"] == "shipping":
            summary["fp32_sha256"] = certificate["models"]["a"]["sha256"]
    return summary


def _aligned(a: Predictions, b: Predictions) -> PredictionPair:
    """Return both answers with B in the order of A. Raise ``InputError`` if they differ in more than the answers."""
    if a.keys != b.keys:
        raise InputError(
            f"the labels differ: A has {', '.join(a.keys)}; B has {', '.join(b.keys)}",
            hint="compare models of the same labels in the same order",
        )
    if not len(a):
        raise InputError("there are no labelled frames to compare the models on")
    if a.files != b.files:
        b = _in_order(a, b)
    if (a.labels != b.labels).any():
        where = int(np.flatnonzero(a.labels != b.labels)[0])
        labels = a.keys[a.labels[where]], b.keys[b.labels[where]]
        raise InputError(f"{a.files[where]} is labelled {labels[0]} in A and {labels[1]} in B")
    if a.video_ids != b.video_ids:
        where = next(
            i for i, (one, other) in enumerate(zip(a.video_ids, b.video_ids, strict=True)) if one != other
        )
        videos = (str(side.video_ids[where] or "no video") for side in (a, b))
        raise InputError(
            f"{a.files[where]} is of {' in A and of '.join(videos)} in B",
            hint="compare on the data set that the table was made on, unchanged",
        )
    return a, b


def _in_order(a: Predictions, b: Predictions) -> Predictions:
    at = {file: i for i, file in enumerate(b.files)}
    missing = [file for file in a.files if file not in at]
    if missing or len(b) != len(a):
        first = missing[0] if missing else next(iter(sorted(set(b.files) - set(a.files))), b.files[0])
        raise InputError(f"A answers for {len(a)} frames, B for {len(b)}; the first not in both is {first}")
    return b.take(at[file] for file in a.files)


def _overall(
    pair: PredictionPair, change: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, dict[str, Any]]:
    """Return the figures over all classes: A, B, the difference and its interval."""
    a, b = (_overall_figures(side) for side in pair)
    return {
        name: {**_both(a[name], b[name]), "interval": interval(change[name]) if name in change else None}
        for name in a
    }


def _overall_figures(side: Predictions) -> dict[str, float]:
    rate = rates(_confusion(side))
    return {
        **{name: float(rate[name]) for name in ("accuracy", "macro_f1", "balanced_accuracy")},
        "mean_auc": float(mean_defined(one_vs_rest_auc(side))),
        "ece": ece(side.probabilities, side.labels),
    }


def _per_class(
    pair: PredictionPair, change: Mapping[str, npt.NDArray[np.float64]], *, judged: bool
) -> dict[str, dict[str, Any]]:
    a, b = (rates(_confusion(side)) for side in pair)
    labels, video_ids = pair[0].labels, pair[0].video_ids
    classes = {}
    for i, key in enumerate(pair[0].keys):
        at = np.flatnonzero(labels == i)
        entry: dict[str, Any] = {"support": len(at), "videos": len({video_ids[j] for j in at} - {None})}
        for name, rate in (("sensitivity", "recall"), ("specificity", "specificity")):
            entry[name] = _both(float(a[rate][i]), float(b[rate][i]))
            entry[name]["interval"] = interval(change[rate][:, i]) if change else None
        entry["verdict"], entry["reason"] = _judge(entry) if judged else (None, None)
        classes[key] = entry
    return classes


def _judge(entry: Mapping[str, Any]) -> tuple[Verdict, str | None]:
    """Return the verdict on a class's loss of sensitivity, and the reason if it is undecided."""
    # The reason is part of the certificate.
    if entry["support"] < MIN_FRAMES or entry["videos"] < MIN_VIDEOS:
        found = f"{entry['support']} frames of {entry['videos']} videos"
        return "undecided", f"{found}, needed are {MIN_FRAMES} of {MIN_VIDEOS}"
    change = entry["sensitivity"]["interval"]
    if change is None:
        return "undecided", "no interval: too few videos hold the class"
    least, most = 0.0 - change[1], 0.0 - change[0]
    if least > MAX_SENSITIVITY_LOSS:
        return "fail", None
    if most <= MAX_SENSITIVITY_LOSS:
        return "pass", None
    return "undecided", f"the loss may lie anywhere from {least:.4f} to {most:.4f}"


def _class_gate(entry: Mapping[str, Any]) -> dict[str, Any]:
    change = entry["sensitivity"]
    return {"value": change["a"] - change["b"], "verdict": entry["verdict"]}


def _gate(name: str, value: float, limit: float, *, at_least: bool) -> dict[str, Any]:
    # The tolerance is for decimal limits: .905 - .9 is .0050000000000000044 and means .005.
    good = value >= limit - 1e-12 if at_least else value <= limit + 1e-12
    verdict = "undecided" if np.isnan(value) else "pass" if good else "fail"
    return {"name": name, "limit": limit, "value": value, "verdict": verdict}


def _worst(verdicts: list[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("fail", "undecided", "pass")
    return next(verdict for verdict in order if verdict in verdicts)


def _mcnemar(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Run McNemar's exact test (Psychometrika 1947) on the frames that only one of the two models gets right.

    The test takes frames as independent, but frames of one video are not. Its p-value is therefore too small; trust the
    intervals over videos.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {"only_a_right": only_a, "only_b_right": only_b, "p_value": exact_mcnemar(only_a, only_b)}


def _flips(pair: PredictionPair, dp: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    """List the changed labels (from A's to B's), the most frequent first, with the frames of the largest |dp|."""
    a, b = pair
    keys, moved = a.keys, dp.max(axis=1)
    groups: dict[tuple[int, int], list[int]] = {}
    for i in np.flatnonzero(a.predicted != b.predicted).tolist():
        groups.setdefault((int(a.predicted[i]), int(b.predicted[i])), []).append(i)
    return [
        {
            "from": keys[before],
            "to": keys[after],
            "frames": len(at),
            "worst": [
                {"file": a.files[i], "label": keys[a.labels[i]], "max_abs_dp": float(moved[i])}
                for i in sorted(at, key=lambda i: (-moved[i], a.files[i]))[:_WORST]
            ],
        }
        for (before, after), at in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _confusion(side: Predictions) -> npt.NDArray[np.float64]:
    matrix = np.zeros((len(side.keys), len(side.keys)))
    np.add.at(matrix, (side.labels, side.predicted), 1)
    return matrix


def _both(a: float, b: float) -> dict[str, Any]:
    return {"a": a, "b": b, "delta": b - a}
