"""Train classifiers of other frameworks, on which ``capsule-edge adopt`` is shown.

    python adoptable_models.py --frames frames.npz --models resnet50,vit --seconds 200 --out DIR

This file needs nothing else of this package, so that it can be copied alone to a machine with a GPU. The Keras 3
models are trained with JAX, ``torch_resnet`` with PyTorch, each in a process of its own, all at the same time.
``frames.npz`` comes from ``adoptable_frames``. The videos of one fold are held out, and each model prints a line of
JSON with its balanced accuracy on them. ``DIR`` gets ``NAME.npz`` with the weights of a Keras model, from which
``adoptable_files`` writes the ``.keras`` file, or the two ONNX files of PyTorch's exporters.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 96
"""Width and height of the networks' input in pixels."""

BATCH, PEAK_RATE, DECAY, KEEP = 192, 1e-3, 0.05, 0.998
"""Frames in a step, learning rate, weight decay, moving average of the weights."""

APPLICATIONS = {
    "resnet50": "ResNet50",
    "efficientnetb0": "EfficientNetB0",
    "mobilenetv3large": "MobileNetV3Large",
    "densenet121": "DenseNet121",
    "convnexttiny": "ConvNeXtTiny",
    "efficientnetv2b0": "EfficientNetV2B0",
}
"""The networks of ``keras.applications``."""

CAFFE_MEAN = (103.939, 116.779, 123.68)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Arrays = dict[str, npt.NDArray[Any]]


def build(name: str, labels: int, keras: Any, *, activation: str | None) -> Any:
    """Return an untrained Keras model of this name.

    Args:
        name: ``vit`` or a key of ``APPLICATIONS``.
        labels: the number of classes.
        keras: the module of Keras 3.
        activation: "softmax", or None for logits. ``vit`` answers with logits in any case.
    """
    if name == "vit":
        return build_vit(labels, keras)
    network = getattr(keras.applications, APPLICATIONS[name])
    return network(
        weights=None, input_shape=(SIZE, SIZE, 3), classes=labels, classifier_activation=activation
    )


def build_vit(
    labels: int, keras: Any, *, size: int = SIZE, patch: int = 12, width: int = 192, depth: int = 6
) -> Any:
    """Return a small vision transformer (Dosovitskiy et al., 2021) with average pooling, input 0..255 RGB.

    Args:
        labels: the number of classes.
        keras: the module of Keras 3.
        size: width and height of the input in pixels, a multiple of ``patch``.
        patch: width and height of a patch in pixels.
        width: the number of channels.
        depth: the number of blocks.
    """
    layers = keras.layers
    inputs = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(x)
    tokens = (size // patch) ** 2
    x = layers.Reshape((tokens, width))(x)
    place = layers.Embedding(tokens, width, name="places")
    x = layers.Add()([x, place(keras.ops.arange(tokens)[None])])
    for block in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"norm_{block}a")(x)
        y = layers.MultiHeadAttention(4, width // 4, dropout=0.1, name=f"attention_{block}")(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization(epsilon=1e-6, name=f"norm_{block}b")(x)
        y = layers.Dense(4 * width, activation="gelu", name=f"mlp_{block}a")(y)
        y = layers.Dense(width, name=f"mlp_{block}b")(y)
        x = layers.Add()([x, layers.Dropout(0.1)(y)])
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(labels, name="logits")(x), name="vit")


def scale(name: str, pixels: Any, stack: Callable[[tuple[float, ...]], Any]) -> Any:
    """Return pixels of 0..255 RGB, channels last, in the range that a network takes.

    Args:
        name: the name of the network. Those with a layer of their own for it take 0..255.
        pixels: float (N, height, width, 3).
        stack: makes a tensor of three numbers.
    """
    if name == "resnet50":
        return pixels[..., ::-1] - stack(CAFFE_MEAN)
    if name == "densenet121":
        return (pixels / 255 - stack(IMAGENET_MEAN)) / stack(IMAGENET_STD)
    return pixels


