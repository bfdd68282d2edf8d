"""Adopt a classifier that was trained elsewhere: read it, check it, and write the files of our contract.

1. Read the source and refuse what cannot be adopted.
2. Find out what its input and its output mean, from the file or the options.
3. Compare its answers with the labels: a model that only guesses is refused.
4. Join scaling and network, and compare the result with the source.
5. Fit temperature and operating points; write the FP32 file.
6. Choose how to quantise; write the INT8 file and the certificates.
7. Write the TFLite file and its certificate, where the source allows one.

Everything is written into a temporary folder, which takes its final name when all checks have passed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import (
    READER_SPECIFICITY,
    READER_THRESHOLD,
    Predictions,
    fit_temperature,
    is_at_bound,
    operating_points,
)
from capsule_edge.evaluation.datasets import Dataset, describe
from capsule_edge.runtime.errors import CapsuleEdgeError, ModelError, UsageError
from capsule_edge.runtime.inference import EventParameters, Label, ModelSpec

from ..new_folder import check_new, hash_file, new_folder, write_sums
from ..verify import count_operators
from .adopted_files import certify_adopted, write_file
from .adopted_tflite import TfliteReport, write_tflite
from .channel_evening import Evening
from .facts import Floats, OutputKind, SourceFacts
from .finetuning import check_requirements, divide_off, find_training_frames, plan_twin
from .float_body import FloatBody, make_body
from .graph import Graph
from .head import read_head
from .held_out_frames import HeldOutFrames, divide_frames
from .input_chain import InputChain, follow_input, stated_scaling
from .int8_search import Int8Choice
from .judgement import (
    MOST_DP,
    answer_frames,
    check_answers,
    compare_scalings,
    describe_figures,
    source_answers,
    source_logits,
    to_probabilities,
)
from .network_layers import NetworkLayer
from .onnx_source import OnnxSource, read_onnx
from .options import AdoptOptions
from .output_labels import read_output_labels
from .quantised_network import QuantisedNetwork, Tuning, quantise_network
from .quantised_nodes import layers_of, quantised_nodes
from .scaling import Scaling, parse_scaling

__all__ = ["AdoptionReport", "adopt"]

FP32, INT8 = "model.fp32.onnx", "model.int8.onnx"
# Frames on which scalings are compared, and on which the source is compared with its conversion.
_SCALING_FRAMES, _COMPARED_FRAMES = 300, 256
_TOOLS = ("capsule-edge", "onnx", "onnxruntime")
_Progress = Callable[[str], None]


@dataclass(frozen=True)
class AdoptionReport:
    """The result of an adoption.

    Attributes:
        folder: Where the files are.
        files: ``bytes`` and ``sha256`` by file name.
        source: What was read of the source: file, kind, input, output, and who stated it.
        labels: The keys of the labels, in the order of the outputs.
        conversion: ``frames``, ``max_abs_dp`` and ``agreement`` of the FP32 file with the source.
        temperature: The temperature that calibrates the logits.
        has_maps: Whether the model has activation maps.
        int8: The candidates that were tried and the one that was chosen, the noise of layers, and under ``evening`` the
            layers whose channels can be evened and why those of others cannot.
        layers: The number of layers with weights.
        operators: The operators in onnxruntime's optimised graph of the INT8 file, most frequent first.
        not_fused: The number of quantised layers that onnxruntime still computes in float.
        divided_by: How the frames of the choices differ from those of the certificates.
        certificates: The certificates, as JSON-ready documents.
        notes: What a reader should know, one sentence each.
        finetuned: The fine-tuning: its frames and epochs, whether it was ``kept``, and the figures ``with`` and
            ``without`` it. None if it was not asked for.
        tflite: The TFLite file: ``file``, or the ``reason`` why there is none; ``has_maps``; and the comparison with
            the FP32 ONNX file, ``edge``, on so many ``frames``.
    """

    folder: Path
    files: dict[str, dict[str, Any]]
    source: dict[str, Any]
    labels: tuple[str, ...]
    conversion: dict[str, float]
    temperature: float
    has_maps: bool
    int8: dict[str, Any]
    layers: int
    operators: dict[str, int]
    not_fused: int
    divided_by: str
    certificates: list[dict[str, Any]]
    notes: tuple[str, ...] = ()
    finetuned: dict[str, Any] | None = None
    tflite: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-ready document."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class _Meaning:
    """The meaning of a source's input and output, and who stated it.

    Attributes:
        chain: The first operations of the graph.
        scaling: The scaling of the input.
        outputs: The meaning of the outputs.
        stated: ``option``, ``file`` or ``scaling`` for each of these.
        asks: Whether the usual scalings would be compared if ``--scaling`` were left out.
        notes: What a reader should know, one sentence each.
    """

    chain: InputChain
    scaling: Scaling
    outputs: OutputKind
    stated: dict[str, str]
    asks: bool
    notes: tuple[str, ...]


def adopt(
    model: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: AdoptOptions = AdoptOptions(),  # noqa: B008 - frozen
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> AdoptionReport:
    """Adopt a classifier: write FP32 and INT8 model files, certificates and ``SHA256SUMS`` into the new folder ``out``.

    A source that is no ONNX file also gets an FP32 TFLite file, if TFLite can compute its network.

    Args:
        model: The source file.
        labels: The labels of its outputs, a YAML file (``output_labels``).
        data: Labelled frames of videos that the model was not trained on: a data set folder.
        out: The folder to make. It may exist if it is empty.
        options: What is stated beside the files.
        progress: Called with each line of progress.

    Raises:
        OutputError: ``out`` holds something, or cannot be written.
        InputError: A file or the frames cannot be read.
        UsageError: The file does not state how its input is scaled, and neither do the options.
        ModelError: The model cannot be adopted, or a check of a file fails.

    Example:
        >>> report = adopt("resnet.onnx", "labels.yaml", "frames", "adopted", AdoptOptions(scaling="imagenet"))
        >>> report.conversion["max_abs_dp"]
    """
    out = Path(out)
    check_new(out)
    check_requirements(Path(model), options)
    training = find_training_frames(Path(data), options) if options.finetune else None
    described = read_output_labels(Path(labels))
    with tempfile.TemporaryDirectory() as converted, _in_one_line(Path(model)):
        source, facts = _read_source(Path(model), Path(converted), options, progress)
        with _closing(facts):
            _check_count(Path(labels), len(described), Path(model), source)
            plan = _plan(source, facts) if training is not None else ()
            report = _adopt(source, facts, described, Path(data), options, progress, out, training, plan)
    return dataclasses.replace(report, folder=out)


@contextmanager
def _closing(facts: SourceFacts) -> Iterator[None]:
    """End the process of the source's framework, if there is one."""
    try:
        yield
    finally:
        close = getattr(facts.run, "close", None)
        if close is not None:
            close()


