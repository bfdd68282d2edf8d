"""The page of a comparison shows frames of the recordings and maps of both models, or says why it cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import browser
import numpy as np
import pytest
from paths import TESTS
from red_model import view, write_exam, write_red_model

pytest.importorskip("pyarrow")

from capsule_edge.archive.compare import (
    choose_models,
    compare_archives,
    illustrate_differences,
    render_comparison,
)
from capsule_edge.archive.compare.difference_pictures import trace_contour
from capsule_edge.archive.engines import ProcessEngine
from capsule_edge.archive.reading import ReadSetup, perform, read_archive, tool_hash
from capsule_edge.archive.sources import list_recordings
from capsule_edge.runtime import Reader
from capsule_edge.runtime.inference import OperatingPoint

CONTRAST = (TESTS / "contrast.js").read_text("utf-8")
SHARED = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models, of which the new one wants more red, and two recordings, of which one has a little red."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "recordings").mkdir()
    point = {"sensitivity": None, "specificity": None, "measured_on": None, "provisional": True}

    def points(threshold: float) -> dict[str, OperatingPoint]:
        return {"bleeding": OperatingPoint(threshold=threshold, **point)}

    pale = view(False)
    pale[40:60, 60:80, 0] = 200
    faint = dict.fromkeys(range(20, 32), pale)
    return {
        "old": write_red_model(folder / "old.onnx", operating_points=points(0.03)),
        "new": write_red_model(folder / "new.onnx", operating_points=points(0.9), version="2"),
        "red": write_exam(folder / "recordings" / "red.mp4"),
        "faint": write_exam(folder / "recordings" / "faint.mp4", red=(), instead=faint),
        "folder": folder,
    }


@pytest.fixture(scope="module")
def read_once(files: dict[str, Path]) -> dict[str, Path]:
    """The two recordings, read with each of the models."""
    archives = {}
    for name in ("old", "new"):
        out = files["folder"] / f"archive-{name}"
        with Reader.open(files[name], threads=1) as reader:
            sha256, engine = reader.model_sha256, reader.backend_name
        setup = ReadSetup(
            out=out, model=str(files[name]), model_sha256=sha256, backend=engine, options={}, tool=tool_hash()
        )
        outcome = read_archive(
            setup,
            lambda: list_recordings([str(files["folder"] / "recordings")]),
            lambda setup=setup: ProcessEngine(perform, setup, workers=1),
        )
        assert outcome.read == 2
        archives[name] = out
    return archives


@pytest.fixture
def archives(read_once: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies that a test may damage."""
    return shutil.copytree(read_once["old"], tmp_path / "old"), shutil.copytree(
        read_once["new"], tmp_path / "new"
    )


def test_a_difference_is_shown_with_the_frame_and_the_maps_of_both_models(
    archives: tuple[Path, Path], files: dict[str, Path]
) -> None:
    models = choose_models((str(files["old"]), str(files["new"])))
    comparison = compare_archives(*archives, models=models)
    (difference,) = comparison.differences
    assert (Path(difference.pair.row.recording).name, difference.match.kinds) == ("faint.mp4", ("only_old",))
    (picture,) = illustrate_differences(comparison.differences, models)
    for side in (picture.old, picture.new):
        assert side.index in range(20, 32)
        assert side.label == "bleeding"
        assert side.shot is not None
        assert side.shot.uri.startswith("data:image/jpeg;base64,")
        assert side.contour.startswith("M")
        assert side.note == ""
    # The same network with another threshold: the same evidence.
    assert picture.old.contour == picture.new.contour
    assert picture.old.probability is not None
    assert 0.03 <= picture.old.probability < 0.9
    # The red lies left of and above the middle of the picture.
    points = np.array(re.findall(r"([\d.]+),([\d.]+)", picture.old.contour), float)
    assert points.mean(axis=0).max() < 60
    page = render_comparison(comparison, [picture])
    assert page.count("<image href=") == 2
    assert picture.curve is not None
    assert f'points="{picture.curve.old}"' in page


def test_without_the_file_of_a_model_the_page_says_so(archives: tuple[Path, Path]) -> None:
    comparison = compare_archives(*archives)
    (picture,) = illustrate_differences(comparison.differences)
    assert picture.old.shot is not None
    assert picture.old.contour == ""
    page = render_comparison(comparison, [picture])
    assert "the model file is not installed" in page


