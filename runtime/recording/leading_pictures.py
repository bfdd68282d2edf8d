"""Find the pictures at the start of a recording that build on pictures before its start.

A recording that was cut out of a longer one may begin at the key frame of an open GOP. The pictures stored behind that
key frame and shown before it (leading pictures) may build on the GOP before, which is not in the file. Decoders give
no image for them (HEVC's RASL pictures, H.264 before a recovery point, B pictures of MPEG-2 and MPEG-4 without two
references), and players show none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from .coded_pictures import PacketRole
from .ffmpeg import PacketOutput, StreamPlace, decode_packets, open_recording
from .file_window import StoredFile
from .packets import NO_STAMP, REORDER, PacketTable
from .warning import RecordingWarning

__all__ = ["find_leading", "leave_out_leading", "warn_of_leading"]

# Codecs with pictures that are shown before a picture stored before them.
_REORDERING_NAMES = "h264 hevc vvc mpeg1video mpeg2video mpeg4 vc1 wmv3 rv30 rv40 cavs"
_REORDERING = frozenset(_REORDERING_NAMES.split())
# A packet of MPEG-4 Part 2 of up to so many bytes may only say "show the last frame again".
_NOT_CODED = 16


def find_leading(
    path: StoredFile, place: StreamPlace, codec: str, packets: PacketTable, *, stamped: bool = True
) -> frozenset[int]:
    """Return the packets of the first key frame's leading pictures for which the decoder has no image.

    Args:
        path: of the recording.
        place: of its video stream.
        codec: FFmpeg's name of it.
        packets: all packets of the recording.
        stamped: the time stamps tell in which order the pictures are shown. Then nothing is decoded unless they show
            leading pictures. False where they do not (AVI): the packets directly behind the key frame are looked at.
    """
    if codec not in _REORDERING or not packets.keys[:1].any():
        return frozenset()
    candidates = (
        _stamped_before(packets.pts[:REORDER]) if stamped else {*range(1, min(len(packets), REORDER))}
    )
    if not candidates:
        return frozenset()
    shown: set[int] = set()
    failed: set[int] = set()
    for output in _outputs(path, place, packets):
        shown.update(packet for packet, _ in output.images)
        failed.update(() if output.failed is None else (output.failed,))
    behind = range(1, min(shown - {0}, default=1))
    found = set()
    for packet in candidates - shown:
        if stamped and packets.pts[packet] != NO_STAMP:
            # A picture that can be decoded and is damaged is no such picture. FFmpeg's H.264 decoder, though, reports
            # absent references as damage, and returns no leading picture at the start.
            accepted = codec == "h264" or packet not in failed
        else:
            accepted = packet in behind and packet not in failed and packets.sizes[packet] > _NOT_CODED
        if accepted:
            found.add(packet)
    return frozenset(found) if 0 in shown else frozenset()


def _stamped_before(pts: npt.NDArray[np.int64]) -> set[int]:
    """Return the packets that are stamped as shown before the first one, or not stamped.

    Muxers that store no negative times give leading pictures the time of the key frame, or one tick more.
    """
    known = np.sort(pts[pts != NO_STAMP])
    distance = int(np.median(np.diff(known))) if len(known) > 1 else 0
    return {*np.flatnonzero(pts[1:] <= pts[0] + distance // 2) + 1}


def leave_out_leading(packets: PacketTable, leading: frozenset[int]) -> tuple[PacketTable, int]:
    """Mark leading pictures as not shown, and return how many of them the edit list had not discarded already."""
    if not leading:
        return packets, 0
    places = sorted(leading)
    roles = packets.roles.copy()
    roles[places] = PacketRole.LEADING
    return replace(packets, roles=roles), int((~packets.edited_out[places]).sum())


def warn_of_leading(left_out: int) -> tuple[RecordingWarning, ...]:
    """Return the warning about leading pictures that are left out, if there are any."""
    if not left_out:
        return ()
    pictures = "1 picture" if left_out == 1 else f"{left_out} pictures"
    return (
        RecordingWarning(
            "leading_pictures",
            f"The recording was cut out of a longer one: {pictures} at its start can only be decoded with the part"
            " before the cut. The reader leaves them out, as players do.",
        ),
    )


def _outputs(path: StoredFile, place: StreamPlace, packets: PacketTable) -> Iterator[PacketOutput]:
    """Decode far enough that the decoder has returned every image of the first ``REORDER`` packets."""
    with open_recording(path, place) as (source, stream):
        yield from islice(decode_packets(path, source, stream, packets), 2 * REORDER)
