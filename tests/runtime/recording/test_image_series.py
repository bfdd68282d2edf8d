"""Image series through the whole reader: folders of images, TIFF and DICOM. Every image gets its status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from red_model import view, write_red_model

from capsule_edge.evaluation.datasets import read_frame
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError, PackageError, UsageError
from capsule_edge.runtime.recording import read_frames, scan
from capsule_edge.runtime.recording.image_series import scan_series
from capsule_edge.runtime.study import Study

RED = range(5, 9)
FRAMES = [view(index in RED, index) for index in range(12)]


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


def encode(kind: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[
        1
    ].tobytes()


def folder(path: Path, kind: str = ".png") -> Path:
    path.mkdir()
    for index, frame in enumerate(FRAMES):
        # Numbers without leading zeros: alphabetical order would be wrong.
        (path / f"Frame {index}{kind}").write_bytes(encode(kind, frame))
    (path / "notes.txt").write_text("no image")
    return path


def tiff(path: Path) -> Path:
    assert cv2.imwritemulti(str(path), [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in FRAMES])
    return path


def dicom(path: Path, *, photometric: str = "RGB", jpeg: bool = False, **changes: object) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

    meta = FileMetaDataset()
    # VL Endoscopic Image Storage.
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Rows, dataset.Columns = FRAMES[0].shape[:2]
    dataset.SamplesPerPixel = 1 if photometric.startswith("MONO") else 3
    dataset.PhotometricInterpretation = photometric
    dataset.PlanarConfiguration, dataset.PixelRepresentation = 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.NumberOfFrames = len(FRAMES)
    dataset.FrameTime = "500"
    if jpeg:
        dataset.PixelData = encapsulate([encode(".jpg", frame) for frame in FRAMES])
        dataset["PixelData"].is_undefined_length = True
    else:
        convert: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "RGB": lambda rgb: rgb,
            "YBR_FULL": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]],
            "MONOCHROME2": lambda rgb: rgb[:, :, 0],
            "PALETTE COLOR": lambda rgb: rgb,
        }
        dataset.PixelData = np.stack([convert[photometric](frame) for frame in FRAMES]).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    assert pydicom.dcmread(path).NumberOfFrames == changes.get("NumberOfFrames", len(FRAMES))
    return path


def check(study: Study, *, corrupt: tuple[int, ...] = ()) -> None:
    """Assert that all 12 frames are in the study, these are corrupt, and the red ones are seen as bleeding."""
    assert [frame.index for frame in study.frames] == list(range(12))
    assert [f.index for f in study.frames if f.status == "corrupt"] == list(corrupt)
    assert study.ledger.container == 12
    assert study.ledger.classified == 12 - len(corrupt)
    assert {frame.detail for frame in study.frames if frame.status == "corrupt"} <= {"damaged"}
    seen = [f.index for f in study.frames if f.probabilities is not None and f.probabilities[1] > 0.5]
    assert seen == [index for index in RED if index not in corrupt]


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_a_folder_of_images_in_natural_order(red: Reader, tmp_path: Path, kind: str) -> None:
    study = red.read(folder(tmp_path / "Bilder № 1", kind))
    check(study)
    assert study.ledger.whole
    assert (study.source.time_kind, study.source.capture_fps) == ("playback", None)
    assert [frame.time_s for frame in study.frames] == [index / 25 for index in range(12)]
    assert [event.label for event in study.events] == ["bleeding"]
    assert study.thumbnails[1].shape[2] == 3
    box = study.source.field_of_view
    assert box is not None
    assert box.left > 20


@pytest.mark.quick
def test_lossless_images_keep_their_pixels(tmp_path: Path) -> None:
    for path in (folder(tmp_path / "folder"), tiff(tmp_path / "pages.tif"), dicom(tmp_path / "raw.dcm")):
        container = scan(path)
        for one in read_frames(container, range(12)):
            np.testing.assert_array_equal(one.image, FRAMES[one.index])


@pytest.mark.quick
def test_each_page_of_a_tiff_is_a_frame(red: Reader, tmp_path: Path) -> None:
    study = red.read(tiff(tmp_path / "pages.tif"))
    check(study)
    assert study.source.codec == "tif"


@pytest.mark.parametrize(
    "options", [{}, {"photometric": "YBR_FULL"}, {"photometric": "YBR_FULL_422", "jpeg": True}]
)
def test_each_frame_of_a_dicom_object_is_read_at_its_time(red: Reader, tmp_path: Path, options: dict) -> None:
    study = red.read(dicom(tmp_path / "exam.dcm", **options))
    check(study)
    # Frame Time is 500 ms.
    assert (study.source.time_kind, study.frames[3].time_s) == ("capture", 1.5)


def test_a_dicom_object_with_more_frames_than_announced_is_read_whole(red: Reader, tmp_path: Path) -> None:
    study = red.read(dicom(tmp_path / "exam.dcm", NumberOfFrames=5))
    check(study)
    assert (study.ledger.container_source, study.ledger.truncated) == ("packets", False)


def test_a_dicom_object_with_fewer_frames_than_announced_is_truncated(red: Reader, tmp_path: Path) -> None:
    pixels = np.stack(FRAMES).tobytes()
    for held, corrupt in ((len(pixels) - 2, (11,)), (len(pixels) * 10 // 12, (10, 11))):
        study = red.read(dicom(tmp_path / "exam.dcm", PixelData=pixels[:held]))
        check(study, corrupt=corrupt)
        assert study.ledger.truncated


@pytest.mark.parametrize("time", ["0.0000001", "0", "-40"])
def test_a_dicom_object_without_a_usable_frame_time_has_playback_time(tmp_path: Path, time: str) -> None:
    container = scan(dicom(tmp_path / "exam.dcm", FrameTime=time))
    assert (container.frame_distance_s, container.time_kind) == (1 / 25, "playback")


def test_a_grey_dicom_object_gives_grey_images(tmp_path: Path) -> None:
    container = scan(dicom(tmp_path / "grey.dcm", photometric="MONOCHROME2"))
    (one,) = read_frames(container, [5])
    assert (one.image == FRAMES[5][:, :, :1]).all()


def test_damage_stays_in_its_image(red: Reader, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "a", ".jpg")
    whole = (path / "Frame 3.jpg").read_bytes()
    (path / "Frame 3.jpg").write_bytes(whole[: len(whole) // 2])
    (path / "Frame 6.jpg").write_bytes(b"")
    (path / "Frame 7.jpg").write_bytes(encode(".jpg", FRAMES[7][:50, :50]))
    study = red.read(path)
    check(study, corrupt=(3, 6, 7))
    assert capfd.readouterr() == ("", "")
    assert not study.ledger.whole


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_bytes_behind_the_end_of_an_image_are_no_damage_but_a_missing_end_is(
    red: Reader, tmp_path: Path, kind: str
) -> None:
    path = folder(tmp_path / "a", kind)
    third, fourth = path / f"Frame 3{kind}", path / f"Frame 4{kind}"
    third.write_bytes(third.read_bytes() + bytes(100))
    fourth.write_bytes(fourth.read_bytes()[:-20])
    check(red.read(path), corrupt=(4,))
    # Evaluation has the same rule.
    assert read_frame(third).shape == FRAMES[3].shape
    with pytest.raises(InputError, match="is cut off at"):
        read_frame(fourth)


def test_a_broken_dicom_frame_is_corrupt(red: Reader, tmp_path: Path) -> None:
    path = dicom(tmp_path / "exam.dcm", photometric="YBR_FULL_422", jpeg=True)
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 12
    data[starts[4] : starts[4] + 2] = b"\0\0"
    path.write_bytes(data)
    check(red.read(path), corrupt=(4,))


def test_a_truncated_tiff_is_read_as_far_as_its_pages_go(red: Reader, tmp_path: Path) -> None:
    path = tiff(tmp_path / "pages.tif")
    data = path.read_bytes()
    assert scan(path).truncated is False
    path.write_bytes(data[: len(data) // 2])
    container = scan(path)
    assert 0 < container.present < 12
    assert (container.truncated, container.container_source) == (True, "unknown")
    ledger = red.read(path).ledger
    assert ledger.truncated
    assert not ledger.whole
    frames = list(read_frames(container, range(container.present)))
    assert len(frames) == container.present
    for one in frames[:-1]:
        np.testing.assert_array_equal(one.image, FRAMES[one.index])


def test_a_tiff_that_ends_within_a_directory_is_truncated(tmp_path: Path) -> None:
    path = tiff(tmp_path / "pages.tif")
    data = path.read_bytes()
    at = int.from_bytes(data[4:8], "little")
    for _ in range(3):
        after = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
        at = int.from_bytes(data[after : after + 4], "little")
    for end in (at, at + 1, at + 20):
        path.write_bytes(data[:end])
        assert scan(path).truncated


def test_start_and_step_apply_to_a_series(red: Reader, tmp_path: Path) -> None:
    study = red.read(folder(tmp_path / "a"), start_s=0.2, every=2)
    assert [frame.status for frame in study.frames] == ["skipped"] * 5 + ["classified", "skipped"] * 3 + [
        "classified"
    ]


def test_the_digest_changes_with_any_file_of_the_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    before = scan_series(path).digest()
    assert scan_series(path).digest() == before
    (path / "Frame 11.png").write_bytes((path / "Frame 10.png").read_bytes())
    assert scan_series(path).digest() != before


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "is a folder without images"),
        (
            lambda path: (path.mkdir(), (path / "a.png").write_bytes(b"no")),
            "holds no picture that can be decoded, of 1",
        ),
        (lambda path: path.write_bytes(b"II*\0"), "holds no picture"),
        (lambda path: path.write_bytes(b"II*\0\xff\xff\0\0"), "holds no picture"),
        (lambda path: path.write_bytes(bytes(128) + b"DICM" + b"\xff" * 50), "DICOM"),
        (lambda path: dicom(path, photometric="PALETTE COLOR"), "PALETTE COLOR of 8 bits"),
        (
            lambda path: dicom(path, NumberOfFrames=-1),
            r"announces NumberOfFrames \(0028,0008\) -1, allowed is 1 or more",
        ),
        (
            lambda path: dicom(path, PhotometricInterpretation=None, Rows=None),
            r"does not say Rows \(0028,0010\), PhotometricInterpretation \(0028,0004\),",
        ),
    ],
)
def test_a_file_that_is_no_series_is_refused_in_one_line(make: Callable, says: str, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    make(tmp_path / "exam")
    with pytest.raises(InputError, match=says) as caught:
        scan(tmp_path / "exam")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_the_error_names_the_file_that_cannot_be_opened(
    red: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "a")
    opened = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "Frame 3.png":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"Frame 3\.png.* cannot be opened: permission denied"):
        red.read(path)
    with pytest.raises(InputError, match=r"Frame 3\.png.* cannot be opened: permission denied"):
        scan_series(path).digest()


def test_dicom_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dicom(tmp_path / "exam.dcm")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(PackageError, match=r"needs pydicom.*capsule-edge\[dicom\]"):
        scan(path)


def test_hidden_files_are_no_pictures_and_are_counted(red: Reader, tmp_path: Path) -> None:
    path = folder(tmp_path / "frames")
    for picture in list(path.iterdir()):
        (path / f"._{picture.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (path / ".DS_Store").write_bytes(b"Bud1")
    before = scan_series(path)
    study = red.read(path)
    check(study)
    assert [(warning.code, warning.message) for warning in study.warnings] == [
        ("hidden_files", "12 hidden files (names that begin with a dot) were not taken for pictures.")
    ]
    (path / ".DS_Store").unlink()
    assert scan_series(path).digest() == before.digest()


def test_a_folder_with_hidden_pictures_only_has_none(tmp_path: Path) -> None:
    (tmp_path / "._1.jpg").write_bytes(encode(".jpg", FRAMES[0]))
    with pytest.raises(InputError, match="is a folder without images"):
        scan_series(tmp_path)


def test_images_added_while_a_folder_is_read_are_told(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames")
    series = scan_series(path)
    assert series.growth() == ()
    (path / "frame 99.png").write_bytes(encode(".png", FRAMES[0]))
    (warning,) = series.growth()
    assert (warning.code, warning.message.split(" to ")[0]) == ("grew", "1 images were added")


def test_recordings_beside_pictures_are_told(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames")
    (path / "exam.mp4").write_bytes(b"any")
    (warning,) = scan_series(path).warnings
    assert (warning.code, warning.message[:38]) == (
        "other_recordings",
        "1 recording in the same folder was not",
    )
    for picture in path.glob("*.png"):
        picture.unlink()
    for picture in (each for each in path.iterdir() if each.suffix != ".mp4"):
        picture.unlink()
    with pytest.raises(InputError, match=r"is a folder of recordings \(1\) without images"):
        scan_series(path)


@pytest.mark.parametrize("jpeg", [False, True])
def test_dicom_cannot_announce_four_million_frames(red: Reader, tmp_path: Path, jpeg: bool) -> None:
    study = red.read(dicom(tmp_path / "exam.dcm", jpeg=jpeg, NumberOfFrames=4_000_000))
    check(study)
    (warning,) = study.warnings
    assert warning.code == "header_count"
    assert warning.message.startswith("The header announces 4,000,000 pictures")


def test_dicom_says_that_its_pixels_are_not_square(tmp_path: Path) -> None:
    (warning,) = scan(dicom(tmp_path / "exam.dcm", PixelAspectRatio=["3", "4"])).warnings
    assert (warning.code, "4:3" in warning.message) == ("sample_aspect_ratio", True)
    assert scan(dicom(tmp_path / "square.dcm", PixelAspectRatio=["1", "1"])).warnings == ()


def test_images_have_no_streams(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stream is 1, but .* is a series of images"):
        scan(folder(tmp_path / "frames"), stream=1)
