"""The sentences of the report: what was read, what was looked for, and what the times mean.

They are written so that silence is never taken for a healthy examination. Every function returns plain text, alone
or in a dataclass; the templates escape it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..events import Landmarks, capture_scale, median_frame_distance
from ..inference import SEEN_IN_FITTING, SEEN_IN_TRAINING
from ..study import STATUSES, Ledger, Status, Study, Suggestion, columns, count_set_aside, reduced_view
from .transit import duration, quality_note

__all__ = [
    "Alert",
    "Assessed",
    "LedgerAccount",
    "LedgerPart",
    "SummaryTile",
    "TimesText",
    "alert",
    "assessed",
    "exam_clock_source",
    "file_remarks",
    "has_evidence",
    "known_before",
    "ledger",
    "nothing_found",
    "notices",
    "number",
    "probability",
    "score_meaning",
    "share",
    "summary",
    "times",
    "unfamiliar",
    "worth",
]

_STATUS_NAMES: dict[Status, str] = {
    "classified": "looked at by the model",
    "duplicate": "near-identical to another frame, whose answer they take",
    "corrupt": "damaged, not looked at",
    "missing": "announced by the container but not there",
    "skipped": "skipped as asked",
    "unread": "not reached before the run was stopped",
}
_SEEN = (SEEN_IN_TRAINING, SEEN_IN_FITTING)
_SHORT: dict[Status, str] = {
    "classified": "Looked at",
    "duplicate": "Near-identical",
    "corrupt": "Damaged",
    "missing": "Missing",
    "skipped": "Skipped",
    "unread": "Not reached",
}


@dataclass(frozen=True)
class Alert:
    """A warning at the top of the page.

    ``partly`` is True where a part of the recording was not read, and ``severe`` False for what is only to be known.
    """

    title: str
    reasons: list[str]
    partly: bool = False
    severe: bool = True


@dataclass(frozen=True)
class SummaryTile:
    """One figure of the summary, such as "Frames read", "All 57,600"."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class LedgerPart:
    """The frames of one status; ``begin`` and ``width`` are their place in the bar, in percent."""

    status: Status
    legend: str
    begin: float
    width: float


@dataclass(frozen=True)
class LedgerAccount:
    """The ledger in the report: a sentence, the parts of a bar, and notes."""

    sentence: str
    parts: list[LedgerPart]
    notes: list[str]


@dataclass(frozen=True)
class Assessed:
    """``looked`` is the number of findings that have a threshold; ``silent`` names what the report can't say."""

    looked: int
    silent: list[str]


@dataclass(frozen=True)
class TimesText:
    """The meaning of the times, and the rule that turns frames into events."""

    paragraphs: list[str]
    rule: str
    provisional: bool


def number(count: int, noun: str = "") -> str:
    """Return ``57,600 frames``: the noun gets an s unless ``count`` is 1."""
    text = f"{count:,}"
    return text if not noun else f"{text} {noun}" + ("" if count == 1 else "s")


def share(part: int, whole: int) -> str:
    """Return a percentage that is 0 only for nothing, and 100 only for everything."""
    if not whole:
        return "0\u00a0%"
    value = 100 * part / whole
    if 0 < value < 0.1:
        return "under 0.1\u00a0%"
    if 99.9 < value < 100:
        return "over 99.9\u00a0%"
    return f"{value:.1f}".removesuffix(".0") + "\u00a0%"


def probability(value: float) -> str:
    """Return two decimals, and "over 0.99" rather than a 1.00 that is not certain."""
    return "over 0.99" if 0.995 <= value < 1 else f"{value:.2f}"


def worth(suggestion: Suggestion) -> str:
    """Return the measured precision of suggestions with such a score, of any label, as a sentence."""
    found = suggestion.precision
    if found is None:
        return "How often suggestions with such a score are right was not measured."
    estimate, low, high = (f"{100 * share:.0f}" for share in (found.estimate, found.low, found.high))
    interval = f"{low} to {high}\u00a0%, n\u00a0=\u00a0{found.n:,}"
    return (
        f"Of suggestions with such a score, whatever the finding, {estimate}\u00a0% were right ({interval})."
    )


