"""The phantom: frames that depend on seed and index alone, their labels and masks, and recordings of them."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest

from capsule_edge.runtime.errors import OutputError, UsageError
from capsule_edge.runtime.phantom import (
    DEMO_SEED,
    LESION_LABELS,
    NORMAL,
    Phantom,
    is_recording_of,
    render_data_set,
    write_recording,
)
from capsule_edge.runtime.phantom.recording import (
    RECORDING_SEEDS,
    TRAINING_SEEDS,
    PlantedLesion,
    training_frames,
)
from capsule_edge.runtime.preprocessing import find_field_of_view

POLYP = PlantedLesion("polyp", 2.0, 6.0)
SMALL = Phantom(3, frames=16, size=96, lesions=(POLYP,))


@pytest.mark.quick
def test_a_frame_depends_on_seed_and_index_alone():
    in_order = [SMALL.render(index) for index in range(SMALL.frames)]
    for index in (11, 0, 5):
        Phantom(900 + index, size=96).render(0)  # Another scene in between.
        np.testing.assert_array_equal(SMALL.render(index), in_order[index])
    assert in_order[0].shape == (96, 96, 3)
    assert in_order[0].dtype == np.uint8
    assert not np.array_equal(in_order[0], Phantom(4, frames=16, size=96).render(0))


def test_a_spawned_process_renders_the_same_bytes():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(SMALL.render, 6).result(timeout=60), SMALL.render(6))


@pytest.mark.quick
def test_truth_is_half_open():
    # 2 frames a second: [2, 6) s is frames 4 to 11.
    assert [SMALL.truth(index) for index in (3, 4, 11, 12)] == [NORMAL, "polyp", "polyp", NORMAL]
    assert {SMALL.clean().truth(index) for index in range(16)} == {NORMAL}


def test_truth_at_boundaries_that_floating_point_misses():
    # 0.7 s at 10 frames a second is frame 7, though 0.7 * 10 and 7 / 10 need not agree in binary.
    phantom = Phantom(3, frames=20, size=64, capture_fps=10.0, lesions=(PlantedLesion("ulcer", 0.7, 1.1),))
    assert [index for index in range(20) if phantom.truth(index) == "ulcer"] == [7, 8, 9, 10]


@pytest.mark.parametrize("label", LESION_LABELS)
@pytest.mark.parametrize("index", [4, 8, 11])
def test_the_mask_is_where_the_lesion_changes_the_picture(label, index):
    phantom = Phantom(5, frames=16, size=160, lesions=(PlantedLesion(label, 2.0, 6.0),))
    mask = phantom.lesion_mask(index)
    changed = np.abs(phantom.render(index).astype(int) - phantom.clean().render(index)).max(axis=2)
    assert mask is not None
    # The lesion is well visible from its first frame on: it changes 1 % of the frame or more, by more than the
    # sensor's noise.
    assert mask.mean() > 0.01
    assert np.median(changed[mask]) > 12
    # Outside the mask the patch hides less than a quarter of the wall, so it changes a pixel by 64 levels at most.
    # A change of more than 20, which an eye would see, occurs only on its antialiased edge.
    assert changed[~mask].max() <= 64
    assert (changed[~mask] > 20).mean() < 0.02
    rows, columns = np.nonzero(mask)
    at = (rows - 80) ** 2 + (columns - 80) ** 2
    assert at.max() <= 80**2


def test_frames_without_a_lesion_are_those_of_the_clean_recording():
    assert SMALL.lesion_mask(3) is None
    np.testing.assert_array_equal(SMALL.render(3), SMALL.clean().render(3))


def test_consecutive_frames_resemble_each_other_more_than_distant_ones():
    clean = Phantom(DEMO_SEED, size=96).clean()
    one, following, distant = (clean.render(index).astype(float) for index in (100, 101, 300))
    assert 0 < np.abs(one - following).mean() < 0.5 * np.abs(one - distant).mean()


@pytest.mark.parametrize("seed", [0, DEMO_SEED, 999])
def test_default_lesions_are_four_apart_and_long_enough(seed):
    phantom = Phantom(seed)
    planted = phantom.planted
    assert len({lesion.label for lesion in planted}) == 4
    edges = [
        0.0,
        *(edge for lesion in planted for edge in (lesion.start_s, lesion.end_s)),
        phantom.duration_s,
    ]
    assert min(np.diff(edges)[0::2]) >= 20
    assert all(15 <= length <= 30 for length in np.diff(edges)[1::2])
    assert Phantom(seed, frames=20).planted == ()


@pytest.mark.parametrize("frames", [139, 140, 150, 250, 399, 441, 2000])
def test_default_lesions_fit_every_length(frames):
    phantom = Phantom(11, frames=frames)
    assert Phantom(11, frames=frames, lesions=phantom.planted).planted == phantom.planted


def test_the_field_of_view_is_found_and_the_caption_lies_outside():
    frame = Phantom(DEMO_SEED).render(0)
    at = np.arange(336) + 0.5 - 168
    outside = at[:, None] ** 2 + at[None, :] ** 2 > (0.49 * 336) ** 2
    assert frame[outside].max() > 100
    box = find_field_of_view([Phantom(DEMO_SEED).render(index) for index in range(0, 600, 60)])
    # The circle's diameter is 0.96 of 336 pixels, within its soft edge and a dark lumen at the rim.
    assert abs(box.width - 322) <= 8
    assert abs(box.height - 322) <= 8


def test_training_scenes_are_never_scenes_of_a_recording():
    assert RECORDING_SEEDS.stop <= TRAINING_SEEDS.start
    assert DEMO_SEED in RECORDING_SEEDS


def test_training_frames_are_reproducible_and_half_normal():
    first = list(training_frames(40, size=64, seed=1))
    again = list(training_frames(5, size=64, seed=1))
    for (frame, label), (expected, name) in zip(again, first, strict=False):
        np.testing.assert_array_equal(frame, expected)
        assert label == name
    # For one seed in a thousand, 40 fair coins would fall outside 10 to 30. This seed is fixed.
    assert 10 <= sum(label == NORMAL for _, label in first) <= 30
    assert {label for _, label in training_frames(12, size=64, seed=2, labels=["ulcer"])} == {NORMAL, "ulcer"}
    assert len({frame.tobytes() for frame, _ in first}) == 40


@pytest.mark.parametrize(("fps", "distance"), [(None, Fraction(1, 2)), (25.0, Fraction(1, 25))])
def test_a_recording_is_the_same_bytes_twice_with_exact_times(tmp_path: Path, fps, distance):
    paths = [tmp_path / "one.mp4", tmp_path / "zwei ü.mp4"]
    for path in paths:
        write_recording(path, SMALL, fps=fps)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    with av.open(str(paths[1])) as container:
        stream = container.streams.video[0]
        assert stream.frames == SMALL.frames
        pictures = list(container.decode(stream))
    assert [picture.pts * picture.time_base for picture in pictures] == [
        k * distance for k in range(SMALL.frames)
    ]
    decoded = pictures[8].to_ndarray(format="rgb24").astype(int)
    # Coding changes a pixel by a few levels on average. A shifted frame, swapped colours or a wrong colour tag
    # would change it by tens.
    assert np.abs(decoded - SMALL.render(8)).mean() < 5


def test_a_recording_of_another_phantom_is_recognised(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.mp4", SMALL)
    assert is_recording_of(tmp_path / "a.mp4", SMALL)
    for other in (
        Phantom(4, frames=16, size=96),
        Phantom(3, frames=15, size=96),
        Phantom(3, frames=16, size=64),
    ):
        assert not is_recording_of(tmp_path / "a.mp4", other)
    (tmp_path / "text.mp4").write_text("no video")
    assert not is_recording_of(tmp_path / "text.mp4", SMALL)
    assert not is_recording_of(tmp_path / "absent.mp4", SMALL)


def test_a_data_set_is_rendered_video_by_video() -> None:
    frames = render_data_set(3)
    first = [next(frames) for _ in range(27)]
    assert {(frame.video_id, frame.split) for frame in first} == {("phantom-001048", "train")}
    assert [frame.frame_number for frame in first] == list(range(0, 324, 12))
    labels = [frame.label for frame in first]
    assert {label: labels.count(label) for label in LESION_LABELS} == dict.fromkeys(LESION_LABELS, 3)
    assert first[0].pixels.shape == (224, 224, 3)
    assert next(frames).video_id == "phantom-001049"
    with pytest.raises(UsageError, match="seed is -1, allowed is 0 to 62436"):
        render_data_set(-1)


def test_a_recording_replaces_the_file_before_it(tmp_path: Path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    write_recording(path, Phantom(1, frames=2, size=64))
    assert path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"size": 62}, "62"),
        ({"size": 65}, "65"),
        ({"frames": 0}, "0 frames"),
        ({"seed": -1}, "-1"),
        ({"capture_fps": 0.0}, "0.0"),
        ({"capture_fps": float("nan")}, "nan"),
        ({"lesions": (PlantedLesion("tumour", 0, 1),)}, "tumour"),
        ({"lesions": (PlantedLesion("polyp", 1, 9),)}, "9 s"),
        ({"lesions": (PlantedLesion("polyp", -1, 2),)}, "-1"),
        ({"lesions": (PlantedLesion("polyp", 2, 2),)}, "2"),
        ({"lesions": (PlantedLesion("polyp", 2, 5), PlantedLesion("ulcer", 4, 6))}, "4 s"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_one_line(arguments, received):
    with pytest.raises(UsageError, match="allowed is") as caught:
        Phantom(**{"seed": 1, "frames": 16, "size": 64, **arguments})
    assert received in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_impossible_calls(tmp_path: Path):
    for index in (-1, 16):
        with pytest.raises(UsageError, match="0 to 15"):
            SMALL.render(index)
    with pytest.raises(UsageError, match="fps is 0"):
        write_recording(tmp_path / "a.mp4", SMALL, fps=0)
    with pytest.raises(UsageError, match="nan"):
        write_recording(tmp_path / "a.mp4", SMALL, fps=float("nan"))
    with pytest.raises(OutputError, match="cannot be written"):
        write_recording(tmp_path / "missing" / "a.mp4", SMALL)
    with pytest.raises(UsageError, match="warts"):
        training_frames(1, seed=1, labels=["warts"])
    with pytest.raises(UsageError, match="-1"):
        training_frames(-1, seed=1)
    with pytest.raises(UsageError, match="32"):
        training_frames(1, size=32, seed=1)
    assert list(tmp_path.iterdir()) == []
