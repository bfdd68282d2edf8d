"""Tell the lines of FFmpeg's log that mean damage, and say how much of the damage a decoder reports.

A line means damage if it is about a slice or the picture in it: then a picture is changed or lost. A line about what
goes before the slices (parameter sets, their VUI, supplemental information) does not by itself. If the slices do need
what was refused, they say so in lines of their own ("non-existing PPS referenced").

Measured with FFmpeg 8.1 and 17,600 single-bit flips in 11 streams of H.264 and HEVC: 406 flips changed a picture and
were reported in the log alone, 404 of them by a line that is listed below. The other 2 had only "number of reference
frames exceeds max". That line and "mmco: unref short failure" are left out: they say that a picture is given up, or is
no longer there to be given up, which also happens in sound streams. If a later picture does need it, it says so.

A line that is not listed does not count. FFmpeg's next release may word a line anew; ``benchmarks.damage --lines``
lists all lines and how many of the flips behind each one changed a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from av.logging import ERROR

from .warning import DamageDetection

__all__ = ["damage_detection", "reads_log", "tell_damage"]

# How the lines begin, by FFmpeg's name of the decoder. All error lines of FFmpeg 8.1 that are about slices of H.264
# (libavcodec/h264*.c, h2645_parse.c) and HEVC (libavcodec/hevc/), and the lines by which two other decoders tell that
# data do not fit their own checksum. The lines of all further decoders add next to nothing to what they report anyway.
_BEGINNINGS = {
    "h264": (
        # macroblocks
        "error while decoding MB",
        "cabac decode of qscale diff failed",
        "overflow in decode_cabac_mb_mvd",
        "corrupted macroblock",
        "negative number of zero coeffs",
        "mb_type ",
        "mb_skip_run ",
        "Not enough data for an intra PCM block",
        "[BP] sub_mb_type ",
        "dquant out of range",
        "cbp too large",
        "Invalid level prefix",
        r"ref \d+ overflow",
        r"Reference \d+ >= ",
        "(top|left) block unavailable",
        "out of range intra chroma pred mode",
        "bytestream overread",
        # references
        "(abs_diff_pic_num|long_term_pic_idx) overflow",
        r"reference count( \d+)? overflow",
        r"reference overflow \d",
        "reference picture missing during reorder",
        "Missing reference picture",
        "(Discarding )?mismatching reference",
        "co located POCs unavailable",
        "illegal (reordering|modification)_of_pic_nums_idc",
        "illegal (memory|long ref|short term)",
        "mmco: cannot assign",
        "Frame num (change|gap)",
        # heads of slices
        "(luma|chroma)_log2_weight_denom ",
        "Out of range weight",
        "first_mb_in_slice overflow",
        "slice type ",
        "A non-intra slice in an IDR",
        "Invalid inter IDR frame",
        "Invalid mix of IDR",
        "idr_pic_id is invalid",
        "cabac_init_idc ",
        r"QP \d+ out of range",
        "deblocking.* out of range",
        "Invalid field mode combination",
        "Changing field mode",
        "Too many (fields|slices)",
        "PPS changed between slices",
        "SPS changed in the middle",
        "Slice overlaps",
        "non-existing PPS",
        "decode_slice_header error",
        "data partitioning",
        # packets
        "no frame!",
        "no picture ",
        "missing picture in access unit",
        "Invalid NAL unit size",
        "Invalid zero-sized VCL NAL unit",
        "Error splitting the input into NAL units",
        "AVC-parser: nal",
    ),
    "hevc": (
        # pictures
        "mismatching checksum of plane",
        "The cu_qp_delta ",
        # references
        "Could not find ref with POC",
        "Duplicate POC in a sequence",
        "Error constructing the (frame RPS|reference lists)",
        "Error allocating frame, DPB full",
        "Zero refs ",
        "Too many refs",
        "No ref lists in the SPS",
        "Invalid (long term RPS|reference index|collocated_ref_idx)",
        "Invalid value of (delta_idx|abs_delta_rps|delta_poc)",
        # heads of slices
        "First slice in a frame missing",
        "Two slices reporting being the first",
        "(Independent|Previous) slice segment missing",
        "Invalid slice segment address",
        "Impossible slice segment",
        "Unknown slice type",
        "Inter slices in an IRAP frame",
        "Ignoring POC change between slices",
        "Non-matching NAL types",
        "PPS id out of range",
        "PPS changed between slices",
        r"SPS \d+ does not exist",
        "Invalid number of merging MVP candidates",
        "Invalid deblock filter offsets",
        "Invalid slice cx qp offset",
        "The slice_qp ",
        "(luma|chroma)_log2_weight_denom ",
        "num_entry_point_offsets ",
        "offset_len ",
        "entry_point_offset table is corrupted",
        "WPP ctb addresses",
        "alignment_bit_equal_to_one",
        "too many slice_header_extension_data_bytes",
        "Overread slice header",
        # packets
        "Skipping invalid undecodable NALU",
        "Invalid NAL unit size",
        "Error splitting the input into NAL units",
    ),
    # Each slice has a checksum; FFmpeg shows the picture in spite of a wrong one.
    "ffv1": ("slice CRC mismatch", "Slice pointer chain broken", "quant_table_index out of range"),
    # Data that zlib cannot unpack is passed over.
    "flashsv": ("Zlib resync occurred",),
}
# By ``benchmarks.damage``: of the single-bit flips that change a picture, ``full`` codecs report at least two thirds of
# those anywhere in the picture data; ``partial`` ones at least a tenth of these and those in the first 12 bytes
# together. All other codecs report fewer, or were not measured. FFV1 reports all if its slices have checksums, which
# is an option of the encoder, and next to none otherwise.
_FULL = frozenset(["h264", "png", "apng", "jpegls", "zlib", "flashsv", "msmpeg4v3", "wmv1", "wmv2", ".png"])
_PARTIAL_NAMES = (
    "hevc mpeg4 mpeg1video mpeg2video msmpeg4v2 h263 flv1 av1 vp8 vp9 theora mjpeg prores cfhd asv1"
    " ffv1 utvideo magicyuv cinepak snow svq1 zmbv dirac gif dxv hap smc sgi flashsv2 exr dpx tiff"
    " .jpg .jpeg .bmp .webp"
)
_PARTIAL = frozenset(_PARTIAL_NAMES.split())
_LINES = {decoder: re.compile("|".join(beginnings)) for decoder, beginnings in _BEGINNINGS.items()}


def reads_log(decoder: str) -> bool:
    """Return whether a decoder reports some damage in FFmpeg's log alone.

    Args:
        decoder: FFmpeg's name of it.
    """
    return decoder in _LINES


def tell_damage(decoder: str, lines: Iterable[Any]) -> bool:
    """Return whether any line of FFmpeg's log means damage.

    Args:
        decoder: FFmpeg's name of the decoder.
        lines: (level, name, message) of each line, as ``av.logging.Capture`` lists them.
    """
    begins = _LINES[decoder].match
    return any(level <= ERROR and begins(message.strip()) is not None for level, _, message in lines)


def damage_detection(codec: str) -> DamageDetection:
    """Return how much of the damage in a frame the codec's decoder reports.

    Args:
        codec: FFmpeg's name of it, or the ending of the files of an image series after a dot (".png").
    """
    if codec in _FULL:
        return "full"
    return "partial" if codec in _PARTIAL else "none"
