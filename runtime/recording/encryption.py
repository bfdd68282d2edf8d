"""Find out which video streams are encrypted. No FFmpeg decoder reports that: it decodes noise, or refuses everything.

Sources: ISO/IEC 14496-12, 8.12 (protected sample entries), ISO/IEC 23001-7 (common encryption), Microsoft ASF
01.20.06, 3.14 and 3.15.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import InputError
from .ffmpeg import quote
from .mp4_tables import protected_tracks

__all__ = ["EncryptionCount", "refuse_encrypted", "sealed_streams"]

_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
# Content Encryption Object, Extended Content Encryption Object.
_ASF_SEALS = (
    b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e",
    b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
)
_ASF_HEADER = 1 << 16


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

    def total(self, path: Path, size: int, stream: VideoStream, packets: int) -> int:
        """Return the number of encrypted packets of a stream.

        Args:
            path, size: of the file.
            stream: all packets of which were watched.
            packets: their number.
        """
        if self.encrypted:
            return self.encrypted
        sealed = sealed_streams(path, size)
        return packets if sealed is None or stream.id in sealed else 0


def sealed_streams(path: Path, size: int) -> frozenset[int] | None:
    """Return the ids of the streams that are encrypted whole by the header of an MP4 or ASF; None for all streams."""
    with path.open("rb") as file:
        head = file.read(_ASF_HEADER)
    if head.startswith(_ASF):
        length = int.from_bytes(head[16:24], "little")
        return None if any(seal in head[:length] for seal in _ASF_SEALS) else frozenset()
    return protected_tracks(path, size) if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") else frozenset()


def refuse_encrypted(path: Path, pictures: int) -> InputError:
    """Return the error for a recording of which nothing can be read."""
    return InputError(
        f"{quote(path)} is encrypted: none of its {pictures:,} pictures can be read",
        hint="export it without protection from the software that wrote it",
    )
