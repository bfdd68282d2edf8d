"""Tells model files that are there already which videos they were trained on, without training them again.

    python -m capsule_edge.export.training_videos FILE... --data DIR [--update FILE...]

``train`` puts ``training_videos`` into a RUN's ``run.json`` and ``export`` from there into the files; this is for files
made before. DIR must be the data that they name (``provenance.data_sha256``, of the split named there). Nothing but the
ModelSpec changes: each file is opened again and answers a few frames as before, to the bit.

A file so changed has another SHA-256, by which INT8 files and certificates name it. Give all the files of a model at
once: the INT8 files' summaries then name the new FP32 files. ``--update`` names texts (certificates, ``SHA256SUMS``,
``golden.json``) in which the new hashes take the place of the old ones. All is written when all is checked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from capsule_edge.evaluation._files import write_whole
from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.datasets import ALL, Dataset, hash_dataset, load_dataset
from capsule_edge.evaluation.training_videos import training_provenance
from capsule_edge.runtime.backends import Backend, find_format, open_model, readers_of
from capsule_edge.runtime.errors import InputError, ModelError
from capsule_edge.runtime.spec import METADATA_KEY, ModelSpec

__all__ = ["add_training_videos"]

_FRAMES = 4


def add_training_videos(models: Sequence[Path], data: Path, *, update: Sequence[Path] = ()) -> dict[str, str]:
    """Write ``training_videos`` into ``models`` and new hashes into ``update``; returns new SHA-256 by old.

    Raises ``InputError`` for data that a model does not name or a text that cannot be read, ``ModelError`` for a file
    that is no model or answers otherwise afterwards, ``OutputError`` where one cannot be written.
    """
    sets: dict[str | None, tuple[Dataset, str]] = {}
    opened = {path: _open(path) for path in models}
    hashes: dict[str, str] = {}
    changed: dict[Path, bytes] = {}
    # INT8 files name the hashes of FP32 ones.
    for path, model in sorted(opened.items(), key=lambda item: item[1].spec.precision != "fp32"):
        split = model.spec.provenance.get("split")
        if split not in sets:
            dataset = load_dataset(data, split=split or ALL)
            sets[split] = dataset, hash_dataset(dataset)
        dataset, digest = sets[split]
        if (named := model.spec.provenance.get("data_sha256")) != digest:
            raise InputError(
                f"{path} was trained on data of SHA-256 {named}, split {split or 'all'} of {data} has {digest}",
                hint="give the data that the model was trained on",
            )
        spec = ModelSpec.from_json(_renamed(model.spec.to_json(), hashes))
        facts = training_provenance(dataset.samples)
        content = _with_spec(path, replace(spec, provenance={**spec.provenance, **facts}))
        _check(model, content)
        hashes[model.sha256] = hashlib.sha256(content).hexdigest()
        changed[path] = content
    for path in update:
        try:
            changed[path] = _renamed(path.read_bytes().decode(), hashes).encode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None
    for path, content in changed.items():
        write_whole(path, content, "the file")
    return hashes


def _open(path: Path) -> Backend:
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    return open_model(path, backend=readers_of(find_format(path))[0], threads=1)


def _renamed(text: str, hashes: Mapping[str, str]) -> str:
    for old, new in hashes.items():
        text = text.replace(old, new)
    return text


def _with_spec(path: Path, spec: ModelSpec) -> bytes:
    """The file's bytes with another ModelSpec."""
    if find_format(path) == "TFLite":
        from tensorflow.lite.python import schema_py_generated as schema

        from .tflite_int8 import finish

        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
        return finish(model, spec)
    proto = onnx.load(path)
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = spec.to_json()
    return bytes(proto.SerializeToString())


def _check(before: Backend, content: bytes) -> None:
    size = before.spec.input.size
    frames = np.random.default_rng(0).integers(0, 256, (_FRAMES, size, size, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / before.path.name
        path.write_bytes(content)
        after = _open(path)
        same = all(
            np.array_equal(getattr(before.run(frames), name), getattr(after.run(frames), name))
            for name in ("probabilities", "logits", "features")
        )
        after.close()
    if not same or "training_videos" not in after.spec.provenance:
        raise ModelError(
            f"{before.path} would answer otherwise with another ModelSpec", hint="export the RUN again"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.export.training_videos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE", help="model files, ONNX or TFLite")
    parser.add_argument("--data", type=Path, required=True, help="what they were trained on")
    parser.add_argument(
        "--update", nargs="+", type=Path, default=[], metavar="FILE", help="texts with hashes"
    )
    options = parser.parse_args(arguments)
    hashes = add_training_videos(options.models, options.data, update=options.update)
    print(json.dumps({"sha256": hashes}))


if __name__ == "__main__":
    run_module(main)
