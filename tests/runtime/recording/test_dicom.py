"""DICOM: an encapsulated video gives the frames of the naked file; pictures, DICOMDIR folders, and bad input."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import damage
import numpy as np
import pytest
from dicom_samples import (
    CANARIES,
    cut,
    encode_picture,
    items,
    wrap_video,
    write_directory,
    write_object,
    write_pictures,
)
from red_model import HEIGHT, WIDTH, view, write_exam, write_red_model
from video_samples import KINDS, recording

from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, PackageError, UsageError
from capsule_edge.runtime.recording import fetch, hash_recording, read_closed_gops, read_frames, scan
from capsule_edge.runtime.results import study_document

pytest.importorskip("pydicom")

PICTURES = [view(index in (1, 2), index) for index in range(4)]
SIZE = {"Rows": 80, "Columns": 96, "NumberOfFrames": 60}


def facts(path: Path) -> tuple[Any, ...]:
    """Return all that a scan and the decoder say of a recording, without its place in the file."""
    container = scan(path)
    frames = [
        (frame.index, frame.status, frame.detail, frame.pts, frame.time_s)
        for frame in read_frames(container, range(container.present))
    ]
    packets = [
        getattr(container.packets, name).tolist() for name in ("pts", "dts", "sizes", "keys", "flagged")
    ]
    return (
        container.format,
        container.codec,
        container.width,
        container.height,
        container.time_base,
        container.announced,
        container.truncated,
        container.edited_out,
        container.duration_s,
        container.order,
        container.times,
        container.warnings,
        packets,
        frames,
    )


@pytest.mark.quick
@pytest.mark.parametrize("size", [0, 1000, 16384])
@pytest.mark.parametrize(
    "kind", ["h264.mp4", "h264.ts", "open_gop.mp4", "fragmented.mp4", "hevc.mp4", "mpeg2.ts"]
)
def test_an_encapsulated_video_is_read_like_the_naked_file(kind: str, size: int, tmp_path: Path) -> None:
    video = damage.encode(tmp_path / kind, **KINDS[kind])
    syntax = "hevc" if "hevc" in kind else "mpeg2" if "mpeg2" in kind else "h264"
    path = wrap_video(tmp_path / "exam.dcm", video, syntax=syntax, size=size, **SIZE)
    assert facts(path) == facts(video)
    container = scan(path)
    assert container.digest() == hash_recording(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert container.stream_digest() == hash_recording(video)
    assert scan(video).stream_digest() is None
    for one, other in zip(fetch(container, [3, 40]), fetch(scan(video), [3, 40]), strict=True):
        np.testing.assert_array_equal(one.rgb(), other.rgb())


def test_the_study_of_an_encapsulated_video_differs_in_its_source_alone(tmp_path: Path) -> None:
    video = write_exam(tmp_path / "exam.mp4")
    wrapped = wrap_video(
        tmp_path / "exam.dcm", video, size=4096, Rows=HEIGHT, Columns=WIDTH, NumberOfFrames=60
    )
    with Reader.open(write_red_model(tmp_path / "red.onnx")) as reader:
        naked, inside = (study_document(reader.read(path)) for path in (video, wrapped))
    one, other = naked.pop("source"), inside.pop("source")
    assert naked == inside
    assert naked["events"]
    sha256 = one["sha256"]
    assert {name for name in one if one[name] != other[name]} == {"name", "sha256", "stream_sha256"}
    assert (one["stream_sha256"], other["stream_sha256"]) == (None, sha256)
    assert not any(value in json.dumps([inside, other]) for value in CANARIES.values())


@pytest.mark.parametrize("name", ["ad91cf7ca91440aa", "2fc3db471f9d44c0"])
def test_real_recordings_are_read_like_the_naked_files(name: str, tmp_path: Path) -> None:
    video = recording(name)
    frames = scan(video).frames
    path = wrap_video(
        tmp_path / "exam.dcm", video, size=1 << 15, Rows=224, Columns=224, NumberOfFrames=frames
    )
    assert facts(path) == facts(video)


def test_closed_gops_of_an_encapsulated_video_are_decoded_in_parallel(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.mp4")
    container = scan(wrap_video(tmp_path / "exam.dcm", video, size=1000, **SIZE))
    with read_closed_gops(container, range(60)) as gops:
        found = [[frame.index for frame in frames] for frames in gops]
    assert len(found) > 1
    assert list(chain(*found)) == list(range(60))


def test_a_damaged_frame_is_damaged_inside_dicom_too(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.mp4")
    data = bytearray(video.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    video.write_bytes(bytes(data))
    path = wrap_video(tmp_path / "exam.dcm", video, size=1000, **SIZE)
    found = facts(path)
    assert found == facts(video)
    assert {status for _, status, *_ in found[-1]} == {"ok", "corrupt"}


def test_the_byte_that_pads_an_odd_stream_is_not_part_of_it(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.mp4").read_bytes()
    odd = video + b"\0\0\0\x09free\0" if len(video) % 2 == 0 else video
    assert len(odd) % 2 == 1
    path = wrap_video(tmp_path / "mp4.dcm", odd, **SIZE)
    assert scan(path).stream_digest() == hashlib.sha256(odd).hexdigest()
    # The standard asks for a zero; some writers pad with a space.
    path = wrap_video(tmp_path / "space.dcm", odd + b" ", **SIZE)
    assert scan(path).stream_digest() == hashlib.sha256(odd).hexdigest()
    # A transport stream does not say where it ends; the object may.
    odd = damage.encode(tmp_path / "h264.ts").read_bytes()[:-1]
    path = wrap_video(tmp_path / "ts.dcm", odd, EncapsulatedPixelDataValueTotalLength=len(odd), **SIZE)
    assert scan(path).stream_digest() == hashlib.sha256(odd).hexdigest()
    path = wrap_video(tmp_path / "silent.dcm", odd, **SIZE)
    assert scan(path).stream_digest() == hashlib.sha256(odd + b"\0").hexdigest()


def test_an_encapsulated_video_is_not_held_in_memory(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.mp4")
    # 64 MB behind the index that no sample refers to.
    stream = video.read_bytes() + (1 << 26).to_bytes(4) + b"free" + bytes((1 << 26) - 8)
    path = wrap_video(tmp_path / "exam.dcm", stream, size=1 << 20, **SIZE)
    tracemalloc.start()
    try:
        container = scan(path)
        assert len(list(read_frames(container, range(60)))) == 60
        container.digest()
        container.stream_digest()
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_attributes_that_contradict_the_video_are_told_by_their_tags(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.mp4")
    path = wrap_video(tmp_path / "exam.dcm", video, syntax="hevc", Rows=81, Columns=96, NumberOfFrames=61)
    container = scan(path)
    assert [each.code for each in container.warnings] == ["dicom_frames", "dicom_size", "dicom_codec"]
    for tag, warning in zip(("(0028,0008)", "(0028,0010)", "(0002,0010)"), container.warnings, strict=True):
        assert tag in warning.message
    assert (container.frames, container.height) == (60, 80)


def test_pictures_of_another_size_than_the_header_says_are_told_or_damaged(tmp_path: Path) -> None:
    container = scan(write_pictures(tmp_path / "exam.dcm", "jpeg", PICTURES, Rows=64))
    (warning,) = container.warnings
    assert (warning.code, "Rows (0028,0010) are 160 x 64" in warning.message) == ("dicom_size", True)
    assert container.height == HEIGHT
    for kind in ("jpegls", "jpeg2000"):
        with pytest.raises(InputError, match="holds no picture that can be decoded, of 4"):
            scan(write_pictures(tmp_path / "exam.dcm", kind, PICTURES, Rows=64))


def test_a_video_cut_in_a_fragment_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.ts", **KINDS["h264.ts"])
    whole = wrap_video(tmp_path / "whole.dcm", video, size=2000, **SIZE)
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole.read_bytes()[:-9001])
    container = scan(path)
    assert 0 < container.present < 60
    assert container.truncated
    assert "PixelData (7FE0,0010)" in {each.code: each.message for each in container.warnings}["dicom_cut"]
    # An MP4 with its index behind has lost it.
    whole = wrap_video(tmp_path / "whole.dcm", damage.encode(tmp_path / "h264.mp4"), size=2000, **SIZE)
    path.write_bytes(whole.read_bytes()[:-9001])
    with pytest.raises(InputError, match=r"PixelData \(7FE0,0010\): the index of .* is missing"):
        scan(path)


def test_the_streams_inside_dicom_have_numbers(tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "h264.mp4")
    path = wrap_video(tmp_path / "exam.dcm", video, **SIZE)
    assert scan(path, stream=0).frames == 60
    with pytest.raises(UsageError, match="stream is 3, the video streams"):
        scan(path, stream=3)
    with pytest.raises(UsageError, match="is a series of images"):
        scan(write_pictures(tmp_path / "pictures.dcm", "raw", PICTURES), stream=0)


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["raw", "jpeg", "jpegls", "jpeg2000"])
def test_pictures_of_an_object_are_frames(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for pictures in (PICTURES, PICTURES[:1]):
        container = scan(write_pictures(tmp_path / "exam.dcm", kind, pictures))
        found = [frame.image for frame in read_frames(container, range(len(pictures)))]
        assert (container.frames, container.truncated, container.warnings) == (len(pictures), False, ())
        for one, picture in zip(found, pictures, strict=True):
            # Lossless but for JPEG, which moves colours at the edge of the red.
            difference = np.abs(one.astype(int) - picture)
            assert np.quantile(difference, 0.9) <= (6 if kind == "jpeg" else 0)
    assert capfd.readouterr() == ("", "")


# A picture whose halves tell red from blue, so that a wrong transform of colours is seen.
COLOURS = np.zeros((64, 96, 3), np.uint8)
COLOURS[:, :48], COLOURS[:, 48:] = (200, 60, 40), (40, 80, 190)


def to_ybr(rgb: np.ndarray) -> np.ndarray:
    """Return YCbCr of full range (PS3.3, C.7.6.3.1.2)."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]


