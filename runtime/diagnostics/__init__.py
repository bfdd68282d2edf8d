"""Check what this machine computes: golden frames with known answers, saturation of 8-bit sums, the processor.

In: an opened model. Out: whether it answers correctly on this processor.
Must not know: recordings, events, results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .cpu import describe_cpu
    from .golden import GOLDEN_FILE, SCHEMA, Golden, entry_of, golden_frames, know_answers, replay, work_out
    from .saturation import (
        PROBE,
        PROBE_LOGIT,
        answers_wrongly_here,
        probe_path,
        refuse_saturation,
        saturates_here,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        cpu="describe_cpu",
        golden="GOLDEN_FILE Golden SCHEMA entry_of golden_frames know_answers replay work_out",
        saturation="PROBE PROBE_LOGIT answers_wrongly_here probe_path refuse_saturation saturates_here",
    )

__all__ = [
    "GOLDEN_FILE",
    "PROBE",
    "PROBE_LOGIT",
    "SCHEMA",
    "Golden",
    "answers_wrongly_here",
    "describe_cpu",
    "entry_of",
    "golden_frames",
    "know_answers",
    "probe_path",
    "refuse_saturation",
    "replay",
    "saturates_here",
    "work_out",
]