def score_meaning(study: Study) -> str:
    """Return what the score of a suggestion is, as a sentence."""
    rule = study.model.suggestions
    if rule is None or rule.weights is None:
        return (
            "The bar shows its score: the mean probability of the finding over its frames. How often suggestions with "
            "such a score are right was not measured."
        )
    return "The bar shows its score: the estimated probability that the finding is really there."


def summary(study: Study, suggestions: Sequence[Suggestion], found: Landmarks) -> list[SummaryTile]:
    """Return the four figures that a physician asks for first."""
    note = (
        f"from {number(len(study.events), 'event')}, to be confirmed"
        if study.events
        else "which does not mean a normal examination"
    )
    return [
        _frames_tile(study.ledger),
        SummaryTile("Suggestions", f"{len(suggestions):,}", note),
        _transit_tile(study, found),
        _view_tile(study),
    ]


def _frames_tile(account: Ledger) -> SummaryTile:
    answered = account.classified + account.duplicate
    if account.whole and not account.skipped and answered:
        return SummaryTile("Frames read", f"All {account.container:,}")
    note = f"{share(answered, account.container)} of the recording"
    return SummaryTile("Frames read", f"{answered:,} of {account.container:,}", note)


def _transit_tile(study: Study, found: Landmarks) -> SummaryTile:
    name = "Small-bowel transit"
    if found.small_bowel_s is not None:
        return SummaryTile(name, duration(found.small_bowel_s), exam_clock_source(study))
    if found.transit_unknown:
        return SummaryTile(name, "Not known", "no exam clock: capture rate not known")
    return SummaryTile(name, "Not known", "landmarks not set")


def exam_clock_source(study: Study) -> str:
    """Return by which clock durations are stated: always capture time, and where it is from."""
    if study.source.capture_fps is not None:
        return f"by the exam clock, {study.source.capture_fps:g} frames a second"
    return "by the exam clock of the file"


def _view_tile(study: Study) -> SummaryTile:
    reduced = reduced_view(study)
    if reduced is not None:
        return SummaryTile("View", f"Reduced on {share(*reduced)}", "of the frames read")
    if study.model.index_of("quality"):
        return SummaryTile("View", "Not measured")
    return SummaryTile("View", "Not assessed", "the model does not look for it")


def alert(study: Study) -> Alert | None:
    """Return why the recording was not read whole; None where it was."""
    account = study.ledger
    answered = account.classified + account.duplicate
    reasons = list(_losses(account))
    if not answered:
        reasons.append("No frame could be read: this report says nothing about the examination.")
    if not reasons:
        return None
    title = "This recording was not read whole" if answered else "Nothing was read from this recording"
    return Alert(title, reasons, partly=answered > 0)


def notices(study: Study) -> list[Alert]:
    """Return what has to be known before the findings are looked at, the warnings first."""
    return [one for one in (known_before(study), alert(study), unfamiliar(study)) if one]


def unfamiliar(study: Study) -> Alert | None:
    """Return how many frames were set aside as unfamiliar; None if none was."""
    count, part = count_set_aside(study) or (0, None)
    if not count or part is None:
        return None
    verb = "was" if count == 1 else "were"
    of = f"{share(count, study.ledger.classified)} of those looked at"
    reason = f"{number(count, 'frame')} ({of}) {verb} set aside and raised no event."
    return Alert("Unfamiliar pictures", [reason], severe=False)


def known_before(study: Study) -> Alert | None:
    """Return that the model was trained or fitted on this recording; None where the model file does not say so."""
    seen = [each.message for each in study.warnings if each.code in _SEEN]
    if not seen:
        return None
    reasons = [f"{message[0].upper()}{message[1:]}." for message in seen]
    return Alert("This recording is not new to the model", reasons)


def file_remarks(study: Study) -> list[str]:
    """Return the other warnings, which are about the file."""
    return [each.message for each in study.warnings if each.code not in _SEEN]


