"""Decode a video file from its middle: the same frames, with the same fate, as decoding it from its start.

    entries = find_entries(container)
    with closing(FrameDecoder(container)) as decoder:
        for frame in decoder.frames_from(entries.packets[entries.start_for(4711)]): ...

Decoding may begin at a key frame such that no frame stored before it is shown after it: an *entry*. Where the first
frame from an entry on is sound, the decoder has begun anew there. Every later frame is then judged as
``decoder.decode`` judges it, with one exception. The leading frames of the entry (stored after it and shown before it)
build on the frames before, and are not decoded. ``decode`` would take damage in one of them for damage in what follows.
So from an *open* entry, which has leading frames, trust the frames from the next sound entry on only (``confirms``).
Packet 0 is always an entry, and needs no trust.

Packets found by seeking are compared with those that ``scan`` listed: a demuxer that lands elsewhere yields an error
and never another frame.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain

import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import InputError
from .coded_pictures import PacketRole
from .container import Container
from .decoder import FrameBuilder, marks_keys
from .ffmpeg import PacketOutput, drain, open_decoder, open_recording, picture_packets, quote, send
from .frame import Frame
from .gop import presentation_places
from .h264_headers import states_orientation
from .orientation import Orientations
from .packets import NO_STAMP, REORDER

__all__ = ["Entries", "FrameDecoder", "SeekError", "find_entries"]

Numbers = npt.NDArray[np.int64]

# Tries to land at or before a packet; each begins one entry earlier than the last.
_TRIES = 4
# Packets that belong to no listed one and may come directly after a seek: a parser begins in the middle of a picture.
_STRAYS = 64
# Parameter sets by codec (ITU-T H.264 table 7-1, H.265 table 7-1), and the bits of the first byte that hold the type.
_PARAMETER_SETS = {"h264": ({7, 8}, 0, 31), "hevc": ({33, 34}, 1, 63)}


class SeekError(Exception):
    """The demuxer cannot find a packet by its time stamp. Decode from packet 0 instead."""


@dataclass(frozen=True, eq=False)
class Entries:
    """The places where decoding may begin.

    Attributes:
        packets: their packets, ascending; the first is 0.
        frames: the index of the frame that each of these packets shows; that of the first is taken as 0.
        open: whether the entry has leading frames; never for the first.
    """

    packets: Numbers = field(repr=False)
    frames: Numbers = field(repr=False)
    open: npt.NDArray[np.bool_] = field(repr=False)

    def __len__(self) -> int:
        return len(self.packets)

    def number_before(self, index: int) -> int:
        """Return the number of the last entry that is not shown after frame ``index``."""
        return int(np.searchsorted(self.frames, index, side="right")) - 1

    def start_for(self, index: int) -> int:
        """Return the number of the last entry from which frame ``index`` can be trusted, if all is sound."""
        number = self.number_before(index)
        return number - bool(self.open[number])

    def confirms(self, frame: Frame) -> bool:
        """Return whether decoding has begun anew at a decoded frame, so that it and those after it can be trusted."""
        number = self.number_before(frame.index)
        image = frame.image
        return int(self.frames[number]) == frame.index and isinstance(image, VideoFrame) and image.key_frame

    def only_first(self) -> Entries:
        """Return the entries without those in the middle of the file."""
        return Entries(self.packets[:1], self.frames[:1], self.open[:1])


def find_entries(container: Container) -> Entries:
    """Return where the decoding of a video file may begin.

    Only packet 0 where the codec's decoder confirms no key frames, or where no packet has a time stamp of its own.
    """
    places = np.asarray(presentation_places(container))
    none = np.zeros(1, np.int64)
    if not (container.intra_only or marks_keys(container.codec)) or _stamps(container) is None:
        return Entries(none, none, none > 0)
    count = len(places)
    before = np.maximum.accumulate(np.concatenate([[-1], places[:-1]]))
    begins = container.packets.keys & (places >= 0) & (before < places)
    shows = container.packets.roles == PacketRole.SHOWS
    begins &= shows
    # A frame that the edit list discards has no place, so nothing tells whether it is a leading one.
    begins &= _distance_to(shows & (places < 0)) >= _distance_to(container.packets.keys)
    begins[0] = False
    after = np.minimum.accumulate(np.where(places < 0, count, places)[::-1])[::-1]
    found = np.concatenate([none, np.flatnonzero(begins)])
    frames = places[found]
    frames[0] = 0
    is_open = after[found] < frames
    is_open[0] = False
    return Entries(found, frames, is_open)


def _distance_to(marks: npt.NDArray[np.bool_]) -> Numbers:
    """Return for each packet the distance to the next marked one behind it; beyond the end where there is none."""
    count = len(marks)
    at = np.append(np.where(marks, np.arange(count), 2 * count)[1:], 2 * count)
    return np.minimum.accumulate(at[::-1])[::-1] - np.arange(count)


class FrameDecoder:
    """Decode one video file from any of its entries. Serves one thread at a time; close it when it is done.

    Args:
        container: of a video file, from ``scan``.
        builder: judges the frames; several decoders of one recording may share it.
        threads: as in ``open_decoder``: more than one only where a reading of the whole recording found no damage.
    """

    def __init__(
        self, container: Container, builder: FrameBuilder | None = None, *, threads: int = 1
    ) -> None:
        self._container = container
        self._threads = threads
        self._builder = builder or FrameBuilder(container)
        self._opened = ExitStack()
        self._file: tuple[InputContainer, VideoStream, VideoCodecContext] | None = None
        self._table = _PacketLookup.of(container)
        # A decoder that met damage keeps traces of it, although it is flushed: FFmpeg 8 then decoded some pixels of
        # sound H.264 frames otherwise (5 of 1,200 frames). So it is not used again.
        self._met_damage = False

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._file is not None:
            # PyAV frees a decoder while it holds the interpreter's lock, and waits for threads of FFmpeg that want that
            # lock for the pictures they still hold. Flushing lets go of both.
            self._file[2].flush_buffers()
        self._file, self._met_damage = None, False
        self._opened.close()

    def frames_from(self, packet: int) -> Generator[Frame]:
        """Yield the frames from an entry's frame on, in presentation order. Close the generator before the next call.

        Args:
            packet: of an entry.

        Raises:
            SeekError: the demuxer does not find the packet, or not those behind it.
            InputError: the file changed since it was scanned.
        """
        with closing(self._builder.frames(self._outputs(packet), packet)) as frames:
            for frame in frames:
                self._met_damage |= bool(frame.detail)
                yield frame

    def entry_frame(self, packet: int) -> Frame | None:
        """Return the frame of an entry, decoded alone; None where it is not sound. Far faster than ``frames_from``.

        Args:
            packet: of an entry.

        Raises:
            As ``frames_from``.
        """
        container, images = self._container, list[tuple[int, VideoFrame]]()
        stored, decoder = self._packets_from(packet)
        waiting: dict[int, int | None] = {}
        for index in range(packet, container.packets.last_of_picture[packet] + 1):
            output = send(decoder, next(stored), index, waiting, shows=index == packet)
            self._met_damage |= output.failed is not None
            images += output.images
        images += drain(decoder, waiting)
        place = self._builder.place_of(packet)
        image = next((image for index, image in images if index == packet), None)
        if image is None or place < 0 or self._met_damage or not self._begins_anew(image):
            return None
        return Frame(place, image, pts=container.pts[place], time_s=container.times_s[place])

    def jump(self, packet: int, index: int, stopped: Callable[[], bool]) -> Frame | None:
        """Return a frame without those before it. Pictures on which nothing builds are not decoded on the way.

        Only for H.264 (``nal_ref_idc``, ITU-T H.264 7.4.1) of which a reading of the whole recording found no damage.
        A picture that is left out may turn those behind it: then the frame does not come out.

        Args:
            packet: of an entry from which the frame can be trusted.
            index: of the frame.
            stopped: asked before each packet; True ends the call.

        Returns:
            The frame; None where it did not come out whole, or the call was stopped.

        Raises:
            As ``frames_from``.
        """
        container = self._container
        stored, decoder = self._packets_from(packet)
        shows = container.packets.roles == PacketRole.SHOWS
        waiting: dict[int, int | None] = {}
        wanted = container.order[index]
        way = _Way(container, decoder.extradata or b"", (packet, wanted))
        end = int(container.packets.last_of_picture[wanted]) + 1
        decoder.skip_frame = "NONREF"
        try:
            for sent in range(packet, end):
                if stopped():
                    return None
                if sent == wanted:
                    decoder.skip_frame = "DEFAULT"
                listed = self._next_listed(stored, sent, sought=packet > 0)
                way.pass_packet(sent, listed)
                output = send(decoder, listed, sent, waiting, shows=bool(shows[sent]))
                self._met_damage |= output.failed is not None
                way.pass_images(output.images)
        finally:
            decoder.skip_frame = "DEFAULT"
        way.pass_images(drain(decoder, waiting))
        for sent in range(end, way.end_before(index)):
            way.pass_packet(sent, self._next_listed(stored, sent, sought=packet > 0))
        # A container may mark a picture as key from which decoding does not begin anew (intra refresh).
        begun = packet == 0 or (packet in way.kept and self._begins_anew(way.kept[packet]))
        image = way.kept.get(wanted)
        if image is None or not begun or self._met_damage or way.turned or not self._is_sound(image):
            return None
        return Frame(index, image, pts=container.pts[index], time_s=container.times_s[index])

    def _begins_anew(self, image: VideoFrame) -> bool:
        """Return whether the image of an entry is whole and builds on no other."""
        return (image.key_frame or self._container.intra_only) and self._is_whole(image)

    def _is_whole(self, image: VideoFrame) -> bool:
        """Return whether the image of an entry is sound, of the recording's size, and upright in its way."""
        upright = Orientations(self._container.codec, self._container.orientation)
        return self._is_sound(image) and upright.shows(image, transposed=self._container.transposed)

    def _is_sound(self, image: VideoFrame) -> bool:
        container = self._container
        return not image.is_corrupt and (image.width, image.height) == (container.width, container.height)

    def _outputs(self, first: int) -> Generator[PacketOutput]:
        container = self._container
        stored, decoder = self._packets_from(first)
        waiting: dict[int, int | None] = {}
        shows = container.packets.roles == PacketRole.SHOWS
        sent, count = first, len(container.packets)
        for packet in stored:
            if sent == count:
                break
            self._compare(packet, sent, sought=first > 0)
            output = send(decoder, packet, sent, waiting, shows=bool(shows[sent]))
            self._met_damage |= output.failed is not None or any(
                image.is_corrupt for _, image in output.images
            )
            yield output
            sent += 1
        yield PacketOutput(sent, drain(decoder, waiting), last=True)

    def _next_listed(
        self, stored: Iterator[Packet[VideoStream]], index: int, *, sought: bool
    ) -> Packet[VideoStream]:
        """Return the next packet, which has to be the listed one of this index; see ``_compare``."""
        packet = next(stored, None)
        if packet is None:
            raise self._not_found(index, sought=sought)
        self._compare(packet, index, sought=sought)
        return packet

    def _compare(self, packet: Packet[VideoStream], index: int, *, sought: bool) -> None:
        """Raise unless a packet is the listed one.

        Args:
            packet: from the demuxer.
            index: of the listed one.
            sought: decoding did not begin at the start of the file.
        """
        same = int(self._container.packets.sizes[index]) == packet.size
        if not same or (sought and not self._fits(packet, index)):
            raise self._not_found(index, sought=sought)

    def _not_found(self, index: int, *, sought: bool) -> SeekError | InputError:
        if sought:
            return SeekError(index)
        return InputError(f"{quote(self._container.path)} changed while it was read", hint="read it again")

    def _fits(self, packet: Packet[VideoStream], index: int) -> bool:
        return self._table is not None and self._table.stamp(packet) == int(self._table.stamps[index])

    def _packets_from(self, first: int) -> tuple[Iterator[Packet[VideoStream]], VideoCodecContext]:
        """Return the packets from one on, and a decoder that holds no picture."""
        if first == 0 or self._met_damage:
            # Not every demuxer can seek back to the first packet.
            self.close()
        if self._file is None:
            source, stream = self._opened.enter_context(
                open_recording(self._container.path, self._container.place)
            )
            decoder = open_decoder(self._container.path, stream, threads=self._threads)
            self._file = source, stream, decoder
        source, stream, decoder = self._file
        if first == 0:
            return picture_packets(source, stream), decoder
        decoder.flush_buffers()
        stored = self._seek(source, stream, first)
        packet = next(stored)
        if not _brings_parameters(self._container.codec, decoder.extradata or b"", packet):
            raise SeekError(first)
        return chain([packet], stored), decoder

    def _seek(self, source: InputContainer, stream: VideoStream, first: int) -> Iterator[Packet[VideoStream]]:
        """Yield the packets from packet ``first`` on."""
        table = self._table
        if table is None:
            raise SeekError(first)
        keys = np.flatnonzero(self._container.packets.keys[: first + 1])[::-1]
        for at in keys[:_TRIES].tolist():
            try:
                source.seek(int(table.stamps[at]), stream=stream)
            except av.error.FFmpegError as error:
                raise SeekError(first) from error
            strays = 0
            stored = picture_packets(source, stream)
            for packet in stored:
                index = table.find(packet)
                if index is None:
                    strays += 1
                    if strays > _STRAYS:
                        break
                elif index == first:
                    yield packet
                    yield from stored
                    return
                elif index > first:
                    break
        raise SeekError(first)


