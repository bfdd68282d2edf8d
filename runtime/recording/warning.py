"""A warning about a recording: what was read in spite of an odd field, or lies in the file and was not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DamageDetection", "RecordingWarning", "TimesSource"]

# Whether the times and the order of the frames are those that the container states, or come from the decoder.
TimesSource = Literal["container", "inferred"]
# How much of the damage in a frame the codec's decoder reports.
DamageDetection = Literal["full", "partial", "none"]


@dataclass(frozen=True, slots=True)
class RecordingWarning:
    """One entry of ``warnings`` in ``study.json``.

    Attributes:
        code: short name of the kind in lower case with underscores, for programs.
        message: one line for people: what was found, and what the reader did.
    """

    code: str
    message: str
