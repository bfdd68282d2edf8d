"""``evaluate``, ``compare`` and ``info`` as a user calls them, on a tiny model and frames labelled with its answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from red_model import write_exam, write_red_model
from tiny_model import LABELS, tiny_spec, write_tiny_model

from capsule_edge.cli._printing import macro_f1_change
from capsule_edge.cli.compare import command as compare
from capsule_edge.cli.evaluate import command as evaluate
from capsule_edge.cli.info import command as info
from capsule_edge.evaluation.classification import load_predictions
from capsule_edge.evaluation.parity import parity_summary
from capsule_edge.evaluation.parity.certificate import schema_path
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, ModelError, OutputError, UsageError
from capsule_edge.runtime.inference import INSTALLED, NOT_STATED, HeldOutBy, open_model
from capsule_edge.runtime.preprocessing import preprocess

FRAMES = 120
KEYS = {
    "accuracy",
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "balanced_accuracy",
    "mean_auc",
    "mcc",
    "per_class",
    "normal_vs_abnormal",
    "confidence_intervals",
    "confusion",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "a.onnx")


@pytest.fixture(scope="module")
def frames(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of one colour, labelled with the model's answer, every twentieth with another; half are ``val``."""
    root = tmp_path_factory.mktemp("frames")
    opened = open_model(model)
    random = np.random.default_rng(0)
    rows = []
    for i in range(FRAMES):
        frame = np.full((32, 32, 3), random.integers(40, 255, 3), np.uint8)
        cv2.imencode(".png", frame[..., ::-1])[1].tofile(root / f"{i}.png")
        answer = int(opened.run(preprocess(frame, opened.spec.input)[None]).probabilities.argmax())
        label = LABELS[(answer + (i % 20 == 0)) % 3]
        rows.append([f"{i}.png", label, "AB"[i % 3 == 0], f"v{i // 2 % 5}", i, "val" if i % 2 else "train"])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "source", "video_id", "frame_number", "split"], *rows])
    return root