def jpeg_of(components: np.ndarray, transform: int) -> bytes:
    """Return a JPEG of three components as they are, without a marker that says what they are.

    Pillow's codec is told that the pixels are RGB (its Adobe marker says 0) or YCbCr, and the marker is taken out.
    """
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    planes = [image.fromarray(np.ascontiguousarray(components[:, :, place])) for place in range(3)]
    options = {} if transform else {"keep_rgb": True}
    merged = image.merge("YCbCr" if transform else "RGB", planes)
    merged.save(buffer, "JPEG", quality=95, subsampling=0, **options)
    data, at, kept = buffer.getvalue(), 2, [b"\xff\xd8"]
    while data[at + 1] != 0xDA:
        size = 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] not in (0xE0, 0xEE):
            kept.append(data[at : at + size])
        at += size
    return b"".join(kept) + data[at:]


def first_image(path: Path) -> np.ndarray:
    (frame,) = read_frames(scan(path), [0])
    return frame.rgb().astype(int)


def write_colours(path: Path, kind: str, picture: bytes, photometric: str) -> Path:
    form = {"Rows": 64, "Columns": 96, "NumberOfFrames": 1, "PhotometricInterpretation": photometric}
    return write_object(path, kind, items([picture]), **form)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("numbers", [b"\1\2\3", b"RGB", b"\0\1\2"])
