"""Run a model over labelled frames, and save and load its answers as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, ModelError
from capsule_edge.runtime.inference import Backend, InputSpec, most_probable
from capsule_edge.runtime.preprocessing import preprocess

from .._files import write_text
from ..datasets import Dataset, Sample, read_frame

__all__ = ["Predictions", "check_labels", "load_frames", "load_predictions", "predict", "save_predictions"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """A model's answers for N labelled frames over L labels.

    Attributes:
        files: The name of each frame, relative to the data set.
        labels: intp (N,) in 0..L-1, the true label of each frame.
        video_ids: The video of each frame, None where it is unknown.
        sources: The source of each frame, None where it is unknown.
        probabilities: float32 (N, L) in 0..1.
        keys: The L label keys.
        logits: float32 (N, L); None for a table that was loaded.
        skipped: The names of frames that could not be read.
    """

    files: tuple[str, ...]
    labels: npt.NDArray[np.intp]
    video_ids: tuple[str | None, ...]
    sources: tuple[str | None, ...]
    probabilities: Floats
    keys: tuple[str, ...]
    logits: Floats | None = None
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def predicted(self) -> npt.NDArray[np.intp]:
        """The label with the highest probability, intp (N,) in 0..L-1."""
        return most_probable(self.probabilities)

    def take(self, indices: Iterable[int]) -> Predictions:
        """Return the answers for the frames at ``indices``, in that order."""
        at = np.fromiter(indices, np.intp)
        return replace(
            self,
            files=tuple(self.files[i] for i in at),
            labels=self.labels[at],
            video_ids=tuple(self.video_ids[i] for i in at),
            sources=tuple(self.sources[i] for i in at),
            probabilities=self.probabilities[at],
            logits=None if self.logits is None else self.logits[at],
        )


def predict(
    model: Backend, dataset: Dataset, *, batch: int = 32, advance: Callable[[int], None] | None = None
) -> Predictions:
    """Run a model over the frames of a data set, preprocessed as the runtime does.

    Args:
        model: An open model file.
        dataset: The labelled frames. One that cannot be read is left out and named in ``skipped``.
        batch: Frames in one run of the model.
        advance: Called with 1 after each frame.

    Raises:
        InputError: The data set has a label that the model lacks, or no frame can be read.
        ModelError: The model returned a probability that is not finite.
    """
    keys = model.spec.keys
    check_labels(dataset, keys)
    skipped: list[str] = []
    kept: list[Sample] = []
    probabilities: list[Floats] = []
    logits: list[Floats] = []
    frames = _frames(dataset, model.spec.input, skipped, advance)
    while group := list(islice(frames, batch)):
        answer = model.run(np.stack([frame for _, frame in group]))
        for (sample, _), row in zip(group, answer.probabilities, strict=True):
            if not np.isfinite(row).all():
                raise ModelError(
                    f"the model {model.path} returned probabilities that are not finite for {sample.file}: "
                    f"{row.tolist()}"
                )
        kept += [sample for sample, _ in group]
        probabilities.append(answer.probabilities)
        logits.append(answer.logits)
    if not kept:
        raise InputError(f"none of the {len(dataset.samples)} frames of {dataset.root} can be read")
    return Predictions(
        files=tuple(dataset.name_of(sample) for sample in kept),
        labels=np.array([keys.index(sample.label) for sample in kept], np.intp),
        video_ids=tuple(sample.video_id for sample in kept),
        sources=tuple(sample.source for sample in kept),
        probabilities=np.concatenate(probabilities),
        keys=keys,
        logits=np.concatenate(logits),
        skipped=tuple(skipped),
    )


def load_frames(dataset: Dataset, spec: InputSpec) -> tuple[Dataset, npt.NDArray[np.uint8]]:
    """Read and preprocess the frames of a data set.

    Returns:
        The data set of the N frames that can be read, and these frames as model input, uint8 RGB (N, size, size, 3).

    Raises:
        InputError: No frame can be read.
    """
    found = list(_frames(dataset, spec, [], None))
    if not found:
        raise InputError(f"none of the {len(dataset.samples)} frames of {dataset.root} can be read")
    kept = {id(sample) for sample, _ in found}
    at = [index for index, sample in enumerate(dataset.samples) if id(sample) in kept]
    return dataset.take(at), np.stack([frame for _, frame in found])


def check_labels(dataset: Dataset, keys: Sequence[str]) -> None:
    """Check that a model has every label of a data set.

    Args:
        dataset: The labelled frames.
        keys: The label keys of the model.

    Raises:
        InputError: The data set has a label that is not among ``keys``.
    """
    unknown = sorted({sample.label for sample in dataset.samples} - set(keys))
    if unknown:
        count = sum(sample.label in unknown for sample in dataset.samples)
        near = {label: get_close_matches(label, keys, n=1, cutoff=0.75) for label in unknown}
        named = [f"{label} (is it {near[label][0]}?)" if near[label] else label for label in unknown]
        raise InputError(
            f"{dataset.root} has {count} frame{'s' * (count > 1)} labelled {', '.join(named)}, "
            f"the model's labels are {', '.join(keys)}",
            hint="leave those frames out, rename their label (as with --labels map.yaml), or train a model that has it",
        )


def _frames(
    dataset: Dataset, spec: InputSpec, skipped: list[str], advance: Callable[[int], None] | None
) -> Iterator[tuple[Sample, npt.NDArray[np.uint8]]]:
    """Yield each readable frame, preprocessed; append the names of the others to ``skipped``."""
    for sample in dataset.samples:
        try:
            yield sample, preprocess(read_frame(sample), spec)
        except InputError:
            skipped.append(dataset.name_of(sample))
        if advance is not None:
            advance(1)


def save_predictions(predictions: Predictions, path: str | Path) -> None:
    """Write answers as a CSV file (UTF-8, columns ``file,video_id,label,p_<key>...``), completely or not at all.

    Probabilities have nine significant digits, from which every float32 is restored exactly.

    Raises:
        OutputError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "video_id", "label", *(f"p_{key}" for key in predictions.keys)])
    for name, video, label, row in zip(
        predictions.files, predictions.video_ids, predictions.labels, predictions.probabilities, strict=True
    ):
        writer.writerow([name, video or "", predictions.keys[label], *(f"{p:.9g}" for p in row)])
    write_text(path, text.getvalue())


