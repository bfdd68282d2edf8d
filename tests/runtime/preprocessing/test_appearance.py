"""The statistics of a model input: exact, and the same for every batch."""

from __future__ import annotations

import numpy as np
import pytest

from capsule_edge.runtime.inference import APPEARANCE, AppearanceParameters, FamiliarityRule
from capsule_edge.runtime.preprocessing import AppearanceDistance, describe_appearance

pytestmark = pytest.mark.quick


def described(colour: tuple[int, int, int], size: int = 32) -> dict[str, float]:
    pixels = np.full((1, size, size, 3), colour, np.uint8)
    return dict(zip(APPEARANCE, describe_appearance(pixels)[0].tolist(), strict=True))


@pytest.mark.parametrize("size", [8, 33, 128, 224])
@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_a_frame_is_described_alike_in_every_batch(size: int, count: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (32, size, size, 3), np.uint8)
    rng = np.random.default_rng(0)
    whitening = rng.normal(size=(len(APPEARANCE), len(APPEARANCE))).tolist()
    parameters = AppearanceParameters(
        APPEARANCE, tuple(rng.normal(size=len(APPEARANCE))), tuple(map(tuple, whitening)), 32, 0.2
    )
    distance = AppearanceDistance(FamiliarityRule("appearance", 1.0, parameters))
    whole, distances = describe_appearance(pixels), distance.measure(pixels)
    for at in range(0, 32, count):
        part = pixels[at : at + count]
        assert np.array_equal(describe_appearance(part), whole[at : at + count])
        assert np.array_equal(distance.measure(part), distances[at : at + count])


def test_a_rule_of_huge_numbers_sets_all_frames_aside_without_a_warning() -> None:
    size = len(APPEARANCE)
    parameters = AppearanceParameters(
        APPEARANCE, (-1e308,) * size, ((1e308, -1e308) + (0.0,) * (size - 2),) * size, 32, 0.2
    )
    distance = AppearanceDistance(FamiliarityRule("appearance", 1.0, parameters))
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    assert distance.is_unfamiliar(pixels).tolist() == [True, True]


def test_no_frame_gives_no_row() -> None:
    assert describe_appearance(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, len(APPEARANCE))


def test_the_statistics_of_plain_pictures() -> None:
    red = described((200, 100, 50))
    assert (red["mean_red"], red["mean_green"], red["mean_blue"]) == (200, 100, 50)
    assert red["share_of_red"] == 100 * 200 / (350 + 15)
    for name in ("deviation_red", "deviation_green_blue", "edges", "contrast", "dark", "white", "cool"):
        assert red[name] == 0
    assert described((0, 0, 0))["dark"] == 10
    assert described((250, 250, 250))["white"] == described((250, 250, 250))["grey"] == 10
    assert described((40, 90, 180))["cool"] == 10
    assert described((200, 5, 5))["vivid"] == 10


def test_deviations_are_exact_where_they_are_largest() -> None:
    """Half of the points are black and half white, the most that float32 has to add without rounding."""
    pixels = np.zeros((1, 128, 128, 3), np.uint8)
    pixels[:, :, 64:] = 255
    found = dict(zip(APPEARANCE, describe_appearance(pixels)[0].tolist(), strict=True))
    # The grid is symmetrical, so each half has the same number of points.
    assert found["mean_red"] == found["deviation_blue"] == 127.5
    assert found["deviation_red_green"] == 0


def test_edges_beside_the_points_are_counted() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 200
    found = dict(zip(APPEARANCE, describe_appearance(stripes)[0].tolist(), strict=True))
    # Every diagonal neighbour lies in the other stripe: a difference of 600 in the sum of the channels.
    assert (found["edges"], found["hard_edges"], found["contrast"]) == (10, 10, 600**0.5)
