"""Train a fitted FP32 model for 8 bits on a GPU: weights on the integer grid, answers that tolerate rounding.

An FP32 file and its INT8 twin differ by the rounding of weights, which is the same for every frame, and by
the rounding of activations. This module trains two forms of one network together. The float form has rounded
weights. The integer form also rounds activations, over ranges learnt by gradient (LSQ, Esser et al., ICLR
2020). The loss asks both forms for the right answer, and the integer form for the float form's answer. The
resulting FP32 model computes with exactly the weights of the INT8 file, so the two differ by the rounding of
activations alone.

``train_int8`` reads and extends the folder of a recipe that ``cross_validation`` kept. ``PART.NAME.npz`` holds
the FP32 weights by name and, as ``range/LAYER``, the two ends of each quantised output's range.
``NAME.out_of_fold.npz`` calibrates these weights. ``capsule-edge train --fp32 ... --calibrate-on ...`` takes
both files.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import TrainConfig
from ..data import TrainingFrames, draw_weights, fold_of_real, withheld_from_fold
from ..models import weights
from ..qat import Pairs, weight_limits
from .batch_feed import BatchFeed, FrozenTeacher, answers_file
from .cross_validation import RecipeData, read_plain, score
from .torch_equalisation import equalise_channels, rounded_outputs
from .torch_graph import Node, TorchGraph
from .torch_training import build_graph, record

__all__ = ["GridTrainer", "Int8Pass", "build_rounding", "carry_over", "round_straight_through", "train_int8"]

_RANGE_RATE = 10.0  # learning rate of the ranges, relative to the weights'; they move by shares of themselves
_RANGE = "range/"  # the key of a learnt range in a file of weights
_OBSERVED_STEPS = 40
_EQUALISED_ON = 2048  # frames that show how far each channel reaches


@dataclasses.dataclass(frozen=True)
class Int8Pass:
    """One training of both forms of a network.

    Attributes:
        name: name of the result: ``PART.NAME.npz``.
        start: name of the earlier pass to continue, with its ranges; empty for the recipe's FP32 weights.
        epochs: number of epochs.
        learning_rate: the peak learning rate.
        closeness: weight of the distance between the two forms' logits.
        distillation: share of the teachers in the loss, 0..1.
        even: whether to equalise the channels first (``torch_equalisation``). The ranges then start anew.
        own_answers: whether the network that the pass starts from is the only teacher.
        parts: names of the parts to train: "all", "fold0"...
    """

    name: str = "grid"
    start: str = ""
    epochs: int = 8
    learning_rate: float = 1e-4
    closeness: float = 1.0
    distillation: float = 0.7
    even: bool = False
    own_answers: bool = False
    parts: tuple[str, ...] = ("all",)


class GridTrainer:
    """Train one network in float and in integer form.

    Args:
        graph: the network with normalisations and branches merged, and fitted weights.
        config: the training configuration.
    """

    def __init__(self, graph: TorchGraph, config: TrainConfig) -> None:
        import keras
        import torch

        self._round = build_rounding()
        self.graph, self._config, self._torch, self._ops = graph, config, torch, keras.ops
        outputs = rounded_outputs(graph.nodes)
        self._ranges = {name: torch.zeros(2, device=graph.device) for name in outputs}
        # The logarithm of each end's change is learnt, because some ranges are fifty times as wide as others.
        self._moves = {name: torch.zeros(2, device=graph.device).requires_grad_() for name in outputs}
        self._relus = {name for name, relu in outputs.items() if relu}
        self._ceilings = {node.name: node.ceiling for node in graph.nodes if node.ceiling}
        self._pairs: dict[str, Pairs] = {
            node.name: "adjacent" if node.window == 1 else "any"
            for node in graph.nodes
            if config.saturation_safe and node.kind in ("conv", "dense")
        }
        self._observed = 0

    def kernel(self, name: str, kernel: Any) -> Any:
        """Round a kernel (out, ...) to [-127, 127] steps of each output channel's range.

        The gradient passes through the rounding unchanged.
        """
        with self._torch.no_grad():
            # Engines pair rows in the memory order of Keras's (h, w, in, out).
            flat = kernel.flatten(1) if kernel.ndim == 2 else kernel.permute(0, 2, 3, 1).flatten(1)
            step = weight_limits(flat.T, self._ops, pairs=self._pairs.get(name.split("/")[0], "none")) / 127
            step = step.reshape(-1, *[1] * (kernel.ndim - 1))
            rounded = (kernel / step + 0.5).floor().clamp(-127, 127) * step
        return kernel + (rounded - kernel).detach()

    def output(self, node: Node, values: Any) -> Any:
        """Round a node's output to 8 bits over its range. Gradients reach the ends of the range."""
        if node.name not in self._ranges:
            return values
        low, high = self._ranges[node.name] * self._moves[node.name].exp()
        low = low * 0 if node.name in self._relus else low.clamp(max=0.0)
        step = (high.clamp(1e-3, self._ceilings.get(node.name)) - low) / 255
        return self._round(values, step, round_straight_through(-low / step))

    def answers(self, x: Any) -> tuple[Any, Any]:
        """Return the logits of the float form and of the integer form, each (N, labels)."""
        rounded: dict[str, Any] = {}

        def once(name: str, kernel: Any) -> Any:
            if name not in rounded:
                rounded[name] = self.kernel(name, kernel)
            return rounded[name]

        whole = self.graph.run(x, kernel=once)
        return whole, self.graph.run(x, kernel=once, output=self.output)

    def observe(self, x: Any) -> None:
        """Move the ranges towards the values of the float form on ``x``; they are averaged over calls."""
        torch = self._torch

        def note(node: Node, values: Any) -> Any:
            if node.name in self._ranges:
                seen = torch.stack([values.min().clamp(max=0), values.max().clamp(min=1e-3)])
                ends = self._ranges[node.name]
                ends.copy_(ends + (seen - ends) / (self._observed + 1))
            return values

        with torch.no_grad():
            self.graph.run(x, kernel=self.kernel, output=note)
        self._observed += 1

    def take_ranges(self, ranges: weights.Arrays) -> None:
        """Start from the ranges in ``ranges`` (keys ``range/LAYER``) instead of observing them."""
        with self._torch.no_grad():
            for name, ends in self._ranges.items():
                ends.copy_(self._torch.from_numpy(ranges[f"range/{name}"]))
        self._observed = _OBSERVED_STEPS

    def arrays(self) -> weights.Arrays:
        """Return the rounded weights in Keras's shapes, and ``range/LAYER`` for each rounded output."""
        kept = {name: tensor.detach().clone() for name, tensor in self.graph.trained.items()}
        with self._torch.no_grad():
            for name, tensor in self.graph.trained.items():
                # If a pair is rounded down, its channel's range gets narrower. Repeat until the range is stable.
                for _ in range(16 if name.endswith("kernel") else 0):
                    tensor.copy_(self.kernel(name, tensor))
            arrays = self.graph.arrays()
            for name, tensor in self.graph.trained.items():
                tensor.copy_(kept[name])
        for name, tensor in self._ranges.items():
            low, high = (tensor * self._moves[name].exp()).detach().cpu().numpy()
            first = 0.0 if name in self._relus else min(low, 0.0)
            last = min(max(high, 1e-3), self._ceilings.get(name, np.inf))
            arrays[f"range/{name}"] = np.array([first, last], np.float32)
        return arrays

    def fit(
        self, feed: BatchFeed, chances: npt.NDArray[np.float64], log: Callable[[dict[str, Any]], None]
    ) -> None:
        """Train both forms together.

        The loss asks the float form for the labels and the teachers' answers, and the integer form for the same and
        for the float form's logits.

        Args:
            feed: the batches, with labels and teachers' answers.
            chances: the probability of each frame to be drawn, float64 (N,).
            log: called with a line after each epoch. Its "loss" has four means: the loss of the float form, the loss
                of the integer form, the squared distance of their logits, and the share of frames on which they
                disagree.
        """
        torch, config = self._torch, self._config
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 4
        rate, range_rate = (torch.zeros((), device=self.graph.device) for _ in range(2))
        shown = torch.zeros(4, device=self.graph.device)
        optimizer = self._build_optimizer(rate, range_rate)

        def step() -> None:
            self._step(feed, optimizer, shown)

        steps = int((chances > 0).sum()) // config.batch
        replay: Callable[[], None] | None = None
        count = 0
        for epoch in range(config.epochs):
            started, losses = time.monotonic(), []
            for _ in feed.steps(chances, epoch, steps):
                if self._observed < min(_OBSERVED_STEPS, steps - 1):
                    self.observe(feed.x)
                    continue
                rate.fill_(config.rate(count, config.epochs * steps))
                range_rate.copy_(rate * _RANGE_RATE)
                replay = replay or record(step, optimizer, self.graph.device)
                replay()
                count += 1
                losses.append(shown.clone())
            mean = torch.stack(losses).mean(0).tolist()
            seconds = round(time.monotonic() - started, 1)
            log({"epoch": epoch, "loss": [round(value, 5) for value in mean], "seconds": seconds})

    def _build_optimizer(self, rate: Any, range_rate: Any) -> Any:
        on_gpu = self.graph.device == "cuda"
        return self._torch.optim.Adam(
            [{"params": list(self.graph.trained.values()), "lr": rate},
             {"params": list(self._moves.values()), "lr": range_rate}],
            eps=1e-7, capturable=on_gpu, foreach=on_gpu,
        )  # fmt: skip

    def _step(self, feed: BatchFeed, optimizer: Any, shown: Any) -> None:
        """Do one training step and write its four figures into ``shown``."""
        torch, config = self._torch, self._config
        whole, rounded = self.answers(feed.x)
        target = feed.target
        if feed.has_answers:
            target = torch.lerp(feed.target, feed.soft, config.distillation)
        float_loss = -(target * whole.log_softmax(1)).sum(1).mean()
        integer_loss = -(target * rounded.log_softmax(1)).sum(1).mean()
        gap = (rounded - whole) - (rounded - whole).mean(1, keepdim=True)
        distance = gap.square().mean()
        loss = float_loss + 0.5 * integer_loss + config.closeness * distance
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            disagreement = (whole.argmax(1) != rounded.argmax(1)).float().mean()
            shown.copy_(torch.stack([float_loss, integer_loss, distance, disagreement]))

    def predict(self, pixels: npt.NDArray[np.uint8], *, batch: int = 128) -> tuple[Any, Any]:
        """Return the logits of both forms, each float32 (N, labels).

        Args:
            pixels: frames, uint8 RGB (N, size, size, 3).
            batch: frames at a time.
        """
        torch = self._torch
        parts = []
        with torch.no_grad():
            for at in range(0, len(pixels), batch):
                x = (torch.from_numpy(pixels[at : at + batch]).to(self.graph.device).float() - 128) / 128
                parts.append([a.cpu().numpy() for a in self.answers(x)])
        return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def carry_over(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], out_of_fold: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Estimate what the out-of-fold logits would be after this training.

    This training sharpens the logits and restores part of the class prior. The estimate is one factor for all
    logits and one shift for each label, fitted by least squares.

    Args:
        before: logits of some frames before this training, float32 (N, labels).
        after: logits of the same frames after it, float32 (N, labels).
        out_of_fold: the out-of-fold logits, float32 (M, labels).

    Returns:
        float32 (M, labels).
    """
    old, new = (values - values.mean(1, keepdims=True) for values in (before, after))
    spread = old - old.mean(0)
    factor = float((spread * (new - new.mean(0))).sum() / (spread * spread).sum())
    shift = (new - factor * old).mean(0)
    return np.asarray(factor * out_of_fold + shift, np.float32)


def _sample_batches(
    pixels: npt.NDArray[np.uint8], among: npt.NDArray[np.bool_], device: str
) -> Iterator[Any]:
    """Yield batches of up to ``_EQUALISED_ON`` random frames ``among`` (N,), scaled for the network."""
    import torch

    rows = np.random.default_rng(1).permutation(np.flatnonzero(among))[:_EQUALISED_ON]
    for part in np.array_split(rows, -(-len(rows) // 128)):
        yield (torch.from_numpy(pixels[part]).to(device).float() - 128) / 128


def build_rounding() -> Callable[[Any, Any, Any], Any]:
    """Return a function that rounds values half up to 256 steps.

    It has gradients for the values, the step and the zero point, and needs few passes over memory.
    """
    import torch

    class Rounding(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, values: Any, step: Any, zero: Any) -> Any:
            rounded = (
                torch.addcmul(zero + 0.5, values, 1 / step).floor_().clamp_(0, 255).sub_(zero).mul_(step)
            )
            ctx.save_for_backward(values, rounded, step, zero)
            return rounded

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> tuple[Any, Any, Any]:
            (gradient,) = gradients
            values, rounded, step, zero = ctx.saved_tensors
            inside = (values >= -zero * step) & (values <= (255 - zero) * step)
            passed = gradient * inside
            total = (gradient * rounded).sum() - (passed * values).sum()
            return passed, total / step, step * (passed.sum() - gradient.sum())

    return Rounding.apply  # type: ignore[no-any-return]


def round_straight_through(x: Any) -> Any:
    """Round half up as TensorFlow does, with the gradient of the unrounded value."""
    return x + ((x + 0.5).floor() - x).detach()


def train_int8(
    folder: Path,
    data: RecipeData,
    chosen: Int8Pass,
    part: str,
    *,
    folds: int,
    teachers: Sequence[str],
    note: Callable[[dict[str, Any]], None],
) -> None:
    """Train one part of a kept recipe for 8 bits and write the results into the recipe's folder.

    Args:
        folder: the folder of the recipe, with ``config.json``, ``PART.npz`` and ``out_of_fold.npz``.
        data: the training data of the recipe.
        chosen: how to train.
        part: "all", "fold0"...
        folds: number of folds of the recipe.
        teachers: names of kept recipes beside this one to distil from.
        note: called with a line after each epoch and, for a fold, with the scores of both forms on the videos that
            were held out.

    Raises:
        UsageError: the recipe or a teacher had other recordings.
        InputError: a file of the recipe cannot be read.
    """
    data.check_folds(folder)
    config = dataclasses.replace(
        TrainConfig.read(folder / "config.json"), epochs=chosen.epochs, learning_rate=chosen.learning_rate,
        closeness=chosen.closeness, distillation=chosen.distillation,
    )  # fmt: skip
    frames = data.of(config)
    original = build_graph(config.architecture, size=config.size, labels=len(data.keys), branched=False)
    original.assign(read_plain(folder, part))
    sample = np.random.default_rng(0).choice(len(frames), min(3000, len(frames)), replace=False)
    before = GridTrainer(original.folded(), config).predict(frames.pixels[sample])[0]
    begun = weights.load(folder / f"{part}.{chosen.start}.npz") if chosen.start else {}
    ranges = {name: begun.pop(name) for name in list(begun) if name.startswith(_RANGE)}
    if begun:
        original.assign(begun)
    feed = _build_feed(folder, data, config, chosen, part, original, teachers)
    held_out, withheld = _held_out(frames, part, folds)
    trainer = GridTrainer(original.folded(), config)
    if chosen.even:
        batches = _sample_batches(frames.pixels, ~withheld, original.device)
        trainer.graph.assign(equalise_channels(trainer.graph, batches))
    elif ranges:
        trainer.take_ranges(ranges)
    trainer.fit(feed, draw_weights(frames, config, ~withheld), lambda line: note({"part": part, **line}))
    found = trainer.arrays()
    ranges = {name: found.pop(name) for name in list(found) if name.startswith(_RANGE)}
    weights.save(folder / f"{part}.{chosen.name}.npz", {**trainer.graph.unfolded(original, found), **ranges})
    if part == "all":
        after = trainer.predict(frames.pixels[sample])[0]
        _carry_calibration_over(folder, chosen.name, before, after)
    if held_out.any():
        path = folder / f"{part}.{chosen.name}.answers.npz"
        note({"part": part, **_score_held_out(trainer, frames, held_out, path)})


def _build_feed(
    folder: Path,
    data: RecipeData,
    config: TrainConfig,
    chosen: Int8Pass,
    part: str,
    original: TorchGraph,
    teachers: Sequence[str],
) -> BatchFeed:
    """Return the batches; teachers are loaded only if their answers are not in a file already."""
    frames = data.of(config)
    named = (
        [f"{folder.name}.{chosen.start}" if chosen.start else folder.name] if chosen.own_answers else teachers
    )
    kept = answers_file(folder.parent, part, named, config, data.recorded)
    loaded: list[FrozenTeacher] = []
    if not (kept and kept.exists()):
        if chosen.own_answers:
            loaded = [FrozenTeacher(original, frames.pixels)]
        else:
            loaded = [data.teacher(folder.parent / name, part, config) for name in teachers]
    feed = BatchFeed(config, frames.pixels, frames.labels, len(data.keys), original.device, loaded)
    feed.begin(kept)
    return feed


def _held_out(
    frames: TrainingFrames, part: str, folds: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which frames test the part, and which frames it must not learn from; none for all of ``train``."""
    if part == "all":
        return np.zeros(len(frames), bool), np.zeros(len(frames), bool)
    fold, number = fold_of_real(frames, folds), int(part.removeprefix("fold"))
    return fold == number, withheld_from_fold(frames, fold, number)


def _carry_calibration_over(
    folder: Path, name: str, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
) -> None:
    """Write the recipe's out-of-fold answers as they would be after this training."""
    with np.load(folder / "out_of_fold.npz") as archive:
        answers = dict(archive)
    answers["logits"] = carry_over(before, after, answers["logits"])
    np.savez_compressed(folder / f"{name}.out_of_fold.npz", **answers)


def _score_held_out(
    trainer: GridTrainer, frames: TrainingFrames, held_out: npt.NDArray[np.bool_], path: Path
) -> dict[str, Any]:
    """Return agreement and scores of both forms on the held-out fold, and write their answers."""
    whole, rounded = trainer.predict(frames.pixels[held_out])
    same = float((whole.argmax(1) == rounded.argmax(1)).mean())
    labels = frames.labels[held_out]
    np.savez_compressed(path, fp32=whole, int8=rounded, labels=labels, videos=frames.videos[held_out])
    return {
        "agreement": round(same, 4),
        "apart": round(float(np.abs(whole - rounded).mean()), 5),
        "fp32": score(whole, labels),
        "int8": score(rounded, labels),
    }
