"""Tell from a packet's bytes whether it shows a picture of its own.

A packet is not always a picture. VP8, VP9 and AV1 store pictures that are never shown and only serve as references.
H.264 may store the two fields of a picture in a packet each. Some files hold the headers of the codec as packets. None
of these is a frame of the recording, although the decoder needs all of them.

A damaged picture must not pass for one of these, or it would be lost in silence. So a packet counts as headers only
where it consists of them and of nothing else.

Sources: RFC 6386 section 9.1 (VP8), VP9 Bitstream Specification 0.6 sections 6.2 and B, AV1 Bitstream Specification
sections 5.3 to 5.9, ITU-T H.264 sections 7.3 and 7.4.1.2.4, ITU-T H.265 table 7-1, ISO/IEC 13818-2 section 6.2,
ISO/IEC 14496-2 section 6.2, Theora Specification section 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from enum import IntEnum

from .h264_headers import BitReader, H264Fields, nal_units

__all__ = ["PacketRole", "RoleReader", "role_reader"]

# Headers without a picture are short. A longer packet is not searched for the start of a picture.
_MOST_HEADER_BYTES = 256
_START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
_MPEG4_VOP = b"\0\0\1\xb6"
_MPEG4_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
# Start codes of headers (ISO/IEC 14496-2 table 6-3, 13818-2 table 6-1).
_MPEG4_HEADERS = frozenset([*range(0x30), 0xB0, 0xB1, 0xB2, 0xB3, 0xB5])
_MPEG2_HEADERS = frozenset([0xB2, 0xB3, 0xB5, 0xB7, 0xB8])
_MPEG2_SEQUENCE = 0xB3
_AV1_FRAME_HEADER, _AV1_FRAME = 3, 6
_HEVC_PARAMETERS = frozenset([32, 33, 34])
_HEVC_HEADERS = _HEVC_PARAMETERS | {35, 39}


class PacketRole(IntEnum):
    """The meaning of a packet for the frames of a recording.

    ``SHOWS``: it carries a picture that is shown. ``HIDDEN``: it carries a picture that is not shown, and that others
    may build on. ``SECOND_FIELD``: it carries the other half of the picture of the packet before it. ``HEADERS``: it
    carries no picture. ``LEADING``: it carries a picture that builds on what came before the recording
    (``leading_pictures``).
    """

    SHOWS = 0
    HIDDEN = 1
    SECOND_FIELD = 2
    HEADERS = 3
    LEADING = 4


class RoleReader:
    """Tell the roles of a stream's packets. Call it with the bytes of each packet, in decoding order.

    Attributes:
        packed: a packet of MPEG-4 Part 2 held several pictures ("packed bitstream"), so that the decoder shows a
            picture under another packet than the one that holds it.
    """

    packed = False

    def __call__(self, packet: memoryview) -> PacketRole:
        """Return the role of the next packet, which is not empty."""
        raise NotImplementedError


def role_reader(codec: str, header: bytes) -> RoleReader | None:
    """Return the reader of the packets' roles; None for a codec whose packets all show a picture.

    Args:
        codec: FFmpeg's name of the codec.
        header: the codec's extra data.
    """
    if codec == "h264":
        return _H264Roles(header)
    if codec == "hevc":
        return _HevcRoles(header)
    if codec == "mpeg4":
        return _Mpeg4Roles(header)
    return _PlainRoles(*_PLAIN[codec]) if codec in _PLAIN else None


class _PlainRoles(RoleReader):
    """The roles in a codec whose packets tell theirs one by one."""

    def __init__(self, shows: Callable[[memoryview], bool], otherwise: PacketRole) -> None:
        self._shows, self._otherwise = shows, otherwise

    def __call__(self, packet: memoryview) -> PacketRole:
        return PacketRole.SHOWS if self._shows(packet) else self._otherwise


class _H264Roles(RoleReader):
    """The roles of H.264 packets: second fields, and parameter sets without a slice."""

    def __init__(self, header: bytes) -> None:
        self._fields = H264Fields(header)

    def __call__(self, packet: memoryview) -> PacketRole:
        fields = self._fields
        if len(packet) <= _MOST_HEADER_BYTES and fields.is_headers(packet):
            fields.read(packet)
            return PacketRole.HEADERS
        return PacketRole.SECOND_FIELD if fields.completes_picture(packet) else PacketRole.SHOWS


class _HevcRoles(RoleReader):
    """The roles of HEVC packets: parameter sets without a slice show nothing."""

    def __init__(self, header: bytes) -> None:
        self._length_bytes = (header[21] & 3) + 1 if len(header) > 21 and header[0] == 1 else 0

    def __call__(self, packet: memoryview) -> PacketRole:
        if len(packet) > _MOST_HEADER_BYTES:
            return PacketRole.SHOWS
        kinds = [unit[0] >> 1 & 63 for unit in nal_units(packet, self._length_bytes)]
        # One flipped bit makes a slice a parameter set, but not several of them.
        headers = len(_HEVC_PARAMETERS.intersection(kinds)) > 1 and _HEVC_HEADERS.issuperset(kinds)
        return PacketRole.HEADERS if headers else PacketRole.SHOWS


class _Mpeg4Roles(RoleReader):
    """The roles of MPEG-4 Part 2 packets, packed or not.

    A packed packet holds a picture and the B-picture shown before it. A placeholder follows (a picture that is "not
    coded"), under which the decoder shows the second one. Other placeholders in such a stream show nothing. In a stream
    that is not packed a placeholder repeats the picture before it, and is a frame.
    """

    def __init__(self, header: bytes) -> None:
        self._time_bits = 0
        self._held = 0
        self._read_layer(header)

    def __call__(self, packet: memoryview) -> PacketRole:
        data = bytes(packet)
        pictures = data.count(_MPEG4_VOP)
        if pictures == 0:
            self._read_layer(data)
            headers = len(data) <= _MOST_HEADER_BYTES and _are_headers(
                data, _MPEG4_HEADERS, range(0x20, 0x30)
            )
            return PacketRole.HEADERS if headers else PacketRole.SHOWS
        if data.find(_MPEG4_VOP) > 0:
            self._read_layer(data)
        self._held += pictures - 1
        self.packed |= pictures > 1
        if pictures > 1 or not self.packed or self._is_coded(data):
            return PacketRole.SHOWS
        if self._held:
            self._held -= 1
            return PacketRole.SHOWS
        return PacketRole.HIDDEN

    def _read_layer(self, data: bytes) -> None:
        """Take over the number of bits of a picture's time from a video object layer (6.2.3)."""
        found = _MPEG4_LAYER.search(data)
        if found is None:
            return
        try:
            bits = BitReader(data[found.end() : found.end() + 32])
            bits.take(9)
            if bits.take(1):
                bits.take(7)
            if bits.take(4) == 15:
                bits.take(16)
            if bits.take(1):
                bits.take(3)
                if bits.take(1):
                    bits.take(79)
            # FFmpeg decodes rectangular pictures alone. Their shape has two bits, and a marker follows.
            bits.take(3)
            self._time_bits = max(1, (bits.take(16) - 1).bit_length())
        except IndexError:  # a damaged header: the decoder reports it
            return

    def _is_coded(self, data: bytes) -> bool:
        """Return whether the picture of a packet is coded (6.2.5, ``vop_coded``)."""
        at = data.index(_MPEG4_VOP) + len(_MPEG4_VOP)
        try:
            bits = BitReader(data[at : at + 16])
            bits.take(2)
            while bits.take(1):
                pass
            bits.take(self._time_bits + 2)
            return bool(bits.take(1))
        except IndexError:
            return False


def _shows_vp8(packet: memoryview) -> bool:
    return bool(packet[0] & 16)


def _shows_vp9(packet: memoryview) -> bool:
    """Return whether the last frame of a packet is shown: a superframe ends with the frame that is."""
    return any(_shows_vp9_frame(frame) for frame in _vp9_frames(packet))


def _vp9_frames(packet: memoryview) -> Iterator[memoryview]:
    marker = packet[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = 2 + count * width
    if marker & 0xE0 != 0xC0 or len(packet) < index or packet[-index] != marker:
        yield packet
        return
    at, entry = 0, len(packet) - index + 1
    for _ in range(count):
        size = int.from_bytes(packet[entry : entry + width], "little")
        if size:
            yield packet[at : at + size]
        at, entry = at + size, entry + width


def _shows_vp9_frame(frame: memoryview) -> bool:
    bits = int.from_bytes(bytes(frame[:2]).ljust(2, b"\0"))
    # Behind the marker (2 bits) and the profile (2 bits, 3 for profile 3): show_existing_frame, frame_type, show_frame.
    at = 11 if bits >> 12 & 3 != 3 else 10
    return bool(bits >> at & 1) or bool(bits >> at - 2 & 1)


def _shows_av1(packet: memoryview) -> bool:
    """Return whether a frame of a temporal unit is shown."""
    frames = [unit for kind, unit in _av1_units(packet) if kind in (_AV1_FRAME_HEADER, _AV1_FRAME)]
    # show_existing_frame, or frame_type (2 bits) and then show_frame.
    return any(not len(unit) or unit[0] & 0x90 for unit in frames)


def _av1_units(packet: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(packet):
        head = packet[at]
        at += 2 if head & 4 else 1
        size = len(packet) - at
        if head & 2:
            size, shift = 0, 0
            while at < len(packet):
                size |= (packet[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if packet[at - 1] < 128 or shift > 56:
                    break
        yield head >> 3 & 15, packet[at : at + size]
        at += size


def _shows_theora(packet: memoryview) -> bool:
    return not packet[0] & 128


def _shows_mpeg2(packet: memoryview) -> bool:
    headers = (_MPEG2_SEQUENCE,)
    return len(packet) > _MOST_HEADER_BYTES or not _are_headers(bytes(packet), _MPEG2_HEADERS, headers)


def _are_headers(data: bytes, allowed: Collection[int], needed: Collection[int]) -> bool:
    """Return whether all start codes are ``allowed``, and one of them is ``needed``."""
    codes = [found[0] for found in _START_CODE.findall(data)]
    return all(code in allowed for code in codes) and any(code in needed for code in codes)


_PLAIN: dict[str, tuple[Callable[[memoryview], bool], PacketRole]] = {
    "av1": (_shows_av1, PacketRole.HIDDEN),
    "mpeg1video": (_shows_mpeg2, PacketRole.HEADERS),
    "mpeg2video": (_shows_mpeg2, PacketRole.HEADERS),
    "theora": (_shows_theora, PacketRole.HEADERS),
    "vp8": (_shows_vp8, PacketRole.HIDDEN),
    "vp9": (_shows_vp9, PacketRole.HIDDEN),
}
