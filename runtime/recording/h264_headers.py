"""Read as much of H.264's headers as tells the two fields of a picture (ITU-T H.264, 7.3 and 7.4.1.2.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["BitReader", "H264Fields", "nal_units", "states_orientation"]

# Profiles whose sequence parameter sets describe chroma and scaling (7.3.2.1.1).
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_SLICE_TYPES = (1, 2, 5)
_IDR, _SEI, _SPS, _PPS, _AUD = 5, 6, 7, 8, 9
# Payload type of a display orientation (D.1.1).
_ORIENTATION = 47
_HEADERS = frozenset([_SEI, _SPS, _PPS, _AUD])
# With a zero byte of the start code behind it.
_LONGEST_DELIMITER = 3
# A slice's header up to the field flags, with bytes that prevent emulation.
_SLICE_HEAD = 48


def nal_units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """Yield the NAL units of a packet of H.264 or HEVC.

    Args:
        packet: its bytes.
        length_bytes: size of the length before each unit (ISO/IEC 14496-15); 0 where start codes part the units.
    """
    if length_bytes:
        at = 0
        while at + length_bytes < len(packet):
            size = int.from_bytes(packet[at : at + length_bytes])
            at += length_bytes
            if size:
                yield packet[at : at + size]
            at += size
        return
    data = bytes(packet)
    at = data.find(b"\0\0\1")
    while at >= 0:
        following = data.find(b"\0\0\1", at + 3)
        unit = packet[at + 3 : following if following >= 0 else len(packet)]
        if len(unit):
            yield unit
        at = following


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The fields of a sequence parameter set: bits of ``frame_num``, colour planes apart, frames only."""

    frame_num_bits: int
    separate_planes: bool
    frames_only: bool


@dataclass(frozen=True, slots=True)
class _Field:
    """The first slice of a coded picture: ``bottom`` is None for a frame, else the parity of the field."""

    frame_num: int
    bottom: bool | None
    idr: bool

    def is_completed_by(self, other: _Field) -> bool:
        """Return whether the field after this one is the other half of its picture."""
        # Both may reset the decoder, or the first alone (7.4.1.2.4).
        return (
            self.bottom != other.bottom and self.frame_num == other.frame_num and (self.idr or not other.idr)
        )


class H264Fields:
    """Pair the fields of a stream whose pictures are stored a field a packet. Call it with packets in decoding order.

    Args:
        header: the codec's extra data: an AVC configuration record, or NAL units behind start codes.
    """

    def __init__(self, header: bytes) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, int] = {}
        self._first: _Field | None = None
        self._length_bytes = _length_bytes(header)
        for unit in _parameter_sets(header) if self._length_bytes else nal_units(memoryview(header), 0):
            self._read_unit(unit)

    def is_headers(self, packet: memoryview) -> bool:
        """Return whether a packet holds parameter sets, delimiters and supplemental information and nothing else."""
        units = list(nal_units(packet, self._length_bytes))
        kinds = {unit[0] & 31 for unit in units}
        # One flipped bit makes a slice a delimiter or a sequence parameter set. A delimiter has two bytes.
        delimiters = all(len(unit) <= _LONGEST_DELIMITER for unit in units if unit[0] & 31 == _AUD)
        return bool(units) and delimiters and kinds <= _HEADERS and (_SPS not in kinds or _PPS in kinds)

    @property
    def frames_only(self) -> bool:
        """Parameter sets were read, and none of them allows fields."""
        return bool(self._sequences) and all(each.frames_only for each in self._sequences.values())

    def read(self, packet: memoryview) -> None:
        """Take over the parameter sets in a packet."""
        for unit in nal_units(packet, self._length_bytes):
            self._read_unit(unit)

    def completes_picture(self, packet: memoryview) -> bool:
        """Return whether a packet is the second field of the picture that the packet before it began."""
        # A stream of frames only needs no parsing, unless new parameter sets come with the slices.
        if self.frames_only and not _carries_sequence(packet, self._length_bytes):
            return False
        fields = []
        for unit in nal_units(packet, self._length_bytes):
            self._read_unit(unit)
            if unit[0] & 31 in _SLICE_TYPES and (field := self._read_slice(unit)) is not None:
                fields.append(field)
        if not fields and self._first is not None:
            # A slice that cannot be read: fields come in pairs.
            self._first = None
            return True
        if not fields or fields[0].bottom is None:
            self._first = None
            return False
        first, begun = fields[0], self._first
        if begun is not None and begun.is_completed_by(first):
            self._first = None
            return True
        # A packet that holds both fields is a whole picture.
        whole = any(field.bottom != first.bottom for field in fields)
        self._first = None if whole else first
        return False

    def _read_unit(self, unit: memoryview) -> None:
        kind = unit[0] & 31
        try:
            if kind == _SPS:
                number, sequence = _read_sequence(BitReader(_payload(unit[1:])))
                self._sequences[number] = sequence
            elif kind == _PPS:
                bits = BitReader(_payload(unit[1 : 1 + _SLICE_HEAD]))
                number = bits.golomb()
                self._pictures[number] = bits.golomb()
        except IndexError:  # a damaged parameter set: the decoder reports it
            return

    def _read_slice(self, unit: memoryview) -> _Field | None:
        try:
            bits = BitReader(_payload(unit[1 : 1 + _SLICE_HEAD]))
            bits.golomb()
            bits.golomb()
            sequence = self._sequences.get(self._pictures.get(bits.golomb(), -1))
            if sequence is None:
                return None
            if sequence.separate_planes:
                bits.take(2)
            frame_num = bits.take(sequence.frame_num_bits)
            bottom = None
            if not sequence.frames_only and bits.take(1):
                bottom = bool(bits.take(1))
            return _Field(frame_num, bottom, unit[0] & 31 == _IDR)
        except IndexError:
            return None


