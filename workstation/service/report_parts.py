"""Fetch what the report of a reading needs beside the reading: pictures of the recording, and the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from capsule_edge.runtime.errors import BackendError, ModelError
from capsule_edge.runtime.inference import ModelSpec

from .routes_frames import use_frames
from .workstation import Workstation

__all__ = ["find_pictures", "read_spec"]

# The longer side of a picture in the report, in pixels; frames of capsules are smaller.
_PICTURE = 512


def find_pictures(station: Workstation, study_id: str) -> Callable[[int], bytes]:
    """Return a function that returns the JPEG of a frame by index.

    The report is made also where the recording is gone or was changed: the function then raises the error, whose
    message stands in place of the picture.
    """
    return lambda index: use_frames(station, study_id, lambda source: source.thumbnail(index, _PICTURE))


def read_spec(station: Workstation, sha256: str) -> ModelSpec | None:
    """Return the description of a model; None where its file is gone or no engine can open it."""
    with suppress(ModelError, BackendError):
        return station.opened_model(sha256).spec
    return None
