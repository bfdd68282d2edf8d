"""A whole training run in one folder: FP32 training, calibration on unseen videos, QAT, and the model's description.

``capsule-edge export`` takes the folder. Each part that the folder already holds is kept, so a run that was killed
continues where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation._files import write_text
from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.evaluation.recordings import (
    LabelledRecordings,
    NormalStretch,
    check_several_videos,
    read_stretches,
)
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError, UsageError
from capsule_edge.runtime.inference import HeldOutBy
from capsule_edge.runtime.results import lock_folder

from .config import TrainConfig
from .data import (
    TrainingFrames,
    cached_frames,
    check_boxes,
    check_hard_weight,
    check_labels,
    check_phantom,
    check_recordings,
    held_out,
    is_real,
    mask_unseen,
    named_videos,
    recording_labels,
    scale,
    videos_of,
    with_recorded,
)
from .loop import CheckpointSettings, TrainingLog, check_teachers, specs_of, teacher_probabilities
from .model_spec import describe_model
from .models import (
    NETWORK_FILE,
    Arrays,
    architectures,
    build_network,
    describe_network,
    import_builder,
    qualified_name,
    reparameterise,
    weights,
)
from .run_inputs import OwnerStatement, RunInputs, check_claim, claim_folder, is_finished
from .weakness import weak_points

if TYPE_CHECKING:
    from .loop import Workers

__all__ = ["OwnParts", "train_run"]

_FP32, _QAT, _CALIBRATION = "fp32.weights.npz", "qat.weights.npz", "calibration.npz"
_CACHE, _RUN = "cache", "run.json"
_RANGE = "range/"  # the key of a learnt range in the weights files of torch_qat
_EQUALISATION_BATCHES = 32
_REPLAY_FRAMES = 64


@dataclass(frozen=True)
class OwnParts:
    """Parts of FP32 training that the user's own code brings.

    Attributes:
        start: weights to start from, by name, for a network of the user's own.
        loss: from (targets (N, labels), adjusted logits (N, labels)) to a loss, a number or one for each frame.
        callbacks: tf_keras callbacks.
    """

    start: Arrays | None = None
    loss: Callable[[Any, Any], Any] | None = None
    callbacks: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Run:
    """The settings, data and places that every step of a run needs.

    ``dataset`` has the images as the user named them. ``whole`` has every frame that is trained on: the images that no
    recording has, and the frames of the recordings. ``own`` is what the user's code brings.
    """

    dataset: Dataset
    whole: Dataset
    out: Path
    config: TrainConfig
    inputs: RunInputs
    workers: Workers
    note: Callable[[dict[str, Any]], None]
    checkpoint_every_s: float
    stretches: tuple[NormalStretch, ...] = ()
    own: OwnParts = OwnParts()

    def checkpoint(self, part: str) -> CheckpointSettings:
        return CheckpointSettings(self.out / f"{part}.checkpoint.npz", self.checkpoint_every_s)

    def log(self, part: str) -> Callable[[dict[str, Any]], None]:
        return TrainingLog(self.out if self.workers.first else None, self.note).of(part)

    def build(self, *, branched: bool = False) -> Any:
        """Return a fresh model, or the form in which a re-parameterised architecture is trained."""
        import tf_keras

        config = self.config
        if self.inputs.network is not None:
            return build_network(self.inputs.network)
        return architectures.build(
            config.architecture, size=config.size, labels=len(self.dataset.labels), keras=tf_keras,
            branched=branched,
        )  # fmt: skip


def train_run(
    dataset: Dataset,
    out: Path,
    config: TrainConfig,
    *,
    statement: OwnerStatement | None = None,
    backbone: Path | None = None,
    teachers: Sequence[Path] = (),
    calibrate_on: Path | None = None,
    fp32_weights: Path | None = None,
    cache: Path | None = None,
    boxes: Path | None = None,
    leak_patients: bool = False,
    recordings: LabelledRecordings | None = None,
    weigh: Path | None = None,
    checkpoint_every_s: float = 120.0,
    note: Callable[[dict[str, Any]], None] = lambda _: None,
    network: str | None = None,
    own: OwnParts | None = None,
) -> tuple[str, ...]:
    """Train on ``dataset`` and ``recordings``, and write a run folder; continue the run that the folder holds.

    A finished run stays unchanged, including what ``event_fit`` has written into it. The result depends on the
    arguments alone: a run that was killed and continued ends in the same bytes as one that was not.

    Without ``calibrate_on`` a sixth of the videos is held out of FP32 training, and temperature and operating points
    come from their frames. If ``config.patience`` asks for early stopping, another sixth is held out for it. Frames
    that name no video are never held out, unless ``leak_patients`` is True.

    Everything that can be checked is checked before the first frame is prepared. A refused request leaves no folder.

    If the environment variable TF_CONFIG names several workers (``multi_worker``), they share FP32 training. The
    first worker alone does everything else.

    Args:
        dataset: the labelled frames. They need at least two classes. ``images_beside`` makes one without frames, for
            training on recordings alone.
        out: the run folder. It is created if it does not exist.
        config: the training configuration.
        statement: what the owner says of the model: its name, version, licences and intended use. None states nothing.
        backbone: pretrained weights to start from (``weights.load_backbone``).
        teachers: exported model files, or weights (``.npz``) of the same architecture. The model learns the mean of
            their probabilities beside the labels.
        calibrate_on: the ``out_of_fold.npz`` that ``cross_validation`` wrote. Temperature and operating points come
            from it.
        fp32_weights: FP32 weights from ``cross_validation`` or ``torch_qat`` that replace FP32 training. They need
            ``calibrate_on``. If they come with learnt ranges, QAT keeps these ranges.
        cache: folder for preprocessed frames. By default they lie in ``out`` until the run ends.
        boxes: the table of lesions for transplants (``transplants.read_boxes``). Needed if ``config.transplants``
            is above 0.
        leak_patients: hold frames out one by one where they name no video. The figures in the model file then say
            nothing of other patients, and the file says so.
        recordings: labelled recordings to train on too. Whole videos of them are held out, as of the images. A frame
            that both have is taken from the recording.
        weigh: the table of normal stretches on which a model raised events (``false_events``). ``config.hard_weight``
            says how much more often than others they are drawn.
        checkpoint_every_s: seconds between two checkpoints within an epoch.
        note: called with each step, epoch, checkpoint and warning, and with each image that could not be read.
        network: a network of the user's own, as JSON (``describe_network``). Where ``config.architecture`` is a
            ``module:function``, it is built by that function by default.
        own: the user's own start weights, loss and callbacks.

    Returns:
        The reasons not to export the model (``weakness.weak_points``); empty for a sound one, and on workers that are
        not the first. ``run.json`` names them too.

    Raises:
        UsageError: the data set has one class only, no frame names its video and ``leak_patients`` is False, no
            phantom can show the labels, or arguments do not fit together.
        InputError: a file cannot be read or does not fit.
        OutputError: the folder cannot be written, it holds another run, or another process is training in it.
        Interrupted: another worker was lost.
    """
    own = own or OwnParts()
    if network is None and ":" in config.architecture:
        network = _own_network(config, len(dataset.labels))
    inputs = RunInputs(
        statement or OwnerStatement(), backbone, tuple(teachers), calibrate_on, fp32_weights, boxes, leak_patients,
        recordings, weigh, network, qualified_name(own.loss) if own.loss else None,
        weights.hash_arrays(own.start) if own.start else None,
    )  # fmt: skip
    inputs.check()
    _check_request(dataset.labels, config, inputs)
    whole, stretches = _list_frames(dataset, inputs)
    by = held_out.held_out_by(whole, leak_patients=leak_patients)
    if warning := held_out.warn_of_patients(whole, by):
        note({"warning": warning})
    workers = _start_tensorflow(config)
    run = _Run(dataset, whole, out, config, inputs, workers, note, checkpoint_every_s, stretches, own)
    check_claim(out, config, dataset, inputs)
    if not is_finished(out):
        _check_inputs(run)
    with _open_folder(out, lock=workers.first) as keep:
        if not _is_finished_for_all(run):
            _train(run, cache or out / _CACHE, keep)
        return _weak_points(out) if workers.first else ()


def _train(run: _Run, cache: Path, begun: Callable[[], None]) -> None:
    """Prepare the frames, call ``begun``, train FP32 and INT8, and write the files of the run."""
    out, frames = run.out, _prepare_frames(run, cache)
    begun()
    if run.inputs.network is not None and run.workers.first:
        write_text(out / NETWORK_FILE, run.inputs.network)
    if run.inputs.fp32_weights is not None:
        _take_fp32(run, frames, run.inputs.fp32_weights)
    elif not (out / _FP32).is_file():
        _train_fp32(run, frames)
    if run.workers.first:
        _train_int8(run, frames)
        document = _describe(run, unreadable=len(frames.unreadable))
        del frames  # Windows does not remove a file that is mapped.
        shutil.rmtree(out / _CACHE, ignore_errors=True)
        # The run counts as finished once this file exists, so write it last.
        text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
        write_text(out / _RUN, text)
    # If a worker left early, TensorFlow would end the others.
    run.workers.wait()


def _weak_points(out: Path) -> tuple[str, ...]:
    """Return the reasons in ``run.json`` not to export the model."""
    return tuple(json.loads((out / _RUN).read_text("utf-8")).get("weak", ()))


def _own_network(config: TrainConfig, labels: int) -> str:
    """Return the network that the function ``config.architecture`` builds."""
    return describe_network(import_builder(config.architecture), size=config.size, labels=labels)


def _check_request(keys: Sequence[str], config: TrainConfig, inputs: RunInputs) -> None:
    """Raise ``UsageError`` for an impossible request, before the folder is claimed for its settings."""
    if len(keys) < 2:
        raise UsageError(f"the data set has only the class {', '.join(keys)}, at least two are needed")
    if config.phantom:
        check_phantom(keys)
    check_boxes(config, inputs.boxes)
    check_hard_weight(config, weighed=inputs.weigh is not None)
    if inputs.weigh is not None and config.hard_weight == 1:
        raise UsageError(
            f"the stretches {inputs.weigh} have no effect, because hard_weight is 1",
            hint="say how much more often they are drawn: --set hard_weight=3",
        )


def _list_frames(dataset: Dataset, inputs: RunInputs) -> tuple[Dataset, tuple[NormalStretch, ...]]:
    """Return every frame that is trained on as a sample, and the stretches to weigh.

    Raises:
        InputError: a recording has a label that the data set lacks, a stretch does not fit, or all frames are of one
            video and one has to be held out.
    """
    recordings = inputs.recordings
    if recordings is None:
        return dataset, ()
    stretches = read_stretches(inputs.weigh) if inputs.weigh else ()
    recording_labels(recordings.recordings, dataset.labels, stretches)
    if not dataset.samples and inputs.calibrate_on is None:
        check_several_videos(recordings.recordings, recordings.folder)
    return with_recorded(dataset, recordings), stretches


def _start_tensorflow(config: TrainConfig) -> Workers:
    """Make TensorFlow deterministic and join the other workers, if there are any."""
    import tensorflow as tf
    import tf_keras

    from .loop import Workers

    tf.config.experimental.enable_op_determinism()
    workers = Workers.from_environment()
    workers.part(config)
    tf_keras.utils.set_random_seed(config.seed)
    return workers


def _check_inputs(run: _Run) -> None:
    """Check everything that training will need: the architecture, the videos, and the shapes in each file.

    Raises:
        UsageError: the architecture is not known, or the size does not fit it.
        InputError: a file cannot be read or does not fit the model, or there are too few videos.
    """
    inputs, keys = run.inputs, run.dataset.labels
    model = run.build(branched=True)
    if inputs.network is not None:
        from .qat import quantised_model

        # Names a layer that QAT cannot quantise, hours before it would be met.
        quantised_model.quantize(model, saturation_safe=run.config.saturation_safe)
    if inputs.backbone is not None:
        weights.assign(model, weights.load_backbone(inputs.backbone), fresh=("logits",))
    if inputs.fp32_weights is not None:
        weights.assign(run.build(), weights.load(inputs.fp32_weights))
    if inputs.calibrate_on is not None:
        _out_of_fold(inputs.calibrate_on, keys)
    check_teachers(inputs.teachers, keys, run.config)
    if inputs.recordings is not None:
        check_recordings(inputs.recordings.recordings)
    labels = check_labels(run.whole, keys)
    nothing = np.empty((len(labels), 0, 0, 3), np.uint8)
    _choose_held_out(run, TrainingFrames(nothing, labels, videos_of(run.whole), tuple(keys)))


@contextmanager
def _open_folder(out: Path, *, lock: bool) -> Iterator[Callable[[], None]]:
    """Create and lock the run folder while the block runs.

    Yields:
        A function to call once training begins. If the block raises an error before, the folders that this call
        created are removed.

    Raises:
        OutputError: the folder cannot be written, or another process holds its lock.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()] if lock else []
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from None
    with _removed_on_error(new), lock_folder(out) if lock else nullcontext():
        yield new.clear


