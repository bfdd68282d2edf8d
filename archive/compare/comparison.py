"""Compare two archives: every difference, the figures, and a verdict by gates.

There are two kinds of comparison. An *equivalence* compares two forms of one model, such as FP32 and INT8, or one
model file read twice: the new results should be those of the old. A *replacement* compares two models of which the new
one should be better.

Every gate is a loss or a rise that has an upper limit, and its 95 % interval decides: wholly within the limit is
``pass``, wholly beyond it ``fail``, otherwise ``undecided``. With too few recordings, suggestions or findings a gate is
undecided.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from capsule_edge.evaluation.classification import LEVEL
from capsule_edge.runtime.errors import InputError, OutputError, UsageError
from capsule_edge.runtime.results import commit_files

from .difference_counts import LEAST_UNITS, RecordingCounts, count_matches, describe_strata
from .finding_comparison import FindingComparison
from .model_choice import ModelChoice
from .paired_results import ResultPair, ResultPairs, pair_results
from .stored_results import ModelIdentity, PlacedSuggestion, StoredResult
from .suggestion_matching import KINDS, SuggestionMatch, match_suggestions

__all__ = [
    "ArchiveComparison",
    "ComparisonKind",
    "ComparisonOptions",
    "SuggestionDifference",
    "check_comparison_folder",
    "compare_archives",
    "write_comparison",
]

SCHEMA = "capsule-edge/archive-comparison/1"
DOCUMENT, PAGE = "comparison.json", "comparison.html"

ComparisonKind = Literal["equivalence", "replacement"]

# Upper limits of the gates.
MAX_HITS_LOST = 0.05
MAX_FALSE_RISE = 0.10
MAX_RISE: Mapping[ComparisonKind, float] = {"equivalence": 0.05, "replacement": 0.20}
MAX_PLACES_LOST = 0.05
# A gate with fewer is undecided. If none of 100 suggestions is lost, the interval of the share ends at 3.7 %; if none
# of 30 findings is lost, it ends at 6 %.
MIN_UNITS, MIN_SUGGESTIONS, MIN_FALSE, MIN_FINDINGS = 10, 100, 30, 30


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """The options of a comparison.

    Attributes:
        truth: folder with the truth tables of some recordings; None without truth.
        kind: which gates decide; None to choose by the models.
        resamples: number of resamples of the bootstrap.
        seed: of the bootstrap.
    """

    truth: Path | None = None
    kind: ComparisonKind | None = None
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class SuggestionDifference:
    """A difference between two models in one recording.

    Attributes:
        pair: the results, without their suggestions.
        match: the suggestions that differ.
        right: whether the old and the new suggestion are right by the truth; None where that is not known.
    """

    pair: ResultPair
    match: SuggestionMatch
    right: tuple[bool | None, bool | None]

    @property
    def order(self) -> tuple[Any, ...]:
        """A sort key: what only one model has first, then changes of label, time and rank; high scores first."""
        found = [one for one in (self.match.old, self.match.new) if one is not None]
        score = max(one.score for one in found)
        return (
            KINDS.index(self.match.kinds[0]),
            -score,
            self.pair.old.recording_sha256,
            found[0].lead.start_index,
        )


@dataclass(frozen=True)
class ArchiveComparison:
    """A comparison of two archives.

    Attributes:
        document: the comparison as JSON, of ``schema/archive-comparison-1.schema.json``.
        differences: every difference, in the order in which to look at them.
    """

    document: dict[str, Any]
    differences: tuple[SuggestionDifference, ...]


def compare_archives(
    old: Path,
    new: Path | None = None,
    *,
    models: Sequence[ModelChoice] = (),
    options: ComparisonOptions | None = None,
) -> ArchiveComparison:
    """Compare the results of two models over the same recordings.

    Args:
        old: folder of an archive.
        new: folder of the other one; None if ``old`` holds the results of both models.
        models: the two models, where it is not clear which are compared.
        options: of the comparison.

    Raises:
        InputError: an archive or the truth cannot be read, or there is nothing to compare.
        UsageError: it is not clear which models are compared, or both sides are the same results.
    """
    options = options or ComparisonOptions()
    truth = None if options.truth is None else FindingComparison.of_folder(options.truth)
    pairs = pair_results(old, new, models=models)
    if truth is not None:
        truth.expect(pairs)
    sides = _Sides()
    counts: list[RecordingCounts] = []
    differences: list[SuggestionDifference] = []
    for pair in pairs:
        sides.add(pair)
        right = None if truth is None else truth.add(pair)
        matches = match_suggestions(pair.old.suggestions, pair.new.suggestions)
        row = pair.row
        counts.append(
            RecordingCounts(pair.unit, row.site, row.capsule_type, pair.old.frames, count_matches(matches))
        )
        bare = replace(pair, old=replace(pair.old, suggestions=()), new=replace(pair.new, suggestions=()))
        differences += [
            SuggestionDifference(bare, match, _right(match, right)) for match in matches if match.kinds
        ]
    _check(pairs, sides)
    if truth is not None:
        truth.check()
    differences.sort(key=lambda each: each.order)
    return ArchiveComparison(_document(pairs, sides, counts, truth, differences, options), tuple(differences))


def write_comparison(
    comparison: ArchiveComparison, page: str | None, folder: Path, *, overwrite: bool = False
) -> list[Path]:
    """Write ``comparison.json`` and the page, if there is one, into a folder: all or none.

    Raises:
        OutputError: the folder cannot be written, or holds a comparison that may not be overwritten.
    """
    check_comparison_folder(folder, overwrite=overwrite)
    text = json.dumps(comparison.document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    contents = {DOCUMENT: text.encode("utf-8", "replace")}
    if page is not None:
        contents[PAGE] = page.encode("utf-8", "replace")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="choose another --out",
        ) from error
    return list(commit_files(folder, contents, sign=DOCUMENT).values())


def check_comparison_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that a comparison may be written into a folder, before anything is compared.

    Raises:
        OutputError: a file is in its place, or it holds a comparison that may not be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} cannot be a folder: a file is in its place", hint="choose another --out")
    if (folder / DOCUMENT).exists() and not overwrite:
        raise OutputError(
            f"{folder} already holds {DOCUMENT}", hint="choose another --out, or pass --overwrite"
        )


class _Sides:
    """The models, engines and versions that made the results of both sides."""

    def __init__(self) -> None:
        self.models: tuple[dict[ModelIdentity, None], dict[ModelIdentity, None]] = ({}, {})
        self.backends: tuple[set[str], set[str]] = (set(), set())
        self.versions: tuple[set[str], set[str]] = (set(), set())
        self.same = 0

    def add(self, pair: ResultPair) -> None:
        for at, result in enumerate((pair.old, pair.new)):
            self.models[at].setdefault(result.model)
            self.backends[at].add(result.backend)
            self.versions[at].add(result.version)
        self.same += pair.old.key == pair.new.key

    def model(self, at: int) -> ModelIdentity:
        return next(iter(self.models[at]))

    @property
    def kind(self) -> ComparisonKind:
        old, new = self.model(0), self.model(1)
        same = old.sha256 == new.sha256 or (old.name, old.version) == (new.name, new.version)
        return "equivalence" if same else "replacement"

    def warnings(self) -> list[str]:
        found = []
        if self.model(0).sha256 == self.model(1).sha256:
            found.append(
                "Both sides were read with the same model file. Engine or version differ, not the model."
            )
        for what, values in (("engine", self.backends), ("version of capsule-edge", self.versions)):
            if values[0] != values[1] or len(values[0]) > 1:
                named = " and ".join(", ".join(sorted(side)) for side in values)
                found.append(
                    f"The {what} differs: {named}. The differences are not those of the models alone."
                )
        return found

    def document(self, at: int) -> dict[str, Any]:
        model = self.model(at)
        return {
            "name": model.name,
            "version": model.version,
            "precision": model.precision,
            "sha256": model.sha256,
            "backends": sorted(self.backends[at]),
            "tool_versions": sorted(self.versions[at]),
        }


def _check(pairs: ResultPairs, sides: _Sides) -> None:
    """Raise unless there is something to compare."""
    if not pairs.compared:
        first = pairs.unpaired[-1]
        raise InputError(
            f"none of the {len(pairs.keys):,} common recordings can be compared; {first.recording}: {first.message}",
            hint="read them again with the same options and both models",
        )
    if sides.same == pairs.compared:
        model = sides.model(0)
        raise UsageError(
            f"both sides hold the same results: model {model.name} {model.version} ({model.sha256[:12]}), same options "
            "and version",
            hint="compare with an archive that was read with another model",
        )


def _right(
    match: SuggestionMatch, right: tuple[dict[int, bool], dict[int, bool]] | None
) -> tuple[bool | None, bool | None]:
    if right is None:
        return None, None
    return (
        None if match.old is None else right[0][match.old.rank],
        None if match.new is None else right[1][match.new.rank],
    )


def _document(
    pairs: ResultPairs,
    sides: _Sides,
    counts: Sequence[RecordingCounts],
    truth: FindingComparison | None,
    differences: Sequence[SuggestionDifference],
    options: ComparisonOptions,
) -> dict[str, Any]:
    kind = options.kind or sides.kind
    drawing = {"resamples": options.resamples, "seed": options.seed}
    strata = describe_strata(counts, **drawing)
    judged = None if truth is None else truth.document(**drawing)
    gates = _gates(kind, strata, judged)
    return {
        "schema": SCHEMA,
        "kind": kind,
        "verdict": _worst([str(gate["verdict"]) for gate in gates]),
        "tool": {"name": "capsule-edge", "version": version("capsule-edge")},
        "models": {"old": sides.document(0), "new": sides.document(1)},
        "recordings": {
            "compared": pairs.compared,
            "copies": pairs.copies,
            "not_compared": [
                {"recording": one.recording, "cause": one.cause, "message": one.message}
                for one in pairs.unpaired
            ],
        },
        "warnings": sides.warnings(),
        "gates": gates,
        "bootstrap": {
            "method": "paired percentile bootstrap over recordings; those of one patient are drawn together",
            "level": LEVEL,
            "least_units": LEAST_UNITS,
            **drawing,
        },
        **strata,
        "truth": judged,
        "differences": [_difference(each) for each in differences],
    }


def _gates(
    kind: ComparisonKind, strata: Mapping[str, Any], truth: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    overall = strata["overall"]
    gates = []
    if kind == "equivalence":
        gates.append(_places_gate("places_lost", overall))
        gates += [
            _places_gate(f"places_lost.{entry['label']}", entry)
            for entry in strata["by_label"]
            if entry["old"]
        ]
    gates.append(
        _gate(
            "suggestions_rise",
            overall["rise"],
            MAX_RISE[kind],
            _too_few(overall["old"], MIN_SUGGESTIONS, "suggestions", overall["units"]),
        )
    )
    if kind == "replacement" or truth is not None:
        gates += _truth_gates(None if truth is None else truth["unseen"])
    return gates


def _truth_gates(group: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the gates on the recordings with truth that no model was trained on; None: no truth was given."""
    limits = {"findings_lost": MAX_HITS_LOST, "false_suggestions_rise": MAX_FALSE_RISE}
    if group is None:
        nothing = {"value": None, "interval": None}
        return [_gate(name, nothing, limit, "no truth was given") for name, limit in limits.items()]
    false, units = group["old"]["false_suggestions"], group["units"]
    few = {
        "findings_lost": _too_few(group["findings"], MIN_FINDINGS, "findings", units),
        "false_suggestions_rise": _too_few(false, MIN_FALSE, "false suggestions", units),
    }
    figures = {"findings_lost": group["hits_lost"], "false_suggestions_rise": group["false_rise"]}
    return [_gate(name, figures[name], limit, few[name]) for name, limit in limits.items()]


