"""Render an exported reading as one HTML page without scripts, which makes no request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.inference import SEEN_IN_FITTING, SEEN_IN_TRAINING, ModelSpec
from capsule_edge.runtime.report import as_markup, describe_model, render_text

from .coverage_bar import draw_coverage
from .report_words import (
    banner_line,
    clocks,
    completeness_rows,
    examination_rows,
    frames_text,
    ledger_sentences,
    origin,
    precision_sentence,
    score_text,
    short,
    spent,
    transit_rows,
    way_rows,
    when,
    where,
)

__all__ = ["render_reading"]

Picture = Callable[[int], bytes]
# A list of more suggestions than this names the first and counts the rest.
_MOST_LISTED = 200


def render_reading(document: Mapping[str, Any], *, picture: Picture, model: ModelSpec | None = None) -> str:
    """Return the report of a reading as the text of an HTML page.

    Args:
        document: the reading as ``readings.export_reading`` returns it.
        picture: returns the JPEG of a frame by its index, or raises a ``CapsuleEdgeError``, whose message is shown in
            place of the picture.
        model: the model whose suggestions were shown, for the appendix; None where its file is gone.

    Returns:
        The page. Its content security policy allows its own style sheet and pictures in ``data:``, and no script.
    """
    style = _read_asset("reading_report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    decided = [each for each in document["suggestions"] if each["verdict"] in ("confirmed", "relabelled")]
    rest = {
        verdict: [each for each in document["suggestions"] if each["verdict"] == verdict]
        for verdict in ("rejected", "undecided")
    }
    findings = sorted(
        [*decided, *document["findings"]], key=lambda each: (each["key"]["index"], each["start_index"])
    )
    return str(
        render_text(
            _read_asset("reading_report.html"),
            policy=policy,
            style=as_markup(style),
            document=document,
            banner=banner_line(document["examination"]),
            examination=examination_rows(document["examination"]),
            findings=[_finding(each, picture) for each in findings],
            rejected=[_line(each) for each in rest["rejected"][:_MOST_LISTED]],
            undecided=[_line(each) for each in rest["undecided"][:_MOST_LISTED]],
            counts={name: len(listed) for name, listed in rest.items()},
            ways=way_rows(document["reading"]),
            spent=spent(document["reading"]["seconds"]),
            when=when,
            short=short,
            **_completeness(document),
            **_passage(document),
            **_appendix(document, model),
        )
    )


def _finding(each: Mapping[str, Any], picture: Picture) -> dict[str, Any]:
    """Return one finding with its picture as a ``data:`` address, or the reason why there is none."""
    address, lacking = "", ""
    try:
        content = base64.b64encode(picture(each["key"]["index"])).decode("ascii")
        address = f"data:image/jpeg;base64,{content}"
    except CapsuleEdgeError as error:
        lacking = error.message
    return {
        "name": (each.get("decided_label") or each)["name"],
        "origin": origin(each),
        "score": score_text(each),
        "clocks": clocks(each["key"]),
        "where": where(each["key"]),
        "frames": frames_text(each),
        "reader": each["reader"],
        "comment": each["comment"],
        "picture": address,
        "lacking": lacking,
    }


def _line(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suggestion that was rejected or not decided, as a row of a table."""
    return {
        "name": each["name"],
        "id": each["id"],
        "clocks": clocks(each["key"]),
        "score": f"{each['score']:.2f}",
        "reader": each["reader"] or "",
        "comment": each["comment"],
    }


def _completeness(document: Mapping[str, Any]) -> dict[str, Any]:
    recording, completeness = document["recording"], document["completeness"]
    rows = completeness_rows(completeness)
    label = "; ".join(f"{name}: {text}" for name, text in rows)
    bar = draw_coverage(completeness, document["landmarks"], frames=recording["frames"], label=label)
    marks = (SEEN_IN_TRAINING, SEEN_IN_FITTING)
    return {
        "completeness": rows,
        "bar": as_markup(bar),
        "ledger": ledger_sentences(recording),
        "warnings": [each["message"] for each in recording["warnings"] if each["code"] not in marks],
        "seen_before": [each["message"] for each in recording["warnings"] if each["code"] in marks],
    }


def _passage(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "landmarks": [(mark["name"], clocks(mark)) for mark in document["landmarks"]],
        "transit": transit_rows(document["transit"]),
        "transit_unknown": document["transit"]["unknown_for_lack_of"] is not None,
    }


def _appendix(document: Mapping[str, Any], model: ModelSpec | None) -> dict[str, Any]:
    card = None if model is None else describe_model(model, document["model"]["backend"])
    return {"card": card, "precision": precision_sentence(document["suggestions"])}


def _read_asset(name: str) -> str:
    text = (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")
