"""Hold the results of reading a recording: a ``FrameRecord`` per container frame, the ``Ledger``, and the ``Study``.

In: the status and the probabilities of each frame. Out: a ``Study``; its ledger counts every container frame once.
Must not know: decoders, inference engines, files, HTML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .colour_bar import ColourBar
    from .frame_table import Columns, FrameTable, columns
    from .ledger import choose_frames, count_frames, describe_source, list_frames
    from .quality import answered_values, count_set_aside, reduced_view
    from .records import (
        SCHEMA,
        STATUSES,
        UNFAMILIAR,
        Alternative,
        Event,
        FrameRecord,
        Ledger,
        MeasuredPrecision,
        Source,
        Status,
        StripPicture,
        Study,
        Suggestion,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        colour_bar="ColourBar",
        frame_table="Columns FrameTable columns",
        ledger="choose_frames count_frames describe_source list_frames",
        quality="answered_values count_set_aside reduced_view",
        records=(
            "Alternative Event FrameRecord Ledger MeasuredPrecision SCHEMA STATUSES Source Status StripPicture Study "
            "Suggestion UNFAMILIAR"
        ),
    )

__all__ = [
    "SCHEMA",
    "STATUSES",
    "UNFAMILIAR",
    "Alternative",
    "ColourBar",
    "Columns",
    "Event",
    "FrameRecord",
    "FrameTable",
    "Ledger",
    "MeasuredPrecision",
    "Source",
    "Status",
    "StripPicture",
    "Study",
    "Suggestion",
    "answered_values",
    "choose_frames",
    "columns",
    "count_frames",
    "count_set_aside",
    "describe_source",
    "list_frames",
    "reduced_view",
]
