"""Answers to events: smooth probabilities, find runs above the operating points, keep their peak frames, rank them.

In: frame records and the model's rules. Out: events, landmarks, and the pictures and maps of peaks.
Must not know: how frames are decoded, or which engine answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .find import capture_scale, find_events, find_runs, median_frame_distance, smooth, time_kind
    from .landmarks import (
        LANDMARKS,
        Landmarks,
        Position,
        Stretch,
        check_landmarks,
        locate_events,
        parse_landmarks,
    )
    from .peak_frames import Gallery, Sight, candidates
    from .ranking import FIRST, rank_events
    from .stream import EventStream
    from .thumbnails import ColourBar, activation_map, illustrate, mean_colours
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        find="capture_scale find_events find_runs median_frame_distance smooth time_kind",
        landmarks="LANDMARKS Landmarks Position Stretch check_landmarks locate_events parse_landmarks",
        peak_frames="Gallery Sight candidates",
        ranking="FIRST rank_events",
        stream="EventStream",
        thumbnails="ColourBar activation_map illustrate mean_colours",
    )

__all__ = [
    "FIRST",
    "LANDMARKS",
    "ColourBar",
    "EventStream",
    "Gallery",
    "Landmarks",
    "Position",
    "Sight",
    "Stretch",
    "activation_map",
    "candidates",
    "capture_scale",
    "check_landmarks",
    "find_events",
    "find_runs",
    "illustrate",
    "locate_events",
    "mean_colours",
    "median_frame_distance",
    "parse_landmarks",
    "rank_events",
    "smooth",
    "time_kind",
]
