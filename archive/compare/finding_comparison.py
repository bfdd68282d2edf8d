"""Judge the suggestions of two models by the truth: findings hit and seen, and false suggestions.

The rules are those of ``evaluation.recordings``: an event is right if at least half of its frames carry its label in
the truth. A finding is *hit* if a right event of its label shows it, and *seen* if it is hit or an event of another
label shows it. A suggestion is *false* if its leading event is not right.

A model does better on a recording that it was trained on. So the figures that decide are those of the recordings whose
results do not say so for either model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import exact_mcnemar
from capsule_edge.evaluation.recordings import (
    TRUTH_SUFFIX,
    FoundEvent,
    Reading,
    TrueFinding,
    compare_with_truth,
    finding_outcomes,
    is_right,
)
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import RECORDING_SUFFIXES

from .difference_counts import describe_figure, resample_sums, spread_change
from .paired_results import ResultPair, ResultPairs
from .stored_results import PlacedSuggestion

__all__ = ["FindingComparison", "JudgedFinding", "JudgedRecording"]

_SIDES = ("old", "new")
# A TIFF of several pages is a recording by itself, too.
_SUFFIXES = (*RECORDING_SUFFIXES, ".tif", ".tiff")

_Z = 1.959964  # standard normal, 97.5 %
# Whether each suggestion of a model is right, by its rank.
Judgement = dict[int, bool]


@dataclass(frozen=True)
class JudgedFinding:
    """A true finding and what both models made of it. The frames are those from ``first`` to ``last``, inclusive."""

    label: str
    first: int
    last: int
    hit: tuple[bool, bool]
    seen: tuple[bool, bool]


@dataclass(frozen=True)
class JudgedRecording:
    """A recording with truth. Pairs of values are those of the old and of the new model.

    Attributes:
        recording: path or address.
        unit: the unit of the bootstrap.
        frames: number of frames.
        trained: whether each result says that its model was trained or fitted on the recording.
        findings: the true findings.
        right, false: number of suggestions.
        false_labels: the leading label of each false suggestion.
        unknown_labels: labels of the truth that a model lacks: such a finding is never hit.
    """

    recording: str
    unit: str
    frames: int
    trained: tuple[bool, bool]
    findings: tuple[JudgedFinding, ...]
    right: tuple[int, int]
    false: tuple[int, int]
    false_labels: tuple[tuple[str, ...], tuple[str, ...]]
    unknown_labels: tuple[str, ...]


@dataclass
class FindingComparison:
    """The recordings with truth, judged one after the other.

    Attributes:
        tables: the truth tables by the name of their recording without suffix.
        judged: the recordings that were judged.
        left_out: recordings whose truth does not fit, with the reason.
        fitting: the recordings that each table has the name of, by the name of the table: SHA-256 and path.
    """

    tables: Mapping[str, Path]
    judged: list[JudgedRecording] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    fitting: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> FindingComparison:
        """List the truth tables of a folder: ``exam.truth.csv`` is that of ``exam.mp4``.

        Raises:
            InputError: the folder is not there or holds none.
        """
        if not folder.is_dir():
            raise InputError(f"the truth {folder} is no folder", hint="name the folder with the *.truth.csv")
        tables = {
            path.name.removesuffix(TRUTH_SUFFIX): path for path in sorted(folder.glob(f"*{TRUTH_SUFFIX}"))
        }
        if not tables:
            raise InputError(
                f"{folder} holds no truth table", hint=f"the truth of exam.mp4 is called exam{TRUTH_SUFFIX}"
            )
        return cls(tables)

    def expect(self, pairs: ResultPairs) -> None:
        """Note which recordings each table has the name of: of two, nobody knows which one it was written for.

        Args:
            pairs: the recordings that will be added, and those that have no pair.
        """
        held = [(row.recording, sha256) for sha256, row in pairs.rows.items()]
        held += [(one.recording, one.recording) for one in pairs.unpaired]
        for recording, sha256 in held:
            table = self._table(recording)
            if table is not None:
                self.fitting.setdefault(table.name, {})[sha256] = recording

    def add(self, pair: ResultPair) -> tuple[Judgement, Judgement] | None:
        """Judge a recording.

        Returns:
            Of the old and the new model: by rank of the suggestion, whether it is right; None without a truth table
            that fits.
        """
        table = self._table(pair.row.recording)
        if table is None:
            return None
        fitting = self.fitting.get(table.name, {})
        if len(fitting) > 1:
            named = ", ".join(sorted(fitting.values()))
            message = (
                f"{table.name} has the name of {len(fitting)} recordings ({named}); rename one and its table"
            )
            self.left_out.append((pair.row.recording, message))
            return None
        try:
            documents = [compare_with_truth(folder, table) for folder in (pair.old_folder, pair.new_folder)]
        except InputError as error:
            self.left_out.append((pair.row.recording, error.message))
            return None
        labels = documents[0]["reading"].labels
        old, new = (
            {one.rank: _is_right(one, labels) for one in side.suggestions} for side in (pair.old, pair.new)
        )
        self.judged.append(_judge(pair, documents, (old, new)))
        return old, new

    def _table(self, recording: str) -> Path | None:
        """Return the table of a recording. Only the suffix of a recording is left out: ``exam.1`` may be a folder."""
        name = re.split(r"[/\\]", recording.rstrip("/\\"))[-1]
        stem, suffix = Path(name).stem, Path(name).suffix.lower()
        short = self.tables.get(stem) if suffix in _SUFFIXES else None
        return self.tables.get(name) or short

    def check(self) -> None:
        """Check that a recording was judged.

        Raises:
            InputError: none was.
        """
        if self.judged:
            return
        if self.left_out:
            raise InputError(f"no truth table fits its recording: {self.left_out[0][1]}")
        raise InputError(
            f"none of the {len(self.tables)} truth tables is that of a compared recording",
            hint=f"a truth table has the name of its recording: exam{TRUTH_SUFFIX} for exam.mp4",
        )

    def document(self, *, resamples: int, seed: int) -> dict[str, Any]:
        """Return the figures as JSON: of the recordings that no model was trained on, and of all."""
        unseen = [one for one in self.judged if not any(one.trained)]
        return {
            "recordings": len(self.judged),
            "left_out": [
                {"recording": recording, "message": message} for recording, message in self.left_out
            ],
            "trained_on": len(self.judged) - len(unseen),
            "unknown_labels": sorted({label for one in self.judged for label in one.unknown_labels}),
            "unseen": _group(unseen, resamples, seed),
            "all": _group(self.judged, resamples, seed),
            "findings": [
                {
                    "recording": one.recording,
                    "label": finding.label,
                    "first_index": finding.first,
                    "last_index": finding.last,
                    "trained_on": any(one.trained),
                    "hit_old": finding.hit[0],
                    "hit_new": finding.hit[1],
                    "seen_old": finding.seen[0],
                    "seen_new": finding.seen[1],
                }
                for one in self.judged
                for finding in one.findings
            ],
        }


def _judge(
    pair: ResultPair, documents: Sequence[Mapping[str, Any]], right: tuple[Judgement, Judgement]
) -> JudgedRecording:
    readings: list[Reading] = [document["reading"] for document in documents]
    outcomes = [list(finding_outcomes(reading)) for reading in readings]
    false = [
        [one.label for one in side.suggestions if not judged[one.rank]]
        for side, judged in zip((pair.old, pair.new), right, strict=True)
    ]
    return JudgedRecording(
        recording=pair.row.recording,
        unit=pair.unit,
        frames=len(readings[0].labels),
        trained=(pair.old.seen, pair.new.seen),
        findings=tuple(
            _finding(old.finding, (old.hit, new.hit), (old.seen, new.seen))
            for old, new in zip(*outcomes, strict=True)
        ),
        right=(len(pair.old.suggestions) - len(false[0]), len(pair.new.suggestions) - len(false[1])),
        false=(len(false[0]), len(false[1])),
        false_labels=(tuple(false[0]), tuple(false[1])),
        unknown_labels=tuple(
            sorted({label for document in documents for label in document["unknown_labels"]})
        ),
    )


def _finding(finding: TrueFinding, hit: tuple[bool, bool], seen: tuple[bool, bool]) -> JudgedFinding:
    return JudgedFinding(finding.label, finding.first, finding.last, hit, seen)


def _is_right(suggestion: PlacedSuggestion, labels: Sequence[str]) -> bool:
    lead = suggestion.lead
    event = FoundEvent(lead.label, lead.start_index, lead.end_index, lead.peak_index, lead.peak_p)
    return is_right(event, labels)


def _group(recordings: Sequence[JudgedRecording], resamples: int, seed: int) -> dict[str, Any]:
    """Return the figures of some recordings with truth."""
    findings = [finding for one in recordings for finding in one.findings]
    rows = np.array([_sums(one) for one in recordings], np.float64).reshape(len(recordings), 6)
    totals = rows.sum(axis=0)
    drawn = resample_sums([one.unit for one in recordings], rows, resamples=resamples, seed=seed)
    figures, spread = _figures(totals[None]), {} if drawn is None else _figures(drawn)
    only = [sum(one.hit[side] and not one.hit[1 - side] for one in findings) for side in (0, 1)]
    frames, *_, false_old, false_new = map(int, totals)
    least = {
        "hits_lost": _adjusted_wald(only[0], only[1], len(findings)),
        "false_rise": spread_change(false_new - false_old, false_old),
        "false_change_per_1000_frames": spread_change(false_new - false_old, frames / 1000),
    }
    return {
        "recordings": len(recordings),
        "units": len({one.unit for one in recordings}),
        "frames": int(totals[0]),
        "findings": len(findings),
        **{name: _side(recordings, findings, side) for side, name in enumerate(_SIDES)},
        **{
            name: describe_figure(float(value[0]), spread.get(name), least[name])
            for name, value in figures.items()
        },
        "mcnemar": {"only_old": only[0], "only_new": only[1], "p_value": exact_mcnemar(*only)},
        "by_label": _by_label(recordings, findings),
    }


def _sums(one: JudgedRecording) -> list[int]:
    hits = [sum(finding.hit[side] for finding in one.findings) for side in (0, 1)]
    return [one.frames, len(one.findings), *hits, *one.false]


def _figures(sums: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    frames, findings, hit_old, hit_new, false_old, false_new = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = {
            "hits_lost": (hit_old - hit_new) / findings,
            "false_rise": false_new / false_old - 1,
            "false_change_per_1000_frames": 1000 * (false_new - false_old) / frames,
        }
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in figures.items()}


def _adjusted_wald(lost: int, gained: int, cases: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a difference of two paired shares (Agresti and Min, Stat. Med. 2005)."""
    if not cases:
        return None
    difference = (lost - gained) / (cases + 2)
    half = _Z * math.sqrt((lost + gained + 1) / (cases + 2) ** 2 - difference**2 / (cases + 2))
    return difference - half, difference + half


