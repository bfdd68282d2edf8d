"""Show each difference: the frame of each model's suggestion, where each model sees the finding, and how probable.

Frames are decoded again from the recordings. A recording that is gone or that changed gives none, and the reason is
given in its place. Maps are computed again, so they need the model files: the installed models are found by their
hash, and other files must be named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.events import activation_map, enlarge
from capsule_edge.runtime.inference import Backend, InputSpec, open_model
from capsule_edge.runtime.preprocessing import FieldOfView, preprocess_frame
from capsule_edge.runtime.recording import Frame, fetch, scan
from capsule_edge.runtime.report import jpeg

from ..sources import RecordingState, check_unchanged
from .comparison import SuggestionDifference
from .model_choice import ModelChoice, find_model_files
from .paired_results import ResultPair
from .stored_results import PlacedSuggestion, StoredResult

__all__ = ["DifferencePicture", "FrameShot", "ModelView", "ProbabilityCurve", "illustrate_differences"]

MOST = 300
"""The most differences with pictures."""

# Size of all pictures in bytes from which on no more are made.
_MOST_BYTES = 12_000_000
_LONGEST, _QUALITY = 288, 84
# The input of a model whose file is not at hand: only its crop matters for the picture.
_PLAIN_INPUT = InputSpec(size=_LONGEST, preprocessing=2)
# Frames before and after a suggestion that its curve shows, and the most points of a curve.
_MARGIN, _POINTS = 40, 160
# Side of the finer grid on which the contour is found, and its level as a share of the strongest evidence.
_GRID, _LEVEL = 130, 0.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrameShot:
    """A frame as a JPEG data URI, with its width and height in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class ModelView:
    """One model's answer to a frame.

    Attributes:
        index: of the frame.
        label: key of the label.
        shot: the picture; None without one.
        contour: the activation contour as the data of an SVG path in a box of 100 x 100; empty without one.
        probability: of the label in this frame, 0..1; None where the model has no answer.
        note: why there is no picture or no contour; empty if both are there.
    """

    index: int
    label: str
    shot: FrameShot | None
    contour: str
    probability: float | None
    note: str


@dataclass(frozen=True)
class ProbabilityCurve:
    """The probability of a label in the frames around a suggestion.

    Attributes:
        first, last: index of the first and the last frame.
        old, new: the points of each model as an SVG polyline in a box of 100 x 100; empty without answers.
    """

    first: int
    last: int
    old: str
    new: str


@dataclass(frozen=True)
class DifferencePicture:
    """The pictures of a difference: the view of each model, and the curve of both."""

    old: ModelView
    new: ModelView
    curve: ProbabilityCurve | None


def illustrate_differences(
    differences: Sequence[SuggestionDifference],
    models: Sequence[ModelChoice] = (),
    *,
    advance: Callable[[int], None] | None = None,
) -> list[DifferencePicture]:
    """Return the pictures of the first ``MOST`` differences, in their order.

    Args:
        differences: of a comparison, in the order in which to look at them.
        models: models that the user named; their files are used for maps.
        advance: called with 1 after each difference.
    """
    shown = list(enumerate(differences[:MOST]))
    workshop = _Workshop(find_model_files(models))
    found: dict[int, DifferencePicture] = {}
    try:
        for held in _by_recording(shown):
            for place, picture in workshop.draw(held):
                found[place] = picture
                if advance is not None:
                    advance(1)
    finally:
        workshop.close()
    return [found[place] for place, _ in shown]


def _by_recording(
    shown: Sequence[tuple[int, SuggestionDifference]],
) -> Iterator[list[tuple[int, SuggestionDifference]]]:
    """Yield the differences of each recording, in the order in which the recordings come first."""
    held: dict[str, list[tuple[int, SuggestionDifference]]] = {}
    for place, each in shown:
        held.setdefault(each.pair.old.recording_sha256, []).append((place, each))
    yield from held.values()


