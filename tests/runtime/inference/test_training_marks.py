"""Marks in the model file tell whether a recording was used to train or to fit the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_model import tiny_spec

from capsule_edge.runtime.inference import seen_before, video_mark

pytestmark = pytest.mark.quick

DIGEST = "ab" * 32


def test_a_mark_is_eight_digits_of_the_name() -> None:
    # printf exam | sha256sum
    assert video_mark("exam") == "5e89e9d8"
    assert len(video_mark("\udcff broken name")) == 8


def test_a_video_of_the_training_and_a_recording_of_the_fit_are_told() -> None:
    spec = tiny_spec()
    trained = replace(spec, provenance={"training_videos": [video_mark("exam")]})
    fitted = replace(spec, provenance={"fitted_recordings": [DIGEST]})
    assert seen_before(spec, "exam", DIGEST) == {}
    assert list(seen_before(trained, "exam", DIGEST)) == ["seen_in_training"]
    assert seen_before(trained, "other", DIGEST) == {}
    assert list(seen_before(fitted, "exam", DIGEST)) == ["seen_in_fitting"]
    assert seen_before(fitted, "exam", "cd" * 32) == {}
    both = replace(spec, provenance={**trained.provenance, **fitted.provenance})
    assert list(seen_before(both, "exam", DIGEST)) == ["seen_in_training", "seen_in_fitting"]
    assert "exam" not in "".join(seen_before(both, "exam", DIGEST).values())
