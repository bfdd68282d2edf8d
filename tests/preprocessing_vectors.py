"""The test vectors of preprocessing version 2: made planes, and the model inputs that they must give.

    python tests/preprocessing_vectors.py

writes ``docs/preprocessing_vectors.json`` anew with the installed capsule-edge, one case on a line. Other bytes mean
another version of the preprocessing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import FieldOfView, preprocess_coded
from capsule_edge.runtime.recording import CodedPlanes

FILE = Path(__file__).parents[1] / "docs" / "preprocessing_vectors.json"
# The order of the keys is that in which ``examples/c/preprocess.c`` reads them.
KEYS = [
    "name",
    "content",
    "seed",
    "width",
    "height",
    "shift_x",
    "shift_y",
    "matrix",
    "full_range",
    "left",
    "top",
]
KEYS += ["box_width", "box_height", "size", "mask"]
# Model inputs up to this size are written out, in hexadecimal digits.
LARGEST_IN_FULL = 16
_C420, _C422, _C444, _C411, _C410, _C440 = (1, 1), (1, 0), (0, 0), (2, 0), (2, 2), (0, 1)

# Name, content, image size, subsampling, matrix, full range, box (left, top, width, height), model size, mask.
_CASES: list[tuple[Any, ...]] = [
    ("tiny", "noise", (40, 40), _C420, 5, 0, (0, 0, 40, 40), 8, 0),
    ("tiny, mask", "noise", (40, 40), _C420, 5, 0, (0, 0, 40, 40), 8, 1),
    ("tiny, odd box", "slopes", (61, 47), _C420, 5, 0, (5, 3, 51, 41), 16, 0),
    ("tiny, same size", "noise", (16, 16), _C444, 5, 1, (0, 0, 16, 16), 16, 0),
    ("tiny, grown", "noise", (11, 9), _C420, 5, 0, (0, 0, 11, 9), 16, 0),
    ("tiny, of one pixel", "noise", (1, 1), _C420, 5, 0, (0, 0, 1, 1), 8, 0),
    ("tiny, grown across and shrunk down", "noise", (13, 90), _C422, 1, 0, (0, 0, 13, 90), 16, 0),
    ("tiny, the largest ratio", "noise", (1024, 1024), _C420, 5, 0, (0, 0, 1024, 1024), 8, 0),
    ("tiny, blue overflows", "blocks", (64, 64), _C420, 5, 0, (0, 0, 64, 64), 16, 0),
    ("tiny, 4:1:1", "noise", (50, 33), _C411, 5, 0, (3, 1, 45, 31), 16, 0),
    ("tiny, 4:1:0", "noise", (50, 33), _C410, 5, 0, (6, 2, 41, 30), 16, 0),
    ("tiny, 4:4:0", "noise", (50, 33), _C440, 5, 1, (1, 1, 40, 32), 16, 0),
    ("small model", "slopes", (224, 224), _C420, 5, 0, (5, 6, 213, 211), 128, 1),
    ("standard model", "slopes", (224, 224), _C420, 5, 0, (5, 6, 213, 211), 176, 1),
    ("noise", "noise", (224, 224), _C420, 5, 0, (4, 6, 213, 210), 176, 1),
    ("whole picture", "noise", (576, 576), _C420, 5, 0, (0, 0, 576, 576), 176, 0),
    ("halved", "noise", (352, 352), _C420, 5, 0, (0, 0, 352, 352), 176, 1),
    ("grown", "slopes", (120, 100), _C420, 5, 0, (1, 1, 113, 97), 176, 1),
    ("grown 511 to 512", "noise", (511, 300), _C444, 5, 1, (0, 0, 511, 300), 512, 0),
    ("grown 256 times", "blocks", (33, 33), _C410, 5, 0, (13, 13, 8, 8), 1024, 0),
    ("nearly a rational ratio", "noise", (196, 193), _C444, 5, 0, (0, 0, 196, 193), 96, 0),
    ("4:2:2", "slopes", (336, 336), _C422, 5, 0, (7, 9, 321, 315), 128, 1),
    ("4:4:4 full range", "noise", (224, 224), _C444, 5, 1, (3, 2, 217, 219), 128, 1),
    ("BT.709", "slopes", (320, 240), _C420, 1, 0, (41, 5, 230, 231), 160, 1),
    ("BT.709 full range", "blocks", (320, 240), _C420, 1, 1, (41, 5, 230, 231), 160, 1),
    ("FCC", "blocks", (256, 256), _C420, 4, 0, (0, 0, 256, 256), 96, 1),
    ("SMPTE 240M", "blocks", (256, 256), _C420, 7, 0, (0, 0, 256, 256), 96, 1),
    ("BT.2020", "blocks", (1920, 1080), _C420, 9, 0, (420, 0, 1080, 1080), 128, 1),
    ("clipped highlights", "bright", (224, 224), _C420, 5, 0, (5, 6, 213, 211), 176, 1),
    ("extremes", "blocks", (224, 224), _C420, 5, 0, (5, 6, 213, 211), 176, 0),
]


def make_plane(content: str, seed: int, plane: int, height: int, width: int) -> np.ndarray:
    """Return plane 0 (luma), 1 (Cb) or 2 (Cr) of a made image, uint8 (height, width).

    A sample depends on its place and the seed alone; ``docs/preprocessing.md`` gives the formula.
    """
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    if content == "blocks":
        y, x = y >> 4, x >> 4
    mixed = (np.uint32(plane) << 24 | y << 12 | x) * np.uint32(2654435761)
    mixed = mixed + np.uint32(seed * 2246822519 % 2**32)
    mixed = (mixed ^ mixed >> 15) * np.uint32(3266489917)
    mixed = (mixed ^ mixed >> 13) >> 24
    made = {
        "noise": mixed,
        "blocks": (mixed & 1) * 255,
        "bright": 112 + (mixed >> 3) if plane else 240 + (mixed >> 4),
        "slopes": 3 * x + 2 * y + (mixed >> 4),
    }
    return made[content].astype(np.uint8)


def make_planes(case: dict[str, Any]) -> CodedPlanes:
    """Return the image of a case."""
    right, down = case["shift_x"], case["shift_y"]
    sizes = [(case["height"], case["width"])]
    sizes += [(-(-case["height"] >> down), -(-case["width"] >> right))] * 2
    luma, blue, red = (make_plane(case["content"], case["seed"], at, *size) for at, size in enumerate(sizes))
    return CodedPlanes(luma, blue, red, right, down, case["matrix"], bool(case["full_range"]))


def prepare_case(case: dict[str, Any], planes: CodedPlanes | None = None) -> np.ndarray:
    """Return the model input of a case, uint8 RGB (size, size, 3), as the runtime computes it."""
    spec = InputSpec(case["size"], mask="ellipse" if case["mask"] else "none", preprocessing=2)
    box = FieldOfView(case["left"], case["top"], case["box_width"], case["box_height"])
    return preprocess_coded(make_planes(case) if planes is None else planes, spec, box)


def fnv1a(data: bytes) -> str:
    """Return the 64-bit FNV-1a checksum, 16 hexadecimal digits."""
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def read_vectors() -> list[dict[str, Any]]:
    """Return the committed cases with their expected model inputs."""
    return json.loads(FILE.read_text("utf-8"))["cases"]


def to_line(case: dict[str, Any]) -> str:
    """Return a case as a line that ``examples/c/preprocess.c`` reads; a missing checksum becomes 0."""
    return json.dumps({key: case[key] for key in KEYS} | {"fnv1a": case.get("fnv1a", "0")})


def _make_vectors() -> list[dict[str, Any]]:
    cases = []
    for seed, (name, content, image, chroma, matrix, full, box, size, mask) in enumerate(_CASES, 1):
        values = (name, content, seed, *image, *chroma, matrix, full, *box, size, mask)
        case: dict[str, Any] = dict(zip(KEYS, values, strict=True))
        pixels = prepare_case(case).tobytes()
        case |= {"fnv1a": fnv1a(pixels), "sha256": hashlib.sha256(pixels).hexdigest()}
        if size <= LARGEST_IN_FULL:
            case["rgb"] = pixels.hex()
        cases.append(case)
    return cases


def main() -> None:
    lines = ",\n".join(json.dumps(case) for case in _make_vectors())
    FILE.write_text(
        f'{{"schema": "capsule-edge/preprocessing-vectors/1", "preprocessing": 2, "cases": [\n{lines}\n]}}\n',
        "utf-8",
    )


if __name__ == "__main__":
    main()
