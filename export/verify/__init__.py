"""Check exported files: the graph that onnxruntime runs, the answers on replayed frames, saturation.

In: model files and answers of the Keras models. Out: reports; a ``ModelError`` where a file fails a check.
Must not know: how the files were written, RUN folders, certificates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .graph_checks import GraphReport, check_int8_graph, count_operators
    from .graph_replay import (
        Edge,
        check_outputs,
        check_probabilities,
        compare_edges,
        compare_floats,
        draw_tree,
        replay,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        graph_checks="GraphReport check_int8_graph count_operators",
        graph_replay="Edge check_outputs check_probabilities compare_edges compare_floats draw_tree replay",
    )

__all__ = [
    "Edge",
    "GraphReport",
    "check_int8_graph",
    "check_outputs",
    "check_probabilities",
    "compare_edges",
    "compare_floats",
    "count_operators",
    "draw_tree",
    "replay",
]
