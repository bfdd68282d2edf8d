"""Write a bill of materials in CycloneDX 1.6: the package, its dependencies and its models, and validate it.

    python .ci/sbom.py OUT.json

Dependencies are those of the installed environment that the package or one of its extras asks for, with their
versions and licences. Each model file is a component of the type machine-learning-model with its SHA-256 and a model
card. Needs ``cyclonedx-python-lib`` and ``jsonschema``, which validate the file by the standard's own JSON Schema.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = "capsule-edge"
MODELS = ("models", "runtime/models")
SUFFIXES = (".onnx", ".tflite")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="file to write")
    out = parser.parse_args().out
    text = json.dumps(make_document(), indent=1, sort_keys=True) + "\n"
    if fault := validate(text):
        sys.exit(f"the bill of materials is not valid CycloneDX 1.6: {fault}")
    out.write_text(text, "utf-8")
    print(f"{out}: valid CycloneDX 1.6")


def make_document() -> dict[str, Any]:
    """Return the bill of materials."""
    packages = dependencies()
    models = [
        model_component(path)
        for folder in MODELS
        for path in sorted((ROOT / folder).iterdir())
        if path.suffix in SUFFIXES
    ]
    refs = [each["bom-ref"] for each in (*packages, *models)]
    main_ref = f"pkg:pypi/{PACKAGE}@{metadata.version(PACKAGE)}"
    # The same content has the same serial number.
    name = hashlib.sha256(json.dumps([packages, models], sort_keys=True).encode()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": main_ref,
                "name": PACKAGE,
                "version": metadata.version(PACKAGE),
                "description": "Research software. Not a medical device. This is no certification.",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": main_ref,
            }
        },
        "components": [*packages, *models],
        "dependencies": [{"ref": main_ref, "dependsOn": refs}, *({"ref": ref} for ref in refs)],
    }


def dependencies() -> list[dict[str, Any]]:
    """Return the installed packages that ours asks for, directly or not, extras included."""
    waiting, found = [PACKAGE], {}
    while waiting:
        name = waiting.pop()
        try:
            known = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of an extra that is not installed, or of another system
            continue
        key = re.sub(r"[-_.]+", "-", known.metadata["Name"]).lower()
        if key in found:
            continue
        found[key] = known
        for line in known.requires or ():
            # Of other packages' extras only those that are asked for matter, and none of ours asks for any by name.
            if key == PACKAGE or "extra ==" not in line:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0])
    return [package_component(key, each) for key, each in sorted(found.items()) if key != PACKAGE]


def package_component(name: str, known: metadata.Distribution) -> dict[str, Any]:
    """Return a Python package as a component, with its licence as it states it."""
    purl = f"pkg:pypi/{name}@{known.version}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": known.version, "purl": purl}
    stated = known.metadata.get("License-Expression") or known.metadata.get("License") or ""
    classified = [
        line.rsplit(" :: ", 1)[-1]
        for line in known.metadata.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    licence = stated if 0 < len(stated) <= 80 and "\n" not in stated else ", ".join(classified)
    if licence:
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def model_component(path: Path) -> dict[str, Any]:
    """Return a model file as a component with a model card (ML-BOM)."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    precision = "INT8" if ".int8." in path.name else "FP32"
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{path.name}",
        "name": path.name,
        "version": digest[:12],
        "description": f"{precision} image classifier for capsule endoscopy, {path.relative_to(ROOT).as_posix()}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "modelCard": {
            "modelParameters": {
                "task": "image classification",
                "architectureFamily": "convolutional neural network",
                "inputs": [{"format": "uint8 RGB image"}],
                "outputs": [{"format": "probabilities by class"}],
            },
            "considerations": {
                "users": ["researchers", "developers of reading software"],
                "useCases": ["Research. Not a medical device."],
                "technicalLimitations": ["It misses findings; docs/evidence/performance.md says how many."],
            },
        },
    }


def validate(text: str) -> str:
    """Return the fault of a document by the schema of CycloneDX 1.6; empty for a valid one."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return "" if fault is None else str(fault)[:500]


if __name__ == "__main__":
    main()
