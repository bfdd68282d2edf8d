"""Load a SavedModel. Runs in a child process. TensorFlow runs its graph, so operations that reach out are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats
from .loaded_model import LoadedModel, as_floats, read_shape
from .tensorflow_graph import convert_function
from .tflite_conversion import function_to_tflite

__all__ = ["check_operations", "load_saved_model"]

_SIGNATURE = "serving_default"
# Operations that read or write files of their own choice, reach the network, print, or call Python. The ones by which
# a SavedModel restores its own variables are not among them.
_REACHING = (
    "ReadFile",
    "WriteFile",
    "MatchingFiles",
    "WholeFileReader",
    "WholeFileReaderV2",
    "TextLineReaderV2",
    "PyFunc",
    "PyFuncStateless",
    "EagerPyFunc",
    "PrintV2",
    "Print",
    "DebugIdentityV2",
    "DebugIdentityV3",
    "RpcCall",
    "RpcClient",
    "SummaryWriter",
    "CreateSummaryFileWriter",
    "WriteSummary",
)


def load_saved_model(path: Path, size: int | None) -> LoadedModel:
    """Load the signature ``serving_default`` of a SavedModel, or its only one.

    Args:
        path: the folder.
        size: the side of the input in pixels, for a model that leaves it open.

    Raises:
        ModelError: the folder cannot be loaded, or is no classifier of pictures.
        UsageError: ``size`` is needed, or contradicts the file.
    """
    import tensorflow as tf

    check_operations(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises exceptions of many kinds
        raise ModelError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    signature = _signature(path, loaded.signatures)
    given, answers = signature.structured_input_signature[1], signature.structured_outputs
    shape = read_shape(
        path,
        [(name, _sides(spec), spec.dtype.name) for name, spec in given.items()],
        [(name, _sides(spec)) for name, spec in answers.items()],
        size,
    )
    (name,), (output,) = given, answers

    def call(batch: Any) -> Any:
        return signature(**{name: batch})[output]

    def answer(batch: Floats) -> Floats:
        return as_floats(call(tf.constant(batch)))

    facts = {"scaling": None, "channels": None, "outputs": None, "notes": ()}
    # The variables live as long as the loaded object, which a signature does not keep.
    return LoadedModel(
        path, shape, answer, lambda: convert_function(path, call, shape), facts, owner=loaded,
        tflite=lambda: function_to_tflite(path, call, shape),
    )  # fmt: skip


def check_operations(path: Path) -> None:
    """Refuse a SavedModel with an operation that reaches out of the model, before TensorFlow loads it.

    Raises:
        ModelError: the message names the operation.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf raises exceptions of its own
        raise ModelError(f"{path}/saved_model.pb is damaged: {error}") from None
    for graph in (meta.graph_def for meta in content.meta_graphs):
        inner = (node for function in graph.library.function for node in function.node_def)
        for node in (*graph.node, *inner):
            if node.op in _REACHING:
                raise ModelError(
                    f"{path}: {node.name!r} is a {node.op}, allowed are operations that compute",
                    hint="export the network alone, without reading, writing, printing or Python",
                )


def _signature(path: Path, signatures: Any) -> Any:
    names = list(signatures)
    if _SIGNATURE in names:
        return signatures[_SIGNATURE]
    if len(names) == 1:
        return signatures[names[0]]
    raise ModelError(
        f"{path} has the signatures {names}, allowed are one, or {_SIGNATURE}",
        hint="save the model with model.export",
    )


def _sides(spec: Any) -> list[int | None] | None:
    return None if spec.shape.rank is None else spec.shape.as_list()