@contextmanager
def _removed_on_error(folders: list[Path]) -> Iterator[None]:
    """Remove the folders that are in the list when the block raises an error of ours."""
    try:
        yield
    except CapsuleEdgeError:
        for place, folder in enumerate(folders):
            with suppress(OSError):  # a parent may hold other files
                shutil.rmtree(folder) if place == 0 else folder.rmdir()
        raise


def _is_finished_for_all(run: _Run) -> bool:
    """Claim the folder for this run, and let all workers agree on whether it is finished already."""
    finished = False
    if run.workers.first:
        claim_folder(run.out, run.config, run.dataset, run.inputs)
        finished = is_finished(run.out)
    with run.workers.together():
        return run.workers.mean(float(finished)) > 0


def _prepare_frames(run: _Run, cache: Path) -> TrainingFrames:
    """Return the real frames and, behind them, the rendered frames and the transplants."""
    # The first worker fills the cache that all share. If they share no folder, the others find none and fill their own.
    if not run.workers.first:
        run.workers.wait()
    frames = cached_frames(
        run.dataset, run.dataset.labels, run.config.input, cache, config=run.config,
        boxes=run.inputs.boxes, recordings=run.inputs.recordings, stretches=run.stretches,
    )  # fmt: skip
    if run.workers.first:
        run.workers.wait()
    for file in frames.unreadable:
        run.note({"skipped": file})
    run.note({"frames": len(frames), "skipped": len(frames.unreadable)})
    return frames