def test_a_jpeg_without_a_marker_has_the_colours_that_the_object_says(
    photometric: str, numbers: bytes, tmp_path: Path
) -> None:
    transform = int(photometric != "RGB")
    data = jpeg_of(to_ybr(COLOURS) if transform else COLOURS, transform)
    assert b"JFIF" not in data
    assert b"Adobe" not in data
    # The numbers of the components, from which decoders guess.
    frame, scan_at = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    changed = bytearray(data)
    for place, number in enumerate(numbers):
        changed[frame + 10 + 3 * place] = changed[scan_at + 5 + 2 * place] = number
    found = first_image(write_colours(tmp_path / "exam.dcm", "jpeg", bytes(changed), photometric))
    # Quality 95 moves flat colours by a step of rounding or two; a wrong transform moves them by 30 and more.
    assert np.abs(found - COLOURS)[8:-8, 8:40].max() <= 6
    assert np.abs(found - COLOURS)[8:-8, 56:-8].max() <= 6


@pytest.mark.parametrize("kind", ["jpegls", "jpeg2000"])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_components_are_the_colours_that_the_object_says(kind: str, photometric: str, tmp_path: Path) -> None:
    pixels = to_ybr(COLOURS) if photometric == "YBR_FULL" else COLOURS
    # OpenCV's encoder of JPEG 2000 transforms colours itself.
    picture = untransformed(pixels) if kind == "jpeg2000" else encode_picture(kind, pixels)
    found = first_image(write_colours(tmp_path / "exam.dcm", kind, picture, photometric))
    # Rounding of the conversion there and back.
    assert np.abs(found - COLOURS).max() <= 2


def untransformed(pixels: np.ndarray) -> bytes:
    """Return JPEG 2000 of three components without a transform of colours."""
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.fromarray(pixels).save(buffer, "JPEG2000", irreversible=False, mct=0, no_jp2=True)
    return buffer.getvalue()


