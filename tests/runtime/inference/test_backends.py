"""One conformance suite over every backend: same frames, same answers, same errors, whatever the engine."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from backend_samples import PRECISIONS, SIZE, file_of
from red_model import write_exam

from capsule_edge.benchmarks import latency
from capsule_edge.runtime.errors import BackendError, InputError
from capsule_edge.runtime.inference import BACKENDS, Backend, installed_backends, open_model
from capsule_edge.runtime.inference.backend import OUTPUTS, Answer
from capsule_edge.runtime.reader import Reader, default_model

# Sums of some 1e3 float32 products in another order, relative to the largest logit, as in export.verify.
FLOAT_LIMIT = 1e-3


@pytest.fixture(scope="module", params=PRECISIONS)
def opened(request: pytest.FixtureRequest, bundle: Path, engine: str) -> Iterator[Backend]:
    backend = open_model(file_of(bundle, engine, request.param), backend=engine, threads=1)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """16 smooth pictures and one of noise, uint8 RGB."""
    from capsule_edge.runtime.phantom.recording import training_frames

    smooth = [frame for frame, _ in training_frames(16, size=SIZE, seed=3)]
    return np.stack([*smooth, np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)])


@pytest.fixture(scope="session")
def expected(bundle: Path, frames: np.ndarray) -> dict[str, Answer]:
    """What onnxruntime answers; the default engine is what the others are held to."""
    return {
        precision: open_model(bundle / f"model.{precision}.onnx", threads=1).run(frames)
        for precision in PRECISIONS
    }


def step_of(answer: Answer) -> float:
    """The step of the INT8 logits, whose multiples they are, with 1 % for rounding.

    Engines of integers differ where a sum falls on the edge between two integers; without a layer that adds two
    maps hardly any of that is amplified, and one step is what it comes to.
    """
    return 1.01 * float(np.diff(np.unique(np.round(answer.logits, 5))).min())


def slope(backend: Backend) -> float:
    """How much a probability moves for each unit of a logit: softmax's 1/4, for two that move apart."""
    return 0.5 / backend.spec.temperature


def same(a: Answer, b: Answer) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in OUTPUTS)


def test_the_development_environment_has_every_backend() -> None:
    """Else the suite would pass by skipping."""
    assert installed_backends() == tuple(BACKENDS)


def test_it_answers_as_the_contract_says(opened: Backend, frames: np.ndarray) -> None:
    answer = opened.run(frames)
    labels = len(opened.spec.labels)
    assert answer.probabilities.shape == answer.logits.shape == (len(frames), labels)
    assert answer.features.ndim == 4
    assert answer.features.shape[::3] == (len(frames), labels)
    assert {getattr(answer, name).dtype for name in OUTPUTS} == {np.dtype(np.float32)}
    # Each of the labels' probabilities is rounded to 2**-24 at most, and so is their sum.
    assert np.abs(answer.probabilities.sum(axis=1) - 1).max() < labels * 2**-23
    assert opened.name in BACKENDS
    assert opened.path.is_file()
    assert len(opened.sha256) == 64


def test_it_agrees_with_onnxruntime(opened: Backend, frames: np.ndarray, expected: dict[str, Answer]) -> None:
    wanted, found = expected[opened.spec.precision], opened.run(frames)
    largest = max(1.0, float(np.abs(wanted.logits).max()))
    limit = step_of(wanted) if opened.spec.precision == "int8" else FLOAT_LIMIT * largest
    assert np.abs(found.logits - wanted.logits).max() <= limit
    assert np.abs(found.probabilities - wanted.probabilities).max() <= slope(opened) * limit + 1e-6
    assert np.array_equal(found.logits.argmax(axis=1), wanted.logits.argmax(axis=1))


def test_a_frame_is_answered_the_same_alone_and_in_any_batch(opened: Backend, frames: np.ndarray) -> None:
    together = opened.run(frames)
    for batch in (1, 5, 2):
        parts = [opened.run(frames[at : at + batch]) for at in range(0, len(frames), batch)]
        logits = np.concatenate([part.logits for part in parts])
        # Integer kernels have one right answer; float ones sum in an order that may depend on the batch.
        limit = 0 if opened.spec.precision == "int8" else FLOAT_LIMIT * float(np.abs(logits).max())
        assert np.abs(logits - together.logits).max() <= limit


