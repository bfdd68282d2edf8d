"""Preprocessing version 2 by every entry: the same planes give the same bytes, wherever they come from."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from red_model import write_exam
from tiny_model import write_tiny_model
from video_samples import recording

from capsule_edge.benchmarks import frame_forms
from capsule_edge.evaluation.datasets import read_frame
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import (
    Batch,
    FieldOfView,
    PixelBuffers,
    prepare,
    preprocess,
    preprocess_coded,
    preprocess_frame,
)
from capsule_edge.runtime.recording import (
    CodedPlanes,
    Frame,
    coded_of_rgb,
    decode,
    orient,
    scan,
    to_coded,
    to_rgb,
)
from capsule_edge.runtime.recording.orientation import Orientation

WIDTH, HEIGHT = 90, 70
SPEC = InputSpec(size=48, preprocessing=2)
BOX = FieldOfView(7, 3, 61, 59)


def picture(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """Return an image of smooth colours with noise, uint8 RGB (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(rgb.astype(int) + rng.integers(-20, 21, rgb.shape), 0, 255).astype(np.uint8)


def fill(frame: av.VideoFrame, planes: list[np.ndarray]) -> av.VideoFrame:
    """Write the planes of an image, each with rows as long as it needs."""
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((len(values), plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    return frame


def make_planes(chroma: tuple[int, int], width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """Return random luma, Cb and Cr of 8 bits."""
    rng = np.random.default_rng(1)
    small = (-(-height >> chroma[1]), -(-width >> chroma[0]))
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((height, width), small, small)]


def assert_same_planes(found: CodedPlanes, expected: list[np.ndarray]) -> None:
    for plane, values in zip((found.luma, found.blue, found.red), expected, strict=True):
        np.testing.assert_array_equal(plane, values)


# RGB


@pytest.mark.quick
def test_the_formula_holds_for_every_colour() -> None:
    green, blue = (values.reshape(-1, 1) for values in np.mgrid[:256, :256])
    for red in range(256):
        rgb = np.stack([np.full_like(green, red), green, blue], axis=2).astype(np.uint8)
        luma = (4899 * red + 9617 * green + 1868 * blue + 8192) >> 14
        chroma = (((c - luma) * factor + 2105344) >> 14 for c, factor in ((blue, 9241), (red, 11682)))
        found = coded_of_rgb(rgb)
        assert_same_planes(found, [luma, *(np.clip(plane, 0, 255) for plane in chroma)])
    assert (found.shift_x, found.shift_y, found.matrix, found.full_range) == (0, 0, 5, True)


@pytest.mark.quick
@pytest.mark.parametrize("layout", ["rgb24", "bgr24", "gbrp", "bgr0", "rgba"])
def test_rgb_gives_the_same_by_every_entry(layout: str, tmp_path: Path) -> None:
    rgb = picture()
    expected = preprocess(rgb, SPEC, BOX)
    video = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=layout)
    cv2.imencode(".png", rgb[..., ::-1])[1].tofile(tmp_path / "1.png")
    still = read_frame(tmp_path / "1.png")
    frames = [Frame(0, video), Frame(1, rgb), Frame(2, still)]
    inputs = [preprocess_frame(frame, SPEC, BOX) for frame in frames]
    inputs += list(prepare(Batch(frames, BOX, 8), SPEC, PixelBuffers()))
    inputs += [preprocess(still, SPEC, BOX), preprocess_coded(coded_of_rgb(rgb), SPEC, BOX)]
    for found in inputs:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.quick
def test_a_video_of_the_planes_of_an_rgb_image_gives_the_same() -> None:
    rgb = picture()
    planes = coded_of_rgb(rgb)
    video = fill(av.VideoFrame(WIDTH, HEIGHT, "yuvj444p"), [planes.luma, planes.blue, planes.red])
    np.testing.assert_array_equal(preprocess_frame(Frame(0, video), SPEC, BOX), preprocess(rgb, SPEC, BOX))


@pytest.mark.quick
def test_a_jpeg_file_is_read_as_its_rgb_image(tmp_path: Path) -> None:
    encoded = cv2.imencode(".jpg", picture()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    encoded.tofile(tmp_path / "1.jpg")
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    expected = preprocess(np.ascontiguousarray(decoded), SPEC, BOX)
    np.testing.assert_array_equal(preprocess(read_frame(tmp_path / "1.jpg"), SPEC, BOX), expected)


def test_a_file_of_rgb_frames_gives_what_the_arrays_give(tmp_path: Path) -> None:
    pictures = [picture(seed=seed) for seed in range(3)]
    with av.open(str(tmp_path / "rgb.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for rgb in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="bgr0")))
        out.mux(stream.encode(None))
    frames = list(decode(scan(tmp_path / "rgb.mkv")))
    assert len(frames) == 3
    for frame, rgb in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(preprocess_frame(frame, SPEC, BOX), preprocess(rgb, SPEC, BOX))


@pytest.mark.quick
@pytest.mark.parametrize(
    "layout", ["gray", "gray10le", "ya8", "yuva420p", "rgba", "pal8", "monob", "rgb48le", "p010le"]
)
@pytest.mark.parametrize("tag", [0, 1])
def test_other_formats_go_through_rgb(layout: str, tag: int) -> None:
    frame = av.VideoFrame.from_ndarray(picture(), "rgb24")
    if layout == "pal8":
        frame = av.VideoFrame(WIDTH, HEIGHT, "pal8")
        rng = np.random.default_rng(2)
        for plane in frame.planes:
            plane.update(rng.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    else:
        frame = frame.reformat(format=layout)
    frame.color_range = tag
    np.testing.assert_array_equal(
        preprocess_frame(Frame(0, frame), SPEC, BOX), preprocess(to_rgb(frame), SPEC, BOX)
    )


@pytest.mark.quick
@pytest.mark.parametrize("layout", ["gray", "ya8"])
def test_grey_stays_grey(layout: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = levels if layout == "gray" else np.dstack([levels, np.full_like(levels, 255)]).reshape(16, 32)
    frame = fill(av.VideoFrame(16, 16, layout), [values])
    frame.color_range = 2
    found = preprocess_frame(Frame(0, frame), InputSpec(16, mask="none", preprocessing=2))
    np.testing.assert_array_equal(found, levels[:, :, None].repeat(3, axis=2))


@pytest.mark.quick
def test_transparent_parts_are_black() -> None:
    planes = [*make_planes((0, 0)), np.full((HEIGHT, WIDTH), 255, np.uint8)]
    planes[3][:, :45] = 0
    frame = fill(av.VideoFrame(WIDTH, HEIGHT, "yuva444p"), planes)
    found = preprocess_frame(Frame(0, frame), InputSpec(48, mask="none", preprocessing=2))
    assert (found[:, :23] == 0).all()
    assert found[:, 25:].any(axis=2).all()


# Planes


@pytest.mark.quick
@pytest.mark.parametrize(
    ("layout", "chroma"),
    [
        ("yuv420p", (1, 1)),
        ("yuvj420p", (1, 1)),
        ("yuv422p", (1, 0)),
        ("yuv444p", (0, 0)),
        ("yuv411p", (2, 0)),
        ("yuv410p", (2, 2)),
        ("yuv440p", (0, 1)),
    ],
)
@pytest.mark.parametrize("size", [(90, 70), (91, 71)], ids=str)
def test_planes_are_passed_on(layout: str, chroma: tuple[int, int], size: tuple[int, int]) -> None:
    planes = make_planes(chroma, *size)
    frame = fill(av.VideoFrame(*size, layout), planes)
    found = to_coded(frame)
    assert_same_planes(found, planes)
    assert (found.shift_x, found.shift_y, found.matrix) == (*chroma, 5)
    assert found.full_range == layout.startswith("yuvj")


@pytest.mark.quick
@pytest.mark.parametrize("layout", ["nv12", "nv21", "nv16", "nv24", "nv42", "yuyv422", "uyvy422", "yvyu422"])
@pytest.mark.parametrize("tag", [0, 1, 2])
def test_other_orders_of_the_same_samples_are_the_same_planes(layout: str, tag: int) -> None:
    chroma = {"nv12": (1, 1), "nv21": (1, 1), "nv24": (0, 0), "nv42": (0, 0)}.get(layout, (1, 0))
    planes = make_planes(chroma)
    luma, blue, red = planes
    if layout.startswith("nv"):
        pair = (red, blue) if layout in ("nv21", "nv42") else (blue, red)
        packed = [luma, np.stack(pair, axis=2).reshape(len(blue), -1)]
    else:
        order = {"yuyv422": "yuyv", "uyvy422": "uyvy", "yvyu422": "yvyu"}[layout]
        even_and_odd = iter((luma[:, ::2], luma[:, 1::2]))
        samples = [{"u": blue, "v": red}.get(name) if name != "y" else next(even_and_odd) for name in order]
        packed = [np.stack(samples, axis=2).reshape(HEIGHT, -1)]
    frame = fill(av.VideoFrame(WIDTH, HEIGHT, layout), packed)
    frame.color_range = tag
    found = to_coded(frame)
    assert_same_planes(found, planes)
    assert found.full_range == (tag == 2)
    expected = preprocess_coded(CodedPlanes(*planes, *chroma, 5, tag == 2), SPEC, BOX)
    np.testing.assert_array_equal(preprocess_frame(Frame(0, frame), SPEC, BOX), expected)


@pytest.mark.quick
@pytest.mark.parametrize(
    "layout", ["yuv420p", "yuvj422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p", "nv12"]
)
@pytest.mark.parametrize("size", [(90, 70), (91, 71)], ids=str)
@pytest.mark.parametrize("matrix", [1, 2, 9])
def test_a_whole_image_gives_what_its_planes_give(layout: str, size: tuple[int, int], matrix: int) -> None:
    """It is not copied first; its tags are as before."""
    frame = av.VideoFrame.from_ndarray(picture(*size), "rgb24").reformat(format=layout)
    frame.colorspace, frame.color_range, frame.color_trc = matrix, 2, 6
    expected = preprocess_coded(to_coded(frame), SPEC)
    stored = [bytes(plane) for plane in frame.planes]
    for box in (None, FieldOfView(0, 0, *size)):
        np.testing.assert_array_equal(preprocess_frame(Frame(0, frame), SPEC, box), expected)
    uncropped = InputSpec(48, crop="none", preprocessing=2)
    np.testing.assert_array_equal(preprocess_frame(Frame(0, frame), uncropped, BOX), expected)
    assert (frame.colorspace, frame.color_range, frame.color_trc) == (matrix, 2, 6)
    assert [bytes(plane) for plane in frame.planes] == stored


@pytest.mark.quick
def test_a_whole_image_above_the_largest_ratio_is_refused() -> None:
    frame = Frame(0, av.VideoFrame(1026, 8, "yuv420p"))
    with pytest.raises(InputError, match="1026 x 8 pixels cannot be shrunk to the model's 8 x 8"):
        preprocess_frame(frame, InputSpec(8, preprocessing=2))


@pytest.mark.quick
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_deeper_samples_are_rounded_half_up(bits: int) -> None:
    step = 1 << (bits - 8)
    exact = [plane.astype("<u2") * step for plane in make_planes((1, 1))]
    for off, levels in ((0, 0), (step // 2 - 1, 0), (step // 2, 1), (step - 1, 1)):
        frame = fill(av.VideoFrame(WIDTH, HEIGHT, f"yuv420p{bits}le"), [plane + off for plane in exact])
        expected = [np.minimum(plane.astype(int) + levels, 255) for plane in make_planes((1, 1))]
        assert_same_planes(to_coded(frame), expected)


@pytest.mark.quick
@pytest.mark.parametrize("code", range(1, 8))
@pytest.mark.parametrize("layout", ["yuv420p", "yuv422p", "nv12", "yuv420p10le"])
def test_a_turned_image_is_that_of_turned_planes(layout: str, code: int) -> None:
    """4:2:2 has other chroma once rows and columns are exchanged, so it goes through RGB."""
    turn = Orientation(bool(code & 4), bool(code & 2), bool(code & 1))
    frame = av.VideoFrame.from_ndarray(picture(), "rgb24").reformat(format=layout)
    upright = to_coded(frame)
    frame.opaque = turn
    if layout == "yuv422p":
        expected = preprocess(to_rgb(frame), SPEC, FieldOfView(3, 3, 61, 59))
    else:
        turned = (orient(plane, turn) for plane in (upright.luma, upright.blue, upright.red))
        planes = CodedPlanes(*(np.ascontiguousarray(plane) for plane in turned), 1, 1, 5, False)
        expected = preprocess_coded(planes, SPEC, FieldOfView(3, 3, 61, 59))
    found = preprocess_frame(Frame(0, frame), SPEC, FieldOfView(3, 3, 61, 59))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.quick
def test_the_output_array_is_written_and_nothing_beside_it() -> None:
    planes = coded_of_rgb(picture())
    out = np.full((3, 48, 48, 3), 7, np.uint8)
    assert preprocess_coded(planes, SPEC, BOX, out=out[1]) is not None
    np.testing.assert_array_equal(out[1], preprocess_coded(planes, SPEC, BOX))
    assert (out[::2] == 7).all()


@pytest.mark.quick
def test_a_box_of_odd_offset_takes_the_chroma_below_it() -> None:
    """The chroma sample of column 7 is number 3; a box of 61 columns has 31 chroma samples."""
    planes = make_planes((1, 1))
    luma, blue, red = planes
    cut = CodedPlanes(luma[3:62, 7:68], blue[1:31, 3:34], red[1:31, 3:34], 1, 1, 5, False)
    np.testing.assert_array_equal(
        preprocess_coded(CodedPlanes(*planes, 1, 1, 5, False), SPEC, BOX), preprocess_coded(cut, SPEC)
    )


@pytest.mark.quick
@pytest.mark.parametrize(
    "box",
    [
        FieldOfView(40, 0, 60, 60),
        FieldOfView(-1, 0, 60, 60),
        FieldOfView(0, 0, 0, 60),
        FieldOfView(0, 20, 8, 51),
    ],
)
def test_a_field_of_view_outside_is_refused_by_every_entry(box: FieldOfView) -> None:
    rgb = picture()
    video = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
    for entry in (
        lambda: preprocess(rgb, SPEC, box),
        lambda: preprocess_frame(Frame(0, video), SPEC, box),
        lambda: preprocess_coded(coded_of_rgb(rgb), SPEC, box),
    ):
        with pytest.raises(InputError, match="does not lie in a frame of 90 x 70"):
            entry()


# The measurement


def test_the_forms_of_a_real_frame_differ_little() -> None:
    """Half of the values within a level of each other: rounding in 8 bits, once more for each conversion."""
    frame = next(iter(decode(scan(recording("64440803f87b4843")))))
    forms = frame_forms.prepare_forms(frame, InputSpec(128), FieldOfView(5, 6, 213, 211))
    assert set(forms) == {"planes", *frame_forms.FORMS}
    for form in frame_forms.FORMS:
        differs = cv2.absdiff(forms["planes"], forms[form])
        assert differs.any()
        assert np.median(differs) <= 1


def test_an_index_without_splits_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("file,frames\na.mp4,3\n", "utf-8")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=r"has no index\.csv with the columns file and split"):
            frame_forms.find_train_recordings(folder)
    (tmp_path / "index.csv").write_text("file,split\na.mp4,train\nb.mp4,val\n", "utf-8")
    assert frame_forms.find_train_recordings(tmp_path) == [tmp_path / "a.mp4"]
    with pytest.raises(UsageError, match="--every is 0, allowed is 1 or more"):
        frame_forms.main(["--recordings", str(tmp_path), "--every", "0"])


def test_the_forms_of_a_recording_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_exam(tmp_path / "a.mp4", frames=20)
    (tmp_path / "index.csv").write_text("file,split\na.mp4,train\n", "utf-8")
    model = write_tiny_model(tmp_path / "tiny.onnx")
    frame_forms.main([str(model), "--recordings", str(tmp_path), "--every", "3"])
    *table, _, about, line = capsys.readouterr().out.splitlines()
    (result,) = json.loads(line)["results"]
    assert (result["frames"], result["size"], result["trained_on"]) == (7, 32, 1)
    assert list(result["forms"]) == list(frame_forms.FORMS)
    for found in result["forms"].values():
        assert 0 <= found["p50"] <= found["p99"] <= found["max"] <= 255
        assert 0 <= found["same_label"] <= 1
    assert len(table) == 2 + len(frame_forms.FORMS)
    assert about == "7 frames; tiny is a model of version 1."
    (tmp_path / "index.csv").write_text("file,split\n", "utf-8")
    with pytest.raises(InputError, match="the recordings hold no frame with an image"):
        frame_forms.main([str(model), "--recordings", str(tmp_path)])