@dataclass
class _Workshop:
    """Draws the differences of one recording after the other.

    Attributes:
        files: model files by SHA-256.
        opened: the opened models, or why one cannot be opened.
        bytes: size of the pictures so far.
    """

    files: Mapping[str, Path]
    opened: dict[str, Backend | str] = field(default_factory=dict)
    bytes: int = 0

    def close(self) -> None:
        for model in self.opened.values():
            if not isinstance(model, str):
                model.close()

    def draw(
        self, held: Sequence[tuple[int, SuggestionDifference]]
    ) -> Iterator[tuple[int, DifferencePicture]]:
        """Yield the pictures of the differences of one recording."""
        pair = held[0][1].pair
        wanted = {one.lead.peak_index for _, each in held for one in _both_suggestions(each)}
        frames, problem = _fetch_frames(pair, wanted)
        answers = _Answers(pair.old_folder), _Answers(pair.new_folder)
        for place, each in held:
            old, new = _both_suggestions(each)
            views = [
                self._view(result, one, frames.get(one.lead.peak_index), problem, answer)
                for result, one, answer in zip((pair.old, pair.new), (old, new), answers, strict=True)
            ]
            yield place, DifferencePicture(views[0], views[1], _curve(answers, old, new))

    def _view(
        self,
        result: StoredResult,
        one: PlacedSuggestion,
        frame: Frame | None,
        problem: str,
        answers: _Answers,
    ) -> ModelView:
        index = one.lead.peak_index
        probability = answers.probability(one.label, index)
        if self.bytes > _MOST_BYTES:
            frame, problem = None, "The page has no room for more pictures."
        if frame is None:
            note = problem or "The frame cannot be decoded."
            return ModelView(index, one.label, None, "", probability, note)
        model = self._open(result)
        spec = _PLAIN_INPUT if isinstance(model, str) else model.spec.input
        box = None if result.field_of_view is None else FieldOfView(**result.field_of_view)
        try:
            shot = FrameShot(
                *jpeg(preprocess_frame(frame, enlarge(spec), box), longest=_LONGEST, quality=_QUALITY)
            )
            contour, note = ("", model) if isinstance(model, str) else _contour(model, frame, box, one.label)
        except CapsuleEdgeError as error:
            return ModelView(index, one.label, None, "", probability, str(error))
        self.bytes += len(shot.uri) + len(contour)
        return ModelView(index, one.label, shot, contour, probability, note)

    def _open(self, result: StoredResult) -> Backend | str:
        """Return the model of a result, or why its maps cannot be shown."""
        sha256 = result.model.sha256
        if sha256 not in self.opened:
            path = self.files.get(sha256)
            if path is None:
                self.opened[sha256] = "No map: the model file is not installed. Name it with --models."
            else:
                try:
                    self.opened[sha256] = open_model(path, backend=result.backend, threads=1)
                except CapsuleEdgeError as error:
                    self.opened[sha256] = f"No map: {error.message}."
        return self.opened[sha256]


def _both_suggestions(each: SuggestionDifference) -> tuple[PlacedSuggestion, PlacedSuggestion]:
    """Return the suggestion to show for each model: its own, or that of the other model where it has none."""
    old, new = each.match.old, each.match.new
    first, second = old or new, new or old
    if first is None or second is None:
        raise ValueError("a match has a suggestion")
    return first, second


def _fetch_frames(pair: ResultPair, wanted: set[int]) -> tuple[dict[int, Frame], str]:
    """Return the wanted frames that can be decoded, and why there are none."""
    row = pair.row
    try:
        check_unchanged(row.recording, RecordingState(row.bytes, row.modified_ns), pair.old.recording_sha256)
        container = scan(row.recording)
        present = {index for index in wanted if index < container.present}
        return {frame.index: frame for frame in fetch(container, present)}, ""
    except CapsuleEdgeError as error:
        return {}, f"No picture: {error.message}."