@pytest.mark.parametrize("what", ["gone", "changed", "broken"])
def test_a_recording_that_is_gone_or_changed_gives_no_picture_and_the_page_says_so(
    what: str, archives: tuple[Path, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    kept = shutil.copy(files["faint"], tmp_path / "kept.mp4")
    try:
        if what == "gone":
            files["faint"].unlink()
        elif what == "changed":
            shutil.copy(files["red"], files["faint"])
        else:
            # The same size and time, other bytes: the decoder finds out.
            state = files["faint"].stat()
            files["faint"].write_bytes(bytes(state.st_size))
            os.utime(files["faint"], ns=(state.st_atime_ns, state.st_mtime_ns))
        comparison = compare_archives(*archives)
        (picture,) = illustrate_differences(comparison.differences)
    finally:
        shutil.copy2(kept, files["faint"])
    assert picture.old.shot is None
    assert picture.new.shot is None
    words = {"gone": "is gone", "changed": "changed after it was read", "broken": "No picture: "}[what]
    assert words in picture.old.note
    # The probabilities are those of the results, so they are there.
    assert picture.old.probability is not None
    page = render_comparison(comparison, [picture])
    assert words in page
    assert "<image" not in page


def test_a_recording_that_moved_to_another_time_is_compared_by_its_bytes(
    archives: tuple[Path, Path], files: dict[str, Path]
) -> None:
    os.utime(files["faint"], (1, 1))
    (picture,) = illustrate_differences(compare_archives(*archives).differences)
    assert picture.old.shot is not None


def test_a_lost_table_of_frames_takes_the_curve_and_leaves_the_picture(
    archives: tuple[Path, Path], files: dict[str, Path]
) -> None:
    for archive in archives:
        for path in archive.glob("results/*/*/frames.csv"):
            path.unlink()
    comparison = compare_archives(*archives)
    (picture,) = illustrate_differences(comparison.differences)
    assert picture.old.shot is not None
    assert (picture.old.probability, picture.curve) == (None, None)
    assert "no answer for bleeding" in render_comparison(comparison, [picture])


def test_a_contour_surrounds_the_half_of_the_strongest_evidence() -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = 1
    points = np.array(re.findall(r"([\d.]+),([\d.]+)", trace_contour(values)), float)
    # The cell lies from 50 to 75 across and from 25 to 50 down. The map falls to 0 one cell further, so the line at
    # one half is as wide as the cell.
    assert points.min(axis=0) == pytest.approx([50, 25], abs=2)
    assert points.max(axis=0) == pytest.approx([75, 50], abs=2)
    assert trace_contour(np.zeros((4, 4), np.float32)) == ""


@pytest.mark.skipif(not browser.AVAILABLE, reason=browser.WHY_NOT)
def test_the_page_makes_no_request_and_breaks_no_rule_of_its_policy(
    archives: tuple[Path, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    models = choose_models((str(files["old"]), str(files["new"])))
    comparison = compare_archives(*archives, models=models)
    page = tmp_path / "comparison.html"
    page.write_text(render_comparison(comparison, illustrate_differences(comparison.differences, models)))
    with browser.browse(("--window-size=1200,900",)) as shown:
        shown.requests()
        shown.open(page)
        assert shown.js("return document.querySelectorAll('svg.picture image').length") == 2
        size = shown.js(
            "const box = document.querySelector('svg.picture').getBoundingClientRect();"
            "return [box.width, box.height]"
        )
        assert size[0] == pytest.approx(size[1], abs=1)
        assert size[0] > 150
        # The style of the page is in force, so its policy lets it pass.
        assert shown.js("return getComputedStyle(document.querySelector('.difference')).display") == "flex"
        for width in (1200, 420):
            shown.size(width, 900)
            assert shown.js("return document.documentElement.scrollWidth - innerWidth") <= 0
        for scheme in ("light", "dark"):
            shown.media(scheme=scheme)
            assert shown.js(CONTRAST) == []
        assert shown.complaints() == []
        # The browser's own page of new tabs makes requests of its own kinds.
        asked = [
            address for address in shown.requests() if address.startswith(("file:", "http", "ws", "ftp"))
        ]
        assert asked == [page.absolute().as_uri()]


@pytest.mark.skipif(not SHARED.is_dir(), reason="CAPSULE_EDGE_DATA does not name the shared data")
def test_standard_against_small_on_a_real_recording(tmp_path: Path, call) -> None:
    """Its first finding, an angioectasia, is hit by the standard model; the small one calls it an erosion."""
    name = "eb0203196e284797"
    for model in ("standard", "small"):
        read = call(
            *("archive", "read", SHARED / f"{name}.mp4", "--out", tmp_path / model),
            *("--model", model, "--workers", 1),
        )
        assert read.code == 0, read.err
    out = tmp_path / "out"
    shown = call(
        "archive",
        "compare",
        tmp_path / "standard",
        tmp_path / "small",
        "--truth",
        SHARED,
        "--out",
        out,
        "--json",
    )
    assert shown.code == 0, shown.err
    document = json.loads((out / "comparison.json").read_text("utf-8"))
    hits = {
        (one["label"], one["first_index"]): (one["hit_old"], one["hit_new"])
        for one in document["truth"]["findings"]
    }
    assert hits["angioectasia", 7] == (True, False)
    labels = [
        (one["old"]["label"], one["new"]["label"])
        for one in document["differences"]
        if "label" in one["kinds"]
    ]
    assert ("angioectasia", "erosion") in labels
    page = (out / "comparison.html").read_text("utf-8")
    assert page.count("<image href=") == 2 * len(document["differences"])
    assert page.count('class="over"') == page.count("<image href=")