def _take_fp32(run: _Run, frames: TrainingFrames, fp32_weights: Path) -> None:
    """Take FP32 weights that were trained elsewhere."""
    model = run.build()
    weights.assign(model, weights.load(fp32_weights))
    _finish_fp32(run, frames, model, held_out.HeldOut())


def _train_fp32(run: _Run, frames: TrainingFrames) -> None:
    """Train the FP32 model on the labels, without the videos that are held out."""
    real = frames.first(int(is_real(frames.videos).sum()))
    held = _choose_held_out(run, real)
    if run.workers.first:
        held.write(run.out)
    trained = _fit_on_labels(run, frames, held)
    if run.workers.first:
        arrays = _re_estimated(run, frames, held, run.workers.collect(trained))
        branched = run.config.architecture in architectures.BRANCHED
        model = run.build()
        weights.assign(model, reparameterise.merge(arrays) if branched else arrays)
        _finish_fp32(run, frames, model, held)


def _choose_held_out(run: _Run, real: TrainingFrames) -> held_out.HeldOut:
    """Choose the videos to hold out, among those that are named unless frames may leak patients."""
    return held_out.choose(
        real, calibrate=run.inputs.calibrate_on is None, stop=bool(run.config.patience),
        among=None if run.inputs.leak_patients else named_videos(run.whole),
    )  # fmt: skip


