"""Parse the JSON that a model file carries, and check the values that the ``ModelSpec`` only passes on.

JSON parsers differ in what they make of a key that is there twice, and Python's accepts numbers that are none. Both are
refused: two readers of one file must see the same labels and thresholds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ModelError

__all__ = ["check_passed_on", "decode_document", "parse_document"]

_VERDICTS = ("pass", "fail", "undecided")


def decode_document(content: bytes) -> str:
    """Return the text of the metadata.

    Raises:
        ModelError: the bytes are not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"the model's capsule_edge metadata is not UTF-8: byte {error.start} is {content[error.start]:#04x}",
            hint="the file is damaged; copy it again",
        ) from None


def parse_document(text: str) -> dict[str, Any]:
    """Parse the JSON of a model file.

    Raises:
        ModelError: the text is not one JSON object, has a key twice, a number that is not finite, or half a character.
    """
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ModelError("the model's capsule_edge metadata is not JSON: it is nested too deep") from None
    except ValueError as error:
        raise ModelError(f"the model's capsule_edge metadata is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ModelError("the model's capsule_edge metadata is not a JSON object")
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {double!r} is there twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def check_passed_on(document: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Check the values that results and reports show as they are.

    Args:
        document: the parsed JSON.
        keys: the keys of the labels.

    Raises:
        ModelError: a value has another type or range; or a certificate names a label that the model does not have.
    """
    safe = document.get("saturation_safe")
    if safe is not None and not isinstance(safe, bool):
        raise ModelError(f"the model's saturation_safe is {safe!r}, allowed is true, false or null")
    for label in document["labels"]:
        _check_text(label.get("term"), f"term of the label {label['key']!r}")
    for key, point in document["operating_points"].items():
        for name in ("sensitivity", "specificity"):
            _check_number(point.get(name), f"{name} of {key!r}", 0, 1)
        _check_text(point.get("measured_on"), f"measured_on of {key!r}")
    for kind, entry in (document.get("parity") or {}).items():
        if isinstance(entry, Mapping):
            _check_certificate(kind, entry, keys)


def _check_certificate(kind: str, entry: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Check the summary of a certificate: its figures, and that it is about the model's labels."""
    name = f"{kind} certificate"
    if entry.get("verdict") not in _VERDICTS:
        raise ModelError(
            f"the model's {name} has the verdict {entry.get('verdict')!r}, allowed is one of {', '.join(_VERDICTS)}"
        )
    for figure, low in (("agreement", 0), ("macro_f1_delta", -1), ("max_abs_dp", 0)):
        _check_number(entry.get(figure), f"{figure} of the {name}", low, 1)
    against = entry.get("against_sha256")
    if against is not None and not (isinstance(against, str) and re.fullmatch("[0-9a-f]{64}", against)):
        raise ModelError(
            f"the model's {name} has against_sha256 {against!r}, 64 hexadecimal digits are needed"
        )
    data = entry.get("data", {})
    if not isinstance(data, Mapping):
        raise ModelError(f"the data of the model's {name} is {data!r}, a JSON object is needed")
    _check_number(data.get("frames"), f"number of frames of the {name}", 0, math.inf)
    for verdict in ("failed", "undecided"):
        gates = entry.get(verdict, [])
        if not isinstance(gates, list) or not all(isinstance(gate, str) for gate in gates):
            raise ModelError(f"{verdict} of the model's {name} is {gates!r}, a list of texts is needed")
        for gate in gates:
            _, dot, label = gate.partition(".")
            if dot and label not in keys:
                raise ModelError(
                    f"the model's {name} judges the label {label!r}, and the model's labels are {', '.join(keys)}",
                    hint="the labels were changed after the model was certified; export the model again",
                )


def _check_number(value: Any, name: str, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and low <= value <= high):
        raise ModelError(f"the model's {name} is {value!r}, allowed is {low} to {high} or null")


def _check_text(value: Any, name: str) -> None:
    if value is not None and not isinstance(value, str):
        raise ModelError(f"the model's {name} is {value!r}, allowed is a text or null")
