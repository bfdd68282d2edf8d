"""The reader inside another program: from threads, several at once, from an event loop, cancelled midway."""

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


def result(study: Study) -> tuple[dict[str, Any], str]:
    return study_document(study), frames_csv(study.frames, study.model)


def test_several_threads_read_at_once(red: Reader, exam: Path) -> None:
    alone = result(red.read(exam))
    with ThreadPoolExecutor(4) as pool:
        studies = list(pool.map(lambda _: red.read(exam), range(8)))
    assert all(result(study) == alone for study in studies)
    assert threads_left() == []


def test_streams_and_recordings_at_once(red: Reader, exam: Path) -> None:
    frames = [view(index in range(20, 32), index) for index in range(FRAMES)]
    expected = [prediction.label for prediction in red.stream(frames)]
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(lambda: [one.label for one in red.stream(frames)]) for _ in range(3)]
        study = pool.submit(red.read, exam)
        assert all(stream.result() == expected for stream in streams)
        assert study.result().ledger.classified == FRAMES


def test_callbacks_tell_each_frame_in_order_and_each_event_once(red: Reader, exam: Path) -> None:
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
    assert all(told < FRAMES for _, told in events)  # as it closed, not at the end
    assert progress[-1] == ((FRAMES - 2) // 2, (FRAMES - 2) // 2)
    assert progress == sorted(progress)


def test_what_a_callback_raises_ends_the_reading(red: Reader, exam: Path) -> None:
    def fail(frame: FrameRecord) -> None:
        if frame.index == 40:
            raise ZeroDivisionError("of the listener")

    with pytest.raises(ZeroDivisionError, match="of the listener"):
        red.read(exam, on_frame=fail)
    assert threads_left() == []


# From an event loop.


def test_recordings_are_read_beside_the_loop(red: Reader, exam: Path) -> None:
    async def work() -> None:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        studies = await asyncio.gather(*(red.aread(exam, every=1) for _ in range(3)))
        ticking.cancel()
        assert turns > 10  # the loop was free
        assert all(result(study) == alone for study in studies)

    alone = result(red.read(exam))
    asyncio.run(work())


def test_an_error_reaches_the_task(red: Reader, tmp_path: Path) -> None:
    async def work() -> None:
        await red.aread(tmp_path / "absent.mp4")

    with pytest.raises(InputError, match="absent"):
        asyncio.run(work())


def test_a_cancelled_task_leaves_no_thread(red: Reader, exam: Path) -> None:
    async def work() -> list[int]:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        seen: list[int] = []

        def on_frame(frame: FrameRecord) -> None:
            seen.append(frame.index)
            loop.call_soon_threadsafe(begun.set)
            if frame.index == 15:  # the task is cancelled before the second batch is looked at
                go_on.wait(30)

        go_on = threading.Event()
        task = asyncio.create_task(red.aread(exam, on_frame=on_frame))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads_left() == []
        return seen

    assert len(asyncio.run(work())) < FRAMES


def test_the_callers_own_cancel_still_gives_a_study(red: Reader, exam: Path) -> None:
    asked: list[int] = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) > 2

    study = asyncio.run(red.aread(exam, cancel=cancel))
    assert 0 < study.ledger.unread < FRAMES


FRAMES_OF_A_CAMERA = [view(index in range(20, 32), index) for index in range(50)]


async def camera(frames: list[np.ndarray]) -> AsyncIterator[np.ndarray]:
    for frame in frames:
        await asyncio.sleep(0)
        yield frame


@pytest.mark.parametrize("kind", ["list", "camera"])
def test_a_stream_in_a_loop_answers_as_one_outside(kind: str, red: Reader) -> None:
    async def work() -> list[Any]:
        source = FRAMES_OF_A_CAMERA if kind == "list" else camera(FRAMES_OF_A_CAMERA)
        return [prediction async for prediction in red.astream(source, batch=4)]

    answers, expected = asyncio.run(work()), list(red.stream(FRAMES_OF_A_CAMERA, batch=4))
    assert [one.index for one in answers] == [one.index for one in expected]
    for one, other in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_a_stream_that_waits_for_a_camera_can_be_cancelled(red: Reader) -> None:
    async def work() -> None:
        closed = asyncio.Event()
        waiting = asyncio.Event()

        async def stuck() -> AsyncIterator[np.ndarray]:
            try:
                for index in range(40):
                    yield view(False, index)
                waiting.set()
                await asyncio.Event().wait()
            finally:
                closed.set()

        async def listen() -> None:
            async for _ in red.astream(stuck()):
                pass

        task = asyncio.create_task(listen())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)
        assert closed.is_set()

    asyncio.run(work())


def test_a_stream_that_is_left_early_is_closed(red: Reader) -> None:
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
    assert len(taken) <= 36


def test_an_error_of_the_camera_reaches_the_task(red: Reader) -> None:
    async def broken() -> AsyncIterator[np.ndarray]:
        yield view(False)
        raise ConnectionError("unplugged")

    async def work() -> None:
        async for _ in red.astream(broken()):
            pass

    with pytest.raises(ConnectionError, match="unplugged"):
        asyncio.run(work())


# What the documents show.


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "embedding.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_the_examples_of_the_document_run(code: str, exam: Path, tmp_path: Path, red: Reader) -> None:
    (tmp_path / "exam.mp4").write_bytes(exam.read_bytes())
    assert "Reader.open(" in code
    code = code.replace("Reader.open()", f"Reader.open({str(red.model_path)!r})")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "bleeding" in done.stdout


def test_the_examples_of_the_document_are_typed(tmp_path: Path) -> None:
    """Another program's mypy, strict, sees every type through ``py.typed``."""
    pytest.importorskip("mypy")
    for number, code in enumerate(blocks("python")):
        (tmp_path / f"example_{number}.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
