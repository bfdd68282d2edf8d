"""Read a recording with the program that a user would write instead of ours.

    python peer_program.py KIND VIDEO MODEL THREADS VIEW OUT.npy

``peers`` runs this file in environments without capsule-edge, so it must not import it.

KIND is one of ``KINDS``. THREADS is the number of cores that the process may use, and the number of the engine's
threads if the engine has such an option. VIEW is JSON: ``size`` of the model's input and ``box`` of the field of view
(left, top, width, height), which the reader has to find for itself. Probabilities go to OUT.npy. The last line of
output is JSON with ``frames``, ``seconds`` and ``core_s`` (core time), measured from opening the recording to the last
answer; imports and opening the model do not count.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# Probabilities, one float32 array (labels) per frame.
Probabilities = list[Any]
# Reads the recording; the model is already open.
ReadVideo = Callable[[], Probabilities]

# Convolutions of MobileNetV2 without its dense layer.
_MOBILENET_CONVOLUTIONS = 52


def read_frames(video: str, view: dict[str, Any]) -> Iterator[Any]:
    """Yield each frame as the model was trained on it: cropped, resized by area and masked, uint8 RGB."""
    size, (left, top, width, height) = view["size"], view["box"]
    at = np.arange(size) + 0.5 - size / 2
    inside = (at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2)[..., None]
    capture = cv2.VideoCapture(video)
    while True:
        found, frame = capture.read()
        if not found:
            break
        frame = cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_BGR2RGB)
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
        yield np.where(inside, frame, 0).astype(np.uint8)
    capture.release()


def with_onnxruntime(model: str, threads: int, video: str, view: dict[str, Any]) -> ReadVideo:
    """Use the plain loop: read one frame, answer it, read the next."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(["probabilities"], {name: np.zeros((1, *session.get_inputs()[0].shape[1:]), np.uint8)})

    def run() -> Probabilities:
        return [
            session.run(["probabilities"], {name: frame[None]})[0][0] for frame in read_frames(video, view)
        ]

    return run


def with_openvino(model: str, threads: int, video: str, view: dict[str, Any]) -> ReadVideo:
    """Use OpenVINO's asynchronous requests: all streams infer while the next frame is read."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    )

    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled.create_infer_request() for _ in range(count)]

    def run() -> Probabilities:
        answers: Probabilities = []
        waiting: deque[Any] = deque()

        def take() -> None:
            request = waiting.popleft()
            request.wait()
            answers.append(request.get_tensor("probabilities").data[0].copy())

        # Not AsyncInferQueue: on a busy machine its callbacks were seen to wait for ever.
        for index, frame in enumerate(read_frames(video, view)):
            if len(waiting) == len(requests):
                take()
            requests[index % len(requests)].start_async({0: frame[None]})
            waiting.append(requests[index % len(requests)])
        while waiting:
            take()
        return answers

    return run


def with_mediapipe(model: str, threads: int, video: str, view: dict[str, Any]) -> ReadVideo:
    """Use MediaPipe's ImageClassifier in VIDEO mode."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=model), running_mode=vision.RunningMode.VIDEO
    )
    classifier = vision.ImageClassifier.create_from_options(options)

    def run() -> Probabilities:
        answers = []
        for index, frame in enumerate(read_frames(video, view)):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
            found = classifier.classify_for_video(image, index * 33).classifications[0].categories
            answers.append(
                np.array([one.score for one in sorted(found, key=lambda one: one.index)], np.float32)
            )
        return answers

    return run