def _side(
    recordings: Sequence[JudgedRecording], findings: Sequence[JudgedFinding], side: int
) -> dict[str, Any]:
    frames, false = sum(one.frames for one in recordings), sum(one.false[side] for one in recordings)
    return {
        "hit": sum(finding.hit[side] for finding in findings),
        "seen": sum(finding.seen[side] for finding in findings),
        "right_suggestions": sum(one.right[side] for one in recordings),
        "false_suggestions": false,
        "false_per_1000_frames": 1000 * false / frames if frames else None,
    }


def _by_label(
    recordings: Sequence[JudgedRecording], findings: Sequence[JudgedFinding]
) -> list[dict[str, Any]]:
    false = [[label for one in recordings for label in one.false_labels[side]] for side in (0, 1)]
    labels = sorted({finding.label for finding in findings} | set(false[0]) | set(false[1]))
    rows = []
    for label in labels:
        there = [finding for finding in findings if finding.label == label]
        rows.append(
            {
                "label": label,
                "findings": len(there),
                **{
                    f"{what}_{name}": sum(getattr(finding, what)[side] for finding in there)
                    for what in ("hit", "seen")
                    for side, name in enumerate(_SIDES)
                },
                **{f"false_{name}": false[side].count(label) for side, name in enumerate(_SIDES)},
            }
        )
    return rows
