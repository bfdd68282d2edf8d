"""A whole training run in one folder: FP32, calibration on videos it has not seen, QAT, and the facts of all three.

The folder is what ``capsule-edge export`` takes. Each part that is there already is kept, so that a run that was
killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import fit_temperature, operating_points
from capsule_edge.evaluation.datasets import Dataset, hash_dataset, training_provenance
from capsule_edge.runtime.errors import InputError, OutputError, UsageError
from capsule_edge.runtime.inference import EventParameters, InputSpec, Label, ModelSpec, Role

from .config import TrainConfig
from .data import Frames, cached_frames, check_boxes, check_phantom, held_out, is_real, made_of, scale
from .fit import Journal, ask, specs_of
from .gpu import mask_unseen
from .models import architectures, reparameterise, weights

__all__ = ["train_run"]

_EVEN_BATCHES = 32
_RANGE = "range/"  # of the ranges that gpu_qat leaves beside the weights
_REPLAY_FRAMES = 64
_CACHE = "cache"
_GIVEN = "given.json"  # the name, and the files that the run was begun with
_WHOLE = ("config.json", "data.sha256", "qat.weights.npz", "run.json")
# A recording is almost all normal: one false frame in a hundred is as many as a reader bears, and nothing is shown
# that the calibrated model does not hold more likely than all else together.
_MIN_SPECIFICITY, _MIN_THRESHOLD = 0.99, 0.5
_LICENSE = "CC-BY-4.0 data (Kvasir-Capsule asks written permission for commercial use); Apache-2.0 code"
_LANDMARKS = {"pylorus", "ileocecal_valve", "ampulla_of_vater", "z_line", "cecum"}
_QUALITY = {"reduced_mucosal_view"}


def train_run(
    dataset: Dataset,
    out: Path,
    config: TrainConfig,
    *,
    name: str,
    backbone: Path | None = None,
    teachers: Sequence[Path] = (),
    calibrate_on: Path | None = None,
    fp32_weights: Path | None = None,
    cache: Path | None = None,
    boxes: Path | None = None,
    checkpoint_every_s: float = 120.0,
    note: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Train on ``dataset`` and leave a RUN folder in ``out``; one that was begun goes on where it was.

    One that is finished stays as it is, with what ``event_fit`` has put into it.

    ``backbone`` are pretrained weights (``weights.load_backbone``). ``teachers`` are exported model files, or weights
    of the same architecture, whose mean probabilities are learnt beside the labels. ``calibrate_on`` is the
    ``out_of_fold.npz`` that ``folds`` left: the temperature and the operating points come from it. Without it a sixth
    of the videos is held out of the fit, to calibrate on; another sixth where ``config.patience`` asks for early
    stopping. ``fp32_weights`` from elsewhere (``folds``, ``gpu_qat``) stand for the fit and need ``calibrate_on``;
    where they come with ranges learnt, QAT keeps these. ``boxes`` is the table of lesions that transplants are taken
    from (``transplants.read_boxes``), needed where ``config.transplants`` are wanted. Preprocessed frames are kept in
    ``cache``; without one they lie in ``out`` while the run lasts.

    Under a TF_CONFIG of several workers (``workers``) the FP32 fit is shared; the rest is the first one's alone.

    Raises ``UsageError`` for a data set of one class or of labels that no phantom shows, and what reading and
    writing raise.
    """
    import tensorflow as tf
    import tf_keras

    from .fit import Saving, Workers
    from .fit import fp32 as fit

    keys = dataset.labels
    if len(keys) < 2:
        raise UsageError(f"the data set has the class {', '.join(keys)} alone, at least two are needed")
    if config.phantom:
        check_phantom(keys)  # before the folder is claimed for these settings
    check_boxes(config, boxes)
    tf.config.experimental.enable_op_determinism()
    workers = Workers.from_environment()
    workers.part(config)
    tf_keras.utils.set_random_seed(config.seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from None
    ready = False
    if workers.first:
        _claim(
            out, config, dataset, name=name, backbone=backbone, teachers=teachers, calibrate_on=calibrate_on,
            fp32_weights=fp32_weights, boxes=boxes,
        )  # fmt: skip
        ready = _finished(out)
    with workers.together():
        if workers.mean(float(ready)) > 0:
            return
    # One worker prepares what they share; where they share no folder, the others find nothing and do it too.
    if not workers.first:
        workers.wait()
    everything = cached_frames(
        dataset, keys, InputSpec(config.size), cache or out / _CACHE, config=config, boxes=boxes
    )
    if workers.first:
        workers.wait()
    for file in everything.unreadable:
        note({"skipped": file})
    note({"frames": len(everything), "skipped": len(everything.unreadable)})
    real = int(is_real(everything.videos).sum())
    frames = everything.first(real)
    journal = Journal(out if workers.first else None, note)
    saving = [Saving(out / f"{part}.checkpoint.npz", checkpoint_every_s) for part in ("fp32", "qat")]
    if fp32_weights is not None:
        if calibrate_on is None:
            raise UsageError(
                f"{fp32_weights} was fitted elsewhere", hint="name what calibrates it: calibrate_on"
            )
        fp32 = _build(config, keys)
        weights.assign(fp32, weights.load(fp32_weights))
        logits, labels = _out_of_fold(calibrate_on, keys)
        _finish_fp32(fp32, logits, labels, everything, config, out)
    elif not (out / "fp32.weights.npz").is_file():
        held = held_out.choose(frames, calibrate=calibrate_on is None, stop=bool(config.patience))
        if workers.first:
            held.write(out)
        calibrating = np.isin(everything.videos, held.calibration)
        stopping = np.flatnonzero(np.isin(everything.videos, held.stopping))
        among = ~calibrating
        among[stopping] = False
        among &= ~made_of(everything.videos, {*held.calibration, *held.stopping})
        with workers.strategy.scope():
            fitted = _build(config, keys, branched=True)
            if backbone is not None:
                weights.assign(fitted, weights.load_backbone(backbone), fresh=("logits",))
        judged, fp32 = _build(config, keys, branched=True), _build(config, keys)
        fit.fit_fp32(
            fitted, everything, config, saving=saving[0], note=journal.of("fp32"), among=among,
            taught=ask(teachers, everything, config) if teachers else None,
            judge=fit.judge_with(judged, everything, stopping) if config.patience else None, workers=workers,
        )  # fmt: skip
        if workers.first:
            arrays = workers.collect(fitted)
            weights.assign(
                fp32,
                reparameterise.merge(arrays) if config.architecture in architectures.BRANCHED else arrays,
            )
            rows = np.flatnonzero(calibrating)
            if calibrate_on is None:
                logits, labels = fit.predict(fp32, everything.pixels, rows), everything.labels[rows]
            else:
                logits, labels = _out_of_fold(calibrate_on, keys)
            _finish_fp32(fp32, logits, labels, everything, config, out)
    if workers.first:
        # Ranges learnt before the channels were evened are of other channels.
        learnt = {} if fp32_weights is None or config.equalise else weights.load(fp32_weights)
        ranges = {k.removeprefix(_RANGE): ends for k, ends in learnt.items() if k.startswith(_RANGE)}
        _quantise(everything, config, out, saving[1], journal, ranges)
        calibration: dict[str, Any] = dict(weights.load(out / "calibration.npz"))
        learnt_from = specs_of(teachers)
        spec = _spec(
            name, keys, calibration["logits"], calibration["labels"], config, dataset, everything, learnt_from
        )
        document = {
            "architecture": config.architecture,
            "size": config.size,
            "labels": len(keys),
            "spec": {k: v for k, v in spec.to_dict().items() if k != "precision"},
        }
        del everything, frames  # Windows removes no file that is mapped
        shutil.rmtree(out / _CACHE, ignore_errors=True)
        # Last: with it the run is finished.
        _write(out / "run.json", json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))
    # A worker that left would end the others.
    workers.wait()