@contextmanager
def _in_one_line(model: Path) -> Iterator[None]:
    """Raise what onnxruntime, onnx or NumPy raise about a network as a ``ModelError`` that names the model."""
    try:
        yield
    except (CapsuleEdgeError, OSError, MemoryError):
        raise
    except Exception as error:  # these libraries raise exceptions without a common base class
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{model} cannot be adopted: {reason}",
            hint="adopt does not know this form of a network: please report it with the model's architecture",
        ) from error


def _check_count(labels: Path, count: int, model: Path, source: OnnxSource) -> None:
    """Refuse labels that do not fit the outputs."""
    if count == source.classes:
        return
    if source.is_single:
        raise UsageError(
            f"{labels} has {count} labels, but {model} has one output, which tells two labels apart",
            hint="give two labels: first the one whose probability is 1 - p, then that of the output, p",
        )
    raise UsageError(
        f"{labels} has {count} labels, but {model} has {source.classes} outputs",
        hint="give each output its label, in the order of the outputs",
    )


def _read_source(
    path: Path, folder: Path, options: AdoptOptions, progress: _Progress
) -> tuple[OnnxSource, SourceFacts]:
    """Read an ONNX file, or convert another format to one."""
    progress(f"reading {path}")
    if path.suffix.lower() == ".onnx":
        source = read_onnx(path, size=options.size)
        return source, SourceFacts(
            "onnx", scaling=source.scaling, channels=source.channels, layout=source.layout
        )
    from .sources import to_onnx

    facts = to_onnx(path, folder / "source.onnx", size=options.size)
    source = read_onnx(folder / "source.onnx", size=options.size, made_from=path)
    return dataclasses.replace(source, sha256=hash_source(path)), facts


