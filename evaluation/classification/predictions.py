"""A model's answers over a labelled data set, kept as one table that can be saved, read and compared."""

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

from .._files import write_whole
from ..datasets import Dataset, Sample, read_frame

__all__ = ["Predictions", "check_labels", "load_frames", "load_predictions", "predict", "save_predictions"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Answers for N frames over L labels.

    ``labels`` are the true columns, intp (N,) in 0..L-1; ``probabilities`` float32 (N, L) in 0..1;
    ``logits`` float32 (N, L), None for a table that was read; ``skipped`` names the frames that could not
    be read.
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
        """The column of the highest probability, intp (N,)."""
        return most_probable(self.probabilities)

    def take(self, indices: Iterable[int]) -> Predictions:
        """The frames at ``indices``, in that order."""
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
    """Run ``model`` over the frames of ``dataset``, each preprocessed by the runtime's own code.

    A frame that cannot be read is left out and named in ``skipped``. ``advance`` is called with the number
    of frames done. Raises ``InputError`` for a label that the model does not have or when no frame can be
    read, ``ModelError`` for an answer that is not finite.
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
                raise ModelError(f"{model.path} answers {row.tolist()} for {sample.file}, numbers are needed")
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
    """The frames that can be read, as the data set of those alone and as a model takes them, uint8 (N, s, s, 3).

    Raises ``InputError`` when there is none.
    """
    found = list(_frames(dataset, spec, [], None))
    if not found:
        raise InputError(f"none of the {len(dataset.samples)} frames of {dataset.root} can be read")
    kept = {id(sample) for sample, _ in found}
    at = [index for index, sample in enumerate(dataset.samples) if id(sample) in kept]
    return dataset.take(at), np.stack([frame for _, frame in found])


def check_labels(dataset: Dataset, keys: Sequence[str]) -> None:
    """Raise ``InputError`` that names the labels of ``dataset`` which are not among the model's ``keys``."""
    unknown = sorted({sample.label for sample in dataset.samples} - set(keys))
    if unknown:
        count = sum(sample.label in unknown for sample in dataset.samples)
        near = {label: get_close_matches(label, keys, n=1, cutoff=0.75) for label in unknown}
        named = [f"{label} (is it {near[label][0]}?)" if near[label] else label for label in unknown]
        raise InputError(
            f"{dataset.root} has {count} frame{'s' * (count > 1)} labelled {', '.join(named)}, "
            f"the model's labels are {', '.join(keys)}",
            hint="leave those frames out, rename their label, or train a model that has it",
        )


def _frames(
    dataset: Dataset, spec: InputSpec, skipped: list[str], advance: Callable[[int], None] | None
) -> Iterator[tuple[Sample, npt.NDArray[np.uint8]]]:
    for sample in dataset.samples:
        try:
            yield sample, preprocess(read_frame(sample), spec)
        except InputError:
            skipped.append(dataset.name_of(sample))
        if advance is not None:
            advance(1)


def save_predictions(predictions: Predictions, path: str | Path) -> None:
    """Write ``file,video_id,label,p_<key>...`` as UTF-8 CSV, whole or not at all.

    Nine significant digits bring every float32 back as it was. Raises ``OutputError`` where it cannot be
    written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "video_id", "label", *(f"p_{key}" for key in predictions.keys)])
    for name, video, label, row in zip(
        predictions.files, predictions.video_ids, predictions.labels, predictions.probabilities, strict=True
    ):
        writer.writerow([name, video or "", predictions.keys[label], *(f"{p:.9g}" for p in row)])
    write_whole(path, text.getvalue(), "the table")


def load_predictions(path: str | Path) -> Predictions:
    """Read a table that ``save_predictions`` wrote. Raises ``InputError`` that names the first fault."""
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
            f"the table {path} has columns {header}, needed are file, video_id, label, p_<key>..."
        )
    if not rows:
        raise InputError(f"the table {path} has no rows")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or row[2] not in keys:
            raise InputError(f"the table {path} line {line} is {row[:3]}, its label must be one of {keys}")
    try:
        probabilities = np.array([[float(p) for p in row[3:]] for row in rows], np.float32)
    except ValueError as error:
        raise InputError(f"the table {path} has a probability that is no number: {error}") from None
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