def _build(config: TrainConfig, keys: Sequence[str], *, branched: bool = False) -> Any:
    import tf_keras

    return architectures.build(
        config.architecture, size=config.size, labels=len(keys), keras=tf_keras, branched=branched
    )


def _quantise(
    everything: Frames,
    config: TrainConfig,
    out: Path,
    saving: Any,
    journal: Journal,
    ranges: Mapping[str, Any],
) -> None:
    """The INT8 twin of the FP32 weights in ``out``, and frames to compare the exported files on."""
    from .fit import fp32 as fit
    from .qat import quantised_model

    fp32 = _build(config, everything.keys)
    weights.assign(fp32, weights.load(out / "fp32.weights.npz"))
    quantised = quantised_model.quantize(fp32, saturation_safe=config.saturation_safe)
    fit.fit_qat(fp32, quantised, everything, config, saving=saving, note=journal.of("qat"), ranges=ranges)
    quantised_model.check_ranges(quantised)
    quantised_model.save_qat(out / "qat.weights.npz", quantised)
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(everything), min(_REPLAY_FRAMES, len(everything)))
    weights.save(out / "replay.npz", {"frames": everything.pixels[chosen]}, compressed=True)


def _out_of_fold(path: Path, keys: Sequence[str]) -> tuple[Any, Any]:
    """Out-of-fold logits and labels that ``folds`` left, of classes that the answering model had seen."""
    try:
        with np.load(path) as archive:
            logits, labels, seen = archive["logits"], archive["labels"], archive["seen"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no out-of-fold answers: {error}") from None
    if logits.shape[1] != len(keys) or seen.shape != logits.shape:
        raise InputError(f"{path} is of other labels", hint="run train.folds again")
    logits, known = mask_unseen(logits, labels, seen)
    return logits[known], labels[known]


def _finish_fp32(fp32: Any, logits: Any, labels: Any, frames: Frames, config: TrainConfig, out: Path) -> None:
    """Fold the share of the class prior into the last bias, and keep the calibration answers with it."""
    real = frames.labels[is_real(frames.videos)]
    prior = np.log(np.maximum(np.bincount(real, minlength=len(frames.keys)), 1) / len(real))
    shift = (config.prior * prior).astype(np.float32)
    bias = fp32.get_layer("logits").weights[1]
    bias.assign(bias + shift)
    if config.equalise:
        from .qat import equalise, snap

        rows = np.random.default_rng(config.seed).choice(len(frames), (_EVEN_BATCHES, config.qat_batch))
        weights.assign(fp32, equalise(fp32, (scale(frames.pixels[np.sort(batch)]) for batch in rows)))
        weights.assign(fp32, snap(fp32, saturation_safe=config.saturation_safe))
    weights.save(out / "calibration.npz", {"logits": logits + shift, "labels": labels}, compressed=True)
    weights.save(out / "fp32.weights.npz", weights.collect(fp32))


def _spec(
    name: str,
    keys: Sequence[str],
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    config: TrainConfig,
    dataset: Dataset,
    everything: Frames,
    learnt_from: Sequence[ModelSpec],
) -> ModelSpec:
    temperature = fit_temperature(logits, labels)
    scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    described = tuple(Label(key, key.replace("_", " ").capitalize(), _role(key)) for key in keys)
    videos = f"{dataset.split} videos" if dataset.split else "videos"
    points = operating_points(
        scaled / scaled.sum(axis=1, keepdims=True), labels, keys,
        only=[label.key for label in described if label.role != "normal"],
        min_specificity=_MIN_SPECIFICITY, min_threshold=_MIN_THRESHOLD,
        measured_on=f"{len(labels)} frames of {videos} that the answering model had not seen",
    )  # fmt: skip
    return ModelSpec(
        name=name,
        version=importlib.metadata.version("capsule-edge"),
        precision="fp32",
        labels=described,
        input=InputSpec(config.size),
        temperature=temperature,
        operating_points=points,
        events=EventParameters(),
        license=_LICENSE,
        provenance={
            "data": dataset.root.name,
            "data_sha256": hash_dataset(dataset),
            "split": dataset.split,
            "frames": len(dataset.samples) - len(everything.unreadable),
            "unreadable": len(everything.unreadable),
            "videos": len({s.video_id for s in dataset.samples}),
            **training_provenance(dataset.samples, learnt_from),
            "phantom_frames": config.phantom,
            "transplants": config.transplants,
            "training": config.to_dict(),
        },
    )


def _role(key: str) -> Role:
    if key == "normal":
        return "normal"
    return "landmark" if key in _LANDMARKS else "quality" if key in _QUALITY else "finding"


def _claim(
    out: Path,
    config: TrainConfig,
    dataset: Dataset,
    *,
    name: str,
    backbone: Path | None,
    teachers: Sequence[Path],
    calibrate_on: Path | None,
    fp32_weights: Path | None,
    boxes: Path | None,
) -> None:
    """Write what the run is made of, or refuse to go on with other than the folder was begun with.

    A finished run keeps its files as they are.
    """
    path, data, given = out / "config.json", out / "data.sha256", out / _GIVEN
    digest = hash_dataset(dataset)
    if data.is_file() and data.read_text("utf-8").strip() != digest:
        raise OutputError(f"{out} holds a run on other data", hint="choose another --out or the same data")
    if path.is_file() and TrainConfig.read(path) != config:
        raise OutputError(
            f"{path.parent} holds a run of another configuration",
            hint="choose another --out or the same settings",
        )
    document = {
        "name": name,
        "backbone": _identity(backbone),
        "teachers": [_identity(teacher) for teacher in teachers],
        "calibrate_on": _identity(calibrate_on),
        "fp32_weights": _identity(fp32_weights),
    }
    if boxes is not None:
        document["boxes"] = _identity(boxes)
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    if given.is_file() and given.read_text("utf-8") != text:
        raise OutputError(
            f"{out} holds a run of another name, or begun with other weights, teachers, calibration or boxes:"
            f" see {given}",
            hint="choose another --out or the same options",
        )
    if not _finished(out):
        _write(path, json.dumps(config.to_dict(), indent=1))
        _write(data, digest + "\n")
        _write(given, text)


def _identity(path: Path | None) -> dict[str, str] | None:
    """A file that the run is made of: its name and hash."""
    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            return {"file": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _finished(out: Path) -> bool:
    return all((out / file).is_file() for file in _WHOLE)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