def hash_source(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names."""
    if path.is_file():
        return hash_file(path)
    lines = [
        f"{file.relative_to(path).as_posix()}\t{hash_file(file)}\n"
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _adopt(
    source: OnnxSource, facts: SourceFacts, labels: tuple[Label, ...], data: Path, options: AdoptOptions,
    progress: _Progress, out: Path, training: Dataset | None, plan: tuple[NetworkLayer, ...],
) -> AdoptionReport:  # fmt: skip
    keys = tuple(label.key for label in labels)
    progress(f"reading the frames of {data}")
    frames = divide_frames(data, options, keys, options.input_spec(source.size))
    tuning = None if training is None else Tuning(plan, divide_off(training, frames))
    meaning = _find_meaning(source, facts, options, frames)
    progress(f"answering {len(frames.pixels):,} frames with the source, scaled {meaning.scaling}")
    answers = answer_frames(source, meaning.scaling, frames.pixels)
    body = make_body(source, meaning.chain, meaning.scaling, meaning.outputs)
    logits = body.values(frames.pixels)
    check_answers(
        answers, logits, frames.labels, meaning.outputs, meaning.scaling,
        accept_weak=options.accept_weak, asks=meaning.asks,
    )  # fmt: skip
    conversion = _compare(source, facts, meaning, frames.pixels, answers, logits)
    spec = _describe(source, facts, meaning, labels, frames, body, options, conversion, logits)
    weak = _weakness(spec, frames, accept_weak=options.accept_weak)
    with new_folder(out) as work:
        report = _write(
            work, source, facts, meaning, body, spec, frames, logits, conversion, options, tuning, progress
        )
    told = _tuning_notes(tuning)
    return dataclasses.replace(report, notes=(*facts.notes, *meaning.notes, *weak, *told, *report.notes))


def _plan(source: OnnxSource, facts: SourceFacts) -> tuple[NetworkLayer, ...]:
    """Return the layers of the twin of a Keras model."""
    assert facts.layers is not None  # ``check_requirements`` lets Keras models through alone
    if source.is_single:
        raise UsageError(
            f"{source.path} has one output, fine-tuning needs one for each label", hint="leave --finetune out"
        )
    return plan_twin(source.path, facts.layers(), (source.size, source.size, 3))


def _tuning_notes(tuning: Tuning | None) -> tuple[str, ...]:
    """Return notes on the frames of the fine-tuning: those that were left out, and those of unknown videos."""
    if tuning is None:
        return ()
    notes, frames = [], tuning.frames
    if frames.held_out:
        notes.append(
            f"{frames.held_out:,} of the {frames.found:,} frames to fine-tune on were left out: their video or picture"
            " is among the frames of choices and certificates"
        )
    if frames.nameless:
        notes.append(
            f"{frames.nameless:,} of the {len(frames.dataset.samples):,} frames to fine-tune on name no video, so their"
            " videos could not be compared with those of choices and certificates"
        )
    return tuple(notes)


def _find_meaning(
    source: OnnxSource, facts: SourceFacts, options: AdoptOptions, frames: HeldOutFrames
) -> _Meaning:
    """Find out what input and output mean; what neither the file nor the options say is asked for."""
    graph = Graph(source.proto)
    head = read_head(graph, source.output)
    outputs = head.meaning or facts.outputs or options.outputs
    if outputs is None:
        raise UsageError(
            f"{source.path} ends in {head.node!r} ({head.kind}), which does not say what its outputs are",
            hint="--outputs logits, probabilities or sigmoid",
        )
    if options.outputs not in (None, outputs):
        raise UsageError(
            f"--outputs is {options.outputs}, but {source.path} ends in {head.node!r} ({head.kind}): {outputs}",
            hint="leave --outputs out",
        )
    if source.is_single and outputs == "probabilities":
        raise UsageError(
            f"{source.path} has one output; alone, it cannot be one of several probabilities that sum to 1",
            hint="--outputs sigmoid, if it is the probability of the second label",
        )
    chain = follow_input(graph, source.input, source.layout)
    read = facts.scaling or stated_scaling(chain)
    text, channels = options.scaling or read, options.channels or facts.channels
    scaling = parse_scaling(text, channels) if text else None
    if scaling is None:
        raise _ask_for_scaling(source, frames, outputs, text, channels)
    notes = []
    if options.scaling and read and options.scaling != read:
        notes.append(f"--scaling is {options.scaling}, although the file suggests {read}")
    stated = {
        "scaling": "option" if options.scaling else "file",
        "channels": "option" if options.channels else "file" if facts.channels else "scaling",
        "outputs": "file" if head.meaning or facts.outputs else "option",
    }
    return _Meaning(chain, scaling, outputs, stated, bool(options.scaling and not read), tuple(notes))


def _ask_for_scaling(
    source: OnnxSource, frames: HeldOutFrames, outputs: OutputKind, text: str | None, channels: Any
) -> UsageError:
    """Return the error that asks for the scaling, with what each usual one reaches on the frames."""
    rows = _spread(len(frames.pixels), _SCALING_FRAMES)
    figures = compare_scalings(
        source, frames.pixels[rows], frames.labels[rows], outputs, scaling=text, channels=channels
    )
    missing = "the order of the colours" if text else "the scaling of its input"
    option = "--channels rgb or bgr" if text else "--scaling"
    return UsageError(
        f"{source.path} does not state {missing}; balanced accuracy on {len(rows)} of the frames is"
        f" {describe_figures(figures)}",
        hint=f"give what the model was trained with: {option}",
    )


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """Return at most ``most`` of ``count`` places, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.intp)