def _places_gate(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    few = _too_few(entry["old"], MIN_SUGGESTIONS, "suggestions", entry["units"])
    return _gate(name, entry["places_lost"], MAX_PLACES_LOST, few)


def _too_few(found: int, least: int, what: str, units: int) -> str:
    """Return why the numbers are too small to decide; empty if they are not."""
    if found >= least and units >= MIN_UNITS:
        return ""
    return f"{found} {what} in {units} recordings or patients, needed are {least} in {MIN_UNITS}"


def _gate(name: str, figure: Mapping[str, Any], limit: float, too_few: str) -> dict[str, Any]:
    verdict, reason = _judge(figure, limit, too_few)
    return {
        "name": name,
        "value": figure["value"],
        "interval": figure["interval"],
        "limit": limit,
        "verdict": verdict,
        "reason": reason,
    }


def _judge(figure: Mapping[str, Any], limit: float, too_few: str) -> tuple[str, str | None]:
    """Return the verdict, and the reason if it is undecided."""
    if too_few:
        return "undecided", too_few
    if figure["interval"] is None:
        return "undecided", "the figure or its interval is undefined"
    low, high = figure["interval"]
    if low > limit:
        return "fail", None
    if high <= limit:
        return "pass", None
    return "undecided", f"the value may lie anywhere from {low:.3f} to {high:.3f}"


def _worst(verdicts: Sequence[str]) -> str:
    return next(verdict for verdict in ("fail", "undecided", "pass") if verdict in verdicts)


def _difference(each: SuggestionDifference) -> dict[str, Any]:
    row, match = each.pair.row, each.match
    return {
        "recording": row.recording,
        "sha256": each.pair.old.recording_sha256,
        "site": row.site,
        "capsule_type": row.capsule_type,
        "kinds": list(match.kinds),
        "overlap": round(match.overlap, 6),
        "old": _suggestion(match.old, each.pair.old, each.right[0]),
        "new": _suggestion(match.new, each.pair.new, each.right[1]),
    }


def _suggestion(
    one: PlacedSuggestion | None, result: StoredResult, right: bool | None
) -> dict[str, Any] | None:
    if one is None:
        return None
    lead = one.lead
    return {
        "key": result.key,
        "rank": one.rank,
        "label": one.label,
        "score": one.score,
        "right": right,
        "alternatives": list(one.alternatives),
        "events": len(one.events),
        "frames": one.frames,
        "start_index": lead.start_index,
        "end_index": lead.end_index,
        "start_s": lead.start_s,
        "end_s": lead.end_s,
        "peak_index": lead.peak_index,
        "peak_s": lead.peak_s,
        "peak_p": lead.peak_p,
    }