def _length_bytes(header: bytes) -> int:
    """Return the size of the length before each unit, by the codec's extra data; 0 for start codes."""
    return (header[4] & 3) + 1 if len(header) > 6 and header[0] == 1 else 0


def states_orientation(packet: memoryview, header: bytes) -> bool:
    """Return whether a packet of H.264 states a display orientation.

    Args:
        packet: its bytes.
        header: the codec's extra data.
    """
    return any(
        unit[0] & 31 == _SEI and _ORIENTATION in _message_types(_payload(unit[1:]))
        for unit in nal_units(packet, _length_bytes(header))
    )


def _message_types(data: bytes) -> Iterator[int]:
    """Yield the payload types of the messages in supplemental information (7.3.2.3.1)."""
    at = 0
    # The last byte holds the bits that end the unit.
    while at < len(data) - 1:
        values = []
        for _ in range(2):
            value = 0
            while at < len(data) and data[at] == 255:
                value, at = value + 255, at + 1
            values.append(value + (data[at] if at < len(data) else 0))
            at += 1
        yield values[0]
        at += values[1]


def _carries_sequence(packet: memoryview, length_bytes: int) -> bool:
    """Return whether a packet begins with a parameter set; they stand before the slices (7.4.1.2.3)."""
    for unit in nal_units(packet[:256], length_bytes):
        kind = unit[0] & 31
        if kind == _SPS:
            return True
        if kind in _SLICE_TYPES:
            return False
    return False


def _parameter_sets(record: bytes) -> Iterator[memoryview]:
    """Yield the parameter sets of an AVC configuration record (ISO/IEC 14496-15, 5.3.3)."""
    data, at = memoryview(record), 5
    for mask in (31, 255):
        if at >= len(data):
            return
        count, at = data[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2])
            if size and at + 2 + size <= len(data):
                yield data[at + 2 : at + 2 + size]
            at += 2 + size


def _payload(unit: memoryview) -> bytes:
    """Return a unit's bytes without those that only prevent a start code: a 3 behind two zeros (7.4.1)."""
    return bytes(unit).replace(b"\0\0\3", b"\0\0")


def _read_sequence(bits: BitReader) -> tuple[int, _Sequence]:
    """Return the number and the content of a sequence parameter set (7.3.2.1.1)."""
    profile = bits.take(24) >> 16
    number, separate = bits.golomb(), False
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        separate = chroma == 3 and bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for each in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    bits.skip_scaling_list(16 if each < 6 else 64)
    frame_num_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    bits.golomb()
    bits.golomb()
    return number, _Sequence(frame_num_bits, separate, bool(bits.take(1)))


class BitReader:
    """Read bits of a header; raise ``IndexError`` at its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next ``count`` bits as a number."""
        if count > self._left:
            raise IndexError("the unit ends")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """Return the next Exp-Golomb code (9.1); the code of a signed value is as long."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip_scaling_list(self, size: int) -> None:
        """Skip a scaling list (7.3.2.1.1.1)."""
        last = following = 8
        for _ in range(size):
            if following:
                code = self.golomb()
                delta = (code + 1) // 2 if code % 2 else -(code // 2)
                following = (last + delta) % 256
            last = following or last