def _compare(
    source: OnnxSource, facts: SourceFacts, meaning: _Meaning, pixels: npt.NDArray[np.uint8],
    answers: Floats, logits: Floats,
) -> dict[str, float]:  # fmt: skip
    """Compare the network with its source on real frames. Raise ``ModelError`` if they differ."""
    rows = _spread(len(pixels), _COMPARED_FRAMES)
    shown, expected, ours = pixels[rows], answers[rows], logits[rows]
    if facts.run is not None:
        expected = source_answers(source, facts, meaning.scaling)(shown)
    theirs = to_probabilities(source_logits(expected, meaning.outputs, ours))
    difference = np.abs(to_probabilities(ours) - theirs)
    worst, equal = float(difference.max()), float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    if worst > MOST_DP:
        raise ModelError(
            f"the converted network differs from {source.path} by {worst:.3g} in a probability on {len(rows)} frames,"
            f" allowed is {MOST_DP:g}",
            hint="this is a fault of the conversion: please report it with the model's architecture",
        )
    return {"frames": len(rows), "max_abs_dp": worst, "agreement": equal}


def _describe(
    source: OnnxSource, facts: SourceFacts, meaning: _Meaning, labels: tuple[Label, ...], frames: HeldOutFrames,
    body: FloatBody, options: AdoptOptions, conversion: dict[str, float], logits: Floats,
) -> ModelSpec:  # fmt: skip
    """Return the ModelSpec of the FP32 file, with temperature and operating points."""
    temperature = fit_temperature(logits, frames.labels)
    keys = [label.key for label in labels]
    calibrated = {
        **describe(frames.choosing), "frames": len(frames.labels),
        "videos": len({sample.video_id for sample in frames.choosing.samples} - {None}),
    }  # fmt: skip
    return ModelSpec(
        name=options.name or source.path.stem,
        version=options.version,
        precision="fp32",
        labels=labels,
        input=options.input_spec(source.size),
        temperature=temperature,
        operating_points=operating_points(
            to_probabilities(logits / temperature), frames.labels, keys,
            only=[label.key for label in labels if label.role != "normal"],
            min_specificity=READER_SPECIFICITY, min_threshold=READER_THRESHOLD,
            measured_on=f"{len(frames.labels)} frames that were given when the model was adopted",
        ),
        events=EventParameters(),
        license=options.license,
        intended_use=options.intended_use,
        held_out=options.held_out,
        has_maps=body.pooled is not None,
        provenance={
            "adopted_from": {**_source_facts(source, facts, meaning), "conversion": conversion},
            "training_data": "not stated",
            "calibrated_on": calibrated,
            "certified_on_other": frames.divided_by,
            "exported_with": {tool: importlib.metadata.version(tool) for tool in _TOOLS},
        },
    )  # fmt: skip


