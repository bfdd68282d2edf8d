"""Say what lies in a file beside the pictures that were read: one warning for each kind, with counts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from .appended import AppendedRecording
from .ffmpeg import quote
from .streams import StreamCount
from .warning import RecordingWarning

__all__ = [
    "fits",
    "warn_of_appended",
    "warn_of_encrypted",
    "warn_of_growth",
    "warn_of_header",
    "warn_of_hidden",
    "warn_of_recordings",
    "warn_of_shape",
    "warn_of_streams",
]

# No coded picture takes fewer bytes of its container: an entry in the index alone takes as many.
_LEAST_BYTES = 8


def warn_of_streams(others: Sequence[StreamCount]) -> list[RecordingWarning]:
    """Return a warning for each video stream that was not read."""
    return [RecordingWarning("other_stream", _describe_stream(each)) for each in others]


def _describe_stream(other: StreamCount) -> str:
    pictures = _count(other.pictures, "picture")
    were = "was" if other.pictures == 1 else "were"
    if other.place is None:
        return (
            f"{pictures} of another video stream ({other.name}), which FFmpeg cannot open, {were} not read."
        )
    size = f"{other.width} x {other.height}"
    text = f"{pictures} of another video stream (number {other.number}, {other.name}, {size}) {were} not read"
    if other.encrypted == other.pictures:
        return f"{text}: the stream is encrypted."
    veiled = f", {other.encrypted:,} of them encrypted" if other.encrypted else ""
    return f"{text}{veiled}; --stream {other.number} reads it."


def warn_of_appended(unread: Sequence[AppendedRecording]) -> list[RecordingWarning]:
    """Return a warning about the recordings behind the first one that were not read."""
    if not unread:
        return []
    pictures = sum(each.pictures or 0 for each in unread)
    closed = sum(each.pictures is None for each in unread)
    places = ", ".join(f"{each.start:,}" for each in unread[:8]) + (", ..." if len(unread) > 8 else "")
    which = _count(len(unread), "further recording")
    text = f"{_count(pictures, 'picture')} of {which} behind the first in the same file were not read"
    if closed == len(unread):
        text = f"{which} behind the first in the same file could not be opened"
    elif closed:
        text += f"; {closed:,} of them could not be opened"
    return [
        RecordingWarning(
            "appended_recording",
            f"{text}. Split the file at byte{'s' if len(unread) > 1 else ''} {places} and read each part.",
        )
    ]


def warn_of_encrypted(encrypted: int, pictures: int) -> list[RecordingWarning]:
    """Return a warning about pictures of the stream that are encrypted."""
    if not encrypted:
        return []
    text = f"{encrypted:,} of {_count(pictures, 'picture')} are encrypted and could not be read."
    return [RecordingWarning("encrypted_pictures", text)]


def warn_of_shape(ratio: Fraction | None, width: int, height: int) -> list[RecordingWarning]:
    """Return a warning about pixels that are not square.

    Args:
        ratio: width of a pixel over its height; None where the file does not say.
        width, height: of the stored pictures.
    """
    # Containers round the ratio; what changes the shown width by less than a pixel is square.
    if not ratio or abs(width * ratio - width) < 1:
        return []
    shown = f"{round(width * ratio)} x {height}"
    text = (
        f"The pixels are not square (sample aspect ratio {ratio.numerator}:{ratio.denominator}): the pictures were "
        f"read as they are stored, {width} x {height}, and players show them as {shown}."
    )
    return [RecordingWarning("sample_aspect_ratio", text)]


def fits(missing: int, room: int) -> bool:
    """Return whether a file can hold more pictures.

    Args:
        missing: number of pictures that the header announces and that are not there.
        room: number of bytes of the whole file that are not those of pictures.
    """
    return missing <= 0 or missing * _LEAST_BYTES <= room


def warn_of_header(announced: int, present: int) -> RecordingWarning:
    """Return the warning about a count in the header that the file cannot hold."""
    return RecordingWarning(
        "header_count",
        f"The header announces {announced:,} pictures, more than the file can hold; {present:,} are there. The count "
        "was not taken, and no picture is called missing.",
    )


def warn_of_growth(path: Path, added: str) -> RecordingWarning:
    """Return the warning about a recording that grew while it was read.

    Args:
        path: of the recording.
        added: what was added to it.
    """
    return RecordingWarning(
        "grew",
        f"{added} were added to {quote(path)} while it was read, and were not read. Read it again when the recorder "
        "has finished.",
    )


def warn_of_hidden(hidden: int) -> list[RecordingWarning]:
    """Return a warning about hidden files of a folder that are named like pictures."""
    if not hidden:
        return []
    text = f"{_count(hidden, 'hidden file')} (names that begin with a dot) were not taken for pictures."
    return [RecordingWarning("hidden_files", text)]


def warn_of_recordings(recordings: int) -> list[RecordingWarning]:
    """Return a warning about the recordings that lie in a folder whose pictures were read."""
    if not recordings:
        return []
    were = "was" if recordings == 1 else "were"
    text = f"{_count(recordings, 'recording')} in the same folder {were} not read: the pictures alone were."
    return [RecordingWarning("other_recordings", text)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
