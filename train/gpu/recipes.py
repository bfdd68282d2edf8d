"""Recipes: named sets of settings that are trained one after the other, each by cross-validation.

A recipe maps the fields of ``TrainConfig`` that differ from the defaults to their values. Further keys:

- ``"keep": true`` keeps the weights and answers of each part in a folder (``cross_validation``).
- ``"folds": [-1, 0, 1]`` trains only these folds; -1 stands for all of ``train``.
- ``"teachers": [NAME...]`` distils from kept recipes.
- ``"start": NAME`` starts from the weights of a kept recipe.
- ``"int8": [{...}, ...]`` then trains the kept weights for 8 bits, pass after pass (``torch_qat.Int8Pass``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, OutputError, UsageError
from capsule_edge.runtime.results import lock_folder

from ..config import TrainConfig
from ..models import Arrays, architectures, weights
from .cross_validation import RecipeData, name_part, run_recipe
from .torch_qat import Int8Pass, train_int8

__all__ = ["Recipe", "check_recipes", "read_backbones", "read_recipes", "train_recipes"]

_OWN = ("keep", "folds", "teachers", "start", "int8")  # keys of a recipe that are no fields of TrainConfig
_JOURNAL = "folds.jsonl"  # a line for each recipe: scores, seconds and curves
_INT8_JOURNAL = "int8.jsonl"  # a line for each pass and part


@dataclass(frozen=True)
class Recipe:
    """One recipe of the file.

    Attributes:
        name: its name, and the name of its folder.
        config: the training configuration.
        fields: the fields of ``config`` as the file has them.
        keep: whether weights and answers are kept.
        folds: the folds to train, -1 for all of ``train``; None for every fold and, if kept, all of ``train``.
        teachers: names of kept recipes to distil from.
        start: name of a kept recipe to start from; empty for a backbone or fresh weights.
        int8: the passes for 8 bits, in order.
    """

    name: str
    config: TrainConfig
    fields: Mapping[str, Any]
    keep: bool = False
    folds: tuple[int, ...] | None = None
    teachers: tuple[str, ...] = ()
    start: str = ""
    int8: tuple[Int8Pass, ...] = ()

    def parts(self, folds: int) -> tuple[str, ...]:
        """Return the names of the parts that are trained, of so many ``folds``."""
        numbers = (*([-1] if self.keep else []), *range(folds)) if self.folds is None else self.folds
        return tuple(name_part(number) for number in numbers)


def read_recipes(path: Path) -> tuple[Recipe, ...]:
    """Read a file of recipes, JSON: names and settings, in the order of training.

    Raises:
        InputError: the file cannot be read, or a recipe has an unknown or impossible setting.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content:
            raise UsageError("it has no names of recipes")
        return tuple(_read_recipe(name, fields) for name, fields in content.items())
    except (OSError, ValueError, UsageError) as error:
        raise InputError(f"{path} holds no recipes: {error}") from None


def _read_recipe(name: str, fields: Any) -> Recipe:
    """Return a recipe of the file; messages begin with its name."""
    if not name or Path(name).name != name or "." in name:
        raise UsageError(f"{name!r} is no name for a recipe: it names a folder, without a point")
    if not isinstance(fields, dict):
        raise UsageError(f"{name}: it has no names and values")
    own = {key: value for key, value in fields.items() if key in _OWN}
    rest = {key: value for key, value in fields.items() if key not in _OWN}
    try:
        config = TrainConfig.of(rest)
        passes = tuple(_read_pass(each) for each in _list(own, "int8", dict))
        recipe = Recipe(
            name, config, rest,
            keep=_value(own, "keep", bool, False), start=_value(own, "start", str, ""),
            folds=tuple(_list(own, "folds", int)) if "folds" in own else None,
            teachers=tuple(_list(own, "teachers", str)), int8=passes,
        )  # fmt: skip
        _check_passes(recipe)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    return recipe


