"""Make a fitted FP32 model ready for 8 bits, on a GPU: weights on the integers' grid, answers that bear rounding.

What differs between an FP32 file and its INT8 twin is rounding of weights, which is the same on every frame, and of
activations. Here both forms of one network are trained together: the float form with rounded weights, and the integer
form that also rounds activations, over ranges learnt by gradient (LSQ, Esser et al., ICLR 2020). The loss asks both for
the right answer and the second for the first's. The FP32 model that comes out computes with the very weights that the
INT8 file holds, so only the activations' rounding is left between the two.

    python -m capsule_edge.train.gpu.qat --data DIR --folds OUT --recipe NAME --part all --epochs 8

reads and extends a recipe's folder that ``folds`` kept: ``PART.grid.npz`` holds the FP32 weights by name and, as
``range/LAYER``, each quantised output's two ends; ``grid.out_of_fold.npz`` calibrates them.
``capsule-edge train --fp32`` takes both over.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..config import TrainConfig
from ..data import draw_weights
from ..models import weights
from ..qat import Pairs, weight_limits
from .cross_validation import DataSet, folds_of, kept_from, read_plain, score
from .feed import Feed, answers_file
from .gpu_fit import build_graph, record
from .torch_equalisation import even, rounded_outputs
from .torch_graph import Node, TorchGraph

__all__ = ["GridTrainer"]

_RANGE_RATE = 10.0  # ranges move by this much more than weights, as shares of themselves: they are few
_OBSERVED_STEPS = 40
_EVENED_ON = 2048  # frames


class GridTrainer:
    """One network in both forms, from the weights of a fit with normalisation (and branches) merged."""

    def __init__(self, graph: TorchGraph, config: TrainConfig) -> None:
        import keras
        import torch

        self._round = _rounding()
        self.graph, self._config, self._torch, self._ops = graph, config, torch, keras.ops
        outputs = rounded_outputs(graph.nodes)
        self._ranges = {name: torch.zeros(2, device=graph.device) for name in outputs}
        # What is learnt is the logarithm of how far each end moves: some ranges are fifty times as wide as others.
        self._moves = {name: torch.zeros(2, device=graph.device).requires_grad_() for name in outputs}
        self._relus = {name for name, relu in outputs.items() if relu}
        self._ceilings = {node.name: node.ceiling for node in graph.nodes if node.ceiling}
        self._pairs: dict[str, Pairs] = {
            node.name: "adjacent" if node.window == 1 else "any"
            for node in graph.nodes
            if config.saturation_safe and node.kind in ("conv", "dense")
        }
        self._seen = 0

    def kernel(self, name: str, kernel: Any) -> Any:
        """The kernel (out, ...) rounded to [-127, 127] steps of each output channel's range, gradients straight."""
        with self._torch.no_grad():
            # Rows in the order in which Keras's (h, w, in, out) lies in memory: that is what engines pair.
            flat = kernel.flatten(1) if kernel.ndim == 2 else kernel.permute(0, 2, 3, 1).flatten(1)
            step = weight_limits(flat.T, self._ops, pairs=self._pairs.get(name.split("/")[0], "none")) / 127
            step = step.reshape(-1, *[1] * (kernel.ndim - 1))
            rounded = (kernel / step + 0.5).floor().clamp(-127, 127) * step
        return kernel + (rounded - kernel).detach()

    def output(self, node: Node, values: Any) -> Any:
        """The node's output rounded to 8 bits over its range; gradients reach the range's ends."""
        if node.name not in self._ranges:
            return values
        low, high = self._ranges[node.name] * self._moves[node.name].exp()
        low = low * 0 if node.name in self._relus else low.clamp(max=0.0)
        step = (high.clamp(1e-3, self._ceilings.get(node.name)) - low) / 255
        return self._round(values, step, _straight(-low / step))

    def answers(self, x: Any) -> tuple[Any, Any]:
        """Logits of the float and of the integer form."""
        rounded: dict[str, Any] = {}

        def once(name: str, kernel: Any) -> Any:
            if name not in rounded:
                rounded[name] = self.kernel(name, kernel)
            return rounded[name]

        whole = self.graph.run(x, kernel=once)
        return whole, self.graph.run(x, kernel=once, output=self.output)

    def observe(self, x: Any) -> None:
        """Move the ranges to what the float form produces on ``x``, averaged over calls."""
        torch = self._torch

        def note(node: Node, values: Any) -> Any:
            if node.name in self._ranges:
                seen = torch.stack([values.min().clamp(max=0), values.max().clamp(min=1e-3)])
                ends = self._ranges[node.name]
                ends.copy_(ends + (seen - ends) / (self._seen + 1))
            return values

        with torch.no_grad():
            self.graph.run(x, kernel=self.kernel, output=note)
        self._seen += 1

    def take_ranges(self, ranges: weights.Arrays) -> None:
        """Begin with the ranges that ``arrays`` gave, instead of observing them."""
        with self._torch.no_grad():
            for name, ends in self._ranges.items():
                ends.copy_(self._torch.from_numpy(ranges[f"range/{name}"]))
        self._seen = _OBSERVED_STEPS

    def arrays(self) -> weights.Arrays:
        """The rounded weights of the folded graph, in Keras's shapes, and ``range/LAYER`` of each rounded output."""
        kept = {name: tensor.detach().clone() for name, tensor in self.graph.trained.items()}
        with self._torch.no_grad():
            for name, tensor in self.graph.trained.items():
                # A pair that rounds down narrows its channel's range: round until the range stays.
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
        self, feed: Feed, chances: npt.NDArray[np.float64], log: Callable[[dict[str, Any]], None]
    ) -> None:
        """Train both forms on frames drawn by ``chances`` (N,); teachers and labels share the first form's loss."""
        torch, config = self._torch, self._config
        device = self.graph.device
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 4
        rate, swift = (torch.zeros((), device=device) for _ in range(2))
        shown = torch.zeros(4, device=device)
        on_gpu = device == "cuda"
        optimizer = torch.optim.Adam(
            [{"params": list(self.graph.trained.values()), "lr": rate},
             {"params": list(self._moves.values()), "lr": swift}],
            eps=1e-7, capturable=on_gpu, foreach=on_gpu,
        )  # fmt: skip

        def step() -> None:
            whole, rounded = self.answers(feed.x)
            aim = feed.target
            if feed.taught:
                aim = torch.lerp(feed.target, feed.soft, config.distillation)
            first = -(aim * whole.log_softmax(1)).sum(1).mean()
            second = -(aim * rounded.log_softmax(1)).sum(1).mean()
            gap = (rounded - whole) - (rounded - whole).mean(1, keepdim=True)
            apart = gap.square().mean()
            loss = first + 0.5 * second + config.closeness * apart
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                other = (whole.argmax(1) != rounded.argmax(1)).float().mean()
                shown.copy_(torch.stack([first, second, apart, other]))

        steps = int((chances > 0).sum()) // config.batch
        replay: Callable[[], None] | None = None
        count = 0
        for epoch in range(config.epochs):
            started, losses = time.monotonic(), []
            for _ in feed.steps(chances, epoch, steps):
                if self._seen < min(_OBSERVED_STEPS, steps - 1):
                    self.observe(feed.x)
                    continue
                rate.fill_(config.rate(count, config.epochs * steps))
                swift.copy_(rate * _RANGE_RATE)
                replay = replay or record(step, optimizer, device)
                replay()
                count += 1
                losses.append(shown.clone())
            mean = torch.stack(losses).mean(0).tolist()
            seconds = round(time.monotonic() - started, 1)
            log({"epoch": epoch, "loss": [round(value, 5) for value in mean], "seconds": seconds})

    def predict(self, pixels: npt.NDArray[np.uint8], *, batch: int = 128) -> tuple[Any, Any]:
        """Logits (N, labels) of both forms, of frames uint8 (N, size, size, 3)."""
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
    """Out-of-fold logits as they would be behind this training too, (M, labels).

    It sharpens the logits and gives back some of the class prior. ``before`` and ``after`` (N, labels), of the same
    frames, tell by how much: one factor and a shift for each label, by least squares.
    """
    old, new = (values - values.mean(1, keepdims=True) for values in (before, after))
    spread = old - old.mean(0)
    factor = float((spread * (new - new.mean(0))).sum() / (spread * spread).sum())
    shift = (new - factor * old).mean(0)
    return np.asarray(factor * out_of_fold + shift, np.float32)


