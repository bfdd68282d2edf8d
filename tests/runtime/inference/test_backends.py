"""One conformance suite over every backend: the same frames give the same answers and the same errors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

# Engines sum some 1e3 float32 products in different orders. Relative to the largest logit, as in export.verify.
FLOAT_LIMIT = 1e-3


@pytest.fixture(scope="module", params=PRECISIONS)
def opened(request: pytest.FixtureRequest, bundle: Path, engine: str) -> Iterator[Backend]:
    backend = open_model(file_of(bundle, engine, request.param), backend=engine, threads=1)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """Return 16 smooth pictures and one of noise, uint8 RGB."""
    from capsule_edge.runtime.phantom.recording import training_frames

    smooth = [frame for frame, _ in training_frames(16, size=SIZE, seed=3)]
    return np.stack([*smooth, np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)])


@pytest.fixture(scope="session")
def expected(bundle: Path, frames: np.ndarray) -> dict[str, Answer]:
    """Return the answers of onnxruntime, the default engine, with which the others are compared."""
    return {
        precision: open_model(bundle / f"model.{precision}.onnx", threads=1).run(frames)
        for precision in PRECISIONS
    }


def step_of(answer: Answer) -> float:
    """Return the quantisation step of INT8 logits, plus 1 % for rounding.

    INT8 engines differ by one where a sum lies on the edge between two integers. This network has no layer that adds
    two feature maps, so the difference is hardly amplified, and logits differ by at most one step.
    """
    return 1.01 * float(np.diff(np.unique(np.round(answer.logits, 5))).min())


def slope(backend: Backend) -> float:
    """Return the largest change of a probability per unit of logit: softmax's 1/4, twice that for two logits."""
    return 0.5 / backend.spec.temperature


def same(a: Answer, b: Answer) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in OUTPUTS)


def test_the_development_environment_has_every_backend() -> None:
    """The suite would otherwise pass by skipping."""
    assert installed_backends() == tuple(BACKENDS)


def test_answers_have_the_shapes_and_types_of_the_contract(opened: Backend, frames: np.ndarray) -> None:
    answer = opened.run(frames)
    labels = len(opened.spec.labels)
    assert answer.probabilities.shape == answer.logits.shape == (len(frames), labels)
    assert answer.features.ndim == 4
    assert answer.features.shape[::3] == (len(frames), labels)
    assert {getattr(answer, name).dtype for name in OUTPUTS} == {np.dtype(np.float32)}
    # Rounding changes each probability by at most 2**-24, and their sum too.
    assert np.abs(answer.probabilities.sum(axis=1) - 1).max() < labels * 2**-23
    assert opened.name in BACKENDS
    assert opened.path.is_file()
    assert len(opened.sha256) == 64


def test_answers_agree_with_onnxruntime(
    opened: Backend, frames: np.ndarray, expected: dict[str, Answer]
) -> None:
    wanted, found = expected[opened.spec.precision], opened.run(frames)
    largest = max(1.0, float(np.abs(wanted.logits).max()))
    limit = step_of(wanted) if opened.spec.precision == "int8" else FLOAT_LIMIT * largest
    assert np.abs(found.logits - wanted.logits).max() <= limit
    assert np.abs(found.probabilities - wanted.probabilities).max() <= slope(opened) * limit + 1e-6
    assert np.array_equal(found.logits.argmax(axis=1), wanted.logits.argmax(axis=1))


def test_the_answer_of_a_frame_does_not_depend_on_its_batch(opened: Backend, frames: np.ndarray) -> None:
    together = opened.run(frames)
    for batch in (1, 5, 2):
        parts = [opened.run(frames[at : at + batch]) for at in range(0, len(frames), batch)]
        logits = np.concatenate([part.logits for part in parts])
        # Integer kernels are exact. Float kernels sum in an order that may depend on the batch.
        limit = 0 if opened.spec.precision == "int8" else FLOAT_LIMIT * float(np.abs(logits).max())
        assert np.abs(logits - together.logits).max() <= limit


