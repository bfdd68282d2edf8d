"""Pictures of every format are read, evaluated and loaded for training; faulty ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_model import write_tiny_model

from capsule_edge.cli.evaluate import command as evaluate
from capsule_edge.evaluation.audit import audit
from capsule_edge.evaluation.datasets import list_samples, load_dataset, read_frame
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec

image = pytest.importorskip("PIL.Image")

# Left half reddish, right half blueish; JPEG at quality 95 moves a flat patch by 2 levels at most.
LEFT, RIGHT = (200, 50, 20), (20, 50, 200)
WIDTH, HEIGHT = 64, 48


def picture() -> Any:
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = LEFT, RIGHT
    return image.fromarray(pixels)


def turned(orientation: int) -> Any:
    exif = image.Exif()
    exif[0x0112] = orientation
    return exif


def deep(path: Path, alpha: bool = False) -> None:
    bgr = np.asarray(picture())[..., ::-1].astype(np.uint16) * 257
    if alpha:
        bgr = np.dstack([bgr, np.zeros((HEIGHT, WIDTH), np.uint16)])
    cv2.imencode(path.suffix, bgr)[1].tofile(path)


KINDS: dict[str, Callable[[Path], None]] = {
    "rgb.png": lambda path: picture().save(path),
    "rgba.png": lambda path: picture().convert("RGBA").save(path),
    "palette.png": lambda path: picture().quantize(8).save(path),
    "cmyk.jpg": lambda path: picture().convert("CMYK").save(path, quality=95),
    "cmyk.tif": lambda path: picture().convert("CMYK").save(path),
    "progressive.jpg": lambda path: picture().save(path, quality=95, progressive=True),
    "alpha.webp": lambda path: picture().convert("RGBA").save(path, lossless=True),
    "plain.bmp": lambda path: picture().save(path),
    "deep.png": deep,
    "deep.tif": deep,
    "deep_alpha.png": lambda path: deep(path, alpha=True),
    "a gif by another name.png": lambda path: picture().save(path, format="GIF"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_format_gives_the_same_pixels(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    frame = read_frame(tmp_path / name)
    assert (frame.shape, frame.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_allclose(frame[8, 8], LEFT, atol=2)
    np.testing.assert_allclose(frame[-8, -8], RIGHT, atol=2)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_is_read_as_three_equal_channels(tmp_path: Path, mode: str) -> None:
    grey = picture().convert("L")
    deep_grey = image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    (deep_grey if mode == "I;16" else grey.convert(mode)).save(tmp_path / "x.png")
    frame = read_frame(tmp_path / "x.png")
    wanted = np.asarray(picture().convert("L"))
    assert (frame == wanted[..., None]).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    options = {".jpg": {"quality": 95}, ".webp": {"lossless": True}}.get(suffix, {})
    path = tmp_path / f"x{suffix}"
    picture().save(path, exif=turned(orientation), **options)
    frame = read_frame(path)
    # Orientations 1 to 8 of the EXIF standard as numpy operations.
    upright = np.asarray(picture())
    wanted = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright),
    }[orientation]
    assert frame.shape == wanted.shape
    # Compare the corners: JPEG distorts pixels beside the edge between the halves.
    for row, column in ((4, 4), (4, -4), (-4, 4), (-4, -4)):
        np.testing.assert_allclose(frame[row, column], wanted[row, column], atol=3)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    image.fromarray(np.linspace(0, 1, 256).reshape(16, 16).astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"f\.tif"):
        read_frame(tmp_path / "f.tif")


def test_a_png_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = bytearray(cv2.imencode(".png", noise)[1].tobytes())
    for place in random.integers(100, len(data) - 20, 20):
        broken = bytearray(data)
        broken[place] ^= 4
        (tmp_path / "x.png").write_bytes(broken)
        with pytest.raises(InputError):
            read_frame(tmp_path / "x.png")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A data set of every format and of 1x1, 1x300 and 300x1 pictures, with a truncated file and a text file."""
    root = tmp_path / "data"
    for folder in ("normal", "polyp"):
        (root / folder).mkdir(parents=True)
    for number, (name, write) in enumerate(KINDS.items()):
        write(root / ("normal", "polyp")[number % 2] / name)
    for width, height in ((1, 1), (1, 300), (300, 1)):
        image.new("RGB", (width, height), LEFT).save(root / "polyp" / f"{width}x{height}.png")
    picture().save(root / "normal" / "cut.jpg")
    whole = (root / "normal" / "cut.jpg").read_bytes()
    (root / "normal" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "polyp" / "text.png").write_text("no picture")
    return root


def call(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(a) for a in arguments])


