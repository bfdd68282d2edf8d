"""Write a data set of the 14 classes of Kvasir-Capsule, and a recording with landmarks, to train and to read.

    python examples/kvasir14.py frames METADATA.csv OUT [--images DIR] [--most 24]
    python examples/kvasir14.py recording OUT.mp4

METADATA.csv is the table that Kvasir-Capsule publishes (Smedsrud et al., Scientific Data 2021). Of each class and video
at most so many frames are taken, evenly spread. A frame whose image is in DIR or a folder below it is copied. For every
other one a stand-in is rendered, which shows its class as a drawing: it keeps the classes, videos and counts of the
table, so that training, landmarks and reports can be tried, and its figures say nothing about patients. The last line
printed counts both. The recording shows the pylorus, a polyp, the ileocaecal valve and a stretch that is hard to see,
in a scene that no video of the data set has.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.phantom import Phantom
from capsule_edge.runtime.phantom.recording import PlantedLesion

Picture = npt.NDArray[np.float32]
Random = np.random.Generator

SIZE = 224
CAPTURE_FPS = 2.0
# Seconds of each class in the recording; normal in between. A landmark is passed where its stretch ends.
SHOWN = (
    ("Pylorus", 60, 84), ("Polyp", 140, 165), ("Ileocecal valve", 240, 262), ("Reduced Mucosal View", 300, 320),
)  # fmt: skip
DURATION_S = 360
SCENE = 999
# Classes that the phantom draws itself.
LESIONS = {
    "Blood - fresh": "bleeding", "Polyp": "polyp", "Ulcer": "ulcer", "Angiectasia": "angioectasia",
    "Foreign Body": "foreign_body",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    frames = commands.add_parser("frames")
    frames.add_argument("metadata", type=Path)
    frames.add_argument("out", type=Path)
    frames.add_argument("--images", type=Path, help="the images of the data set, where you have them")
    frames.add_argument("--most", type=int, default=24, help="frames of one class in one video")
    recording = commands.add_parser("recording")
    recording.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "recording":
        write_recording(options.out)
    else:
        write_frames(options.metadata, options.out, options.images, options.most)


def write_frames(metadata: Path, out: Path, images: Path | None, most: int) -> None:
    """Write ``labels.csv`` and the frames that it names."""
    found = {} if images is None else {path.name: path for path in images.rglob("*.jpg")}
    (out / "frames").mkdir(parents=True)
    copied, rows = 0, []
    for number, row in enumerate(choose(metadata, most)):
        name, label = row["filename"], row["finding_class"]
        target = out / "frames" / name
        if name in found:
            shutil.copyfile(found[name], target)
            copied += 1
        else:
            seed = 500_000 + zlib.crc32(row["video_id"].encode()) % 100_000
            picture = stand_in(label, seed, number)
            cv2.imwrite(str(target), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        source = "Kvasir-Capsule" if name in found else "rendered"
        rows.append([f"frames/{name}", label, source, row["video_id"], row["frame_number"]])
    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file", "label", "source", "video_id", "frame_number"], *rows])
    print(f"{len(rows)} frames: {copied} images, {len(rows) - copied} rendered stand-ins")


def choose(metadata: Path, most: int) -> list[dict[str, str]]:
    """Return the rows to use. A file that the table lists under two classes is left out."""
    groups = defaultdict(list)
    with metadata.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    counts = Counter(row["filename"] for row in rows)
    for row in rows:
        if counts[row["filename"]] == 1:
            groups[row["finding_class"], row["video_id"]].append(row)
    chosen = []
    for _, some in sorted(groups.items()):
        some.sort(key=lambda row: int(row["frame_number"]))
        places = np.unique(np.linspace(0, len(some) - 1, most).astype(int))
        chosen += [some[place] for place in places]
    return chosen


def write_recording(out: Path) -> None:
    """Write the recording, two frames a second."""
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), CAPTURE_FPS, (SIZE, SIZE))
    for index in range(int(DURATION_S * CAPTURE_FPS)):
        time_s = index / CAPTURE_FPS
        label = next((name for name, start, end in SHOWN if start <= time_s < end), "Normal clean mucosa")
        writer.write(np.ascontiguousarray(stand_in(label, SCENE, index)[..., ::-1]))
    writer.release()


def stand_in(label: str, seed: int, number: int) -> npt.NDArray[np.uint8]:
    """Render a frame of a class, uint8 RGB (224, 224, 3).

    Args:
        label: the class, as Kvasir-Capsule names it.
        seed: of the scene: one for each video.
        number: of the frame: its place on the capsule's way and the looks of what is drawn.
    """
    lesion = LESIONS.get(label)
    seconds = number / CAPTURE_FPS % 900
    planted = () if lesion is None else (PlantedLesion(lesion, max(0.0, seconds - 9), seconds + 9),)
    phantom = Phantom(seed, 2000, SIZE, CAPTURE_FPS, planted)
    picture = phantom.render(int(seconds * CAPTURE_FPS)).astype(np.float32)
    if label in DRAWN:
        inside = picture.max(axis=2, keepdims=True) > 8
        rng = np.random.default_rng([seed, number])
        drawn = DRAWN[label](picture.copy(), rng)
        picture = np.where(inside, drawn, picture)
    return np.clip(picture, 0, 255).astype(np.uint8)


def distances(rng: Random, low: float, high: float, *, flat: float = 1.0) -> tuple[Picture, Picture]:
    """Return for each pixel the distance from a drawn centre in radii of a drawn ellipse, and the angle."""
    x, y = rng.uniform(-0.22, 0.22, 2) * SIZE + SIZE / 2
    turn, radius = rng.uniform(0, np.pi), rng.uniform(low, high) * SIZE
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    v = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    return np.hypot(u, v / flat) / radius, np.arctan2(v, u)


def blend(picture: Picture, colour: Sequence[float], share: Picture) -> Picture:
    share = np.clip(share, 0, 1)[..., None]
    return picture * (1 - share) + np.asarray(colour, np.float32) * share


def draw_pylorus(picture: Picture, rng: Random) -> Picture:
    """A smooth pink ring around a dark, round opening."""
    r, _ = distances(rng, 0.22, 0.3, flat=rng.uniform(0.85, 1))
    picture = blend(picture, (214, 138, 112), 0.9 * (1.15 - r) * 4)
    picture = blend(picture, (240, 178, 150), 0.8 * np.exp(-(((r - 0.62) / 0.12) ** 2)))
    return blend(picture, (24, 8, 6), (0.42 - r) * 9)


def draw_valve(picture: Picture, rng: Random) -> Picture:
    """Two fleshy yellow lips with a slit between them."""
    r, angle = distances(rng, 0.22, 0.32, flat=0.62)
    picture = blend(picture, (226, 176, 118), 0.95 * (1 - r) * 5)
    picture = blend(picture, (250, 214, 160), 0.6 * np.exp(-(((r - 0.55) / 0.2) ** 2)))
    slit = np.abs(r * np.sin(angle)) * 14 + np.maximum(r - 0.75, 0) * 20
    return blend(picture, (40, 16, 10), 1.2 - slit)


def draw_ampulla(picture: Picture, rng: Random) -> Picture:
    """A small bump with a pit, and bile around it."""
    r, _ = distances(rng, 0.12, 0.16)
    picture = blend(picture, (196, 170, 40), 0.6 * (1.8 - r))
    picture = blend(picture, (236, 168, 140), 0.9 * (1 - r) * 4)
    return blend(picture, (120, 50, 40), (0.22 - r) * 9)


def draw_reduced(picture: Picture, rng: Random) -> Picture:
    """Bubbles and turbid fluid over nearly all of the wall."""
    cloud = cv2.resize(
        rng.normal(size=(7, 7)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC
    )
    picture = blend(picture, (150, 140, 58), 0.72 + 0.2 * cloud)
    for _ in range(int(rng.integers(50, 120))):
        place = tuple(int(v) for v in rng.integers(10, SIZE - 10, 2))
        radius = int(rng.integers(3, 13))
        cv2.circle(picture, place, radius, (228, 224, 160), 1, cv2.LINE_AA)
        cv2.circle(
            picture, (place[0] + radius // 3, place[1] - radius // 3), 1, (252, 250, 235), -1, cv2.LINE_AA
        )
    return picture


def draw_hematin(picture: Picture, rng: Random) -> Picture:
    """Dark specks of digested blood."""
    for _ in range(int(rng.integers(25, 60))):
        place = tuple(int(v) for v in rng.normal(SIZE / 2, SIZE / 6, 2))
        axes = tuple(int(v) for v in rng.integers(1, 8, 2))
        cv2.ellipse(picture, place, axes, float(rng.uniform(0, 180)), 0, 360, (38, 14, 10), -1, cv2.LINE_AA)
    return picture


def draw_erythema(picture: Picture, rng: Random) -> Picture:
    """A soft red patch."""
    r, _ = distances(rng, 0.18, 0.3, flat=rng.uniform(0.6, 1))
    return blend(picture, (206, 52, 44), 0.62 * (1.1 - r) * 1.6)


def draw_erosion(picture: Picture, rng: Random) -> Picture:
    """A few small spots, white inside and red around."""
    for _ in range(int(rng.integers(2, 5))):
        r, _ = distances(rng, 0.035, 0.06)
        picture = blend(picture, (196, 48, 40), 0.8 * (1.9 - r))
        picture = blend(picture, (240, 226, 196), (0.8 - r) * 4)
    return picture


def draw_lymphangiectasia(picture: Picture, rng: Random) -> Picture:
    """A cluster of white dots."""
    x, y = rng.uniform(-0.2, 0.2, 2) * SIZE + SIZE / 2
    for _ in range(int(rng.integers(25, 60))):
        place = int(rng.normal(x, SIZE / 10)), int(rng.normal(y, SIZE / 10))
        cv2.circle(picture, place, int(rng.integers(1, 4)), (246, 242, 230), -1, cv2.LINE_AA)
    return picture


DRAWN: dict[str, Callable[[Picture, Random], Picture]] = {
    "Pylorus": draw_pylorus,
    "Ileocecal valve": draw_valve,
    "Ampulla of Vater": draw_ampulla,
    "Reduced Mucosal View": draw_reduced,
    "Blood - hematin": draw_hematin,
    "Erythema": draw_erythema,
    "Erosion": draw_erosion,
    "Lymphangiectasia": draw_lymphangiectasia,
}


if __name__ == "__main__":
    main()