def _source_facts(source: OnnxSource, facts: SourceFacts, meaning: _Meaning) -> dict[str, Any]:
    written = {"producer": source.producer or None, "opset": source.opset}
    # What was converted has no opset, and its converter did not produce it.
    origin = written if facts.kind == "onnx" else {"producer": None, "opset": None, "converted": written}
    return {
        "file": source.path.name,
        "sha256": source.sha256,
        "kind": facts.kind,
        **origin,
        "scaling": meaning.scaling.name,
        "channels": meaning.scaling.channels,
        "outputs": meaning.outputs,
        **({"single_output": True} if source.is_single else {}),
        "stated_by": meaning.stated,
    }


def _weakness(spec: ModelSpec, frames: HeldOutFrames, *, accept_weak: bool) -> tuple[str, ...]:
    """Return a note on a temperature at the bound of its search; refuse such a model unless weak ones are accepted."""
    if not is_at_bound(spec.temperature):
        return ()
    note = (
        f"the temperature is {spec.temperature:.3g}, the bound of what is searched: {len(frames.labels)} frames do not"
        " calibrate the model"
    )
    if not accept_weak:
        raise ModelError(note, hint="give more frames of more videos, or accept it: --accept-weak")
    return (note,)


def _write(
    folder: Path, source: OnnxSource, facts: SourceFacts, meaning: _Meaning, body: FloatBody, spec: ModelSpec,
    frames: HeldOutFrames, logits: Floats, conversion: dict[str, float], options: AdoptOptions, tuning: Tuning | None,
    progress: _Progress,
) -> AdoptionReport:  # fmt: skip
    """Write and check all files."""
    expected = _expected(spec, logits, frames)
    network = quantise_network(
        source, meaning.scaling, body, spec, frames, expected, options, tuning, progress
    )
    choice = network.choice
    levels = choice.body
    fp32, int8 = folder / FP32, folder / INT8
    write_file(fp32, body, spec)
    write_file(int8, levels, _int8_spec(spec, network), quantised=choice.proto)
    operators = count_operators(int8)
    certificates, expected_of_source = certify_adopted(
        fp32,
        int8,
        body,
        levels,
        choice.proto,
        source_answers(source, facts, meaning.scaling),
        meaning.outputs,
        frames.certifying,
        progress=progress,
    )
    tflite = _write_tflite(fp32, facts, meaning, frames, expected_of_source, options, progress)
    written = (fp32, int8, *(folder / name for name in (tflite.file,) if name))
    certificates += [made for made in (tflite.certificate,) if made]
    layers = layers_of(Graph(body.proto))
    notes = (*_notes(frames), *_tflite_notes(spec, facts, options, tflite))
    return AdoptionReport(
        folder, write_sums(folder, written), dict(spec.provenance["adopted_from"]), spec.keys, conversion,
        spec.temperature, spec.has_maps, _describe_choice(choice), len(layers), operators,
        _not_fused(levels, choice, operators), frames.divided_by, certificates, notes,
        network.finetuned, tflite.to_dict(),
    )  # fmt: skip


def _write_tflite(
    fp32: Path, facts: SourceFacts, meaning: _Meaning, frames: HeldOutFrames, expected: Predictions,
    options: AdoptOptions, progress: _Progress,
) -> TfliteReport:  # fmt: skip
    if not options.tflite:
        return TfliteReport(reason="it was not wanted: --no-tflite")
    pixels = frames.pixels[_spread(len(frames.pixels), _COMPARED_FRAMES)]
    return write_tflite(
        fp32, facts, meaning.scaling, meaning.outputs, pixels, expected, frames.certifying, progress=progress
    )


