"""``capsule-edge train --recipes``: train recipes with PyTorch, on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import PackageError, UsageError

if TYPE_CHECKING:
    from capsule_edge.train.gpu import Recipe

__all__ = ["RecipeOptions", "print_recipes", "run_recipes"]

_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The options of ``train`` that recipes take, as click parsed them."""

    recipes: Path
    folds: int | None
    only: tuple[int, ...]
    pretrained: tuple[str, ...]
    data: Path | None
    label_map: Path | None
    recordings: Path | None
    weigh: Path | None
    boxes: Path | None
    out: Path


def run_recipes(options: RecipeOptions, note: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Check everything, then train the recipes in order.

    Returns:
        For each recipe its name, scores, parts and seconds.

    Raises:
        PackageError: PyTorch or Keras is not installed.
        CapsuleEdgeError: an option, a recipe or the data do not fit.
    """
    from capsule_edge.evaluation._extras import require

    for module in ("torch", "keras"):
        if find_spec(module) is None:  # no extra of ours brings them
            raise PackageError(
                f"--recipes needs {module}, which is not installed",
                hint=f"pip install {module}, on a machine with a GPU",
            )
    require("sklearn", what="--recipes")
    from capsule_edge.train.gpu import RecipeData, check_recipes, read_backbones, read_recipes, train_recipes

    if options.data is None:
        raise UsageError("--recipes needs --data", hint="name the folder of the labelled images")
    folds = options.folds or _FOLDS
    backbones = read_backbones(options.pretrained)
    recipes = check_recipes(read_recipes(options.recipes), options.out, folds, only=options.only)
    data = RecipeData(options.data, options.boxes, options.recordings, options.weigh, options.label_map)
    _check_boxes(recipes, options.boxes)
    return train_recipes(recipes, data, options.out, folds=folds, backbones=backbones, note=note)


def _check_boxes(recipes: Sequence[Recipe], boxes: Path | None) -> None:
    """Refuse transplants without the table of lesions before any frame is prepared."""
    from capsule_edge.train.data import check_boxes

    for recipe in recipes:
        check_boxes(recipe.config, boxes)


def print_recipes(found: Sequence[dict[str, Any]], out: Path) -> None:
    """Print the scores of each recipe, and the command that makes a RUN folder from one."""
    for line in found:
        scores = "  ".join(
            f"{name} {value:.3f}"
            for name, value in line.items()
            if isinstance(value, float) and name != "seconds"
        )
        click.echo(f"{line['name']}: {scores or 'no fold was held out'}")
    click.echo(f"{out} has weights and answers: capsule-edge train --fp32 FILE --calibrate-on FILE --out RUN")
