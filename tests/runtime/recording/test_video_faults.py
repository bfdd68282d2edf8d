"""Files that are no recording, or a hostile one: one line of error, no crash, no file left open."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import damage
import numpy as np
import pytest
from video_samples import details, read

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import decode, scan

pytestmark = pytest.mark.quick


def write_faulty(name: str, made, folder: Path) -> Path:
    """Write the file of this name; "absent.mp4" and the name with a line break are not written."""
    path = folder / name
    match name:
        case "folder.mp4":
            path.mkdir()
        case "text.mp4":
            path.write_text("This is no recording.\n" * 50)
        case "note.mp4":
            path.write_text("no\n")
        case "empty.mp4":
            path.touch()
        case "random.mp4":
            path.write_bytes(np.random.default_rng(3).bytes(100_000))
        case "tail_cut.mp4":
            damage.cut(made("h264.mp4"), path, 0.5)
        case "index_cut.mp4":
            fast = damage.remux(made("h264.mp4"), folder / "fast.mp4", movflags="faststart").read_bytes()
            path.write_bytes(fast[: fast.index(b"moov") + 400])
        case "no_picture.mp4":
            fast = damage.remux(made("h264.mp4"), folder / "fast.mp4", movflags="faststart").read_bytes()
            path.write_bytes(fast[: fast.index(b"mdat") + 4])
        case "sound.mp4":
            with av.open(str(path), "w") as out:
                stream = out.add_stream("aac", rate=8000)
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                silence.sample_rate = 8000
                out.mux(stream.encode(silence))
                out.mux(stream.encode(None))
        case "playlist.m3u8":
            (folder / "part.ts").write_bytes(made("h264.ts").read_bytes())
            path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\npart.ts\n#EXT-X-ENDLIST\n")
        case "script.ffconcat":
            (folder / "part.ts").write_bytes(made("h264.ts").read_bytes())
            path.write_text("ffconcat version 1.0\nfile part.ts\n")
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.mp4", "no such file"),
        ("folder.mp4", "is a folder"),
        ("text.mp4", "cannot be read as a recording"),
        ("note.mp4", "cannot be read as a recording"),
        ("empty.mp4", "0 bytes"),
        ("random.mp4", "cannot be read as a recording"),
        ("tail_cut.mp4", "index of '.*' is missing because the file was cut before its end .*repair tool"),
        ("index_cut.mp4", "index of '.*' is incomplete because the file was cut"),
        ("no_picture.mp4", "holds no picture of the 60 it announces"),
        ("sound.mp4", "holds no video, only audio"),
        ("playlist.m3u8", "cannot be read as a recording"),
        ("script.ffconcat", "cannot be read as a recording"),
        ("line\nbreak.mp4", "no such file"),
    ],
)
def test_the_error_is_one_line_with_a_hint(name: str, says: str, made, tmp_path: Path, capfd) -> None:
    with pytest.raises(InputError, match=says) as caught:
        scan(write_faulty(name, made, tmp_path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 1
    assert capfd.readouterr() == ("", "")


def test_a_file_without_permission_is_refused(made, monkeypatch) -> None:
    # Replaces the file system: root may read every file.
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    path = made("h264.mp4")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="cannot be opened: permission denied"):
        scan(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="no regular file"):
        scan(tmp_path / "pipe.mp4")


def test_reading_damaged_recordings_prints_nothing(made, tmp_path: Path, capfd) -> None:
    path = damage.flip(made("h264.mp4"), tmp_path / "flipped.mp4", list(range(60)), seed=1, bits=5)
    assert "damaged" in details(read(path)[1])
    assert capfd.readouterr() == ("", "")


def test_images_too_large_for_a_capsule_are_refused(made, monkeypatch) -> None:
    monkeypatch.setattr("capsule_edge.runtime.recording.scanned_stream.MOST_PIXELS", 96 * 80 - 1)
    with pytest.raises(InputError, match="96 x 80"):
        scan(made("h264.mp4"))


def test_a_jpeg_that_claims_gigapixels_is_corrupt(made, tmp_path: Path) -> None:
    data = made("mjpeg.avi").read_bytes()
    size = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 80, 96)
    assert data.count(size) == 60
    path = tmp_path / "huge.avi"
    path.write_bytes(data.replace(size, size[:5] + struct.pack(">HH", 65000, 65000)))
    container, frames = read(path)
    assert container.frames == 60
    assert set(details(frames)) == {"damaged"}


def test_an_absurd_frame_count_in_the_header_is_ignored(made, tmp_path: Path) -> None:
    data = bytearray(made("mpeg4.avi").read_bytes())
    at = data.index(b"strh") + 8 + 32
    assert data[at : at + 4] == struct.pack("<I", 60)
    data[at : at + 4] = struct.pack("<I", 0x7FFFFFF0)
    (tmp_path / "many.avi").write_bytes(data)
    container, _ = read(tmp_path / "many.avi")
    assert (container.frames, container.container_source) == (60, "packets")


def test_a_file_that_changes_between_scan_and_decode_is_refused(made, tmp_path: Path) -> None:
    path = damage.remux(made("h264.mp4"), tmp_path / "fast.mp4", movflags="faststart")
    container = scan(path)
    damage.cut(path, path, 0.5)
    with pytest.raises(InputError, match="changed while it was read"):
        list(decode(container))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be listed here")
def test_the_file_is_closed_however_reading_ends(made, tmp_path: Path) -> None:
    path = made("h264.mp4")

    def is_open() -> bool:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return any(os.path.realpath(link) == os.path.realpath(path) for link in links)

    container = scan(path)
    assert not is_open()
    frames = decode(container)
    next(frames)
    assert is_open()
    frames.close()
    assert not is_open()
    list(decode(container))
    assert not is_open()