def test_the_same_frames_give_the_same_bytes(opened: Backend, frames: np.ndarray) -> None:
    assert same(opened.run(frames), opened.run(frames))


def test_later_calls_do_not_change_earlier_answers(opened: Backend, frames: np.ndarray) -> None:
    first = opened.run(frames[:4])
    kept = Answer(*(getattr(first, name).copy() for name in OUTPUTS))
    opened.run(frames[4:8])
    assert same(first, kept)
    first.probabilities[:] = 0
    assert opened.run(frames[:4]).probabilities.max() > 0


def test_frames_need_not_be_contiguous_and_are_not_changed(opened: Backend, frames: np.ndarray) -> None:
    view = frames[::-2, :, ::-1]
    before = view.copy()
    assert same(opened.run(view), opened.run(np.ascontiguousarray(view)))
    assert np.array_equal(view, before)


def test_parallel_calls_give_each_thread_its_own_answers(opened: Backend, frames: np.ndarray) -> None:
    alone = [opened.run(frames[at : at + 1]) for at in range(len(frames))]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda at: opened.run(frames[at : at + 1]), [*range(len(frames))] * 6))
    assert all(same(answer, alone[at % len(frames)]) for at, answer in enumerate(answers))


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_ctrl_c_after_closing_in_another_thread_does_not_crash(bundle: Path, engine: str) -> None:
    """OpenVINO sets the signal stack of the opening thread, and would unmap it in the closing thread."""
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


def test_closing_during_other_calls_raises_backend_error(
    bundle: Path, engine: str, frames: np.ndarray
) -> None:
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
def test_frames_of_another_type_or_shape_are_refused(opened: Backend, bad: object) -> None:
    with pytest.raises(InputError, match=r"the model needs uint8 \(N, 64, 64, 3\), N >= 1"):
        opened.run(bad)  # type: ignore[arg-type]


def test_one_thread_means_one_thread_at_a_time(bundle: Path, engine: str, frames: np.ndarray) -> None:
    """The processor time of the process is hardly more than the elapsed time if one thread works at a time."""
    backend = open_model(file_of(bundle, engine, "fp32"), backend=engine, threads=1)
    backend.run(frames)
    wall, work = time.perf_counter(), time.process_time()
    for _ in range(20):
        backend.run(frames)
    wall, work = time.perf_counter() - wall, time.process_time() - work
    # On an idle machine two threads would use twice the elapsed time. The system counts in ticks of 10 ms.
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
    """This network adds feature maps, so rounding differs more: up to 3 steps root mean square, as in export.verify."""
    from capsule_edge.runtime.phantom.recording import training_frames

    ours = open_model(default_model(), threads=1)
    theirs = open_model(default_model(), backend="openvino", threads=1)
    size = ours.spec.input.size
    frames = np.stack([frame for frame, _ in training_frames(16, size=size, seed=5)])
    a, b = ours.run(frames), theirs.run(frames)
    step = float(np.diff(np.unique(np.round(a.logits, 5))).min())
    assert np.sqrt(np.mean((a.logits - b.logits) ** 2)) <= 3 * step
    assert ours.spec == theirs.spec
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


def test_the_run_command_takes_every_backend(
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
    # One step, and the rounding of the softmax and of the six decimals.
    ours = open_model(bundle / "model.int8.onnx", threads=1)
    limit = slope(ours) * step_of(ours.run(frames)) + 1e-5
    assert np.abs(np.array(found) - np.array(expected)).max() < limit


def test_the_evaluate_and_compare_commands_take_every_backend(
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


def test_an_error_for_a_tflite_file_names_its_backend(
    bundle: Path, exam: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call("run", exam, "--model", bundle / "model.int8.tflite", "--json", capsys=capsys)
    assert code == 1
    assert "--backend litert" in json.loads(out)["error"]["hint"]
    code, _, err = call("info", bundle / "model.int8.tflite", capsys=capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "use --backend litert" in err


def test_the_latency_benchmark_gives_each_file_to_the_backends_that_read_it(
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
