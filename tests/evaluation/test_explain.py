"""Activation maps follow the model and the picture; the sheet shows them; bad input is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from paths import ROOT
from red_model import LABELS, view, write_red_model
from sklearn.metrics import roc_auc_score
from tiny_model import write_tiny_model

from capsule_edge.cli.explain import command
from capsule_edge.evaluation.explain import LabelMap, Tile, channel_grid, explain, overlay, sheet
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, ModelError, OutputError, UsageError
from capsule_edge.runtime.inference import Backend, open_model
from capsule_edge.runtime.phantom import Phantom
from capsule_edge.runtime.phantom.recording import PlantedLesion
from capsule_edge.runtime.preprocessing import find_field_of_view, preprocess

SHIPPED = ROOT / "runtime" / "models" / "capsule-edge.int8.onnx"
# No training used these seeds. The lesion is completely in view in each of the frames.
SEEDS, FRAMES = range(100, 104), (14, 26)


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imencode(".png", view(red=True)[..., ::-1])[1].tofile(tmp_path / "é frame.png")
    return tmp_path / "é frame.png"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def refused(kind: type[CapsuleEdgeError], *arguments: object) -> str:
    error = call(*arguments).exception
    assert isinstance(error, kind), repr(error)
    assert "\n" not in str(error)
    return str(error)


def in_frame(found: LabelMap, frame: np.ndarray) -> np.ndarray:
    """Return the map enlarged to the frame's pixels, 0 outside the field of view."""
    box = find_field_of_view([frame])
    whole = np.zeros(frame.shape[:2], np.float32)
    grown = cv2.resize(found.map, (box.width, box.height), interpolation=cv2.INTER_LINEAR)
    whole[box.top : box.top + box.height, box.left : box.left + box.width] = grown
    return whole


