"""Recordings over HTTP: they end at their end, and a new connection goes on where the lost one stopped."""

from __future__ import annotations

from pathlib import Path

import av
import damage
import numpy as np
import pytest
from live_servers import Clock, live, range_server, server
from red_model import write_exam

from capsule_edge.runtime.recording import decode, scan

Muxed = dict[str, bytes]


@pytest.fixture(scope="module")
def muxed(tmp_path_factory: pytest.TempPathFactory) -> Muxed:
    """One recording of 40 frames in several containers; frames 20 to 31 are red."""
    folder = tmp_path_factory.mktemp("muxed")
    exam = write_exam(folder / "exam.mp4", frames=40, red=range(20, 32))
    paths = {"mp4": exam, "index first": damage.remux(exam, folder / "first.mp4", movflags="faststart")}
    paths |= {kind: damage.remux(exam, folder / f"exam.{kind}") for kind in ("mkv", "ts")}
    return {kind: path.read_bytes() for kind, path in paths.items()}


@pytest.fixture(scope="module")
def whole(muxed: Muxed) -> dict[str, list[np.ndarray | None]]:
    """The frames of each container over a connection that is not lost."""
    found = {}
    for kind, data in muxed.items():
        with server(lambda _turn, data=data: ("video/mp4", data), length=True) as address:
            found[kind] = list(live(address, Clock()).read())
    return found


# An MP4's own index says how many pictures there are, whatever the server says.
@pytest.mark.parametrize(
    ("kind", "length"),
    [*((kind, True) for kind in ("mp4", "index first", "mkv", "ts")), ("mp4", False), ("index first", False)],
)
def test_a_file_ends_when_it_ends(kind: str, length: bool, muxed: Muxed) -> None:
    asked, clock = [], Clock()

    def answer(turn: int) -> tuple[str, bytes]:
        asked.append(turn)
        return "video/mp4", muxed[kind]

    with server(answer, length=length) as address:
        feed = live(address, clock)
        frames = list(feed.read())
    assert len(frames) == 40
    assert [i for i, frame in enumerate(frames) if frame is not None and frame[40, 60, 0] > 180] == list(
        range(20, 32)
    )
    assert (feed.truncated, feed.connections, clock.slept) == (False, 1, [])
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["mp4", "index first", "mkv", "ts"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
def test_a_file_goes_on_where_its_connection_was_lost(
    kind: str, share: float, muxed: Muxed, whole: dict[str, list[np.ndarray | None]]
) -> None:
    data = muxed[kind]
    cuts = {0: int(len(data) * share), 2: int(len(data) * (share + 0.03))}

    def answer(turn: int) -> tuple[str, bytes] | None:
        return None if turn == 1 else ("video/mp4", data)

    with server(answer, length=True, cuts=cuts) as address:
        feed = live(address, Clock())
        frames = list(feed.read())
    assert feed.truncated is False
    assert len(frames) == len(whole[kind]) == 40
    for one, other in zip(frames, whole[kind], strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one, other)


def test_a_file_whose_server_stays_away_is_not_whole(muxed: Muxed) -> None:
    data = muxed["index first"]
    with server(
        lambda turn: ("video/mp4", data) if turn == 0 else None, length=True, cuts={0: len(data) // 2}
    ) as address:
        feed = live(address, Clock())
        frames = list(feed.read())
    assert frames.pop() is None
    assert 10 < len(frames) < 40
    assert all(frame is not None for frame in frames)
    assert feed.truncated is True


def test_a_file_that_is_cut_on_its_server_ends_truncated(muxed: Muxed) -> None:
    """Every connection brings the same part, so the feed gives up."""
    data = muxed["index first"]
    clock = Clock()
    with server(lambda turn: ("video/mp4", data[: len(data) // 2]), length=True) as address:
        feed = live(address, clock)
        frames = list(feed.read())
    assert frames[-1] is None
    assert feed.truncated is True
    assert clock.now <= 5.0


def test_another_file_in_its_place_is_a_loss_and_read_from_its_start(muxed: Muxed, tmp_path: Path) -> None:
    data = muxed["index first"]
    other = write_exam(tmp_path / "exam.mp4", frames=30).read_bytes()

    with server(
        lambda turn: ("video/mp4", other if turn else data), length=True, cuts={0: len(data) // 2}
    ) as address:
        feed = live(address, Clock())
        frames = list(feed.read())
    assert feed.truncated is True
    assert sum(frame is None for frame in frames) == 1
    assert frames[-31] is None


@pytest.mark.parametrize("cuts", [{}, {0: 100_000}, {1: 0}, {2: 300_000}, {2: 300_000, 5: 400_000}], ids=str)
def test_an_index_at_the_end_is_fetched_first(cuts: dict[int, int], tmp_path: Path) -> None:
    """The first picture is not lost on the way back, wherever a connection breaks."""
    exam, generator = tmp_path / "exam.mp4", np.random.default_rng(0)
    with av.open(str(exam), "w") as out:
        stream = out.add_stream(
            "libx264", rate=25, options={"threads": "1", "preset": "ultrafast", "qp": "10"}
        )
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for _ in range(60):
            noise = generator.integers(0, 256, (128, 160, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        out.mux(stream.encode(None))
    data = exam.read_bytes()
    assert len(data) > 500_000  # more than FFmpeg reads ahead and would skip rather than seek
    assert data.index(b"moov") > data.index(b"mdat")
    with range_server(data, cuts) as (address, asked):
        feed = live(address, Clock())
        frames = list(feed.read())
    assert (len(frames), feed.truncated) == (60, False)
    for frame, picture in zip(frames, decode(scan(exam)), strict=True):
        assert frame is not None
        np.testing.assert_array_equal(frame, picture.rgb())
    assert len(set(asked)) > 1
