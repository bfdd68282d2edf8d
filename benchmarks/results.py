"""Write and read committed results: the figures of a benchmark with its command, commit, machine and models.

``benchmarks/results`` has one JSON file per benchmark, schema ``capsule-edge/result/1``. ``benchmarks.all`` writes
them; ``performance`` and ``details`` render the tables of the documents from them.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, OutputError
from capsule_edge.runtime.results import commit_files

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
# Changes of these paths change no figure.
_IGNORED = tuple(f":!{path}" for path in ("benchmarks/results", "docs", "tests", "README.md", "CHANGELOG.md"))


@dataclass(frozen=True)
class Result:
    """The result of one benchmark.

    Attributes:
        benchmark: name of the benchmark, and of the file without ``.json``.
        command: the command, run in the root of the repository.
        commit: the code that was measured (``describe_commit``).
        measured: start of the measurement, ISO 8601 in UTC.
        seconds: how long the command took.
        quick: whether it was the short version of the command (``benchmarks.all --quick``).
        machine: the machine card; its load is the one before the command started.
        load_after: load average of the minute before the command ended, or None if the system has none.
        models: SHA-256 of each model file that the command names, by its path in the repository.
        found: the JSON of the benchmark's last line.
        others: cores that other programs, the system included, used on average meanwhile; None if not known.
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
        """True if other programs used more than a quarter of a core.

        If that is not known: whether the load before the command was above 1.5 times the number of cores.
        """
        if self.others is not None:
            return self.others > 0.25
        load, cores = self.machine["load_1min"], self.machine["cores_allowed"]
        return load is not None and load > 1.5 * float(cores)

    def replaced(self, shipped: Mapping[str, str]) -> set[str]:
        """Return the paths of the measured models that have changed or are gone since.

        Args:
            shipped: SHA-256 of the present models by path (``hash_models``).
        """
        return {path for path, digest in self.models.items() if shipped.get(path) != digest}

    def is_of(self, other: Result) -> bool:
        """Return whether both are of the same command, commit, models, processor and number of cores."""
        same = ("benchmark", "command", "commit", "quick", "models")
        cards = [(one.machine["cpu"], one.machine["cores_allowed"]) for one in (self, other)]
        return cards[0] == cards[1] and all(getattr(self, name) == getattr(other, name) for name in same)


def hash_models(root: Path, files: Mapping[str, Path] | None = None) -> dict[str, str]:
    """Return SHA-256 hashes of model files by name.

    Args:
        root: root of the repository.
        files: the files to hash, by name. By default all models that ship, by their path below ``root``.
    """
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
    """Return the last commit that changed code or models; results, documents and tests do not count.

    Args:
        root: root of a checkout.

    Returns:
        12 hexadecimal digits, followed by ``+`` if code or models have changed since that commit.

    Raises:
        InputError: ``root`` is not a git checkout.
    """
    try:
        commit = _git(root, "log", "-1", "--format=%h", "--abbrev=12", "--", ".", *_IGNORED)
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_IGNORED)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"{root} is no checkout of the repository: {error}", hint="run it in the folder that has .git"
        ) from None
    return commit + "+" * bool(changed)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_result(result: Result, folder: Path) -> Path:
    """Write ``folder/<benchmark>.json``, complete or not at all, and return its path.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **asdict(result)}, ensure_ascii=False, allow_nan=False, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None
    name = f"{result.benchmark}.json"
    return commit_files(folder, {name: (_shorten(text) + "\n").encode()}, sign=name)[name]


def _shorten(text: str) -> str:
    """Put each list of numbers on one line, so that people can read the changes of a result."""
    one = re.sub(r"\[[-+\d.e,\s]+\]", lambda found: " ".join(found.group().split()), text)
    return one.replace("[ ", "[").replace(" ]", "]")


def read_result(path: Path) -> Result:
    """Read a file that ``write_result`` wrote.

    Raises:
        InputError: the file cannot be read or is not a result.
    """
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
    """Return all results of a folder by benchmark; empty if it has none. Raises as ``read_result`` does."""
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
