"""Check that a recording still is the one that was read."""

from __future__ import annotations

from pathlib import Path

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import hash_recording

from .addresses import is_address
from .recording import RecordingState
from .remote import look_at

__all__ = ["check_unchanged"]


def check_unchanged(location: str, known: RecordingState, sha256: str) -> None:
    """Check that a recording is the one that was read. Its bytes are compared if size or time of change differ.

    Args:
        location: path of the recording.
        known: size and time of change when it was read.
        sha256: of the recording that was read.

    Raises:
        InputError: the recording is gone, is another one, or lies behind an address.
    """
    if is_address(location):
        raise InputError(f"the recording {location} lies behind an address")
    if not Path(location).exists():
        raise InputError(f"the recording {location} is gone")
    state = look_at(location)
    if (state.bytes, state.modified_ns) == (known.bytes, known.modified_ns):
        return
    if hash_recording(location) != sha256:
        raise InputError(f"the recording {location} changed after it was read")
