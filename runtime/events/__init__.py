"""Answers to events: smooth probabilities, find runs above the operating points, keep their peak frames, suggest.

In: frame records and the model's rules. Out: events, suggestions, landmarks, and the pictures and maps of peaks.
Must not know: how frames are decoded, or which engine answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .event_measures import EventMeasures, measure_events, score_event
    from .landmarks import (
        LANDMARKS,
        Landmarks,
        Position,
        Stretch,
        TransitTimes,
        check_landmarks,
        locate_events,
        locate_time,
        parse_landmarks,
        transit_times,
    )
    from .peak_frames import (
        MOST,
        Candidate,
        PeakFrames,
        Thumbnails,
        activation_map,
        enlarge,
        find_candidates,
        pack,
    )
    from .ranking import FIRST, rank_events
    from .rules import ALIKE, SLACK_S, capture_scale, find_runs, median_frame_distance, smooth
    from .stream import EventStream, find_events, number_events
    from .strip_frames import StripChooser
    from .suggestions import EventGroup, group_events, suggest
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        event_measures="EventMeasures measure_events score_event",
        landmarks=(
            "LANDMARKS Landmarks Position Stretch TransitTimes check_landmarks locate_events locate_time "
            "parse_landmarks transit_times"
        ),
        peak_frames="Candidate MOST PeakFrames Thumbnails activation_map enlarge find_candidates pack",
        ranking="FIRST rank_events",
        rules="ALIKE SLACK_S capture_scale find_runs median_frame_distance smooth",
        stream="EventStream find_events number_events",
        strip_frames="StripChooser",
        suggestions="EventGroup group_events suggest",
    )

__all__ = [
    "ALIKE",
    "FIRST",
    "LANDMARKS",
    "MOST",
    "SLACK_S",
    "Candidate",
    "EventGroup",
    "EventMeasures",
    "EventStream",
    "Landmarks",
    "PeakFrames",
    "Position",
    "Stretch",
    "StripChooser",
    "Thumbnails",
    "TransitTimes",
    "activation_map",
    "capture_scale",
    "check_landmarks",
    "enlarge",
    "find_candidates",
    "find_events",
    "find_runs",
    "group_events",
    "locate_events",
    "locate_time",
    "measure_events",
    "median_frame_distance",
    "number_events",
    "pack",
    "parse_landmarks",
    "rank_events",
    "score_event",
    "smooth",
    "suggest",
    "transit_times",
]
