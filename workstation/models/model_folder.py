"""List, add, choose and roll back the models of a workstation.

The folder holds each model as a file named by its SHA-256, and ``models.json``, which names the model in use and its
predecessors. A change takes the folder's lock and replaces ``models.json`` whole, so the service and the command line
may both use the folder. No file is ever removed: results name the model that made them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import ModelError, OutputError, UsageError
from capsule_edge.runtime.inference import (
    BACKENDS,
    INSTALLED,
    ModelSpec,
    default_model,
    find_format,
    open_model,
    readers_of,
)
from capsule_edge.runtime.results import lock_folder, write_whole

from ..home_folder import make_home
from ..store import utc_now

__all__ = ["CheckedModel", "KnownModel", "ModelChange", "ModelFolder", "check_model", "engine_of"]

_INDEX = "models.json"
_SCHEMA = "capsule-edge/models/1"


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model of the workstation.

    Attributes:
        sha256: SHA-256 of the file, hexadecimal.
        name, version, precision: as its ModelSpec states them.
        labels: its labels, each with ``key``, ``name`` and ``role``.
        shipped: the name by which this installation ships it, such as ``standard``; empty for any other model.
        added_at: UTC time at which it was added; None for a model that only ships with the installation.
        file: name of the file in the folder; empty for a model that only ships with the installation.
    """

    sha256: str
    name: str
    version: str
    precision: str
    labels: tuple[dict[str, str], ...]
    shipped: str = ""
    added_at: str | None = None
    file: str = ""

    def document(self, *, in_use: bool) -> dict[str, Any]:
        """Return the model as JSON values."""
        return {
            "sha256": self.sha256,
            "name": self.name,
            "version": self.version,
            "precision": self.precision,
            "labels": [dict(label) for label in self.labels],
            "in_use": in_use,
            "shipped": self.shipped or None,
            "added_at": self.added_at,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedModel:
    """The facts of a model file that an engine has opened.

    Attributes:
        sha256, name, version, precision, labels: as in ``KnownModel``.
        suffix: ``.onnx`` or ``.tflite``.
    """

    sha256: str
    name: str
    version: str
    precision: str
    labels: tuple[dict[str, str], ...]
    suffix: str


@dataclass(frozen=True)
class ModelChange:
    """A change of the model in use.

    Attributes:
        before, after: SHA-256 of the model before and after.
        action: ``use`` or ``rollback``.
    """

    before: str
    after: str
    action: str


class ModelFolder:
    """The models in one folder. Any number of threads and processes may use it."""

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: made when the first model is added or kept, in the workstation's home folder.
        """
        self.folder = folder
        self._shipped: dict[str, KnownModel] | None = None
        # The lock of the folder refuses a second holder instead of letting it wait.
        self._mutex = threading.Lock()

    def list(self) -> list[KnownModel]:
        """Return all models: those that come with the installation first, then the others as they were added.

        Raises:
            ModelError: ``models.json`` is damaged.
        """
        known = {model.sha256: model for model in _models_of(self._read())}
        merged = [_with_file(model, known.pop(model.sha256, None)) for model in self._list_shipped().values()]
        return [*merged, *known.values()]

    @property
    def in_use(self) -> KnownModel:
        """The model that reads new studies; the standard one until another was chosen.

        Raises:
            ModelError: the model that was chosen is not there any more.
        """
        chosen, models = self.chosen, self.list()
        if not chosen:
            return next((model for model in models if model.shipped == "standard"), models[0])
        found = next((model for model in models if model.sha256 == chosen), None)
        if found is None:
            raise ModelError(
                f"the model in use, {chosen[:12]}, is not there any more",
                hint="restore a backup of the home folder, or choose another: capsule-edge models use NAME",
            )
        return found

    @property
    def chosen(self) -> str:
        """SHA-256 of the model that was chosen last; empty until one was chosen."""
        return str(self._read()["in_use"])

    def document(self) -> dict[str, Any]:
        """Return the models and the history of the choices, as JSON values."""
        models, used = self.list(), ""
        with suppress(ModelError):
            used = self.in_use.sha256
        return {
            "models": [model.document(in_use=model.sha256 == used) for model in models],
            "history": self._read()["history"],
        }

    def find(self, name: str) -> KnownModel:
        """Return the model with this SHA-256 (or at least 8 digits that begin it), or this shipped name.

        Raises:
            ModelError: no model has this name, or several begin with these digits.
        """
        models = self.list()
        found = [model for model in models if name in (model.sha256, model.shipped)]
        if not found and len(name) >= 8:
            found = [model for model in models if model.sha256.startswith(name.lower())]
        if len(found) != 1:
            allowed = ", ".join(model.shipped or model.sha256[:12] for model in models)
            raise ModelError(
                f"{'several models begin' if found else 'no model of this workstation has the name'}"
                f" {name[:80]!r}, known are {allowed}",
                hint="add the model first, or name it by its SHA-256",
            )
        return found[0]

    def add(self, source: Path, *, check: Callable[[Path], CheckedModel] | None = None) -> KnownModel:
        """Check a model file and copy it into the folder. A model that is there already stays as it is.

        Args:
            source: the file.
            check: opens the file and returns its facts; None for ``check_model``.

        Raises:
            ModelError: the file is no model, or its 8-bit sums saturate on this CPU.
            BackendError: no installed engine can run it.
            OutputError: the file cannot be copied.
        """
        checked = (check or check_model)(source)
        content, digest = _read_unchanged(source, checked), checked.sha256
        with self._changing() as index:
            for model in _models_of(index):
                if model.sha256 == digest:
                    return model
            added = _known(checked, added_at=utc_now(), file=f"{digest}{checked.suffix}")
            write_whole(self.folder / added.file, content)
            index["models"].append(_entry(added))
        return next(model for model in self.list() if model.sha256 == digest)

    def path_of(self, sha256: str) -> Path:
        """Return the file of a model, for reading. A shipped model is copied into the folder first.

        A later installation may ship other models; the results of this one must keep theirs.

        Raises:
            ModelError: there is no such model, or its file is gone or was changed.
        """
        model = self.find(sha256)
        if not model.file:
            model = self.add(default_model(model.shipped))
        path = self.folder / model.file
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(
                f"the file of the model {sha256[:12]} cannot be read: {(error.strerror or str(error)).lower()}",
                hint="restore a backup of the home folder, or add the model again",
            ) from error
        if digest != sha256:
            raise ModelError(
                f"the file of the model {sha256[:12]} was changed, its SHA-256 is {digest[:12]}",
                hint="restore a backup of the home folder",
            )
        return path

    def use(self, name: str) -> ModelChange:
        """Read new studies with this model from now on.

        Args:
            name: as in ``find``.

        Raises:
            ModelError: there is no such model.
        """
        model = self.find(name)
        self.path_of(model.sha256)
        before = self.chosen or self.in_use.sha256
        # Keep the file of a shipped model, so that a roll-back finds it after an update of the installation too.
        with suppress(ModelError):
            self.path_of(before)
        with self._changing() as index:
            index["in_use"] = model.sha256
            if model.sha256 != before:
                index["history"].append({"at": utc_now(), "before": before, "after": model.sha256})
        return ModelChange(before, model.sha256, "use")

    def roll_back(self) -> ModelChange:
        """Use the model again that was in use before the last choice.

        Raises:
            UsageError: no other model was chosen before.
            ModelError: that model is not there any more, or its file was changed.
        """
        known = {model.sha256 for model in self.list()}
        with self._changing() as index:
            if not index["history"]:
                raise UsageError(
                    "there is no earlier model to go back to", hint="choose one: capsule-edge models use NAME"
                )
            last = index["history"].pop()
            if last["before"] not in known:
                raise ModelError(
                    f"the earlier model {last['before'][:12]} is not there any more",
                    hint="choose one that is there: capsule-edge models use NAME",
                )
            index["in_use"] = last["before"]
        return ModelChange(last["after"], last["before"], "rollback")

    def label_names(self, sha256: str) -> dict[str, str]:
        """Return the names of a model's labels by key; empty for a model that is not known."""
        for model in self.list():
            if model.sha256 == sha256:
                return {label["key"]: label["name"] for label in model.labels}
        return {}

    def _list_shipped(self) -> dict[str, KnownModel]:
        if self._shipped is None:
            found = {}
            for name in INSTALLED:
                with closing(open_model(default_model(name), threads=1)) as opened:
                    found[name] = _known(_facts(opened.spec, opened.sha256, ".onnx"), shipped=name)
            self._shipped = found
        return self._shipped

    def _read(self) -> dict[str, Any]:
        path = self.folder / _INDEX
        try:
            index = json.loads(path.read_text("utf-8"))
            if index["schema"] != _SCHEMA:
                raise ModelError(
                    f"{_INDEX} is of the schema {index['schema']!r}, allowed is {_SCHEMA}",
                    hint="use the version of capsule-edge that wrote it",
                )
            _models_of(index)
            return dict(index, in_use=str(index["in_use"]), history=list(index["history"]))
        except FileNotFoundError:
            return {"schema": _SCHEMA, "in_use": "", "history": [], "models": []}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{_INDEX} of the models cannot be read: {error}",
                hint="restore a backup of the home folder, or remove the file to use the standard model",
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Yield the index under the folder's lock, and write it when the block has ended without an error."""
        make_home(self.folder.parent)
        try:
            self.folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"the folder of the models cannot be made: {(error.strerror or str(error)).lower()}",
                hint="ask for write access to the home folder",
            ) from error
        with self._mutex, lock_folder(self.folder):
            index = self._read()
            yield index
            write_whole(self.folder / _INDEX, json.dumps(index, indent=1).encode())


