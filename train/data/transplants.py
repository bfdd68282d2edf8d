"""Lesions set into other patients' frames, and frames with theirs taken out: a lesion, not its video, tells the class.

Where a class rests on one or two videos a network may know it by everything else that these show. Data sets with
bounding boxes allow for more: the boxed lesion of one video is cloned into a normal frame of another (its label goes
along), and a piece of normal mucosa over the lesion where it lay (the frame is then normal). Cut and paste is Dwibedi
et al. (ICCV 2017). Pieces have soft edges and take on the colour around the place they come to; cloning by Poisson's
equation washed small lesions out.
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
from .frames import BETWEEN, TRANSPLANT, Frames, check_labels, is_transplant, phantom_frames, videos_of

__all__ = ["Box", "check_boxes", "made_frames", "made_of", "read_boxes", "transplant_frames"]

Picture = npt.NDArray[np.uint8]
MADE_SEED = 1
_ATTEMPTS = 100  # to draw two pictures that can be read
_CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
_BOXED_SIZE = 336  # side of the frames in whose pixels Kvasir-Capsule gives its boxes
# A box of more than this share of the frame outlines a view (blood, a lumen) and not a lesion in it.
_LARGEST = 0.2
_NARROWEST = 0.01  # half axis: what is narrower has no ring around it to take the colour of
_TAKEN_OUT = 0.3  # share of made frames that show where a lesion was
_MARGIN = 1.15  # of the piece's ellipse to the one in the box: a lesion's rim belongs to it
_PLACES = 6  # looked at in a host, to find one as bright as where the lesion comes from


@dataclass(frozen=True)
class Box:
    """Where a lesion lies, in parts of the frame's sides: centre and half axes of the ellipse in the box."""

    x: float
    y: float
    a: float
    b: float


