"""``capsule-edge info``: print what a model file says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ._evaluation import NO_CERTIFICATE
from ._options import HELP_OPTIONS, json_option, model_argument
from ._printing import console, echo_json, macro_f1_change, number, table


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge info\n  capsule-edge info model.int8.onnx --json",
)
@model_argument
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine to open it with.")
@json_option
def command(model: Path | None, backend: str, as_json: bool) -> None:
    """Print the specification that MODEL carries and the summary of its parity certificates.

    MODEL is a model file, or the name of an installed model: standard or small. Without MODEL, the standard
    one is shown.
    """
    from capsule_edge.runtime.inference import default_model, open_model

    opened = open_model(default_model() if model is None else model, backend=backend)
    # Files of version 1 lack the records of version 2. Here they are null, so that a program finds every key.
    spec = opened.spec.to_dict(every_key=True)
    document = {
        "file": opened.path.name,
        "bytes": opened.path.stat().st_size,
        "sha256": opened.sha256,
        "spec": spec,
        "unknown_patients": opened.spec.unknown_patients or None,
        "certificate": dict(opened.spec.parity) if opened.spec.parity else None,
    }
    opened.close()
    if as_json:
        echo_json(document)
    else:
        _print(document)


def _print(document: Mapping[str, Any]) -> None:
    show, spec = console().print, document["spec"]
    show(_facts(document, spec))
    show(_labels(spec))
    _print_certificate(show, document["certificate"], spec["precision"])


def _facts(document: Mapping[str, Any], spec: Mapping[str, Any]) -> Any:
    from capsule_edge.runtime.inference import NOT_STATED

    side = spec["input"]["size"]
    rows = table("", "", numbers=False)
    for name, value in (
        ("model", f"{' '.join(dict.fromkeys((spec['name'], spec['version'])))}, {spec['precision']}"),
        ("file", f"{document['file']}, {document['bytes']:,} bytes"),
        ("sha256", document["sha256"]),
        ("input", f"uint8 RGB {side} x {side}, crop {spec['input']['crop']}"),
        ("temperature", number(spec["temperature"])),
        ("saturation safe", {True: "yes", False: "no", None: "not known"}[spec["saturation_safe"]]),
        ("license", spec["license"]),
        ("data license", spec["provenance"].get("data_license", NOT_STATED)),
        ("held out by", _held_out(document, spec)),
        ("intended use", spec["intended_use"]),
        *(("weak", reason) for reason in spec["provenance"].get("weak", ())),
    ):
        rows.add_row(name, str(value))
    return rows


def _held_out(document: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """Return what was held out to set temperature and operating points, and whether patients are unknown."""
    from capsule_edge.runtime.inference import NOT_STATED

    by = (spec["held_out"] or {}).get("by", NOT_STATED)
    return f"{by}; {document['unknown_patients']}" if document["unknown_patients"] else str(by)


def _labels(spec: Mapping[str, Any]) -> Any:
    """Return the table of labels with the operating point of each."""
    columns = ("label", "name", "role", "threshold", "sensitivity", "specificity", "measured on")
    rows = table(*columns, numbers=False)
    for label in spec["labels"]:
        point = spec["operating_points"].get(label["key"], {})
        measured = point.get("measured_on") or "-"
        rows.add_row(
            *(label[field] for field in ("key", "name", "role")),
            *(number(point.get(field)) for field in ("threshold", "sensitivity", "specificity")),
            f"{measured} (provisional)" if point.get("provisional") else measured,
        )
    return rows


def _print_certificate(
    show: Callable[[str], None], certificate: Mapping[str, Any] | None, precision: str
) -> None:
    found = {kind: entry for kind, entry in (certificate or {}).items() if isinstance(entry, dict)}
    if not found:
        show(f"certificate: none: {NO_CERTIFICATE}")
    for kind, entry in found.items():
        data = entry.get("data", {})
        show(
            f"certificate ({kind}): {entry.get('verdict')}, agreement {number(entry.get('agreement'), 4)}, "
            f"{macro_f1_change(entry.get('macro_f1_delta'), precision)}, largest difference of a probability "
            f"{number(entry.get('max_abs_dp'), 4)}, on {number(data.get('frames'))} frames of {data.get('name')}, "
            f"compared with the file of SHA-256 {entry.get('against_sha256')}"
        )
        for verdict in ("failed", "undecided"):
            if entry.get(verdict):
                show(f"  {verdict}: {', '.join(entry[verdict])}")
