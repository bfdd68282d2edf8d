"""``run --demo``: the planted lesions are found in time, a clean phantom has no event, and a second run says so."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import pytest
from cli_calls import check_refused, interrupt_reading
from click.testing import CliRunner
from red_model import write_red_model
from study_samples import make_study

from capsule_edge.cli._demo import match_planted
from capsule_edge.cli.run import command
from capsule_edge.runtime import CapsuleEdgeError, Reader, phantom
from capsule_edge.runtime.inference import INSTALLED
from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording
from capsule_edge.runtime.phantom.recording import PlantedLesion
from capsule_edge.runtime.recording import scan
from capsule_edge.runtime.results.files import FILES, study_document


@pytest.fixture(scope="module")
def reader():
    with Reader.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def demo(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The demo as a user runs it: its folder and its JSON. No test changes the folder."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(command, ["--demo", "--json", "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    return folder, json.loads(result.stdout)


def test_every_planted_lesion_is_found_in_time(demo: tuple[Path, dict]) -> None:
    planted = demo[1]["planted"]
    assert len(planted) == 4
    # Probabilities are smoothed over 16 s, so the event of a lesion of 18 to 22 s may be twice as long as the lesion.
    assert {entry["label"]: entry["iou"] for entry in planted if entry["iou"] < 0.4} == {}


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the recording is read again")

    monkeypatch.setattr(Reader, "read", refuse)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_run_says_that_the_demo_was_read_already(demo: tuple[Path, dict], no_reading: None) -> None:
    folder, document = demo
    before = contents(folder)
    again = CliRunner().invoke(command, ["--demo", "--out", str(folder)], catch_exceptions=False)
    assert (again.exit_code, again.stderr) == (0, "")
    assert "the demo was read already" in again.stdout
    assert f"report: {folder / 'report.html'}" in again.stdout
    for entry in document["planted"]:
        assert entry["label"] in again.stdout
    as_json = CliRunner().invoke(command, ["--demo", "--json", "--out", str(folder)], catch_exceptions=False)
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, document)
    assert contents(folder) == before


@pytest.mark.parametrize("options", [("--model", "small"), ("--every", "2")])
def test_a_demo_of_another_model_or_option_is_refused(
    call, demo: tuple[Path, dict], options: tuple[str, str], no_reading: None
) -> None:
    folder, _ = demo
    before = contents(folder)
    refused = call("run", "--demo", "--out", folder, *options)
    check_refused(refused, 1, f"{folder} holds a whole study of another recording, model, version or options")
    assert "replace it with --overwrite, or choose another --out" in refused.err
    assert contents(folder) == before


def test_the_demo_says_what_it_does_not_show(demo: tuple[Path, dict], reader: Reader) -> None:
    trained_on = reader.spec.provenance["phantom_frames"]
    assert demo[1]["planted_note"].startswith(
        f"{trained_on:,} frames of such phantoms are in this model's training"
    )


def test_the_demo_uses_the_operating_points_of_the_model(demo: tuple[Path, dict], reader: Reader) -> None:
    rules = demo[1]["recordings"][0]["study"]["rules"]
    points = {
        label: pytest.approx(p.threshold, abs=1e-6) for label, p in reader.spec.operating_points.items()
    }
    assert {label: t for label, t in rules["thresholds"].items() if t is not None} == points
    assert rules["min_frames"] == reader.spec.events.min_frames


def test_thresholds_can_be_set_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    write_recording(tmp_path / "short.mp4", Phantom(DEMO_SEED, size=96, frames=6))
    with Reader.open() as reader:
        reader.use_thresholds({"polyp": 0.125})
        with pytest.raises(CapsuleEdgeError, match="no label 'pylorus', allowed is one of angioectasia"):
            reader.use_thresholds({"pylorus": 0.5})
        with pytest.raises(CapsuleEdgeError, match=r"polyp is 1\.5, allowed is above 0 and up to 1"):
            reader.use_thresholds({"polyp": 1.5})
        with pytest.raises(CapsuleEdgeError, match="min_frames is 0, allowed is 1 or more"):
            reader.use_thresholds({}, min_frames=0)
        point = reader.read(tmp_path / "short.mp4").model.operating_points["polyp"]
    assert (point.threshold, point.sensitivity, point.measured_on) == (0.125, None, "set by hand")


def test_nothing_else_is_found(demo: tuple[Path, dict]) -> None:
    _, document = demo
    events = document["recordings"][0]["study"]["events"]
    found = {entry["event"] for entry in document["planted"]}
    assert [event for event in events if event["id"] not in found] == []


def test_the_demo_leaves_its_recording_and_report(demo: tuple[Path, dict]) -> None:
    folder, document = demo
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "phantom.mp4"])
    ledger = document["recordings"][0]["study"]["ledger"]
    assert ledger["classified"] == ledger["container"] == Phantom(DEMO_SEED).frames
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg") >= 4
    assert page.count('data-map="data:image/png') >= 4


def test_a_clean_phantom_has_no_event(reader: Reader, tmp_path: Path) -> None:
    # The demo's own frames without a lesion are tested above. These 80 s include those under its first lesion.
    write_recording(tmp_path / "clean.mp4", Phantom(DEMO_SEED, frames=160).clean())
    assert Phantom(DEMO_SEED).planted[0].end_s < 80
    assert reader.read(tmp_path / "clean.mp4").events == []


def test_the_default_model_answers_alike_in_any_batch(reader: Reader) -> None:
    frames = [Phantom(DEMO_SEED, size=128).render(index) for index in range(80, 90)]
    expected = [answer.probabilities.tobytes() for answer in reader.stream(frames)]
    for batch in (3, 10):
        assert [a.probabilities.tobytes() for a in reader.stream(frames, batch=batch)] == expected


def test_the_small_model_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader.open("small") as opened:
        assert opened.spec.name == "capsule-edge-small"
    with pytest.raises(CapsuleEdgeError, match="an installed model: standard, small"):
        Reader.open("tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()  # an existing path goes before the name of an installed model
    with pytest.raises(CapsuleEdgeError, match="no model file at small"):
        Reader.open("small")


def test_without_a_default_model_the_demo_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(INSTALLED, "standard", "absent.onnx")
    with pytest.raises(CapsuleEdgeError, match="no standard model"):
        CliRunner().invoke(command, ["--demo", "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the demo by one of 20 s: rendering the whole one takes longer than all other tests here."""
    lesions = (PlantedLesion("bleeding", 5.0, 15.0),)
    monkeypatch.setattr(phantom, "Phantom", partial(Phantom, frames=40, size=96, lesions=lesions))