def test_the_own_transform_of_jpeg_2000_is_undone_once(tmp_path: Path) -> None:
    picture = encode_picture("jpeg2000", COLOURS)
    for photometric in ("YBR_RCT", "YBR_ICT", "RGB"):
        found = first_image(write_colours(tmp_path / "exam.dcm", "jpeg2000", picture, photometric))
        np.testing.assert_array_equal(found, COLOURS)


@pytest.mark.parametrize("kind", ["jpeg", "jpegls", "jpeg2000"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "PALETTE COLOR", "ARGB", "YBR_PARTIAL_420"])
def test_colours_that_are_not_read_are_refused(kind: str, photometric: str, tmp_path: Path) -> None:
    path = write_colours(tmp_path / "exam.dcm", kind, encode_picture(kind, COLOURS), photometric)
    with pytest.raises(
        InputError, match=rf"are {photometric} in {kind}, PhotometricInterpretation"
    ) as caught:
        scan(path)
    check_line(caught.value)


@pytest.mark.parametrize("kind", ["jpeg", "jpegls", "jpeg2000"])
def test_a_damaged_picture_of_an_object_is_corrupt(kind: str, tmp_path: Path) -> None:
    encoded = [encode_picture(kind, picture) for picture in PICTURES]
    encoded[2] = encoded[2][:20] + bytes(len(encoded[2]) - 20)
    form = {"Rows": HEIGHT, "Columns": WIDTH, "NumberOfFrames": 4}
    container = scan(write_object(tmp_path / "exam.dcm", kind, items(encoded), **form))
    assert [frame.status for frame in read_frames(container, range(4))] == ["ok", "ok", "corrupt", "ok"]


@pytest.mark.parametrize("table", ["offsets", "extended", "none"])
def test_a_picture_may_lie_in_several_fragments(table: str, tmp_path: Path) -> None:
    pieces = [cut(encode_picture("jpeg", picture), 1500) for picture in PICTURES]
    starts, at = [], 0
    for picture in pieces:
        starts.append(at)
        at += sum(8 + len(piece) + len(piece) % 2 for piece in picture)
    extended = {"ExtendedOffsetTable": b"".join(start.to_bytes(8, "little") for start in starts)}
    path = write_object(
        tmp_path / "exam.dcm",
        "jpeg",
        items(list(chain(*pieces)), offsets=starts if table == "offsets" else ()),
        Rows=HEIGHT,
        Columns=WIDTH,
        NumberOfFrames=4,
        **(extended if table == "extended" else {}),
    )
    container = scan(path)
    assert container.frames == 4
    assert [frame.status for frame in read_frames(container, range(4))] == ["ok"] * 4


def test_pictures_of_varying_distance_have_their_own_times(tmp_path: Path) -> None:
    vector = [0, 500, 250, 1000]
    container = scan(write_pictures(tmp_path / "exam.dcm", "jpeg", PICTURES, FrameTimeVector=vector))
    assert list(container.times_s) == [0, 0.5, 0.75, 1.75]
    assert (container.frame_distance_s, container.time_kind, container.duration_s) == (0.5, "capture", 2.25)
    # A vector of another length says nothing.
    container = scan(write_pictures(tmp_path / "exam.dcm", "jpeg", PICTURES, FrameTimeVector=vector[1:]))
    assert list(container.times_s) == [0, 0.04, 0.08, 0.12]


def test_jpeg_ls_without_a_decoder_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pictures(tmp_path / "exam.dcm", "jpegls", PICTURES)
    import pydicom.pixels

    class Absent:
        is_available = False

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _syntax: Absent())
    with pytest.raises(PackageError, match=r"JPEG-LS, which needs a decoder.*pip install pyjpegls"):
        scan(path)


