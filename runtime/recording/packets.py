"""The packets of a recording as arrays, and the order and times in which their frames are shown."""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

__all__ = ["NO_STAMP", "REORDER", "PacketInfo", "PacketTable", "list_times", "present"]

# No codec shows a frame more than 16 places away from where it is stored (H.264, HEVC). Twice that leaves room for
# paired fields. Frames whose time stamps lie further apart keep the file's order, which bounds the frames that are held
# while decoding.
REORDER = 32
# Marks a missing time stamp in the arrays; FFmpeg's own value for it.
NO_STAMP = -(1 << 63)

Stamps = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """One packet that carries a frame.

    Attributes:
        pts, dts: the file's time stamps in ticks of the time base; None where there is none.
        size: in bytes.
        key: the container marks a key frame.
        flagged: the demuxer read only a part of the packet, or found errors in it.
        edited_out: the edit list discards the frame; it is decoded and never shown.
    """

    pts: int | None
    dts: int | None
    size: int
    key: bool
    flagged: bool
    edited_out: bool


@dataclass(frozen=True, eq=False)
class PacketTable(Sequence[PacketInfo]):
    """All packets of a recording in decoding order, with one array per field of ``PacketInfo``.

    ``pts`` and ``dts`` are ``NO_STAMP`` where there is none.
    """

    pts: Stamps = field(repr=False)
    dts: Stamps = field(repr=False)
    sizes: Stamps = field(repr=False)
    keys: Marks = field(repr=False)
    flagged: Marks = field(repr=False)
    edited_out: Marks = field(repr=False)

    @classmethod
    def of(cls, packets: Iterable[PacketInfo]) -> PacketTable:
        """Return the table of these packets."""
        stamps, marks = array("q"), array("b")
        for each in packets:
            stamps.append(NO_STAMP if each.pts is None else each.pts)
            stamps.append(NO_STAMP if each.dts is None else each.dts)
            stamps.append(each.size)
            marks.append(each.key | each.flagged << 1 | each.edited_out << 2)
        rows = np.array(stamps, np.int64).reshape(-1, 3)
        bits = np.array(marks, np.int8)
        pts, dts, sizes = (np.ascontiguousarray(rows[:, column]) for column in range(3))
        keys, flagged, edited_out = ((bits & 1 << bit) > 0 for bit in range(3))
        return cls(pts, dts, sizes, keys, flagged, edited_out)

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, at: int) -> PacketInfo: ...
    @overload
    def __getitem__(self, at: slice) -> list[PacketInfo]: ...
    def __getitem__(self, at: int | slice) -> PacketInfo | list[PacketInfo]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        pts, dts = int(self.pts[at]), int(self.dts[at])
        return PacketInfo(
            None if pts == NO_STAMP else pts,
            None if dts == NO_STAMP else dts,
            int(self.sizes[at]),
            bool(self.keys[at]),
            bool(self.flagged[at]),
            bool(self.edited_out[at]),
        )

    def __iter__(self) -> Iterator[PacketInfo]:
        return (self[at] for at in range(len(self)))

    @property
    def ascending(self) -> bool:
        """True where every packet has a pts above the one before."""
        return bool((self.pts != NO_STAMP).all() and (self.pts[1:] > self.pts[:-1]).all())


def present(packets: PacketTable, shown: Sequence[int] | None) -> tuple[array[int], array[int], array[int]]:
    """Return the presented packets in presentation order.

    They are ordered by time stamp, within ``REORDER`` places of the stored order. Where the time stamps start anew
    (recordings joined end to end), the time line continues.

    Args:
        packets: in decoding order.
        shown: packet indices in presentation order, where the decoder told them; None to go by the time stamps.

    Returns:
        Indices into ``packets``, their pts, and their ticks on one ascending time line.
    """
    if shown is None and (plain := _present_plainly(packets)) is not None:
        return plain
    stamps = _unwrap(packets)
    presented = np.flatnonzero(~packets.edited_out).tolist()
    if shown is not None:
        line = array("q", sorted(stamps[index] for index in presented))
        return array("q", (index for index in shown if not packets.edited_out[index])), line, line
    order: list[int] = []
    heap: list[tuple[int, int]] = []
    for index in presented:
        heapq.heappush(heap, (stamps[index], index))
        if len(heap) > REORDER:
            order.append(heapq.heappop(heap)[1])
    order += [heapq.heappop(heap)[1] for _ in range(len(heap))]
    pts = (stamps[index] if (own := int(packets.pts[index])) == NO_STAMP else own for index in order)
    line = array("q", accumulate((stamps[index] for index in order), max))
    return array("q", order), array("q", pts), line


def list_times(line: array[int], time_base: Fraction) -> tuple[array[float], int | None]:
    """Return the seconds from the first tick, and the median distance in ticks (None for a single frame).

    Args:
        line: ascending ticks.
        time_base: seconds per tick.
    """
    if line[-1] - line[0] >= 1 << 63:  # too far apart for int64: a damaged stamp
        distances = sorted(after - before for before, after in pairwise(line))
        return array("d", (float((tick - line[0]) * time_base) for tick in line)), distances[
            (len(line) - 2) // 2
        ]
    ticks = np.asarray(line) - line[0]
    if int(ticks[-1]) * time_base.numerator < 1 << 53 and time_base.denominator < 1 << 53:
        # Both are exact in float64, so the quotient is the nearest float.
        times = array("d", (ticks * time_base.numerator / time_base.denominator).tobytes())
    else:
        times = array("d", (float(int(tick) * time_base) for tick in ticks))
    if len(ticks) == 1:
        return times, None
    middle = (len(ticks) - 2) // 2
    return times, int(np.partition(np.diff(ticks), middle)[middle])


def _present_plainly(packets: PacketTable) -> tuple[array[int], array[int], array[int]] | None:
    """Return what ``present`` returns, faster, for plain files; None for others.

    In a plain file every packet has a pts and is shown within ``REORDER / 2`` places of where it is stored. Then fewer
    than ``REORDER`` frames that are stored after a frame are shown before it, and the time stamps never start anew.
    """
    if (packets.pts == NO_STAMP).any():
        return None
    places = np.argsort(packets.pts, kind="stable")
    if (np.abs(places - np.arange(len(places))) >= REORDER // 2).any():
        return None
    places = places[~packets.edited_out[places]]
    pts = array("q", packets.pts[places].tobytes())
    return array("q", places.astype(np.int64).tobytes()), pts, pts


def _unwrap(packets: PacketTable) -> list[int]:
    """Return a time stamp in ticks for each packet: its pts, else its dts, else that of the packet before."""
    own: list[int] = []
    for pts, dts in zip(packets.pts.tolist(), packets.dts.tolist(), strict=True):
        stamp = dts if pts == NO_STAMP else pts
        own.append((own[-1] if own else 0) if stamp == NO_STAMP else stamp)
    stamps: list[int] = []
    recent: deque[int] = deque(maxlen=REORDER)
    offset = 0
    for index, stamp in enumerate(own):
        # The time stamps start anew when several frames lie before everything that is still being reordered. A single
        # damaged stamp does not count.
        if len(recent) == REORDER and max(own[index : index + 4]) + offset < min(recent):
            step = (max(recent) - min(recent)) // (REORDER - 1)
            offset = max(recent) + step - stamp
        stamps.append(stamp + offset)
        recent.append(stamp + offset)
    return stamps
