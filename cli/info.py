"""``capsule-edge info``: what a model file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._evaluation import NO_CERTIFICATE
from ._options import json_option
from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command(epilog="\b\nExample:\n  capsule-edge info model.int8.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine to open it with.")
@json_option
def command(model: Path, backend: str, as_json: bool) -> None:
    """Print the ModelSpec that MODEL carries and the summary of its parity certificates."""
    from capsule_edge.runtime.inference import open_model

    opened = open_model(model, backend=backend)
    document = {
        "file": opened.path.name,
        "bytes": opened.path.stat().st_size,
        "sha256": opened.sha256,
        "spec": opened.spec.to_dict(),
        "certificate": dict(opened.spec.parity) if opened.spec.parity else None,
    }
    opened.close()
    if as_json:
        echo_json(document)
    else:
        _print(document)


def _print(document: Mapping[str, Any]) -> None:
    screen = console()
    spec = document["spec"]
    side = spec["input"]["size"]
    facts = table("", "", numbers=False)
    for name, value in (
        ("model", f"{spec['name']} {spec['version']}, {spec['precision']}"),
        ("file", f"{document['file']}, {document['bytes']:,} bytes"),
        ("sha256", document["sha256"]),
        (
            "input",
            f"uint8 RGB {side} x {side}, crop {spec['input']['crop']}",
        ),
        ("temperature", number(spec["temperature"])),
        ("saturation safe", {True: "yes", False: "no", None: "not known"}[spec["saturation_safe"]]),
        ("license", spec["license"]),
        ("intended use", spec["intended_use"]),
    ):
        facts.add_row(name, str(value))
    screen.print(facts)
    columns = ("label", "name", "role", "threshold", "sensitivity", "specificity", "measured on")
    labels = table(*columns, numbers=False)
    for label in spec["labels"]:
        point = spec["operating_points"].get(label["key"], {})
        measured = point.get("measured_on") or "-"
        labels.add_row(
            *(label[field] for field in ("key", "name", "role")),
            *(number(point.get(field)) for field in ("threshold", "sensitivity", "specificity")),
            f"{measured} (provisional)" if point.get("provisional") else measured,
        )
    screen.print(labels)
    _print_certificate(screen.print, document["certificate"])


def _print_certificate(show: Any, certificate: Mapping[str, Any] | None) -> None:
    found = {kind: entry for kind, entry in (certificate or {}).items() if isinstance(entry, dict)}
    if not found:
        show(f"certificate: none: {NO_CERTIFICATE}")
    for kind, entry in found.items():
        data = entry.get("data", {})
        show(
            f"certificate ({kind}): {entry.get('verdict')}, agreement {number(entry.get('agreement'), 4)}, "
            f"macro-F1 {number(entry.get('macro_f1_delta'), 4)}, "
            f"max |dp| {number(entry.get('max_abs_dp'), 4)} on {number(data.get('frames'))} frames "
            f"of {data.get('name')}, against {entry.get('against_sha256')}"
        )
        for word in ("failed", "undecided"):
            if entry.get(word):
                show(f"  {word}: {', '.join(entry[word])}")
