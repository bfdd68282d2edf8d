"""Make transplants: set lesions into frames of other patients, and take lesions out of frames.

If a class has only one or two videos, a network may recognise the videos instead of the lesion. Bounding
boxes around lesions help. The boxed lesion of one video is copied into a normal frame of another video and
keeps its label. A piece of normal mucosa is copied over a lesion, and the frame becomes normal. This is cut
and paste (Dwibedi et al., ICCV 2017). Pieces have soft edges and take on the colour around their new place.
Poisson cloning was tried and washed small lesions out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset, Sample, read_frame, read_rows
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.phantom import NORMAL
from capsule_edge.runtime.preprocessing import preprocess

from ..config import TrainConfig
from .frames import (
    SEPARATOR,
    TRANSPLANT,
    TrainingFrames,
    check_labels,
    is_transplant,
    phantom_frames,
    videos_of,
)

__all__ = ["LesionBox", "check_boxes", "made_frames", "made_of", "read_boxes", "transplant_frames"]

Image = npt.NDArray[np.uint8]
MADE_SEED = 1
_ATTEMPTS = 100  # to draw two images that can be read
_CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
_BOXED_SIZE = 336  # Kvasir-Capsule gives its boxes in pixels of frames with this side
# A box that covers more than this share of the frame outlines a view (blood, a lumen) and not a lesion in it.
_LARGEST = 0.2
_NARROWEST = 0.01  # smallest half axis; a narrower lesion has no ring around it to match colours with
_TAKEN_OUT = 0.3  # share of transplants in which a lesion was taken out
_MARGIN = 1.15  # the copied ellipse is this much larger than the one in the box, to include the lesion's rim
_PLACES = 6  # places tried in a host; the one closest in brightness is used


@dataclass(frozen=True)
class LesionBox:
    """The ellipse in the bounding box of a lesion: centre and half axes, as shares of the frame's sides."""

    x: float
    y: float
    a: float
    b: float