def with_tf_keras(model: str, threads: int, video: str, view: dict[str, Any]) -> ReadVideo:
    """Use tf_keras's own MobileNetV2 in batches of 16, one graph call each.

    Each convolution takes its weights from the ONNX file. There the batch normalisation is folded into them, so that of
    tf_keras only adds the bias.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    folded = [[values[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    folded = [pair for pair in folded if len(pair) == 2]
    # Checked before TensorFlow is imported, which takes seconds.
    if len(folded) != _MOBILENET_CONVOLUTIONS:
        raise SystemExit(
            f"{Path(model).name} is no MobileNetV2: it has {len(folded)} convolutions with a bias,"
            f" needed are {_MOBILENET_CONVOLUTIONS}"
        )
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    network = _build_mobilenet(folded, view["size"])
    dense = next(node for node in graph.node if node.op_type == "MatMul")
    weights, offset = (values[name] for name in (dense.input[1], _bias_of(graph, dense)))
    scale = next(values[name] for node in graph.node if node.op_type == "Mul" and node.input[0] == "logits"
                 for name in node.input[1:])  # fmt: skip

    @tf.function(input_signature=[tf.TensorSpec((None, view["size"], view["size"], 3), tf.uint8)])  # type: ignore[untyped-decorator]
    def answer(frames: Any) -> Any:
        features = network((tf.cast(frames, tf.float32) - 128) / 128, training=False)
        return tf.nn.softmax((tf.reduce_mean(features, (1, 2)) @ weights + offset) * scale)

    answer(tf.zeros((1, view["size"], view["size"], 3), tf.uint8))

    def run() -> Probabilities:
        frames = read_frames(video, view)
        answers: Probabilities = []
        while batch := list(islice(frames, 16)):
            answers.extend(answer(np.stack(batch)).numpy())
        return answers

    return run


def _build_mobilenet(folded: list[Any], size: int) -> Any:
    """Build tf_keras's MobileNetV2 from pairs of kernel and bias, in the order of its convolutions."""
    import tf_keras

    network = tf_keras.applications.MobileNetV2((size, size, 3), include_top=False, weights=None)
    layers = [layer for layer in network.layers if layer.weights]
    for (kernel, bias), convolution, norm in zip(folded, layers[::2], layers[1::2], strict=True):
        depthwise = isinstance(convolution, tf_keras.layers.DepthwiseConv2D)
        convolution.set_weights([kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)])
        one = np.ones_like(bias)
        norm.set_weights([one, bias, 0 * bias, one - norm.epsilon])
    return network


def _bias_of(graph: Any, node: Any) -> str:
    """Return the name of the constant that is added to the output of ``node``."""
    add = next(other for other in graph.node if other.op_type == "Add" and node.output[0] in other.input)
    return next(str(name) for name in add.input if name != node.output[0])


def with_ultralytics(model: str, threads: int, video: str, view: dict[str, Any]) -> ReadVideo:
    """Use Ultralytics: ``YOLO(FILE.onnx, task="classify").predict(video, stream=True)``.

    Ultralytics opens the video itself and takes the whole frame, not the field of view.
    """
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(threads)
    size = view["size"]
    network = YOLO(str(_adapt_to_ultralytics(model, size)), task="classify")
    options = {"imgsz": size, "stream": True, "verbose": False, "device": "cpu"}
    list(network.predict(np.zeros((size, size, 3), np.uint8), **options))

    def run() -> Probabilities:
        return [found.probs.data.cpu().numpy() for found in network.predict(video, **options)]

    return run


def _adapt_to_ultralytics(model: str, size: int) -> Path:
    """Write a copy of an ONNX file that takes float pixels in planes, as Ultralytics gives them, with one output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load(model)
    graph = proto.graph
    first = graph.input[0].name
    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    graph.initializer.append(numpy_helper.from_array(np.float32(255), "whole"))
    steps = [
        helper.make_node("Mul", ["images", "whole"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], [first], perm=[0, 2, 3, 1]),
    ]
    nodes = [*steps, *graph.node]
    outputs = [value for value in graph.output if value.name == "probabilities"]
    labels = outputs[0].type.tensor_type.shape.dim[1].dim_value
    outputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    for field, new in ((graph.node, nodes), (graph.input, [taken]), (graph.output, outputs)):
        del field[:]
        field.extend(new)
    names = str({index: str(index) for index in range(labels)})
    about = {"task": "classify", "stride": "1", "batch": "1", "imgsz": str([size, size]), "names": names}
    helper.set_model_props(proto, about)
    place = Path(tempfile.mkdtemp()) / "adapted.onnx"
    onnx.save(proto, place)
    return place


KINDS = {
    "cv2-onnxruntime": with_onnxruntime,
    "cv2-openvino": with_openvino,
    "mediapipe": with_mediapipe,
    "tf_keras": with_tf_keras,
    "ultralytics": with_ultralytics,
}


def main() -> None:
    kind, video, model, count, view, out = sys.argv[1:]
    threads = int(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    cv2.setNumThreads(threads)
    run = KINDS[kind](model, threads, video, json.loads(view))
    core, started = time.process_time(), time.perf_counter()
    answers = run()
    seconds, core = time.perf_counter() - started, time.process_time() - core
    np.save(Path(out), np.stack(answers).astype(np.float32))
    print(json.dumps({"frames": len(answers), "seconds": seconds, "core_s": core}))


if __name__ == "__main__":
    main()
