"""The identity of a training run: what it is made from, and the refusal to continue it with anything else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.evaluation._files import write_text
from capsule_edge.evaluation.datasets import Dataset, hash_dataset
from capsule_edge.evaluation.recordings import LabelledRecordings
from capsule_edge.runtime.errors import InputError, OutputError, UsageError
from capsule_edge.runtime.inference import INTENDED_USE, NOT_STATED

from .config import TrainConfig
from .data import check_weighing
from .models import hash_network

__all__ = ["OwnerStatement", "RunInputs", "check_claim", "claim_folder", "describe_recordings", "is_finished"]

_GIVEN = "given.json"  # what the model's owner states, and the files that the run was started with
_COMPLETE = ("config.json", "data.sha256", "qat.weights.npz", "run.json")


@dataclass(frozen=True)
class OwnerStatement:
    """The owner's statement about a model. The model file carries it; nothing is filled in for the owner.

    Attributes:
        name: name of the model.
        version: version of the model.
        license: licence of the model.
        data_license: licence of the training data.
        intended_use: what the model may be used for. Where it is not stated, the file says so and adds that the model
            is for research and no medical device.
    """

    name: str = NOT_STATED
    version: str = NOT_STATED
    license: str = NOT_STATED
    data_license: str = NOT_STATED
    intended_use: str = f"Not stated by the owner. {INTENDED_USE}"

    def check(self) -> None:
        """Raise ``UsageError`` if a text is empty."""
        for field in dataclasses.fields(self):
            if not getattr(self, field.name).strip():
                raise UsageError(
                    f"the {field.name.replace('_', ' ')} of the model is an empty text",
                    hint=f"leave the option out: the model file then says {NOT_STATED!r}",
                )

    def document(self) -> dict[str, str]:
        """Return the name, and the other texts that were stated."""
        stated = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name == "name" or getattr(self, field.name) != field.default
        }
        # ``given.json`` of earlier versions has the name alone.
        return stated


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run, beside its data and its configuration.

    Attributes:
        statement: what the owner says of the model.
        backbone: pretrained weights to start from.
        teachers: exported models, or weights of the same architecture, to distil from.
        calibrate_on: out-of-fold answers that set temperature and operating points.
        fp32_weights: FP32 weights that replace FP32 training. They need ``calibrate_on``.
        boxes: table of bounding boxes around lesions, for transplants.
        leak_patients: hold frames out one by one where they name no video.
        recordings: labelled recordings that are trained on too.
        weigh: table of the normal stretches of the recordings that ``hard_weight`` weighs.
        network: a network of the user's own, as JSON (``models.describe_network``).
        loss: name of a loss function of the user's own.
        start_sha256: of the weights that such a network starts from.
    """

    statement: OwnerStatement = OwnerStatement()
    backbone: Path | None = None
    teachers: tuple[Path, ...] = ()
    calibrate_on: Path | None = None
    fp32_weights: Path | None = None
    boxes: Path | None = None
    leak_patients: bool = False
    recordings: LabelledRecordings | None = None
    weigh: Path | None = None
    network: str | None = None
    loss: str | None = None
    start_sha256: str | None = None

    def check(self) -> None:
        """Raise ``UsageError`` if a statement is empty, or an input comes without another one that it needs."""
        self.statement.check()
        check_weighing(self.recordings.folder if self.recordings else None, self.weigh)
        if self.fp32_weights is not None and self.calibrate_on is None:
            raise UsageError(
                f"the FP32 weights {self.fp32_weights} come without the answers to calibrate them on",
                hint="name the out-of-fold answers of the same recipe: --calibrate-on FILE",
            )

    def document(self) -> dict[str, Any]:
        """Return the statements, and for each file its name and SHA-256, as they are written into ``given.json``.

        Raises:
            InputError: a file cannot be read.
        """
        document: dict[str, Any] = {
            **self.statement.document(),
            "backbone": _identity(self.backbone),
            "teachers": [_identity(teacher) for teacher in self.teachers],
            "calibrate_on": _identity(self.calibrate_on),
            "fp32_weights": _identity(self.fp32_weights),
        }
        # A run that does not use these has no such key, as before they existed.
        if self.boxes is not None:
            document["boxes"] = _identity(self.boxes)
        if self.recordings is not None:
            document["recordings"] = describe_recordings(self.recordings)
        if self.weigh is not None:
            document["weigh"] = _identity(self.weigh)
        if self.network is not None:
            document["network_sha256"] = hash_network(self.network)
        if self.loss is not None:
            document["loss"] = self.loss
        if self.start_sha256 is not None:
            document["start_sha256"] = self.start_sha256
        return document | ({"frames_leak_patients": True} if self.leak_patients else {})


def describe_recordings(recordings: LabelledRecordings) -> dict[str, Any]:
    """Identify recordings in a run and in a model file: folder, SHA-256, split, and the numbers of their parts.

    Raises:
        InputError: a recording cannot be read.
    """
    return {
        "folder": recordings.folder.resolve().name,
        "sha256": recordings.sha256,
        "split": recordings.split,
        "recordings": len(recordings.recordings),
        "frames": recordings.frames,
    }


def claim_folder(out: Path, config: TrainConfig, dataset: Dataset, inputs: RunInputs) -> None:
    """Record in the run folder what the run is made from, or check that a started run is made from the same.

    A finished run keeps its files unchanged.

    Args:
        out: the run folder. It must exist.
        config: the configuration of the run.
        dataset: the data set of the run.
        inputs: what the run is made from.

    Raises:
        OutputError: the folder holds another run (``check_claim``), or it cannot be written.
        InputError: a file of ``inputs`` cannot be read.
        UsageError: ``inputs`` do not fit together.
    """
    check_claim(out, config, dataset, inputs)
    if not is_finished(out):
        inputs.check()
        write_text(out / "config.json", json.dumps(config.to_dict(), indent=1))
        write_text(out / "data.sha256", hash_dataset(dataset) + "\n")
        write_text(out / _GIVEN, _given(inputs))


def check_claim(out: Path, config: TrainConfig, dataset: Dataset, inputs: RunInputs) -> None:
    """Check that a folder holds no run, or one that is made from the same.

    Raises:
        OutputError: the folder holds a run of other data, another configuration or other inputs.
        InputError: a file of ``inputs`` cannot be read.
    """
    path, data, given = out / "config.json", out / "data.sha256", out / _GIVEN
    digest = hash_dataset(dataset)
    if data.is_file() and data.read_text("utf-8").strip() != digest:
        raise OutputError(f"{out} holds a run on other data", hint="choose another --out or the same data")
    if path.is_file() and TrainConfig.read(path) != config:
        raise OutputError(
            f"{out} holds a run of another configuration", hint="choose another --out or the same settings"
        )
    if given.is_file() and given.read_text("utf-8") != _given(inputs):
        raise OutputError(
            f"{out} holds a run of another name or licence, or one started with other weights, teachers, calibration"
            f" answers, boxes, recordings, stretches, network or loss: see {given}",
            hint="choose another --out or the same options",
        )


def _given(inputs: RunInputs) -> str:
    return json.dumps(inputs.document(), ensure_ascii=False, indent=1) + "\n"


def is_finished(out: Path) -> bool:
    """Return whether ``out`` holds all files of a finished run."""
    return all((out / file).is_file() for file in _COMPLETE)


def _identity(path: Path | None) -> dict[str, str] | None:
    """Return the name and the SHA-256 of a file."""
    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            return {"file": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
