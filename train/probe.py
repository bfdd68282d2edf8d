"""What a loss or a way of drawing is worth, on frozen features: folds of a linear head, in a minute on a CPU.

    python -m capsule_edge.train.probe --data DIR --weights backbone.h5 --configs recipes.json --out probe.jsonl

``recipes.json`` maps a name to the fields of ``TrainConfig`` that differ from the defaults, as for ``folds``; the
architecture and the size are the first recipe's. The backbone answers every frame of ``train`` once, unvaried, and
each recipe trains a head on these features for each fold and seed, with its own sampling, logit adjustment, focal
loss, smoothing and mixup (of features). Each leaves one line of JSON with the mean and the spread over seeds of
``folds.score``. A ranking of heads: what it says of a whole network's training is a hint.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation._extras import TRAINING, require
from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.datasets import load_training
from capsule_edge.runtime.spec import InputSpec

from . import models, weights
from .config import TrainConfig
from .data import Frames, class_prior, draw_mixing, draw_weights, load_frames, scale
from .folds import folds_of, mask_unseen, score
from .objective import label_loss, mix_neighbours, targets

__all__ = ["fit_head", "frozen_features", "probe"]

Floats = npt.NDArray[np.float32]


def frozen_features(frames: Frames, config: TrainConfig, backbone: Path, *, batch: int = 64) -> Floats:
    """What the backbone's pooling gives for each frame, (N, channels)."""
    import tensorflow as tf
    import tf_keras

    model = models.build(config.architecture, size=config.size, labels=len(frames.keys), keras=tf_keras)
    weights.assign(model, weights.load_backbone(backbone), fresh=("logits",))
    pooled = tf_keras.Model(model.inputs, model.get_layer("pool").output)
    answer = tf.function(lambda x: pooled(x, training=False), reduce_retracing=True)
    parts = [answer(scale(frames.pixels[at : at + batch])).numpy() for at in range(0, len(frames), batch)]
    return np.concatenate(parts)


def fit_head(
    features: Floats,
    labels: npt.NDArray[np.int64],
    frames: Frames,
    among: npt.NDArray[np.bool_],
    config: TrainConfig,
) -> tuple[Floats, Floats]:
    """Kernel (channels, labels) and bias of a head fitted on the frames ``among`` (N,), by AdamW."""
    import keras
    import tensorflow as tf
    import tf_keras

    wide = len(frames.keys)
    chances = draw_weights(frames, config, among)
    offset = tf.constant(config.adjustment * np.log(class_prior(frames, chances)), tf.float32)
    x, y = tf.constant(features), tf.constant(labels)
    kernel, bias = tf.Variable(tf.zeros((features.shape[1], wide))), tf.Variable(tf.zeros(wide))
    optimizer = tf_keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)

    @tf.function  # type: ignore[untyped-decorator]
    def step(rows: Any, share: Any) -> None:
        target = mix_neighbours(targets(tf.gather(y, rows), wide, config, keras.ops), share, keras.ops)
        seen = mix_neighbours(tf.gather(x, rows), share, keras.ops)
        with tf.GradientTape() as tape:
            loss = label_loss(tf.matmul(seen, kernel) + bias, target, offset, config, keras.ops)
        optimizer.apply_gradients(zip(tape.gradient(loss, [kernel, bias]), [kernel, bias], strict=True))

    steps = max(1, int(among.sum()) // config.batch)
    for epoch in range(config.epochs):
        rng = np.random.default_rng((config.seed, epoch))
        rows = rng.choice(len(labels), (steps, config.batch), p=chances)
        for at, share in zip(rows, draw_mixing(config, epoch, steps), strict=True):
            optimizer.learning_rate.assign(config.rate(int(optimizer.iterations), config.epochs * steps))
            step(tf.constant(at), tf.constant(share))
    return kernel.numpy(), bias.numpy()


def probe(
    features: Floats, frames: Frames, config: TrainConfig, *, folds: int, seeds: int
) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over ``seeds`` of what the out-of-fold answers of a recipe's heads score."""
    fold = folds_of(frames, folds)
    figures = []
    for seed in range(seeds):
        own = dataclasses.replace(config, seed=seed)
        logits = np.zeros((len(frames), len(frames.keys)), np.float32)
        seen = np.zeros_like(logits, bool)
        for number in range(folds):
            among, out = fold != number, fold == number
            kernel, bias = fit_head(features, frames.labels, frames, among, own)
            logits[out] = features[out] @ kernel + bias
            seen[out] = np.isin(np.arange(len(frames.keys)), frames.labels[among])
        masked, known = mask_unseen(logits, frames.labels, seen)
        figures.append(score(masked[known], frames.labels[known]))
    return {
        name: {
            "mean": round(float(np.mean([f[name] for f in figures])), 4),
            "spread": round(float(np.std([f[name] for f in figures])), 4),
        }
        for name in figures[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the backbone")
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="lines are added to it")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    require(*TRAINING, "sklearn", extra="train", what="a probe")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    recipes = {
        name: TrainConfig.of(fields)
        for name, fields in json.loads(options.configs.read_text("utf-8")).items()
    }
    dataset = load_training(options.data, split=None)
    first = next(iter(recipes.values()))
    frames = load_frames(dataset, dataset.labels, InputSpec(first.size))
    features = frozen_features(frames, first, options.weights)
    features = (features - features.mean(0)) / (features.std(0) + 1e-3)
    for name, config in recipes.items():
        figures = probe(features, frames, config, folds=options.folds, seeds=options.seeds)
        line = json.dumps({"name": name, **figures, "folds": options.folds, "seeds": options.seeds})
        print(line, flush=True)
        with options.out.open("a", encoding="utf-8") as journal:
            journal.write(line + "\n")


if __name__ == "__main__":
    run_module(main)