def call(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def refused(command: Any, kind: type[CapsuleEdgeError], *arguments: object) -> str:
    """Check that the command raises an error of this kind, and return the line that is printed for it."""
    error = call(command, *arguments).exception
    assert isinstance(error, kind), repr(error)
    assert "\n" not in str(error)
    return str(error)


def documents(result: Result, exit_code: int = 0) -> dict[str, Any]:
    assert result.exit_code == exit_code, result.output
    return dict(json.loads(result.stdout))


def test_evaluate_prints_one_document_with_the_published_keys(model: Path, frames: Path) -> None:
    document = documents(call(evaluate, model, "--data", frames, "--split", "all", "--json"))
    assert document.keys() >= KEYS
    assert document["frames"] == FRAMES
    # Every twentieth frame is labelled with another class than the model's answer.
    assert document["accuracy"] == pytest.approx(1 - 1 / 20)
    assert document["videos"] == 5
    assert document["model"]["sha256"] == open_model(model).sha256
    assert set(document["precision"]) == {"macro", "micro", "weighted"}
    assert set(document["per_source"]) == {"A", "B"}


def test_evaluate_takes_val_unless_another_split_is_given(model: Path, frames: Path) -> None:
    document = documents(call(evaluate, model, "--data", frames, "--json", "--resamples", 50))
    assert (document["frames"], document["data"]["split"]) == (FRAMES // 2, "val")
    assert document["accuracy"] == 1  # the wrong labels are all on even rows, which are ``train``


def test_evaluate_prints_tables_for_people(model: Path, frames: Path) -> None:
    result = call(evaluate, model, "--data", frames, "--resamples", 50)
    assert result.exit_code == 0
    for word in ("macro_f1", "mean_pr_auc", "majority", "bleeding", "split val: 60 frames of 5 videos"):
        assert word in result.stdout
    # The frames' five videos are on both sides.
    assert result.stderr.startswith("warning: 5 videos of val (60 frames) are in another split too")
    assert result.stderr.count("\n") == 1
    assert call(evaluate, model, "--data", frames, "--resamples", 0, "--split", "all").stderr == ""


def test_saved_predictions_are_the_models_answers(model: Path, frames: Path, tmp_path: Path) -> None:
    result = call(evaluate, model, "--data", frames, "--save-predictions", tmp_path / "p.csv", "--json")
    saved = load_predictions(tmp_path / "p.csv")
    assert len(saved) == documents(result)["frames"]
    opened = open_model(model)
    frame = cv2.cvtColor(cv2.imread(str(frames / saved.files[3])), cv2.COLOR_BGR2RGB)
    answer = opened.run(preprocess(np.asarray(frame, np.uint8), opened.spec.input)[None])
    # One frame alone and 32 together may be summed in another order.
    assert saved.probabilities[3] == pytest.approx(answer.probabilities[0], abs=1e-5)


def test_a_corrupt_image_is_named_skipped_and_counted(model: Path, tmp_path: Path) -> None:
    for i, label in enumerate(LABELS):
        (tmp_path / label).mkdir()
        frame = np.full((32, 32, 3), 60 * (i + 1), np.uint8)
        cv2.imencode(".png", frame)[1].tofile(tmp_path / label / "good.png")
    (tmp_path / "polyp" / "broken.jpg").write_bytes(b"no picture")
    result = call(evaluate, model, "--data", tmp_path, "--json")
    document = documents(result)
    assert document["skipped"] == ["polyp/broken.jpg"]
    assert document["frames"] == 3
    assert result.stderr.count("polyp/broken.jpg") == 1
    assert "1 frames could not be read" in call(evaluate, model, "--data", tmp_path).stdout


def test_images_of_odd_shapes_are_measured(model: Path, tmp_path: Path) -> None:
    (tmp_path / "normal").mkdir()
    for name, shape, kind in (
        ("1x1", (1, 1, 3), np.uint8),
        ("deep", (40, 20, 3), np.uint16),
        ("g", (9, 9), np.uint8),
    ):
        cv2.imencode(".png", np.full(shape, 99, kind))[1].tofile(tmp_path / "normal" / f"{name}.png")
    document = documents(call(evaluate, model, "--data", tmp_path, "--json"))
    assert (document["frames"], document["skipped"], document["mean_auc"]) == (3, [], None)


def test_data_falls_back_to_the_environment(
    model: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPSULE_EDGE_DATA", raising=False)
    assert "--data DIR" in refused(evaluate, UsageError, model)
    (tmp_path / "capsule-vision").symlink_to(frames, target_is_directory=True)
    monkeypatch.setenv("CAPSULE_EDGE_DATA", str(tmp_path))
    assert documents(call(evaluate, model, "--json", "--resamples", 0))["frames"] == FRAMES // 2


def test_bad_input_is_one_line(model: Path, frames: Path, tmp_path: Path) -> None:
    assert "absent" in refused(evaluate, ModelError, tmp_path / "absent.onnx", "--data", frames)
    assert "nowhere" in refused(evaluate, InputError, model, "--data", tmp_path / "nowhere")
    assert "train, val" in refused(evaluate, UsageError, model, "--data", frames, "--split", "test")
    other = write_tiny_model(tmp_path / "two.onnx", labels=("normal", "bleeding"))
    line = refused(evaluate, InputError, other, "--data", frames)
    assert "polyp" in line
    assert "normal, bleeding" in line
    bare = write_tiny_model(tmp_path / "bare.onnx", metadata=False)
    assert "capsule_edge" in refused(evaluate, ModelError, bare, "--data", frames)
    (tmp_path / "broken" / "normal").mkdir(parents=True)
    (tmp_path / "broken" / "normal" / "a.png").write_bytes(b"")
    assert "none of the 1 frames" in refused(evaluate, InputError, model, "--data", tmp_path / "broken")


def test_a_missing_extra_is_one_line(model: Path, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capsule_edge.evaluation._extras.find_spec", lambda name: None)
    for command, arguments in ((evaluate, [model]), (compare, [model, model])):
        line = refused(command, CapsuleEdgeError, *arguments, "--data", frames)
        assert "pip install 'capsule-edge[eval]'" in line
    assert call(info, model).exit_code == 0  # needs no extra


def test_compare_of_a_model_with_itself(model: Path, frames: Path, tmp_path: Path) -> None:
    result = call(compare, model, model, "--data", frames, "--json", "--out", tmp_path / "out")
    document = documents(result)
    assert "warning: A and B are the same file, so this says nothing about quantisation" in result.stderr
    assert "A and B are the same file" in (tmp_path / "out" / "a.onnx.shipping.md").read_text()
    assert document.keys() >= {"agreement", "macro_f1_delta", "per_class", "max_abs_dp", "mcnemar", "verdict"}
    assert (document["agreement"], document["max_abs_dp"]) == (1.0, 0.0)
    assert document["verdict"] == "undecided"  # 60 frames are too few for any class
    written = json.loads((tmp_path / "out" / "a.onnx.shipping.json").read_text())
    assert written == document
    assert (tmp_path / "out" / "a.onnx.shipping.html").is_file()


def test_an_earlier_report_is_replaced_only_with_overwrite(model: Path, frames: Path, tmp_path: Path) -> None:
    for command, models, sign in (
        (evaluate, [model], "evaluation.json"),
        (compare, [model, model], "a.onnx.shipping.json"),
    ):
        out = tmp_path / sign
        arguments = [*models, "--data", frames, "--resamples", 0, "--out", out]
        out.mkdir()
        (out / sign).write_text("mine")
        line = refused(command, OutputError, *arguments)
        assert line == f"{out} already holds {sign} (choose another --out, or pass --overwrite)"
        assert (out / sign).read_text() == "mine"
        assert call(command, *arguments, "--overwrite").exit_code == 0
        assert json.loads((out / sign).read_text())["data"]["split"] == "val"
        (tmp_path / "file").write_text("")
        assert "a file is in its place" in refused(command, OutputError, *arguments[:-1], tmp_path / "file")
    # Certificates of other models and kinds lie side by side.
    other = write_tiny_model(tmp_path / "b.onnx")
    again = call(compare, model, other, "--data", frames, "--resamples", 0, "--out", out)
    assert again.exit_code == 0
    assert len(list(out.glob("*.shipping.json"))) == 2


def test_compare_ends_in_4_when_a_gate_fails(model: Path, frames: Path, tmp_path: Path) -> None:
    worse = write_tiny_model(tmp_path / "worse.onnx", noise=1.0, precision="int8")
    arguments = (model, worse, "--data", frames, "--resamples", 50)
    result = call(compare, *arguments, "--json")
    document = documents(result, exit_code=4)
    assert document["verdict"] == "fail"
    assert document["models"]["b"]["precision"] == "int8"
    printed = call(compare, *arguments)
    assert printed.exit_code == 4
    assert "became" in printed.stdout
    assert printed.stdout.rstrip().endswith("verdict: fail")


def test_compare_counts_the_events_that_both_find(frames: Path, tmp_path: Path) -> None:
    red, exam = write_red_model(tmp_path / "red.onnx"), write_exam(tmp_path / "exam.mp4")
    arguments = (red, red, "--data", frames, "--resamples", 0, "--recording", exam, "--recording", exam)
    document = documents(call(compare, *arguments, "--json"))
    # The same recording twice is two recordings, with one event each.
    assert document["events"] == {
        "iou": 0.5, "a": 2, "b": 2, "matched": 2, "agreement": 1.0, "recordings": 2
    }  # fmt: skip
    Draft202012Validator(json.loads(schema_path().read_text())).validate(document)
    assert "both 2" in call(compare, *arguments).stdout
    assert "absent.mp4" in refused(
        compare, InputError, red, red, "--data", frames, "--recording", tmp_path / "absent.mp4"
    )
    table = tmp_path / "p.csv"
    call(evaluate, red, "--data", frames, "--save-predictions", table, "--resamples", 0)
    assert "no recordings" in refused(compare, UsageError, table, red, "--data", frames, "--recording", exam)


def test_compare_with_a_table_certifies_the_conversion(model: Path, frames: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    call(evaluate, model, "--data", frames, "--save-predictions", table, "--resamples", 0)
    document = documents(call(compare, table, model, "--data", frames, "--json"))
    assert (document["kind"], document["verdict"], len(document["gates"])) == ("conversion", "pass", 1)
    line = refused(compare, InputError, table, model, "--data", frames, "--split", "train")
    assert "60 of 60" in line
    header, first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([header, first.replace("1.png", "lost.png"), *rest]) + "\n")
    assert "lost.png" in refused(compare, InputError, table, model, "--data", frames)


def test_models_that_cannot_be_compared_are_named(model: Path, frames: Path, tmp_path: Path) -> None:
    def against(**fields: Any) -> str:
        return refused(
            compare, InputError, model, write_tiny_model(tmp_path / "b.onnx", **fields), "--data", frames
        )

    assert "normal, bleeding, ulcer" in against(labels=("normal", "bleeding", "ulcer"))
    assert "bleeding, normal, polyp" in against(labels=("bleeding", "normal", "polyp"))
    assert "size is 32 in A and 64 in B" in against(size=64)


def test_missing_intervals_and_absent_classes_are_reported(model: Path, frames: Path, tmp_path: Path) -> None:
    header, *rows = (frames / "labels.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]

    def compared(videos: Sequence[str], label: str = "") -> Result:
        root = tmp_path / "-".join(["data", *videos])
        root.mkdir()
        kept = [
            ",".join([str(frames / file), name, source, videos[i // 2 % len(videos)], *rest])
            for i, (file, name, source, _, *rest) in enumerate(cells)
            if name != label
        ]
        (root / "labels.csv").write_text("\n".join([header, *kept]) + "\n")
        result = call(compare, model, model, "--data", root, "--out", root / "out", "--resamples", 50)
        document = json.loads((root / "out" / "a.onnx.shipping.json").read_text())
        Draft202012Validator(json.loads(schema_path().read_text())).validate(document)
        assert document["verdict"] == "undecided"
        reason = document["bootstrap"]["reason"]
        if reason is None:
            return result
        assert document["macro_f1"]["interval"] is None
        assert f"no intervals: {reason}" in result.stdout
        assert f"without intervals: {reason}" in (root / "out" / "a.onnx.shipping.md").read_text()
        return result

    assert "no intervals: all frames are of one video\n" in compared(["v"]).stdout
    assert "no intervals: 30 of 60 frames name no video\n" in compared(["v", ""]).stdout
    assert "no intervals" not in compared(["v", "w"]).stdout
    absent = compared(["v", "w", "x"], label="polyp").stdout
    assert "no frame of polyp: averages are over the other classes\n" in absent


def test_a_table_of_other_videos_is_refused(model: Path, frames: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    call(evaluate, model, "--data", frames, "--save-predictions", table, "--resamples", 0)
    text = table.read_text()
    table.write_text(text.replace("\n1.png,v0,", "\n1.png,v7,"))
    assert "1.png is of v7 in A and of v0 in B" in refused(
        compare, InputError, table, model, "--data", frames
    )
    table.write_text(text.replace("\n1.png,v0,", "\n1.png,,"))
    assert "of no video in A and of v0 in B" in refused(compare, InputError, table, model, "--data", frames)


def test_a_run_folder_is_refused_with_the_way_to_export_it(model: Path, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    line = refused(evaluate, ModelError, tmp_path, "--data", frames)
    assert f"capsule-edge export {tmp_path} --out DIR" in line
    assert "installed model" in refused(evaluate, ModelError, frames, "--data", frames)


def test_info_says_what_the_file_is_and_that_it_has_no_certificate(model: Path) -> None:
    document = documents(call(info, model, "--json"))
    assert document["certificate"] is None
    assert document["spec"]["labels"][0]["key"] == "normal"
    printed = call(info, model).stdout
    assert "certificate: none" in printed
    assert "Not a medical device" in printed


def test_info_says_that_patients_are_unknown_and_what_the_owner_did_not_state(tmp_path: Path) -> None:
    nameless = {"training_frames_without_video": 9}
    old = write_tiny_model(tmp_path / "old.onnx", schema="capsule-edge/model/1", provenance=nameless)
    new = write_tiny_model(tmp_path / "new.onnx", license=NOT_STATED, held_out=HeldOutBy("frame"))
    document = documents(call(info, old, "--json"))
    assert document["unknown_patients"] == "patients unknown: no training frame names its video"
    assert document["spec"]["schema"] == "capsule-edge/model/1"
    assert [document["spec"][name] for name in ("held_out", "familiarity", "reference", "suggestions")] == [
        None
    ] * 4
    assert document["spec"]["input"]["preprocessing"] is None
    printed = " ".join(call(info, new).stdout.split())
    assert "held out by frame; patients unknown: frames were held out one by one" in printed
    assert "license not stated" in printed
    assert "data license not stated" in printed


def test_info_shows_the_certificates_summary(model: Path, frames: Path, tmp_path: Path) -> None:
    certificate = documents(call(compare, model, model, "--data", frames, "--json"))
    proven = write_tiny_model(tmp_path / "proven.onnx", parity=parity_summary(certificate))
    assert documents(call(info, proven, "--json"))["certificate"]["shipping"]["verdict"] == "undecided"
    printed = call(info, proven).stdout
    assert "certificate (shipping): undecided, agreement 1.0000, macro-F1 lost by FP32: 0.0000" in printed
    assert "sensitivity_loss.polyp" in printed
    assert certificate["models"]["a"]["sha256"] in printed


@pytest.mark.quick
@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (-0.00131, "lost by INT8: 0.0013"),
        (0.0, "lost by INT8: 0.0000"),
        (0.02, "gained by INT8: 0.0200"),
        (None, "lost by INT8: -"),
    ],
)
def test_a_change_of_macro_f1_says_which_way_it_goes(delta: float | None, words: str) -> None:
    assert macro_f1_change(delta) == f"macro-F1 {words}"


@pytest.mark.quick
def test_info_without_a_model_shows_the_standard_one() -> None:
    document = documents(call(info, "--json"))
    assert document["file"] == INSTALLED["standard"]
    assert document["spec"]["name"] == "capsule-edge-standard"
    assert documents(call(info, "small", "--json"))["file"] == INSTALLED["small"]
    printed = call(info).stdout
    assert "certificate (shipping): " in printed
    delta = document["certificate"]["shipping"]["macro_f1_delta"]
    assert f", {macro_f1_change(delta)}, " in printed


def test_a_spec_of_the_tiny_model_survives_its_file(model: Path) -> None:
    labels: Sequence[str] = LABELS
    assert open_model(model).spec == tiny_spec(labels)


def test_models_in_the_wrong_order_are_refused(call, tmp_path: Path) -> None:
    """A loss would count as a gain."""
    fp32 = write_tiny_model(tmp_path / "fp32.onnx")
    int8 = write_tiny_model(tmp_path / "int8.onnx", precision="int8", gain=2.0)
    called = call("compare", int8, fp32, "--data", tmp_path)
    assert (called.code, called.out) == (2, "")
    assert "int8.onnx is INT8 and fp32.onnx FP32 (give the FP32 model first" in called.err


def test_a_pair_that_says_nothing_about_quantisation_is_named(
    model: Path, frames: Path, tmp_path: Path
) -> None:
    options = ("--data", frames, "--resamples", 0)
    other = write_tiny_model(tmp_path / "other.onnx", noise=0.01)
    assert "warning: A and B are both FP32, so" in call(compare, model, other, *options).stderr
    int8 = write_tiny_model(tmp_path / "int8.onnx", precision="int8")
    assert "warning: A and B" not in call(compare, model, int8, *options).stderr
    engines = call(compare, model, model, *options, "--int8-backend", "openvino").stderr
    assert "are the same file, with onnxruntime and with openvino, so" in engines


def test_models_swapped_against_their_certificate_are_refused(frames: Path, tmp_path: Path) -> None:
    fp32 = write_tiny_model(tmp_path / "fp32.onnx", precision="int8")
    summary = {"verdict": "pass", "against_sha256": open_model(fp32).sha256}
    int8 = write_tiny_model(tmp_path / "int8.onnx", precision="int8", parity={"shipping": summary})
    line = refused(compare, UsageError, int8, fp32, "--data", frames)
    assert "int8.onnx was certified against fp32.onnx (give the FP32 model first" in line
    line = refused(compare, UsageError, fp32, tmp_path / "answers.csv", "--data", frames)
    assert "is a table of predictions in the place of the INT8 model (give the table first" in line