def _contour(model: Backend, frame: Frame, box: FieldOfView | None, label: str) -> tuple[str, str]:
    """Return the contour of a label in a frame, or why there is none."""
    if label not in model.spec.keys:
        return "", "No map: the model has no such label."
    answer = model.run(preprocess_frame(frame, model.spec.input, box)[None])
    # An adopted model may have no features, whatever the type of an answer says.
    features: npt.NDArray[np.float32] | None = answer.features
    if features is None:
        return "", "No map: the model gives none."
    values = activation_map(features[0][..., model.spec.keys.index(label)])
    if not values.any():
        return "", "No part of this frame speaks for the finding."
    return trace_contour(values), ""


def trace_contour(values: npt.NDArray[np.float32]) -> str:
    """Return the lines around the parts of a map that reach half of its strongest value, as data of an SVG path.

    Args:
        values: float32 (h, w), 0..1.

    Returns:
        The path in a box of 100 x 100.
    """
    fine = cv2.resize(values, (_GRID, _GRID), interpolation=cv2.INTER_LINEAR)
    above = np.asarray(fine >= _LEVEL, np.uint8)
    lines, _ = cv2.findContours(above, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    parts = []
    for line in lines:
        points = (cv2.approxPolyDP(line, 0.6, True)[:, 0] + 0.5) * (100 / _GRID)
        if len(points) > 2:
            parts.append("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in points.tolist()) + "Z")
    return "".join(parts)


class _Answers:
    """The probabilities in a ``frames.csv``, read when they are asked for. Without the file there are none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "frames.csv"
        self._rows: list[str] | None = None
        self._columns: dict[str, int] = {}

    def probability(self, label: str, index: int) -> float | None:
        """Return the probability of a label in a frame; None where there is none."""
        value = float(self.curve(label, index, index)[0])
        return value if np.isfinite(value) else None

    def curve(self, label: str, first: int, last: int) -> Floats:
        """Return the probability of a label in frames ``first`` to ``last``, float64; NaN where there is none."""
        values = np.full(last - first + 1, np.nan)
        rows = self._read()
        column = self._columns.get(f"p_{label}")
        if column is None:
            return values
        for place, row in enumerate(rows[first : last + 1]):
            cells = row.split(",")
            if len(cells) > column and cells[0] == str(first + place) and cells[column]:
                try:
                    values[place] = float(cells[column])
                except ValueError:
                    continue
        return values

    def _read(self) -> list[str]:
        if self._rows is None:
            try:
                head, *self._rows = self._path.read_text("utf-8").splitlines()
                self._columns = {name: at for at, name in enumerate(head.split(","))}
            except (OSError, ValueError):
                self._rows = []
        return self._rows


def _curve(
    answers: tuple[_Answers, _Answers], old: PlacedSuggestion, new: PlacedSuggestion
) -> ProbabilityCurve | None:
    """Return the probability of each model's label around its suggestion; None without any answer."""
    first = max(0, min(old.lead.start_index, new.lead.start_index) - _MARGIN)
    last = max(old.lead.end_index, new.lead.end_index) + _MARGIN
    values = [answer.curve(one.label, first, last) for answer, one in zip(answers, (old, new), strict=True)]
    known = np.flatnonzero(np.isfinite(values[0]) | np.isfinite(values[1]))
    if not len(known):
        return None
    values = [side[: known[-1] + 1] for side in values]
    return ProbabilityCurve(first, first + int(known[-1]), _polyline(values[0]), _polyline(values[1]))


def _polyline(values: Floats) -> str:
    """Return probabilities as points in a box of 100 x 100. A point is the highest value of some successive frames."""
    starts = np.arange(0, len(values), -(-len(values) // _POINTS))
    highest = np.fmax.reduceat(values, starts)
    x = 100 * starts / max(1, len(values) - 1)
    return " ".join(
        f"{at:.1f},{100 - 100 * value:.1f}"
        for at, value in zip(x.tolist(), highest.tolist(), strict=True)
        if np.isfinite(value)
    )
