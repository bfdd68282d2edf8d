"""Recordings for the tests of parts and archives, and workers that misbehave."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import av
import damage

from capsule_edge.archive.manifest import Row
from capsule_edge.archive.reading import perform

GOP = 40
FILES = ("frames.csv", "study.json", "report.html")
ROW = Row(
    recording="/a.mp4",
    state="read",
    model_sha256="5" * 64,
    identity="6" * 64,
    version="1",
    options="{}",
    frames=60,
    seconds=1.5,
    suggestions=2,
    key="7" * 64,
    recorded_at="2026-11-30T00:00:00Z",
)


def write_long(path: Path, *, times: int, frames: int = GOP) -> Path:
    """Write a recording of closed GOPs of 40 frames with B-frames: a short one, several times.

    The noise of ``damage.encode`` suffices for 40 frames.
    """
    short = damage.encode(path.with_suffix(".short.mp4"), frames=frames, gop=GOP, options={"bf": "3"})
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        copy = None
        for turn in range(times):
            with av.open(str(short)) as read:
                stream = read.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                ticks = round(1 / (25 * stream.time_base))
                for packet in read.demux(stream):
                    if packet.size:
                        packet.pts += turn * frames * ticks
                        packet.dts += turn * frames * ticks
                        packet.stream = copy
                        out.mux(packet)
    short.unlink()
    return path


def same_files(one: Path, other: Path) -> bool:
    """Return whether two result folders hold the same bytes, ``timing.json`` apart."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def misbehave(setup: Any, task: Any) -> Any:
    """Do what the name of a recording says, or read it. Runs in a worker."""
    location = getattr(task, "location", None) or task.ready.location
    if "crash" in location:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "memory" in location:
        held = []
        while True:
            held.append(b"x" * (32 << 20))
            time.sleep(0.01)
    if "hang" in location:
        time.sleep(600)
    return perform(setup, task)


def perform_and_note(setup: Any, task: Any) -> Any:
    """Perform a task, and note the node of Ray that does. Runs in a worker."""
    import ray

    notes = setup.out / "nodes"
    notes.mkdir(exist_ok=True)
    (notes / ray.get_runtime_context().get_node_id()).touch()
    return perform(setup, task)


def act(setup: Any, task: Any) -> Any:
    """Do what a task says. Runs in a worker."""
    kind, value = task
    if kind == "kill":
        os.kill(os.getpid(), value)
    if kind == "sleep":
        time.sleep(value)
    if kind == "grow":
        held = []
        while True:
            held.append(b"x" * (32 << 20))
            time.sleep(0.01)
    return setup, os.getpid(), value
