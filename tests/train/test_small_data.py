"""Training on 300 frames against the majority class and a logistic regression on the backbone's features.

    CAPSULE_EDGE_DATA=... nice pytest -m small_data -s tests/train/test_small_data.py

takes four minutes for each seed on five cores, up to half an hour on two. It prints one line of JSON for each,
then their means.
CAPSULE_EDGE_SEEDS=1 takes the first seed only, and asserts nothing about the mean of three.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")
pytest.importorskip("sklearn", reason="needs the extra 'eval'")

from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.evaluation.datasets.splits import fold_of
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import load_frames, scale
from capsule_edge.train.loop.keras_training import predict
from capsule_edge.train.models import architectures, weights
from capsule_edge.train.run import train_run
from capsule_edge.train.weakness import macro_f1, majority_macro_f1

CLASSES = ("angioectasia", "erosion", "normal", "polyp")
FRAMES, JUDGED, SEEDS = 300, 400, (0, 1, 2)
ROOT = Path(os.environ.get("CAPSULE_EDGE_DATA", "no data"))
BACKBONE = ROOT / "weights" / "mobilenet_v2_1.0_imagenet_notop.weights.h5"


def parts(seed: int) -> tuple[Dataset, Dataset]:
    """Return 300 frames of four classes from half of the train videos, and 400 of the other videos."""
    whole = load_dataset(ROOT / "capsule-vision", split="train")
    samples = tuple(sample for sample in whole.samples if sample.label in CLASSES)
    labels = np.array([sample.label for sample in samples])
    fold = fold_of(labels, np.array([str(sample.video_id) for sample in samples]), 2, seed=seed)
    rng, chosen = np.random.default_rng(seed), []
    for part, count in ((0, FRAMES), (1, JUDGED)):
        rows: list[int] = []
        for key in CLASSES:
            there = np.flatnonzero((fold == part) & (labels == key))
            rows.extend(rng.permutation(there)[: count // len(CLASSES)].tolist())
        chosen.append(replace(whole, samples=tuple(samples[row] for row in sorted(rows)), labels=CLASSES))
    return chosen[0], chosen[1]


def features(backbone: Any, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [backbone(scale(pixels[at : at + 32]), training=False).numpy() for at in range(0, len(pixels), 32)]
    )


def measure(seed: int, folder: Path) -> dict[str, float]:
    import tf_keras
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    config = TrainConfig(seed=seed, qat_epochs=0)  # QAT does not change the FP32 model that is judged
    small, others = parts(seed)
    assert not {s.video_id for s in small.samples} & {s.video_id for s in others.samples}
    train_run(small, folder / "run", config, backbone=BACKBONE, note=lambda line: print(line, flush=True))
    own, judged = (load_frames(part, CLASSES, InputSpec(config.size)) for part in (small, others))
    model = architectures.build(config.architecture, size=config.size, labels=len(CLASSES), keras=tf_keras)
    weights.assign(model, weights.load(folder / "run" / "fp32.weights.npz"))
    trained = macro_f1(judged.labels, predict(model, judged.pixels).argmax(axis=1))
    weights.assign(model, weights.load_backbone(BACKBONE), fresh=("logits",))
    backbone = tf_keras.Model(model.input, model.get_layer("pool").output)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(features(backbone, own.pixels), own.labels)
    regression = macro_f1(judged.labels, probe.predict(features(backbone, judged.pixels)))
    return {"trained": trained, "regression": regression, "majority": majority_macro_f1(judged.labels)}


@pytest.mark.small_data
def test_300_frames_beat_the_majority_and_come_near_a_regression_on_features(tmp_path: Path) -> None:
    if not BACKBONE.is_file():
        pytest.skip(f"needs the shared data and weights: {BACKBONE}")
    seeds = SEEDS[: int(os.environ.get("CAPSULE_EDGE_SEEDS", len(SEEDS)))]
    rows = []
    for seed in seeds:
        rows.append(measure(seed, tmp_path / str(seed)))
        print(
            json.dumps({"seed": seed, **{name: round(value, 4) for name, value in rows[-1].items()}}),
            flush=True,
        )
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print(json.dumps({"mean of": len(rows), **{name: round(value, 4) for name, value in mean.items()}}))
    if len(rows) == len(SEEDS):
        assert mean["trained"] > mean["majority"]
        assert mean["trained"] >= mean["regression"] - 0.02
