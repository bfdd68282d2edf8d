"""The reader inside another program: in several threads, in an event loop, with callbacks, and cancelled."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from red_model import view, write_exam, write_red_model
from thread_checks import threads_left

from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.results import study_document
from capsule_edge.runtime.results.files import frames_csv
from capsule_edge.runtime.study import Event, FrameRecord, Study

FRAMES = 120


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4", frames=FRAMES)


def documents(study: Study) -> tuple[dict[str, Any], str]:
    """Return the contents of study.json and frames.csv."""
    return study_document(study), frames_csv(study.frames, study.model)


def test_several_threads_may_read_at_once(red: Reader, exam: Path) -> None:
    alone = documents(red.read(exam))
    with ThreadPoolExecutor(4) as pool:
        studies = list(pool.map(lambda _: red.read(exam), range(8)))
    assert all(documents(study) == alone for study in studies)
    assert threads_left() == []


def test_streams_and_recordings_may_be_read_at_once(red: Reader, exam: Path) -> None:
    frames = [view(index in range(20, 32), index) for index in range(FRAMES)]
    expected = [prediction.label for prediction in red.stream(frames)]
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(lambda: [one.label for one in red.stream(frames)]) for _ in range(3)]
        study = pool.submit(red.read, exam)
        assert all(stream.result() == expected for stream in streams)
        assert study.result().ledger.classified == FRAMES


@pytest.mark.quick
def test_callbacks_get_each_frame_in_order_and_each_event_once(red: Reader, exam: Path) -> None:
    frames: list[FrameRecord] = []
    events: list[tuple[Event, int]] = []
    progress: list[tuple[int, int]] = []
    study = red.read(
        exam,
        start_s=1,
        every=2,
        on_frame=frames.append,
        on_event=lambda event: events.append((event, len(frames))),
        progress=lambda done, total: progress.append((done, total)),
    )
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.status for frame in frames] == [frame.status for frame in study.frames]
    assert [(event.start_index, event.end_index) for event, _ in events] == [
        (event.start_index, event.end_index) for event in study.events
    ]
    # Each event is reported when it closes, not at the end.
    assert all(frames_before < FRAMES for _, frames_before in events)
    assert progress[-1] == ((FRAMES - 2) // 2, (FRAMES - 2) // 2)
    assert progress == sorted(progress)


@pytest.mark.quick
def test_an_error_in_a_callback_ends_the_read(red: Reader, exam: Path) -> None:
    def fail(frame: FrameRecord) -> None:
        if frame.index == 40:
            raise ZeroDivisionError("in the callback")

    with pytest.raises(ZeroDivisionError, match="in the callback"):
        red.read(exam, on_frame=fail)
    assert threads_left() == []


# In an event loop.


def test_aread_does_not_block_the_event_loop(red: Reader, exam: Path) -> None:
    async def work() -> None:
        answered = threading.Event()
        loop = asyncio.get_running_loop()

        def on_frame(frame: FrameRecord) -> None:
            if frame.index == 15:
                # The read goes on only if the loop runs meanwhile.
                loop.call_soon_threadsafe(answered.set)
                assert answered.wait(10)

        studies = await asyncio.gather(*(red.aread(exam, on_frame=on_frame) for _ in range(3)))
        assert all(documents(study) == alone for study in studies)

    alone = documents(red.read(exam))
    asyncio.run(work())


def test_an_error_is_raised_in_the_awaiting_task(red: Reader, tmp_path: Path) -> None:
    async def work() -> None:
        await red.aread(tmp_path / "absent.mp4")

    with pytest.raises(InputError, match="absent"):
        asyncio.run(work())


def test_a_cancelled_task_leaves_no_thread(red: Reader, exam: Path) -> None:
    async def work() -> list[int]:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        reported: list[int] = []

        def on_frame(frame: FrameRecord) -> None:
            reported.append(frame.index)
            loop.call_soon_threadsafe(begun.set)
            if frame.index == 15:
                # Wait until the task is cancelled.
                assert go_on.wait(30)

        go_on = threading.Event()
        task = asyncio.create_task(red.aread(exam, on_frame=on_frame))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads_left() == []
        return reported

    assert len(asyncio.run(work())) < FRAMES


def test_aread_with_a_cancel_callback_returns_a_study(red: Reader, exam: Path) -> None:
    calls = 0

    def cancel() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2

    study = asyncio.run(red.aread(exam, cancel=cancel))
    assert 0 < study.ledger.unread < FRAMES


CAMERA_FRAMES = [view(index in range(20, 32), index) for index in range(50)]


async def camera(frames: list[np.ndarray]) -> AsyncIterator[np.ndarray]:
    for frame in frames:
        await asyncio.sleep(0)
        yield frame


@pytest.mark.parametrize("kind", ["list", "camera"])
def test_astream_has_the_answers_of_stream(kind: str, red: Reader) -> None:
    async def work() -> list[Any]:
        source = CAMERA_FRAMES if kind == "list" else camera(CAMERA_FRAMES)
        return [prediction async for prediction in red.astream(source, batch=4)]

    answers, expected = asyncio.run(work()), list(red.stream(CAMERA_FRAMES, batch=4))
    assert [one.index for one in answers] == [one.index for one in expected]
    for one, other in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_astream_can_be_cancelled_while_it_waits_for_a_frame(red: Reader) -> None:
    async def work() -> None:
        closed = asyncio.Event()
        waiting = asyncio.Event()

        async def stuck_camera() -> AsyncIterator[np.ndarray]:
            try:
                for index in range(40):
                    yield view(False, index)
                waiting.set()
                await asyncio.Event().wait()
            finally:
                closed.set()

        async def consume() -> None:
            async for _ in red.astream(stuck_camera()):
                pass

        task = asyncio.create_task(consume())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)
        assert closed.is_set()

    asyncio.run(work())


def test_astream_that_is_closed_early_takes_no_more_frames(red: Reader) -> None:
    taken: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for index in range(1000):
            taken.append(index)
            yield view(False, index)

    async def work() -> None:
        answers = red.astream(source())
        async for prediction in answers:
            if prediction.index == 3:
                break
        await answers.aclose()

    asyncio.run(work())
    # The field of view is found in the first 32 frames.
    assert len(taken) <= 36


def test_an_error_of_the_camera_is_raised_in_the_consuming_task(red: Reader) -> None:
    async def broken_camera() -> AsyncIterator[np.ndarray]:
        yield view(False)
        raise ConnectionError("unplugged")

    async def work() -> None:
        async for _ in red.astream(broken_camera()):
            pass

    with pytest.raises(ConnectionError, match="unplugged"):
        asyncio.run(work())


# The examples in docs/embedding.md.


def code_blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "embedding.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", code_blocks("python"), ids=lambda code: code.splitlines()[0])
def test_the_examples_of_the_documentation_run(code: str, exam: Path, tmp_path: Path, red: Reader) -> None:
    (tmp_path / "exam.mp4").write_bytes(exam.read_bytes())
    assert "Reader.open(" in code
    code = code.replace("Reader.open()", f"Reader.open({str(red.model_path)!r})")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "bleeding" in done.stdout


def test_the_examples_of_the_documentation_pass_strict_mypy(tmp_path: Path) -> None:
    """The mypy run of another program finds the types through ``py.typed``."""
    pytest.importorskip("mypy")
    for number, code in enumerate(code_blocks("python")):
        (tmp_path / f"example_{number}.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
