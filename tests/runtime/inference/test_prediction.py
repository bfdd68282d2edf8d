"""The label of a frame, also when two labels are equally probable."""

from __future__ import annotations

import numpy as np
import pytest

from capsule_edge.runtime.inference import most_probable


@pytest.mark.quick
def test_of_equally_probable_labels_the_first_is_chosen() -> None:
    values = np.array([[0.2, 0.5, 0.3], [0.4, 0.4 + 1e-7, 0.2], [0.4, 0.4 + 1e-5, 0.2]], np.float32)
    assert most_probable(values).tolist() == [1, 0, 1]
    assert int(most_probable(values[1])) == 0