def draw_chances(labels: npt.NDArray[np.int64], videos: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the chance of each frame to be drawn: equal for all classes, then by the root of a video's frames."""
    chances = np.zeros(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        _, video, counts = np.unique(videos[rows], return_inverse=True, return_counts=True)
        share = counts[video] ** -0.5
        chances[rows] = share / share.sum()
    return np.asarray(chances / chances.sum())


def balanced_accuracy(answers: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Return the mean recall over the labels that occur."""
    return float(np.mean([(answers[labels == label] == label).mean() for label in np.unique(labels)]))


def read_frames(path: Path, fold: int) -> tuple[Arrays, Arrays, list[str]]:
    """Return the frames to train on, those of the held-out fold, and the keys of the labels.

    Returns:
        For each part ``pixels`` uint8 (N, height, width, 3) RGB, ``labels`` int64 (N,), ``videos`` (N,).
    """
    import cv2

    with np.load(path) as file:
        stored = {key: file[key] for key in file.files}
    ends = stored["ends"]
    packed = np.split(stored["bytes"], ends[:-1])
    pixels = np.stack([np.asarray(cv2.imdecode(one, cv2.IMREAD_COLOR))[..., ::-1] for one in packed])
    table = {"pixels": pixels, "labels": stored["labels"].astype(np.int64), "videos": stored["videos"]}
    held = stored["fold"] == fold
    parts = [{key: value[rows] for key, value in table.items()} for rows in (~held, held)]
    return parts[0], parts[1], [str(key) for key in stored["keys"]]


class Progress:
    """The share of training that is done, by steps or by the clock, whichever is further.

    Args:
        steps: steps of a full training.
        deadline: the time, as ``time.time`` counts, at which training ends in any case.
    """

    def __init__(self, steps: int, deadline: float) -> None:
        self._steps, self._deadline, self._began = steps, deadline, time.time()
        self.count = 0

    def share(self) -> float:
        """Return the share done, 0..1."""
        spent = (time.time() - self._began) / max(1.0, self._deadline - self._began)
        return min(1.0, max(self.count / self._steps, spent))

    def rate(self) -> float:
        """Return the learning rate: a warm-up of 300 steps, then a cosine."""
        return PEAK_RATE * min(1.0, (self.count + 1) / 300) * 0.5 * (1 + math.cos(math.pi * self.share()))

    def keep(self) -> float:
        """Return the part of the moving average that this step keeps."""
        return min(KEEP, (1 + self.count) / (10 + self.count))


def draw_views(rng: np.random.Generator, count: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Draw how each frame of a batch is varied.

    Returns:
        Affine maps from output to input, both -1..1, float32 (count, 2, 3), of turns, flips, crops and shifts; and
        gains of the channels (count, 3), contrast, saturation (count, 1) and brightness (count, 1).
    """
    angle, zoom = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.7, 1.1, count)
    flip, shift = rng.choice((-1.0, 1.0), count), rng.uniform(-0.15, 0.15, (count, 2))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    maps = np.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], 1).reshape(count, 2, 3)
    gains = rng.uniform(0.85, 1.15, (count, 3)) * rng.uniform(0.75, 1.25, (count, 1))
    tone = (
        rng.uniform(0.7, 1.3, (count, 1)),
        rng.uniform(0.5, 1.5, (count, 1)),
        rng.uniform(-25, 25, (count, 1)),
    )
    return tuple(array.astype(np.float32) for array in (maps, gains, *tone))


def vary_colours(x: Any, gains: Any, contrast: Any, saturation: Any, brightness: Any) -> Any:
    """Return pixels of 0..255, channels last, with other colours. Takes tensors of JAX or PyTorch."""
    shape = (-1, 1, 1, 1)
    grey = x.mean(-1)[..., None]
    x = grey + (x - grey) * saturation.reshape(shape)
    mean = x.mean((1, 2, 3)).reshape(shape)
    x = (x - mean) * contrast.reshape(shape) + mean + brightness.reshape(shape)
    return (x * gains.reshape(-1, 1, 1, 3)).clip(0, 255)


