"""Memory of a reading: pictures are freed at once, and the benchmarks of memory and start run."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from threading import Semaphore

import damage
import numpy as np
import pytest
from av.video.frame import VideoFrame
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import startup
from capsule_edge.benchmarks.machine import memory_now
from capsule_edge.benchmarks.reading import main, trace_memory
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import BackendError, OutputError, UsageError
from capsule_edge.runtime.pipeline import give_back

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def pictures_held() -> int:
    return sum(isinstance(each, VideoFrame) for each in gc.get_objects())


@pytest.mark.parametrize("gate", [None, 0.5])
def test_pictures_are_freed_without_the_garbage_collector(gate: float | None, tmp_path: Path) -> None:
    recording = damage.encode(tmp_path / "exam.mp4", frames=60)
    model = write_tiny_model(tmp_path / "tiny.onnx")
    gc.collect()
    before = pictures_held()
    gc.disable()
    try:
        with Reader.open(model) as reader:
            study = reader.read(recording, gate=gate)
        assert len(study.frames) == 60
        # A reference cycle would keep all sixty.
        assert pictures_held() - before <= 4
    finally:
        gc.enable()


@on_linux
def test_free_memory_between_used_blocks_is_given_back() -> None:
    def held() -> int:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    # Blocks small enough to share pages with others; every tenth stays in use.
    blocks = [b"x" * 60_000 for _ in range(2000)]
    full = held()
    kept = blocks[::10]
    del blocks
    give_back()
    assert full - held() > 80_000_000
    assert len(kept) == 200


@on_linux
def test_the_benchmark_traces_a_run_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = damage.encode(tmp_path / "exam.mp4", frames=60)
    plot, model = tmp_path / "memory.png", str(write_tiny_model(tmp_path / "tiny.onnx"))
    main([str(recording), "--model", model, "--cores", "1", "--written", "--plot", str(plot)])
    result = json.loads(capsys.readouterr().out)
    assert (result["frames"], result["duplicates"]) == (60, 0)
    assert 0 < result["own_mb"] <= result["peak_mb"]
    assert plot.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OutputError, match="cannot be written"):
        main([str(recording), "--model", model, "--cores", "1", "--plot", str(tmp_path / "absent" / "a.png")])


@on_linux
def test_memory_that_is_held_for_a_while_is_sampled() -> None:
    samples = Semaphore(0)

    def read() -> tuple[int, int] | None:
        found = memory_now()
        samples.release()
        return found

    held_before = memory_now()
    assert held_before is not None
    with trace_memory(interval_s=0.001, read=read) as trace:
        held = np.ones(20_000_000)
        while samples.acquire(blocking=False):
            pass
        # The first may have been read before the array was there, the second was not. A third says that the second is
        # in the trace.
        for _ in range(3):
            samples.acquire()
    assert held.sum() == 20_000_000
    seconds, whole, own = zip(*trace, strict=True)
    assert list(seconds) == sorted(seconds)
    assert all(0 < mine <= all_of_it for mine, all_of_it in zip(own, whole, strict=True))
    # The array has 160 MB, whatever else the process holds.
    assert max(own) - held_before[1] / 1e6 > 120


def test_the_time_to_the_first_answer_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = damage.encode(tmp_path / "exam.mp4", frames=60)
    model = str(write_tiny_model(tmp_path / "tiny.onnx"))
    startup.main([str(recording), "--model", model, "--rounds", "1"])
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert 0 < result["seconds"] < 60
    assert result["core_s"] is None or result["core_s"] > 0
    with pytest.raises(BackendError, match="without an answer"):
        startup.measure_first_answer([tmp_path / "absent.mp4"], model=model, rounds=1)
    with pytest.raises(UsageError, match="rounds is 0"):
        startup.measure_first_answer([recording], rounds=0)
