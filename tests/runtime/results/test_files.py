"""The files of a run fit their schemas, are the same bytes for the same study, and are never half written."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from study_samples import SPEC, make_study

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.inference import Label, OperatingPoint
from capsule_edge.runtime.results import prepare_folder, study_document, write_study
from capsule_edge.runtime.results.files import FILES, frames_csv
from capsule_edge.runtime.study import Alternative, MeasuredPrecision, Study, Suggestion


def schema(name: str) -> dict[str, Any]:
    text = (resources.files("capsule_edge.runtime") / "schema" / f"{name}.schema.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(document)
    return document


def write(study: Study, folder: Path, **timing: Any) -> dict[str, bytes]:
    paths = write_study(study, prepare_folder(folder, overwrite=True), timing=timing)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)  # no temporary file is left
    return {name: path.read_bytes() for name, path in paths.items()}


# Keys that version 2 of the study added; all are optional.
NEW_IN_STUDY = {"warnings", "suggestions", "familiarity"}
NEW_IN_SOURCE = {"times", "damage_detection", "stream_sha256"}
# The same of the model file.
NEW_IN_MODEL = {"familiarity", "reference", "suggestions", "held_out", "preprocessing"}

STUDIES = {
    "plain": make_study(),
    "suggestions": replace(
        make_study(),
        suggestions=[
            Suggestion(1, "ulcer", (1, 2), 0.75, None, (Alternative("blood_fresh", 0.5),), 1),
            Suggestion(2, "ulcer", (1,), 0.25, MeasuredPrecision(0.5, 0.25, 0.75, 9, "nine"), (), 0),
        ],
    ),
    "no event": make_study(stretches=()),
    "no frame": make_study(0, (), field_of_view=None, duration_s=None, start_pts=None),
    "damaged": make_study(
        statuses={5: "corrupt", 25: "corrupt", 26: "duplicate", 100: "skipped", 119: "unread"},
        missing=4,
        ledger={"truncated": True},
    ),
    "all roles": make_study(
        spec=replace(
            SPEC,
            labels=(
                *SPEC.labels,
                Label("pylorus", "Pylorus", "landmark"),
                Label("cecum", "Cecum", "landmark"),
                Label("bubbles", "Bubbles", "quality"),
            ),
            operating_points={
                **SPEC.operating_points,
                "pylorus": OperatingPoint(0.5),
                "bubbles": OperatingPoint(0.5),
            },
        ),
        stretches=((20, 40, "ulcer", 0.6), (10, 39, "pylorus", 0.8), (39, 40, "pylorus", 0.5)),
    ),
}


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES.keys())
def test_study_json_fits_its_schema(study: Study, tmp_path: Path) -> None:
    data = write(study, tmp_path / "out")["study.json"]
    document = json.loads(data)
    jsonschema.validate(document, schema("study"), jsonschema.Draft202012Validator)
    assert list(document) == [
        "schema",
        "tool",
        "intended_use",
        "source",
        "model",
        "ledger",
        "warnings",
        "rules",
        "events",
        "suggestions",
        "landmarks",
        "quality",
        "familiarity",
    ]
    assert b"NaN" not in data
    assert b"\r" not in data
    counts = document["ledger"]
    statuses = ("classified", "duplicate", "corrupt", "missing", "skipped", "unread")
    assert counts["container"] == sum(counts[status] for status in statuses)


def test_model_spec_fits_its_schema() -> None:
    for study in STUDIES.values():
        document = json.loads(study.model.to_json())
        jsonschema.validate(document, schema("model"), jsonschema.Draft202012Validator)
    # Only a model without activation maps states ``features``, as null.
    assert [*document, "features"] == list(schema("model")["properties"])


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES.keys())
def test_a_study_without_the_keys_of_version_2_fits_the_schema_of_version_1(study: Study) -> None:
    document = study_document(study)
    for key in NEW_IN_STUDY:
        del document[key]
    for key in NEW_IN_SOURCE:
        del document["source"][key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema("study-1"), jsonschema.Draft202012Validator)
    jsonschema.validate(document, schema("study"), jsonschema.Draft202012Validator)
    document["schema"] = "capsule-edge/study/1"
    jsonschema.validate(document, schema("study-1"), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", ["study", "model", "lines"])
def test_the_schemas_describe_every_field_and_allow_no_other(name: str) -> None:
    open_fields = {"options", "provenance", "parity"}  # the schema does not name what they hold
    optional = NEW_IN_STUDY | NEW_IN_SOURCE | NEW_IN_MODEL | {"weights", "grouping", "features"}

    def walk(node: Any, key: str) -> None:
        if not isinstance(node, dict):
            return
        properties = node.get("properties")
        if properties is not None:
            if key not in open_fields and key != "measures":  # a measure may be absent
                assert node["additionalProperties"] is False, key
                required = [child for child in properties if child not in optional]
                assert node["required"] == required, key
            for child, entry in properties.items():
                assert entry.get("description"), f"{key}.{child}"
        if node.get("additionalProperties") is True:
            assert key in open_fields
        for child, entry in (properties or {}).items():
            walk(entry, child)
        walk(node.get("items"), key)
        for entry in node.get("oneOf", []):
            walk(entry, key)

    walk(schema(name), "")
    extra = study_document(STUDIES["plain"]) | {"healthy": True}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(extra, schema("study"), jsonschema.Draft202012Validator)


@pytest.mark.quick
def test_a_role_without_labels_is_reported_as_not_assessed() -> None:
    document = study_document(STUDIES["plain"])
    assert document["quality"] == {
        "assessed": False,
        "labels": None,
        "reduced_frames": None,
        "reduced_share": None,
    }
    landmarks = document["landmarks"]
    assert (landmarks["assessed"], landmarks["labels"], landmarks["positions"]) == (False, None, None)
    assert landmarks["marks"] == []
    assert set(landmarks["transit"].values()) == {None}

    landmarks = study_document(STUDIES["all roles"])["landmarks"]
    assert landmarks["assessed"] is True
    pylorus, cecum = landmarks["labels"]
    # 30 of 120 frames, 10 to 39, half a second apart; the last is exactly at the operating point
    assert pylorus == {
        "label": "pylorus",
        "threshold": 0.5,
        "frames": 30,
        "share": 0.25,
        "first_s": 5.0,
        "last_s": 19.5,
    }
    assert cecum["frames"] is None  # it has no operating point
    assert cecum["share"] is None


@pytest.mark.parametrize(
    ("source", "fps", "origin"),
    [
        ({"step_s": 0.25}, 4.0, "file"),
        ({"step_s": 0.04}, SPEC.events.assumed_capture_fps, "assumed"),
        ({"step_s": 0.04, "capture_fps": 3.0}, 3.0, "given"),
        ({"step_s": 0.25, "count": 1, "stretches": ()}, None, "file"),
    ],
)
def test_the_capture_rate_is_given_or_from_the_file_or_assumed(
    source: dict[str, Any], fps: float | None, origin: str
) -> None:
    document = study_document(make_study(**source))
    found = document["rules"]
    assert (found["capture_fps"], found["capture_fps_from"]) == (fps, origin)


@pytest.mark.quick
def test_frames_csv() -> None:
    study = STUDIES["damaged"]
    text = frames_csv(study.frames, study.model)
    assert text.splitlines()[0] == (
        "index,pts,time_s,status,duplicate_of,detail,label,p_normal,p_ulcer,p_blood_fresh"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == study.ledger.container
    assert rows[20] | {"p_normal": ""} == {
        "index": "20",
        "pts": "5120",
        "time_s": "10.000000",
        "status": "classified",
        "duplicate_of": "",
        "detail": "",
        "label": "ulcer",
        "p_normal": "",
        "p_ulcer": "0.900000",
        "p_blood_fresh": "0.010000",
    }
    corrupt = rows[25]
    assert (corrupt["status"], corrupt["detail"], corrupt["label"], corrupt["p_ulcer"]) == (
        "corrupt",
        "damaged",
        "",
        "",
    )
    assert (rows[26]["status"], rows[26]["duplicate_of"], rows[26]["label"]) == ("duplicate", "25", "ulcer")
    assert (rows[-1]["status"], rows[-1]["pts"], rows[-1]["time_s"]) == ("missing", "", "")


@pytest.mark.quick
def test_nan_probabilities_are_empty_in_csv_and_null_in_json(tmp_path: Path) -> None:
    study = make_study(stretches=())
    bad = replace(study.frames[7], probabilities=np.full(3, np.nan, np.float32))
    study = replace(study, frames=[*study.frames[:7], bad, *study.frames[8:]], options={"x": float("nan")})
    files = write(study, tmp_path, seconds=float("inf"))
    assert b"nan" not in files["frames.csv"]
    assert json.loads(files["study.json"])["tool"]["options"] == {"x": None}
    assert json.loads(files["timing.json"]) == {"seconds": None}


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(make_study(), tmp_path / "a", seconds=1.0)
    second = write(
        replace(make_study(), options={"end_s": None, "every": 1}), tmp_path / "b", seconds=2.0, threads=4
    )
    assert first.pop("timing.json") != second.pop("timing.json")
    assert first == second
    for data in first.values():
        data.decode("utf-8")
        assert b"\r" not in data
        assert data.endswith(b"\n")


def test_numbers_have_six_decimals() -> None:
    study = make_study(step_s=1 / 3, duration_s=40.0000004999)
    document = study_document(study)
    assert document["source"]["duration_s"] == 40.0
    assert document["events"][0]["start_s"] == 6.666667
    assert document["events"][0]["peak_p"] == 0.9  # and not float32's 0.8999999761581421


@pytest.mark.parametrize("name", ["darm größe 内视镜.mp4", "odd\udce9.mp4", "a\nb.mp4"])
def test_a_recording_name_with_any_characters_is_written(name: str, tmp_path: Path) -> None:
    files = write(make_study(name=name), tmp_path / "größe 内")
    read = json.loads(files["study.json"])["source"]["name"]
    assert read == name.replace("\udce9", "?")


@pytest.mark.quick
def test_prepare_folder_creates_the_folder_and_refuses_one_with_a_study(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "a" / "b", overwrite=False)
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert prepare_folder(folder, overwrite=False) == folder
    (folder / "study.json").write_text("{}")
    with pytest.raises(OutputError, match=r"already holds a study\.json"):
        prepare_folder(folder, overwrite=False)
    assert prepare_folder(folder, overwrite=True) == folder


@pytest.mark.quick
def test_prepare_folder_reports_a_file_in_its_place_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError) as caught:
            prepare_folder(path, overwrite=False)
        assert "\n" not in str(caught.value)
        assert caught.value.hint
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_without_write_access_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    # The tests may run as root, who can write to every folder.
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match="permission denied"):
        prepare_folder(tmp_path / "out", overwrite=False)


@pytest.mark.parametrize("after", range(len(FILES)))
def test_a_full_disk_leaves_the_old_files_whole(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(make_study(stretches=()), tmp_path)
    true_fsync, calls = os.fsync, iter(range(99))

    def fill_up(descriptor: int) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        true_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OutputError, match="no space left on device") as caught:
        write_study(make_study(), tmp_path, timing={})
    assert FILES[after] in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_another_program_holds_open_leaves_the_earlier_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(make_study(stretches=()), tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="close a program that has the file open"):
        write_study(make_study(), tmp_path, timing={})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_suggestion_is_written_whole() -> None:
    assert study_document(STUDIES["plain"])["suggestions"] is None
    first, second = study_document(STUDIES["suggestions"])["suggestions"]
    assert first == {
        "id": 1,
        "label": "ulcer",
        "events": [1, 2],
        "score": 0.75,
        "precision": None,
        "alternatives": [{"label": "blood_fresh", "score": 0.5}],
        "similar": 1,
    }
    assert second["precision"] == {"estimate": 0.5, "low": 0.25, "high": 0.75, "n": 9, "measured_on": "nine"}
