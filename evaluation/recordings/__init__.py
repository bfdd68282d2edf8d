"""Labelled recordings: read them, match a model's events with true findings, and fit event parameters.

In: recordings, result folders and truth tables. Out: labelled frames, findings hit, false events, figures by class.
Must not know: TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .event_matching import Span, event_agreement, spans
    from .labelled_recordings import (
        LabelledRecording,
        LabelledRecordings,
        check_several_videos,
        load_recordings,
    )
    from .truth_table import TruthRow
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        event_matching="Span event_agreement spans",
        labelled_recordings="LabelledRecording LabelledRecordings check_several_videos load_recordings",
        truth_table="TruthRow",
    )

__all__ = [
    "LabelledRecording",
    "LabelledRecordings",
    "Span",
    "TruthRow",
    "check_several_videos",
    "event_agreement",
    "load_recordings",
    "spans",
]
