"""The lossy compression that the pixels of a recording went through (PS3.3, C.7.6.1.1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from capsule_edge.runtime.recording import Container, ImageSeries

__all__ = ["LossyHistory", "loss_of_frame", "loss_of_object"]

_JPEG, _JPEG_LS, _JPEG_2000 = "ISO_10918_1", "ISO_14495_1", "ISO_15444_1"
_MPEG2, _H264, _HEVC = "ISO_13818_2", "ISO_14496_10", "ISO_23008_2"
# Defined terms (PS3.3, C.7.6.1.1.5.1) by codec, or by the suffix of a picture's file.
_METHODS = {
    "h264": _H264,
    "hevc": _HEVC,
    "mpeg2video": _MPEG2,
    "mjpeg": _JPEG,
    "jpg": _JPEG,
    "jpeg": _JPEG,
}
_LOSSLESS = frozenset({"ffv1", "png", "bmp"})
# A file of these kinds may be lossy or not.
_UNKNOWN = frozenset({"tif", "tiff", "webp"})
# Transfer syntaxes that always lose something, and those that may (near-lossless JPEG-LS, JPEG 2000), by the last part
# of their UID (PS3.6, table A-1).
_ALWAYS = {"50": _JPEG, "51": _JPEG, "100": _MPEG2, "101": _MPEG2, "107": _HEVC, "108": _HEVC}
_ALWAYS |= dict.fromkeys(("102", "103", "104", "105", "106"), _H264)
_PERHAPS = {"81": _JPEG_LS, "91": _JPEG_2000}
_ENCAPSULATED = "1.2.840.10008.1.2.4."


@dataclass(frozen=True)
class LossyHistory:
    """The lossy compression of pixels.

    Attributes:
        lossy: ``01`` for pixels that lost something, ``00`` for others, empty where it is not known.
        methods: of the compression, first the one that was applied first.
        ratios: of each method; none where they are not known.
    """

    lossy: Literal["01", "00", ""]
    methods: tuple[str, ...] = ()
    ratios: tuple[str, ...] = ()

    def describe(self, dataset: Any) -> None:
        """Write it into an object."""
        dataset.LossyImageCompression = self.lossy
        if self.methods:
            dataset.LossyImageCompressionMethod = list(self.methods)
        if self.ratios:
            dataset.LossyImageCompressionRatio = list(self.ratios)


def loss_of_frame(container: Container, index: int) -> LossyHistory:
    """Return the lossy compression of a frame of a recording that is no DICOM, by its codec or its file's suffix."""
    codec = container.codec
    if isinstance(container, ImageSeries) and container.format == "folder":
        codec = container.places[index][0].suffix.lower().lstrip(".")
    if codec in _LOSSLESS:
        return LossyHistory("00")
    if codec in _UNKNOWN or container.format == "tiff":
        return LossyHistory("")
    return LossyHistory("01", (_METHODS[codec],) if codec in _METHODS else ())


def loss_of_object(found: Any) -> LossyHistory:
    """Return the lossy compression of the pictures in a DICOM object: its own word, and that of its transfer syntax."""
    meta = getattr(found, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    # Forms in several fragments end in ".1".
    kind = syntax.removeprefix(_ENCAPSULATED).partition(".")[0] if syntax.startswith(_ENCAPSULATED) else ""
    said = str(found.get("LossyImageCompression") or "")
    methods, ratios = (_values(found.get(f"LossyImageCompression{name}")) for name in ("Method", "Ratio"))
    if said == "01" or kind in _ALWAYS:
        method = _ALWAYS.get(kind, _PERHAPS.get(kind, ""))
        if not methods and method:
            return LossyHistory("01", (method,))
        return LossyHistory("01", methods, ratios if len(ratios) == len(methods) else ())
    if said == "00":
        return LossyHistory("00")
    # Not said: raw pixels may have been decoded from anything, and these two syntaxes may lose something.
    return LossyHistory("" if kind in _PERHAPS or not kind else "00")


def _values(value: Any) -> tuple[str, ...]:
    if value is None or isinstance(value, str | int | float):
        return (str(value),) if value not in (None, "") else ()
    return tuple(str(each) for each in value)