class KerasTrainer:
    """Train a Keras 3 model with JAX: AdamW, bfloat16 with float32 weights, a moving average of the weights.

    Args:
        name: a name for ``build``.
        keys: the keys of the labels.
        train: the frames, of ``read_frames``.
    """

    def __init__(self, name: str, keys: list[str], train: Arrays) -> None:
        os.environ["KERAS_BACKEND"] = "jax"
        import jax
        import keras

        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        keras.utils.set_random_seed(0)
        self._name, self._labels = name, len(keys)
        self.model = model = build(name, len(keys), keras, activation=None)
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = min(layer.momentum, 0.99)  # MobileNetV3 has .999, too slow for 4,000 steps
        if name == "efficientnetb0":
            # Its Normalization layer comes without statistics where no weights are loaded.
            some = np.random.default_rng(0).permutation(len(train["pixels"]))[:2048]
            mean, spread = (
                f(train["pixels"][some] / 255.0, axis=(0, 1, 2)).astype(np.float32) for f in (np.mean, np.var)
            )
            layer = model.get_layer("normalization")
            layer.set_weights([mean, spread, *layer.get_weights()[2:]])
            layer.finalize_state()
        values = [
            [v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)
        ]
        zeros = [[v * 0 for v in values[0]] for _ in range(2)]
        copies = jax.tree.map(lambda v: v + 0, values)
        self._state = (*values, *zeros, *copies)
        self._step = jax.jit(self._one_step, donate_argnums=0)
        self._answer = jax.jit(self._answers)

    def step(self, batch: Arrays, views: tuple[npt.NDArray[np.float32], ...], progress: Progress) -> Any:
        """Do one step and return its loss, which may not be computed yet."""
        facts = np.float32(progress.rate()), np.float32(progress.keep()), np.float32(progress.count + 1)
        self._state, loss = self._step(self._state, batch["pixels"], batch["labels"], views, facts)
        return loss

    def predict(self, pixels: npt.NDArray[np.uint8], batch: int = 256) -> npt.NDArray[np.int64]:
        """Return the label of each frame by the averaged weights, int64 (N,)."""
        answers = []
        for at in range(0, len(pixels), batch):
            some = pixels[at : at + batch]
            padded = np.concatenate([some, np.zeros((batch - len(some), *some.shape[1:]), np.uint8)])
            answers.append(np.asarray(self._answer(self._state[4], self._state[5], padded))[: len(some)])
        return np.concatenate(answers)

    def save(self, folder: Path) -> None:
        """Write the averaged weights, kernels in float16 and vectors in float32, in the order of the model."""
        groups = self.model.trainable_variables, self.model.non_trainable_variables
        for variables, values in zip(groups, self._state[4:], strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        arrays: dict[str, Any] = {}
        for number, value in enumerate(self.model.get_weights()):
            kind = np.float16 if value.ndim > 1 else value.dtype
            arrays[f"{number:04}"] = np.asarray(value).astype(kind)
        np.savez(folder / f"{self._name}.npz", **arrays)

    def _one_step(self, state: Any, pixels: Any, labels: Any, views: Any, facts: Any) -> Any:
        import jax
        import jax.numpy as jnp

        trained, other, first, second, kept, kept_other = state
        rate, keep, count = facts
        x = scale(self._name, vary_colours(sample(pixels, views[0]), *views[1:]), jnp.array)
        target = jax.nn.one_hot(labels, self._labels)

        def loss_of(weights: Any) -> Any:
            logits, updated = self.model.stateless_call(weights, other, x, training=True)
            return -(target * jax.nn.log_softmax(logits.astype(jnp.float32))).sum(1).mean(), updated

        (loss, other), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
        norm = jnp.sqrt(sum((g**2).sum() for g in grads))
        grads = [g * jnp.minimum(1.0, 1.0 / (norm + 1e-9)) for g in grads]
        first = [0.9 * m + 0.1 * g for m, g in zip(first, grads, strict=True)]
        second = [0.99 * v + 0.01 * g * g for v, g in zip(second, grads, strict=True)]

        def moved(w: Any, m: Any, v: Any) -> Any:
            change = (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.99**count)) + 1e-8)
            return w - rate * (change + (DECAY * w if w.ndim > 1 else 0.0))

        def average(old: Any, new: Any) -> Any:
            return keep * old + (1 - keep) * new if jnp.issubdtype(new.dtype, jnp.floating) else new

        trained = [moved(w, m, v) for w, m, v in zip(trained, first, second, strict=True)]
        kept = [average(a, b) for a, b in zip(kept, trained, strict=True)]
        kept_other = [average(a, b) for a, b in zip(kept_other, other, strict=True)]
        return (trained, list(other), first, second, kept, kept_other), loss

    def _answers(self, trained: Any, other: Any, pixels: Any) -> Any:
        import jax
        import jax.numpy as jnp

        x = jax.image.resize(pixels.astype(jnp.float32), (len(pixels), SIZE, SIZE, 3), "linear")
        logits, _ = self.model.stateless_call(trained, other, scale(self._name, x, jnp.array), training=False)
        return logits.argmax(1)


