"""Key images: one VL Endoscopic Image for each picture that shows a finding, with the pixels that were judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .codes import Code
from .common_modules import ObjectMaker, code_item, file_meta, sequence
from .lossy_history import LossyHistory

__all__ = ["ENDOSCOPIC_CLASS", "make_key_image"]

ENDOSCOPIC_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.1"
_EXPLICIT = "1.2.840.10008.1.2.1"
# Code 121322 of DICOM (CID 7202).
_SOURCE = Code("121322", "DCM", "Source image for image processing operation")


def make_key_image(
    maker: ObjectMaker,
    rgb: npt.NDArray[np.uint8],
    *,
    sop_instance: str,
    series: str,
    number: int,
    frame: int,
    segment: str,
    loss: LossyHistory,
    source: tuple[str, str, int | None] | None,
) -> Any:
    """Return a key image.

    Args:
        maker: of the examination.
        rgb: uint8 RGB (height, width, 3), as it was judged.
        sop_instance, series: UIDs.
        number: of the image in its series, from 1.
        frame: index of the frame in the recording.
        segment: of the gut, or empty.
        loss: the lossy compression that the pixels went through.
        source: class and instance of the object that holds the frame, and its number there; None where there is none.
    """
    height, width = rgb.shape[:2]
    dataset = maker.begin(ENDOSCOPIC_CLASS, sop_instance, series, 2, "ES")
    dataset.SeriesDescription = "Key images of capsule-edge"
    dataset.InstanceNumber = number
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = "Frame of a capsule endoscopy, decoded to RGB; not resized, not enhanced"
    dataset.ImageComments = f"Frame {frame} of the recording, counted from 0. Not reviewed by capsule-edge."
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = height, width
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    loss.describe(dataset)
    maker.place(dataset, segment)
    if source is not None:
        dataset.SourceImageSequence = sequence([_source_item(*source)])
    pixels = np.ascontiguousarray(rgb, np.uint8).tobytes()
    dataset.add_new(0x7FE00010, "OB", pixels + bytes(len(pixels) % 2))
    dataset.file_meta = file_meta(dataset, _EXPLICIT)
    return dataset


def _source_item(sop_class: str, sop_instance: str, number: int | None) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if number is not None:
        item.ReferencedFrameNumber = number
    item.PurposeOfReferenceCodeSequence = sequence([code_item(_SOURCE)])
    return item
