"""The page and plots of an evaluation are complete, self-contained and reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from capsule_edge.evaluation.classification import Predictions, evaluate, write_report
from capsule_edge.evaluation.classification.classification_report import to_html
from capsule_edge.runtime.errors import OutputError


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """An evaluation of 60 frames of six videos, with a class without frames and a source named in markup."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 60)
    p = random.dirichlet([0.3] * 4, 60) + np.eye(4)[labels]
    predictions = Predictions(
        files=tuple(f"{i}.png" for i in range(60)),
        labels=labels,
        video_ids=tuple(f"v{i % 6}" for i in range(60)),
        sources=tuple(("<b>A&B</b>", "C")[i % 2] for i in range(60)),
        probabilities=(p / p.sum(axis=1, keepdims=True)).astype(np.float32),
        keys=("normal", "polyp", "ulcer", "worms"),
    )
    model = {"file": "m.onnx", "name": "m", "version": "1", "precision": "int8", "sha256": "a" * 64}
    data = {"name": "frames", "sha256": "b" * 64, "split": None}
    return {"model": model, "data": data, **evaluate(predictions, resamples=100)}


@pytest.fixture(scope="module")
def page(document: dict[str, Any]) -> str:
    return to_html(document)


def test_the_report_has_all_its_files(document: dict[str, Any], tmp_path: Path) -> None:
    paths = write_report(document, tmp_path / "new" / "out")
    assert [path.name for path in paths] == [
        "evaluation.json",
        "evaluation.html",
        "confusion.png",
        "classes.png",
        "roc.png",
        "precision_recall.png",
        "reliability.png",
    ]
    assert sorted(paths) == sorted((tmp_path / "new" / "out").iterdir())
    assert json.loads(paths[0].read_text(encoding="utf-8")) == document
    for path in paths[2:]:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 5  # a drawing, not a blank sheet


def test_the_page_is_self_contained_and_escapes_names(document: dict[str, Any], page: str) -> None:
    assert page.count("<svg") == 5
    assert "&lt;b&gt;A&amp;B&lt;/b&gt;" in page
    assert "<b>A" not in page
    assert "No frame of worms" in page
    assert f"always {document['majority_baseline']['label']}" in page
    for outside in ("<script", "src=", 'href="http', "@import", "url(http"):
        assert outside not in page


def test_the_page_is_the_same_every_time(document: dict[str, Any], page: str) -> None:
    assert to_html(document) == page


def test_the_page_says_why_there_are_no_intervals(document: dict[str, Any]) -> None:
    nothing = {"reason": "all frames are of one video", "per_class": {}}
    assert "No intervals: all frames are of one video." in to_html(
        document | {"confidence_intervals": nothing}
    )
    assert "95 %" in to_html(document | {"confidence_intervals": None})


def test_a_folder_that_cannot_be_written_is_named(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        write_report(document, tmp_path / "taken")
