"""What a user would write instead, run by ``peers`` in an environment that has none of ours: standalone on purpose.

    python peer_program.py KIND VIDEO MODEL THREADS VIEW OUT.npy

KIND is one of ``KINDS``. THREADS is both the cores that the process may use and, where the engine has such an option,
its threads. VIEW is JSON: ``size`` of the model's input and ``box`` of the field of view (left, top, width, height),
which ours has to find for itself. Probabilities go to OUT.npy; the last line is JSON with ``frames``, ``seconds`` and
``core_s`` (processor time), from opening the recording to the last answer; imports and opening the model do not count.
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

Answers = list[Any]
Run = Callable[[], Answers]


def read_frames(video: str, view: dict[str, Any]) -> Iterator[Any]:
    """Each frame, uint8 RGB, cropped, resized by area and masked, as the model was trained."""
    size, (left, top, width, height) = view["size"], view["box"]
    at = np.arange(size) + 0.5 - size / 2
    inside = (at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2)[..., None]
    capture = cv2.VideoCapture(video)
    while True:
        there, frame = capture.read()
        if not there:
            break
        frame = cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_BGR2RGB)
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
        yield np.where(inside, frame, 0).astype(np.uint8)
    capture.release()


def with_onnxruntime(model: str, threads: int, video: str, view: dict[str, Any]) -> Run:
    """The plain loop: one frame, one call."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(["probabilities"], {name: np.zeros((1, *session.get_inputs()[0].shape[1:]), np.uint8)})

    def run() -> Answers:
        return [
            session.run(["probabilities"], {name: frame[None]})[0][0] for frame in read_frames(video, view)
        ]

    return run


def with_openvino(model: str, threads: int, video: str, view: dict[str, Any]) -> Run:
    """OpenVINO's own way to be fast: requests in flight on all streams while the next frame is read."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    )

    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled.create_infer_request() for _ in range(count)]

    def run() -> Answers:
        answers: Answers = []
        waiting: deque[Any] = deque()

        def take() -> None:
            request = waiting.popleft()
            request.wait()
            answers.append(request.get_tensor("probabilities").data[0].copy())

        # Not AsyncInferQueue, whose callbacks were seen to wait for ever on a busy machine.
        for index, frame in enumerate(read_frames(video, view)):
            if len(waiting) == len(requests):
                take()
            requests[index % len(requests)].start_async({0: frame[None]})
            waiting.append(requests[index % len(requests)])
        while waiting:
            take()
        return answers

    return run


def with_mediapipe(model: str, threads: int, video: str, view: dict[str, Any]) -> Run:
    """MediaPipe's ImageClassifier in VIDEO mode."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=model), running_mode=vision.RunningMode.VIDEO
    )
    classifier = vision.ImageClassifier.create_from_options(options)

    def run() -> Answers:
        answers = []
        for index, frame in enumerate(read_frames(video, view)):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
            found = classifier.classify_for_video(image, index * 33).classifications[0].categories
            answers.append(
                np.array([one.score for one in sorted(found, key=lambda one: one.index)], np.float32)
            )
        return answers

    return run


def with_tf_keras(model: str, threads: int, video: str, view: dict[str, Any]) -> Run:
    """The network as its training framework has it: tf_keras's own MobileNetV2, batches of 16, one graph call each.

    The weights are those of the ONNX file, convolution by convolution; batch normalisation, which is folded into them
    there, adds their bias and nothing else.
    """
    import onnx
    import tensorflow as tf
    import tf_keras
    from onnx import numpy_helper

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    graph = onnx.load(model).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    folded = [[values[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    folded = [pair for pair in folded if len(pair) == 2]
    network = tf_keras.applications.MobileNetV2(
        (view["size"], view["size"], 3), include_top=False, weights=None
    )
    layers = [layer for layer in network.layers if layer.weights]
    if len(layers) != 2 * len(folded):
        raise SystemExit(
            f"{Path(model).name} is no MobileNetV2: it has {len(folded)} convolutions with a bias"
        )
    for at, (kernel, bias) in enumerate(folded):
        convolution, norm = layers[2 * at : 2 * at + 2]
        depthwise = isinstance(convolution, tf_keras.layers.DepthwiseConv2D)
        convolution.set_weights([kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)])
        one = np.ones_like(bias)
        norm.set_weights([one, bias, 0 * bias, one - norm.epsilon])
    dense = next(node for node in graph.node if node.op_type == "MatMul")
    weights, offset = (values[name] for name in (dense.input[1], _bias_of(graph, dense)))
    scale = next(values[name] for node in graph.node if node.op_type == "Mul" and node.input[0] == "logits"
                 for name in node.input[1:])  # fmt: skip

    @tf.function(input_signature=[tf.TensorSpec((None, view["size"], view["size"], 3), tf.uint8)])  # type: ignore[untyped-decorator]
    def answer(frames: Any) -> Any:
        features = network((tf.cast(frames, tf.float32) - 128) / 128, training=False)
        return tf.nn.softmax((tf.reduce_mean(features, (1, 2)) @ weights + offset) * scale)

    answer(tf.zeros((1, view["size"], view["size"], 3), tf.uint8))

    def run() -> Answers:
        frames = read_frames(video, view)
        answers: Answers = []
        while batch := list(islice(frames, 16)):
            answers.extend(answer(np.stack(batch)).numpy())
        return answers

    return run


def _bias_of(graph: Any, node: Any) -> str:
    """The constant that is added to what ``node`` makes."""
    add = next(other for other in graph.node if other.op_type == "Add" and node.output[0] in other.input)
    return next(str(name) for name in add.input if name != node.output[0])


def with_ultralytics(model: str, threads: int, video: str, view: dict[str, Any]) -> Run:
    """Ultralytics' classification predict, which opens the video itself and takes the whole picture, not the field of
    view: ``YOLO(FILE.onnx, task="classify").predict(video, stream=True)``.

    It gives float pixels in planes, so the same file gets a first step that takes them, and keeps one output.
    """
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper
    from ultralytics import YOLO

    torch.set_num_threads(threads)
    proto = onnx.load(model)
    graph, size = proto.graph, view["size"]
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
    network = YOLO(str(place), task="classify")
    options = {"imgsz": size, "stream": True, "verbose": False, "device": "cpu"}
    list(network.predict(np.zeros((size, size, 3), np.uint8), **options))

    def run() -> Answers:
        return [found.probs.data.cpu().numpy() for found in network.predict(video, **options)]

    return run


KINDS = {
    "cv2-onnxruntime": with_onnxruntime,
    "cv2-openvino": with_openvino,
    "mediapipe": with_mediapipe,
    "tf_keras": with_tf_keras,
    "ultralytics": with_ultralytics,
}


def main() -> None:
    kind, video, model, count, told, out = sys.argv[1:]
    threads = int(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    cv2.setNumThreads(threads)
    run = KINDS[kind](model, threads, video, json.loads(told))
    core, started = time.process_time(), time.perf_counter()
    answers = run()
    seconds, core = time.perf_counter() - started, time.process_time() - core
    np.save(Path(out), np.stack(answers).astype(np.float32))
    print(json.dumps({"frames": len(answers), "seconds": seconds, "core_s": core}))


if __name__ == "__main__":
    main()
