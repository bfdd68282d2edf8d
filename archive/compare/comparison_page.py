"""Render a comparison as one HTML page without scripts, which makes no request.

It has the style of the report. Its content security policy allows its own style sheet and pictures in ``data:``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from capsule_edge.runtime.inference import INTENDED_USE
from capsule_edge.runtime.recording import clock
from capsule_edge.runtime.report import as_markup, read_asset, render_text

from .comparison import ArchiveComparison, SuggestionDifference
from .difference_pictures import DifferencePicture, ModelView
from .stored_results import ModelIdentity, PlacedSuggestion, StoredResult
from .suggestion_matching import KINDS

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["GATE_WORDS", "KIND_WORDS", "render_comparison"]

_FORBIDDEN = "base-uri 'none'; form-action 'none'"
_TEXT_COLUMNS = (
    "Verdict",
    "Why undecided",
    "Recording",
    "Hit by",
    "Seen by",
    "In training",
    "Cause",
    "Message",
)
# Cards on the page; comparison.json has every difference. And recordings that a list names.
_CARDS, _LISTED = 500, 50

KIND_WORDS = {
    "only_old": "Only the old model shows it",
    "only_new": "Only the new model shows it",
    "label": "Another label",
    "time": "Another extent",
    "rank": "Another rank",
    "covered_old": "The new model shows it within another suggestion",
    "covered_new": "The old model shows it within another suggestion",
}
"""Each kind of difference in words."""

GATE_WORDS = {
    "places_lost": "old suggestions whose place the new model does not show",
    "suggestions_rise": "rise of the number of suggestions",
    "findings_lost": "findings hit less often",
    "false_suggestions_rise": "rise of the number of false suggestions",
}
"""Each gate in words."""

_MEANINGS = {
    "equivalence": "Both sides are forms of one model. The new results should be those of the old.",
    "replacement": "The new model is another model. The truth decides whether it is better: without truth, nobody "
    "knows whether a suggestion that it adds or drops is right.",
}
_RULE = (
    "A suggestion shows the frames of its events. Two suggestions are a pair if at least half of the frames of the "
    "shorter one are frames of the other; pairs of the same label go first. Lost: old suggestions whose place the new "
    "model does not show. Added: new suggestions whose place the old model does not show. Intervals are 95 % intervals "
    "over recordings."
)
_TABLE = (
    '<div class="scroll" role="region" tabindex="0" aria-label="{{ caption }}"><table><caption>{{ caption }}</caption>'
    '<thead><tr>{% for name in head %}<th scope="col"{% if name not in words %} class="n"{% endif %}>{{ name }}</th>'
    "{% endfor %}</tr></thead><tbody>{% for row in rows %}<tr>{% for cell in row %}"
    '{% if loop.first %}<th scope="row">{{ cell }}</th>{% elif head[loop.index0] in words %}<td>{{ cell }}</td>'
    '{% else %}<td class="n">{{ cell }}</td>{% endif %}'
    "{% endfor %}</tr>{% endfor %}</tbody></table></div>"
)


def render_comparison(
    comparison: ArchiveComparison, pictures: Sequence[DifferencePicture | None] = ()
) -> str:
    """Return the page of a comparison.

    Args:
        comparison: the comparison.
        pictures: those of the first differences (``illustrate_differences``).
    """
    document = comparison.document
    style = read_asset("page.css") + _read_own("comparison.css")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    models = document["models"]
    count = len(comparison.differences)
    return str(
        render_text(
            _read_own("comparison.html"),
            policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; {_FORBIDDEN}",
            style=as_markup(style),
            document=document,
            title=f"{_model(models['new'])} against {_model(models['old'])}",
            facts=_facts(document),
            intended_use=INTENDED_USE,
            meaning=_MEANINGS[document["kind"]],
            gates=_gate_table(document),
            truth=_truth(document["truth"]),
            rule=_RULE,
            tables=list(_count_tables(document)),
            heading=_count(count, "difference"),
            lead=_lead(count, len(pictures)),
            groups=_groups(comparison.differences, pictures),
            about=_about(document),
            not_compared=_not_compared(document["recordings"]["not_compared"]),
        )
    )


def _read_own(name: str) -> str:
    text = (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table. The first column and those of ``_TEXT_COLUMNS`` are aligned to the left."""
    return render_text(_TABLE, caption=caption, head=head, rows=rows, words=(head[0], *_TEXT_COLUMNS))


