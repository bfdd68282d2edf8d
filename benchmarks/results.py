"""Committed results: what a benchmark found, with the command, commit, machine and models that it is of.

One JSON file for each benchmark, schema ``capsule-edge/result/1``, in ``benchmarks/results``. ``all`` writes them;
``performance`` makes the README's table of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, OutputError

__all__ = [
    "SCHEMA",
    "Result",
    "describe_commit",
    "hash_models",
    "read_result",
    "read_results",
    "write_result",
]

SCHEMA = "capsule-edge/result/1"
# What changes no figure: results themselves, documents, tests.
_BESIDE = tuple(f":!{path}" for path in ("benchmarks/results", "docs", "tests", "README.md", "CHANGELOG.md"))


@dataclass(frozen=True)
class Result:
    """What one benchmark found.

    ``command`` is run in the root of the repository at ``commit`` (``describe_commit``); ``models`` are SHA-256 by the
    file's path there; ``machine`` is the machine card, its load that before the command began, ``load_after`` that of
    the minute in which it ended (None where the system does not tell); ``found`` is the benchmark's own last line;
    ``others`` are the cores that other programs used meanwhile (the system itself is among them).
    """

    benchmark: str
    command: str
    commit: str
    measured: str
    seconds: float
    quick: bool
    machine: Mapping[str, Any]
    load_after: float | None
    models: Mapping[str, str]
    found: Mapping[str, Any]
    others: float | None = None

    @property
    def was_disturbed(self) -> bool:
        """Whether others used more than a quarter of a core; by the load where that is not known."""
        if self.others is not None:
            return self.others > 0.25
        load, cores = self.machine["load_1min"], self.machine["cores_allowed"]
        return load is not None and load > 1.5 * float(cores)

    def replaced(self, shipped: Mapping[str, str]) -> set[str]:
        """The files that it was measured with and that ship no more as they were."""
        return {path for path, digest in self.models.items() if shipped.get(path) != digest}

    def is_of(self, other: Result) -> bool:
        """Whether measuring again would measure the same: command, commit, models, processor and cores."""
        same = ("benchmark", "command", "commit", "quick", "models")
        cards = [(one.machine["cpu"], one.machine["cores_allowed"]) for one in (self, other)]
        return cards[0] == cards[1] and all(getattr(self, name) == getattr(other, name) for name in same)


def hash_models(root: Path, files: Mapping[str, Path] | None = None) -> dict[str, str]:
    """SHA-256 of the models that ship, by path below ``root``; or of ``files``, by the names given."""
    if files is None:
        found = [
            path
            for folder in ("runtime/models", "models")
            for path in sorted((root / folder).glob("*"))
            if path.suffix in (".onnx", ".tflite")
        ]
        files = {path.relative_to(root).as_posix(): path for path in found}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def describe_commit(root: Path) -> str:
    """The last commit of the checkout at ``root`` that changed what is measured: code or models, not results,
    documents or tests; with a ``+`` where such have changed since.

    Raises ``InputError`` where there is no checkout.
    """
    try:
        commit = _git(root, "log", "-1", "--format=%h", "--abbrev=12", "--", ".", *_BESIDE)
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_BESIDE)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"{root} is no checkout of the repository: {error}", hint="run it where .git is"
        ) from None
    return commit + "+" * bool(changed)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_result(result: Result, folder: Path) -> Path:
    """Write ``folder/<benchmark>.json``, whole or not at all. Raises ``OutputError``."""
    path = folder / f"{result.benchmark}.json"
    text = json.dumps({"schema": SCHEMA, **asdict(result)}, ensure_ascii=False, allow_nan=False, indent=1)
    partial = path.with_name(path.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(_shorten(text) + "\n", encoding="utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _shorten(text: str) -> str:
    """Lists of numbers on one line: a change of results is read by people."""
    one = re.sub(r"\[[-+\d.e,\s]+\]", lambda found: " ".join(found.group().split()), text)
    return one.replace("[ ", "[").replace(" ]", "]")


def read_result(path: Path) -> Result:
    """Raises ``InputError`` for what is no result."""
    try:
        document = json.loads(path.read_text("utf-8"))
        if document.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA!r}")
        return Result(**document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no result: {error}", hint="write it with python -m capsule_edge.benchmarks.all"
        ) from None


def read_results(folder: Path) -> dict[str, Result]:
    """Every result of the folder, by benchmark; none where there is none."""
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
