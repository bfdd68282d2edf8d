"""Pack the frames of the split ``train`` into one small file, for ``adoptable_models``.

python -m capsule_edge.train.gpu.adoptable_frames --data DIR --out frames.npz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.datasets import folds, load_dataset, read_frame

SIDE, QUALITY, FOLDS = 112, 60, 5
"""Width and height of a packed frame in pixels, the quality of its WebP, and the number of folds over videos."""


def pack_frames(data: Path, out: Path) -> int:
    """Write the frames, their labels, videos and folds. Return the number of frames.

    Args:
        data: a data set folder.
        out: the ``.npz`` file to write: ``bytes`` uint8 of all WebP files, ``ends`` the end of each, ``labels``,
            ``videos``, ``fold`` (no video is in two), and ``keys``, the keys of the labels.

    Raises:
        InputError: the data set or a frame cannot be read.
    """
    dataset = load_dataset(data, split="train")
    keys = [label.key for label in dataset.classes]
    labels = np.array([keys.index(sample.label) for sample in dataset.samples])
    videos = np.array([sample.video_id for sample in dataset.samples])
    fold = np.empty(len(labels), np.int64)
    for number, (_, held_out) in enumerate(folds(dataset, FOLDS)):
        fold[held_out] = number
    packed = []
    for sample in dataset.samples:
        pixels = cv2.resize(read_frame(sample)[..., ::-1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        packed.append(cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].ravel())
    np.savez(
        out,
        bytes=np.concatenate(packed),
        ends=np.cumsum([len(one) for one in packed]),
        labels=labels,
        videos=videos,
        fold=fold,
        keys=np.array(keys),
    )
    return len(packed)


def main() -> None:
    """Pack the frames that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--out", type=Path, required=True, help=".npz file to write")
    options = parser.parse_args()
    count = pack_frames(options.data, options.out)
    print(f"{count} frames, {options.out.stat().st_size / 2**20:.1f} MiB", file=sys.stderr)


if __name__ == "__main__":
    run_module(main)