def test_evaluation_leaves_out_unreadable_pictures_and_names_them(mixed: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m.onnx")
    result = call(model, "--data", mixed, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["frames"] == len(KINDS) + 3
    assert document["skipped"] == ["normal/cut.jpg", "polyp/text.png"]
    assert result.stderr.splitlines() == [
        "warning: normal/cut.jpg cannot be read and is left out",
        "warning: polyp/text.png cannot be read and is left out",
    ]


def test_training_leaves_out_unreadable_pictures_and_names_them(mixed: Path) -> None:
    from capsule_edge.train.data import load_frames

    frames = load_frames(load_dataset(mixed), ("normal", "polyp"), InputSpec(32))
    assert len(frames) == len(KINDS) + 3
    assert sorted(Path(name).name for name in frames.unreadable) == ["cut.jpg", "text.png"]
    assert frames.pixels.shape[1:] == (32, 32, 3)
    with pytest.raises(InputError, match="'polyp', allowed is one of normal, ulcer"):
        load_frames(load_dataset(mixed), ("normal", "ulcer"), InputSpec(32))


def test_a_misspelt_label_is_refused_with_a_suggestion(mixed: Path, tmp_path: Path) -> None:
    (mixed / "polyp").rename(mixed / "pollyp")
    error = call(write_tiny_model(tmp_path / "m.onnx"), "--data", mixed).exception
    assert isinstance(error, InputError)
    assert "pollyp (is it polyp?), the model's labels are normal, bleeding, polyp" in str(error)
    assert "\n" not in str(error)


def test_an_empty_class_folder_is_refused(mixed: Path, tmp_path: Path) -> None:
    (mixed / "ulcer").mkdir()
    error = call(write_tiny_model(tmp_path / "m.onnx"), "--data", mixed).exception
    assert isinstance(error, InputError)
    assert "ulcer holds no image" in str(error)


def test_rows_without_their_file_are_refused_and_nothing_is_written(mixed: Path, tmp_path: Path) -> None:
    rows = ["file,label", "normal/rgb.png,Normal", "normal/gone.png,Normal", "polyp/gone.png,Polyp"]
    (mixed / "labels.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    error = call(write_tiny_model(tmp_path / "m.onnx"), "--data", mixed, "--out", out).exception
    assert isinstance(error, InputError)
    assert "2 of 3 files that" in str(error)
    assert "do not exist, the first is" in str(error)
    assert "gone.png" in str(error)
    assert not out.exists()


def sixteen_bits(path: Path, highest: int, *, alpha: int | None = None) -> Path:
    """Write the picture with its levels scaled to ``highest`` in 16 bits."""
    bgr = (np.asarray(picture())[..., ::-1].astype(np.uint32) * highest // 255).astype(np.uint16)
    if alpha is not None:
        bgr = np.dstack([bgr, np.full((HEIGHT, WIDTH), alpha, np.uint16)])
    cv2.imencode(path.suffix, bgr)[1].tofile(path)
    return path


@pytest.mark.quick
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.ppm"])
@pytest.mark.parametrize("highest", [4095, 65535])
def test_twelve_bits_in_sixteen_are_recognised(tmp_path: Path, name: str, highest: int) -> None:
    frame = read_frame(sixteen_bits(tmp_path / name, highest))
    # One level of eight bits is 16 of twelve: rounding down twice loses one at most.
    np.testing.assert_allclose(frame[8, 8], LEFT, atol=1)
    np.testing.assert_allclose(frame[-8, -8], RIGHT, atol=1)


@pytest.mark.parametrize("alpha", [4095, 65535])
def test_twelve_bits_beside_transparency_are_recognised(tmp_path: Path, alpha: int) -> None:
    frame = read_frame(sixteen_bits(tmp_path / "x.png", 4095, alpha=alpha))
    np.testing.assert_allclose(frame[8, 8], LEFT, atol=1)


def test_a_black_picture_of_sixteen_bits_is_black(tmp_path: Path) -> None:
    cv2.imencode(".png", np.zeros((8, 8, 3), np.uint16))[1].tofile(tmp_path / "x.png")
    assert not read_frame(tmp_path / "x.png").any()


def test_the_audit_counts_pictures_of_twelve_bits(tmp_path: Path) -> None:
    for number, highest in enumerate((4095, 4095, 65535)):
        sixteen_bits(tmp_path / f"{number}.png", highest)
    (tmp_path / "labels.csv").write_text("file,label\n0.png,Normal\n1.png,Polyp\n2.png,Polyp\n")
    found = {each["check"]: each for each in audit(list_samples(tmp_path))["findings"]}
    assert found["twelve_bits"]["examples"] == ["0.png", "1.png"]


def test_a_picture_of_too_many_pixels_is_refused_with_its_size(tmp_path: Path) -> None:
    header = b"P5\n20000 10000\n255\n"
    (tmp_path / "x.pgm").write_bytes(header)
    with pytest.raises(InputError, match="20000 x 10000 pixels, at most 67108864"):
        read_frame(tmp_path / "x.pgm")
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(1 << 30)  # a hole: no disk is filled
    with pytest.raises(InputError, match="1073741824 bytes"):
        read_frame(tmp_path / "long.png")
