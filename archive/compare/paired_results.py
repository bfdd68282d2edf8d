"""Pair the results of two models for the same recordings, and say which recordings have no pair, and why.

Recordings are the same if their bytes are: they are paired by SHA-256. Copies of a recording count once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from capsule_edge.runtime.errors import InputError, UsageError

from ..manifest import READ_STATES, Manifest, Row
from ..reading import ResultStore
from .model_choice import ModelChoice
from .stored_results import StoredResult, read_stored

__all__ = ["ResultPair", "ResultPairs", "UnpairedRecording", "pair_results"]

_SHORT = 12


@dataclass(frozen=True)
class UnpairedRecording:
    """A recording that is not compared.

    Attributes:
        recording: path or address.
        cause: ``only_old`` or ``only_new``: one archive alone has a result; ``changed``: the file changed between
            the readings; ``options``: it was read with other options; ``result``: a result is gone or damaged.
        message: the same in a sentence.
    """

    recording: str
    cause: str
    message: str


@dataclass(frozen=True)
class ResultPair:
    """A recording with the results of both models.

    Attributes:
        row: of the recording in the manifest, with its site, capsule type and patient.
        old, new: the results.
        old_folder, new_folder: the folders of the results.
    """

    row: Row
    old: StoredResult
    new: StoredResult
    old_folder: Path
    new_folder: Path

    @property
    def unit(self) -> str:
        """The unit of the bootstrap: the patient where the list names one, else the recording."""
        return f"patient {self.row.patient}" if self.row.patient else f"recording {self.old.recording_sha256}"


@dataclass
class ResultPairs:
    """The pairs of two archives. Iterate once, then look at the counts.

    Attributes:
        old, new: the folders; the same if one archive holds the results of both models.
        keys: the keys of the results by SHA-256 of the recording: old, new.
        rows: the row of each of these recordings.
        unpaired: the recordings without a pair; complete after the iteration.
        copies: number of rows that are copies of another recording.
        compared: number of pairs that were given out.
    """

    old: Path
    new: Path
    keys: Mapping[str, tuple[str, str]]
    rows: Mapping[str, Row]
    unpaired: list[UnpairedRecording] = field(default_factory=list)
    copies: int = 0
    compared: int = 0

    def __iter__(self) -> Iterator[ResultPair]:
        stores = ResultStore(self.old), ResultStore(self.new)
        for sha256, keys in self.keys.items():
            row = self.rows[sha256]
            try:
                old, new = (read_stored(store, key) for store, key in zip(stores, keys, strict=True))
            except InputError as error:
                self.unpaired.append(UnpairedRecording(row.recording, "result", error.message))
                continue
            if {old.recording_sha256, new.recording_sha256} != {sha256}:
                message = "a result is that of another recording"
                self.unpaired.append(UnpairedRecording(row.recording, "result", message))
                continue
            if old.options != new.options:
                message = f"read with other options: {old.options} and {new.options}"
                self.unpaired.append(UnpairedRecording(row.recording, "options", message))
                continue
            self.compared += 1
            yield ResultPair(row, old, new, stores[0].folder(keys[0]), stores[1].folder(keys[1]))


def pair_results(old: Path, new: Path | None = None, *, models: Sequence[ModelChoice] = ()) -> ResultPairs:
    """Find the results of both models for each recording.

    Args:
        old: folder of an archive.
        new: folder of another archive over the same recordings; None if ``old`` holds the results of both models.
        models: the old and the new model; needed where a folder holds results of more models than it should.

    Raises:
        InputError: a folder holds no archive, no result, or no result of a model; or no recording is in both.
        UsageError: it is not clear which models are compared.
    """
    choices = (models[0], models[1]) if models else (None, None)
    if new is None or new.resolve() == old.resolve():
        return _pair_within(old, choices)
    sides = [_choose_rows(folder, choice) for folder, choice in zip((old, new), choices, strict=True)]
    found = [_by_recording(side) for side in sides]
    both = [sha256 for sha256 in found[0] if sha256 in found[1]]
    if not both:
        raise InputError(
            f"{old} ({len(found[0]):,} recordings) and {new} ({len(found[1]):,}) have no recording in common",
            hint="read the same recordings with both models; recordings are the same if their bytes are",
        )
    return ResultPairs(
        old,
        new,
        {sha256: (str(found[0][sha256].key), str(found[1][sha256].key)) for sha256 in both},
        {sha256: _merge(found[0][sha256], found[1][sha256]) for sha256 in both},
        _list_unpaired(old, new, found),
        copies=sum(len(side) for side in sides) - sum(map(len, found)),
    )


def _read_rows(folder: Path) -> list[Row]:
    manifest = Manifest(folder)
    if not manifest.folder.is_dir():
        raise InputError(f"{folder} holds no archive", hint="name the folder that 'archive read --out' wrote")
    rows = list(manifest.rows())
    read = [row for row in rows if row.state in READ_STATES and row.key and row.sha256]
    if not read:
        raise InputError(
            f"{folder} holds no result: it lists {len(rows):,} recordings, and none of them is read",
            hint=f"see 'capsule-edge archive status {folder} --list'",
        )
    return read


def _choose_rows(folder: Path, choice: ModelChoice | None) -> list[Row]:
    """Return the rows of one model."""
    rows = _read_rows(folder)
    counts = Counter(row.model_sha256 for row in rows)
    if choice is None and len(counts) > 1:
        raise UsageError(
            f"{folder} holds results of {len(counts)} models: {_describe(counts)}",
            hint="name the two models with --models, or let 'archive read' end",
        )
    chosen = [row for row in rows if choice is None or choice.fits(row.model_sha256)]
    if not chosen and choice is not None:
        raise InputError(
            f"{folder} holds no result of the model {choice.named}; it holds those of {_describe(counts)}",
            hint="name the old model first and the new one second",
        )
    return chosen


def _pair_within(folder: Path, choices: Sequence[ModelChoice | None]) -> ResultPairs:
    """Pair the results of two models that lie in one archive."""
    rows = _by_recording(_read_rows(folder))
    current = {str(row.key) for row in rows.values()}
    held: dict[str, dict[str, str]] = {}
    unpaired = []
    store = ResultStore(folder)
    # The manifest has the newest result of a recording alone, so the results of the other model are found by looking.
    for path in sorted((folder / "results").glob("*/*"), key=_changed_ns):
        try:
            result = read_stored(store, path.name)
        except InputError as error:
            unpaired.append(UnpairedRecording(str(path), "result", error.message))
            continue
        of_model = held.setdefault(result.model.sha256, {})
        if result.recording_sha256 in rows and of_model.get(result.recording_sha256) not in current:
            of_model[result.recording_sha256] = path.name
    old_model, new_model = _two_models(folder, {sha: len(of) for sha, of in held.items()}, choices, rows)
    before, after = held[old_model], held[new_model]
    for sha256, row in rows.items():
        if (sha256 in before) != (sha256 in after):
            side, other = ("old", "new") if sha256 in before else ("new", "old")
            message = f"no result of the {other} model"
            unpaired.append(UnpairedRecording(row.recording, f"only_{side}", message))
    keys = {
        sha256: (before[sha256], after[sha256]) for sha256 in rows if sha256 in before and sha256 in after
    }
    if not keys:
        raise InputError(
            f"{folder} holds no recording that both models have read", hint="let 'archive read' end"
        )
    return ResultPairs(folder, folder, keys, rows, unpaired)


def _two_models(
    folder: Path, counts: Mapping[str, int], choices: Sequence[ModelChoice | None], rows: Mapping[str, Row]
) -> tuple[str, str]:
    """Return the old and the new model of one archive; the new one is that of the newest row."""
    if choices[0] is not None:
        chosen = []
        for choice in choices:
            fitting = [sha256 for sha256 in counts if choice is not None and choice.fits(sha256)]
            if len(fitting) != 1:
                named = "" if choice is None else choice.named
                raise InputError(
                    f"{folder} holds results of {len(fitting)} models {named}; it holds those of {_describe(counts)}"
                )
            chosen += fitting
        return chosen[0], chosen[1]
    if len(counts) != 2:
        hint = (
            "name a second archive, or read the recordings again with another model"
            if len(counts) == 1
            else "name the two models with --models OLD NEW"
        )
        raise UsageError(
            f"{folder} holds results of {len(counts)} models, two are needed: {_describe(counts)}", hint=hint
        )
    newest = max(rows.values(), key=lambda row: row.recorded_at).model_sha256
    (other,) = [sha256 for sha256 in counts if sha256 != newest]
    return other, newest


def _list_unpaired(old: Path, new: Path, found: Sequence[Mapping[str, Row]]) -> list[UnpairedRecording]:
    """Return the recordings of which only one archive has a result."""
    unpaired = []
    places = [{row.recording for row in side.values()} for side in found]
    states = [
        {row.recording: row for row in Manifest(folder).rows() if row.state not in READ_STATES}
        for folder in (old, new)
    ]
    for here, there, side in ((0, 1, "old"), (1, 0, "new")):
        for sha256, row in found[here].items():
            if sha256 in found[there]:
                continue
            if row.recording in places[there]:
                if side == "old":  # the other side has a row for it, too: name it once
                    message = "the file changed between the two readings"
                    unpaired.append(UnpairedRecording(row.recording, "changed", message))
                continue
            other = states[there].get(row.recording)
            why = "is not in its list" if other is None else f"is {other.state} there: {other.cause}"
            message = f"{(old, new)[there]} has no result: the recording {why}"
            unpaired.append(UnpairedRecording(row.recording, f"only_{side}", message))
    return unpaired


def _by_recording(rows: Sequence[Row]) -> dict[str, Row]:
    """Return the first row of each recording by its SHA-256."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(str(row.sha256), row)
    return found


def _merge(old: Row, new: Row) -> Row:
    """Return the newer row, with what only the older one says about the recording."""
    facts = ("site", "capsule_type", "patient", "date")
    return replace(new, **{name: getattr(new, name) or getattr(old, name) for name in facts})


def _describe(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{sha256[:_SHORT]} ({count:,} recordings)" for sha256, count in counts.items())


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
