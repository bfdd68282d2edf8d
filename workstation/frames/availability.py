"""The reasons why a frame has no picture, and how fast a recording gives its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError

__all__ = ["Access", "DecodingStoppedError", "FrameUnavailable", "StaleSourceError"]


class StaleSourceError(InputError):
    """A source shows its recording no longer: the file was changed or moved, or the source was closed.

    A source that is opened now may show it again: the file may have been put back.
    """


class FrameUnavailable(InputError):  # noqa: N818 - the recording is in order to be read; one frame of it has no picture
    """A frame of the recording has no picture.

    Attributes:
        index: of the frame.
        status: ``corrupt`` or ``missing``, as in ``frames.csv``.
        detail: ``damaged`` or ``depends_on_damaged`` for a corrupt frame, else empty.
        code: ``frame_corrupt`` or ``frame_missing``.
    """

    def __init__(self, index: int, status: Literal["corrupt", "missing"], detail: str = "") -> None:
        reason = f"{status} ({detail})" if detail else status
        super().__init__(f"frame {index} is {reason} and has no picture", hint="look at a frame beside it")
        self.index, self.status, self.detail = index, status, detail
        self.code = f"frame_{status}"


class DecodingStoppedError(CapsuleEdgeError):
    """Nobody waits for the frame any more (``giving_up``)."""

    code = "stopped"


@dataclass(frozen=True, slots=True)
class Access:
    """The speed at which any frame of a recording can be shown.

    Attributes:
        speed: ``fast`` where 95 of 100 frames are expected within 150 ms on one idle core, else ``slow``.
        reason: why it is slow, in one sentence; empty if it is fast.
        usual_frames: for 95 of 100 frames, at most so many frames are decoded.
        most_frames: the largest number of frames that are decoded for one frame.
    """

    speed: Literal["fast", "slow"]
    reason: str
    usual_frames: int
    most_frames: int
