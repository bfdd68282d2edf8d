"""The examples in other languages give the answers that Python gives, where their tools are present.

Nothing is installed here. ``onnxruntime-node`` is looked for in ``CAPSULE_EDGE_NODE_MODULES``, else in
``examples/node/node_modules``; ``onnxruntime_c_api.h`` in ``CAPSULE_EDGE_ORT_INCLUDE``, else where Debian has it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from paths import ROOT
from red_model import write_exam, write_red_model

from capsule_edge.runtime import default_model, open_model

EXAMPLES = ROOT / "examples"
NODE_MODULES = Path(os.environ.get("CAPSULE_EDGE_NODE_MODULES") or EXAMPLES / "node" / "node_modules")
HEADERS = Path(os.environ.get("CAPSULE_EDGE_ORT_INCLUDE") or "/usr/include/onnxruntime")
FRAMES = 40
# The INT8 part ends at the logits and is exact in integers; what follows is float32: a softmax of some ten values,
# each within a few units in the last place (1.2e-7 below 1).
TOLERANCE = 1e-6

node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "onnxruntime-node").is_dir(),
    reason=f"needs node and onnxruntime-node, looked for in {NODE_MODULES} (CAPSULE_EDGE_NODE_MODULES)",
)
cpp = pytest.mark.skipif(
    shutil.which("g++") is None or not (HEADERS / "onnxruntime_c_api.h").is_file(),
    reason=f"needs g++ and onnxruntime_c_api.h, looked for in {HEADERS} (CAPSULE_EDGE_ORT_INCLUDE)",
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames as the helper writes them, of a real recording where there is one."""
    folder = tmp_path_factory.mktemp("frames with spaces")
    real = Path(os.environ.get("CAPSULE_EDGE_DATA", "")) / "recordings" / "bca26705313a4644.mp4"
    recording = real if real.is_file() else write_exam(folder / "exam.mp4")
    script = str(EXAMPLES / "write_frames.py")
    out = folder / "frames.raw"
    done = subprocess.run(
        [sys.executable, script, str(recording), str(out), "--frames", str(FRAMES)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{FRAMES} frames\n"
    return out


@pytest.fixture(scope="module")
def expected(frames: Path) -> np.ndarray:
    """The probabilities computed in Python, float32 (frames, labels)."""
    backend = open_model(default_model())
    size = backend.spec.input.size
    pixels = np.fromfile(frames, np.uint8).reshape(-1, size, size, 3)
    assert len(pixels) == FRAMES
    assert frames.with_suffix(".labels").read_text("utf-8").split() == list(backend.spec.keys)
    return backend.run(pixels).probabilities


def test_the_helper_writes_what_the_reader_sees(frames: Path, expected: np.ndarray) -> None:
    assert np.ptp(expected, axis=0).max() > 0.01  # frames that differ, or nothing below is tested


def run_node(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(EXAMPLES / "node" / "classify.cjs"), *map(str, arguments)],
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@node
def test_node_gives_the_same_probabilities(frames: Path, expected: np.ndarray) -> None:
    done = run_node(default_model(), frames)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in lines] == list(range(FRAMES))
    keys = frames.with_suffix(".labels").read_text("utf-8").split()
    assert [line["label"] for line in lines] == [keys[best] for best in expected.argmax(axis=1)]
    found = np.array([line["probabilities"] for line in lines], np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@node
def test_node_says_what_is_wrong_in_a_line(frames: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.raw"
    cut.write_bytes(frames.read_bytes()[:-1])
    shutil.copy(frames.with_suffix(".labels"), tmp_path / "cut.labels")
    done = run_node(default_model(), cut)
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected a multiple of" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run_node().returncode == 2


@pytest.mark.skipif(shutil.which("node") is None or os.name != "posix", reason="needs node and a shell")
def test_node_follows_a_run(tmp_path: Path) -> None:
    tool = tmp_path / "capsule-edge"
    code = "from capsule_edge.cli.main import main; main()"
    tool.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{code}' \"$@\"\n")
    tool.chmod(0o755)
    exam, model = write_exam(tmp_path / "exam 1.mp4"), write_red_model(tmp_path / "red.onnx")
    arguments = ["node", str(EXAMPLES / "node" / "follow.cjs"), str(exam), "--model", str(model)]
    environment = os.environ | {"CAPSULE_EDGE": str(tool)}
    for recording, code, out, err in (
        (
            exam,
            0,
            "bleeding from 10 s to 16.5 s, at most 0.999997\n60 of 60 frames classified, 1 events\n",
            "",
        ),
        (tmp_path / "absent.mp4", 1, "", "error: "),
    ):
        arguments[2] = str(recording)
        done = subprocess.run(
            [*arguments, "--out", str(tmp_path / "out")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (code, out)
        assert done.stderr.startswith(err)
        assert done.stderr.count("\n") == bool(err)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, built against the library of the installed Python package."""
    capi = Path(onnxruntime.__file__).parent / "capi"
    found = sorted(capi.glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip(f"needs libonnxruntime.so, not found in {capi}")
    folder = tmp_path_factory.mktemp("cpp")
    # What the program asks the loader for is the library's own name, which the wheel gives no file.
    (folder / "libonnxruntime.so.1").symlink_to(found[-1])
    source, made = EXAMPLES / "cpp" / "classify.cpp", folder / "classify"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", str(HEADERS), f"-Wl,-rpath,{folder}"]
    subprocess.run(
        ["g++", *flags, str(source), str(folder / "libonnxruntime.so.1"), "-o", str(made)], check=True
    )
    return made


@cpp
def test_cpp_gives_the_same_probabilities(frames: Path, expected: np.ndarray, program: Path) -> None:
    done = subprocess.run(
        [str(program), str(default_model()), str(frames)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@cpp
def test_cpp_says_what_is_wrong_in_a_line(frames: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.raw").write_bytes(frames.read_bytes()[:-1])
    (tmp_path / "none.onnx").write_bytes(b"no model")
    for arguments, says in (
        ((default_model(), tmp_path / "cut.raw"), "expected a multiple of"),
        ((default_model(), tmp_path / "absent.raw"), "cannot be opened"),
        ((tmp_path / "none.onnx", frames), "error: "),
    ):
        done = subprocess.run(
            [str(program), *map(str, arguments)], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    assert subprocess.run([str(program)], capture_output=True).returncode == 2
