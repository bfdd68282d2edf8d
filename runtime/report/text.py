"""The sentences of the report: what was read and assessed, what the times mean, which model answered.

They are written so that silence is never taken for a healthy exam. Every function returns HTML whose values
are escaped: names come from files that anybody may have named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from ..events import Landmarks, capture_scale, median_frame_distance
from ..study import STATUSES, Ledger, Status, Study, reduced_view
from .model_reach import blind_spots, reach
from .transit import duration, quality_note

__all__ = ["alerts", "assessed", "ledger", "nothing_found", "number", "probability", "summary", "times"]

_STATUS_NAMES: dict[Status, str] = {
    "classified": "looked at by the model",
    "duplicate": "near-identical to another frame, whose answer they take",
    "corrupt": "damaged, not looked at",
    "missing": "announced by the container but not there",
    "skipped": "skipped as asked",
    "unread": "not reached before the run was stopped",
}
_SHORT: dict[Status, str] = {
    "classified": "Looked at",
    "duplicate": "Near-identical",
    "corrupt": "Damaged",
    "missing": "Missing",
    "skipped": "Skipped",
    "unread": "Not reached",
}


def number(count: int, noun: str = "") -> str:
    """``57,600 frames``; the noun gets its s."""
    text = f"{count:,}"
    return text if not noun else f"{text} {noun}" + ("" if count == 1 else "s")


def share(part: int, whole: int) -> str:
    """A percentage that never rounds something to nothing, or a rest to everything."""
    if not whole:
        return "0\u00a0%"
    value = 100 * part / whole
    if 0 < value < 0.1:
        return "under 0.1\u00a0%"
    if 99.9 < value < 100:
        return "over 99.9\u00a0%"
    return f"{value:.1f}".removesuffix(".0") + "\u00a0%"


def probability(value: float) -> str:
    """Two decimals, and never a certainty that was not there."""
    return "over 0.99" if 0.995 <= value < 1 else f"{value:.2f}"


def summary(study: Study, found: Landmarks) -> str:
    """The four things that a physician asks first, as a description list."""
    account = study.ledger
    answered = account.classified + account.duplicate
    whole = account.whole and not account.skipped and answered
    tiles = [
        (
            "Frames read",
            f"All {account.container:,}" if whole else f"{answered:,} of {account.container:,}",
            "" if whole else f"{share(answered, account.container)} of the recording",
        )
    ]
    kinds = len({event.label for event in study.events})
    tiles.append(
        (
            "Suggested events",
            f"{len(study.events):,}",
            f"of {number(kinds, 'kind')}, to be confirmed"
            if kinds
            else "which does not mean a normal examination",
        )
    )
    if found.small_bowel_s is not None:
        tiles.append(("Small-bowel transit", duration(found.small_bowel_s), ""))
    else:
        why = "capture rate not known" if found.transit_unknown else "landmarks not set"
        tiles.append(("Small-bowel transit", "Not known", why))
    reduced = reduced_view(study)
    if reduced is None:
        looked = study.model.index_of("quality")
        tiles.append(
            (
                "View",
                "Not measured" if looked else "Not assessed",
                "" if looked else "the model does not look for it",
            )
        )
    else:
        tiles.append(("View", f"Reduced on {share(*reduced)}", "of the frames read"))
    entries = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{entries}</dl>'


def alerts(study: Study) -> str:
    """A loud box where the recording was not read whole; empty where it was."""
    account = study.ledger
    total = account.container
    reasons = []
    if account.corrupt:
        verb = "is" if account.corrupt == 1 else "are"
        reasons.append(
            f"{number(account.corrupt, 'frame')} ({share(account.corrupt, total)}) {verb} damaged and "
            "could not be looked at."
        )
    if account.missing:
        verb = "is" if account.missing == 1 else "are"
        reasons.append(
            f"{number(account.missing, 'frame')} ({share(account.missing, total)}) announced by the "
            f"container "
            f"{verb} not in the file."
        )
    if account.truncated:
        reasons.append("The file ends before its container says it should: the rest was not seen.")
    if account.unread:
        verb = "was" if account.unread == 1 else "were"
        reasons.append(
            f"The run was stopped early: {number(account.unread, 'frame')} ({share(account.unread, total)}) "
            f"{verb} not read."
        )
    answered = account.classified + account.duplicate
    if not answered:
        reasons.append("No frame could be read: this report says nothing about the examination.")
    if not reasons:
        return ""
    title = "This recording was not read whole" if answered else "Nothing was read from this recording"
    entries = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    tail = "" if not answered else "<p>A finding in these parts would not appear below.</p>"
    return f'<section class="alert" role="alert"><h2>{title}</h2><ul>{entries}</ul>{tail}</section>'


def ledger(study: Study) -> str:
    """Every container frame in one sentence, as a bar and as a legend."""
    account = study.ledger
    counts: dict[Status, int] = {status: getattr(account, status) for status in STATUSES}
    answered = account.classified + account.duplicate
    parts = [f"{number(n)} {_STATUS_NAMES[status]}" for status, n in counts.items() if n]
    if account.whole and not account.skipped and answered:
        lead = f"All {number(account.container, 'frame')} of the recording were read"
        if account.container == 1:
            lead = "The only frame of the recording was read"
    else:
        lead = (
            f"{number(answered)} of {number(account.container, 'frame')} of the recording were read "
            f"({share(answered, account.container)})"
        )
    sentence = f"{lead}: {'; '.join(parts)}." if parts else f"{lead}."
    notes = [note for note in _ledger_notes(account) if note]
    return f"<p>{escape(sentence)}</p>{_ledger_bar(counts, account.container)}" + "".join(
        f'<p class="note">{escape(note)}</p>' for note in notes
    )


def _ledger_notes(account: Ledger) -> Iterator[str]:
    if account.truncated is None:
        yield "The container does not say how long the recording is, so whether it is complete is not known."
    if account.skipped:
        yield "Skipped frames were left out on request; findings in them do not appear."
    if account.edited_out:
        yield (
            f"{number(account.edited_out, 'sample')} discarded by the file's own edit list: not part of "
            f"the recording."
        )


def _ledger_bar(counts: Mapping[Status, int], total: int) -> str:
    if not total:
        return ""
    bars, legend, at = [], [], 0
    for status, count in counts.items():
        if not count:
            continue
        bars.append(
            f'<rect class="s-{status}" x="{100 * at / total:.4f}%" '
            f'width="{100 * count / total:.4f}%" height="12"/>'
        )
        legend.append(
            '<li><svg viewBox="0 0 10 10" aria-hidden="true">'
            f'<rect class="s-{status}" width="10" height="10" rx="2"/></svg>'
            f"{_SHORT[status]} {number(count)} ({share(count, total)})</li>"
        )
        at += count
    bar = f'<svg class="ledger" aria-hidden="true">{"".join(bars)}</svg>'
    return f'{bar}<ul class="legend">{"".join(legend)}</ul>'


def nothing_found(study: Study) -> str:
    """What an empty list of events does and does not say."""
    looked = [
        label
        for label in study.model.labels
        if label.role == "finding" and label.key in study.model.operating_points
    ]
    if not study.ledger.classified + study.ledger.duplicate:
        text = "No frame could be read, so nothing was looked for."
    elif not looked:
        text = "The model has no finding with a threshold, so nothing could be marked."
    else:
        rule = study.model.events
        text = (
            f"In the frames that were read, none of the {number(len(looked), 'finding')} that the model "
            f"looks for "
            f"stayed at or above its threshold for {number(rule.min_frames, 'frame')}."
        )
    return (
        f'<div class="nothing"><p>{escape(text)}</p><p><strong>This does not mean that the examination is '
        f"normal."
        "</strong> A model overlooks lesions, in particular small, faint or briefly visible ones, and it "
        "knows only "
        f"the findings listed below. The recording still needs to be read.</p>"
        f"<p>{escape(quality_note(study))}</p>{blind_spots(study)}</div>"
    )


def assessed(study: Study) -> str:
    """Findings that were looked for, and everything that this report is silent about."""
    model = study.model
    findings = [label for label in model.labels if label.role == "finding"]
    looked = [label.name for label in findings if label.key in model.operating_points]
    no_point = [label.name for label in findings if label.key not in model.operating_points]
    if looked:
        first = (
            f"<p>Looked for, frame by frame: {number(len(looked), 'finding')}. Of single frames that show it, "
            f"the model marks, as far as was measured:</p>{reach(study)}"
        )
    else:
        first = "<p>No finding was looked for: the model has no threshold.</p>"
    silent = []
    if no_point:
        silent.append(f"{'; '.join(no_point)}: the model has no threshold for it, so it is never marked.")
    if not model.index_of("landmark"):
        silent.append("Anatomical landmarks: not assessed, the model does not look for them.")
    silent.append(quality_note(study))
    unseen = study.ledger.container - study.ledger.classified - study.ledger.duplicate
    if unseen:
        silent.append(f"{number(unseen, 'frame')} without an answer: not assessed.")
    silent.append("Any finding that is not listed here: not assessed.")
    silent.append(
        "Below the thresholds: a finding that is not marked is not excluded. It only stayed below its threshold."
    )
    return first + "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in silent) + "</ul>"


def times(study: Study) -> str:
    """Which clock the page shows and which one the smoothing used."""
    source, rule = study.source, study.model.events
    distance = median_frame_distance(study.frames)
    paragraphs = ["All times are positions in the file, as a video player shows them, from its first frame."]
    if source.time_kind == "playback" and source.capture_fps is None:
        paragraphs.append(
            "This file plays faster than the capsule recorded, and the rate of recording is not known. "
            "Smoothing "
            f"and gaps assumed {rule.assumed_capture_fps:g} frames a second. Positions are therefore not "
            f"times of the "
            "examination, and transit times are not computed. Give --capture-fps to replace the assumption."
        )
    elif source.time_kind == "playback":
        paragraphs.append(
            f"This file plays faster than the capsule recorded. Smoothing and gaps used the given rate of "
            f"{source.capture_fps:g} frames a second. Positions in the file are not times of the examination."
        )
    elif source.capture_fps is not None:
        paragraphs.append(
            f"Smoothing and gaps used the given capture rate of {source.capture_fps:g} frames a second."
        )
    else:
        paragraphs.append("The file keeps the capsule's own timing, so these are times of the examination.")
    scale = capture_scale(
        rule, median_distance_s=distance, time_kind=source.time_kind, capture_fps=source.capture_fps
    )
    if distance:
        paragraphs.append(
            f"Frames lie {distance:.3g} s apart in the file (median), taken as {distance * scale:.3g} s of "
            f"the "
            "examination."
        )
    mark = ' <span class="tag">provisional</span>' if rule.provisional else ""
    rules = (
        f"How frames become events: mean probability over {rule.smoothing_s:g} s, at least "
        f"{number(rule.min_frames, 'frame')}, merged over gaps of up to {rule.max_gap_s:g} s, ending below "
        f"{rule.release:g} of the threshold."
    )
    return (
        "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
        + f'<p class="note">{escape(rules)}{mark}</p>'
    )
