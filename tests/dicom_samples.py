"""Wrap videos and pictures in DICOM objects, written byte by byte so that tests can also write wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

VIDEO_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
IMAGE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.1"
SYNTAXES = {
    "h264": "1.2.840.10008.1.2.4.102",
    "h264 in fragments": "1.2.840.10008.1.2.4.102.1",
    "stereo": "1.2.840.10008.1.2.4.106",
    "hevc": "1.2.840.10008.1.2.4.107",
    "mpeg2": "1.2.840.10008.1.2.4.100",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "raw": "1.2.840.10008.1.2.1",
}
# Each stands in one patient field of the objects, and must be found nowhere else.
CANARIES = {
    "PatientName": "Kanarienvogel^Gelb",
    "PatientID": "CANARY-4711",
    "PatientBirthDate": "19370203",
    "AccessionNumber": "CANARY-ACC-9",
}


def items(fragments: Sequence[bytes], *, offsets: Sequence[int] = ()) -> bytes:
    """Return encapsulated pixel data: the table of offsets and the fragments, padded to even length.

    pydicom writes the delimiter behind them.
    """
    table = b"".join(offset.to_bytes(4, "little") for offset in offsets)
    return b"".join(
        b"\xfe\xff\x00\xe0" + len(each := fragment + bytes(len(fragment) % 2)).to_bytes(4, "little") + each
        for fragment in (table, *fragments)
    )


def cut(stream: bytes, size: int) -> list[bytes]:
    """Return a stream in pieces of ``size`` bytes; an even size, because a fragment has an even length."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def write_object(path: Path, syntax: str, pixels: bytes | None, **attributes: Any) -> Path:
    """Write a DICOM file whose element PixelData holds these bytes: ``items``, or raw pictures for the syntax "raw"."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = attributes.get("SOPClassUID", VIDEO_CLASS)
    meta.MediaStorageSOPInstanceUID = attributes.get("SOPInstanceUID", generate_uid())
    meta.TransferSyntaxUID = SYNTAXES.get(syntax, syntax)
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality = "ES"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    for name, value in {**CANARIES, **attributes}.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if pixels is not None:
        dataset.add_new(0x7FE00010, "OB", pixels)
        dataset["PixelData"].is_undefined_length = syntax != "raw"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def wrap_video(
    path: Path, video: Path | bytes, *, syntax: str = "h264", size: int = 0, **attributes: Any
) -> Path:
    """Write a video as a DICOM object, in one fragment or in fragments of ``size`` bytes."""
    stream = video if isinstance(video, bytes) else video.read_bytes()
    return write_object(path, syntax, items(cut(stream, size) if size else [stream]), **attributes)


def encode_picture(kind: str, rgb: np.ndarray) -> bytes:
    """Return a picture as "jpeg", "jpegls" or "jpeg2000" (a bare codestream, lossless)."""
    if kind == "jpegls":
        return bytes(pytest.importorskip("jpeg_ls").encode(np.ascontiguousarray(rgb), interleave_mode=2))
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if kind == "jpeg":
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    boxes = cv2.imencode(".jp2", bgr, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
    return boxes[boxes.index(b"\xff\x4f\xff\x51") :]


def write_pictures(path: Path, kind: str, pictures: Sequence[np.ndarray], **attributes: Any) -> Path:
    """Write pictures as one VL Endoscopic object: raw ones, or each encoded in a fragment of its own."""
    height, width = pictures[0].shape[:2]
    form = {"SOPClassUID": IMAGE_CLASS, "Rows": height, "Columns": width, "NumberOfFrames": len(pictures)}
    if kind == "raw":
        pixels = np.stack(pictures).tobytes()
    else:
        pixels = items([encode_picture(kind, picture) for picture in pictures])
    return write_object(path, kind, pixels, **{**form, **attributes})


def write_directory(folder: Path, names: Sequence[tuple[str, ...]]) -> Path:
    """Write a DICOMDIR that names files of a folder by their parts, and return the folder."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    records = []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = list(name)
        file = folder.joinpath(*name)
        known = pydicom.dcmread(file, stop_before_pixels=True) if file.is_file() else None
        record.ReferencedSOPClassUIDInFile = known.SOPClassUID if known else IMAGE_CLASS
        record.ReferencedSOPInstanceUIDInFile = known.SOPInstanceUID if known else generate_uid()
        records.append(record)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.FileSetID = "DISK"
    dataset.DirectoryRecordSequence = records
    pydicom.dcmwrite(folder / "DICOMDIR", dataset, enforce_file_format=True)
    return folder
