"""Labelled recordings: read them, match a model's events with true findings, and fit event parameters.

In: recordings, result folders and truth tables. Out: labelled frames, findings hit, false events, figures by class.
Must not know: TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .event_matching import Span, event_agreement, spans
    from .findings import FoundEvent, Reading, TrueFinding, finding_outcomes, is_right
    from .labelled_recordings import (
        LabelledRecording,
        LabelledRecordings,
        check_several_videos,
        load_recordings,
    )
    from .normal_stretches import NormalStretch, read_stretches
    from .recording_scores import compare_with_truth
    from .truth_table import TRUTH_SUFFIX, TruthRow
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        event_matching="Span event_agreement spans",
        findings="FoundEvent Reading TrueFinding finding_outcomes is_right",
        labelled_recordings="LabelledRecording LabelledRecordings check_several_videos load_recordings",
        normal_stretches="NormalStretch read_stretches",
        recording_scores="compare_with_truth",
        truth_table="TRUTH_SUFFIX TruthRow",
    )

__all__ = [
    "TRUTH_SUFFIX",
    "FoundEvent",
    "LabelledRecording",
    "LabelledRecordings",
    "NormalStretch",
    "Reading",
    "Span",
    "TrueFinding",
    "TruthRow",
    "check_several_videos",
    "compare_with_truth",
    "event_agreement",
    "finding_outcomes",
    "is_right",
    "load_recordings",
    "read_stretches",
    "spans",
]