def engine_of(path: Path) -> str:
    """Return the name of the first installed engine that reads a model file; where none does, of the first one.

    Raises:
        ModelError: the file cannot be read.
    """
    engines = readers_of(find_format(path))
    return next((name for name in engines if BACKENDS[name].installed), engines[0])


def check_model(source: Path) -> CheckedModel:
    """Open a model file with an engine, run the engine's own checks, and return its facts.

    Args:
        source: the file.

    Raises:
        ModelError: the file is no model, or its 8-bit sums saturate on this CPU.
        BackendError: no installed engine can run it.
    """
    from capsule_edge.runtime.diagnostics import refuse_saturation

    with closing(open_model(source, backend=engine_of(source), threads=1)) as opened:
        refuse_saturation(opened)
        suffix = ".tflite" if find_format(source) == "TFLite" else ".onnx"
        return _facts(opened.spec, opened.sha256, suffix)


def _read_unchanged(source: Path, checked: CheckedModel) -> bytes:
    """Return the bytes of a file that was checked."""
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != checked.sha256:
        raise ModelError(f"{source.name} was changed while it was read", hint="try again")
    return content


def _facts(spec: ModelSpec, sha256: str, suffix: str) -> CheckedModel:
    return CheckedModel(
        sha256=sha256,
        name=spec.name,
        version=spec.version,
        precision=spec.precision,
        labels=tuple({"key": each.key, "name": each.name, "role": each.role} for each in spec.labels),
        suffix=suffix,
    )


def _known(
    checked: CheckedModel, *, shipped: str = "", added_at: str | None = None, file: str = ""
) -> KnownModel:
    return KnownModel(
        sha256=checked.sha256,
        name=checked.name,
        version=checked.version,
        precision=checked.precision,
        labels=checked.labels,
        shipped=shipped,
        added_at=added_at,
        file=file,
    )


def _entry(model: KnownModel) -> dict[str, Any]:
    names = ("sha256", "file", "name", "version", "precision", "added_at")
    return {name: getattr(model, name) for name in names} | {"labels": list(model.labels)}


def _models_of(index: dict[str, Any]) -> list[KnownModel]:
    return [
        KnownModel(
            sha256=str(entry["sha256"]),
            file=Path(str(entry["file"])).name,
            name=str(entry["name"]),
            version=str(entry["version"]),
            precision=str(entry["precision"]),
            added_at=str(entry["added_at"]),
            labels=tuple(dict(label) for label in entry["labels"]),
        )
        for entry in index["models"]
    ]


def _with_file(shipped: KnownModel, kept: KnownModel | None) -> KnownModel:
    """Return a shipped model with its file in the folder, where it was copied there."""
    if kept is None:
        return shipped
    return replace(shipped, file=kept.file, added_at=kept.added_at)
