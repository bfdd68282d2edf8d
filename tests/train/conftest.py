"""One small data set and one finished run, made once for all tests of training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from training_samples import COLOURS, DAMAGED, KEYS, MORE_SETTINGS, SETTINGS, SIZE, WholeRun, setting_words


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours that a few steps learn to distinguish, twelve videos of sixteen frames; two files are damaged.

    There is no column ``split``, so every split has all frames.
    """
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = ["file,label,source,video_id,frame_number"]
    for i in range(192):
        frame = np.clip(COLOURS[i % 3] + rng.normal(0, 40, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), frame[:, :, ::-1])
        rows.append(f"{i}.png,{KEYS[i % 3]},X,v{i % 12},{i}")
    (folder / DAMAGED[0]).write_bytes(b"no image")
    (folder / DAMAGED[1]).write_bytes((folder / DAMAGED[1]).read_bytes()[:300])
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def start_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the architecture, which serve as backbone and as teacher."""
    tf_keras = pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from capsule_edge.train.models import architectures, weights

    path = tmp_path_factory.mktemp("start") / "w.npz"
    model = architectures.build("plain_cnn", size=SIZE, labels=len(KEYS), keras=tf_keras)
    weights.save(path, weights.collect(model))
    return path


@pytest.fixture(scope="session")
def whole_run(data: Path, start_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """A run from start to end without interruption. Tests must not change its files."""
    from capsule_edge.cli.train import command

    out = tmp_path_factory.mktemp("whole") / "run"
    words = [
        *setting_words(*SETTINGS, *MORE_SETTINGS),
        *("--weights", str(start_weights), "--teacher", str(start_weights)),
    ]
    result = CliRunner().invoke(
        command, ["--data", str(data), "--out", str(out), *words, "--json"], catch_exceptions=False
    )
    return WholeRun(out, words, result)
