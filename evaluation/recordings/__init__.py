"""Evaluate models on whole recordings: match events with true findings, and fit event parameters.

In: result folders and truth tables. Out: findings hit, false events, figures by class.
Must not know: TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .event_matching import Span, event_agreement, spans
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        event_matching="Span event_agreement spans",
    )

__all__ = ["Span", "event_agreement", "spans"]