def planted(label: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return phantom frames, each with the mask of its lesion."""
    found = []
    for seed in SEEDS:
        phantom = Phantom(seed, frames=40, lesions=(PlantedLesion(label, 2.0, 18.0),))
        for index in FRAMES:
            mask = phantom.lesion_mask(index)
            assert mask is not None
            found.append((phantom.render(index), mask))
    return found


@pytest.mark.quick
def test_the_map_covers_the_red_quarter(red: Path) -> None:
    frame = view(red=True)  # red in the upper left quarter of the view
    (first, *_) = explain(open_model(red), frame).labels
    assert first.key == "bleeding"
    assert first.map.shape == (4, 4)
    assert first.map[:2, :2].sum() > 0.95 * first.map.sum()
    assert first.peak is not None
    assert frame[first.peak[1], first.peak[0]].tolist() == [220, 40, 40]


def test_labels_can_be_chosen_and_an_empty_map_has_no_peak(red: Path) -> None:
    found = explain(open_model(red), view(red=True), labels=["normal", "bleeding"]).labels
    assert [one.key for one in found] == ["normal", "bleeding"]
    assert (found[0].map.max(), found[0].peak) == (0, None)
    assert found[0].to_dict()["peak"] is None


@pytest.mark.parametrize("label", ["bleeding", "polyp", "ulcer", "foreign_body"])
def test_the_map_of_a_planted_lesion_covers_it(label: str) -> None:
    """The shipped model's map is stronger on a planted lesion of a phantom than beside it, in the field of view.

    A map unrelated to the lesion has an area under the ROC curve of .5, and is as strong beside the lesion as on it
    (ratio 1).
    """
    model = open_model(SHIPPED)
    areas, ratios = [], []
    for frame, mask in planted(label):
        (found,) = explain(model, frame, labels=[label]).labels
        whole = in_frame(found, frame)
        ratios.append(whole[mask].mean() / whole[~mask].mean())
        seen = frame.max(axis=2) > 0
        areas.append(roc_auc_score(mask[seen], whole[seen]))
    assert np.median(ratios) > 1.5
    assert np.median(areas) > 0.8
    assert min(areas) > 0.65


def randomised(path: Path, seed: int) -> Path:
    """Write the shipped model with the values of every weight tensor shuffled: same shapes, ranges and operators."""
    model = onnx.load(SHIPPED)
    random = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim >= 2:
            shuffled = random.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, path)
    return path


def test_randomised_weights_change_the_map(tmp_path: Path) -> None:
    """Random weights must give other maps (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018).

    A map that stays the same shows the picture and not the model. A random network still responds to edges, with either
    sign. A single map may therefore resemble the true one or its negative (a correlation of -.7 was seen), so the test
    takes the mean over networks and labels.
    """
    shipped = open_model(SHIPPED)
    frames = [frame for frame, _ in planted("polyp")[:4]]
    pixels = np.stack([preprocess(frame, shipped.spec.input) for frame in frames])

    def ranks(model: Backend) -> np.ndarray:
        """Return the rank of each position within its map, (frames, labels, positions)."""
        maps = model.run(pixels).features
        flat = maps.reshape(len(pixels), -1, maps.shape[-1]).transpose(0, 2, 1)
        return np.asarray(flat.argsort(axis=2).argsort(axis=2), float)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        """Return the mean correlation of the maps."""
        pairs = zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), strict=True)
        return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in pairs]))

    true = ranks(shipped)
    assert correlation(true, ranks(open_model(SHIPPED))) == pytest.approx(1)
    found = [
        correlation(true, ranks(open_model(randomised(tmp_path / f"{seed}.onnx", seed)))) for seed in range(6)
    ]
    assert abs(np.mean(found)) < 0.5
    assert max(found) < 0.7


def test_the_command_writes_a_sheet_and_prints_its_labels(red: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    result = call(red, image, image, "--out", out, "--top", 2, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [one["label"] for one in document["images"][0]["labels"]] == ["bleeding", "normal"]
    assert document["images"][0]["labels"][0]["probability"] > 0.9
    assert np.shape(document["images"][0]["labels"][0]["map"]) == (4, 4)
    picture = cv2.imread(str(out))
    # Two rows of three pictures of 224 pixels.
    assert picture.shape[0] > 2 * 224
    assert picture.shape[1] > 3 * 224
    printed = call(red, image, "--out", out).stdout
    assert "bleeding 1.000" in printed
    assert "sheet.png" in printed


def test_an_unreadable_image_is_named_and_the_others_are_explained(
    red: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = call(red, tmp_path / "broken.jpg", image, tmp_path / "absent.png", "--out", tmp_path / "s.png")
    assert result.exit_code == 0
    assert "broken.jpg" in result.stderr
    assert "absent.png" in result.stderr
    assert "é frame.png: bleeding" in result.stdout
    line = refused(InputError, red, tmp_path / "broken.jpg", "--out", tmp_path / "t.png")
    assert "none of the 1 images" in line
    assert not (tmp_path / "t.png").exists()


def test_images_of_every_kind_are_explained(red: Path, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    pil.new("L", (1, 1), 7).save(tmp_path / "1x1.png")
    pil.new("RGBA", (40, 30), (200, 10, 10, 0)).save(tmp_path / "rgba.png")
    pil.new("CMYK", (40, 30), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    cv2.imencode(".png", np.full((30, 40, 3), 0x80FF, np.uint16))[1].tofile(tmp_path / "deep.png")
    exif = pil.Exif()
    exif[0x0112] = 6
    pil.fromarray(view(red=True)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    names = ["1x1.png", "rgba.png", "cmyk.jpg", "deep.png", "turned.jpg"]
    result = call(red, *(tmp_path / name for name in names), "--out", tmp_path / "s.png", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["skipped"] == []
    best = {Path(one["file"]).name: one["labels"][0] for one in document["images"]}
    assert {name: best[name]["label"] for name in names} == {
        "1x1.png": "normal",
        "rgba.png": "bleeding",
        "cmyk.jpg": "bleeding",
        "deep.png": "normal",
        "turned.jpg": "bleeding",
    }
    # Turned a quarter clockwise, the upper left becomes the upper right.
    strongest = np.array(best["turned.jpg"]["map"])
    assert strongest[:2, 2:].sum() > 0.95 * strongest.sum()


def test_bad_input_is_refused_in_one_line(red: Path, image: Path, tmp_path: Path) -> None:
    assert "normal, bleeding, polyp" in refused(UsageError, red, image, "--label", "worms")
    assert "no RUN folder" in refused(UsageError, red, image, "--layers")
    assert "absent" in refused(ModelError, tmp_path / "absent.onnx", image)
    assert "metadata" in refused(ModelError, write_tiny_model(tmp_path / "b.onnx", metadata=False), image)
    assert "allowed are 200" in refused(UsageError, red, *[image] * 201)
    assert isinstance(call(red, image, "--out", tmp_path).exception, OutputError)
    assert not list(tmp_path.glob(".*.tmp*"))
    run = tmp_path / "run"
    run.mkdir()
    for option, value in (("--backend", "openvino"), ("--top", 2)):
        assert f"{option} is for model files" in refused(UsageError, run, image, option, value)
    assert "give the folder that 'capsule-edge train' wrote" in refused(InputError, run, image)
    assert call(red, image, "--top", 0).exit_code == 2
    assert call(red).exit_code == 2


def test_an_overlay_changes_nothing_where_the_map_is_zero() -> None:
    picture = np.full((40, 40, 3), 90, np.uint8)
    activation = np.zeros((4, 4), np.float32)
    activation[0, 0] = 1
    laid = overlay(picture, activation)
    assert (laid[20:, 20:] == 90).all()
    assert (laid[2, 2] != 90).any()
    assert (picture == 90).all()


def test_a_grid_shows_the_channels_of_the_largest_deviation_first() -> None:
    features = np.zeros((8, 8, 40), np.float32)
    features[4:, :, 7] = 5
    features[:4, :, 9] = 1
    grid = channel_grid(features, most=16, columns=8, side=16)
    assert grid.shape == (2 * 18, 8 * 18, 3)
    assert grid[:16, :16][12, 8].tolist() == [255] * 3  # channel 7: its lower half
    assert grid[:16, 18:34][2, 8].tolist() == [255] * 3  # channel 9: its upper half
    assert (grid[:16, 36:52] == 0).all()  # a constant channel


@pytest.mark.quick
def test_a_sheet_shows_every_tile_completely() -> None:
    tile = Tile(np.full((30, 50, 3), 7, np.uint8), "a caption far longer than its picture is wide")
    paper = sheet([("first", [tile, tile]), ("second é", [tile])])
    assert (paper == 7).all(axis=2).sum() >= 3 * 30 * 50
    assert sheet([]).size > 0


def test_all_labels_of_the_model_are_explained(red: Path) -> None:
    found: Any = explain(open_model(red), view(red=False), top=99).labels
    assert {one.key for one in found} == set(LABELS)
