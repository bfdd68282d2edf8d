"""Check a model file against what lies beside it: ``SHA256SUMS``, ``golden.json`` and its certificates.

``SHA256SUMS`` and the certificates come from ``export``. The installed models must have the first and ``golden.json``;
for other files each is checked if it is there. Only hashes and names are compared: the model is not run, since that
takes a second and ``capsule-edge doctor`` does it.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError
from .spec import ModelSpec

__all__ = [
    "GOLDEN_FILE",
    "GOLDEN_SCHEMA",
    "SUMS_FILE",
    "check_hash",
    "check_references",
    "reference_of",
    "stored_answers",
]

GOLDEN_FILE = "golden.json"
GOLDEN_SCHEMA = "capsule-edge/golden/1"
SUMS_FILE = "SHA256SUMS"
_CERTIFICATES = "certificates"
_KINDS = ("conversion", "shipping")
_REINSTALL = "get the file back: pip install --force-reinstall --no-deps capsule-edge"
_COPY = "copy the whole folder again or export it again; if you replaced the file, remove its line from SHA256SUMS"


def check_hash(path: Path, content: bytes) -> None:
    """Compare a file with its line in ``SHA256SUMS``, before an engine sees the bytes.

    Args:
        path: path of the model file.
        content: its bytes.

    Raises:
        ModelError: ``SHA256SUMS`` is damaged or lists another hash; or an installed model is not listed.
    """
    listed = _sums(path.with_name(SUMS_FILE)).get(path.name)
    if listed is None:
        if _is_installed(path):
            raise ModelError(
                f"{path.with_name(SUMS_FILE)} does not list the installed {path.name}", hint=_REINSTALL
            )
        return
    found = hashlib.sha256(content).hexdigest()
    if found != listed:
        raise ModelError(
            f"{path} is not the file that {SUMS_FILE} beside it lists: its SHA-256 is {found}, listed is {listed}",
            hint=_REINSTALL if _is_installed(path) else _COPY,
        )


def check_references(path: Path, sha256: str, spec: ModelSpec) -> None:
    """Compare an opened model with ``golden.json``, its certificates, and the hash of its FP32 twin.

    Args:
        path: path of the model file.
        sha256: its SHA-256.
        spec: its ``ModelSpec``.

    Raises:
        ModelError: one of them is damaged or about another file, other labels or another verdict.
    """
    installed = _is_installed(path)
    if installed:
        _check_golden(path, sha256, spec)
    for kind in _KINDS:
        certificate = path.parent / _CERTIFICATES / f"{path.name}.{kind}.json"
        if certificate.is_file():
            _check_certificate(certificate, path, sha256, spec, kind)
    twin = path.name.replace(".int8.", ".fp32.")
    listed = _sums(path.with_name(SUMS_FILE)).get(twin)
    compared = spec.certificates.get("shipping", {}).get("against_sha256")
    if spec.precision == "int8" and twin != path.name and listed and compared and listed != compared:
        raise ModelError(
            f"{path} was certified against an FP32 file of SHA-256 {compared}, and {SUMS_FILE} beside it lists"
            f" {listed} for {twin}",
            hint=_REINSTALL if installed else _COPY,
        )


def reference_of(path: Path, sha256: str) -> str | None:
    """Return the file beside a model that names its SHA-256, ``golden.json`` or ``SHA256SUMS``; None if none does.

    Raises:
        ModelError: one of them is damaged.
    """
    if sha256 in stored_answers(path.with_name(GOLDEN_FILE)):
        return GOLDEN_FILE
    return SUMS_FILE if _sums(path.with_name(SUMS_FILE)).get(path.name) == sha256 else None


def stored_answers(path: Path) -> dict[str, Any]:
    """Return the entries of a ``golden.json`` by SHA-256; empty if there is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["schema"] != GOLDEN_SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, this version reads {GOLDEN_SCHEMA!r}")
        models: dict[str, Any] = document["models"]
        for entry in models.values():
            logits = np.array(entry["logits"], np.float32)
            if logits.ndim != 2 or not np.isfinite(logits).all() or not entry["frames_sha256"]:
                raise ValueError("an entry has no table of logits")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path} is damaged: {error}",
            hint="write it again with 'python -m capsule_edge.export.tools.golden'",
        ) from None
    return models


def _check_golden(path: Path, sha256: str, spec: ModelSpec) -> None:
    """Check that ``golden.json`` has answers of an installed model, with its name and labels."""
    golden = path.with_name(GOLDEN_FILE)
    entry = stored_answers(golden).get(sha256)
    if entry is None:
        raise ModelError(f"{golden} has no answers of the installed {path.name}", hint=_REINSTALL)
    if entry.get("file") != path.name or entry.get("labels") != list(spec.keys):
        raise ModelError(
            f"{golden} has answers of {entry.get('file')} with the labels {entry.get('labels')}, and {path.name} has"
            f" {list(spec.keys)}",
            hint=_REINSTALL,
        )


def _check_certificate(certificate: Path, path: Path, sha256: str, spec: ModelSpec, kind: str) -> None:
    """Check that a certificate is about this file, its labels, and the verdict in its summary."""
    try:
        document = json.loads(certificate.read_text("utf-8"))
        model, labels = document["models"]["b"], list(document["per_class"])
        facts = {
            "the SHA-256": (model["sha256"], sha256),
            "the precision": (model["precision"], spec.precision),
            # JSON objects have no order.
            "the labels": (sorted(labels), sorted(spec.keys)),
            "the verdict": (document["verdict"], spec.certificates.get(kind, {}).get("verdict")),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{certificate} is damaged: {type(error).__name__}: {error}", hint=_COPY) from None
    for name, (certified, found) in facts.items():
        if certified != found:
            raise ModelError(
                f"{certificate} contradicts {path.name}: {name} is {certified} in the certificate and {found} in the"
                " model",
                hint="put the certificate that was exported with the model beside it, or remove it",
            )


def _sums(path: Path) -> dict[str, str]:
    """Return the hashes in a ``SHA256SUMS`` by file name, as ``sha256sum`` writes them; empty if there is none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_COPY) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match is None or found.get(match[2], match[1]) != match[1]:
            if line.strip():
                raise ModelError(
                    f"{path}: line {number} is not a SHA-256 and a file name, or contradicts another",
                    hint=_COPY,
                )
            continue
        found[match[2]] = match[1]
    return found


def _is_installed(path: Path) -> bool:
    """Return whether a file lies in the folder of the installed models."""
    folder = Path(str(resources.files("capsule_edge.runtime") / "models"))
    return path.parent.resolve() == folder.resolve()