def test_the_same_call_answers_the_same_bytes(opened: Backend, frames: np.ndarray) -> None:
    assert same(opened.run(frames), opened.run(frames))


def test_answers_are_the_callers_own(opened: Backend, frames: np.ndarray) -> None:
    first = opened.run(frames[:4])
    kept = Answer(*(getattr(first, name).copy() for name in OUTPUTS))
    opened.run(frames[4:8])
    assert same(first, kept)
    first.probabilities[:] = 0
    assert opened.run(frames[:4]).probabilities.max() > 0


def test_frames_need_not_be_contiguous_and_stay_as_they_are(opened: Backend, frames: np.ndarray) -> None:
    view = frames[::-2, :, ::-1]
    before = view.copy()
    assert same(opened.run(view), opened.run(np.ascontiguousarray(view)))
    assert np.array_equal(view, before)


def test_several_threads_get_their_own_answers(opened: Backend, frames: np.ndarray) -> None:
    alone = [opened.run(frames[at : at + 1]) for at in range(len(frames))]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda at: opened.run(frames[at : at + 1]), [*range(len(frames))] * 6))
    assert all(same(answer, alone[at % len(frames)]) for at, answer in enumerate(answers))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_control_c_is_survived_after_closing_in_another_thread(bundle: Path, engine: str) -> None:
    """OpenVINO leaves the opening thread a stack for signals that it unmaps in the closing one."""
    code = f"""
import signal, threading
from capsule_edge.runtime.inference.engines import open_model
backend = open_model({str(file_of(bundle, engine, "int8"))!r}, backend={engine!r})
threads = [threading.Thread(target=backend.close)]
del backend
threads[0].start()
threads.pop().join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_closing_while_others_run_is_an_error_of_ours(bundle: Path, engine: str, frames: np.ndarray) -> None:
    backend = open_model(file_of(bundle, engine, "int8"), backend=engine, threads=1)

    def ask(_: int) -> str:
        try:
            backend.run(frames)
        except BackendError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(ask, turn) for turn in range(40)]
        results[0].result()
        backend.close()
        said = {result.result() for result in results}
    assert said <= {"", f"{backend.path.name} is closed (open it again)"}
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.run(frames)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((1, SIZE, SIZE + 1, 3), np.uint8),
        np.zeros((1, SIZE, SIZE), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
        [[1, 2], [3, 4]],
        None,
    ],
    ids=lambda bad: f"{getattr(bad, 'dtype', '')}{getattr(bad, 'shape', type(bad).__name__)}",
)
def test_other_arrays_are_refused(opened: Backend, bad: object) -> None:
    with pytest.raises(InputError, match=r"the model needs uint8 \(N, 64, 64, 3\), N >= 1"):
        opened.run(bad)  # type: ignore[arg-type]


def test_one_thread_is_one_thread(bundle: Path, engine: str, frames: np.ndarray) -> None:
    """Processor time of the whole process cannot pass the clock's by much if one thread works at a time."""
    backend = open_model(file_of(bundle, engine, "fp32"), backend=engine, threads=1)
    backend.run(frames)
    wall, work = time.perf_counter(), time.process_time()
    for _ in range(20):
        backend.run(frames)
    wall, work = time.perf_counter() - wall, time.process_time() - work
    # Two threads would come to 2 on an idle machine; a tick of 10 ms either way is what the system counts in.
    assert work <= 1.2 * wall + 0.02


@pytest.mark.parametrize("threads", [0, 2, 3])
def test_the_number_of_threads_changes_no_answer(
    bundle: Path, engine: str, frames: np.ndarray, threads: int
) -> None:
    for precision in PRECISIONS:
        file = file_of(bundle, engine, precision)
        alone = open_model(file, backend=engine, threads=1).run(frames)
        together = open_model(file, backend=engine, threads=threads).run(frames)
        limit = 0 if precision == "int8" else FLOAT_LIMIT * float(np.abs(alone.logits).max())
        assert np.abs(alone.logits - together.logits).max() <= limit


