"""The conversion certificate and ``source.csv`` hold what the source answers, computed by its own framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from capsule_edge.evaluation.classification import load_frames, load_predictions
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.export.adopt import AdoptOptions, SourceFacts, adopt, adopted_files, adoption
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.runtime.inference import open_model

# Added to the first logit, so that the framework differs from the file by less than the 0.001 that are allowed.
SHIFT = 2e-3


class Framework:
    """A framework that takes NHWC and answers a little otherwise than the converted file, which takes NCHW."""

    def __init__(self, path: Any) -> None:
        self.source, self.largest, self.closed = read_onnx(path), 0, False

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        assert not self.closed
        assert batch.shape[1:] == (32, 32, 3)
        self.largest = max(self.largest, len(batch))
        answers = self.source.runner()(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        return answers + np.array([SHIFT, 0, 0], np.float32)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def framework(foreign, monkeypatch) -> Framework:
    made = Framework(foreign("residual"))
    facts = SourceFacts("keras", layout="nhwc", run=made)
    monkeypatch.setattr(adoption, "_read_source", lambda *_: (made.source, facts))
    return made


def test_the_framework_answers_for_the_certificate(framework, foreign, colours, names, tmp_path):
    out = adopt(
        foreign("residual"), names, colours, tmp_path / "out", AdoptOptions(scaling="imagenet")
    ).folder
    source = load_predictions(out / "source.csv")
    spec = open_model(out / "model.fp32.onnx").spec
    pixels = load_frames(_dataset(colours, source.files), spec.input)[1]
    logits = open_model(out / "model.fp32.onnx").run(pixels).logits
    for shift, equal in (([SHIFT, 0, 0], True), ([0, 0, 0], False)):
        powers = np.exp((logits + np.array(shift)) / spec.temperature)
        p = powers / powers.sum(axis=1, keepdims=True)
        # Float32 sums in another order; the shift is some thousand times as large.
        assert bool(np.abs(source.probabilities - p).max() < 1e-5) is equal
    assert framework.closed
    assert framework.largest <= 32


def _dataset(colours, files):

    whole = load_dataset(colours)
    places = {whole.name_of(sample): at for at, sample in enumerate(whole.samples)}
    return whole.take(places[name] for name in files)


def test_frames_are_read_in_groups(foreign, colours, names, tmp_path, monkeypatch):
    """The memory that the certificate needs does not grow with the data set."""
    sizes = []

    def load(dataset, spec):
        sizes.append(len(dataset.samples))
        return load_frames(dataset, spec)

    monkeypatch.setattr(adopted_files, "load_frames", load)
    adopt(foreign("residual"), names, colours, tmp_path / "out", AdoptOptions(scaling="imagenet"))
    assert sum(sizes) == 60
    assert max(sizes) <= 32


@pytest.mark.parametrize("group", [1, 7])
def test_frames_that_cannot_be_read_are_left_out_of_both(
    foreign, colours, names, tmp_path, monkeypatch, group
):
    monkeypatch.setattr(adopted_files, "_GROUP", group)
    lines = (colours / "labels.csv").read_text().splitlines()
    rows = [f"{colours / line},{'val' if at % 2 else 'test'}" for at, line in enumerate(lines[1:])]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = [f"{tmp_path / 'broken.png'},polyp,polyp0,test"]
    (tmp_path / "labels.csv").write_text("\n".join([f"{lines[0]},split", *rows[:30], *broken, *rows[30:]]))
    adopt(
        foreign("residual"), names, tmp_path, tmp_path / "out",
        AdoptOptions(scaling="imagenet", split="val", certify_split="test"),
    )  # fmt: skip
    assert len(load_predictions(tmp_path / "out" / "source.csv").files) == 60
