"""The batches of GPU training, drawn, augmented and mixed on the GPU, with labels and teachers' answers.

Teachers answer exactly the view that the student sees (Beyer et al., CVPR 2022). With ``TrainConfig.views``
above 0 the draws of that many epochs are repeated again and again. Teachers then answer each view once. Their
answers are kept, also in a file, so that other students with the same draws need no teacher. From the second
time on, a batch is turned by quarters and mirrored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import TrainConfig
from ..data import augment, draw_epoch, draw_mixing
from ..models import weights
from .torch_graph import TorchGraph

__all__ = ["BatchFeed", "FrozenTeacher", "answers_file", "move"]


class FrozenTeacher:
    """A teacher: a graph that only answers, and the pixels of the frames in the size that it takes.

    Args:
        graph: the teacher's network.
        pixels: all training frames, uint8 RGB (N, S, S, 3).
    """

    def __init__(self, graph: TorchGraph, pixels: npt.NDArray[np.uint8]) -> None:
        import torch

        self._whole, self.graph, self.size = graph, graph.folded(), pixels.shape[1]
        self.pixels = torch.from_numpy(pixels).to(graph.device)

    def assign(self, arrays: weights.Arrays) -> None:
        """Take other weights, as ``TorchGraph.assign`` does."""
        self._whole.assign(arrays)
        self.graph.assign(self._whole.folded().arrays())


class BatchFeed:
    """Fill the inputs of one training step after another, in place.

    ``x`` (batch, size, size, 3) holds the frames, ``target`` (batch, labels) the labels and ``soft`` (batch,
    labels) the mean of the teachers' probabilities. ``soft`` is only valid if ``has_answers``.

    Args:
        config: the training configuration.
        pixels: all training frames, uint8 RGB (N, size, size, 3).
        labels: their labels, int (N,).
        classes: number of classes.
        device: "cuda" or "cpu".
        teachers: the teachers, if there are any.
    """

    def __init__(
        self,
        config: TrainConfig,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        classes: int,
        device: str,
        teachers: Sequence[FrozenTeacher] = (),
    ) -> None:
        import torch

        self._config, self._device, self._size = config, device, pixels.shape[1]
        self.pixels = torch.from_numpy(pixels).to(device)
        self._labels = torch.from_numpy(labels).to(device)
        self._colours = augment.palettes(pixels) if config.recolour else None
        self.x = torch.zeros((config.batch, self._size, self._size, 3), device=device)
        self.target, self.soft = (torch.zeros((config.batch, classes), device=device) for _ in range(2))
        self.teachers = tuple(teachers)
        self._answers: dict[int, Any] = {}
        self._kept: Path | None = None

    @property
    def has_answers(self) -> bool:
        """True if there are answers of teachers."""
        return bool(self.teachers or self._answers)

    def begin(self, kept: Path | None = None) -> None:
        """Forget the teachers' answers, and read them from the file ``kept`` if it exists.

        Otherwise they are written there once all views are answered.
        """
        import torch

        self._kept, self._answers = kept, {}
        if kept and kept.exists():
            whole = torch.from_numpy(np.load(kept)).to(self._device)
            self._answers = dict(enumerate(whole))

    def steps(self, chances: npt.NDArray[np.float64], epoch: int, count: int) -> Iterator[None]:
        """Fill the inputs of ``count`` steps, one step for each item that is taken.

        Args:
            chances: the probability of each frame to be drawn, float64 (N,).
            epoch: number of the epoch.
            count: number of steps.
        """
        import torch

        config = self._config
        again = bool(config.views) and epoch >= config.views
        view = epoch % config.views if config.views else epoch
        known = self._answers.get(view)
        teachers = self.teachers if known is None else ()
        draws = draw_epoch(chances, self._size, config, view, count, self._colours)
        rows = torch.from_numpy(draws.rows.astype(np.int64)).to(self._device)
        share = self._to_device(draw_mixing(config, view, count))
        own = self._varied(draws.variation)
        others = [
            self._varied(draw_epoch(chances, t.size, config, view, count, self._colours).variation)
            for t in teachers
        ]
        turns = np.random.default_rng((config.seed, epoch, 2)).integers(0, 8, count) * again
        answers = []
        for step in range(count):
            with torch.no_grad():
                here, mixed = rows[step], share[step]
                truth = torch.nn.functional.one_hot(self._labels[here], self.target.shape[1]).float()
                self.target.copy_(torch.lerp(truth, truth.roll(1, 0), mixed[:, None]))
                x = self._view(self.pixels[here], [v[step] for v in own], mixed)
                self.x.copy_(_turned(x, int(turns[step])))
                if known is not None:
                    self.soft.copy_(known[step])
                elif teachers:
                    given = [
                        self._ask(teacher, self._view(teacher.pixels[here], [v[step] for v in other], mixed))
                        for teacher, other in zip(teachers, others, strict=True)
                    ]
                    self.soft.copy_(torch.stack(given).mean(0))
                    answers.append(self.soft.clone())
            yield
        if config.views and answers:
            self._keep(view, torch.stack(answers))

    def _keep(self, view: int, answers: Any) -> None:
        """Keep the answers to a view, and write all answers once every view has some."""
        self._answers[view] = answers
        if self._kept and len(self._answers) == self._config.views:
            whole = np.stack([self._answers[v].cpu().numpy() for v in range(self._config.views)])
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(self._kept, whole)

    def _ask(self, teacher: FrozenTeacher, x: Any) -> Any:
        """Return a teacher's probabilities, in bfloat16 on a GPU."""
        import torch

        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            return teacher.graph.run(x).softmax(1)

    def _view(self, pixels: Any, variation: list[Any], mixed: Any) -> Any:
        """Augment frames and mix neighbours."""
        import keras
        import torch

        x = augment.apply(pixels, augment.Variation(*variation), keras.ops, move)
        return torch.lerp(x, x.roll(1, 0), mixed[:, None, None, None])

    def _varied(self, variation: augment.Variation) -> list[Any]:
        return [self._to_device(values) for values in variation]

    def _to_device(self, values: npt.NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(np.asarray(values, np.float32)).to(self._device)


def answers_file(
    folder: Path, part: str, teachers: Sequence[str], config: TrainConfig, recorded: str = ""
) -> Path | None:
    """Return the file for the answers of ``teachers`` to the draws of ``config``.

    Args:
        folder: the folder of all recipes.
        part: "all", or "fold0", "fold1"...
        teachers: names of the teachers.
        config: the training configuration.
        recorded: identifies the recordings whose frames are drawn too; empty without any.

    Returns:
        The path, or None if no draw is repeated or there is no teacher.
    """
    if not (teachers and config.views):
        return None
    drawn = [list(teachers), config.drawing(), *([recorded] if recorded else [])]
    identity = json.dumps(drawn, sort_keys=True)
    return folder / "answers" / f"{part}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}.npy"


def move(x: Any, move: Any) -> Any:
    """Transform frames (N, S, S, 3) bilinearly; ``move`` (N, 8) maps output pixels to input pixels."""
    import torch

    size = x.shape[1]
    at = torch.arange(size, device=x.device, dtype=torch.float32).repeat(size, 1)
    here = torch.stack([at, at.T, torch.ones_like(at)], -1).reshape(1, -1, 3)
    there = here @ move[:, :6].reshape(-1, 2, 3).transpose(1, 2)
    grid = (there * 2 - (size - 1)) / (size - 1)
    return torch.nn.functional.grid_sample(
        x.permute(0, 3, 1, 2), grid.reshape(-1, size, size, 2), mode="bilinear", align_corners=True
    ).permute(0, 2, 3, 1)


def _turned(x: Any, turn: int) -> Any:
    """Return a batch (N, S, S, 3) in one of its eight orientations; 0 leaves it unchanged."""
    x = x.rot90(turn % 4, (1, 2))
    return x.flip(2) if turn >= 4 else x
