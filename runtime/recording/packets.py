"""The packets of a recording as arrays, and the order and times in which their frames are shown.

The container's stamps give order and times, where they can. ``unreliable`` tells where they cannot; then the decoder
gives the order (``probe.decode_order``), and ``present`` works the times out from the stamps that are left.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, chain, islice, pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from .coded_pictures import PacketRole

__all__ = [
    "NO_STAMP",
    "REORDER",
    "PacketInfo",
    "PacketTable",
    "Presentation",
    "list_times",
    "present",
    "unreliable",
]

# No codec shows a frame more than 16 places away from where it is stored (H.264, HEVC). Twice that leaves room for
# paired fields. Frames whose time stamps lie further apart keep the file's order, which bounds the frames that are held
# while decoding.
REORDER = 32
# Marks a missing time stamp in the arrays; FFmpeg's own value for it.
NO_STAMP = -(1 << 63)

_LAST_TICK = (1 << 63) - 1

Stamps = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]
Roles = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """One packet of a recording.

    Attributes:
        pts, dts: the file's time stamps in ticks of the time base; None where there is none.
        size: in bytes.
        key: the container marks a key frame.
        flagged: the demuxer read only a part of the packet, or found errors in it.
        edited_out: the edit list discards the frame; it is decoded and never shown.
        role: what the packet means for the frames (``coded_pictures.PacketRole``).
    """

    pts: int | None
    dts: int | None
    size: int
    key: bool
    flagged: bool
    edited_out: bool
    role: PacketRole = PacketRole.SHOWS


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
    roles: Roles = field(repr=False)

    @classmethod
    def of(cls, packets: Iterable[PacketInfo]) -> PacketTable:
        """Return the table of these packets."""
        stamps, marks = array("q"), array("b")
        for each in packets:
            stamps.append(NO_STAMP if each.pts is None else each.pts)
            stamps.append(NO_STAMP if each.dts is None else each.dts)
            stamps.append(each.size)
            marks.append(each.key | each.flagged << 1 | each.edited_out << 2 | each.role << 3)
        rows = np.array(stamps, np.int64).reshape(-1, 3)
        bits = np.array(marks, np.int8)
        pts, dts, sizes = (np.ascontiguousarray(rows[:, column]) for column in range(3))
        keys, flagged, edited_out = ((bits & 1 << bit) > 0 for bit in range(3))
        return cls(pts, dts, sizes, keys, flagged, edited_out, bits >> 3)

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
            PacketRole(self.roles[at]),
        )

    def __iter__(self) -> Iterator[PacketInfo]:
        return (self[at] for at in range(len(self)))

    @property
    def pictures(self) -> npt.NDArray[np.int64]:
        """Indices of the packets whose picture is to be shown."""
        return np.flatnonzero((self.roles == PacketRole.SHOWS) & ~self.edited_out)

    def confirm_hidden(self) -> PacketTable:
        """Return the table with only those hidden pictures that the stamps confirm, for containers with true stamps.

        A hidden picture comes directly in front of the one that is shown, at its time. One that has a time of its own
        is a shown one with a damaged header.
        """
        hidden = np.flatnonzero(self.roles == PacketRole.HIDDEN)
        if not len(hidden):
            return self
        steps = np.diff(self.pts, append=self.pts[-1:])
        steps[-1] = np.iinfo(np.int64).max
        doubted = hidden[steps[hidden] > np.median(steps) / 2]
        roles = self.roles.copy()
        roles[doubted] = PacketRole.SHOWS
        return replace(self, roles=roles)

    @property
    def lacks_stamps(self) -> bool:
        """True where a shown packet has neither a pts nor a dts."""
        return bool(((self.pts == NO_STAMP) & (self.dts == NO_STAMP))[self.pictures].any())

    @property
    def without_picture(self) -> int:
        """Number of packets that carry no picture to be shown, without those that the edit list discards."""
        return int(((self.roles != PacketRole.SHOWS) & ~self.edited_out).sum())

    @property
    def last_of_picture(self) -> array[int]:
        """For each packet the last one of its picture: itself, or the second field behind it."""
        found = np.arange(len(self))
        found[:-1] += self.roles[1:] == PacketRole.SECOND_FIELD
        return array("q", found.tobytes())


@dataclass(frozen=True)
class Presentation:
    """The shown packets of a recording in presentation order.

    Attributes:
        order: indices of the packets.
        pts: their time stamps, ticks.
        line: the same on one time line, ticks; it never falls.
        restarts: the packets at which the file's clock starts anew.
    """

    order: array[int]
    pts: array[int]
    line: array[int]
    restarts: tuple[int, ...] = ()


def present(
    packets: PacketTable, shown: Sequence[int] | None = None, *, step: Fraction = Fraction(1)
) -> Presentation:
    """Return the shown packets in presentation order.

    Where the clock starts anew (recordings joined end to end), the time line goes on: the next part begins one frame
    distance behind the last frame of the part before.

    Args:
        packets: in decoding order; at least one shows a picture.
        shown: packet indices in the order in which the decoder shows them; None to go by the time stamps.
        step: ticks from one frame to the next, for parts that have no stamps.
    """
    if shown is None and (plain := _present_plainly(packets)) is not None:
        return plain
    parts = _split_at_restarts(packets)
    restarts = tuple(part[0] for part in parts[1:])
    if shown is None:
        parts = [_by_stamp(packets, part) for part in parts]
        stamps = [_own_stamps(packets, part) for part in parts]
    else:
        parts = _divide(shown, packets, [len(part) for part in parts])
        stamps = [_infer_stamps(packets, part, step) for part in parts]
    line, at = array("q"), stamps[0][0]
    for part in stamps:
        line.extend(accumulate((min(stamp + at - part[0], _LAST_TICK) for stamp in part), max))
        at = line[-1] + _median_step(part, step)
    own = line if shown is not None else array("q", chain.from_iterable(stamps))
    return Presentation(array("q", chain.from_iterable(parts)), own, line, restarts)


def unreliable(packets: PacketTable) -> bool:
    """Return whether the stamps cannot give the order of a stream that is stored in another order than shown.

    A shown packet has no pts, or two of them have the same in one part of the recording.
    """
    pts = packets.pts[packets.pictures]
    if (pts == NO_STAMP).any():
        return True
    if len(np.unique(pts)) == len(pts):
        return False
    return any(len(np.unique(packets.pts[part])) < len(part) for part in _split_at_restarts(packets))


def list_times(line: array[int], time_base: Fraction) -> tuple[array[float], int | None]:
    """Return the seconds from the first tick, and the median distance in ticks (None for a single frame).

    Args:
        line: ascending ticks.
        time_base: seconds per tick.
    """
    if line[-1] - line[0] > _LAST_TICK:  # too far apart for int64: a damaged stamp
        distances = sorted(after - before for before, after in pairwise(line))
        times = array("d", (float((tick - line[0]) * time_base) for tick in line))
        return times, distances[(len(line) - 2) // 2]
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


def _present_plainly(packets: PacketTable) -> Presentation | None:
    """Return what ``present`` returns, faster, for plain files; None for others.

    In a plain file every packet has a pts, is stored at a rising dts, and is shown within ``REORDER / 2`` places of
    where it is stored. Then fewer than ``REORDER`` frames that are stored after a frame are shown before it, and the
    clock never starts anew.
    """
    pictures = packets.pictures
    pts = packets.pts[pictures]
    if (pts == NO_STAMP).any() or (np.diff(_decoding_stamps(packets, pictures)) < 0).any():
        return None
    places = np.argsort(pts, kind="stable")
    if (np.abs(places - np.arange(len(places))) >= REORDER // 2).any():
        return None
    found = array("q", pts[places].tobytes())
    return Presentation(array("q", pictures[places].astype(np.int64).tobytes()), found, found)


def _decoding_stamps(packets: PacketTable, pictures: Stamps) -> Stamps:
    """Return stamps that rise in decoding order, but where the clock starts anew: the dts, without any dts the pts.

    A packet without a stamp has that of the packet before it; the first ones have the first stamp that is known.
    """
    stamps = packets.dts[pictures]
    if (stamps == NO_STAMP).all():
        stamps = packets.pts[pictures]
    missing = stamps == NO_STAMP
    known = np.maximum.accumulate(np.where(missing, np.argmin(missing), np.arange(len(stamps))))
    return stamps[known]


def _split_at_restarts(packets: PacketTable) -> list[list[int]]:
    """Return the shown packets of each part of a recording whose clock starts anew between the parts.

    A new part begins where the decoding stamps fall below the last two and go on from there at an even pace. A single
    stamp that is too low or too high (jitter, damage) begins none.
    """
    pictures = packets.pictures
    stamps = _decoding_stamps(packets, pictures)
    starts = [0]
    for at in (np.flatnonzero(stamps[1:] < stamps[:-1]) + 1).tolist():
        before = stamps[max(at - 2, starts[-1])]
        if stamps[at] <= before and _goes_on(stamps[at - 1], stamps[at : at + 3].tolist()):
            starts.append(at)
    ends = [*starts[1:], len(pictures)]
    return [pictures[start:end].tolist() for start, end in zip(starts, ends, strict=True)]


def _goes_on(last: int, new: Sequence[int]) -> bool:
    """Return whether stamps go on from a low one instead of returning to where they were.

    Args:
        last: stamp before the fall.
        new: the low stamp and up to two that follow.
    """
    if len(new) < 2 or new[1] < new[0]:
        return False
    return new[1] <= last or (len(new) > 2 and new[1] - new[0] < 2 * (new[2] - new[1]))


def _by_stamp(packets: PacketTable, part: Sequence[int]) -> list[int]:
    """Return packets in the order of their stamps, within ``REORDER`` places of the stored order."""
    order: list[int] = []
    heap: list[tuple[int, int]] = []
    for index, stamp in zip(part, _own_stamps(packets, part), strict=True):
        heapq.heappush(heap, (stamp, index))
        if len(heap) > REORDER:
            order.append(heapq.heappop(heap)[1])
    return order + [heapq.heappop(heap)[1] for _ in range(len(heap))]


def _own_stamps(packets: PacketTable, part: Sequence[int]) -> list[int]:
    """Return a stamp for each packet: its pts, else its dts, else that of the packet before."""
    own: list[int] = []
    for pts, dts in zip(packets.pts[part].tolist(), packets.dts[part].tolist(), strict=True):
        stamp = dts if pts == NO_STAMP else pts
        own.append((own[-1] if own else 0) if stamp == NO_STAMP else stamp)
    return own


def _divide(shown: Sequence[int], packets: PacketTable, sizes: Sequence[int]) -> list[list[int]]:
    """Divide the shown packets in the decoder's order into parts of the given sizes."""
    pictures = set(packets.pictures.tolist())
    order = iter([index for index in shown if index in pictures])
    return [list(islice(order, size)) for size in sizes]


