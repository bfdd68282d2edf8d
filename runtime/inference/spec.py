"""Define the ``ModelSpec``, the description that a model file carries of itself (schema ``capsule-edge/model/2``).

Files of version 1 are read too; what they lack is None.

An ONNX file holds it as JSON in ``metadata_props["capsule_edge"]``, a TFLite file in the metadata buffer of that name.
Its JSON Schema is ``schema/model.schema.json`` in the package ``capsule_edge.runtime``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from ..errors import ModelError, UsageError
from .spec_document import check_passed_on, parse_document
from .spec_records import (
    FamiliarityRule,
    HeldOutBy,
    ReferenceHistogram,
    SuggestionPrecision,
    parse_records,
)

__all__ = ["EventParameters", "InputSpec", "Label", "ModelSpec", "OperatingPoint", "Role"]

SCHEMA, SCHEMA_1 = "capsule-edge/model/2", "capsule-edge/model/1"
# The attributes that version 2 added to the document; it also added ``input.preprocessing``.
NEW_IN_2 = ("familiarity", "reference", "suggestions", "held_out")
NOT_STATED = "not stated"
PREPROCESSING = 2  # the newest version that ``runtime.preprocessing`` carries out
METADATA_KEY = "capsule_edge"
INTENDED_USE = (
    "Research use only. Not a medical device. Findings are suggestions to be confirmed by a physician."
)

Role = Literal["normal", "finding", "landmark", "quality"]
Precision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class Label:
    """One output of the model.

    Attributes:
        key: identifies the label in files, such as ``foreign_body``.
        name: the label in words, such as "Foreign body".
        role: ``normal``, ``finding``, ``landmark`` or ``quality``.
        term: the entry of a published vocabulary that means the same, None if none is known.
    """

    key: str
    name: str
    role: Role
    term: str | None = None


@dataclass(frozen=True)
class InputSpec:
    """The steps from a frame to the model's input, uint8 RGB (N, size, size, 3) with any N.

    Attributes:
        size: side of the input in pixels, 8..4096.
        crop: cut each frame to the field of view, or not at all.
        mask: set the pixels outside the inscribed ellipse to black, or none.
        resize: method of resizing, the mean over areas.
        preprocessing: version of the preprocessing, 1 or 2; None where the file does not say, which means 1.
    """

    size: int
    crop: Literal["field_of_view", "none"] = "field_of_view"
    mask: Literal["ellipse", "none"] = "ellipse"
    resize: Literal["area"] = "area"
    preprocessing: Literal[1, 2] | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """The probability from which a label counts as seen, and what was measured with it.

    Attributes:
        threshold: probability, 0..1.
        sensitivity: share of the label's frames at or above the threshold, 0..1; None if not measured.
        specificity: share of the other frames below the threshold, 0..1; None if not measured.
        measured_on: text that names the frames it was measured on; None if not measured.
        provisional: True until the threshold was set on suitable data.
    """

    threshold: float
    sensitivity: float | None = None
    specificity: float | None = None
    measured_on: str | None = None
    provisional: bool = True


@dataclass(frozen=True)
class EventParameters:
    """The rules that turn probabilities into events. All times are seconds of capture time.

    Attributes:
        assumed_capture_fps: capture rate that is assumed for a file that plays faster than a capsule records.
        smoothing_s: width of the centred window of the moving mean.
        max_gap_s: no event spans two successive answered frames that lie further apart than this. Runs of one label
            are joined over gaps of at most this.
        min_frames: the fewest frames of an event before merging.
        release: an open event ends when the probability falls below this share of the label's threshold (hysteresis).
        merge_s: runs of one label that look alike to the model are joined over gaps of at most this. It has an effect
            only above ``max_gap_s``; 0 switches it off.
        provisional: True until the parameters were set on suitable data.
    """

    assumed_capture_fps: float = 2.0
    smoothing_s: float = 2.0
    max_gap_s: float = 5.0
    min_frames: int = 3
    release: float = 0.6
    merge_s: float = 0.0
    provisional: bool = True


@dataclass(frozen=True)
class ModelSpec:
    """The description in a model file: how to run the model and what its outputs mean.

    Attributes:
        name: name of the model.
        version: version of the model.
        precision: ``fp32`` or ``int8``.
        labels: the labels, in the order of the model's outputs.
        input: how a frame becomes the model's input.
        temperature: the temperature that calibrates the logits, above 0. The model applies it itself; this is a record.
        operating_points: the operating points by label key; a label without one has no events.
        events: how probabilities become events.
        license: licence of the model, chosen by its owner; "not stated" where none was given.
        intended_use: research; not a medical device.
        saturation_safe: True if INT8 weights cannot saturate 16-bit sums on CPUs without VNNI; None if not examined.
        provenance: name and hash of the data, split, training configuration, tool versions; JSON values.
        parity: summaries of the parity certificates, and the SHA-256 of the FP32 model; None if there are none.
        familiarity: how unfamiliar frames are recognised; None if the model cannot tell.
        reference: distributions over the recordings of the training data, by measure (``colour``, ``sharpness``,
            ``field_of_view``, ``label_shares``, ``scores``, ``familiarity``); None if the file has none.
        suggestions: what the score of a suggestion is worth; None if it was not measured.
        held_out: the unit that was held out whole to set temperature and operating points; None if the file does not
            say.
        has_maps: False if the model has no ``features``, and so no activation maps: it does not end in global average
            pooling and one dense layer. The file then states ``features`` as null.
        schema: schema of the document.
    """

    name: str
    version: str
    precision: Precision
    labels: tuple[Label, ...]
    input: InputSpec
    temperature: float
    operating_points: Mapping[str, OperatingPoint]
    events: EventParameters
    license: str
    intended_use: str = INTENDED_USE
    saturation_safe: bool | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    familiarity: FamiliarityRule | None = None
    reference: Mapping[str, ReferenceHistogram | None] | None = None
    suggestions: SuggestionPrecision | None = None
    held_out: HeldOutBy | None = None
    has_maps: bool = True
    schema: str = SCHEMA

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the labels, in the order of the model's outputs."""
        return tuple(label.key for label in self.labels)

    @property
    def unknown_patients(self) -> str:
        """Why the file cannot speak of unseen patients, beginning with "patients unknown"; empty if nothing says so.

        Files of version 1 are judged by the training frames that name no video.
        """
        by = self.held_out.by if self.held_out else None
        nameless = self.provenance.get("training_frames_without_video")
        if by == "frame":
            return "patients unknown: frames were held out one by one, so training may hold frames of the same patients"
        if by == "unknown" or (by is None and nameless and "training_videos" in self.provenance):
            return "patients unknown: some training frames name no video, so they may be of the patients held out"
        if by is None and nameless:
            return "patients unknown: no training frame names its video"
        return ""

    @property
    def certificates(self) -> Mapping[str, Mapping[str, Any]]:
        """The summaries of the parity certificates in the file, by kind; empty if there are none."""
        return {kind: entry for kind, entry in (self.parity or {}).items() if isinstance(entry, Mapping)}

    def with_rules(self, thresholds: Mapping[str, float], *, min_frames: int | None = None) -> ModelSpec:
        """Return a copy with operating points, and the fewest frames of an event, set by hand.

        These operating points have no measured sensitivity or specificity, and the suggestions no measured precision.

        Args:
            thresholds: a probability above 0 and up to 1 by label key.
            min_frames: the fewest frames of an event, 1 or more; None keeps the model's.

        Raises:
            UsageError: a label is not the model's, or a number is out of range.
        """
        if min_frames is not None and min_frames < 1:
            raise UsageError(f"min_frames is {min_frames}, allowed is 1 or more")
        points = dict(self.operating_points)
        for key, threshold in thresholds.items():
            if key not in self.keys:
                raise UsageError(f"the model has no label {key!r}, allowed is one of {', '.join(self.keys)}")
            if not 0 < threshold <= 1:
                raise UsageError(f"the threshold of {key} is {threshold}, allowed is above 0 and up to 1")
            points[key] = OperatingPoint(float(threshold), measured_on="set by hand")
        events = self.events if min_frames is None else replace(self.events, min_frames=min_frames)
        # The precision was measured on the events of the model's own rules. The scores still order the suggestions.
        suggestions = self.suggestions and replace(self.suggestions, precision=())
        return replace(self, operating_points=points, events=events, suggestions=suggestions)

    def index_of(self, role: Role) -> tuple[int, ...]:
        """Return the output columns of the labels with a role, in order."""
        return tuple(i for i, label in enumerate(self.labels) if label.role == role)

    def to_json(self) -> str:
        """Return the JSON that a model file carries."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)

    def to_dict(self, *, every_key: bool = False) -> dict[str, Any]:
        """Return the JSON document as a dict, with ``schema`` first.

        A spec that was read from a file of version 1 gives a document of version 1, unless it was given something
        that only version 2 has.

        Args:
            every_key: give a document of version 1 the keys of version 2 too, with None.
        """
        document = {"schema": self.schema, **dataclasses.asdict(self)}
        document["labels"] = [dataclasses.asdict(label) for label in self.labels]
        if not document.pop("has_maps"):
            document["features"] = None
        if self.suggestions:
            # The file keeps its bytes: what these two do not state stays out of it.
            missing = [key for key in ("weights", "grouping") if document["suggestions"][key] is None]
            for key in missing:
                del document["suggestions"][key]
        if self.schema == SCHEMA_1:
            if any(document[name] is not None for name in NEW_IN_2) or self.input.preprocessing is not None:
                return document | {"schema": SCHEMA}
            for name in () if every_key else NEW_IN_2:
                del document[name]
            if not every_key:
                del document["input"]["preprocessing"]
        return document

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Parse and check the JSON of a model file.

        Raises:
            ModelError: the text is not a valid ModelSpec; the message names the first field at fault.
        """
        document = _document(text)
        try:
            spec = cls(
                name=_text(document, "name"),
                version=_text(document, "version"),
                precision=cast(Precision, _one_of(document, "precision", get_args(Precision))),
                labels=tuple(_label(entry) for entry in document["labels"]),
                input=_input(document["input"]),
                temperature=_positive(document["temperature"], "temperature"),
                operating_points={
                    key: OperatingPoint(**entry) for key, entry in document["operating_points"].items()
                },
                events=EventParameters(**document["events"]),
                license=_text(document, "license"),
                intended_use=_text(document, "intended_use"),
                saturation_safe=document.get("saturation_safe"),
                provenance=document.get("provenance") or {},
                parity=document.get("parity"),
                schema=document["schema"],
                has_maps=_has_maps(document),
                **(parse_records(document) if document["schema"] == SCHEMA else {}),
            )
        except KeyError as error:
            raise ModelError(f"the model's capsule_edge metadata lacks {error.args[0]!r}") from None
        except (TypeError, AttributeError) as error:
            raise ModelError(f"the model's capsule_edge metadata does not fit {SCHEMA}: {error}") from None
        spec._check()
        check_passed_on(document, spec.keys)
        return spec

    def _check(self) -> None:
        if len(set(self.keys)) != len(self.keys) or not self.labels:
            raise ModelError(f"the model's labels are empty or repeat a key: {list(self.keys)}")
        unknown = set(self.operating_points) - set(self.keys)
        if unknown:
            raise ModelError(f"the model has operating points for unknown labels: {sorted(unknown)}")
        for key, point in self.operating_points.items():
            number = isinstance(point.threshold, int | float) and not isinstance(point.threshold, bool)
            if not number or not 0 <= point.threshold <= 1:
                raise ModelError(f"the operating point of {key!r} is {point.threshold!r}, allowed is 0 to 1")
        for name, value in (("provenance", self.provenance), ("parity", self.parity or {})):
            if not isinstance(value, Mapping):
                raise ModelError(f"the model's {name} is {value!r}, a JSON object is needed")
        weights = self.suggestions.weights if self.suggestions else None
        odd = sorted(set(weights.labels) - set(self.keys)) if weights else []
        if odd:
            raise ModelError(
                f"the model's suggestions.weights.labels has {odd[0]!r}, allowed is one of {', '.join(self.keys)}"
            )
        self._check_provenance()
        _check_events(self.events)

    def _check_provenance(self) -> None:
        videos = self.provenance.get("training_videos", [])
        if not isinstance(videos, list) or not all(
            isinstance(mark, str) and re.fullmatch("[0-9a-f]{8}", mark) for mark in videos
        ):
            raise ModelError(
                f"the model's provenance.training_videos is {videos!r}, a list of 8 hexadecimal digits each is needed"
            )
        fitted = self.provenance.get("fitted_recordings", [])
        if not isinstance(fitted, list) or not all(
            isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in fitted
        ):
            raise ModelError(
                f"the model's provenance.fitted_recordings is {fitted!r}, "
                "a list of 64 hexadecimal digits each is needed"
            )


