"""The parity certificate: figures worked by hand, every verdict, the schema, and refused comparisons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from capsule_edge.evaluation.classification import Predictions, load_predictions, save_predictions
from capsule_edge.evaluation.parity import certify, parity_summary, with_sha256, write_certificate
from capsule_edge.evaluation.parity.certificate import schema_path, to_html, to_markdown
from capsule_edge.evaluation.recordings import Span, event_agreement
from capsule_edge.runtime.errors import InputError, OutputError

MODELS = {
    "a": {
        "file": "a.onnx",
        "name": "m",
        "version": "1",
        "precision": "fp32",
        "sha256": "a" * 64,
        "backend": "x",
    },
    "b": {
        "file": "b.onnx",
        "name": "m",
        "version": "1",
        "precision": "int8",
        "sha256": "b" * 64,
        "backend": "x",
    },
}
DATA = {"name": "frames", "sha256": "c" * 64, "split": "val"}


def predictions(count: int = 1200, videos: int = 6, classes: int = 2) -> Predictions:
    """Answers that are all right with p = .9; every class has frames in every video."""
    labels = np.arange(count) % classes
    p = np.full((count, classes), 0.1 / max(classes - 1, 1))
    p[np.arange(count), labels] = 0.9
    return Predictions(
        files=tuple(f"{i:04}.png" for i in range(count)),
        labels=labels.astype(np.intp),
        video_ids=tuple(f"v{i // classes % videos}" for i in range(count)),
        sources=(None,) * count,
        probabilities=p.astype(np.float32),
        keys=("normal", "polyp", "ulcer")[:classes],
    )


def flipped(base: Predictions, rows: list[int]) -> Predictions:
    p = base.probabilities.copy()
    p[rows] = p[rows][:, ::-1]
    return replace(base, probabilities=p)


def certificate(a: Predictions, b: Predictions, **more: Any) -> dict[str, Any]:
    document = certify(a, b, **{"kind": "shipping", "models": MODELS, "data": DATA, "resamples": 300, **more})
    Draft202012Validator(json.loads(schema_path().read_text())).validate(document)
    json.dumps(document, allow_nan=False)
    return document


def gates(document: dict[str, Any]) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in document["gates"]}


@pytest.mark.quick
def test_the_same_answers_pass() -> None:
    base = predictions()
    document = certificate(base, base)
    assert document["verdict"] == "pass"
    assert set(gates(document).values()) == {"pass"}
    assert (document["agreement"], document["max_abs_dp"], document["macro_f1_delta"]) == (1.0, 0.0, 0.0)
    assert document["flips"] == []
    assert document["mcnemar"] == {"only_a_right": 0, "only_b_right": 0, "p_value": 1.0}
    assert document["per_class"]["polyp"]["sensitivity"]["interval"] == [0.0, 0.0]


def test_changed_labels_are_counted_and_the_largest_named() -> None:
    base = predictions()
    p = base.probabilities.copy()
    p[1], p[3], p[0] = (0.6, 0.4), (0.99, 0.01), (0.4, 0.6)  # two polyps lost, one normal lost
    document = certificate(base, replace(base, probabilities=p))
    assert [(f["from"], f["to"], f["frames"]) for f in document["flips"]] == [
        ("polyp", "normal", 2),
        ("normal", "polyp", 1),
    ]
    assert [frame["file"] for frame in document["flips"][0]["worst"]] == ["0003.png", "0001.png"]
    assert document["agreement"] == 1 - 3 / 1200
    assert document["max_abs_dp"] == pytest.approx(0.89, abs=1e-6)
    # Both columns of the three frames move: by .5, .89 and .5 of 2,400 probabilities.
    assert document["mean_abs_dp"] == pytest.approx(2 * (0.5 + 0.89 + 0.5) / 2400, rel=1e-5)
    assert document["dp_histogram"]["frames"] == [1197, 0, 0, 0, 0, 0, 0, 0, 3]
    # Three frames that only A gets right: two-sided 2 / 2**3.
    assert document["mcnemar"] == {"only_a_right": 3, "only_b_right": 0, "p_value": pytest.approx(0.25)}
    assert document["per_class"]["polyp"]["sensitivity"]["delta"] == pytest.approx(-2 / 600)
    assert document["per_class"]["polyp"]["specificity"]["delta"] == pytest.approx(-1 / 600)


@pytest.mark.quick
def test_a_class_that_loses_in_every_video_fails_although_the_agreement_passes() -> None:
    # 2 % of the polyps of every video: beyond 1 point in all resamples, but 1 % of the frames.
    base = predictions()
    lost = [i for i in range(1, 1200, 2) if i // 12 in (3, 57)]
    assert len(lost) == 12
    document = certificate(base, flipped(base, lost))
    assert gates(document)["agreement"] == "pass"
    assert gates(document)["sensitivity_loss.polyp"] == "fail"
    assert gates(document)["sensitivity_loss.normal"] == "pass"
    assert document["verdict"] == "fail"
    assert document["per_class"]["polyp"]["sensitivity"]["interval"] == pytest.approx([-0.02, -0.02])


def test_a_class_that_loses_in_one_video_is_undecided() -> None:
    base = predictions()
    document = certificate(base, flipped(base, [1 + 12 * i for i in range(5)]))  # 5 of 600, all of one video
    assert gates(document)["macro_f1_loss"] == "pass"
    assert gates(document)["sensitivity_loss.polyp"] == "undecided"
    assert "may lie" in document["per_class"]["polyp"]["reason"]
    assert document["verdict"] == "undecided"


def test_a_gain_passes() -> None:
    base = predictions()
    document = certificate(flipped(base, list(range(1, 1200, 100))), base)
    assert gates(document)["sensitivity_loss.polyp"] == "pass"
    assert document["macro_f1_delta"] > 0


@pytest.mark.parametrize(("count", "videos"), [(198, 6), (1200, 2), (1200, 1)])
def test_few_frames_or_videos_are_always_undecided(count: int, videos: int) -> None:
    base = predictions(count, videos)
    document = certificate(base, base)
    assert gates(document)["sensitivity_loss.polyp"] == "undecided"
    assert "needed are 100 of 3" in document["per_class"]["polyp"]["reason"]
    assert document["verdict"] == "undecided"


def test_one_video_or_unnamed_videos_give_no_interval() -> None:
    base = replace(predictions(), video_ids=(None,) * 1200)
    document = certificate(base, base)
    assert document["data"]["videos"] == 0
    assert document["macro_f1"]["interval"] is None
    assert document["verdict"] == "undecided"


def test_without_resamples_the_classes_are_undecided() -> None:
    base = predictions()
    assert certificate(base, base, resamples=0)["verdict"] == "undecided"


def test_an_absent_class_is_null_and_undecided() -> None:
    base = predictions(classes=3)
    base = base.take(np.flatnonzero(base.labels != 2))
    document = certificate(base, base)
    ulcer = document["per_class"]["ulcer"]
    assert ulcer["sensitivity"] == {"a": None, "b": None, "delta": None, "interval": None}
    assert ulcer["verdict"] == "undecided"
    assert document["macro_f1"]["a"] == 1  # over the classes that are there


def test_the_point_gates_are_exact_at_their_limits() -> None:
    base = predictions(1000, 5)
    assert gates(certificate(base, flipped(base, list(range(10)))))["agreement"] == "pass"  # 99.0 %
    assert gates(certificate(base, flipped(base, list(range(11)))))["agreement"] == "fail"
    # Flips on both sides: the macro-F1 falls with the accuracy, from 1 to 1 - flips / 1000.
    assert gates(certificate(base, flipped(base, list(range(4)))))["macro_f1_loss"] == "pass"
    assert gates(certificate(base, flipped(base, list(range(6)))))["macro_f1_loss"] == "fail"


@pytest.mark.quick
def test_a_conversion_certificate_has_one_gate() -> None:
    base = predictions(2000)
    document = certificate(base, flipped(base, [1, 3]), kind="conversion")
    assert gates(document) == {"agreement": "pass"}  # 99.9 %
    assert document["verdict"] == "pass"
    assert certificate(base, flipped(base, [1, 3, 5]), kind="conversion")["verdict"] == "fail"


def test_frames_in_another_order_are_matched_by_name() -> None:
    base = predictions(40)
    shuffled = base.take(np.random.default_rng(0).permutation(40))
    assert certificate(base, shuffled)["agreement"] == 1.0


def test_answers_that_cannot_be_compared_are_refused_in_one_line() -> None:
    base = predictions(40)
    for other, word in (
        (replace(base, keys=("normal", "ulcer")), "ulcer"),
        (replace(base, keys=("polyp", "normal")), "polyp, normal"),
        (base.take(range(39)), "0039.png"),
        (replace(base, labels=1 - base.labels), "0000.png is labelled normal in A and polyp in B"),
    ):
        with pytest.raises(InputError) as error:
            certificate(base, other)
        assert word in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no labelled frames"):
        certificate(base.take([]), base.take([]))


def test_the_summary_for_the_model_file_names_undecided_and_failed_gates() -> None:
    base = predictions()
    shipping = certificate(base, flipped(base, [1 + 12 * i for i in range(5)]))
    conversion = certificate(base, base, kind="conversion")
    summary = parity_summary(shipping, conversion)
    assert summary["fp32_sha256"] == "a" * 64
    assert summary["shipping"]["undecided"] == ["sensitivity_loss.polyp"]
    assert summary["shipping"]["failed"] == []
    assert summary["conversion"]["verdict"] == "pass"
    assert "b" * 64 not in json.dumps(summary)
    assert with_sha256(shipping, "b", "d" * 64)["models"]["b"]["sha256"] == "d" * 64
    assert shipping["models"]["b"]["sha256"] == "b" * 64


def test_the_files_are_self_contained_and_the_same_every_time(tmp_path: Path) -> None:
    base = predictions()
    b = flipped(base, [1, 3, 5])
    document = certificate(
        replace(base, files=tuple(f"<{name}>|x" for name in base.files)),
        replace(b, files=tuple(f"<{name}>|x" for name in b.files)),
    )
    paths = write_certificate(document, tmp_path / "ü")
    assert [path.name for path in paths] == [f"b.onnx.shipping.{s}" for s in ("json", "md", "html")]
    assert json.loads(paths[0].read_text(encoding="utf-8")) == document
    page = to_html(document)
    assert page == paths[2].read_text(encoding="utf-8")
    assert "<svg" in page
    assert "&lt;0001.png&gt;" in page
    for outside in ("<script", "src=", 'href="http', "@import", "url(http"):
        assert outside not in page
    text = to_markdown(document)
    assert "\\|x" in text
    assert "| sensitivity_loss.polyp | 0.0050 | 0.0100 |" in text
    assert not list((tmp_path / "ü").glob(".*.tmp*"))


def test_events_on_recordings_are_part_of_the_certificate() -> None:
    base = predictions(40)
    found = event_agreement(
        [Span("r", "polyp", 0, 10)], [Span("r", "polyp", 1, 10), Span("r", "polyp", 20, 30)]
    )
    document = certificate(base, base, events=found)
    assert document["events"]["agreement"] == pytest.approx(2 / 3)
    assert "| 1 | 2 | 1 | 0.6667 |" in to_markdown(document)
    assert certificate(base, base)["events"] is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    base = predictions(40)
    with pytest.raises(OutputError, match="taken"):
        write_certificate(certificate(base, base), tmp_path / "taken")


@pytest.mark.quick
def test_a_loaded_table_equals_the_saved_one(tmp_path: Path) -> None:
    base = predictions(50)
    p = np.random.default_rng(0).dirichlet([0.05, 0.05], 50).astype(np.float32)
    base = replace(base, probabilities=p, video_ids=(None, *base.video_ids[1:]))
    save_predictions(base, tmp_path / "new" / "p.csv")
    back = load_predictions(tmp_path / "new" / "p.csv")
    assert (back.files, back.video_ids, back.keys) == (base.files, base.video_ids, base.keys)
    assert (back.probabilities == p).all()
    assert (back.labels == base.labels).all()
    assert (
        (tmp_path / "new" / "p.csv")
        .read_bytes()
        .startswith(b"file,video_id,label,p_normal,p_polyp\n0000.png,,")
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "columns"),
        ("file,label\n", "columns"),
        ("file,video_id,label,p_a\n", "no rows"),
        ("file,video_id,label,p_a\nx,v,b,0.5\n", "line 2"),
        ("file,video_id,label,p_a\nx,v,a\n", "line 2"),
        ("file,video_id,label,p_a\nx,v,a,high\n", "high"),
        ("file,video_id,label,p_a\nx,v,a,nan\n", "outside"),
        ("file,video_id,label,p_a\nx,v,a,1.5\n", "outside"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=word) as error:
        load_predictions(tmp_path / "p.csv")
    assert "\n" not in str(error.value)