def _losses(account: Ledger) -> Iterator[str]:
    """Yield a sentence for each kind of frame that was not read, skipped ones apart."""
    total = account.container
    if account.corrupt:
        verb = "is" if account.corrupt == 1 else "are"
        yield (
            f"{number(account.corrupt, 'frame')} ({share(account.corrupt, total)}) {verb} damaged and "
            "could not be looked at."
        )
    if account.missing:
        verb = "is" if account.missing == 1 else "are"
        yield (
            f"{number(account.missing, 'frame')} ({share(account.missing, total)}) announced by the container "
            f"{verb} not in the file."
        )
    if account.truncated:
        yield "The file ends before its container says it should: the rest was not seen."
    if account.unread:
        verb = "was" if account.unread == 1 else "were"
        yield (
            f"The run was stopped early: {number(account.unread, 'frame')} ({share(account.unread, total)}) "
            f"{verb} not read."
        )


def ledger(study: Study) -> LedgerAccount:
    """Return how the frames add up, as one sentence, the parts of a bar with their legend, and notes."""
    account = study.ledger
    counts: dict[Status, int] = {status: getattr(account, status) for status in STATUSES}
    total, answered = account.container, account.classified + account.duplicate
    if account.whole and not account.skipped and answered:
        lead = f"All {number(total, 'frame')} of the recording were read"
        if total == 1:
            lead = "The only frame of the recording was read"
    else:
        lead = f"{number(answered)} of {number(total, 'frame')} of the recording were read ({share(answered, total)})"
    kinds = [f"{number(n)} {_STATUS_NAMES[status]}" for status, n in counts.items() if n]
    sentence = f"{lead}: {'; '.join(kinds)}." if kinds else f"{lead}."
    parts, before = [], 0
    for status, count in counts.items():
        if total and count:
            legend = f"{_SHORT[status]} {number(count)} ({share(count, total)})"
            parts.append(LedgerPart(status, legend, 100 * before / total, 100 * count / total))
            before += count
    return LedgerAccount(
        sentence, parts, [*_set_aside_note(study), *_ledger_notes(account), *_detection_note(study)]
    )


def _set_aside_note(study: Study) -> Iterator[str]:
    """Say how many of the classified frames raised no event because the model does not know their like."""
    count, part = count_set_aside(study) or (0, None)
    if not count or part is None:
        return
    verb, they = ("was", "It resembles") if count == 1 else ("were", "They resemble")
    yield (
        f"{number(count, 'frame')} ({share(count, study.ledger.classified)} of those looked at) {verb} set aside. "
        f"{they} nothing that the model was trained on, or repeat a frozen picture, and raised no event."
    )


def _detection_note(study: Study) -> Iterator[str]:
    """Say where the codec's decoder does not report all damage: then silence about damage proves little."""
    if study.source.damage_detection == "partial":
        yield f"The decoder of {study.source.codec} reports a part of the damage in a frame, not all of it."
    elif study.source.damage_detection == "none":
        yield f"The decoder of {study.source.codec} does not report damage: a damaged frame looks like a sound one."


def _ledger_notes(account: Ledger) -> Iterator[str]:
    if account.truncated is None:
        yield "The container does not say how long the recording is, so whether it is complete is not known."
    if account.skipped:
        yield "Skipped frames were left out on request; findings in them do not appear."
    if account.edited_out:
        samples = number(account.edited_out, "sample")
        yield f"{samples} discarded by the file's own edit list: not part of the recording."


def nothing_found(study: Study) -> str:
    """Return why there is no event: nothing read, nothing looked for, or nothing above its threshold."""
    looked = sum(
        label.role == "finding" and label.key in study.model.operating_points for label in study.model.labels
    )
    if not study.ledger.classified + study.ledger.duplicate:
        return "No frame could be read, so nothing was looked for."
    if not looked:
        return "The model has no finding with a threshold, so nothing could be marked."
    aside, left = _count_without_evidence(study)
    if aside and not left:
        return (
            "Every frame that was read was set aside as unfamiliar: the model knows no pictures like these, so nothing "
            "was looked for."
        )
    return (
        f"In the frames that were read{' and not set aside' if aside else ''}, none of the "
        f"{number(looked, 'finding')} that the model looks for stayed at or above its threshold for "
        f"{number(study.model.events.min_frames, 'frame')}."
    )