def _check_events(events: EventParameters) -> None:
    for name in ("assumed_capture_fps", "smoothing_s", "max_gap_s", "min_frames", "release"):
        _positive(getattr(events, name), f"events.{name}")
    if events.merge_s != 0:
        _positive(events.merge_s, "events.merge_s")
    if events.release > 1 or not isinstance(events.min_frames, int):
        raise ModelError(
            f"the model's events.release is {events.release} and events.min_frames {events.min_frames!r},"
            " allowed are at most 1 and a whole number"
        )


def _document(text: str) -> dict[str, Any]:
    """Parse the JSON and check its schema."""
    document = parse_document(text)
    if document.get("schema") not in (SCHEMA, SCHEMA_1):
        raise ModelError(
            f"the model's schema is {document.get('schema')!r}, this version reads {SCHEMA!r} and {SCHEMA_1!r}",
            hint="export the model again or install the capsule-edge that made it",
        )
    return document


def _has_maps(document: Mapping[str, Any]) -> bool:
    """Return whether the model has ``features``: the document does not mention them, or states null."""
    if "features" not in document:
        return True
    if document["features"] is not None or document["schema"] == SCHEMA_1:
        raise ModelError(
            f"the model's features is {document['features']!r}, allowed is null in a document of {SCHEMA!r}"
        )
    return False


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str) or not value:
        raise ModelError(f"the model's {name} is {value!r}, a non-empty text is needed")
    return value