def read_boxes(table: Path) -> dict[tuple[str, int], list[LesionBox]]:
    """Read the bounding boxes of a ``metadata.csv`` as Kvasir-Capsule publishes it.

    Args:
        table: the CSV file, with the columns ``video_id``, ``frame_number`` and ``x1`` to ``y4``.

    Returns:
        The boxes by video and frame number.

    Raises:
        InputError: the table lacks a column, or a corner or frame number is no number.
    """
    boxes: dict[tuple[str, int], list[LesionBox]] = {}
    for line, row in read_rows(table, ("video_id", "frame_number", *_CORNERS), short_rows=True):
        if not row["x1"]:
            continue
        try:
            corners = np.array([float(row[c]) for c in _CORNERS]).reshape(4, 2) / _BOXED_SIZE
            number = int(row["frame_number"])
        except ValueError:
            raise InputError(
                f"{table} line {line} has a corner or a frame number that is no number"
            ) from None
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        box = LesionBox((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)
        boxes.setdefault((row["video_id"], number), []).append(box)
    return boxes


@dataclass(frozen=True)
class _Sources:
    """The frames that transplants are made from.

    ``donors`` lists the rows of frames with a lesion, each with the box of the lesion. ``groups`` maps a label and a
    video to indices into ``donors``. ``hosts`` maps a video to the rows of its normal frames. ``normal`` is the
    column of the label normal.
    """

    donors: list[tuple[int, LesionBox]]
    groups: dict[tuple[int, str], list[int]]
    hosts: dict[str, list[int]]
    normal: int

    def draw_donor(self, rng: np.random.Generator) -> tuple[int, int, LesionBox]:
        """Draw a label, and the row and the box of a frame that shows it."""
        classes = sorted({label for label, _ in self.groups})
        label = classes[int(rng.integers(len(classes)))]
        of_class = [group for group in self.groups if group[0] == label]
        # Draw videos by the root of their size: a video of 11 frames must not be drawn as often as one of 650.
        share = np.sqrt([len(self.groups[group]) for group in of_class])
        chosen = self.groups[of_class[int(rng.choice(len(of_class), p=share / share.sum()))]]
        row, box = self.donors[chosen[rng.integers(len(chosen))]]
        return label, row, box

    def draw_host(self, rng: np.random.Generator) -> int:
        """Draw the row of a normal frame."""
        videos = list(self.hosts)
        host = self.hosts[videos[rng.integers(len(videos))]]
        return host[rng.integers(len(host))]


def transplant_frames(
    dataset: Dataset,
    boxes: dict[tuple[str, int], list[LesionBox]],
    count: int,
    keys: Sequence[str],
    spec: InputSpec,
    seed: int,
) -> TrainingFrames:
    """Make frames with a transplanted lesion, or with a lesion taken out.

    All classes that have boxes are drawn equally often, and the videos of a class by the root of their size. Images
    that cannot be read are skipped.

    Args:
        dataset: the labelled images.
        boxes: the boxes around lesions (``read_boxes``).
        count: number of frames to make.
        keys: the labels of the model, in order.
        spec: the input of the model.
        seed: the same seed makes the same frames.

    Raises:
        InputError: no frame has a usable box, no frame is normal, or hardly any of them can be read.
    """
    video_of = videos_of(dataset)
    sources = _find_sources(dataset, boxes, keys)

    def make(number: int) -> tuple[Image, int, str]:
        rng = np.random.default_rng((seed, number))
        for _ in range(_ATTEMPTS):
            label, row, box = sources.draw_donor(rng)
            other = sources.draw_host(rng)
            try:
                donor, host = read_frame(dataset.samples[row]), read_frame(dataset.samples[other])
            except InputError:
                continue
            video = SEPARATOR.join((TRANSPLANT, str(video_of[row]), str(video_of[other])))
            if rng.random() < _TAKEN_OUT:
                return preprocess(_take_out(donor, box, host, rng), spec), sources.normal, video
            return preprocess(_set_in(host, donor, box, rng), spec), label, video
        raise InputError(
            f"in each of {_ATTEMPTS} drawn pairs, the frame with a box or the normal frame cannot be read:"
            " nothing can be transplanted"
        )

    with ThreadPoolExecutor() as pool:
        made = list(pool.map(make, range(count)))
    return TrainingFrames(
        np.stack([frame for frame, _, _ in made]),
        np.array([label for _, label, _ in made], np.int64),
        np.array([video for _, _, video in made]),
        tuple(keys),
    )


def _find_sources(
    dataset: Dataset, boxes: dict[tuple[str, int], list[LesionBox]], keys: Sequence[str]
) -> _Sources:
    """Find donors and hosts. Raise ``InputError`` if there are none of either."""
    labels, video_of = check_labels(dataset, keys), videos_of(dataset)
    normal = list(keys).index(NORMAL) if NORMAL in keys else -1
    donors = [
        (row, box)
        for row, sample in enumerate(dataset.samples)
        for box in _lesions(sample, boxes)
        if labels[row] != normal
    ]
    groups: dict[tuple[int, str], list[int]] = {}
    for at, (row, _) in enumerate(donors):
        groups.setdefault((int(labels[row]), str(video_of[row])), []).append(at)
    hosts: dict[str, list[int]] = {}
    for row in np.flatnonzero(labels == normal).tolist():
        hosts.setdefault(str(video_of[row]), []).append(row)
    if not hosts or not donors:
        raise InputError("no frame has a box around a lesion, or none is normal: nothing can be transplanted")
    return _Sources(donors, groups, hosts, normal)


def made_frames(
    dataset: Dataset, keys: Sequence[str], spec: InputSpec, config: TrainConfig, boxes: Path | None
) -> TrainingFrames | None:
    """Return the rendered frames and the transplants that ``config`` asks for, or None if it asks for none.

    All recipes get the same frames, teachers and students alike (``MADE_SEED``).

    Args:
        dataset: the labelled images.
        keys: the labels of the model, in order.
        spec: the input of the model.
        config: ``phantom`` and ``transplants`` are the numbers of frames.
        boxes: the table of lesions for transplants.

    Raises:
        UsageError: transplants are asked for without ``boxes``, or no phantom can show the labels.
        InputError: the table is damaged, or nothing can be transplanted.
    """
    made: TrainingFrames | None = None
    if config.phantom:
        made = phantom_frames(config.phantom, keys, spec, MADE_SEED)
    check_boxes(config, boxes)
    if config.transplants and boxes is not None:
        set_in = transplant_frames(dataset, read_boxes(boxes), config.transplants, keys, spec, MADE_SEED)
        made = made.join(set_in) if made else set_in
    return made


def check_boxes(config: TrainConfig, boxes: Path | None) -> None:
    """Raise ``UsageError`` if transplants are asked for without the table of lesions."""
    if config.transplants and boxes is None:
        raise UsageError(
            f"{config.transplants} transplants need a table of boxes around lesions",
            hint="name the table: --boxes metadata.csv",
        )


def made_of(videos: npt.NDArray[np.str_], these: Collection[str]) -> npt.NDArray[np.bool_]:
    """Return which frames are transplants made from one of the videos ``these``, bool (N,).

    Args:
        videos: the video names of N frames.
        these: names of videos.
    """
    wanted = set(these)
    origins = [str(video).split(SEPARATOR)[1:] for video in videos]
    shared = np.array([not wanted.isdisjoint(pair) for pair in origins], bool)
    return np.asarray(is_transplant(videos) & shared)


def _lesions(sample: Sample, boxes: dict[tuple[str, int], list[LesionBox]]) -> list[LesionBox]:
    """Return the box of a frame with exactly one box, if its lesion is whole; an empty list otherwise.

    If a frame has several lesions, taking one out would leave the others.
    """
    number = -1 if sample.frame_number is None else sample.frame_number
    found = boxes.get((sample.video_id or "", number), [])
    return [box for box in found if len(found) == 1 and _is_whole(box)]


def _is_whole(box: LesionBox) -> bool:
    """Return whether the lesion lies in the inscribed circle and is neither too narrow nor too large."""
    inside = np.hypot(box.x - 0.5, box.y - 0.5) + max(box.a, box.b) < 0.5
    return bool(inside and min(box.a, box.b) >= _NARROWEST and 4 * box.a * box.b <= _LARGEST)


def _set_in(host: Image, donor: Image, box: LesionBox, rng: np.random.Generator) -> Image:
    """Return ``host`` with the donor's lesion, turned, mirrored and scaled, somewhere in its inner part."""
    size = np.exp(rng.uniform(-0.35, 0.35)) * min(host.shape[:2]) / min(donor.shape[:2])
    angle, mirror = rng.uniform(0, 2 * np.pi), -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    turn = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    pieces = [_piece(host, donor, box, (box.x, box.y), _place(rng), turn) for _ in range(_PLACES)]
    return min(pieces, key=lambda piece: piece[1])[0]


def _take_out(frame: Image, box: LesionBox, normal: Image, rng: np.random.Generator) -> Image:
    """Return ``frame`` with a piece of the normal frame over its lesion and the lesion's rim."""
    wide = LesionBox(box.x, box.y, box.a * _MARGIN, box.b * _MARGIN)
    turn = np.eye(2) * min(frame.shape[:2]) / min(normal.shape[:2])
    pieces = [_piece(frame, normal, wide, _place(rng), (box.x, box.y), turn) for _ in range(_PLACES)]
    return min(pieces, key=lambda piece: piece[1])[0]


def _place(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a place in the inner part of a frame, as shares of its sides."""
    angle, radius = rng.uniform(0, 2 * np.pi), 0.35 * np.sqrt(rng.random())
    return 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)


def _piece(
    host: Image,
    source: Image,
    box: LesionBox,
    at: tuple[float, float],
    to: tuple[float, float],
    turn: npt.NDArray[np.float64],
) -> tuple[Image, float]:
    """Copy an ellipse of the source into the host.

    Args:
        host: uint8 RGB HxWx3.
        source: uint8 RGB HxWx3.
        box: the size of the ellipse.
        at: the centre in the source, as shares of its sides.
        to: the centre in the host, as shares of its sides.
        turn: the linear map (2, 2) from source pixels to host pixels.

    Returns:
        The changed host, and how much source and host differ in brightness around the piece, in levels.
    """
    height, width = host.shape[:2]
    centre = np.array([at[0] * source.shape[1], at[1] * source.shape[0]])
    goal = np.array([to[0] * width, to[1] * height])
    matrix = np.column_stack([turn, goal - turn @ centre])
    moved = cv2.warpAffine(source, matrix, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    a, b = box.a * _MARGIN * source.shape[1], box.b * _MARGIN * source.shape[0]
    inner, outer = (_ellipse(matrix, centre, a * f, b * f, (width, height)) for f in (1.0, 1.35))
    ring = (outer > 0) & (inner == 0)
    if not ring.any():
        return host, np.inf
    ring_of_source, ring_of_host = moved[ring].mean(0), host[ring].mean(0)
    gain = np.clip((ring_of_host + 4) / (ring_of_source + 4), 0.4, 2.0)
    soft = cv2.GaussianBlur(inner.astype(np.float32) / 255, (0, 0), max(1.0, 0.12 * min(a, b)))[:, :, None]
    mixed = host + soft * (np.clip(moved * gain, 0, 255) - host)
    difference = float(abs(ring_of_source.mean() - ring_of_host.mean()))
    return np.asarray(np.rint(mixed), np.uint8), difference


def _ellipse(
    matrix: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    a: float,
    b: float,
    size: tuple[int, int],
) -> Image:
    """Return a mask, 255 inside the ellipse around ``centre`` as ``matrix`` (2, 3) moves it, and 0 outside."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    outline = np.stack([a * np.cos(angles), b * np.sin(angles)], 1) + centre
    moved = outline @ matrix[:, :2].T + matrix[:, 2]
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.rint(moved).astype(np.int32)], 255)
    return mask
