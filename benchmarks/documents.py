"""Keep tables of results in documents, between the markers ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

from capsule_edge.evaluation._documents import between, to_table, update_document

__all__ = ["between", "to_table", "update_document"]
