"""List the recordings of an archive: folders, globs, lists and addresses.

In: what the user names. Out: a ``Recording`` for each, with what a list says about it, and rows that are wrong.
Must not know: models, results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .addresses import hide_tokens, is_address, public_address
    from .answering import SilentError, StateLookup
    from .listing import list_recordings
    from .recording import Recording, RecordingState
    from .remote import UnreachableError, fetch_recording, look_at, open_store
    from .unchanged import check_unchanged
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        addresses="hide_tokens is_address public_address",
        answering="SilentError StateLookup",
        listing="list_recordings",
        recording="Recording RecordingState",
        remote="UnreachableError fetch_recording look_at open_store",
        unchanged="check_unchanged",
    )

__all__ = [
    "Recording",
    "RecordingState",
    "SilentError",
    "StateLookup",
    "UnreachableError",
    "check_unchanged",
    "fetch_recording",
    "hide_tokens",
    "is_address",
    "list_recordings",
    "look_at",
    "open_store",
    "public_address",
]
