"""The number of each frame in the video: its position among the stream's pictures in presentation order, from 1.

Pictures that an edit list discards, and leading pictures that nothing can decode, are pictures of the stream and are
counted. So a viewer that ignores edit lists, as DICOM viewers do, finds the frame.
"""

from __future__ import annotations

import numpy as np

from capsule_edge.runtime.recording import Container

__all__ = ["count_pictures", "number_frames"]

# Roles of packets that hold no picture of their own are above these (``recording.coded_pictures.PacketRole``).
_NO_STAMP = -(1 << 63)


def number_frames(container: Container) -> list[int | None] | None:
    """Return the number of each frame of a recording; None for a missing one.

    Returns:
        The numbers in the order of the frames. None where the stream's order cannot be told, because a discarded
        picture has no time stamp.
    """
    packets, order = container.packets, np.asarray(container.order, np.int64)
    others = np.setdiff1d(_pictures(container), order)
    if len(others) and (container.times != "container" or (packets.pts[others] == _NO_STAMP).any()):
        return None
    # The discarded pictures have stamps on the same line as the shown ones.
    before = np.searchsorted(np.sort(packets.pts[others]), np.asarray(container.pts, np.int64), side="left")
    numbers: list[int | None] = (np.arange(len(order)) + 1 + before).tolist()
    return numbers + [None] * container.missing


def count_pictures(container: Container) -> int:
    """Return the number of pictures in the stream, those that are not shown included."""
    return len(_pictures(container))


def _pictures(container: Container) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the indices of the packets that hold a picture of their own which a viewer counts."""
    from capsule_edge.runtime.recording import PacketRole

    roles = container.packets.roles
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = np.flatnonzero(
        (roles == PacketRole.SHOWS) | (roles == PacketRole.LEADING)
    )
    return found