def _re_estimated(
    run: _Run, frames: TrainingFrames, held: held_out.HeldOut, arrays: weights.Arrays
) -> weights.Arrays:
    """Return trained weights with the statistics of batch normalisation estimated again."""
    from .loop import re_estimate

    model = run.build(branched=True)
    weights.assign(model, arrays)
    re_estimate(model, frames, np.flatnonzero(held_out.rows_to_fit(frames, held)), seed=run.config.seed)
    return weights.collect(model)


def _fit_on_labels(run: _Run, frames: TrainingFrames, held: held_out.HeldOut) -> Any:
    """Return the trained model, in the form in which its architecture is trained."""
    from .loop import keras_training

    config, inputs, among = run.config, run.inputs, held_out.rows_to_fit(frames, held)
    with run.workers.strategy.scope():
        model = run.build(branched=True)
        if inputs.backbone is not None:
            weights.assign(model, weights.load_backbone(inputs.backbone), fresh=("logits",))
        if run.own.start is not None:
            weights.assign(model, run.own.start)
    judge = None
    # Early stopping has videos of its own. Without it, the calibration's show how far training is.
    judged = np.flatnonzero(np.isin(frames.videos, held.stopping or held.calibration))
    if len(judged):
        judge = keras_training.judge_with(
            run.build(branched=True), frames, judged, np.flatnonzero(among), seed=config.seed
        )
    keras_training.fit_fp32(
        model, frames, config, checkpoint=run.checkpoint("fp32"), note=run.log("fp32"),
        among=among, freeze=inputs.backbone is not None,
        teacher_answers=teacher_probabilities(inputs.teachers, frames, config) if inputs.teachers else None,
        judge=judge, workers=run.workers, own_loss=run.own.loss, callbacks=run.own.callbacks,
    )  # fmt: skip
    return model


