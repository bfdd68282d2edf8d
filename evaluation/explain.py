"""What a model file looks at: class-activation maps from its own ``features``, no training framework needed.

``features`` is the classifier applied at each position before pooling, so a map says exactly what each position adds to
a label's logit (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016). It shows where the
evidence lies that the model used, not where a lesion ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.events import activation_map
from capsule_edge.runtime.inference import Backend, ModelSpec
from capsule_edge.runtime.preprocessing import FieldOfView, find_field_of_view, preprocess

__all__ = ["PICTURE_SIDE", "Explanation", "LabelMap", "chosen_labels", "explain"]

PICTURE_SIDE = 224
"""Side of an explanation's picture, pixels; that of the model's input where this is larger."""


@dataclass(frozen=True)
class LabelMap:
    """One label's probability, its map float32 (h, w) in 0..1 (the share of the strongest position's evidence for
    it), and the strongest position in pixels of the frame, ``x`` to the right and ``y`` down; None for a map
    of nothing.
    """

    key: str
    probability: float
    map: npt.NDArray[np.float32]
    peak: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.key,
            "probability": round(self.probability, 6),
            "peak": None if self.peak is None else {"x": self.peak[0], "y": self.peak[1]},
            "map": [[round(float(v), 4) for v in row] for row in self.map],
        }


@dataclass(frozen=True)
class Explanation:
    """A frame as the model sees it, uint8 RGB square, and the maps of its labels, the most probable first."""

    picture: npt.NDArray[np.uint8]
    labels: tuple[LabelMap, ...]


def chosen_labels(spec: ModelSpec, keys: Sequence[str]) -> tuple[str, ...]:
    """``keys`` as they are. Raises ``UsageError`` for one that the model does not have."""
    unknown = [key for key in keys if key not in spec.keys]
    if unknown:
        raise UsageError(
            f"the model has no label {', '.join(unknown)}, its labels are {', '.join(spec.keys)}"
        )
    return tuple(keys)


def explain(
    model: Backend, frame: npt.NDArray[np.uint8], *, top: int = 3, labels: Sequence[str] = ()
) -> Explanation:
    """Maps of the ``top`` labels of ``frame`` (uint8 RGB HxWx3), or of ``labels`` (keys) where some are given.

    Raises ``UsageError`` for a label that the model does not have, ``InputError`` for a frame that is none.
    """
    spec = model.spec
    wanted = chosen_labels(spec, labels)
    box = find_field_of_view([frame])
    answer = model.run(preprocess(frame, spec.input, box)[None])
    p, features = answer.probabilities[0], answer.features[0]
    columns = [spec.keys.index(key) for key in wanted] or np.argsort(-p, kind="stable")[:top].tolist()
    large = replace(spec.input, size=max(PICTURE_SIDE, spec.input.size))
    return Explanation(
        picture=preprocess(frame, large, box),
        labels=tuple(_label_map(spec, column, float(p[column]), features, box, frame) for column in columns),
    )


def _label_map(
    spec: ModelSpec,
    column: int,
    probability: float,
    features: npt.NDArray[np.float32],
    box: FieldOfView,
    frame: npt.NDArray[np.uint8],
) -> LabelMap:
    activation = activation_map(features[..., column])
    peak = None
    if activation.any():
        row, place = np.unravel_index(int(activation.argmax()), activation.shape)
        area = box if spec.input.crop == "field_of_view" else FieldOfView.whole(frame)
        # The centre of the position's cell.
        x = area.left + (place + 0.5) / activation.shape[1] * area.width
        y = area.top + (row + 0.5) / activation.shape[0] * area.height
        peak = int(x), int(y)
    return LabelMap(spec.keys[column], probability, activation, peak)
