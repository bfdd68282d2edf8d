"""Count the frames that a file announces, and tell whether it was cut or its header cannot be right."""

from __future__ import annotations

from collections.abc import Sequence

from .avi_index import count_last_empty
from .ffmpeg import StreamPlace, open_recording
from .file_window import StoredFile
from .leftovers import fits
from .scanned_stream import ScannedStream
from .truncation import Boxes, announced_bytes, avi_is_cut, matroska_is_cut

__all__ = ["can_hold", "count_frames", "is_truncated"]


def count_frames(path: StoredFile, boxes: Boxes | None, found: ScannedStream) -> tuple[int | None, int]:
    """Return the number of frames that the header announces, and how many the edit list discards."""
    announced = found.header_frames if found.header_frames > 0 else None
    edited_out = int(found.packets.edited_out.sum())
    if announced is not None:
        announced -= found.packets.without_picture
    if boxes is not None and boxes.fragmented:
        return None, edited_out
    if found.from_tables or announced is None:
        return announced, edited_out
    if boxes is not None:
        announced -= sum(length == 0 for _, _, length, _ in found.index)
        kept = sum(not discard for _, _, _, discard in found.index)
        if kept != found.header_frames:
            edited_out = max(0, _count_unedited(path, found.place) - kept)
    elif found.format == "avi":
        ticks = [ticks for ticks, *_ in found.index] or [each.dts or 0 for each in found.packets]
        with path.open("rb") as file:
            announced -= _empty_slots(ticks) + count_last_empty(file)
    return announced, edited_out


def can_hold(path: StoredFile, size: int, found: ScannedStream, frames: int) -> bool:
    """Return whether the whole file, as long as it says it is, can hold this number of frames to be shown."""
    missing = frames - int((~found.packets.edited_out).sum())
    return missing <= 0 or fits(
        missing, announced_bytes(path, size, found.index) - int(found.packets.sizes.sum())
    )


def is_truncated(path: StoredFile, size: int, boxes: Boxes | None, found: ScannedStream) -> bool | None:
    """Return whether the file ends before its own header says; None where the container does not say."""
    if boxes is not None and boxes.fragmented:
        return boxes.overrun or (False if boxes.closed else None)
    if found.from_tables:
        return False
    if boxes is not None:
        return any(position + length > size for _, position, length, _ in found.index)
    if found.format == "avi":
        with path.open("rb") as file:
            return avi_is_cut(file, size)
    if found.format.startswith("matroska"):
        with path.open("rb") as file:
            return matroska_is_cut(file, size)
    return None


def _count_unedited(path: StoredFile, place: StreamPlace) -> int:
    """Return the number of index entries of an MP4 when its edit list is not applied."""
    with open_recording(path, place, ignore_editlist="1") as (_, stream):
        return len(stream.index_entries)


def _empty_slots(ticks: Sequence[int]) -> int:
    """Return the number of ticks without a frame, up to the last frame of an AVI.

    An AVI has one place for a frame at each tick. An empty place means "show the last frame again".
    """
    return max(0, ticks[-1] + 1 - len(ticks))
