"""Which label a frame gets, when two are as probable."""

from __future__ import annotations

import numpy as np

from capsule_edge.runtime.inference import most_probable


def test_the_most_probable_label_and_among_equals_the_first() -> None:
    values = np.array([[0.2, 0.5, 0.3], [0.4, 0.4 + 1e-7, 0.2], [0.4, 0.4 + 1e-5, 0.2]], np.float32)
    assert most_probable(values).tolist() == [1, 0, 1]
    assert int(most_probable(values[1])) == 0