def test_the_demo_with_another_model(short: None, tmp_path: Path) -> None:
    model, out = write_red_model(tmp_path / "red.onnx"), tmp_path / "out"
    arguments = ["--demo", "--model", str(model), "--out", str(out)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "phantom.mp4"])
    assert "bleeding  00:00:05  00:00:15" in result.stdout
    assert "40 frames: 40 classified" in result.stdout
    assert "not how well lesions are found" in result.stdout
    assert "in this model's training" not in result.stdout  # the red model was not trained on phantoms
    result = CliRunner().invoke(command, [*arguments, "--overwrite", "--json"], catch_exceptions=False)
    (planted,) = json.loads(result.stdout)["planted"]
    assert (planted["label"], planted["start_s"], planted["end_s"]) == ("bleeding", 5.0, 15.0)
    assert len(scan(out / "phantom.mp4").packets) == 40
    assert not list(out.glob(".phantom*"))


def test_the_demo_in_its_default_folder_can_be_run_twice(call, short: None, red_model: Path) -> None:
    first = call("run", "--demo", "--model", red_model)
    second = call("run", "--demo", "--model", red_model)
    assert (first.code, second.code, second.err) == (0, 0, "")
    assert "the demo was read already" not in first.out
    assert "the demo was read already" in second.out
    report = Path("capsule-edge-demo/report.html")
    assert f"report: {report}" in first.out
    assert f"report: {report}" in second.out


@pytest.mark.parametrize("name", ["phantom.mp4", "exam.mp4"])
def test_a_folder_with_a_study_of_another_recording_is_refused(
    call, short: None, name: str, red_model: Path, tmp_path: Path
) -> None:
    """A recording of the demo's name, size and length, but of another scene, is not the demo."""
    folder = tmp_path / "out"
    folder.mkdir()
    write_recording(folder / name, Phantom(DEMO_SEED + 1, frames=40, size=96))
    assert call("run", folder / name, "--out", folder, "--model", red_model).code == 0
    before = contents(folder)
    refused = call("run", "--demo", "--out", folder, "--model", red_model)
    check_refused(refused, 1, f"{folder} holds a whole study of another recording")
    assert contents(folder) == before
    assert call("run", "--demo", "--out", folder, "--model", red_model, "--overwrite").code == 0
    assert len(scan(folder / "phantom.mp4").packets) == 40


@pytest.mark.parametrize(
    ("frame", "number", "code", "says"),
    [
        (0, signal.SIGINT, 130, "interrupted"),
        (25, signal.SIGINT, 130, "interrupted"),
        (25, signal.SIGTERM, 143, "interrupted by SIGTERM"),
    ],
)
def test_a_demo_that_is_interrupted_leaves_nothing(
    call,
    frame: int,
    number: signal.Signals,
    code: int,
    says: str,
    short: None,
    red_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupt_reading(monkeypatch, at_frame=frame, number=number)
    called = call("run", "--demo", "--model", red_model)
    assert (called.code, called.out) == (code, "")
    assert called.err.endswith(f"error: {says}, nothing more was written\n")  # and no word of --resume
    assert list(Path.cwd().iterdir()) == []


def test_planted_and_found_are_matched_by_label_and_time() -> None:
    study = make_study(120, [(20, 40, "ulcer", 0.9), (60, 90, "blood_fresh", 0.9)], step_s=1.0)
    event = next(event for event in study.events if event.label == "ulcer")
    lesions = (
        PlantedLesion("ulcer", 20.0, 45.0),
        PlantedLesion("bleeding", 60.0, 80.0),
        PlantedLesion("ulcer", 100.0, 110.0),
    )
    found = match_planted(Phantom(1, frames=240, lesions=lesions), study_document(study)["events"])
    assert [entry["event"] for entry in found] == [event.id, None, None]
    shared = min(event.end_s, 45.0) - max(event.start_s, 20.0)
    union = max(event.end_s, 45.0) - min(event.start_s, 20.0)
    assert found[0]["iou"] == pytest.approx(shared / union, abs=1e-6)
    assert found[0]["iou"] > 0.7
    assert found[1]["iou"] == found[2]["iou"] == 0
