"""Damaged DICOM files: each is read or refused in one line, in bounded time, without a word on whose it is."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import damage
import pytest
from dicom_samples import CANARIES, wrap_video, write_directory, write_pictures
from red_model import view

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.recording import read_frames, scan

pytest.importorskip("pydicom")

PICTURES = [view(red, index)[:64, :64] for index, red in enumerate((False, True, False))]
# Lengths and numbers at which readers overflow, and marks of DICOM that do not belong where they are put.
WORDS = (
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    bytes(4),
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0",
)
WORDS += (b"\xe0\x7f\x10\x00", b"SQ\0\0", b"UN\0\0", b"OB\0\0", b"\xff\xff\0\0", b"DICM")
# The lines that libjpeg writes to stderr.
LIBJPEG = ("Corrupt JPEG data: ", "Premature end of JPEG", "Invalid SOS ", "Unsupported marker", "Warning: ")
# Longest time for one file, seconds. Most take some hundredths.
LIMIT_S = 30


def make_samples(folder: Path) -> list[Path]:
    """Return sound files of every kind that is read; the last is a DICOMDIR."""
    mp4, ts = damage.encode(folder / "a.mp4", frames=20), damage.encode(folder / "a.ts", frames=20)
    form = {"Rows": 80, "Columns": 96, "NumberOfFrames": 20}
    samples = [
        wrap_video(folder / "whole.dcm", mp4, **form),
        wrap_video(folder / "fragments.dcm", ts, size=1000, **form),
        *(
            write_pictures(folder / f"{kind}.dcm", kind, PICTURES, FrameTimeVector=[0, 40, 50])
            for kind in ("raw", "jpeg", "jpegls", "jpeg2000")
        ),
    ]
    return [*samples, write_directory(folder, [("raw.dcm",)]) / "DICOMDIR"]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return a file with one to four faults, most of them in its header."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(found), 1500 if chance.random() < 0.7 else len(found)))
        kind = chance.randrange(6)
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at : at + 4] = chance.choice(WORDS)
        elif kind == 2:
            del found[at : at + chance.randint(1, 40)]
        elif kind == 3:
            found[at:at] = chance.randbytes(chance.randint(1, 40))
        elif kind == 4:
            found[at : at + 8] = chance.randbytes(8)
        else:
            del found[max(at, 140) :]
        if len(found) < 140:
            break
    return bytes(found)


def read_damaged(sample: Path, data: bytes) -> str:
    """Read a damaged copy in the place of the sample, and return the error's line, or an empty line."""
    path = sample if sample.name == "DICOMDIR" else sample.with_name(f"damaged {sample.name}")
    path.write_bytes(data)
    try:
        container = scan(path)
        for frame in read_frames(container, range(min(container.present, 40))):
            assert frame.status in ("ok", "corrupt")
    except CapsuleEdgeError as error:
        return str(error)
    return ""


def check_files(count: int, seed: int, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(seed)
    samples = [(sample, sample.read_bytes()) for sample in make_samples(folder)]
    lines = []
    for number in range(count):
        sample, data = samples[number % len(samples)]
        begin = time.monotonic()
        line = read_damaged(sample, damaged(data, chance))
        assert time.monotonic() - begin < LIMIT_S, f"file {number} of seed {seed}"
        assert "\n" not in line
        assert not any(value in line for value in CANARIES.values())
        lines.append(line)
    printed = capfd.readouterr()
    # libjpeg alone writes a line about a damaged picture, as it does for one in a folder.
    lines_of_jpeg = re.compile("|".join(LIBJPEG))
    assert [line for line in printed.err.splitlines() if line and not lines_of_jpeg.match(line)] == []
    assert printed.out == ""
    # Some files are still read, and some are refused.
    assert 0.1 < sum(map(bool, lines)) / count < 0.9


def test_damaged_dicom_files_are_read_or_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check_files(200, 1, tmp_path, capfd)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(2, 11))
def test_many_damaged_dicom_files_are_read_or_refused(
    seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check_files(200, seed, tmp_path, capfd)


def test_the_samples_are_sound(tmp_path: Path) -> None:
    read: Callable[[Path], list[str]] = lambda path: [  # noqa: E731
        frame.status for frame in read_frames(scan(path), range(scan(path).present))
    ]
    assert [set(read(path)) for path in make_samples(tmp_path)] == [{"ok"}] * 7
