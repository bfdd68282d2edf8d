"""What a user would write instead, run by ``peers`` in an environment that has none of ours: standalone on purpose.

    python peer_program.py KIND VIDEO MODEL THREADS VIEW OUT.npy

KIND is ``cv2-onnxruntime``, ``cv2-openvino`` or ``mediapipe``. VIEW is JSON: ``size`` of the model's input and ``box``
of the field of view (left, top, width, height), which ours has to find for itself. Probabilities go to OUT.npy; the
last line is JSON with ``frames``, ``seconds`` and ``core_s`` (processor time), from opening the recording to the last
answer; imports and opening the model do not count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Answers = list[Any]


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


def with_onnxruntime(model: str, threads: int) -> Callable[[Iterator[Any]], Answers]:
    """The plain loop: one frame, one call."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(["probabilities"], {name: np.zeros((1, *session.get_inputs()[0].shape[1:]), np.uint8)})

    def run(frames: Iterator[Any]) -> Answers:
        return [session.run(["probabilities"], {name: frame[None]})[0][0] for frame in frames]

    return run


def with_openvino(model: str, threads: int) -> Callable[[Iterator[Any]], Answers]:
    """OpenVINO's own way to be fast: requests in flight on all streams while the next frame is read."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    )

    def run(frames: Iterator[Any]) -> Answers:
        answers: dict[int, Any] = {}

        def take(request: Any, index: int) -> None:
            answers[index] = request.get_tensor("probabilities").data[0].copy()

        queue = ov.AsyncInferQueue(compiled)
        queue.set_callback(take)
        for index, frame in enumerate(frames):
            queue.start_async({0: frame[None]}, index)
        queue.wait_all()
        return [answers[index] for index in range(len(answers))]

    return run


def with_mediapipe(model: str, threads: int) -> Callable[[Iterator[Any]], Answers]:
    """MediaPipe's ImageClassifier in VIDEO mode."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=model), running_mode=vision.RunningMode.VIDEO
    )
    classifier = vision.ImageClassifier.create_from_options(options)

    def run(frames: Iterator[Any]) -> Answers:
        answers = []
        for index, frame in enumerate(frames):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
            found = classifier.classify_for_video(image, index * 33).classifications[0].categories
            answers.append(
                np.array([one.score for one in sorted(found, key=lambda one: one.index)], np.float32)
            )
        return answers

    return run


KINDS = {"cv2-onnxruntime": with_onnxruntime, "cv2-openvino": with_openvino, "mediapipe": with_mediapipe}


def main() -> None:
    kind, video, model, threads, view, out = sys.argv[1:]
    cv2.setNumThreads(int(threads))
    run = KINDS[kind](model, int(threads))
    core, started = time.process_time(), time.perf_counter()
    answers = run(read_frames(video, json.loads(view)))
    seconds, core = time.perf_counter() - started, time.process_time() - core
    np.save(Path(out), np.stack(answers).astype(np.float32))
    print(json.dumps({"frames": len(answers), "seconds": seconds, "core_s": core}))


if __name__ == "__main__":
    main()