def disk(folder: Path, *names: str) -> Path:
    """Return a folder of a disk, which these names (parts separated by "/") are to be written to."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.quick
def test_the_video_of_a_dicomdir_is_read(tmp_path: Path) -> None:
    folder = disk(tmp_path / "disk", "EXAM/I1")
    video = damage.encode(tmp_path / "h264.mp4")
    wrap_video(folder / "EXAM" / "I1", video, **SIZE)
    write_directory(folder, [("EXAM", "I1")])
    for path in (folder, folder / "DICOMDIR"):
        assert facts(path) == facts(video)
        assert scan(path).path == folder / "EXAM" / "I1"
    assert hash_recording(folder) == hash_recording(folder / "EXAM" / "I1")


def test_the_pictures_of_a_series_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = disk(tmp_path / "disk", "S/any")
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    for index, picture in enumerate(PICTURES):
        write_pictures(folder / "S" / f"I{9 - index}", "raw", [picture], InstanceNumber=index + 1, **uids)
    write_directory(folder, [("S", f"I{index}") for index in range(6, 10)])
    container = scan(folder)
    for frame in read_frames(container, range(4)):
        np.testing.assert_array_equal(frame.image, PICTURES[frame.index])
    before = container.digest()
    assert before == hash_recording(folder)
    write_pictures(folder / "S" / "I9", "raw", [PICTURES[3]], InstanceNumber=1, **uids)
    assert scan(folder).digest() != before


def series_on_disk(folder: Path) -> Path:
    """Write the pictures as objects of one series on a disk, and return its DICOMDIR."""
    disk(folder, "S/any")
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    for index, picture in enumerate(PICTURES):
        write_pictures(folder / "S" / f"I{index}", "raw", [picture], InstanceNumber=index + 1, **uids)
    write_directory(folder, [("S", f"I{index}") for index in range(4)])
    return folder / "DICOMDIR"


def test_the_hash_of_a_dicomdir_is_that_of_all_its_objects(tmp_path: Path) -> None:
    directory = series_on_disk(tmp_path / "disk")
    before = hash_recording(directory)
    assert before == scan(directory).digest() == scan(directory.parent).digest()
    assert before == hash_recording(directory.parent)
    seen = {before}
    for index in range(4):
        path = directory.parent / "S" / f"I{index}"
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        seen.add(hash_recording(directory))
        assert hash_recording(directory) == scan(directory).digest() == hash_recording(directory.parent)
        path.write_bytes(data)
    assert len(seen) == 5
    # One object has the hash of its file, by whatever path.
    write_directory(directory.parent, [("S", "I0")])
    one = hashlib.sha256((directory.parent / "S" / "I0").read_bytes()).hexdigest()
    assert {hash_recording(path) for path in (directory, directory.parent)} == {one}
    assert scan(directory).digest() == scan(directory.parent).digest() == one


def test_run_reads_a_dicomdir_folder_as_one_recording(call: Callable, tmp_path: Path) -> None:
    folder = disk(tmp_path / "disk", "I1")
    wrap_video(folder / "I1", write_exam(tmp_path / "e.mp4"), Rows=HEIGHT, Columns=WIDTH, NumberOfFrames=60)
    write_directory(folder, [("I1",)])
    called = call("run", folder, "--model", write_red_model(tmp_path / "red.onnx"), "--out", tmp_path / "out")
    assert called.code == 0, called.err
    written = [path.read_text("utf-8", "replace") for path in (tmp_path / "out").iterdir()]
    assert json.loads((tmp_path / "out" / "study.json").read_text())["source"]["name"] == "I1"
    for value in CANARIES.values():
        assert value not in called.out + called.err + "".join(written)


def two_patients(folder: Path) -> None:
    for name in ("I1", "I2"):
        write_pictures(folder / name, "raw", PICTURES[:1], PatientID=name, StudyInstanceUID="1.2.3")
    write_directory(folder, [("I1",), ("I2",)])


def two_recordings(folder: Path) -> None:
    for name in ("I1", "I2"):
        write_pictures(folder / name, "raw", PICTURES[:1])
    write_directory(folder, [("I1",), ("I2",)])


def two_contents(folder: Path) -> None:
    for name, picture in zip(("I1", "I2"), PICTURES[1:3], strict=True):
        write_pictures(folder / name, "raw", [picture], SOPInstanceUID="1.2.3.4.5")
    write_directory(folder, [("I1",), ("I2",)])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (two_patients, r"has 2 different values of PatientID \(0010,0020\)"),
        (two_recordings, "names 2 recordings, needed is one: 'I1', 'I2'"),
        (two_contents, r"same SOPInstanceUID \(0008,0018\) and other content"),
        (lambda folder: write_directory(folder, []), r"names no endoscopic object, DirectoryRecordSequence"),
        (
            lambda folder: write_directory(folder, [("I9",)]),
            r"names 'I9', ReferencedFileID \(0004,1500\), which",
        ),
        (
            lambda folder: write_directory(folder, [("..", "X")]),
            r"a file outside its folder, ReferencedFileID",
        ),
        (lambda folder: write_directory(folder, [("A/../..", "X")]), r"a file outside its folder"),
    ],
)
def test_a_dicomdir_that_names_no_one_recording_is_refused(make: Callable, says: str, tmp_path: Path) -> None:
    folder = disk(tmp_path / "disk", "any")
    make(folder)
    with pytest.raises(InputError, match=says) as caught:
        scan(folder)
    check_line(caught.value)


def test_the_same_object_twice_on_a_disk_is_one(tmp_path: Path) -> None:
    folder = disk(tmp_path / "disk", "any")
    write_pictures(folder / "I1", "raw", PICTURES)
    (folder / "I2").write_bytes((folder / "I1").read_bytes())
    assert scan(write_directory(folder, [("I1",), ("I2",)])).frames == 4


def check_line(error: CapsuleEdgeError) -> None:
    """Assert that an error is one line with a next step, and names no patient."""
    line = str(error)
    assert "\n" not in line
    assert error.hint
    assert not any(value in line for value in CANARIES.values())


def raw(path: Path, **attributes: Any) -> Path:
    return write_pictures(path, "raw", PICTURES, **attributes)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: write_object(path, "h264", None), r"without pictures, PixelData \(7FE0,0010\)"),
        (lambda path: write_object(path, "h264", items([])), r"no fragment in PixelData \(7FE0,0010\)"),
        (lambda path: write_object(path, "jpeg", items([])), r"no fragment in PixelData \(7FE0,0010\)"),
        (lambda path: wrap_video(path, b"no video" * 99), r"PixelData \(7FE0,0010\): .* cannot be read"),
        (lambda path: wrap_video(path, b"#EXTM3U\n/etc/passwd\n"), r"PixelData \(7FE0,0010\): .* cannot be"),
        (
            lambda path: write_object(path, "1.2.840.10008.1.2.4.70", items([b"ab"])),
            r"TransferSyntaxUID \(0002",
        ),
        (lambda path: raw(path, Rows=0), r"does not say Rows \(0028,0010\)"),
        (lambda path: raw(path, BitsAllocated=16), r"of 16 bits, PhotometricInterpretation \(0028,0004\)"),
        (lambda path: raw(path, Rows=60000, Columns=60000), "announces 60000 x 60000 pixels, Rows"),
    ],
)
def test_dicom_that_cannot_be_read_is_refused_by_its_tag(make: Callable, says: str, tmp_path: Path) -> None:
    path = tmp_path / "exam.dcm"
    make(path)
    with pytest.raises(InputError, match=says) as caught:
        scan(path)
    check_line(caught.value)


def test_a_damaged_number_is_refused_by_its_tag(tmp_path: Path) -> None:
    path = raw(tmp_path / "exam.dcm")
    data = path.read_bytes()
    assert data.count(b"IS\x02\x004 ") == 1
    path.write_bytes(data.replace(b"IS\x02\x004 ", b"IS\x02\x00xy"))
    with pytest.raises(InputError, match=r"damaged NumberOfFrames \(0028,0008\)"):
        scan(path)


def test_a_deflated_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exam.dcm"
    write_object(path, "1.2.840.10008.1.2.1.99", None)
    with pytest.raises(InputError, match=r"is deflated DICOM, TransferSyntaxUID \(0002,0010\)"):
        scan(path)


def test_private_tags_of_ten_megabytes_are_skipped(tmp_path: Path) -> None:
    import pydicom

    video = damage.encode(tmp_path / "h264.mp4")
    path = wrap_video(tmp_path / "exam.dcm", video, **SIZE)
    dataset = pydicom.dcmread(path)
    block = dataset.private_block(0x0099, "A RECORDER", create=True)
    block.add_new(0x10, "OB", bytes(10 << 20))
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    tracemalloc.start()
    try:
        assert scan(path).frames == 60
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Müller^Zoë"),
        ("NO SUCH SET", "Plain^Name"),
    ],
)
def test_the_character_set_of_a_name_is_no_matter_for_the_frames(
    charset: Any, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = raw(tmp_path / "exam.dcm", SpecificCharacterSet=charset, PatientName=name)
    assert scan(path).frames == 4
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *(("h264.mp4", f"{number}{form}") for number in range(102, 107) for form in ("", ".1")),
        ("hevc.mp4", "107"),
        ("hevc.mp4", "108"),
    ],
)
def test_every_syntax_of_h264_and_hevc_is_read(kind: str, number: str, tmp_path: Path) -> None:
    video = damage.encode(tmp_path / "exam.mp4", **KINDS[kind])
    syntax = f"1.2.840.10008.1.2.4.{number}"
    container = scan(wrap_video(tmp_path / "exam.dcm", video, syntax=syntax, **SIZE))
    assert container.warnings == ()
    assert {frame.status for frame in read_frames(container, range(container.present))} == {"ok"}