def _infer_stamps(packets: PacketTable, part: Sequence[int], step: Fraction) -> list[int]:
    """Return the ticks of packets in the decoder's order.

    These are the pts where they rise, else the same pts or the dts in rising order. Where stamps are missing, they
    are interpolated between the pts that rise; without two of these, frames are ``step`` apart.
    """
    pts, dts = packets.pts[part], packets.dts[part]
    for stamps in (pts, np.sort(pts), np.sort(dts)):
        if (stamps != NO_STAMP).all() and (np.diff(stamps) > 0).all():
            found: list[int] = stamps.tolist()
            return found
    known = np.flatnonzero(pts != NO_STAMP)
    highest = np.maximum.accumulate(pts[known])
    known = known[np.append(True, np.diff(highest) > 0)[: len(known)]]
    if len(known) < 2:
        first = int(pts[known[0]] - round(known[0] * step)) if len(known) else 0
        return [first + round(at * step) for at in range(len(part))]
    return _interpolate(known.tolist(), pts[known].tolist(), len(part))


def _interpolate(places: list[int], stamps: list[int], count: int) -> list[int]:
    """Return ``count`` stamps on straight lines through the known ones, in whole ticks."""
    slope = Fraction(stamps[-1] - stamps[0], places[-1] - places[0])
    found = [stamps[0] - round((places[0] - at) * slope) for at in range(places[0])]
    for (begin, low), (end, high) in pairwise(zip(places, stamps, strict=True)):
        found += [low + (high - low) * (at - begin) // (end - begin) for at in range(begin, end)]
    return found + [stamps[-1] + round((at - places[-1]) * slope) for at in range(places[-1], count)]


def _median_step(stamps: Sequence[int], step: Fraction) -> int:
    """Return the median distance of stamps in ticks; ``step`` for a single one."""
    distances = np.diff(np.maximum.accumulate(stamps))
    return int(np.median(distances)) if len(distances) else round(step)