def _tflite_notes(
    spec: ModelSpec, facts: SourceFacts, options: AdoptOptions, tflite: TfliteReport
) -> tuple[str, ...]:
    """Return a note on a TFLite file that could not be made, or lacks the maps of the ONNX file."""
    # An ONNX file never has one, so that is documented and no news.
    if not options.tflite or facts.tflite is None:
        return ()
    if tflite.reason is not None:
        return (f"no TFLite file was written: {tflite.reason}",)
    if spec.has_maps and not tflite.has_maps:
        return (f"{tflite.file} has no activation maps: its network does not show the pooling",)
    return ()


def _notes(frames: HeldOutFrames) -> tuple[str, ...]:
    notes = []
    both = (*frames.certifying.samples, *frames.choosing.samples)
    samples = {sample.file: sample for sample in both}
    if known := sum(sample.split == "train" for sample in samples.values()):
        notes.append(
            f"{known:,} of the {len(samples):,} frames are of the split train: if the model has seen them, temperature,"
            " operating points and certificates are too good"
        )
    if frames.divided_by == "none":
        notes.append(
            "the certificates were measured on the frames of the choices, because too few videos are named to divide"
            " them"
        )
    if frames.left_out:
        notes.append(
            f"{frames.left_out:,} frames were left out of the choices, because they or their videos certify"
        )
    if frames.shared_videos:
        notes.append(
            f"{frames.shared_videos:,} videos are in the split of the choices and in that of the certificates, so the"
            " certificates are too good"
        )
    return tuple(notes)


def _expected(spec: ModelSpec, logits: Floats, frames: HeldOutFrames) -> Predictions:
    """Return FP32's answers to the frames of the choices."""
    samples = frames.choosing.samples
    p = to_probabilities(logits / spec.temperature)
    return Predictions(
        files=tuple(frames.choosing.name_of(sample) for sample in samples),
        labels=frames.labels,
        video_ids=tuple(sample.video_id for sample in samples),
        sources=tuple(sample.source for sample in samples),
        probabilities=p.astype(np.float32),
        keys=spec.keys,
    )


def _int8_spec(spec: ModelSpec, network: QuantisedNetwork) -> ModelSpec:
    chosen = network.choice.chosen
    kept: dict[str, Any] = {"kept_float": list(chosen.kept_float)} if chosen.kept_float else {}
    if chosen.finetuned:
        kept["finetuned"] = network.finetuned
    if chosen.evened:
        kept["evened_channels"] = True
    return dataclasses.replace(
        spec,
        precision="int8",
        saturation_safe=chosen.saturation_safe,
        provenance={**spec.provenance, "ranges": chosen.method, **kept},
    )


def _describe_choice(choice: Int8Choice) -> dict[str, Any]:
    return {
        "chosen": dataclasses.asdict(choice.chosen),
        "tried": [dataclasses.asdict(candidate) for candidate in choice.tried],
        "noise": [{"layer": name, "decibels": round(ratio, 2)} for name, ratio in choice.noise],
        "evening": _describe_evening(choice.evening),
    }


def _describe_evening(evening: Evening | None) -> dict[str, Any] | None:
    """Return the layers whose channels can be evened, with their largest factor, and why the others' cannot."""
    if evening is None:
        return None
    return {
        "layers": [{"layer": name, "largest": round(most, 2)} for name, most in evening.factors.items()],
        "skipped": [{"layer": name, "reason": reason} for name, reason in evening.skipped.items()],
    }


def _not_fused(body: FloatBody, choice: Int8Choice, operators: dict[str, int]) -> int:
    """Return how many quantised convolutions onnxruntime computes in float all the same."""
    graph = Graph(body.proto)
    kept = {*choice.chosen.kept_float, *body.cheap}
    names = set(quantised_nodes(graph, kept, readers=body.cheap))
    convolutions: int = sum(node.op_type == "Conv" and node.name in names for node in layers_of(graph))
    return max(0, convolutions - operators.get("QLinearConv", 0))
