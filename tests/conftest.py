"""Fixtures that several test modules share; a module's own fixture of the same name goes before them."""

from __future__ import annotations

import signal
from pathlib import Path

import damage
import pytest
from backend_samples import SIZE
from cli_calls import FAST_START, LABELS, Called
from red_model import write_exam, write_red_model
from tiny_model import write_tiny_model
from video_samples import KINDS

from capsule_edge.cli.main import main
from capsule_edge.runtime.inference import BACKENDS


def pytest_configure() -> None:
    # A shell that starts this in the background ignores SIGINT, and what a test interrupts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command line in an empty folder; returns the exit code and what was printed."""
    empty = tmp_path / "here"
    empty.mkdir()
    monkeypatch.chdir(empty)

    def run(*arguments: object) -> Called:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Called(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", labels=LABELS)


@pytest.fixture(scope="session")
def red_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("red") / "red.onnx")


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames, 2 a second; 20 to 31 are red."""
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 25 a second, with the index in front."""
    return damage.encode(tmp_path_factory.mktemp("plain") / "plain.mp4", muxer=FAST_START)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files of one small exported network."""
    pytest.importorskip("tensorflow")
    from quantised_models import write_run

    from capsule_edge.export.bundle import export_run

    folder = tmp_path_factory.mktemp("backends")
    return export_run(write_run(folder / "run", "plain_cnn", SIZE), folder / "out").folder


@pytest.fixture(scope="module", params=BACKENDS)
def engine(request: pytest.FixtureRequest) -> str:
    if not BACKENDS[request.param].installed:
        pytest.skip(f"{BACKENDS[request.param].needs} is not installed")
    return request.param


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Encode a kind once for all tests."""
    folder = tmp_path_factory.mktemp("made")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            damage.encode(path, **KINDS[name])
        return path

    return make