def sample(pixels: Any, maps: Any) -> Any:
    """Return the affine views of frames, in JAX: float32 (N, SIZE, SIZE, 3), black outside of the frame.

    Args:
        pixels: uint8 (N, height, width, 3).
        maps: from ``draw_views``.
    """
    import jax
    import jax.numpy as jnp

    line = (jnp.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = jnp.meshgrid(line, line)
    grid = jnp.stack([x, y, jnp.ones_like(x)])
    width = pixels.shape[1]

    def view(frame: Any, affine: Any) -> Any:
        places = (jnp.einsum("ij,jhw->ihw", affine, grid) + 1) * width / 2 - 0.5
        planes = [
            jax.scipy.ndimage.map_coordinates(frame[..., c], [places[1], places[0]], order=1)
            for c in range(3)
        ]
        return jnp.stack(planes, -1)

    return jax.vmap(view)(pixels.astype(jnp.float32), maps)


class TorchTrainer:
    """Train a small residual network with PyTorch and export it with both of its ONNX exporters.

    It takes float NCHW RGB with ImageNet's mean and standard deviation, and answers with logits.

    Args:
        name: the name of the files.
        keys: the keys of the labels.
        train: the frames. They are not kept.
    """

    def __init__(self, name: str, keys: list[str], train: Arrays) -> None:
        import torch

        del train
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        self._name = name
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = torch_resnet(len(keys)).to(self._device, memory_format=torch.channels_last)
        self._kept = torch_resnet(len(keys)).to(self._device)
        self._kept.load_state_dict(self.model.state_dict())
        groups = [
            {"params": [p for p in self.model.parameters() if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in self.model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.99))

    def step(self, batch: Arrays, views: tuple[npt.NDArray[np.float32], ...], progress: Progress) -> Any:
        """Do one step and return its loss, which may not be computed yet."""
        import torch
        from torch.nn import functional

        maps, *colours = (torch.from_numpy(view).to(self._device) for view in views)
        x = torch.from_numpy(batch["pixels"]).to(self._device).permute(0, 3, 1, 2).float()
        grid = functional.affine_grid(maps, [len(x), 3, SIZE, SIZE], align_corners=False)
        x = functional.grid_sample(x, grid, align_corners=False).permute(0, 2, 3, 1)
        x = self._scaled(vary_colours(x, *colours))
        for group in self._optimizer.param_groups:
            group["lr"] = progress.rate()
        self.model.train()
        with torch.autocast(self._device, torch.bfloat16):
            logits = self.model(x)
        labels = torch.from_numpy(batch["labels"]).to(self._device)
        loss = functional.cross_entropy(logits.float(), labels)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        with torch.no_grad():
            pairs = zip(self._kept.state_dict().values(), self.model.state_dict().values(), strict=True)
            for kept, now in pairs:
                kept.lerp_(now, 1 - progress.keep()) if kept.is_floating_point() else kept.copy_(now)
        return loss.detach()

    def predict(self, pixels: npt.NDArray[np.uint8], batch: int = 256) -> npt.NDArray[np.int64]:
        """Return the label of each frame by the averaged weights, int64 (N,)."""
        import torch
        from torch.nn import functional

        self._kept.eval()
        answers = []
        with torch.no_grad():
            for at in range(0, len(pixels), batch):
                x = torch.from_numpy(pixels[at : at + batch]).to(self._device).permute(0, 3, 1, 2).float()
                x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
                answers.append(self._kept(self._scaled(x.permute(0, 2, 3, 1))).argmax(1).cpu().numpy())
        return np.concatenate(answers)

    def save(self, folder: Path) -> None:
        """Write both ONNX files: opset 17 by tracing, opset 18 by ``torch.export``."""
        import torch

        # Weights that float16 can hold: the two files then compress to a quarter.
        with torch.no_grad():
            for value in self._kept.parameters():
                if value.ndim > 1:
                    value.copy_(value.half().float())
        model, some = self._kept.cpu().eval(), (torch.zeros(2, 3, SIZE, SIZE),)
        names = {"input_names": ["input"], "output_names": ["output"]}
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        traced = str(folder / f"{self._name}_traced.onnx")
        torch.onnx.export(model, some, traced, opset_version=17, dynamo=False, dynamic_axes=axes, **names)
        exported = str(folder / f"{self._name}_exported.onnx")
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        torch.onnx.export(
            model,
            some,
            exported,
            opset_version=18,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            **names,
        )

    def _scaled(self, x: Any) -> Any:
        import torch

        mean, std = (torch.tensor(three, device=x.device) for three in (IMAGENET_MEAN, IMAGENET_STD))
        x = ((x / 255 - mean) / std).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)


def torch_resnet(labels: int, width: int = 32) -> Any:
    """Return a ResNet-18 (He et al., 2016) of less width, as a PyTorch module.

    Args:
        labels: the number of classes.
        width: channels of the first stage.
    """
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.one = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.norm_one = nn.BatchNorm2d(after)
            self.two = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.norm_two = nn.BatchNorm2d(after)
            self.short: Any = nn.Identity()
            if stride != 1 or before != after:
                self.short = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
                )

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm_one(self.one(x)))
            return torch.relu(self.norm_two(self.two(y)) + self.short(x))

    stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks, before = [], width
    for stage in range(4):
        for number in range(2):
            after = width * 2**stage
            blocks.append(Block(before, after, 2 if stage and not number else 1))
            before = after
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, labels)]
    return nn.Sequential(*stem, *blocks, *head)