def _one_of(document: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = document[name]
    if value not in allowed:
        raise ModelError(f"the model's {name} is {value!r}, allowed is one of {', '.join(allowed)}")
    return cast(str, value)


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
        raise ModelError(f"the model's {name} is {value!r}, a positive number is needed")
    return float(value)


def _label(entry: Mapping[str, Any]) -> Label:
    _one_of(entry, "role", get_args(Role))
    return Label(_text(entry, "key"), _text(entry, "name"), entry["role"], entry.get("term"))


def _input(entry: Mapping[str, Any]) -> InputSpec:
    spec = InputSpec(**entry)
    if isinstance(spec.size, bool) or not isinstance(spec.size, int) or not 8 <= spec.size <= 4096:
        raise ModelError(f"the model's input size is {spec.size!r}, a whole number from 8 to 4096 is needed")
    chosen = dataclasses.asdict(spec)
    _one_of(chosen, "crop", ("field_of_view", "none"))
    _one_of(chosen, "mask", ("ellipse", "none"))
    _one_of(chosen, "resize", ("area",))
    version = spec.preprocessing
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise ModelError(f"the model's input.preprocessing is {version!r}, allowed is 1 or {PREPROCESSING}")
    if version is not None and version > PREPROCESSING:
        raise ModelError(
            f"the model needs preprocessing version {version}, this capsule-edge has version 1 and {PREPROCESSING}",
            hint="install a later capsule-edge",
        )
    return spec
