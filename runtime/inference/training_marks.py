"""Tell from a model file whether a recording was used to train the model or to fit its events and scores.

A model file identifies a training video by the first eight hexadecimal digits of the SHA-256 of its ``video_id``, and
a recording of the fit by its SHA-256. A recording is taken for the training video whose ``video_id`` is the name of its
file without the ending. A match says that the model has seen the recording; no match does not prove that it is new.
"""

from __future__ import annotations

import hashlib

from .spec import ModelSpec

__all__ = ["SEEN_IN_FITTING", "SEEN_IN_TRAINING", "seen_before", "video_mark"]

# Codes of ``warnings`` in ``study.json``.
SEEN_IN_TRAINING = "seen_in_training"
SEEN_IN_FITTING = "seen_in_fitting"

_MESSAGES = {
    SEEN_IN_TRAINING: (
        "the model was trained on a video of this name, so it does better here than on a new recording"
    ),
    SEEN_IN_FITTING: (
        "the model's rules for events or its scores were fitted on this recording, so it does better here than on a "
        "new one"
    ),
}


def video_mark(video_id: str) -> str:
    """Return the eight hexadecimal digits that identify a video in a model file."""
    # A file name that is not valid Unicode (Linux and Windows allow it) is no video_id of a data set, and must not stop
    # the run.
    return hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def seen_before(spec: ModelSpec, stem: str, sha256: str) -> dict[str, str]:
    """Return the messages about earlier uses of a recording by code: ``seen_in_training``, ``seen_in_fitting``.

    Args:
        spec: the description in the model file.
        stem: name of the recording's file without its ending.
        sha256: SHA-256 of the recording, 64 hexadecimal digits.

    Returns:
        The messages, which do not name the recording; empty if the model file does not list it.
    """
    found = []
    if video_mark(stem) in spec.provenance.get("training_videos", ()):
        found.append(SEEN_IN_TRAINING)
    if sha256 in spec.provenance.get("fitted_recordings", ()):
        found.append(SEEN_IN_FITTING)
    return {code: _MESSAGES[code] for code in found}
