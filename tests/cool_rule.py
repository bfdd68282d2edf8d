"""A rule that sets aside frames in cool colours, for tests that need any rule."""

from __future__ import annotations

import numpy as np

from capsule_edge.runtime.inference import APPEARANCE, AppearanceParameters, FamiliarityRule


def cool_rule(threshold: float = 5.0, frozen_frames: int = 32) -> FamiliarityRule:
    """A rule that measures one statistic: the root of the share, in percent, of points that are not reddish."""
    whitening = np.zeros((len(APPEARANCE), len(APPEARANCE)))
    whitening[0, APPEARANCE.index("cool")] = 1
    rows = tuple(tuple(row) for row in whitening.tolist())
    parameters = AppearanceParameters(APPEARANCE, (0.0,) * len(APPEARANCE), rows, frozen_frames, 0.2)
    return FamiliarityRule("appearance", threshold, parameters)
