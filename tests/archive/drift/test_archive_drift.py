"""``archive drift`` on recordings that were read: what was planted is found, what is missing is said, in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from paths import ROOT
from red_model import HEIGHT, WIDTH, view, write_exam, write_red_model

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from capsule_edge.archive.drift import (
    check_drift,
    load_measures,
    reference_of_archive,
    reference_of_model,
    sample_archive,
)
from capsule_edge.archive.drift.input_samples import SampleSetup, sample_inputs, sample_path
from capsule_edge.archive.engines import ProcessEngine
from capsule_edge.archive.reading import ReadSetup, perform, read_archive, tool_hash
from capsule_edge.archive.sources import list_recordings
from capsule_edge.archive.tables import update_tables, write_batch
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec, ReferenceHistogram, open_model

SCHEMA = json.loads((ROOT / "archive" / "schema" / "archive-drift-1.schema.json").read_text("utf-8"))
COUNT = 10
SITES = ("plain", "tinted", "blurred", "red")


def pictures(kind: str, seed: int) -> dict[int, np.ndarray]:
    """The frames of a recording of 16: tissue of a brightness of its own, with a texture."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.8, 1.2)
    made = {}
    for index in range(16):
        picture = view(False, index).astype(np.float32) * level
        # Blocks of 8 pixels, so that the model's input of 32 pixels has the texture, too.
        blocks = np.kron(rng.normal(0, 25, (HEIGHT // 8, WIDTH // 8)), np.ones((8, 8)))
        picture += blocks[..., None] * (picture > 0)
        if kind == "tinted":
            picture[..., 2] *= 1.35
        if kind == "blurred":
            picture = cv2.GaussianBlur(picture, (0, 0), 8)
        if kind == "red" and index < 8:
            picture = view(True, index).astype(np.float32)
        made[index] = np.clip(picture, 0, 255).astype(np.uint8)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of a reference and of four sites, read with a model for which red is bleeding."""
    folder = tmp_path_factory.mktemp("drift")
    write_red_model(folder / "red.onnx")
    rows = []
    for number, site in enumerate((*SITES, "reference")):
        for at in range(COUNT):
            name = f"{site}-{at}.mp4"
            write_exam(
                folder / name,
                frames=16,
                red=(),
                instead=pictures("plain" if site == "reference" else site, 100 * number + at),
            )
            rows.append((name, site))
    for archive, chosen in (("now", SITES), ("before", ("reference",))):
        lines = [f"{name},{site},2026-11-30" for name, site in rows if site in chosen]
        listed = folder / f"{archive}.csv"
        listed.write_text("\n".join(["path,site,date", *lines]) + "\n", "utf-8")
        read(folder / archive, folder / "red.onnx", listed)
    return folder


def read(out: Path, model: Path, *sources: Path) -> None:
    """Do what ``archive read`` does."""
    with Reader.open(model, threads=1) as reader:
        sha256, engine = reader.model_sha256, reader.backend_name
    setup = ReadSetup(out, str(model), sha256, engine, {}, tool_hash())
    outcome = read_archive(
        setup,
        lambda: list_recordings(list(map(str, sources))),
        lambda: ProcessEngine(perform, setup, workers=1),
    )
    assert outcome.whole
    assert update_tables(out, lambda: ProcessEngine(write_batch, out, workers=1)) == []


@pytest.fixture(scope="module")
def document(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The drift of the four sites against the archive ``before``."""
    model = folder / "red.onnx"
    sides = []
    for name in ("now", "before"):
        measures = load_measures(str(folder / name))
        setup = SampleSetup(folder / name, str(model))
        samples, faults = sample_archive(
            setup.out, measures.tasks, lambda setup=setup: ProcessEngine(sample_inputs, setup, workers=1)
        )
        assert faults == []
        for key, sample in samples.items():
            measures.recordings[key].add_sample(sample)
        sides.append(list(measures.recordings.values()))
    origin = {"kind": "archive", "name": "before", "sha256": "0" * 64}
    return check_drift(sides[0], reference_of_archive(sides[1]), origin=origin)


def test_what_was_planted_is_found_and_the_plain_site_gives_no_alarm(document: dict) -> None:
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    found: dict[str, set[str]] = {site: set() for site in SITES}
    for alarm in document["alarms"]:
        found[alarm["site"]].add(alarm["measure"])
    assert found["plain"] == set()
    assert "colour" in found["tinted"]
    assert "sharpness" in found["blurred"]
    assert "label_shares" in found["red"]
    assert [group["units"] for group in document["groups"]] == [COUNT] * 4
    assert {group["month"] for group in document["groups"]} == {"2026-11"}


def test_measures_that_cannot_be_told_say_why(document: dict) -> None:
    reasons = {entry["measure"]: entry["reason"] for entry in document["groups"][0]["measures"]}
    # The model cannot tell unfamiliar frames, and the plain recordings have no suggestion.
    assert reasons["familiarity"] == reasons["scores"] == "the reference does not have this measure"
    assert reasons["size"] is reasons["frame_rate"] is reasons["colour"] is None


def test_the_command_gives_exit_code_4_and_measures_frames_once(
    folder: Path, document: dict, tmp_path: Path, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, before, model = folder / "now", folder / "before", folder / "red.onnx"
    # The fixture ``document`` has measured the frames, so no worker is needed.
    monkeypatch.setattr(ProcessEngine, "submit", lambda *_: pytest.fail("frames are measured again"))
    out = tmp_path / "drift.json"
    shown = call("archive", "drift", now, "--reference", before, "--model", model, "--out", out)
    assert shown.code == 4, shown.err
    assert "alarm: tinted, 2026-11: colour has drifted" in shown.out
    written = json.loads(out.read_text("utf-8"))
    jsonschema.validate(written, SCHEMA, jsonschema.Draft202012Validator)
    assert written["groups"] == document["groups"]
    printed = call("archive", "drift", now, "--reference", before, "--model", model, "--json")
    assert printed.json == written
    quiet = call("archive", "drift", before, "--reference", now, "--model", model, "--no-inputs")
    assert quiet.code in (0, 4)
    assert "colour" not in quiet.out


def references(folder: Path) -> Iterator[tuple[str, ReferenceHistogram]]:
    """A reference as a model file has it, counted over the archive ``before``."""
    measures = load_measures(str(folder / "before"))
    samples, _ = sample_archive(folder / "before", measures.tasks, lambda: pytest.fail("not measured yet"))
    edges = {"colour": np.linspace(20, 80, 31), "sharpness": np.linspace(0, 20, 21)}
    for name, sides in edges.items():
        values = np.concatenate([getattr(sample, name) for sample in samples.values()])
        counts = np.histogram(values, sides)[0]
        yield name, ReferenceHistogram(tuple(sides.tolist()), tuple(map(float, counts)), len(values))
    yield "field_of_view", ReferenceHistogram((0.0, 0.5, 1.0), (0.0, 1.0 * COUNT), COUNT)
    frames = 16.0 * COUNT
    yield "label_shares", ReferenceHistogram(None, (frames, 0.0, 0.0), int(frames))


def test_the_reference_of_a_model_file(folder: Path, document: dict, tmp_path: Path, call) -> None:
    model = write_red_model(folder / "with-reference.onnx", reference=dict(references(folder)))
    assert open_model(model).spec.reference is not None
    read(tmp_path / "now", model, folder / "now.csv")
    shown = call("archive", "drift", tmp_path / "now", "--model", model, "--workers", 1, "--json")
    assert shown.code == 4, shown.err
    found = {(alarm["site"], alarm["measure"]) for alarm in shown.json["alarms"]}
    assert ("tinted", "colour") in found
    assert ("blurred", "sharpness") in found
    assert ("red", "label_shares") in found
    assert not [site for site, _ in found if site == "plain"]
    assert shown.json["reference"]["kind"] == "model"
    reasons = {entry["measure"]: entry["reason"] for entry in shown.json["groups"][0]["measures"]}
    assert reasons["size"] == "the reference does not have this measure"


def test_a_recording_that_is_gone_is_named_and_its_answers_count(
    folder: Path, document: dict, tmp_path: Path, call
) -> None:
    now = shutil.copytree(folder / "now", tmp_path / "now")
    key = next(iter(load_measures(str(now)).recordings))
    sample_path(now, key).unlink()
    gone = folder / "blurred-0.mp4"
    kept = gone.read_bytes()
    measured = [task for task in load_measures(str(now)).tasks if task.recording == str(gone)]
    sample_path(now, measured[0].key).write_text("{", "utf-8")
    gone.unlink()
    try:
        shown = call(
            *("archive", "drift", now, "--reference", folder / "before", "--model", folder / "red.onnx"),
            *("--workers", 1, "--json"),
        )
    finally:
        gone.write_bytes(kept)
    assert shown.code == 4
    assert "blurred-0.mp4: the recording" in shown.err
    group = next(one for one in shown.json["groups"] if one["site"] == "blurred")
    units = {entry["measure"]: entry["units"] for entry in group["measures"]}
    assert (units["colour"], units["label_shares"]) == (COUNT - 1, COUNT)


def test_drift_of_bad_input_is_one_line(folder: Path, tmp_path: Path, call) -> None:
    now, model = folder / "now", folder / "red.onnx"
    bare = shutil.copytree(now, tmp_path / "bare", ignore=shutil.ignore_patterns("tables", "inputs"))
    other = write_red_model(tmp_path / "other.onnx", version="9")
    for arguments, code, words in (
        ((tmp_path,), 1, "holds no archive"),
        ((now,), 2, "is not installed"),
        ((now, "--model", model), 1, "has no reference"),
        ((now, "--model", other), 1, "holds no result of the model"),
        ((bare, "--model", model), 1, "tables of"),
        ((now, "--reference", now, "--model", model), 2, "is the archive itself"),
        ((now, "--reference", tmp_path / "absent", "--model", model, "--no-inputs"), 1, "holds no archive"),
        ((now, "--model", tmp_path / "absent.onnx"), 1, "no model file"),
    ):
        shown = call("archive", "drift", *arguments)
        assert (shown.code, len(shown.err.splitlines())) == (code, 1), (arguments, shown.err)
        assert words in shown.err, (words, shown.err)


def test_a_reference_that_does_not_count_its_recordings_is_refused(folder: Path) -> None:
    spec: ModelSpec = open_model(folder / "red.onnx").spec
    with pytest.raises(InputError, match="has no reference"):
        reference_of_model(spec)
    named = dict(references(folder)) | {"field_of_view": None}
    model = write_red_model(folder / "without-view.onnx", reference=named)
    with pytest.raises(InputError, match="does not say how many recordings"):
        reference_of_model(open_model(model).spec)


def test_a_reference_histogram_is_joined_to_tenths(folder: Path) -> None:
    held = dict(references(folder))
    model = write_red_model(folder / "joined.onnx", reference=held)
    found = reference_of_model(open_model(model).spec)
    for name in ("colour", "sharpness"):
        measure = found[name]
        assert len(measure.bins) == len(measure.shares) <= 10
        assert measure.shares.sum() == pytest.approx(1)
        assert measure.units == COUNT
        assert set(measure.edges or ()) <= set(asdict(held[name])["edges"])