def _value(own: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = own.get(key, default)
    if type(value) is not kind:
        raise UsageError(f"{key} is {value!r}, allowed is {'true or false' if kind is bool else 'a name'}")
    return value


def _list(own: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    """Return a list of the recipe whose items are of one kind; empty where it has none."""
    values = own.get(key, [])
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        allowed = {int: "whole numbers", str: "names", dict: "passes with names and values"}[kind]
        raise UsageError(f"{key} is {values!r}, allowed is a list of {allowed}")
    return values


def _read_pass(fields: dict[str, Any]) -> Int8Pass:
    """Return a pass for 8 bits."""
    known = {field.name: field for field in dataclasses.fields(Int8Pass)}
    if odd := [key for key in fields if key not in known]:
        raise UsageError(f"the field {odd[0]!r} of a pass is not known, allowed are {', '.join(known)}")
    shared = ("epochs", "learning_rate", "closeness", "distillation")
    # These fields have the limits that they have in a configuration.
    checked = TrainConfig.of({key: fields[key] for key in shared if key in fields})
    values: dict[str, Any] = {key: getattr(checked, key) for key in shared if key in fields}
    for key, kind in (("name", str), ("start", str), ("even", bool), ("own_answers", bool)):
        if key in fields:
            values[key] = _value(fields, key, kind, None)
    if "parts" in fields:
        values["parts"] = tuple(_list(fields, "parts", str))
    return Int8Pass(**values)


def _check_passes(recipe: Recipe) -> None:
    """Check that each pass can begin when its turn comes."""
    if not recipe.int8:
        return
    if not recipe.keep:
        raise UsageError("it has passes for 8 bits and is not kept", hint='add "keep": true')
    known: set[str] = set()
    for each in recipe.int8:
        if not each.name or "." in each.name or Path(each.name).name != each.name:
            raise UsageError(
                f"{each.name!r} is no name for a pass: it is a part of a file's name, without a point"
            )
        if each.name in known:
            raise UsageError(f"two passes have the name {each.name}")
        if each.start and each.start not in known:
            raise UsageError(f"the pass {each.name} starts from {each.start!r}, which is no pass before it")
        known.add(each.name)


def read_backbones(pretrained: Sequence[str]) -> dict[str, Arrays]:
    """Return the weights that each ARCHITECTURE=FILE names, by architecture.

    Raises:
        UsageError: one has no "=", or its architecture is not known.
        InputError: a file holds no weights.
    """
    found: dict[str, Arrays] = {}
    for given in pretrained:
        name, _, file = given.partition("=")
        if not file:
            raise UsageError(f"the pretrained weights are {given!r}, allowed is ARCHITECTURE=FILE")
        _check_architecture(name)
        found[name] = weights.load(Path(file))
    return found


def _check_architecture(name: str) -> None:
    if name not in architectures.ARCHITECTURES:
        allowed = ", ".join(sorted(architectures.ARCHITECTURES))
        raise UsageError(f"the architecture is {name!r}, allowed is one of {allowed}")


def check_recipes(
    recipes: Sequence[Recipe], out: Path, folds: int, *, only: Sequence[int] = ()
) -> tuple[Recipe, ...]:
    """Check that every recipe can be trained when its turn comes, before any data is read.

    Args:
        recipes: the recipes, in order.
        out: the folder of all recipes, in which earlier ones may lie.
        folds: number of folds.
        only: train these folds instead of those that the recipes name; -1 stands for all of ``train``.

    Returns:
        The recipes, with the folds of ``only`` if there are any.

    Raises:
        UsageError: a fold, an architecture, a teacher, a start or a part of them does not exist, or a configuration
            asks for early stopping.
    """
    if only:
        recipes = [dataclasses.replace(recipe, folds=tuple(only)) for recipe in recipes]
    there: dict[str, set[str]] = {}
    for recipe in recipes:
        if wrong := [number for number in recipe.folds or () if not -1 <= number < folds]:
            raise UsageError(
                f"{recipe.name}: there is no fold {wrong[0]} of {folds}, they are -1 to {folds - 1}"
            )
        try:
            _check_architecture(recipe.config.architecture)
        except UsageError as error:
            raise UsageError(f"{recipe.name}: {error}") from None
        if recipe.config.patience:
            raise UsageError(
                f"{recipe.name}: patience is {recipe.config.patience}, allowed is 0: there is no early stopping"
            )
        parts = recipe.parts(folds)
        for name in (*recipe.teachers, *([recipe.start] if recipe.start else [])):
            kept = there.get(name, set()) | _kept_parts(out / name)
            if missing := [part for part in parts if part not in kept]:
                raise UsageError(
                    f"{recipe.name}: it needs the weights {name}/{missing[0]}.npz, and no recipe before it keeps them",
                    hint=f'train {name} first, with "keep": true and the same folds',
                )
        kept = set(parts) | _kept_parts(out / recipe.name)
        for each in recipe.int8:
            if missing := [part for part in each.parts if part not in kept]:
                raise UsageError(f"{recipe.name}: the pass {each.name} needs the part {missing[0]}")
            if "all" in each.parts and not any(part.startswith("fold") for part in kept):
                raise UsageError(f"{recipe.name}: the pass {each.name} needs a fold, whose answers calibrate")
        if recipe.keep:
            there.setdefault(recipe.name, set()).update(parts)
    return tuple(recipes)


def _kept_parts(folder: Path) -> set[str]:
    """Return the parts whose weights lie in the folder of a kept recipe."""
    return {path.stem for path in folder.glob("*.npz") if (folder / "config.json").is_file()}


def train_recipes(
    recipes: Sequence[Recipe],
    data: RecipeData,
    out: Path,
    *,
    folds: int,
    backbones: Mapping[str, Arrays],
    note: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Train recipes in order, each as its file says, and write a line for each into ``folds.jsonl``.

    Args:
        recipes: recipes that ``check_recipes`` returned.
        data: the training data.
        out: the folder of all recipes.
        folds: number of folds.
        backbones: pretrained weights by architecture.
        note: called with a line after each epoch, recipe and pass.

    Returns:
        For each recipe its name, the scores of the pooled out-of-fold answers, parts and seconds.

    Raises:
        UsageError: a recipe kept earlier had other recordings.
        OutputError: the folder cannot be written, or another training holds its lock.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}") from None
    import cv2
    import torch

    cv2.setNumThreads(1)  # Frames are loaded on several threads already.
    if not torch.cuda.is_available():
        note({"warning": "PyTorch finds no GPU: this takes hours where a GPU takes minutes"})
    with lock_folder(out):
        return [_train_recipe(recipe, data, out, folds, backbones, note) for recipe in recipes]


def _train_recipe(
    recipe: Recipe,
    data: RecipeData,
    out: Path,
    folds: int,
    backbones: Mapping[str, Arrays],
    note: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train one recipe and its passes for 8 bits."""
    folder = out / recipe.name

    def tell(line: dict[str, Any]) -> None:
        note({"recipe": recipe.name, **line})

    if recipe.keep:
        folder.mkdir(exist_ok=True)
    line = run_recipe(
        recipe.config, data, folds=folds, teachers=[out / name for name in recipe.teachers],
        keep=folder if recipe.keep else None, only=recipe.folds,
        initial=out / recipe.start if recipe.start else backbones.get(recipe.config.architecture, {}), note=tell,
    )  # fmt: skip
    curves = line.pop("curves")
    tell(line)
    settings = {**recipe.fields, "teachers": list(recipe.teachers)}
    _add_line(out / _JOURNAL, {"name": recipe.name, **line, "config": settings, "curves": curves})
    for each in recipe.int8:
        for part in each.parts:
            curve: list[dict[str, Any]] = []

            def keep(
                line: dict[str, Any], curve: list[dict[str, Any]] = curve, each: Int8Pass = each
            ) -> None:
                curve.append(line)
                tell({"pass": each.name, **line})

            train_int8(folder, data, each, part, folds=folds, teachers=recipe.teachers, note=keep)
            journal = {"recipe": recipe.name, "pass": dataclasses.asdict(each), "part": part, "curve": curve}
            _add_line(out / _INT8_JOURNAL, journal)
    return {"name": recipe.name, **line}


def _add_line(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
