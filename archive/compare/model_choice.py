"""Choose the two models of a comparison: by a file, the name of an installed model, or a hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.errors import CapsuleEdgeError, UsageError
from capsule_edge.runtime.inference import INSTALLED, default_model

__all__ = ["ModelChoice", "choose_models", "find_model_files"]

_HASH = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class ModelChoice:
    """A model that the user named.

    Attributes:
        named: what the user wrote.
        sha256: the first digits of its SHA-256, 6 to 64.
        path: its file; None if only the hash is known.
    """

    named: str
    sha256: str
    path: Path | None = None

    def fits(self, sha256: str) -> bool:
        """Return whether a model is the one that was named."""
        return sha256.startswith(self.sha256)


def choose_models(named: Sequence[str]) -> tuple[ModelChoice, ...]:
    """Return the models that the user named.

    Args:
        named: for each model a file, the name of an installed model, or the first digits (6 or more) of a SHA-256.

    Raises:
        UsageError: a name is none of these, or the models are the same.
    """
    choices = tuple(_choose(each) for each in named)
    if len(choices) == 2 and (choices[0].fits(choices[1].sha256) or choices[1].fits(choices[0].sha256)):
        raise UsageError(
            f"{choices[0].named} and {choices[1].named} are the same model, two are needed",
            hint="name the old model and the new one",
        )
    return choices


def find_model_files(choices: Sequence[ModelChoice | None]) -> Mapping[str, Path]:
    """Return the model files that are at hand, by SHA-256: the installed models, and those that the user named."""
    found: dict[str, Path] = {}
    for name in INSTALLED:
        try:
            path = default_model(name)
            found[_hash(path)] = path
        except (CapsuleEdgeError, OSError):
            continue
    for choice in choices:
        if choice is not None and choice.path is not None:
            found[choice.sha256] = choice.path
    return found


def _choose(named: str) -> ModelChoice:
    # An archive may have the name of a model, so a folder is no model here.
    if Path(named).is_file() or named in INSTALLED:
        path = Path(named) if Path(named).is_file() else default_model(named)
        try:
            return ModelChoice(named, _hash(path), path)
        except OSError as error:
            raise UsageError(
                f"the model {named} cannot be read: {(error.strerror or str(error)).lower()}"
            ) from error
    if _HASH.fullmatch(named.lower()):
        return ModelChoice(named, named.lower())
    raise UsageError(
        f"{named!r} is no model: allowed are a file, {', '.join(INSTALLED)}, or 6 or more digits of a SHA-256",
        hint="'archive status' and the tables name the models by their SHA-256",
    )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
