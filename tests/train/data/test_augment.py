"""Augmentation: nothing where nothing is asked for, the artefacts of JPEG, and the same frames on PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import augment, draw_epoch

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

SIZE = 64


def still(x: object, _: object) -> object:
    return x


def varied(frames: np.ndarray, variation: augment.Variation) -> np.ndarray:
    """Return the augmented frames, not moved, as float levels."""
    out = augment.apply(frames, variation, keras.ops, still)
    return np.asarray(out) * 128 + 128


def plain(count: int, **fields: np.ndarray) -> augment.Variation:
    """Return an augmentation that changes nothing, except for ``fields``."""
    one = np.ones(count, np.float32)
    nothing = augment.draw(np.random.default_rng(0), count, SIZE, 0.0)
    nothing = nothing._replace(
        blur=0 * one, gain=one, gamma=one, mix=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1))
    )
    return nothing._replace(**fields)


@pytest.fixture
def grey() -> np.ndarray:
    """Smooth grey fields with edges, (4, SIZE, SIZE, 3)."""
    rng = np.random.default_rng(1)
    fields = [cv2.GaussianBlur(rng.uniform(0, 255, (SIZE, SIZE)), (0, 0), sigma) for sigma in (1, 2, 3, 5)]
    frames = np.stack([(f - f.min()) / np.ptp(f) * 235 + 10 for f in fields]).astype(np.uint8)
    frames[:, 20:30, 25:40] = 220
    return np.repeat(frames[..., None], 3, axis=3)


def inside() -> np.ndarray:
    at = np.arange(SIZE) + 0.5 - SIZE / 2
    return at[:, None] ** 2 + at[None, :] ** 2 <= (SIZE / 2) ** 2


@pytest.mark.quick
def test_debris_and_compression_of_strength_0_change_nothing(grey: np.ndarray) -> None:
    before, after = (augment.draw(np.random.default_rng(3), 4, SIZE, debris=d, compression=d) for d in (0, 1))
    # Debris and compression are drawn last, so the other draws do not depend on them.
    for name in ("move", "blur", "gain", "gamma", "mix"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert before.spots.shape == (4, 0, 4)
    assert before.coarse.shape == (4, 0)
    without, clear = (
        varied(grey, before),
        varied(grey, before._replace(spots=0 * after.spots + np.float32([0, 0, 1, 0]))),
    )
    assert np.array_equal(without, clear)
    draws = draw_epoch(np.full(4, 0.25), SIZE, TrainConfig(batch=2), 0, 3)
    assert draws.variation.spots.shape == (3, 2, 0, 4)


@pytest.mark.parametrize(("scale", "quality"), [(1.0, 50), (2.0, 25), (5.0, 10)])
def test_compression_equals_jpeg(grey: np.ndarray, scale: float, quality: int) -> None:
    """Below 50, libjpeg's table at quality q is K.1 times 50 / q; here the products are whole, as libjpeg rounds."""
    got = varied(grey, plain(4, coarse=np.full((4, 1), scale, np.float32)))[..., 0]
    for frame, mine in zip(grey[..., 0], got, strict=True):
        wanted = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)
        # The decoder rounds to whole levels (1/2), and its integer cosines add about as much. If a coefficient falls
        # between two steps, the two may round differently; this happens in few blocks.
        assert np.median(np.abs(mine - wanted)[inside()]) < 0.75
        assert np.abs(wanted.astype(float) - frame)[inside()].mean() > 0.5  # JPEG does change the frame


def test_a_frame_that_is_not_compressed_keeps_its_levels(grey: np.ndarray) -> None:
    got = varied(grey, plain(4, coarse=np.full((4, 1), augment.NO_COMPRESSION, np.float32)))
    # 64 coefficients are off by at most half a step, and no cosine is above 1/4: at most .46 of a level.
    assert np.abs(got - grey)[:, inside()].max() < 0.5


