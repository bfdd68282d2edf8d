"""Find out which video streams are encrypted. No FFmpeg decoder reports that: it decodes noise, or refuses everything.

Sources: ISO/IEC 14496-12, 8.12 (protected sample entries), ISO/IEC 23001-7 (common encryption), Microsoft ASF
01.20.06, 3.14 and 3.15, RFC 9559, 5.1.4.1.31.
"""

from __future__ import annotations

from collections.abc import Iterator

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import InputError
from .ffmpeg import quote
from .file_window import StoredFile
from .mp4_tables import protected_tracks
from .truncation import ebml_length

__all__ = ["EncryptionCount", "refuse_encrypted", "sealed_streams"]

# Content Encryption Object, Extended Content Encryption Object.
_ASF_SEALS = (
    b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e",
    b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
)
_HEADER = 1 << 20
# EBML ids. ContentEncodings, ContentEncoding, ContentEncryption.
_SEGMENT, _TRACKS, _TRACK_ENTRY, _TRACK_TYPE = 0x18538067, 0x1654AE6B, 0xAE, 0x83
_ENCRYPTION = (0x6D80, 0x6240, 0x5035)


class EncryptionCount:
    """Count the encrypted ones among the packets of a stream, and mark each as corrupt."""

    def __init__(self) -> None:
        self.encrypted = 0

    def watch(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
        """Yield the packets as they come."""
        for packet in packets:
            # Decoders return noise for some encrypted packets without an error.
            if packet.has_sidedata("encryption_info"):
                self.encrypted += 1
                packet.is_corrupt = True
            yield packet

    def total(
        self, path: StoredFile, size: int, source: InputContainer, stream: VideoStream, packets: int
    ) -> int:
        """Return the number of encrypted packets of a stream.

        Args:
            path, size: of the file.
            source, stream: opened; all packets of the stream were watched.
            packets: their number.
        """
        return self.encrypted or (packets if stream.index in sealed_streams(path, size, source) else 0)


def sealed_streams(path: StoredFile, size: int, source: InputContainer) -> frozenset[int]:
    """Return the numbers of the streams that are encrypted whole by the header of an MP4, Matroska or ASF file.

    Args:
        path, size: of the file.
        source: the opened file.
    """
    kind = source.format.name
    if kind.startswith("mov"):
        tracks = protected_tracks(path, size)
        return frozenset(stream.index for stream in source.streams.video if stream.id in tracks)
    if kind.startswith(("asf", "matroska")):
        with path.open("rb") as file:
            head = file.read(_HEADER)
        if kind == "asf":
            sealed = any(seal in head[: int.from_bytes(head[16:24], "little")] for seal in _ASF_SEALS)
            return frozenset(stream.index for stream in source.streams.video if sealed)
        # FFmpeg lists the video tracks in the order of their entries.
        pairs = zip(source.streams.video, _sealed_entries(head), strict=False)
        return frozenset(stream.index for stream, sealed in pairs if sealed)
    return frozenset()


def _sealed_entries(head: bytes) -> Iterator[bool]:
    """Yield for each video track in the head of a Matroska file whether its content is encrypted."""
    for tracks in _find(head, _SEGMENT, _TRACKS):
        for entry in _find(tracks, _TRACK_ENTRY):
            if any(kind == b"\x01" for kind in _find(entry, _TRACK_TYPE)):
                yield any(True for _ in _find(entry, *_ENCRYPTION))


def _find(data: bytes, *path: int) -> Iterator[bytes]:
    """Yield the contents of the elements at a path of EBML ids, as far as ``data`` reaches."""
    at = 0
    while at < len(data) and data[at]:
        width = 9 - data[at].bit_length()
        element = int.from_bytes(data[at : at + width])
        found = ebml_length(data, at + width)
        if found is None:
            return
        length, begin = found
        at = len(data) if length is None else begin + length
        if element == path[0]:
            content = data[begin:at]
            if len(path) == 1:
                yield content
            else:
                yield from _find(content, *path[1:])


def refuse_encrypted(path: StoredFile, pictures: int | None = None) -> InputError:
    """Return the error for a recording of which nothing can be read; ``pictures`` is their number where known."""
    count = "" if pictures is None else f"{pictures:,} "
    return InputError(
        f"{quote(path)} is encrypted: none of its {count}pictures can be read",
        hint="export it without protection from the software that wrote it",
    )