def has_evidence(study: Study) -> bool:
    """Return whether any frame could raise an event: it was answered and not set aside."""
    return bool(columns(study.frames).evidence.any())


def _count_without_evidence(study: Study) -> tuple[int, int]:
    """Return the number of frames that were set aside, repetitions of such frames too, and of those that were not."""
    every = columns(study.frames)
    return int((every.answered & every.set_aside).sum()), int(every.evidence.sum())


def assessed(study: Study) -> Assessed:
    """Return how many findings were looked for, and everything that this report is silent about."""
    model = study.model
    findings = [label for label in model.labels if label.role == "finding"]
    no_point = [label.name for label in findings if label.key not in model.operating_points]
    silent = []
    if no_point:
        silent.append(f"{'; '.join(no_point)}: the model has no threshold for it, so it is never marked.")
    if not model.index_of("landmark"):
        silent.append("Anatomical landmarks: not assessed, the model does not look for them.")
    silent.append(quality_note(study))
    unseen = study.ledger.container - study.ledger.classified - study.ledger.duplicate
    if unseen:
        silent.append(f"{number(unseen, 'frame')} without an answer: not assessed.")
    count, _ = _count_without_evidence(study)
    if count:
        silent.append(f"{number(count, 'frame')} set aside as unfamiliar: findings in them do not appear.")
    silent.append("Any finding that is not listed here: not assessed.")
    silent.append(
        "Below the thresholds: a finding that is not marked is not excluded. It only stayed below its threshold."
    )
    return Assessed(len(findings) - len(no_point), silent)


def times(study: Study) -> TimesText:
    """Return which clock the page shows, which one the smoothing used, and the rule of the events."""
    source, rule = study.source, study.model.events
    distance = median_frame_distance(study.frames)
    paragraphs = [
        "Times without a name are those of the playback clock: positions in the file from its first frame, as a video "
        "player shows them. The exam clock counts the time of the examination, from the same frame.",
        _timing(study),
    ]
    if source.times == "inferred":
        paragraphs.append(
            "The file does not say in full in which order and when its frames are shown. Order and times are those "
            "of the decoder."
        )
    scale = capture_scale(
        rule, median_distance_s=distance, time_kind=source.time_kind, capture_fps=source.capture_fps
    )
    if distance:
        paragraphs.append(
            f"Frames lie {distance:.3g} s apart in the file (median), taken as {distance * scale:.3g} s of the "
            "examination."
        )
    sentence = (
        f"How frames become events: mean probability over {rule.smoothing_s:g} s, at least "
        f"{number(rule.min_frames, 'frame')}, merged over gaps of up to {rule.max_gap_s:g} s, ending below "
        f"{rule.release:g} of the threshold."
    )
    return TimesText(paragraphs, sentence, rule.provisional)


def _timing(study: Study) -> str:
    """Return how positions in the file relate to times of the examination."""
    fps = study.source.capture_fps
    if study.source.time_kind != "playback":
        if fps is not None:
            return f"Smoothing and gaps used the given capture rate of {fps:g} frames a second."
        return "The file keeps the capsule's own timing, so these are times of the examination."
    if fps is not None:
        return (
            f"This file plays faster than the capsule recorded. Smoothing and gaps used the given rate of {fps:g} "
            "frames a second. Positions in the file are not times of the examination."
        )
    return (
        "This file plays faster than the capsule recorded, and the rate of recording is not known. Smoothing and gaps "
        f"assumed {study.model.events.assumed_capture_fps:g} frames a second. Positions are therefore not times of "
        "the examination, and transit times are not computed. Give --capture-fps to replace the assumption."
    )
