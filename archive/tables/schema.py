"""The columns of the tables, as the published schema ``schema/archive-tables-1.json`` lists them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from ..packages import load_package

__all__ = ["TABLES", "schema_name", "table_schema"]

TABLES = ("frames", "events", "suggestions", "ledgers", "sources", "models")


@lru_cache(maxsize=1)
def _published() -> dict[str, Any]:
    text = (resources.files("capsule_edge.archive") / "schema" / "archive-tables-1.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def schema_name() -> str:
    """Return the name and version of the schema, which every file carries."""
    return str(_published()["schema"])


def table_schema(table: str, labels: Sequence[str] = ()) -> Any:
    """Return the ``pyarrow.Schema`` of a table.

    Args:
        table: one of ``TABLES``.
        labels: keys of the model's labels; ``frames`` has a column for each.
    """
    arrow = load_package("pyarrow", needed_for="the tables of an archive")
    types = {
        "string": arrow.string(),
        "int32": arrow.int32(),
        "int64": arrow.int64(),
        "double": arrow.float64(),
        "bool": arrow.bool_(),
        "string_list": arrow.list_(arrow.string()),
        "int32_list": arrow.list_(arrow.int32()),
    }
    columns = _published()["tables"][table]["columns"]
    fields = [arrow.field(name, types[kind]) for name, (kind, _) in columns.items()]
    if table == "frames":
        fields += [arrow.field(f"p_{label}", arrow.float32()) for label in labels]
    return arrow.schema(fields, metadata={"schema": schema_name()})
