"""Small classifiers of each kind, adopted once for all tests of this folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")

import onnx
from foreign_models import make_net, write_colours, write_names

KINDS = ("residual", "mobile", "transformer", "nhwc")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 frames of 12 videos and three labels."""
    return write_colours(tmp_path_factory.mktemp("adopt") / "colours")


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_names(tmp_path_factory.mktemp("adopt") / "labels.yaml")


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory, colours: Path):
    """Return a function from a kind of network to its ONNX file."""
    folder = tmp_path_factory.mktemp("foreign")

    @cache
    def make(kind: str, last: str = "") -> Path:
        path = folder / f"{kind}{last}.onnx"
        onnx.save(make_net(kind, colours, last=last), path)
        return path

    return make


@pytest.fixture(scope="session")
def adopted(tmp_path_factory: pytest.TempPathFactory, foreign, colours: Path, names: Path):
    """Return a function from a kind of network to the report of its adoption."""
    from capsule_edge.export.adopt import AdoptOptions, adopt

    folder = tmp_path_factory.mktemp("adopted")

    @cache
    def make(kind: str):
        return adopt(foreign(kind), names, colours, folder / kind, AdoptOptions(scaling="imagenet"))

    return make
