"""``run FOLDER`` and ``run --stream``: every recording of a folder, and a stream of a recording with several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cli_calls import Called, check_files, check_refused


def fill(folder: Path, exam: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(exam, folder / name)
    return folder


def run(call: Any, folder: Path, model: Path, *options: object) -> Any:
    return call("run", folder, "--model", model, "--start", 0, "--end", 1, *options)


def test_each_recording_of_a_folder_is_read_in_natural_order(
    call: Any, plain: Path, model: Path, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "day", plain, "exam 10.mp4", "exam 2.mp4", ".hidden.mp4")
    (folder / "._exam 2.mp4").write_bytes(b"AppleDouble")
    (folder / "notes.txt").write_text("none")
    (folder / "old.capsule-edge").mkdir()
    called = run(call, folder, model, "--out", "out", "--json")
    assert called.code == 0
    assert [Path(entry["recording"]).name for entry in called.json["recordings"]] == [
        "exam 2.mp4",
        "exam 10.mp4",
    ]
    assert called.err == (
        f"note: {folder}: 2 recordings; passed over: 2 hidden files, 1 result folder, 1 other entry\n"
    )
    assert sorted(path.name for path in Path("out").iterdir()) == ["exam 10", "exam 2"]
    again = run(call, folder, model, "--out", "out", "--resume")
    assert (again.code, again.out.count("an earlier run has read it already")) == (0, 2)


def test_a_folder_of_one_recording_has_a_folder_of_results_too(
    call: Any, plain: Path, model: Path, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "day", plain, "exam.mp4")
    assert run(call, folder, model, "--out", "out").code == 0
    check_files(Path("out/exam"))
    assert run(call, folder, model).code == 0
    check_files(Path("exam.capsule-edge"))


def test_a_recording_that_fails_does_not_stop_the_others(
    call: Any, plain: Path, model: Path, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "day", plain, "b.mp4")
    (folder / "a.mp4").write_bytes(b"no recording")
    called = run(call, folder, model, "--json")
    assert called.code == 1
    assert [entry["exit_code"] for entry in called.json["recordings"]] == [1, 0]


@pytest.mark.quick
def test_two_recordings_of_one_name_in_a_folder_are_refused(
    call: Any, plain: Path, model: Path, tmp_path: Path
) -> None:
    called = run(call, fill(tmp_path / "day", plain, "a.mp4", "a.mkv"), model)
    assert called.err.startswith("note: ")
    without_note = Called(called.code, called.out, called.err.split("\n", 1)[1])
    check_refused(without_note, 2, "would both be written to")


def test_of_a_folder_with_both_the_recordings_are_read(
    call: Any, plain: Path, model: Path, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "day", plain, "exam.mp4")
    (folder / "1.jpg").write_bytes(b"picture")
    called = run(call, folder, model, "--out", "out")
    assert called.code == 0
    assert called.err == (
        f"warning: {folder}: 1 recording; passed over: 1 picture. To read the pictures, move them to a folder "
        "of their own.\n"
    )
    assert [path.name for path in Path("out").iterdir()] == ["exam"]


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of 20 pictures, behind a preview of 2 in the first stream."""
    path = tmp_path_factory.mktemp("preview") / "exam.mkv"
    with av.open(str(path), "w") as file:
        streams = [(file.add_stream("mpeg4", rate=25), count) for count in (2, 20)]
        for stream, _ in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for stream, count in streams:
            for _ in range(count):
                file.mux(
                    stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), "rgb24"))
                )
            file.mux(stream.encode(None))
    return path


def test_a_stream_is_chosen_by_its_number(call: Any, preview: Path, model: Path) -> None:
    called = call("run", preview, "--model", model, "--out", "main")
    assert called.code == 0
    assert called.err.startswith("warning: exam.mkv: 2 pictures of another video stream (number 0, ")
    study = check_files(Path("main"))
    assert (study["ledger"]["classified"], study["tool"]["options"]["stream"]) == (20, None)
    assert [each["code"] for each in study["warnings"]] == ["other_stream"]
    assert "--stream 0 reads it" in Path("main/report.html").read_text("utf-8")

    assert call("run", preview, "--model", model, "--out", "other", "--stream", 0).code == 0
    study = check_files(Path("other"))
    assert (study["ledger"]["classified"], study["tool"]["options"]["stream"]) == (2, 0)
    # A study of one stream does not answer for another.
    refused = call("run", preview, "--model", model, "--out", "other", "--resume", "--stream", 1)
    assert (refused.code, "holds a whole study of another recording" in refused.err) == (1, True)


def test_a_stream_that_is_not_there_is_wrong_usage(call: Any, preview: Path, model: Path) -> None:
    called = call("run", preview, "--model", model, "--out", "out", "--stream", 7)
    assert called.code == 2
    assert "stream is 7, the video streams of" in called.err
    assert called.err.count("\n") == 1


def test_lines_end_with_the_warnings(call: Any, preview: Path, model: Path) -> None:
    called = call("run", preview, "--model", model, "--jsonl")
    last = json.loads(called.out.splitlines()[-1])
    assert [each["code"] for each in last["warnings"]] == ["other_stream"]


@pytest.mark.quick
def test_a_pipe_has_no_streams(call: Any, model: Path) -> None:
    called = call("run", "-", "--stdin", "mjpeg", "--jsonl", "--model", model, "--stream", 0)
    assert (called.code, called.json["error"]["message"]) == (
        2,
        "--stream is for recordings, not for stdin (-)",
    )
