"""A model file says which videos it was trained on, and who evaluates it there is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from labelled_frames import write_frames
from tiny_model import LABELS, tiny_spec, write_tiny_model

from capsule_edge.cli.compare import command as compare
from capsule_edge.cli.evaluate import command as evaluate
from capsule_edge.evaluation.certificate import schema_path, to_markdown
from capsule_edge.evaluation.datasets import Sample, hash_dataset, load_dataset
from capsule_edge.evaluation.training_videos import training_overlap, training_provenance
from capsule_edge.runtime.backends import open_model
from capsule_edge.runtime.errors import InputError, ModelError
from capsule_edge.runtime.spec import ModelSpec

SEEN = ("a", "b", "\u80c3")  # of "train"; "val" has the videos c and d


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    places = [(SEEN[i % 3], "train") if i < 36 else ("cd"[i % 2], "val") for i in range(60)]
    return write_frames(
        tmp_path_factory.mktemp("frames"),
        "file,label,video_id,split",
        [(f"{i}.png", LABELS[i % 3], *place) for i, place in enumerate(places)],
        [np.full((32, 32, 3), random.integers(40, 255, 3), np.uint8) for _ in places],
    )


@pytest.fixture(scope="module")
def model(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = training_provenance(load_dataset(frames, split="train").samples)
    return write_tiny_model(tmp_path_factory.mktemp("model") / "m.onnx", provenance=facts)


def call(command: Any, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [*map(str, arguments), "--resamples", "0"])
    assert result.exit_code == 0, result.output
    return result


def sample(video: str | None) -> Sample:
    return Sample(Path("x.png"), "normal", video_id=video)


def test_the_marks_are_what_the_schema_says() -> None:
    facts = training_provenance([sample("v2"), sample("v1"), sample("v2"), sample(None)])
    expected = sorted(hashlib.sha256(name.encode()).hexdigest()[:8] for name in ("v1", "v2"))
    assert facts == {"training_videos": expected, "training_frames_without_video": 1}
    assert training_provenance([sample(None)]) == {"training_frames_without_video": 1}
    assert training_provenance([]) == {}


def test_what_a_teacher_has_seen_its_student_has_seen() -> None:
    teacher = tiny_spec(provenance=training_provenance([sample("t"), sample("v1")]))
    both = training_provenance([sample("v1")], [teacher, tiny_spec()])
    assert training_overlap([tiny_spec(provenance=both)], ["t", "v1", "x"]) == {
        "frames": 2, "videos": 2, "frames_without_video": 0
    }  # fmt: skip


def test_a_model_that_says_nothing_is_not_said_to_have_seen_nothing() -> None:
    assert training_overlap([tiny_spec()], ["a"]) is None
    known = tiny_spec(provenance=training_provenance([sample("a")]))
    assert training_overlap([tiny_spec(), known], ["a", None]) == {
        "frames": 1, "videos": 1, "frames_without_video": 1
    }  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_evaluate_counts_the_frames_of_trained_videos(
    model: Path, frames: Path, split: str, tmp_path: Path
) -> None:
    count = {"train": 36, "val": 24, "all": 60}[split]
    seen = {"train": 36, "val": 0, "all": 36}[split]
    arguments = (model, "--data", frames, "--split", split)
    result = call(evaluate, *arguments, "--json", "--out", tmp_path / "out")
    document = json.loads(result.stdout)
    assert document["training_overlap"] == {
        "frames": seen,
        "videos": 3 if seen else 0,
        "frames_without_video": 0,
    }
    line = f"{seen} of the {count} frames are of videos that the model was trained on"
    warning = f"warning: {line} (3 videos): it has seen them"
    assert [line for line in result.stderr.splitlines() if not line.startswith("wrote")] == [warning] * bool(
        seen
    )
    assert line in call(evaluate, *arguments).stdout
    assert line in (tmp_path / "out" / "evaluation.html").read_text("utf-8")


def test_compare_counts_those_of_either_model(model: Path, frames: Path, tmp_path: Path) -> None:
    other = write_tiny_model(
        tmp_path / "o.onnx", provenance=training_provenance([sample("c")]), precision="int8"
    )
    result = call(compare, model, other, "--data", frames, "--split", "all", "--json")
    document = json.loads(result.stdout)
    assert document["data"]["training_overlap"] == {"frames": 48, "videos": 4, "frames_without_video": 0}
    assert result.stderr == (
        "warning: 48 of the 60 frames are of videos that the model was trained on (4 videos): it has seen them\n"
    )
    Draft202012Validator(json.loads(schema_path().read_text())).validate(document)
    assert "48 of the 60 frames" in to_markdown(document)
    nothing = call(compare, model, model, "--data", frames)
    assert "0 of the 24 frames are of videos that the model was trained on" in nothing.stdout
    assert nothing.stderr == ""
    table = tmp_path / "p.csv"
    call(evaluate, model, "--data", frames, "--split", "train", "--save-predictions", table)
    document = json.loads(call(compare, table, model, "--data", frames, "--split", "train", "--json").stdout)
    assert document["data"]["training_overlap"]["frames"] == 36
    # A certificate of before has no such entry.
    del document["data"]["training_overlap"]
    Draft202012Validator(json.loads(schema_path().read_text())).validate(document)
    assert "does not say which videos" in to_markdown(document)


def test_a_file_that_does_not_say_it_is_said_not_to(frames: Path, tmp_path: Path) -> None:
    silent = write_tiny_model(tmp_path / "s.onnx")
    result = call(evaluate, silent, "--data", frames)
    assert "the model file does not say which videos it was trained on" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("marks", [["abc"], ["ABCDEF01"], [1], "abcdef01", {"abcdef01": 1}])
def test_marks_that_are_none_are_refused(marks: Any) -> None:
    document = tiny_spec(provenance={"training_videos": marks}).to_json()
    with pytest.raises(ModelError, match=r"provenance\.training_videos is .* 8 hexadecimal digits"):
        ModelSpec.from_json(document)


def test_the_field_is_added_to_files_that_are_there(frames: Path, tmp_path: Path) -> None:
    from capsule_edge.export.training_videos import add_training_videos

    train = load_dataset(frames, split="train")
    facts = {"data": frames.name, "data_sha256": hash_dataset(train), "split": "train"}
    fp32 = write_tiny_model(tmp_path / "m.fp32.onnx", provenance=facts)
    old = hashlib.sha256(fp32.read_bytes()).hexdigest()
    int8 = write_tiny_model(
        tmp_path / "m.int8.onnx", provenance=facts, precision="int8", noise=0.01,
        parity={"fp32_sha256": old, "shipping": {"against_sha256": old}},
    )  # fmt: skip
    sums = tmp_path / "SHA256SUMS"
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in (fp32, int8)]
    sums.write_text("".join(lines))
    before = {path: onnx.load(path).graph.SerializeToString() for path in (fp32, int8)}
    hashes = add_training_videos([int8, fp32], frames, update=[sums])
    for path in (fp32, int8):
        assert onnx.load(path).graph.SerializeToString() == before[path]
        spec = open_model(path).spec
        assert spec.provenance == {**facts, **training_provenance(train.samples)}
    for line in sums.read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert spec.parity == {"fp32_sha256": hashes[old], "shipping": {"against_sha256": hashes[old]}}
    # Once more changes nothing.
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert all(old == new for old, new in add_training_videos([fp32, int8], frames, update=[sums]).items())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_the_field_is_refused_where_the_data_is_another(model: Path, frames: Path, tmp_path: Path) -> None:
    from capsule_edge.export.training_videos import add_training_videos

    facts = {"data_sha256": "0" * 64, "split": "train"}
    other = write_tiny_model(tmp_path / "m.onnx", provenance=facts)
    content = other.read_bytes()
    with pytest.raises(
        InputError, match=r"m\.onnx was trained on data of SHA-256 0000.*split train of .* has"
    ):
        add_training_videos([other], frames)
    with pytest.raises(InputError, match=r"was trained on data of SHA-256 None"):
        add_training_videos([model], frames)  # a file that names no data
    good = {"data_sha256": hash_dataset(load_dataset(frames, split="train")), "split": "train"}
    fine = write_tiny_model(tmp_path / "f.onnx", provenance=good)
    kept = fine.read_bytes()
    with pytest.raises(InputError, match=r"absent\.json cannot be read"):
        add_training_videos([fine], frames, update=[tmp_path / "absent.json"])
    with pytest.raises(ModelError, match="no model file at"):
        add_training_videos([fine, tmp_path / "none.onnx"], frames)
    assert (other.read_bytes(), fine.read_bytes()) == (content, kept)


def test_a_tflite_file_takes_it_and_answers_as_before(frames: Path, tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from quantised_models import write_run

    from capsule_edge.export.bundle import export_run
    from capsule_edge.export.training_videos import add_training_videos

    train = load_dataset(frames, split="train")
    run = write_run(tmp_path / "run", "plain_cnn", 64)
    document = json.loads((run / "run.json").read_text("utf-8"))
    document["spec"]["provenance"] = {"data_sha256": hash_dataset(train), "split": "train"}
    (run / "run.json").write_text(json.dumps(document), "utf-8")
    out = tmp_path / "out"
    export_run(run, out)
    models = sorted(out.glob("model.*"))
    sizes = {path: path.stat().st_size for path in models}
    assert len(models) == 4
    add_training_videos(models, frames, update=[out / "SHA256SUMS"])  # which compares the answers
    for path in models:
        backend = "litert" if path.suffix == ".tflite" else "onnxruntime"
        spec = open_model(path, backend=backend).spec
        assert len(spec.provenance["training_videos"]) == 3
        assert "exported_with" in spec.provenance
        # The old spec does not stay in the file beside the new one.
        assert path.stat().st_size - sizes[path] < 200
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
