"""Checks of exported files: the graph that onnxruntime runs, replayed frames, saturation.

In: files and Keras answers. Out: reports; an error where a file says something else than Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .graph_checks import GraphReport, check_int8_graph
    from .graph_replay import Edge, check_outputs, compare_edges, draw_tree, replay
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        graph_checks="GraphReport check_int8_graph",
        graph_replay="Edge check_outputs compare_edges draw_tree replay",
    )

__all__ = ["Edge", "GraphReport", "check_int8_graph", "check_outputs", "compare_edges", "draw_tree", "replay"]
