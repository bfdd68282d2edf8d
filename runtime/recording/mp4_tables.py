"""Read the packets of an MP4 file from its sample tables, without reading the frames (ISO/IEC 14496-12).

Demuxing all packets reads the whole file before the first answer. The tables say the same in a few megabytes, where
they are plain: one video track of H.264 or HEVC, not fragmented, with at most one edit, which shows everything. For any
other file, and where the tables disagree with FFmpeg's index, ``read_tables`` returns None and the packets are demuxed.

Here the file alone says which packets are key frames; when demuxing, FFmpeg looks into the packets too. In both cases
the decoder must confirm a key frame before damage ends at it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from .file_window import StoredFile
from .packets import PacketTable

__all__ = ["protected_tracks", "read_tables"]

# Sample entries whose packets FFmpeg returns as they are stored.
_SAMPLE_ENTRIES = (b"avc1", b"avc3", b"hvc1", b"hev1")
# Sample entries whose packets are encrypted: common encryption, FairPlay.
_PROTECTED_ENTRIES = (b"encv", b"drmi")
# Boxes that change which frames are shown, or which are key frames.
_UNSUPPORTED = frozenset({b"stz2", b"stps", b"sbgp", b"cslg", b"saiz", b"saio", b"senc"})
_MOST_BYTES = 1 << 27
# A sample of this size in bytes or less may hold parameter sets and no picture.
_SHORTEST = 64
# FFmpeg takes a longer time step between packets for damage.
_LONGEST = 1 << 28
# Number of entries that are compared with FFmpeg's index.
_COMPARED = 64

Table = npt.NDArray[np.int64]


def read_tables(path: StoredFile, stream: VideoStream, size: int) -> PacketTable | None:
    """Return the packets of a stream; None where the tables are not plain.

    Args:
        path: of the MP4 file.
        stream: its video stream, opened by FFmpeg.
        size: of the file in bytes.
    """
    try:
        moov = _read_index(path, size)
        if moov is None:
            return None
        header = next(_find(moov, b"mvhd"))
        tracks = [track for track in _find(moov, b"trak") if _handler(track) == b"vide"]
        if len(tracks) != 1 or any(True for _ in _find(moov, b"mvex")):
            return None
        found = _read_track(tracks[0], _scale(header), size)
    except (StopIteration, IndexError, ValueError):  # a table that ends too early
        return None
    if found is None:
        return None
    packets, places = found
    return packets if _agrees(packets, places, stream) else None


def protected_tracks(path: StoredFile, size: int) -> frozenset[int]:
    """Return the ids of the tracks all of whose sample entries are protected."""
    found: set[int] = set()
    try:
        for track in _find(_read_index(path, size) or memoryview(b""), b"trak"):
            header = next(_find(track, b"tkhd"))
            at = 20 if header[0] == 1 else 12
            entries = next(_find(track, b"mdia", b"minf", b"stbl", b"stsd"))
            kinds = [kind for kind, _ in _boxes(entries[8:])]
            if kinds and all(kind in _PROTECTED_ENTRIES for kind in kinds):
                found.add(int.from_bytes(header[at : at + 4]))
    except (StopIteration, IndexError, ValueError):  # a damaged index is FFmpeg's to judge
        pass
    return frozenset(found)


def _read_index(path: StoredFile, size: int) -> memoryview | None:
    at = 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind, begin = int.from_bytes(head[:4]), head[4:8], 8
            if length == 1:
                length, begin = int.from_bytes(head[8:16]), 16
            elif length == 0:
                length = size - at
            if length < begin:
                return None
            if kind == b"moov":
                if length > _MOST_BYTES:
                    return None
                file.seek(at + begin)
                return memoryview(file.read(length - begin))
            at += length
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        if length < 8 or at + length > len(data):
            raise ValueError("a box is longer than its parent")
        yield bytes(data[at + 4 : at + 8]), data[at + 8 : at + length]
        at += length


def _find(data: memoryview, *names: bytes) -> Iterator[memoryview]:
    """Yield the contents of the boxes at a path of box names."""
    for kind, content in _boxes(data):
        if kind == names[0]:
            if len(names) == 1:
                yield content
            else:
                yield from _find(content, *names[1:])


def _handler(track: memoryview) -> bytes:
    return bytes(next(_find(track, b"mdia", b"hdlr"))[8:12])


def _scale(header: memoryview) -> int:
    """Return the time scale of an ``mvhd`` or ``mdhd`` box, ticks per second."""
    at = 20 if header[0] == 1 else 12
    return int.from_bytes(header[at : at + 4])


def _table(content: memoryview, columns: int, *, kind: str = ">u4", begin: int = 8) -> Table:
    """Return the rows of a table; their number lies in front of ``begin``. Raise ``ValueError`` where it is cut."""
    rows = int.from_bytes(content[begin - 4 : begin])
    return np.frombuffer(content, kind, rows * columns, begin).reshape(rows, columns).astype(np.int64)


def _read_track(track: memoryview, movie_scale: int, size: int) -> tuple[PacketTable, Table] | None:
    tables: dict[bytes, memoryview] = {}
    for kind, content in _boxes(next(_find(track, b"mdia", b"minf", b"stbl"))):
        if kind in _UNSUPPORTED or kind in tables:
            return None
        tables[kind] = content
    descriptions = tables.get(b"stsd", memoryview(b""))
    if not {b"stsd", b"stts", b"stsz", b"stsc"} <= set(tables):
        return None
    if int.from_bytes(descriptions[4:8]) != 1 or bytes(descriptions[12:16]) not in _SAMPLE_ENTRIES:
        return None

    sizes = tables[b"stsz"]
    count, same = int.from_bytes(sizes[8:12]), int.from_bytes(sizes[4:8])
    lengths = np.full(count, same, np.int64) if same else _table(sizes, 1, begin=12)[:, 0]
    steps = _table(tables[b"stts"], 2)
    if not count or (lengths <= _SHORTEST).any() or steps[:, 0].sum() != count or (steps[:, 0] < 1).any():
        return None
    if not ((steps[:, 1] > 0) & (steps[:, 1] < _LONGEST)).all():
        return None
    distances = np.repeat(steps[:, 1], steps[:, 0])
    dts = np.cumsum(distances) - distances
    pts = dts.copy()
    if b"ctts" in tables:
        offsets = _table(tables[b"ctts"], 2)
        if offsets[:, 0].sum() != count or not (offsets[:, 1] < _LONGEST).all():
            return None
        pts += np.repeat(offsets[:, 1], offsets[:, 0])
    keys = np.ones(count, np.bool_)
    if b"stss" in tables:
        numbers = _table(tables[b"stss"], 1)[:, 0]
        if not len(numbers) or (np.diff(numbers) <= 0).any() or not 1 <= numbers[0] <= numbers[-1] <= count:
            return None
        keys[:] = False
        keys[numbers - 1] = True

    places = _places(tables, lengths)
    if places is None or (places + lengths > size).any():
        return None
    shift = _edited(track, pts, movie_scale)
    if shift is None:
        return None
    nothing = np.zeros(count, np.bool_)
    return PacketTable(
        pts - shift, dts - shift, lengths, keys, nothing, nothing, np.zeros(count, np.int8)
    ), places


def _places(tables: dict[bytes, memoryview], lengths: Table) -> Table | None:
    """Return the offset of each packet in the file; None where the chunk tables are not plain."""
    if b"co64" in tables:
        chunks = _table(tables[b"co64"], 1, kind=">i8")[:, 0]
    elif b"stco" in tables:
        chunks = _table(tables[b"stco"], 1)[:, 0]
    else:
        return None
    runs = _table(tables[b"stsc"], 3)
    firsts = runs[:, 0] - 1
    if not len(runs) or firsts[0] != 0 or (np.diff(firsts) <= 0).any() or (runs[:, 2] != 1).any():
        return None
    if firsts[-1] >= len(chunks) or (runs[:, 1] < 1).any() or (chunks < 0).any():
        return None
    each = np.repeat(runs[:, 1], np.diff([*firsts.tolist(), len(chunks)]))
    if each.sum() != len(lengths):
        return None
    ends = np.cumsum(lengths)
    begins = ends - lengths
    heads = np.cumsum(each) - each
    places: Table = begins + np.repeat(chunks - begins[heads], each)
    return places


def _edited(track: memoryview, pts: Table, movie_scale: int) -> int | None:
    """Return the number of ticks by which the edit list shifts the times; None where it does anything else."""
    lists = list(_find(track, b"edts", b"elst"))
    if not lists:
        return 0
    content = lists[0]
    wide = content[0] == 1
    if len(lists) > 1 or int.from_bytes(content[4:8]) != 1 or len(content) < (28 if wide else 20):
        return None
    middle, end = (16, 24) if wide else (12, 16)
    duration = int.from_bytes(content[8:middle])
    begin = int.from_bytes(content[middle:end], signed=True)
    scale = _scale(next(_find(track, b"mdia", b"mdhd")))
    if begin != int(pts.min()) or not movie_scale or bytes(content[end : end + 4]) != b"\0\1\0\0":
        return None
    # The edit shows everything; one tick is a margin for rounding.
    return begin if duration * scale > int(pts.max() - begin + 1) * movie_scale else None


def _agrees(packets: PacketTable, places: Table, stream: VideoStream) -> bool:
    """Return whether FFmpeg's index has as many entries, and the same ones at ``_COMPARED`` places."""
    index, count = stream.index_entries, len(packets)
    if len(index) != count or stream.frames != count:
        return False
    for at in np.unique(np.linspace(0, count - 1, _COMPARED).astype(int)).tolist():
        entry = index[at]
        mine = (packets.dts[at], places[at], packets.sizes[at], packets.keys[at], False)
        if (entry.timestamp, entry.pos, entry.size, entry.is_keyframe, entry.is_discard) != mine:
            return False
    return True