def test_debris_covers_and_a_bubble_is_a_rim(grey: np.ndarray) -> None:
    spots = np.zeros((4, 4, 4), np.float32)
    spots[..., 2] = 1
    middle = (np.float32(32) + 0.5) / SIZE
    spots[:, 0] = [middle, middle, 0.06, 0.75]
    tone = np.tile(np.float32([180, 120, 60]), (4, 1))
    covered = varied(grey, plain(4, spots=spots, tone=tone))
    assert covered[:, 32, 32] == pytest.approx(0.25 * grey[:, 32, 32] + 0.75 * tone, abs=0.01)
    assert np.abs(covered - grey)[:, 2:10, 30:34].max() < 0.01
    bubbles = augment.draw(np.random.default_rng(0), 200, SIZE, 0.0, debris=1.0)
    rim = bubbles.spots[(bubbles.spots[:, 1, 3] < 0)]
    assert 20 < len(rim) < 90  # half of the frames get spots, and half of these bubbles: about 50 of 200
    assert np.array_equal(rim[:, 0, :2], rim[:, 1, :2])
    assert np.array_equal(-rim[:, 0, 3], rim[:, 1, 3])


def test_a_recoloured_frame_has_the_colours_of_the_other(grey: np.ndarray) -> None:
    palette = np.float32([150, 90, 60, 40, 30, 20])
    whole = np.tile(np.append(palette, 1).astype(np.float32), (4, 1))
    got = augment.palettes(np.clip(np.rint(varied(grey, plain(4, palette=whole))), 0, 255).astype(np.uint8))
    # Palettes use every eighth pixel, and values outside [0, 255] are clipped.
    assert got == pytest.approx(np.tile(palette, (4, 1)), abs=12)
    none = whole * np.float32([1, 1, 1, 1, 1, 1, 0])
    assert np.abs(varied(grey, plain(4, palette=none)) - grey)[:, inside()].max() < 0.01


def test_palettes_come_from_frames_that_may_be_drawn() -> None:
    colours = np.arange(24, dtype=np.float32).reshape(4, 6)
    config = TrainConfig(batch=64, recolour=1.0)
    drawn = draw_epoch(np.float64([0.5, 0.5, 0, 0]), SIZE, config, 0, 3, colours).variation
    assert drawn.palette.shape == (3, 64, 7)
    assert {tuple(row) for row in drawn.palette[..., :6].reshape(-1, 6)} == {
        tuple(row) for row in colours[:2]
    }
    assert draw_epoch(np.full(4, 0.25), SIZE, TrainConfig(batch=2), 0, 3).variation.palette.shape == (3, 2, 0)


@pytest.mark.quick
def test_strengths_outside_0_to_1_are_named() -> None:
    from capsule_edge.runtime.errors import UsageError

    for name in ("debris", "compression", "recolour"):
        with pytest.raises(UsageError, match=f"{name} is 2"):
            TrainConfig(**{name: 2})


def test_pytorch_gives_the_same_frames(grey: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    others = np.tile(np.float32([150, 90, 60, 40, 30, 20]), (4, 1))
    variation = augment.draw(
        np.random.default_rng(5), 4, SIZE, debris=1.0, compression=1.0, recolour=1.0, others=others
    )
    np.savez(tmp_path / "given.npz", grey=grey, **variation._asdict())
    code = (
        "import sys, numpy as np, torch, keras\n"
        "from capsule_edge.train.data import augment\n"
        "assert keras.backend.backend() == 'torch'\n"
        "given = {k: torch.from_numpy(v) for k, v in np.load(sys.argv[1]).items()}\n"
        "frames = given.pop('grey')\n"
        "out = augment.apply(frames, augment.Variation(**given), keras.ops, lambda x, _: x)\n"
        "np.save(sys.argv[2], out.numpy())\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "given.npz", tmp_path / "got.npy"],
        check=True,
        env=os.environ | {"KERAS_BACKEND": "torch"},
    )
    mine, theirs = varied(grey, variation), np.load(tmp_path / "got.npy") * 128 + 128
    # These are float32 products of 64 terms. A coefficient between two steps may be rounded either way, in few blocks.
    assert np.quantile(np.abs(mine - theirs), 0.99) < 0.01