class _Way:
    """The packets and images on the way of a jump, and the orientation that they leave behind.

    Args:
        container: of the recording.
        header: the codec's extra data.
        wanted: packets whose images are kept.
    """

    def __init__(self, container: Container, header: bytes, wanted: tuple[int, int]) -> None:
        self._container, self._header, self._wanted = container, header, wanted
        self._orientations = Orientations(container.codec, container.orientation)
        # Packets that state an orientation and whose images have not come out.
        self._stated: set[int] = set()
        self.kept: dict[int, VideoFrame] = {}

    def pass_packet(self, sent: int, packet: Packet[VideoStream]) -> None:
        """Take note of a packet in decoding order."""
        if states_orientation(memoryview(packet), self._header):
            self._stated.add(sent)

    def pass_images(self, images: list[tuple[int, VideoFrame]]) -> None:
        """Take note of decoded images in the order in which the decoder returns them."""
        for sent, image in images:
            self._stated.discard(sent)
            upright = self._orientations.shows(image, transposed=self._container.transposed)
            if sent in self._wanted and upright:
                self.kept[sent] = image

    @property
    def turned(self) -> bool:
        """A picture that was left out states an orientation, which may hold for the frame."""
        return bool(self._stated)

    def end_before(self, index: int) -> int:
        """Return the packet behind the last one that is shown before a frame; it may be stored after the frame's."""
        return max(self._container.order[max(0, index - REORDER) : index + 1]) + 1