def train_one(
    name: str, frames: Path, out: Path, *, deadline: float, epochs: int, fold: int
) -> dict[str, Any]:
    """Train a model, save it and return its figures.

    Args:
        name: ``torch_resnet``, or a name for ``build``.
        frames: a file of ``adoptable_frames``.
        out: the folder for the files.
        deadline: the time, as ``time.time`` counts, at which training ends.
        epochs: the most epochs.
        fold: the fold whose videos are held out.
    """
    began = time.time()
    train, held, keys = read_frames(frames, fold)
    trainer: Any = (TorchTrainer if name == "torch_resnet" else KerasTrainer)(name, keys, train)
    rng, chances = np.random.default_rng(0), draw_chances(train["labels"], train["videos"])
    progress, shown, loss = Progress(10**9, time.time() + 10**6), 0.0, math.nan
    while progress.share() < 1:
        rows = rng.choice(len(chances), BATCH, p=chances)
        batch = {key: np.ascontiguousarray(train[key][rows]) for key in ("pixels", "labels")}
        loss = trainer.step(batch, draw_views(rng, BATCH), progress)
        if progress.count == 0:
            float(loss)  # compiled; only now does the clock begin
            progress = Progress(epochs * len(chances) // BATCH, deadline)
        progress.count += 1
        if progress.count % 20 == 0 and progress.share() >= shown + 0.25:
            shown = progress.share()
            so_far = balanced_accuracy(trainer.predict(held["pixels"]), held["labels"])
            line = f"{name} {shown:.2f}: step {progress.count} loss {float(loss):.3f} held-out {so_far:.3f}"
            print(line, file=sys.stderr, flush=True)
    answers = trainer.predict(held["pixels"])
    out.mkdir(parents=True, exist_ok=True)
    trainer.save(out)
    return {
        "model": name,
        "balanced_accuracy": round(balanced_accuracy(answers, held["labels"]), 4),
        "labels_held_out": len(np.unique(held["labels"])),
        "frames_held_out": len(answers),
        "steps": progress.count,
        "loss": round(float(loss), 4),
        "seconds": round(time.time() - began, 1),
    }


def main() -> int:
    """Train the models that the command line names. Return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=Path, required=True, help="file written by adoptable_frames")
    parser.add_argument(
        "--models", required=True, help=f"names with commas: torch_resnet, vit, {APPLICATIONS}"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained weights")
    parser.add_argument("--seconds", type=float, default=240, help="time for all models, compiling included")
    parser.add_argument("--epochs", type=int, default=200, help="most epochs for a model")
    parser.add_argument("--fold", type=int, default=3, help="fold whose videos are held out")
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.models.split(",")
    deadline = options.deadline or time.time() + options.seconds
    if len(names) == 1:
        facts = {"deadline": deadline, "epochs": options.epochs, "fold": options.fold}
        print(json.dumps(train_one(names[0], options.frames, options.out, **facts)), flush=True)
        return 0
    # Models compile on the CPU at the same time and share the GPU, each with its part of the memory.
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(round(0.8 / len(names), 3))
    shared = ["--frames", str(options.frames), "--out", str(options.out), "--deadline", str(deadline)]
    shared += ["--epochs", str(options.epochs), "--fold", str(options.fold)]
    runs = [subprocess.Popen([sys.executable, __file__, "--models", name, *shared]) for name in names]
    return max(int(run.wait() != 0) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
