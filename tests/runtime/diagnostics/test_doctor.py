"""Golden frames, saturation where it really happens, and the ``doctor`` command that reports both."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from red_model import write_exam
from tiny_model import write_tiny_model

from capsule_edge.cli.main import main
from capsule_edge.runtime.diagnostics import (
    GOLDEN_FILE,
    cpu,
    golden,
    golden_frames,
    know_answers,
    replay,
    saturation,
)
from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import (
    BACKENDS,
    InputSpec,
    default_model,
    open_model,
    open_reference,
    stored_answers,
)
from capsule_edge.runtime.inference.backend import Answer
from capsule_edge.runtime.reader import Reader

X86 = platform.machine().lower() in ("x86_64", "amd64")
QEMU = shutil.which("qemu-x86_64")
# With this, oneDNN (the library behind OpenVINO) uses its code for CPUs without VNNI.
WITHOUT_VNNI = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
ANSWER = """
import sys
import numpy as np
from capsule_edge.runtime.inference.engines import open_model
frames = np.load(sys.argv[1])
for backend, file in zip(sys.argv[2::2], sys.argv[3::2]):
    print(open_model(file, backend=backend, threads=1).run(frames).logits.tolist())
"""

CALLS = """
import contextlib, io, json, sys
from capsule_edge.cli.main import main
called = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code or 0
    called.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(called))
"""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the four files of one network: once saturation-safe, once not."""
    pytest.importorskip("tensorflow")
    from quantised_models import write_run

    from capsule_edge.export.bundle import export_run

    found = {}
    for name in ("safe", "unsafe"):
        folder = tmp_path_factory.mktemp(name)
        run = write_run(folder / "run", "plain_cnn", 64, saturation_safe=name == "safe")
        found[name] = export_run(run, folder / "out").folder
    return found


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "frames.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
    return path