@dataclass(frozen=True, eq=False)
class _PacketLookup:
    """Find the index of a packet by its time stamp and size.

    Attributes:
        presented: the stamps are presentation stamps; else decoding stamps.
        stamps: of each packet.
        sizes: of each packet, bytes.
        order: the packets by ascending stamp.
    """

    presented: bool
    stamps: Numbers = field(repr=False)
    sizes: Numbers = field(repr=False)
    order: Numbers = field(repr=False)

    @classmethod
    def of(cls, container: Container) -> _PacketLookup | None:
        found = _stamps(container)
        if found is None:
            return None
        presented, stamps = found
        return cls(presented, stamps, container.packets.sizes, np.argsort(stamps))

    def stamp(self, packet: Packet[VideoStream]) -> int | None:
        return packet.pts if self.presented else packet.dts

    def find(self, packet: Packet[VideoStream]) -> int | None:
        stamp = self.stamp(packet)
        if stamp is None:
            return None
        at = int(np.searchsorted(self.stamps, stamp, sorter=self.order))
        if at == len(self.order):
            return None
        index = int(self.order[at])
        return index if self.stamps[index] == stamp and self.sizes[index] == packet.size else None


def _stamps(container: Container) -> tuple[bool, Numbers] | None:
    """Return the time stamps that tell the packets apart, and whether they are presentation stamps; None without."""
    for presented, stamps in ((True, container.packets.pts), (False, container.packets.dts)):
        if not (stamps == NO_STAMP).any() and len(np.unique(stamps)) == len(stamps):
            return presented, stamps
    return None


def _brings_parameters(codec: str, header: bytes, packet: Packet[VideoStream]) -> bool:
    """Return whether a decoder can begin at a packet with the parameter sets that are in force there.

    MP4 and Matroska keep them in the header (ISO/IEC 14496-15), which then begins with 1. In a byte stream each entry
    has to bring its own: those that the decoder knows may be of another part.
    """
    if codec not in _PARAMETER_SETS or header[:1] == b"\1":
        return True
    wanted, shift, bits = _PARAMETER_SETS[codec]
    data, at = bytes(packet), 0
    found: set[int] = set()
    while (at := data.find(b"\0\0\1", at) + 3) > 2 and at < len(data) and not wanted <= found:
        found.add(data[at] >> shift & bits)
    return wanted <= found