def read_boxes(table: Path) -> dict[tuple[str, int], list[Box]]:
    """The bounding boxes of a ``metadata.csv`` as Kvasir-Capsule publishes it, by video and frame number.

    Raises ``InputError`` for a table without its columns or with a corner that is no number.
    """
    boxes: dict[tuple[str, int], list[Box]] = {}
    for line, row in read_rows(table, ("video_id", "frame_number", *_CORNERS)):
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
        box = Box((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)
        boxes.setdefault((row["video_id"], number), []).append(box)
    return boxes


def transplant_frames(
    dataset: Dataset,
    boxes: dict[tuple[str, int], list[Box]],
    count: int,
    keys: Sequence[str],
    spec: InputSpec,
    seed: int,
) -> Frames:
    """``count`` made frames: classes that have boxes of lesions alike often, their videos by the root of their size.

    Pictures that cannot be read are passed over, as ``load_frames`` does. Raises ``InputError`` where no frame has a
    box, or none is normal.
    """
    labels, video_of = check_labels(dataset, keys), videos_of(dataset)
    normal = list(keys).index(NORMAL) if NORMAL in keys else -1
    hosts = np.flatnonzero(labels == normal)
    donors = [
        (row, box)
        for row, sample in enumerate(dataset.samples)
        for box in _lesions(sample, boxes)
        if labels[row] != normal
    ]
    if not len(hosts) or not donors:
        raise InputError("no frame has a box around a lesion, or none is normal: nothing can be transplanted")
    groups: dict[tuple[int, str], list[int]] = {}
    for at, (row, _) in enumerate(donors):
        groups.setdefault((int(labels[row]), str(video_of[row])), []).append(at)
    by_video: dict[str, list[int]] = {}
    for row in hosts.tolist():
        by_video.setdefault(str(video_of[row]), []).append(row)
    classes, hosts_of = sorted({label for label, _ in groups}), list(by_video)

    def make(number: int) -> tuple[Picture, int, str]:
        rng = np.random.default_rng((seed, number))
        for _ in range(_ATTEMPTS):
            label = classes[int(rng.integers(len(classes)))]
            of_class = [group for group in groups if group[0] == label]
            # By the root of the size of a video: one of eleven frames is not to be seen as often as one of 650.
            share = np.sqrt([len(groups[group]) for group in of_class])
            chosen = groups[of_class[int(rng.choice(len(of_class), p=share / share.sum()))]]
            row, box = donors[chosen[rng.integers(len(chosen))]]
            host = by_video[hosts_of[rng.integers(len(hosts_of))]]
            other = host[rng.integers(len(host))]
            try:
                donor, plain = read_frame(dataset.samples[row]), read_frame(dataset.samples[other])
            except InputError:
                continue
            video = BETWEEN.join((TRANSPLANT, str(video_of[row]), str(video_of[other])))
            if rng.random() < _TAKEN_OUT:
                return preprocess(_take_out(donor, box, plain, rng), spec), normal, video
            return preprocess(_set_in(plain, donor, box, rng), spec), label, video
        raise InputError(
            "hardly a frame with a box, or a normal one, can be read: nothing can be transplanted"
        )

    with ThreadPoolExecutor() as pool:
        made = list(pool.map(make, range(count)))
    return Frames(
        np.stack([frame for frame, _, _ in made]),
        np.array([label for _, label, _ in made], np.int64),
        np.array([video for _, _, video in made]),
        tuple(keys),
    )


def made_frames(
    dataset: Dataset, keys: Sequence[str], spec: InputSpec, config: TrainConfig, boxes: Path | None
) -> Frames | None:
    """What stands behind the real frames of a data set: the rendered ones, then those with transplants.

    The same for every recipe, teachers' and pupils' (``MADE_SEED``). Raises ``UsageError`` for transplants without
    ``boxes``, and what reading and making them raises.
    """
    made: Frames | None = None
    if config.phantom:
        made = phantom_frames(config.phantom, keys, spec, MADE_SEED)
    check_boxes(config, boxes)
    if config.transplants and boxes is not None:
        set_in = transplant_frames(dataset, read_boxes(boxes), config.transplants, keys, spec, MADE_SEED)
        made = made.join(set_in) if made else set_in
    return made


def check_boxes(config: TrainConfig, boxes: Path | None) -> None:
    """Raises ``UsageError`` for transplants without the table of boxes that they are cut out by."""
    if config.transplants and boxes is None:
        raise UsageError(
            "transplants need boxes around lesions", hint="name their table: --boxes metadata.csv"
        )


def made_of(videos: npt.NDArray[np.str_], these: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which frames have a lesion or mucosa of one of the videos ``these`` in them; none of the real ones."""
    wanted = set(these)
    behind = [str(video).split(BETWEEN)[1:] for video in videos]
    shared = np.array([not wanted.isdisjoint(pair) for pair in behind], bool)
    return np.asarray(is_transplant(videos) & shared)


def _lesions(sample: Sample, boxes: dict[tuple[str, int], list[Box]]) -> list[Box]:
    """The box of a frame that has one alone, of a lesion that lies wholly in the inscribed circle.

    Where there are more, taking one out leaves the others.
    """
    number = -1 if sample.frame_number is None else sample.frame_number
    found = boxes.get((sample.video_id or "", number), [])
    return [box for box in found if len(found) == 1 and _is_whole(box)]


def _is_whole(box: Box) -> bool:
    inside = np.hypot(box.x - 0.5, box.y - 0.5) + max(box.a, box.b) < 0.5
    return bool(inside and min(box.a, box.b) >= _NARROWEST and 4 * box.a * box.b <= _LARGEST)


def _set_in(host: Picture, donor: Picture, box: Box, rng: np.random.Generator) -> Picture:
    """``host`` with the donor's lesion, turned, mirrored and scaled, somewhere in its inner part."""
    size = np.exp(rng.uniform(-0.35, 0.35)) * min(host.shape[:2]) / min(donor.shape[:2])
    angle, mirror = rng.uniform(0, 2 * np.pi), -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    turn = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    pieces = [_piece(host, donor, box, (box.x, box.y), _place(rng), turn) for _ in range(_PLACES)]
    return min(pieces, key=lambda piece: piece[1])[0]


def _take_out(frame: Picture, box: Box, normal: Picture, rng: np.random.Generator) -> Picture:
    """``frame`` with a piece of the normal frame where its lesion is, and a little more: none of it may be left."""
    wide = Box(box.x, box.y, box.a * _MARGIN, box.b * _MARGIN)
    turn = np.eye(2) * min(frame.shape[:2]) / min(normal.shape[:2])
    pieces = [_piece(frame, normal, wide, _place(rng), (box.x, box.y), turn) for _ in range(_PLACES)]
    return min(pieces, key=lambda piece: piece[1])[0]


def _place(rng: np.random.Generator) -> tuple[float, float]:
    angle, radius = rng.uniform(0, 2 * np.pi), 0.35 * np.sqrt(rng.random())
    return 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)


def _piece(
    host: Picture,
    source: Picture,
    box: Box,
    at: tuple[float, float],
    to: tuple[float, float],
    turn: npt.NDArray[np.float64],
) -> tuple[Picture, float]:
    """``host`` with the ellipse of ``box``'s size around ``at`` of ``source`` around ``to``, places in parts of sides.

    Also how far apart the two are in brightness around the piece, in levels.
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
    around, behind = moved[ring].mean(0), host[ring].mean(0)
    gain = np.clip((behind + 4) / (around + 4), 0.4, 2.0)
    soft = cv2.GaussianBlur(inner.astype(np.float32) / 255, (0, 0), max(1.0, 0.12 * min(a, b)))[:, :, None]
    mixed = host + soft * (np.clip(moved * gain, 0, 255) - host)
    return np.asarray(np.rint(mixed), np.uint8), float(abs(around.mean() - behind.mean()))


def _ellipse(
    matrix: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    a: float,
    b: float,
    size: tuple[int, int],
) -> Picture:
    """255 within the ellipse of half axes ``a`` and ``b`` around ``centre`` as ``matrix`` moves it."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    outline = np.stack([a * np.cos(angles), b * np.sin(angles)], 1) + centre
    moved = outline @ matrix[:, :2].T + matrix[:, 2]
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.rint(moved).astype(np.int32)], 255)
    return mask
