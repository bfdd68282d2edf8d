"""The parts of GPU training that need no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from capsule_edge.train.config import TrainConfig
from capsule_edge.train.gpu.batch_feed import answers_file
from capsule_edge.train.gpu.cross_validation import gather, name_part, score
from capsule_edge.train.gpu.torch_qat import carry_over

pytestmark = pytest.mark.quick


def test_calibration_is_carried_over_by_one_factor_and_a_shift_for_each_label() -> None:
    rng = np.random.default_rng(0)
    before, out_of_fold = rng.normal(0, 2, (2, 50, 3)).astype(np.float32)
    shift = np.float32([0.5, -1.0, 0.5])
    found = carry_over(before, 1.5 * before + shift, out_of_fold)
    np.testing.assert_allclose(found, 1.5 * out_of_fold + shift, atol=1e-4)


def test_answers_are_kept_by_teachers_and_draws(tmp_path: Path) -> None:
    config = TrainConfig(views=2)
    file = answers_file(tmp_path, "all", ["a"], config)
    assert file == answers_file(tmp_path, "all", ["a"], TrainConfig(views=2, learning_rate=1.0))
    assert file != answers_file(tmp_path, "all", ["b"], config)
    assert file != answers_file(tmp_path, "all", ["a"], TrainConfig(views=2, seed=1))
    assert answers_file(tmp_path, "all", ["a"], TrainConfig(views=0)) is None
    assert answers_file(tmp_path, "all", [], config) is None


def test_the_answers_of_all_folds_are_joined_and_scored(tmp_path: Path) -> None:
    labels = np.arange(12) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    for number in (0, 1):
        rows = slice(6 * number, 6 * number + 6)
        path = tmp_path / f"{name_part(number)}.answers.npz"
        np.savez(path, logits=logits[rows], labels=labels[rows])
    gather(tmp_path)
    with np.load(tmp_path / "out_of_fold.npz") as whole:
        assert score(whole["logits"], whole["labels"]) == {
            "macro_f1": 1.0, "balanced_accuracy": 1.0, "mcc": 1.0, "mean_auc": 1.0,
        }  # fmt: skip
