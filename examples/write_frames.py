"""Write frames of a recording as model input, for programs in other languages.

    python examples/write_frames.py exam.mp4 frames.raw --frames 100

``frames.raw`` holds uint8 RGB frames of shape (size, size, 3), one after the other, without a header.
``frames.labels`` holds the label keys of the model, one on each line, in the order of its probabilities. The frames
are preprocessed by the runtime: a program that preprocesses them differently gets different answers.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from capsule_edge.runtime import open_model
from capsule_edge.runtime.inference import default_model
from capsule_edge.runtime.preprocessing import find_field_of_view, preprocess
from capsule_edge.runtime.recording import decode, scan

# ``Reader.read`` finds the field of view in as many frames.
FIELD_FRAMES = 32


def write_frames(recording: Path, out: Path, *, model: Path, frames: int) -> int:
    """Write the first sound frames of a recording to ``out``.

    Args:
        recording: a video file or any other recording that ``decode`` reads.
        out: file for the frames; the label keys go beside it, with the suffix ``.labels``.
        model: model file whose input size and preprocessing to use.
        frames: largest number of frames to write.

    Returns:
        The number of frames written.
    """
    opened = open_model(model)
    spec, keys = opened.spec.input, opened.spec.keys
    opened.close()
    sound = (picture.rgb() for picture in decode(scan(recording)) if picture.status == "ok")
    first = list(islice(sound, FIELD_FRAMES))
    box = find_field_of_view(first) if spec.crop == "field_of_view" else None
    written = 0
    with out.open("wb") as file:
        for source in (first, sound):
            for rgb in islice(source, frames - written):
                file.write(preprocess(rgb, spec, box).tobytes())
                written += 1
    out.with_suffix(".labels").write_text("".join(f"{key}\n" for key in keys), "utf-8")
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write frames of a recording as the model takes them.")
    parser.add_argument("recording", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--model", type=Path, default=None, help="a model file (default: the installed standard model)"
    )
    parser.add_argument("--frames", type=int, default=100)
    given = parser.parse_args()
    count = write_frames(
        given.recording, given.out, model=given.model or default_model(), frames=given.frames
    )
    print(f"{count} frames")