def _finish_fp32(run: _Run, frames: TrainingFrames, model: Any, held: held_out.HeldOut) -> None:
    """Add the class prior to the last bias, equalise if asked for, and write weights and calibration answers."""
    logits, labels = _calibration_answers(run, frames, model, held)
    config = run.config
    shift = (config.prior * _log_prior(frames)).astype(np.float32)
    bias = model.get_layer("logits").weights[1]
    bias.assign(bias + shift)
    if config.equalise:
        _equalise(model, frames, config)
    weights.save(run.out / _CALIBRATION, {"logits": logits + shift, "labels": labels}, compressed=True)
    weights.save(run.out / _FP32, weights.collect(model))


def _calibration_answers(
    run: _Run, frames: TrainingFrames, model: Any, held: held_out.HeldOut
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return logits (N, labels) and labels (N,) of frames that the answering model had not seen."""
    from .loop import keras_training

    if run.inputs.calibrate_on is not None:
        return _out_of_fold(run.inputs.calibrate_on, frames.keys)
    rows = np.flatnonzero(np.isin(frames.videos, held.calibration))
    return keras_training.predict(model, frames.pixels, rows), frames.labels[rows]


def _out_of_fold(path: Path, keys: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Read the answers of ``cross_validation``, without frames of classes that their model had not seen."""
    try:
        with np.load(path) as archive:
            logits, labels, seen = archive["logits"], archive["labels"], archive["seen"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no out-of-fold answers: {error}") from None
    if logits.shape[1] != len(keys) or seen.shape != logits.shape:
        raise InputError(
            f"{path} holds answers for {logits.shape[1]} labels, the data set has {len(keys)}",
            hint="train the recipe again on this data set",
        )
    logits, known = mask_unseen(logits, labels, seen)
    return logits[known], labels[known]


def _log_prior(frames: TrainingFrames) -> npt.NDArray[np.float64]:
    """Return the logarithm of each class's share of the real frames, (labels,)."""
    real = frames.labels[is_real(frames.videos)]
    counts = np.bincount(real, minlength=len(frames.keys))
    return np.asarray(np.log(np.maximum(counts, 1) / len(real)))


def _equalise(model: Any, frames: TrainingFrames, config: TrainConfig) -> None:
    """Equalise the channels of ``model``, then round its weights to the steps of the INT8 file."""
    from .qat import equalise, snap

    rows = np.random.default_rng(config.seed).choice(len(frames), (_EQUALISATION_BATCHES, config.qat_batch))
    weights.assign(model, equalise(model, (scale(frames.pixels[np.sort(batch)]) for batch in rows)))
    weights.assign(model, snap(model, saturation_safe=config.saturation_safe))


def _train_int8(run: _Run, frames: TrainingFrames) -> None:
    """Quantise the FP32 model, train it with QAT, and write its weights and the frames for the export's checks."""
    from .loop import keras_training
    from .qat import quantised_model

    config = run.config
    fp32 = run.build()
    weights.assign(fp32, weights.load(run.out / _FP32))
    quantised = quantised_model.quantize(fp32, saturation_safe=config.saturation_safe)
    keras_training.fit_qat(
        fp32, quantised, frames, config, checkpoint=run.checkpoint("qat"), note=run.log("qat"),
        ranges=_learnt_ranges(run),
    )  # fmt: skip
    quantised_model.check_ranges(quantised)
    quantised_model.save_qat(run.out / _QAT, quantised)
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(frames), min(_REPLAY_FRAMES, len(frames)))
    weights.save(run.out / "replay.npz", {"frames": frames.pixels[chosen]}, compressed=True)


def _learnt_ranges(run: _Run) -> Mapping[str, Any]:
    """Return the ranges that came with ``fp32_weights``, by layer; none after an equalisation.

    The learnt ranges belong to the channels before the equalisation.
    """
    if run.inputs.fp32_weights is None or run.config.equalise:
        return {}
    arrays = weights.load(run.inputs.fp32_weights)
    return {key.removeprefix(_RANGE): ends for key, ends in arrays.items() if key.startswith(_RANGE)}


def _held_out_by(run: _Run) -> HeldOutBy:
    """Return the unit by which the frames were held out that the run was calibrated on.

    Out-of-fold answers count as held out by video only if they name videos, and each is one of the data set's.
    """
    by, answers = (
        held_out.held_out_by(run.whole, leak_patients=run.inputs.leak_patients),
        run.inputs.calibrate_on,
    )
    if by.by != "video" or answers is None:
        return by
    with np.load(answers) as archive:
        videos = set(archive["videos"].tolist()) if "videos" in archive.files else set()
    return by if videos and videos <= named_videos(run.whole) else HeldOutBy("unknown")


def _describe(run: _Run, *, unreadable: int) -> dict[str, Any]:
    """Return the content of ``run.json``: the architecture and the model's spec without its precision."""
    calibration: dict[str, Any] = dict(weights.load(run.out / _CALIBRATION))
    weak = weak_points(calibration["logits"], calibration["labels"], run.dataset.labels)
    spec = describe_model(
        run.inputs.statement, run.config, run.dataset, held_out=_held_out_by(run),
        logits=calibration["logits"], labels=calibration["labels"],
        unreadable=unreadable, teachers=specs_of(run.inputs.teachers), recordings=run.inputs.recordings,
    )  # fmt: skip
    return {
        "architecture": run.config.architecture,
        "size": run.config.size,
        "labels": len(run.dataset.labels),
        **({"weak": list(weak)} if weak else {}),
        "spec": {key: value for key, value in spec.to_dict().items() if key != "precision"},
    }
