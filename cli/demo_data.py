"""``capsule-edge demo-data``: write a small synthetic data set to try the other commands on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capsule_edge.runtime.errors import OutputError

from ._evaluation import count_splits, print_splits, progress
from ._options import HELP_OPTIONS, json_option
from ._printing import console, echo_json

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Sample

_SOURCE = "rendered phantom"
_NOTE = "The frames are rendered: figures measured on them say nothing about patients."
_JPEG_QUALITY = 95


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge demo-data frames\n"
    "  capsule-edge evaluate standard --data frames\n"
    "  capsule-edge train --data frames --out runs/first --epochs 1",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of the data set. The same seed gives the same files, another one gives other scenes.",
)
@json_option
def command(folder: Path, seed: int, as_json: bool) -> None:
    """Make a small synthetic data set in DIR, for trying train, evaluate, compare, audit and split.

    DIR must be new or empty. It gets a folder of JPEG images (224 x 224 pixels) for each class, and labels.csv
    with the columns file, label, source, video_id, frame_number and split. The 432 frames come from 16 phantom
    videos, 12 in the split train and 4 in val. Every class is in both splits.

    The frames are rendered, and labels.csv says so in the column source. Figures measured on them say nothing
    about patients.
    """
    _check_empty(folder)
    images, samples = _render(folder, seed)
    _write(folder, images, samples)
    splits = count_splits(samples)
    if as_json:
        document = {"folder": str(folder), "seed": seed, "source": _SOURCE, "splits": splits, "note": _NOTE}
        echo_json(document)
        return
    videos = sum(split["videos"] for split in splits.values())
    console().print(
        f"wrote {len(samples)} frames of {videos} phantom videos, labels.csv names them: {folder}"
    )
    print_splits(splits)
    console().print(_NOTE)


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder} cannot be a folder: a file lies in its place", hint="choose another folder"
        )
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty", hint="choose a new folder, or empty this one")


def _render(folder: Path, seed: int) -> tuple[dict[Path, bytes], list[Sample]]:
    """Return the image files (about 7 MB) and the rows of ``labels.csv``."""
    import cv2

    from capsule_edge.evaluation.datasets import Sample
    from capsule_edge.runtime.phantom import count_frames, render_data_set

    images, samples = {}, []
    with progress("rendering", count_frames()) as advance:
        for frame in render_data_set(seed):
            path = folder / frame.label / f"{frame.video_id}_{frame.frame_number:04d}.jpg"
            bgr = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR)
            images[path] = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
            samples.append(
                Sample(path, frame.label, _SOURCE, frame.video_id, frame.frame_number, frame.split)
            )
            if advance is not None:
                advance(1)
    return images, samples


def _write(folder: Path, images: Mapping[Path, bytes], samples: list[Sample]) -> None:
    """Write the images, then ``labels.csv``. If anything fails, remove what was written.

    Raises:
        OutputError: a file cannot be written.
    """
    from capsule_edge.evaluation.datasets import splits

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    classes = {path.parent for path in images}
    try:
        for class_folder in classes:
            class_folder.mkdir(parents=True)
        for path, data in images.items():
            path.write_bytes(data)
        splits.write_labels(samples, folder / "labels.csv")
    except BaseException as error:
        for path in images:
            path.unlink(missing_ok=True)
        for path in (*classes, *made):
            with suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise OutputError(
                f"{folder} cannot be written: {(error.strerror or str(error)).lower()}",
                hint="free some space, or choose another folder",
            ) from None
        raise