def answers(
    noise: Path, pairs: list[tuple[str, Path]], *, prefix: tuple[str, ...] = (), **env: str
) -> list[Any]:
    """Return the logits of each (backend, file), computed in a fresh interpreter."""
    words = [str(word) for pair in pairs for word in pair]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", ANSWER, str(noise), *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [np.array(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def call_without_vnni(*commands: tuple[object, ...]) -> list[SimpleNamespace]:
    """Run commands one after the other in one process where oneDNN uses no VNNI; return code, out and err of each."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([[str(word) for word in words] for words in commands])],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **WITHOUT_VNNI},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [SimpleNamespace(**called) for called in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return SimpleNamespace(code=int(stopped.value.code or 0), out=shown.out, err=shown.err)

    return run


# Saturation, where it happens


@pytest.mark.skipif(not X86, reason="sums saturate on x86 alone")
def test_the_safe_file_answers_the_same_without_vnni_and_the_other_does_not(
    exported: dict[str, Path], noise: Path
) -> None:
    pairs = [("openvino", exported[name] / "model.int8.onnx") for name in ("safe", "unsafe")]
    pairs += [("litert", exported["unsafe"] / "model.int8.tflite")]
    safe, unsafe, widened = answers(noise, pairs)
    safe_there, unsafe_there, widened_there = answers(noise, pairs, **WITHOUT_VNNI)
    assert np.array_equal(safe_there, safe)
    assert np.array_equal(widened_there, widened)
    if not saturation.saturates_here("openvino"):
        # Steps of .12; 1.7 to 3.4 were seen.
        assert np.abs(unsafe_there - unsafe).max() > 1


@pytest.mark.skipif(not (QEMU and X86), reason="needs qemu-x86_64 (Debian's qemu-user)")
def test_onnxruntime_on_an_emulated_cpu_without_vnni(exported: dict[str, Path], noise: Path) -> None:
    pairs = [("onnxruntime", exported[name] / "model.int8.onnx") for name in ("safe", "unsafe")]
    # The reference computes in float, so its logits do not depend on the CPU.
    frames = np.load(noise)
    safe, unsafe = (open_reference(file).run(frames).logits for _, file in pairs)
    safe_there, unsafe_there = answers(noise, pairs, prefix=(QEMU, "-cpu", "Haswell"))
    step = golden.find_step(safe)
    assert np.abs(safe_there - safe).max() < 1.01 * step
    # Without the wide sums that the backend asks for, more than 10 steps were seen.
    assert np.abs(unsafe_there - unsafe).max() < 1.01 * golden.find_step(unsafe)


@pytest.mark.skipif(not X86, reason="sums saturate on x86 alone")
def test_the_probe_tells_in_which_process_sums_saturate() -> None:
    code = (
        "from capsule_edge.runtime.diagnostics import saturates_here as s; print(s('openvino'), s('litert'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **WITHOUT_VNNI},
        timeout=60,
    )
    assert done.stdout.split() == ["True", "False"], done.stderr
    if cpu.describe_cpu().features["vnni"]:
        assert not any(saturation.saturates_here(name) for name in BACKENDS)


def test_the_probe_is_what_its_script_writes() -> None:
    onnx = pytest.importorskip("onnx")
    from capsule_edge.export.tools.saturation_probe import build_probe

    assert onnx.load(saturation.probe_path()) == build_probe()


@pytest.mark.skipif(not X86, reason="sums saturate on x86 alone")
def test_doctor_and_run_on_such_a_machine(exported: dict[str, Path], tmp_path: Path) -> None:
    exam = write_exam(tmp_path / "exam.mp4")

    files = [
        exported[name] / f"model.int8.{kind}" for name in ("safe", "unsafe") for kind in ("onnx", "tflite")
    ]
    read = ("run", exam, "--model", files[2], "--backend", "openvino", "--out", tmp_path / "out")
    told, shown, refused, allowed, safe = call_without_vnni(
        ("doctor", *files, "--rounds", 3, "--json"),
        ("doctor", files[2], "--rounds", 3),
        read,
        (*read, "--allow-saturation"),
        ("run", exam, "--model", files[0], "--backend", "openvino", "--out", tmp_path / "safe"),
    )
    results = {(entry["file"], entry["backend"]): entry for entry in json.loads(told.out)["results"]}
    wrong = results.pop((str(files[2]), "openvino"))
    assert told.code == 1
    assert (wrong["correct"], wrong["saturates_here"], wrong["saturation_safe"]) == (False, True, False)
    assert wrong["off"] > wrong["limit"]
    if not saturation.saturates_here("onnxruntime"):
        assert all(entry["correct"] for entry in results.values())
    assert (
        "with openvino is not saturation-safe, and 8-bit sums saturate here, so run refuses it" in shown.out
    )
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "is not saturation-safe" in refused.err
    assert "--allow-saturation" in refused.err
    assert allowed.code == 0, allowed.err
    assert safe.code == 0, safe.err


def test_a_file_is_refused_only_where_it_is_known_to_be_unsafe(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saturation, "saturates_here", lambda _name: True)
    unsafe = exported["unsafe"] / "model.int8.onnx"
    with pytest.raises(ModelError, match="is not saturation-safe"):
        Reader.open(unsafe)
    Reader.open(unsafe, allow_saturation=True).close()
    Reader.open(exported["safe"] / "model.int8.onnx").close()
    Reader.open(exported["unsafe"] / "model.fp32.onnx").close()


# Golden answers


@pytest.mark.parametrize("file", sorted(default_model().parent.glob("*.onnx")), ids=lambda file: file.name)
def test_every_model_that_ships_has_its_golden_answers(file: Path) -> None:
    model = open_model(file, threads=1)
    frames = golden_frames(model.spec.input)
    known = know_answers(file, model.sha256, frames)
    # NumPy computes the phantom's curves with AVX-512 in another last digit, and then some pixels differ by a level.
    if known.source == "computed" and not cpu.describe_cpu().features["avx512"]:
        stored = stored_answers(file.with_name(golden.GOLDEN_FILE))[model.sha256]
        known = golden.Golden(np.array(stored["logits"], np.float32), "stored")
    assert known.source == "stored", "run: python -m capsule_edge.export.tools.golden runtime/models/*.onnx"
    # golden.json holds 5 decimals, and another CPU adds float32 in another order.
    worked_out = golden.work_out(file, frames)
    step = golden.find_step(known.logits) if model.spec.precision == "int8" else 0
    assert np.abs(worked_out - known.logits).max() <= 1e-3 * np.abs(known.logits).max() + 2 * step
    assert replay(model, frames, known).correct


class Broken:
    """A backend whose answers are changed."""

    def __init__(self, inner: Any, change: Any) -> None:
        self.inner, self.change = inner, change
        self.spec = inner.spec

    def run(self, frames: np.ndarray) -> Answer:
        return self.change(self.inner.run(frames))


def coarse(answer: Answer) -> Answer:
    """An 8-bit softmax of scale 1/256."""
    return replace(answer, probabilities=np.round(answer.probabilities * 256) / np.float32(256))


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        (
            "int8",
            lambda answer: replace(
                answer, logits=answer.logits[::-1], probabilities=answer.probabilities[::-1]
            ),
        ),
        ("int8", coarse),
        ("fp32", coarse),
        # As bfloat16 does to a logit, of which it keeps 8 bits.
        ("fp32", lambda answer: replace(answer, logits=answer.logits * np.float32(1 + 2**-8))),
    ],
)
def test_a_broken_engine_is_seen(exported: dict[str, Path], precision: str, change: Any) -> None:
    file = exported["safe"] / f"model.{precision}.onnx"
    model = open_model(file, threads=1)
    frames = golden_frames(model.spec.input)
    known = know_answers(file, model.sha256, frames)
    assert replay(model, frames, known).correct
    assert not replay(Broken(model, change), frames, known).correct


def test_golden_answers_are_written_for_every_format_and_forgotten_with_their_file(
    exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from capsule_edge.export.tools.golden import main as write

    names = ("model.fp32.onnx", "model.int8.onnx", "model.fp32.tflite", "model.int8.tflite")
    files = [Path(shutil.copy(exported["safe"] / name, tmp_path)) for name in names]
    write([str(file) for file in files])
    assert capsys.readouterr().out.strip() == str(tmp_path / GOLDEN_FILE)
    for file in files:
        model = open_model(file, backend="litert" if file.suffix == ".tflite" else "onnxruntime", threads=1)
        frames = golden_frames(model.spec.input)
        known = know_answers(file, model.sha256, frames)
        assert known.source == "stored"
        assert replay(model, frames, known).correct
        # The stored answers belong to all the frames; for others they are computed.
        assert know_answers(file, model.sha256, frames[:4]).source == "computed"
    files[0].unlink()
    write([str(files[1])])
    document = json.loads((tmp_path / GOLDEN_FILE).read_text("utf-8"))
    assert [entry["file"] for entry in document["models"].values()] == sorted(names[1:])


def test_golden_answers_of_a_model_of_preprocessing_2(tmp_path: Path) -> None:
    """They belong to the frames of that version: of version 1 they do not count as stored."""
    from capsule_edge.export.tools.golden import write_golden

    file = write_tiny_model(tmp_path / "second.onnx", input=InputSpec(32, preprocessing=2))
    assert write_golden([file]) == [tmp_path / GOLDEN_FILE]
    model = open_model(file, threads=1)
    frames, other = golden_frames(model.spec.input), golden_frames(InputSpec(32))
    assert (frames != other).any()
    known = know_answers(file, model.sha256, frames)
    assert known.source == "stored"
    assert replay(model, frames, known).correct
    assert know_answers(file, model.sha256, other).source == "computed"


def test_wrong_answers_are_not_written(
    exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capsule_edge.export.tools import golden as writer

    file = Path(shutil.copy(exported["safe"] / "model.int8.onnx", tmp_path))
    right = writer.work_out
    monkeypatch.setattr(writer, "work_out", lambda path, frames: right(path, frames) + 1)
    with pytest.raises(ModelError, match="differs from the correct logits by 1"):
        writer.write_golden([file])
    assert not (tmp_path / GOLDEN_FILE).exists()
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        writer.write_golden([tmp_path / "absent.onnx"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": "other", "models": {}}',
        '{"schema": "capsule-edge/golden/1", "models": {"a": {}}}',
    ],
)
def test_damaged_golden_answers_are_one_line(
    exported: dict[str, Path], tmp_path: Path, call: Any, text: str
) -> None:
    file = Path(shutil.copy(exported["safe"] / "model.int8.onnx", tmp_path))
    (tmp_path / GOLDEN_FILE).write_text(text, "utf-8")
    told = call("doctor", file)
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert "is damaged" in told.err
    assert "capsule_edge.export.tools.golden" in told.err


# The command


def test_doctor_examines_the_default_model(call: Any) -> None:
    told = call("doctor", "--rounds", 3, "--json")
    document = json.loads(told.out)
    assert {entry["backend"] for entry in document["results"]} == {"onnxruntime", "openvino"}
    assert all(entry["file"] == default_model().name for entry in document["results"])
    assert told.code == (0 if document["correct"] else 1)
    assert document["correct"]
    assert document["fastest"]["backend"] in BACKENDS
    assert [entry["backend"] for entry in document["not_tried"]] == ["litert"]
    assert set(document["cpu"]["features"]) == set(cpu.FEATURES)
    assert all(entry["ms_per_frame"] > 0 for entry in document["results"])


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_unknown_file_is_not_called_correct(
    exported: dict[str, Path], tmp_path: Path, call: Any, kind: str
) -> None:
    file = Path(shutil.copy(exported["safe"] / f"model.int8.{kind}", tmp_path))
    told = call("doctor", file, "--rounds", 3, "--json")
    document = json.loads(told.out)
    assert (told.code, document["correct"]) == (0, None)
    assert {(entry["correct"], entry["reference"]) for entry in document["results"]} == {(None, None)}
    shown = call("doctor", file, "--rounds", 3).out
    assert "unknown file: no reference, not verified" in shown
    assert "fastest here, not verified: --backend" in shown
    assert "correct" not in shown
    # Beside the SHA256SUMS that the export wrote, the file is known.
    shutil.copy(exported["safe"] / "SHA256SUMS", tmp_path)
    document = json.loads(call("doctor", file, "--rounds", 3, "--json").out)
    assert document["correct"] is True
    assert {entry["reference"] for entry in document["results"]} == {"SHA256SUMS"}


def test_doctor_finds_an_engine_that_gives_other_answers(
    exported: dict[str, Path], tmp_path: Path, call: Any
) -> None:
    from capsule_edge.export.tools.golden import write_golden

    file = Path(shutil.copy(exported["safe"] / "model.int8.onnx", tmp_path))
    (target,) = write_golden([file])
    document = json.loads(target.read_text("utf-8"))
    for entry in document["models"].values():
        entry["logits"][3] = entry["logits"][3][::-1]
    target.write_text(json.dumps(document), "utf-8")
    told = call("doctor", file, "--rounds", 3)
    assert told.code == 1
    assert f"WRONG: a logit of {file} with onnxruntime differs by" in told.out
    assert "no backend answers correctly here" in told.out


def test_doctor_says_what_to_install(
    exported: dict[str, Path], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("openvino", "litert"):
        monkeypatch.setitem(sys.modules, BACKENDS[name].needs, None)
    told = call("doctor", exported["safe"] / "model.int8.onnx", "--rounds", 3)
    assert told.code == 0
    assert "openvino was not tried: not installed: pip install 'capsule-edge[openvino]'" in told.out
    told = call("doctor", exported["safe"] / "model.int8.tflite")
    assert told.code == 1
    assert "pip install 'capsule-edge[litert]'" in told.err
    assert "no model file" in call("doctor", "absent.onnx").err


# The processor


@pytest.mark.parametrize(
    ("text", "yes", "unknown"),
    [
        (
            "model name : X\nflags\t\t: fpu avx2 avx512bw avx512_vnni amx_int8\n",
            {"avx2", "avx512", "vnni", "amx"},
            (),
        ),
        ("flags : sse4_2 avx2 avx_vnni\n", {"avx2", "vnni"}, ()),
        ("Features\t: fp asimd asimddp\n", {"neon", "dotprod"}, ()),
        ("processor : 0\n", set(), cpu.FEATURES),
    ],
)
@pytest.mark.quick
def test_flags_of_linux(text: str, yes: set[str], unknown: tuple[str, ...]) -> None:
    found = cpu.read_flags(text)
    assert {name for name, has in found.items() if has} == yes
    assert tuple(name for name, has in found.items() if has is None) == unknown


@pytest.mark.parametrize("system", ["darwin", "win32", "plan9"])
@pytest.mark.quick
def test_what_a_system_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(cpu.sys, "platform", system)
    monkeypatch.setattr(cpu.subprocess, "run", lambda *_a, **_k: SimpleNamespace(returncode=1, stdout=""))
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    found = cpu.describe_cpu()
    assert found.features["vnni"] is None
    assert found.features["neon"] is False
    assert found.cores >= 1
    monkeypatch.setattr(cpu.platform, "machine", lambda: "arm64")
    assert cpu.describe_cpu().features["neon"] is True
