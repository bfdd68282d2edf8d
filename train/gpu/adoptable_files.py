"""Write the ``.keras`` files of the models that ``adoptable_models`` trained, from their weights.

    python -m capsule_edge.train.gpu.adoptable_files WEIGHTS.npz... --labels 10 --out DIR

The name of each file of weights is the name of its model. Networks of ``keras.applications`` answer with
probabilities, ``vit`` with logits. Needs Keras 3 with any backend.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.evaluation._module import run_module
from capsule_edge.runtime.errors import InputError

from .adoptable_models import APPLICATIONS, build

__all__ = ["rebuild_model"]


def rebuild_model(weights: Path, labels: int) -> Any:
    """Return the Keras 3 model with the weights of a file, in float32.

    Args:
        weights: ``NAME.npz`` of ``adoptable_models``.
        labels: the number of classes.

    Raises:
        InputError: no model has this name, or the weights are of another model.
    """
    import keras

    name = weights.stem
    if name != "vit" and name not in APPLICATIONS:
        allowed = ", ".join(["vit", *APPLICATIONS])
        raise InputError(f"{weights} is named after no model that is trained here, allowed are {allowed}")
    model = build(name, labels, keras, activation="softmax")
    with np.load(weights) as file:
        arrays = [file[key] for key in sorted(file.files)]
    shapes = [array.shape for array in arrays]
    if shapes != [tuple(weight.shape) for weight in model.weights]:
        raise InputError(f"{weights} does not have the weights of {name} with {labels} classes")
    model.set_weights([a.astype(np.float32) if a.dtype == np.float16 else a for a in arrays])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # set_weights leaves the tensors that the layer computes with as they were
    return model


def main() -> None:
    """Write the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="+", type=Path, help="files of adoptable_models")
    parser.add_argument("--labels", type=int, default=10, help="number of classes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the .keras files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.weights:
        written = options.out / f"{path.stem}.keras"
        rebuild_model(path, options.labels).save(written)
        print(f"{written}: {written.stat().st_size / 2**20:.1f} MiB", file=sys.stderr)


if __name__ == "__main__":
    run_module(main)
