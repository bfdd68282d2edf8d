"""Frames that are set aside keep their answers and raise no event, however the recording is read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from cool_rule import cool_rule
from red_model import SIZE, view, write_exam, write_red_model
from tiny_model import tiny_spec

from capsule_edge.runtime import Reader
from capsule_edge.runtime.events import find_events
from capsule_edge.runtime.pipeline import FrozenPictures, Plan
from capsule_edge.runtime.report import render_report
from capsule_edge.runtime.results import open_run, study_document
from capsule_edge.runtime.results.files import frames_csv
from capsule_edge.runtime.streaming import Lines, read_pipe
from capsule_edge.runtime.study import Event, FrameRecord, Study, columns

FRAMES = 160
LESION, FOREIGN, FROZEN = range(20, 32), range(44, 56), range(70, 150)
# Of a frozen picture the first 32 repeats count.
SET_ASIDE = [*FOREIGN, *range(FROZEN.start + 32, FROZEN.stop)]


def foreign(index: int) -> np.ndarray:
    """A blue picture with a red corner, in which the model sees bleeding."""
    frame = view(True, index)
    frame[frame[..., 0] != 220] //= np.array([2, 2, 1], np.uint8)
    return frame


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 frames: a lesion, then a foreign picture that looks like one, then a frozen picture of the lesion."""
    pictures = {index: foreign(index) for index in FOREIGN} | dict.fromkeys(FROZEN, view(True, 3))
    path = tmp_path_factory.mktemp("foreign") / "foreign.mp4"
    return write_exam(path, frames=FRAMES, red=LESION, instead=pictures)


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = write_red_model(tmp_path_factory.mktemp("judging") / "red.onnx", familiarity=cool_rule())
    with Reader.open(path) as reader:
        yield reader


@pytest.fixture(scope="module")
def study(judging: Reader, recording: Path) -> Study:
    return judging.read(recording)


def set_aside(frames: Iterable[FrameRecord]) -> list[int]:
    return [frame.index for frame in frames if frame.detail == "unfamiliar"]


def text_of(study: Study) -> tuple[str, str, str]:
    report = render_report(study, tool_version="0", colours=study.colours)
    return frames_csv(study.frames, study.model), json.dumps(study_document(study)), report


def test_frames_that_are_set_aside_keep_their_answers_and_raise_no_event(study: Study) -> None:
    assert set_aside(study.frames) == SET_ASIDE
    for index in SET_ASIDE:
        frame = study.frames[index]
        assert (frame.status, frame.duplicate_of) == ("classified", None)
        assert frame.probabilities is not None
        assert frame.probabilities[1] > 0.9
    lesion, still = study.events
    assert (lesion.start_index, lesion.end_index) == (20, 32)
    # The frozen picture counts up to its 32nd repeat. Behind that, the frames that are set aside are no evidence.
    assert (still.start_index, still.frames) == (70, 32)
    assert study.ledger.classified == FRAMES
    row = frames_csv(study.frames, study.model).splitlines()[1 + FOREIGN.start].split(",")
    assert row[3:7] == ["classified", "", "unfamiliar", "bleeding"]


def test_a_model_without_the_rule_sets_nothing_aside(recording: Path, tmp_path: Path) -> None:
    with Reader.open(write_red_model(tmp_path / "red.onnx")) as reader:
        study = reader.read(recording)
    assert set_aside(study.frames) == []
    assert len(study.events) == 3
    assert study_document(study)["familiarity"] is None
    assert "set aside" not in render_report(study, tool_version="0")


def test_study_json_and_the_report_say_what_was_set_aside(study: Study) -> None:
    document = study_document(study)
    count = len(SET_ASIDE)
    assert document["familiarity"] == {
        "measure": "appearance",
        "threshold": 5.0,
        "set_aside": count,
        "share": count / FRAMES,
    }
    schema = json.loads((resources.files("capsule_edge.runtime") / "schema/study.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(document)), schema, jsonschema.Draft202012Validator)
    page = render_report(study, tool_version="0")
    assert f"{count} frames ({100 * count / FRAMES:g}\u00a0% of those looked at) were set aside." in page
    # Two stretches, each on the pinned timeline and on the lanes below.
    assert page.count('class="s-unfamiliar"') == 4


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (2, 3), (3, 16)])
def test_the_files_do_not_depend_on_threads_or_batches(
    workers: int, batch: int, study: Study, recording: Path, judging: Reader
) -> None:
    with Reader.open(judging._backend.path, plan=Plan(workers, batch)) as reader:
        assert text_of(reader.read(recording)) == text_of(study)


