"""Preprocessing version 2 is what ``docs/preprocessing.md`` says: the vectors, and the C program written from it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from preprocessing_vectors import (
    KEYS,
    LARGEST_IN_FULL,
    fnv1a,
    make_planes,
    prepare_case,
    read_vectors,
    to_line,
)
from video_samples import recording

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.preprocessing import FieldOfView, find_field_of_view
from capsule_edge.runtime.preprocessing.plane_scaler import shrink
from capsule_edge.runtime.recording import CodedPlanes, decode, scan

SOURCE = ROOT / "examples" / "c" / "preprocess.c"
VECTORS = read_vectors()
Cases = Sequence[tuple[dict[str, Any], CodedPlanes | None]]


@pytest.mark.quick
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_the_runtime_gives_the_vectors(case: dict[str, Any]) -> None:
    pixels = prepare_case(case).tobytes()
    assert hashlib.sha256(pixels).hexdigest() == case["sha256"]
    if case["size"] <= LARGEST_IN_FULL:
        assert pixels.hex() == case["rgb"]


def test_the_vectors_name_both_checksums_of_the_same_bytes() -> None:
    written = [case for case in VECTORS if "rgb" in case]
    assert len(written) >= 10
    for case in written:
        pixels = bytes.fromhex(case["rgb"])
        assert (fnv1a(pixels), hashlib.sha256(pixels).hexdigest()) == (case["fnv1a"], case["sha256"])


def test_a_vector_covers_blue_that_overflows() -> None:
    """Luma and Cb of 255 in limited range: the sum for blue passes 2^31, and the level is 0."""
    (case,) = (case for case in VECTORS if case["name"] == "tiny, blue overflows")
    planes, pixels = make_planes(case), prepare_case(case)
    # Blocks of 16 samples of 64: the middle of a block of luma is 2 of 16 pixels away from the next block.
    luma = planes.luma[::4, ::4].astype(int)
    blue = np.repeat(np.repeat(planes.blue[::4, ::4], 2, 0), 2, 1)[:16, :16]
    both = (luma == 255) & (blue == 255)
    assert both.any()
    assert (pixels[both][:, 2] == 0).any()


@pytest.fixture(scope="session")
def run_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], subprocess.CompletedProcess[bytes]]:
    """Compile the C program; return a function that gives it text and returns its result."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler called cc")
    program = tmp_path_factory.mktemp("c") / "preprocess"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"]
    checked = ["-fsanitize=undefined", "-fno-sanitize-recover"]
    for more in (checked, []):  # not every installation has the sanitiser's library
        made = subprocess.run([compiler, *flags, *more, str(SOURCE), "-o", str(program)], capture_output=True)
        if made.returncode == 0:
            break
    assert made.returncode == 0, made.stderr.decode()
    return lambda text: subprocess.run([str(program)], input=text, capture_output=True, timeout=300)


def checksums(run_c: Callable[[bytes], subprocess.CompletedProcess[bytes]], cases: Cases) -> list[str]:
    """Return the C program's checksum of each case, whose planes are made or given."""
    text = b""
    for case, planes in cases:
        text += to_line(case).encode() + b"\n"
        if planes is not None:
            text += b"".join(plane.tobytes() for plane in (planes.luma, planes.blue, planes.red))
    done = run_c(text)
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [case["name"] for case, _ in cases]
    return [line.rsplit(" ", 1)[1] for line in lines]


def test_the_c_program_is_short() -> None:
    assert len(SOURCE.read_text("utf-8").splitlines()) <= 200


def test_the_c_program_gives_the_vectors(run_c) -> None:
    text = (ROOT / "docs" / "preprocessing_vectors.json").read_bytes()
    done = run_c(text)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [f"{case['name']} {case['fnv1a']}" for case in VECTORS]
    other = text.replace(VECTORS[3]["fnv1a"].encode(), b"0123456789abcdef")
    assert run_c(other).returncode == 1


@pytest.mark.parametrize(
    "change",
    [
        {"left": 1},
        {"box_height": 41},
        {"matrix": 3},
        {"matrix": 12},
        {"size": 7},
        {"size": 4097},
        {"full_range": 2},
        {"top": -1},
        {"shift_x": 3},
        {"box_width": 0},
        {"width": 1025, "box_width": 1025},
    ],
    ids=str,
)
def test_the_c_program_refuses_what_the_norm_does_not_cover(run_c, change: dict[str, int]) -> None:
    done = run_c(to_line(VECTORS[0] | change).encode())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b'error: the case "tiny" is beyond the limits of the norm\n'


