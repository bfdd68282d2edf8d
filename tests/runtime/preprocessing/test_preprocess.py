"""From images to the model's input: planes and RGB images give the same values, on every processor."""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preprocessing_vectors import prepare_case, read_vectors

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import FieldOfView, find_field_of_view, preprocess, preprocess_planes
from capsule_edge.runtime.preprocessing.model_input import resize
from capsule_edge.runtime.recording import split, to_planes, to_rgb

RECORDINGS = ("64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644")


def make_image(layout: str, width: int, height: int, seed: int = 0) -> av.VideoFrame:
    """Return an image of smooth colours with noise in a pixel layout of FFmpeg."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    rgb = np.clip(rgb.astype(int) + rng.integers(-20, 21, rgb.shape), 0, 255).astype(np.uint8)
    return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=layout)


@pytest.mark.parametrize("name", RECORDINGS)
def test_planes_and_rgb_of_the_real_recordings_give_the_same_input(name: str) -> None:
    """Compare every fourth frame. Equal values mean equal labels and events."""
    path = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings" / f"{name}.mp4"
    if not path.exists():
        pytest.skip("CAPSULE_EDGE_DATA names no folder with the real recordings")
    spec, box = InputSpec(size=160), None
    compared = 0
    with av.open(str(path)) as source:
        for frame in islice(source.decode(video=0), None, None, 4):
            rgb = convert_to_rgb(frame)
            box = box or find_field_of_view([rgb])
            np.testing.assert_array_equal(
                preprocess_planes(to_planes(frame), spec, box), preprocess(rgb, spec, box)
            )
            compared += 1
    assert compared > 250


def convert_to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Convert BT.601 of limited range with swscale's code for RGB images, which shares nothing with that for planes."""
    flags = (
        av.video.reformatter.Interpolation.BILINEAR
        | av.video.reformatter.Interpolation.ACCURATE_RND
        | av.video.reformatter.Interpolation.BITEXACT
        | av.video.reformatter.Interpolation.FULL_CHR_H_INT
    )
    return frame.reformat(
        format="rgb24",
        src_colorspace=5,
        dst_colorspace=5,
        src_color_range=1,
        dst_color_range=2,
        interpolation=flags,
    ).to_ndarray()


@pytest.mark.parametrize("layout", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12"])
@pytest.mark.parametrize(("width", "height"), [(224, 224), (337, 251), (64, 48)])
def test_planes_of_every_layout_are_those_of_the_rgb_image(layout: str, width: int, height: int) -> None:
    frame = make_image(layout, width, height)
    differs = np.abs(cv2.merge(to_planes(frame)).astype(int) - convert_to_rgb(frame)).max()
    # swscale's code for RGB images converts two pixels at a time. Of an odd width it rounds the last ones differently.
    assert differs <= width % 2


@pytest.mark.parametrize("layout", ["gray", "rgb24", "gbrp", "bgr0", "yuvj420p"])
def test_planes_merge_to_the_rgb_image(layout: str) -> None:
    frame = make_image(layout, 90, 70)
    np.testing.assert_array_equal(cv2.merge(to_planes(frame)), to_rgb(frame))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(8, 1200),
    st.integers(8, 1200),
    st.integers(8, 300),
    st.integers(0, 2**32 - 1),
)
def test_resizing_is_that_of_opencv_within_one_level(height: int, width: int, size: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    shrinks = min(height, width) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT
    expected = cv2.resize(frame, (size, size), interpolation=method)
    # Both round a mean: OpenCV once, swscale twice (after the rows, with 7 more bits, and at the end).
    found = cv2.merge(resize(split(frame), size)).astype(int)
    assert np.abs(found - expected).max() <= (1 if shrinks else 0)


@pytest.mark.parametrize("box", [None, FieldOfView(0, 0, 90, 70), FieldOfView(7, 3, 61, 59)])
@pytest.mark.parametrize("size", [32, 160])
def test_planes_and_rgb_are_cropped_alike(box: FieldOfView | None, size: int) -> None:
    frame = make_image("yuv420p", 90, 70)
    spec = InputSpec(size=size, crop="none" if box is None else "field_of_view")
    out = np.full((2, size, size, 3), 7, np.uint8)
    preprocess_planes(to_planes(frame), spec, box, out=out[1])
    np.testing.assert_array_equal(out[1], preprocess(to_rgb(frame), spec, box))
    assert (out[0] == 7).all()


def test_a_field_of_view_outside_the_frame_is_refused() -> None:
    planes = to_planes(make_image("yuv420p", 90, 70))
    with pytest.raises(InputError, match="does not lie in a frame of 90 x 70"):
        preprocess_planes(planes, InputSpec(size=32), FieldOfView(40, 0, 60, 60))


def sample() -> bytes:
    """Return the model inputs of a fixed image, computed without random numbers and without a codec."""
    y, x = np.mgrid[:240, :320]
    frame = np.stack([(x * 7 + y * 3) % 256, (x * y) % 256, (y * 5 + 40) % 256], axis=2).astype(np.uint8)
    coded = av.VideoFrame(320, 240, "yuv420p")
    for plane, shrink in zip(coded.planes, (1, 2, 2), strict=True):
        values = np.zeros((plane.height, plane.line_size), np.uint8)
        values[:, : plane.width] = frame[::shrink, ::shrink, 0 if shrink == 1 else 1]
        plane.update(values.tobytes())
    box = FieldOfView(41, 5, 230, 231)
    return (
        preprocess_planes(to_planes(coded), InputSpec(size=160), box).tobytes()
        + preprocess(frame, InputSpec(size=128), box).tobytes()
    )


GOLDEN = "ad0aee86d9af0859e1ebfdef3ab28c4e7a6c7d36788785fe287e237828acd303"


@pytest.mark.quick
def test_golden_frames() -> None:
    """Training, calibration, export and run time rely on these values. Another hash means another model."""
    assert hashlib.sha256(sample()).hexdigest() == GOLDEN


@contextmanager
def limit_processor(library: ctypes.CDLL, flags: int) -> Iterator[None]:
    """Let FFmpeg use only these instruction sets (``AV_CPU_FLAG_*``)."""
    try:
        library.av_force_cpu_flags(flags)
        assert library.av_get_cpu_flags() == flags
        yield
    finally:
        library.av_force_cpu_flags(-1)


def vectors() -> bytes:
    """Return the model inputs of all test vectors of preprocessing version 2."""
    return b"".join(prepare_case(case).tobytes() for case in read_vectors())


# No instruction set; SSE2 and below; SSE4.2 and below.
@pytest.mark.parametrize("flags", [0, 0x1F, 0x3FF])
@pytest.mark.parametrize("make", [sample, vectors], ids=["version 1", "version 2"])
def test_the_input_does_not_depend_on_the_instruction_set(make: Callable[[], bytes], flags: int) -> None:
    found = sorted(Path(av.__file__).parents[1].glob("av.libs/libavutil*"))
    if not found:
        pytest.skip("this build of PyAV does not keep its libavutil beside it")
    library = ctypes.CDLL(str(found[0]))

    def make_in_new_thread() -> bytes:
        found: list[bytes] = []
        # swscale chooses its code when a thread converts its first image.
        thread = threading.Thread(target=lambda: found.append(make()))
        thread.start()
        thread.join()
        return found[0]

    usual = make_in_new_thread()
    with limit_processor(library, flags):
        assert make_in_new_thread() == usual