def test_the_default_model_answers_alike_in_openvino() -> None:
    """A network with additions, where the engines round apart: 3 steps of root mean square, as in export.verify."""
    from capsule_edge.runtime.phantom.recording import training_frames

    ours = open_model(default_model(), threads=1)
    theirs = open_model(default_model(), backend="openvino", threads=1)
    size = ours.spec.input.size
    frames = np.stack([frame for frame, _ in training_frames(16, size=size, seed=5)])
    a, b = ours.run(frames), theirs.run(frames)
    step = float(np.diff(np.unique(np.round(a.logits, 5))).min())
    assert np.sqrt(np.mean((a.logits - b.logits) ** 2)) <= 3 * step
    assert replace(ours.spec) == theirs.spec
    assert ours.sha256 == theirs.sha256


def call(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from capsule_edge.cli.main import main

    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return int(stopped.value.code or 0), shown.out, shown.err


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4")


def test_run_reads_with_every_backend(
    bundle: Path,
    engine: str,
    exam: Path,
    frames: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = file_of(bundle, engine, "int8")
    code, out, _ = call(
        *("run", exam, "--model", file, "--backend", engine, "--out", tmp_path / "out", "--json"),
        capsys=capsys,
    )
    (entry,) = json.loads(out)["recordings"]
    assert (code, entry["study"]["ledger"]["classified"]) == (0, 60)
    assert entry["study"]["model"]["backend"] == engine
    timing = json.loads((tmp_path / "out" / "timing.json").read_text("utf-8"))
    assert timing["versions"][BACKENDS[engine].needs.replace("_", "-")]
    with Reader.open(bundle / "model.int8.onnx") as reader:
        expected = [frame.probabilities for frame in reader.read(exam).frames]
    rows = list(csv.DictReader((tmp_path / "out" / "frames.csv").open(encoding="utf-8")))
    found = [[float(row[name]) for name in row if name.startswith("p_")] for row in rows]
    # Besides a step, the softmax's last bits and the six decimals.
    ours = open_model(bundle / "model.int8.onnx", threads=1)
    limit = slope(ours) * step_of(ours.run(frames)) + 1e-5
    assert np.abs(np.array(found) - np.array(expected)).max() < limit


def test_evaluate_and_compare_take_every_backend(
    bundle: Path, engine: str, frames: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(bundle, engine, "int8")
    keys = open_model(bundle / "model.int8.onnx").spec.keys
    lines = ["file,label,source,video_id,frame_number,split"]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame[..., ::-1])
        lines.append(f"{index}.png,{keys[index % len(keys)]},made,video{index % 4},{index},val")
    (tmp_path / "labels.csv").write_text("\n".join(lines), "utf-8")
    data = ("--data", tmp_path, "--resamples", 20, "--json")
    code, out, err = call("evaluate", file, "--backend", engine, *data, capsys=capsys)
    assert (code, json.loads(out)["model"]["backend"]) == (0, engine), err
    code, out, err = call(
        *("compare", bundle / "model.int8.onnx", file, "--int8-backend", engine, *data), capsys=capsys
    )
    document = json.loads(out)
    assert document["models"]["b"]["backend"] == engine, err
    assert document["agreement"] == 1
    ours = open_model(bundle / "model.int8.onnx", threads=1)
    assert document["max_abs_dp"] < slope(ours) * step_of(ours.run(frames)) + 1e-5


def test_the_command_line_names_the_backend_for_a_tflite_file(
    bundle: Path, exam: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call("run", exam, "--model", bundle / "model.int8.tflite", "--json", capsys=capsys)
    assert code == 1
    assert "--backend litert" in json.loads(out)["error"]["hint"]
    code, _, err = call("info", bundle / "model.int8.tflite", capsys=capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "use --backend litert" in err


def test_the_latency_benchmark_takes_files_to_the_backends_that_read_them(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(bundle / name) for name in ("model.int8.onnx", "model.int8.tflite")]
    names = [word for engine in BACKENDS for word in ("--backend", engine)]
    latency.main([*files, *names, "--rounds", "3"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(entry["file"], entry["backend"]) for entry in document["models"]] == [
        *(("model.int8.onnx", name) for name in ("onnxruntime", "openvino")),
        ("model.int8.tflite", "litert"),
    ]
    with pytest.raises(BackendError, match="use --backend litert"):
        latency.main([files[1], "--rounds", "3"])
    with pytest.raises(BackendError, match="'nonesuch' is not known"):
        latency.main([files[0], "--backend", "nonesuch", "--backend", "onnxruntime"])
