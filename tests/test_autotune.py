"""Fitting the plan to the machine: the fastest wins, it is remembered, and no answer depends on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from red_model import write_exam
from tiny_model import write_tiny_model

from capsule_edge.runtime import Reader, autotune
from capsule_edge.runtime.autotune import PlanKey, Tuner, cache_folder, load_plan, plans, save_plan
from capsule_edge.runtime.outputs import prepare_folder, write_study
from capsule_edge.runtime.pipeline import FixedPlan

KEY = PlanKey("0" * 64, "onnxruntime", 4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPSULE_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def drive(tuner: Tuner, speed: Callable[[FixedPlan, float], float], now: list[float]) -> None:
    """Answer batches at ``speed(plan, time)`` frames a second until the tuner has chosen."""
    for _ in range(100_000):
        if tuner.chosen is not None:
            return
        plan = FixedPlan(tuner.workers(), tuner.batch())
        now[0] += plan.size / speed(plan, now[0])
        tuner.answered(plan.size)
    raise AssertionError("never chosen")


@pytest.mark.parametrize("best", range(3))
def test_the_fastest_plan_is_chosen(best: int) -> None:
    now, candidates, found = [0.0], plans(4, 128), []
    tuner = Tuner(candidates, clock=lambda: now[0], settled=found.append)
    drive(tuner, lambda plan, _: 1200 if plan == candidates[best] else 1000, now)
    assert tuner.chosen == candidates[best]
    assert found == [candidates[best]]
    assert (tuner.workers(), tuner.batch()) == (candidates[best].most_workers, candidates[best].size)
    # Nothing is measured or changed afterwards.
    tuner.answered(1_000_000)
    assert len(found) == 1


def test_a_machine_that_slows_down_does_not_decide() -> None:
    now, candidates = [0.0], plans(4, 128)
    tuner = Tuner(candidates, clock=lambda: now[0])
    # All plans are alike, and another program takes ever more of the machine.
    drive(tuner, lambda _plan, time: 1000 / (1 + time / 40), now)
    assert tuner.chosen == candidates[0]


def test_it_ends_before_the_shortest_recording_does() -> None:
    now, frames = [0.0], 0
    for cores in (1, 2, 4):
        tuner, frames = Tuner(plans(cores, 128), clock=lambda: now[0]), 0
        while tuner.chosen is None:
            now[0] += tuner.batch() / 500
            frames += tuner.batch()
            tuner.answered(tuner.batch())
        # At 500 frames a second; a faster machine needs more frames for the same seconds.
        assert frames <= autotune.SHORTEST * cores


def test_a_larger_picture_makes_a_smaller_batch() -> None:
    assert [plans(2, side)[0].size for side in (32, 128, 176, 224, 256, 4096)] == [16, 8, 4, 2, 2, 2]


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_plans_use_no_more_than_the_cores(cores: int) -> None:
    assert all(1 <= plan.most_workers <= cores for plan in plans(cores, 128))
    assert len(set(plans(cores, 128))) == len(plans(cores, 128)) >= 2


def test_a_plan_is_remembered_for_its_model_engine_and_cores() -> None:
    save_plan(FixedPlan(3, 8), KEY)
    assert load_plan(KEY) == FixedPlan(3, 8)
    for other in (
        PlanKey("1" * 64, "onnxruntime", 4),
        PlanKey("0" * 64, "openvino", 4),
        PlanKey("0" * 64, "onnxruntime", 8),
    ):
        assert load_plan(other) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"schema": "capsule-edge/plan/2"}',
        '{"schema": "capsule-edge/plan/2", "workers": 5, "batch": 8}',
        '{"schema": "capsule-edge/plan/2", "workers": 0, "batch": 8}',
        '{"schema": "capsule-edge/plan/2", "workers": 2, "batch": 100000}',
        '{"schema": "capsule-edge/plan/2", "workers": 2, "batch": true}',
        '{"schema": "capsule-edge/plan/2", "workers": "2", "batch": 8}',
        '{"schema": "capsule-edge/plan/0", "workers": 2, "batch": 8}',
    ],
)
def test_a_spoilt_cache_is_as_none(text: str, cache: Path) -> None:
    save_plan(FixedPlan(2, 8), KEY)
    (file,) = cache.rglob("*.json")
    file.write_text(text)
    assert load_plan(KEY) is None


def test_a_cache_that_cannot_be_written_is_no_fault(cache: Path) -> None:
    cache.write_text("in the way")
    save_plan(FixedPlan(2, 8), KEY)
    assert load_plan(KEY) is None


@pytest.mark.parametrize(
    ("system", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "capsule-edge"),
        ("win32", "LOCALAPPDATA", "capsule-edge/Cache"),
        ("darwin", None, "Library/Caches/capsule-edge"),
    ],
)
def test_the_cache_lies_where_the_system_keeps_such_things(
    system: str, variable: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPSULE_EDGE_CACHE")
    monkeypatch.setattr(autotune.sys, "platform", system)
    monkeypatch.setenv(variable or "HOME", str(tmp_path))
    assert cache_folder() == tmp_path / expected


def test_a_search_changes_no_byte_and_goes_to_timing_alone(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = write_exam(tmp_path / "exam.mp4", frames=240)
    model = write_tiny_model(tmp_path / "tiny.onnx", gain=8.0)

    def files(**options: object) -> dict[str, bytes]:
        with Reader.open(model, threads=2, **options) as opened:
            study = opened.read(exam)
            plan = opened.plan
        assert isinstance(plan, Tuner if searching else FixedPlan)
        paths = write_study(study, prepare_folder(tmp_path / "out", overwrite=True), timing={})
        return {name: path.read_bytes() for name, path in paths.items()}

    searching = False
    expected = files(autotune=False)
    monkeypatch.setattr(autotune, "SHORTEST", 1)
    monkeypatch.setattr(autotune, "_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "_BATCHES", 1)
    monkeypatch.setattr(autotune, "_ROUNDS", 1)
    searching = True
    monkeypatch.setattr(autotune, "plans", lambda cores, side: [FixedPlan(cores, 2), FixedPlan(1, 1)])
    assert files() == expected
    (kept,) = cache.rglob("*.json")
    assert json.loads(kept.read_text())["workers"] in (1, 2)
    searching = False
    assert files() == expected