def load_predictions(path: str | Path) -> Predictions:
    """Read a table that ``save_predictions`` wrote.

    Raises:
        InputError: The file cannot be read or is not such a table; the message names the first fault.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except OSError as error:
        raise InputError(f"the table {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"the table {path} is not UTF-8 (byte {error.start})") from None
    keys = tuple(name[2:] for name in header[3:])
    if header[:3] != ["file", "video_id", "label"] or not keys or any(n[:2] != "p_" for n in header[3:]):
        raise InputError(
            f"the table {path} has the columns {header}, needed are file, video_id, label, p_<key>..."
        )
    if not rows:
        raise InputError(f"the table {path} has no rows")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or row[2] not in keys:
            raise InputError(
                f"the table {path} line {line} is {row[:3]}: it must have {len(header)} cells and a label of {keys}"
            )
    try:
        probabilities = np.array([[float(p) for p in row[3:]] for row in rows], np.float32)
    except ValueError as error:
        raise InputError(f"the table {path} has a probability that is not a number: {error}") from None
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError(f"the table {path} has a probability outside 0 to 1")
    return Predictions(
        files=tuple(row[0] for row in rows),
        labels=np.array([keys.index(row[2]) for row in rows], np.intp),
        video_ids=tuple(row[1] or None for row in rows),
        sources=(None,) * len(rows),
        probabilities=probabilities,
        keys=keys,
    )