def _count(value: int, noun: str) -> str:
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def _words(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _model(model: Mapping[str, Any] | ModelIdentity) -> str:
    if isinstance(model, ModelIdentity):
        return f"{model.name} {model.version} {model.precision.upper()}"
    return f"{model['name']} {model['version']} {model['precision'].upper()}"


def _facts(document: Mapping[str, Any]) -> str:
    overall, recordings = document["overall"], document["recordings"]
    missing = len(recordings["not_compared"])
    left = f" · {missing:,} not compared" if missing else ""
    return (
        f"{_count(recordings['compared'], 'recording')}, {_count(overall['frames'], 'frame')}{left} · suggestions: "
        f"{overall['old']:,} of the old model, {overall['new']:,} of the new one"
    )


def _gate_table(document: Mapping[str, Any]) -> Markup:
    rows = [
        [
            _gate_name(gate["name"]),
            _percent(gate["value"]),
            _ends(gate["interval"]),
            f"at most {_percent(gate['limit'])}",
            gate["verdict"],
            gate["reason"] or "",
        ]
        for gate in document["gates"]
    ]
    head = ["Gate", "Value", "95 % interval", "Limit", "Verdict", "Why undecided"]
    return _table("Gates. The interval decides: within the limit, beyond it, or undecided.", head, rows)


def _gate_name(name: str) -> str:
    gate, _, label = name.partition(".")
    words = GATE_WORDS[gate].capitalize()
    return f"{words}: {_words(label).lower()}" if label else words


def _count_tables(document: Mapping[str, Any]) -> Iterator[Markup]:
    head = [
        "",
        "Recordings",
        "Old",
        "New",
        "Same label",
        "Lost",
        "Added",
        "Other label",
        "Per 1,000 frames, change",
    ]
    head += ["Lost share", "Added share"]
    parts: list[tuple[str, str, list[tuple[str, Mapping[str, Any]]]]] = [
        (
            "By class. Changes count by the old label.",
            "Class",
            [("All", document["overall"])] + [(_words(row["label"]), row) for row in document["by_label"]],
        ),
        ("By site", "Site", [(row["site"] or "not stated", row) for row in document["by_site"]]),
        (
            "By type of capsule",
            "Capsule",
            [(row["capsule_type"] or "not stated", row) for row in document["by_capsule_type"]],
        ),
    ]
    for caption, first, entries in parts:
        if entries:
            yield _table(caption, [first, *head[1:]], [_count_row(name, entry) for name, entry in entries])


def _count_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    change = entry["change_per_1000_frames"]
    return [
        name,
        *(
            f"{entry[column]:,}"
            for column in ("recordings", "old", "new", "same_label", "only_old", "only_new", "relabelled")
        ),
        "-"
        if change["value"] is None
        else f"{change['value']:+.2f}{_ends(change['interval'], scale=1, form='+.2f')}",
        _with_ends(entry["places_lost"]),
        _with_ends(entry["places_added"]),
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _ends(ends: Sequence[float] | None, *, scale: float = 100, form: str = ".1f") -> str:
    """Return the two ends of an interval in brackets; empty without one."""
    return "" if ends is None else f" ({scale * ends[0]:{form}} to {scale * ends[1]:{form}})"


def _with_ends(figure: Mapping[str, Any]) -> str:
    return f"{_percent(figure['value'])}{_ends(figure['interval'])}"


def _truth(truth: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if truth is None:
        return None
    unseen = truth["unseen"]
    sentences = [
        f"{_count(truth['recordings'], 'recording')} with a truth table. The results of {truth['trained_on']:,} "
        "of them say that a model was trained or fitted on the recording. Such figures flatter, so the verdict takes "
        f"the other {unseen['recordings']:,} alone. A result can only say so if its model names its training videos.",
        "A finding is hit if an event of its class shows it, of which at least half of the frames have that class, and "
        "seen if another event with findings in half of its frames does. A suggestion is right if at least half of the "
        "frames of its leading event have its class, else false.",
    ]
    if truth["unknown_labels"]:
        sentences.append(
            f"A model lacks the labels {', '.join(truth['unknown_labels'])}: it cannot hit such a finding."
        )
    if truth["left_out"]:
        first = truth["left_out"][0]
        sentences.append(
            f"Left out: {len(truth['left_out']):,} truth tables do not fit ({first['message']})."
        )
    tables = [
        _truth_table("Recordings that no model is known to be trained on", unseen),
        _label_table(unseen),
    ]
    if truth["trained_on"]:
        tables.append(_truth_table("All recordings with truth, those of the training too", truth["all"]))
    changed = [each for each in truth["findings"] if each["hit_old"] != each["hit_new"]]
    if changed:
        tables.append(_finding_table(changed))
    return {"sentences": sentences, "tables": tables}


def _truth_table(caption: str, group: Mapping[str, Any]) -> Markup:
    findings, test = group["findings"], group["mcnemar"]
    rows = [
        [
            name,
            *(f"{group[side][what]:,} of {findings:,}" for what in ("hit", "seen")),
            f"{group[side]['right_suggestions']:,}",
            f"{group[side]['false_suggestions']:,}",
            "-"
            if group[side]["false_per_1000_frames"] is None
            else f"{group[side]['false_per_1000_frames']:.2f}",
        ]
        for name, side in (("Old", "old"), ("New", "new"))
    ]
    head = [
        "Model",
        "Findings hit",
        "Findings seen",
        "Right suggestions",
        "False suggestions",
        "False in 1,000 frames",
    ]
    note = (
        f"{caption}: {group['recordings']:,} recordings, {group['frames']:,} frames. Only the old model hits "
        f"{_count(test['only_old'], 'finding')}, only the new one {test['only_new']:,}: McNemar's exact p "
        f"{test['p_value']:.3f} "
        "(findings taken as independent)."
    )
    return _table(note, head, rows)


def _label_table(group: Mapping[str, Any]) -> Markup:
    rows = [
        [
            _words(row["label"]),
            str(row["findings"]),
            f"{row['hit_old']} / {row['hit_new']}",
            f"{row['seen_old']} / {row['seen_new']}",
            f"{row['false_old']} / {row['false_new']}",
        ]
        for row in group["by_label"]
    ]
    head = ["Class", "Findings", "Hit by old / new", "Seen by old / new", "False suggestions of old / new"]
    return _table("The same by class", head, rows)


def _finding_table(changed: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        [
            _words(each["label"]),
            each["recording"].replace("\\", "/").rpartition("/")[2],
            f"{each['first_index']:,} to {each['last_index']:,}",
            "the old model" if each["hit_old"] else "the new model",
            "both"
            if each["seen_old"] and each["seen_new"]
            else "one"
            if each["seen_old"] or each["seen_new"]
            else "none",
            "yes" if each["trained_on"] else "no",
        ]
        for each in changed[:_LISTED]
    ]
    head = ["Finding", "Recording", "Frames", "Hit by", "Seen by", "In training"]
    return _table("Findings that one model hits and the other does not", head, rows)


def _lead(count: int, pictures: int) -> str:
    if not count:
        return "Both models make the same suggestions."
    parts = ["The line in a picture surrounds the parts that speak for the finding of that model."]
    parts.append(
        "Where a model has no suggestion, the picture and its line are those of the other model's finding."
    )
    if count > _CARDS:
        parts.append(f"The page shows the first {_CARDS:,}; comparison.json has all.")
    if pictures < min(count, _CARDS):
        parts.append(f"The first {pictures:,} have pictures." if pictures else "No pictures were made.")
    return " ".join(parts)


def _groups(
    differences: Sequence[SuggestionDifference], pictures: Sequence[DifferencePicture | None]
) -> list[dict[str, Any]]:
    cards: dict[str, list[dict[str, Any]]] = {}
    for number, each in enumerate(differences[:_CARDS], 1):
        picture = pictures[number - 1] if number <= len(pictures) else None
        cards.setdefault(each.match.kinds[0], []).append(_card(number, each, picture))
    return [
        {"kind": kind, "title": KIND_WORDS[kind], "cards": cards[kind]} for kind in KINDS if kind in cards
    ]


def _card(number: int, each: SuggestionDifference, picture: DifferencePicture | None) -> dict[str, Any]:
    row, match = each.pair.row, each.match
    sides = (
        ("o", "Old", each.pair.old, match.old, picture.old if picture else None),
        ("w", "New", each.pair.new, match.new, picture.new if picture else None),
    )
    labels = list(dict.fromkeys(one.label for one in (match.old, match.new) if one is not None))
    more = [KIND_WORDS[kind].lower() for kind in match.kinds[1:]]
    facts = [row.site, row.capsule_type, row.date]
    if match.old is not None and match.new is not None:
        facts.append(f"overlap {100 * match.overlap:.0f} %")
    curve = picture.curve if picture else None
    return {
        "number": number,
        "title": _words(labels[0]) + "".join(f" became {_words(label).lower()}" for label in labels[1:]),
        "recording": row.recording.replace("\\", "/").rstrip("/").rpartition("/")[2],
        "path": row.recording,
        "where": ", ".join([*filter(None, facts), *more]),
        "views": [_view(*side, right) for side, right in zip(sides, each.right, strict=True)],
        "curve": curve,
        "curve_ends": (f"{curve.first:,}", f"{curve.last:,}") if curve else None,
        "curve_alt": "Probability of the finding in the frames around it, old and new model",
    }


def _view(
    side: str,
    name: str,
    result: StoredResult,
    one: PlacedSuggestion | None,
    view: ModelView | None,
    right: bool | None,
) -> dict[str, Any]:
    shot = view.shot if view else None
    return {
        "side": side,
        "name": f"{name} model",
        "model": _model(result.model),
        "uri": shot.uri if shot else "",
        "contour": view.contour if view else "",
        "note": view.note if view else "No picture was made.",
        "alt": f"Frame {view.index} as the {name.lower()} model sees it" if view else "",
        "says": "No suggestion here"
        if one is None
        else f"{_words(one.label)}, number {one.rank}, score {one.score:.2f}",
        "lines": list(_lines(result, one, view)),
        "right": "" if right is None else "Right by the truth" if right else "False by the truth",
    }


def _lines(result: StoredResult, one: PlacedSuggestion | None, view: ModelView | None) -> Iterator[str]:
    if one is not None:
        lead = one.lead
        yield f"{clock(lead.start_s, tenths=True)} to {clock(lead.end_s, tenths=True)}, {_count(one.frames, 'frame')}"
        if one.alternatives:
            yield f"or {', '.join(_words(label).lower() for label in one.alternatives)}"
    if view is None:
        return
    threshold = result.thresholds.get(view.label)
    limit = "" if threshold is None else f", threshold {threshold:.2f}"
    if view.probability is None:
        yield f"frame {view.index:,}: no answer for {_words(view.label).lower()}"
    else:
        yield f"frame {view.index:,}: {_words(view.label).lower()} {view.probability:.2f}{limit}"


def _about(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    boot, recordings = document["bootstrap"], document["recordings"]
    rows = []
    for name, side in (("Old model", "old"), ("New model", "new")):
        model = document["models"][side]
        rows.append((name, f"{_model(model)}, SHA-256 {model['sha256']}"))
        rows.append(
            ("read with", f"{', '.join(model['backends'])}; capsule-edge {', '.join(model['tool_versions'])}")
        )
    rows.append(
        (
            "Intervals",
            f"{boot['method']}; {boot['resamples']:,} resamples, seed {boot['seed']}; none below {boot['least_units']} "
            "recordings. The interval of a share is at least Wilson's.",
        )
    )
    if recordings["copies"]:
        rows.append(
            ("Copies", f"{recordings['copies']:,} rows are copies of another recording and count once")
        )
    return rows


def _not_compared(entries: Sequence[Mapping[str, str]]) -> Markup | str:
    if not entries:
        return ""
    rows = [[each["recording"], each["cause"], each["message"]] for each in entries[:_LISTED]]
    more = f"; the first {_LISTED}" if len(entries) > _LISTED else ""
    caption = f"Not compared: {len(entries):,} recordings or results{more}"
    return _table(caption, ["Recording", "Cause", "Message"], rows)