def random_case(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Return a case with a random image, box, subsampling, matrix, range and model size."""
    size = int(rng.integers(8, 200))
    kind = number % 4
    if kind == 0:  # from 1 pixel to the largest ratio
        sides = np.exp(rng.uniform(0, np.log(min(128 * size, 2000)), 2)).astype(int)
    elif kind == 1:  # within 2 pixels of a whole ratio
        sides = np.maximum(1, size * rng.choice([1, 2, 3], 2) + rng.integers(-2, 3, 2))
    else:
        sides = rng.integers(1, 500, 2)
    left, top, right, bottom = (int(value) for value in rng.integers(0, 6, 4))
    width, height = (int(side) for side in sides)
    chroma = [(1, 1), (1, 0), (0, 0), (2, 0), (2, 2), (0, 1)][rng.integers(6)]
    values = (
        f"random {number}",
        ["noise", "blocks", "slopes", "bright"][rng.integers(4)],
        number,
        left + width + right,
        top + height + bottom,
        *chroma,
        int(rng.choice([1, 4, 5, 7, 9])),
        int(rng.integers(2)),
        left,
        top,
        width,
        height,
        size,
        int(rng.integers(2)),
    )
    return dict(zip(KEYS, values, strict=True))


def test_c_and_runtime_agree_on_random_sizes(run_c) -> None:
    rng = np.random.default_rng(16)
    cases = [random_case(rng, number) for number in range(120)]
    expected = [fnv1a(prepare_case(case).tobytes()) for case in cases]
    assert checksums(run_c, [(case, None) for case in cases]) == expected


@pytest.mark.parametrize("size", [128, 176])
def test_c_and_runtime_agree_on_real_frames(run_c, size: int) -> None:
    frames = list(islice(decode(scan(recording("64440803f87b4843"))), 0, 120, 20))
    box = find_field_of_view([frame.rgb() for frame in frames])
    cases, expected = [], []
    for frame in frames:
        planes = frame.coded()
        height, width = planes.luma.shape
        values = (
            f"frame {frame.index}",
            "given",
            0,
            width,
            height,
            1,
            1,
            planes.matrix,
            int(planes.full_range),
        )
        values += (box.left, box.top, box.width, box.height, size, 1)
        case = dict(zip(KEYS, values, strict=True))
        cases.append((case, planes))
        expected.append(fnv1a(prepare_case(case, planes).tobytes()))
    assert len(set(expected)) == len(frames)
    assert checksums(run_c, cases) == expected


@pytest.mark.quick
@pytest.mark.parametrize(("width", "height"), [(1025, 8), (8, 1025)])
def test_a_side_above_the_largest_ratio_is_refused(width: int, height: int) -> None:
    """swscale then shrinks in two steps: other values than those of the norm."""
    luma = np.zeros((height, width), np.uint8)
    planes = CodedPlanes(luma, luma, luma, 0, 0, 5, False)
    with pytest.raises(
        InputError, match=f"an image of {width} x {height} pixels cannot be shrunk.* 1024 pixels"
    ):
        shrink(planes, FieldOfView(0, 0, width, height), 8)


def test_the_vectors_file_is_one_case_on_a_line() -> None:
    lines = (ROOT / "docs" / "preprocessing_vectors.json").read_text("utf-8").splitlines()[1:-1]
    assert [json.loads(line.rstrip(","))["name"] for line in lines] == [case["name"] for case in VECTORS]


def test_the_page_has_the_numbers_of_the_program() -> None:
    page, source = (ROOT / "docs" / "preprocessing.md").read_text("utf-8"), SOURCE.read_text("utf-8")
    rows = re.findall(r"^\|[^|]*\| (\d)[\d, ]* \| (limited|full) \|(.*)\|$", page, re.MULTILINE)
    told = {(int(matrix), kind): [int(cell) for cell in cells.split("|")] for matrix, kind, cells in rows}
    written = {}
    for matrix, limited, full in re.findall(r"\[(\d)\] = \{\{(.*?)\}, \{(.*?)\}\}", source):
        for kind, numbers in (("limited", limited), ("full", full)):
            written[int(matrix), kind] = [int(number) for number in numbers.split(",")]
    assert len(told) == 10
    assert told == written
    assert f"holds {len(VECTORS)} cases" in page