def _shown(pixels: npt.NDArray[np.uint8], among: npt.NDArray[np.bool_], device: str) -> Iterator[Any]:
    """Some of the frames ``among`` (N,), as a network takes them."""
    import torch

    rows = np.random.default_rng(1).permutation(np.flatnonzero(among))[:_EVENED_ON]
    for part in np.array_split(rows, -(-len(rows) // 128)):
        yield (torch.from_numpy(pixels[part]).to(device).float() - 128) / 128


def _rounding() -> Callable[[Any, Any, Any], Any]:
    """Values rounded half up to 256 steps, with gradients for values, step and zero point in few passes over memory."""
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


def _straight(x: Any) -> Any:
    """Rounded half up as TensorFlow does, with the gradient of what it was."""
    return x + ((x + 0.5).floor() - x).detach()


def _log(line: dict[str, Any]) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--boxes", type=Path, help="Kvasir-Capsule's metadata.csv, for recipes with transplants"
    )
    parser.add_argument("--folds", type=Path, required=True, help="what train.folds left")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--part", default="all", help="all, or fold0, fold1...")
    parser.add_argument("--of", type=int, default=5, help="how many folds there are")
    parser.add_argument("--teacher", action="append", default=[])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--closeness", type=float, default=1.0)
    parser.add_argument("--distillation", type=float, default=0.7, help="the teachers' share of the loss")
    parser.add_argument("--start", default="", help="go on from PART.START.npz, with its ranges")
    parser.add_argument("--name", default="grid", help="what the result is called: PART.NAME.npz")
    parser.add_argument("--even", action="store_true", help="even out the channels first (gpu_even)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    folder = options.folds / options.recipe
    fitted = TrainConfig.read(folder / "config.json")
    config = dataclasses.replace(
        fitted, epochs=options.epochs, learning_rate=options.rate, closeness=options.closeness,
        distillation=options.distillation,
    )  # fmt: skip
    data = DataSet(options.data, options.boxes)
    frames = data.of(config.size, config)
    plain = build_graph(config.architecture, size=config.size, labels=len(data.keys), branched=False)
    plain.assign(read_plain(folder, options.part))
    some = np.random.default_rng(0).choice(len(frames), min(3000, len(frames)), replace=False)
    before = GridTrainer(plain.folded(), config).predict(frames.pixels[some])[0]
    kept = answers_file(options.folds, options.part, options.teacher, config)
    named = [] if kept and kept.exists() else options.teacher
    teachers = [data.teacher(options.folds / name, options.part, config) for name in named]
    held_out = unused = np.zeros(len(frames), bool)
    if options.part != "all":
        fold, number = folds_of(frames, options.of), int(options.part.removeprefix("fold"))
        held_out, unused = fold == number, kept_from(frames, fold, number)
    trainer = GridTrainer(plain.folded(), config)
    if options.even:
        trainer.graph.assign(even(trainer.graph, _shown(frames.pixels, ~unused, plain.device)))
    if options.start:
        begun = weights.load(folder / f"{options.part}.{options.start}.npz")
        trainer.take_ranges({n: begun.pop(n) for n in list(begun) if n.startswith("range/")})
        plain.assign(begun)
        trainer.graph.assign(plain.folded().arrays())
    chances = draw_weights(frames, config, ~unused)
    feed = Feed(config, frames.pixels, frames.labels, len(data.keys), plain.device, teachers)
    feed.begin(kept)
    trainer.fit(feed, chances, _log)
    found = trainer.arrays()
    ranges = {name: found.pop(name) for name in list(found) if name.startswith("range/")}
    weights.save(
        folder / f"{options.part}.{options.name}.npz", {**trainer.graph.unfolded(plain, found), **ranges}
    )
    if options.part == "all":
        with np.load(folder / "out_of_fold.npz") as archive:
            answers = dict(archive)
        after = trainer.predict(frames.pixels[some])[0]
        answers["logits"] = carry_over(before, after, answers["logits"])
        np.savez_compressed(folder / f"{options.name}.out_of_fold.npz", **answers)
    if held_out.any():
        whole, rounded = trainer.predict(frames.pixels[held_out])
        same = float((whole.argmax(1) == rounded.argmax(1)).mean())
        labels = frames.labels[held_out]
        line = {"agreement": round(same, 4), "apart": float(np.abs(whole - rounded).mean())}
        print(json.dumps({**line, "fp32": score(whole, labels), "int8": score(rounded, labels)}), flush=True)
        np.savez_compressed(
            folder / f"{options.part}.{options.name}.answers.npz", fp32=whole, int8=rounded, labels=labels,
            videos=frames.videos[held_out],
        )  # fmt: skip


if __name__ == "__main__":
    main()