@pytest.mark.parametrize("stop_after", [50, 90, 120])
def test_a_resumed_run_sets_the_same_frames_aside(
    stop_after: int, study: Study, recording: Path, judging: Reader, tmp_path: Path
) -> None:
    done: list[int] = []
    with open_run(tmp_path / "out", resume=True) as run:
        judging.read(
            recording,
            journal=run.journal,
            progress=lambda count, _: done.append(count),
            cancel=lambda: bool(done) and done[-1] >= stop_after,
        )
    with open_run(tmp_path / "out", resume=True) as run:
        resumed = judging.read(recording, journal=run.journal)
        assert run.journal.resumed > stop_after - 20
    assert text_of(resumed) == text_of(study)


def test_events_found_in_the_records_are_those_of_the_run(study: Study) -> None:
    records = list(study.frames)
    found = find_events(records, study.model, median_distance_s=0.5, time_kind="capture")
    assert found == list(study.events)
    assert columns(records).set_aside.tolist() == columns(study.frames).set_aside.tolist()
    plain = [replace(record, detail="") for record in records]
    assert len(find_events(plain, study.model, median_distance_s=0.5, time_kind="capture")) > len(found)


def test_a_duplicate_of_a_frame_that_is_set_aside_raises_no_event(judging: Reader, recording: Path) -> None:
    study = judging.read(recording, gate=20.0, end_s=FOREIGN.stop / 2)
    repeats = [study.frames[index] for index in FOREIGN if study.frames[index].status == "duplicate"]
    first = [frame for frame in repeats if study.frames[frame.duplicate_of].detail == "unfamiliar"]
    assert first
    assert {frame.detail for frame in first} == {"unfamiliar"}
    assert all(event.end_index < FOREIGN.start for event in study.events)


def test_a_stream_and_a_pipe_set_the_same_frames_aside(judging: Reader) -> None:
    pictures = [foreign(i) if i in FOREIGN else view(i in LESION, i) for i in range(64)]
    predictions = list(judging.stream(iter(pictures), batch=3))
    assert [each.index for each in predictions if each.unfamiliar] == list(FOREIGN)
    assert predictions[FOREIGN.start].label == "bleeding"
    frames: list[FrameRecord] = []
    events: list[Event] = []
    feed = SimpleNamespace(read=lambda _: iter(pictures), truncated=False)
    read_pipe(judging, io.BytesIO(), feed, on_frame=frames.append, on_event=events.append)
    assert set_aside(frames) == list(FOREIGN)
    assert [event.start_index for event in events] == [LESION.start]


def test_a_line_of_json_says_that_a_frame_was_set_aside(study: Study) -> None:
    out = io.StringIO()
    Lines(out, "exam", study.model).frame(study.frames[FOREIGN.start])
    line = json.loads(out.getvalue())
    assert (line["detail"], line["label"], line["status"]) == ("unfamiliar", "bleeding", "classified")


def test_a_frozen_picture_in_a_stream_is_set_aside_after_its_repeats(judging: Reader) -> None:
    pictures = [view(False, 0)] * 40 + [view(False, 1)]
    flags = [each.unfamiliar for each in judging.stream(iter(pictures))]
    assert flags == [False] * 32 + [True] * 8 + [False]


def test_a_picture_is_frozen_only_while_it_stays_near_its_first_look() -> None:
    grey = np.full(3, 100.0)
    drifting = FrozenPictures(cool_rule(frozen_frames=10))
    assert not any(drifting.add(index, grey + 0.05 * index) for index in range(100))
    still = FrozenPictures(cool_rule(frozen_frames=10))
    assert [still.add(index, grey + 0.1 * (index % 2)) for index in range(12)] == [False] * 10 + [True] * 2
    # Every 5th frame is read: eight equal ones are needed, not two.
    thinned = FrozenPictures(cool_rule(frozen_frames=10))
    assert [thinned.add(5 * index, grey) for index in range(10)] == [False] * 8 + [True] * 2
    assert not any(FrozenPictures(None).add(index, grey) for index in range(100))


def test_the_rule_of_a_model_is_its_own(study: Study) -> None:
    assert study.model.familiarity == cool_rule()
    assert tiny_spec(size=SIZE).familiarity is None
