"""Count what each PID of an MPEG transport stream carries, from its packets alone (ITU-T H.222.0, 2.4.3, 2.5.3).

FFmpeg knows the PIDs that the first megabytes name. It drops in silence the packets of a PID that a recorder changes to
later, and those that are scrambled. So all packet headers are read here: NumPy reads those of a gigabyte in about a
second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .file_window import StoredFile

__all__ = ["PidCount", "count_pids", "count_program_streams"]

_SYNC = 0x47
# Plain packets; with a time stamp in front (M2TS); with error correction behind.
_SIZES = (188, 192, 204)
_BLOCK = 1 << 22
# Pack header, and the beginning of a video PES packet; its length has 16 bits.
_PACK = b"\0\0\1\xba"
_PES = re.compile(rb"\x00\x00\x01[\xe0-\xef]")
_MARGIN = (1 << 16) + 16
# Packets in a row that begin with the sync byte, to find the first one or to go on behind damage.
_ALIGNED = 4

Rows = npt.NDArray[np.uint8]


@dataclass
class PidCount:
    """The packets of one PID.

    Attributes:
        pictures: number of video PES packets that begin in the clear; most recorders write one for each picture.
        scrambled: number of PES packets that begin scrambled, of video or not.
        begin: position in the file, in bytes, of the last program table before the first of ``pictures``.
    """

    pictures: int = 0
    scrambled: int = 0
    begin: int = 0


def count_pids(path: StoredFile, size: int) -> dict[int, PidCount] | None:
    """Return the counts of each PID with video or scrambled packets; None where the file is no transport stream.

    PIDs come in the order in which they begin.

    Args:
        path: of the file.
        size: number of bytes to read.
    """
    with path.open("rb") as file:
        layout = _find_layout(file.read(min(size, 1 << 14)))
        if layout is None:
            return None
        at, length = layout
        counter = _Counter(length)
        while at < size:
            at = counter.count_block(file, at, min(_BLOCK, size - at))
    return counter.counts


def count_program_streams(path: StoredFile, size: int) -> dict[int, PidCount]:
    """Return the counts of each video stream of a program stream by FFmpeg's id; empty where the file is none.

    A packet of a program stream is no picture: ``pictures`` counts packets.

    Args:
        path: of the file.
        size: number of bytes to read.
    """
    counts: dict[int, PidCount] = {}
    with path.open("rb") as file:
        if file.read(4) != _PACK:
            return counts
        last_pack = 0
        for at in range(0, size, _BLOCK):
            file.seek(at)
            data = file.read(min(_BLOCK + _MARGIN, size - at))
            for found in _PES.finditer(data, 0, _BLOCK + 3):
                place = found.start()
                behind = place + 6 + int.from_bytes(data[place + 4 : place + 6])
                if data[behind : behind + 3] not in (b"\0\0\1", b""):
                    continue
                count = counts.setdefault(0x100 | data[place + 3], PidCount())
                if not count.pictures:
                    count.begin = max(at + data.rfind(_PACK, 0, place), last_pack)
                count.pictures += 1
            last_pack = max(last_pack, at + data.rfind(_PACK, 0, _BLOCK))
    return counts


def _find_layout(head: bytes) -> tuple[int, int] | None:
    """Return the position of the first packet and the distance between packets."""
    if _SYNC not in head[: max(_SIZES)]:
        return None
    found = ((_next_packet(head, 0, length), length) for length in _SIZES)
    return min(((at, length) for at, length in found if at is not None and at < length), default=None)


def _next_packet(data: bytes, at: int, length: int) -> int | None:
    """Return the next position from which on packets follow each other; None where there is none."""
    last = len(data) - (_ALIGNED - 1) * length - 1
    while 0 <= (at := data.find(_SYNC, at)) <= last:
        if all(data[at + step * length] == _SYNC for step in range(_ALIGNED)):
            return at
        at += 1
    return None


class _Counter:
    """Count the packets of each PID of a file, block by block."""

    def __init__(self, length: int) -> None:
        self.counts: dict[int, PidCount] = {}
        self._length = length
        self._last_table = 0

    def count_block(self, file: BinaryIO, at: int, size: int) -> int:
        """Count the packets of one block of the file, and return the position of the next block."""
        length = self._length
        file.seek(at)
        data = file.read(size)
        begin = 0
        while len(data) - begin >= length:
            rows = np.frombuffer(data, np.uint8, (len(data) - begin) // length * length, begin)
            rows = rows.reshape(-1, length)
            lost = np.flatnonzero(rows[:, 0] != _SYNC)
            aligned = int(lost[0]) if len(lost) else len(rows)
            self._count_rows(rows[:aligned], at + begin)
            begin += aligned * length
            if len(lost):
                following = _next_packet(data, begin + 1, length)
                if following is None:
                    # Keep the end of the block, where a packet may begin that the next block completes.
                    return at + max(begin + 1, len(data) - (_ALIGNED - 1) * length)
                begin = following
        return at + (begin or max(len(data), 1))

    def _count_rows(self, rows: Rows, at: int) -> None:
        """Count the PES packets that begin in these transport packets, the first of which is at ``at``."""
        # A unit starts here, and the receiver found no error in the packet.
        starts = np.flatnonzero((rows[:, 1] & 0xC0) == 0x40)
        heads = rows[starts]
        pids = (heads[:, 1] & 0x1F).astype(np.int64) << 8 | heads[:, 2]
        video, scrambled = _classify(heads)
        tables = starts[pids == 0]
        for pid in dict.fromkeys(pids[video].tolist()):
            mine = np.flatnonzero(video & (pids == pid))
            count = self.counts.setdefault(pid, PidCount())
            if not count.pictures:
                before = tables[tables < starts[mine[0]]]
                count.begin = at + int(before[-1]) * self._length if len(before) else self._last_table
            count.pictures += len(mine)
        for pid in dict.fromkeys(pids[scrambled].tolist()):
            self.counts.setdefault(pid, PidCount()).scrambled += int((scrambled & (pids == pid)).sum())
        if len(tables):
            self._last_table = at + int(tables[-1]) * self._length


def _classify(heads: Rows) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which transport packets begin a video PES packet in the clear, and which a scrambled one."""
    control = heads[:, 3] >> 4
    carries = (control & 1) > 0
    payload = 4 + np.where(control & 2, heads[:, 4].astype(np.int64) + 1, 0)
    scrambled = carries & (control > 3)
    video = carries & ~scrambled & (payload <= 188 - 7)
    payload = np.where(video, payload, 4)
    each = np.arange(len(heads))
    for place, value in enumerate((0, 0, 1)):
        video &= heads[each, payload + place] == value
    video &= (heads[each, payload + 3] & 0xF0) == 0xE0
    # The PES header is in the clear, and says that what follows is not.
    flags = heads[each, payload + 6]
    veiled = video & ((flags & 0xC0) == 0x80) & ((flags & 0x30) > 0)
    return video & ~veiled, scrambled | veiled
