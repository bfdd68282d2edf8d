"""The results of an archive as tables: Parquet files, and SQL over them.

In: result folders and the manifest. Out: a batch of Parquet files, whole or absent, and the rows of a query.
Must not know: how recordings are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .batches import TableTask, tabulated_keys, update_tables, write_batch
    from .query import QueryResult, open_database, readable_tables, run_query
    from .schema import TABLES, table_schema
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        batches="TableTask tabulated_keys update_tables write_batch",
        query="QueryResult open_database readable_tables run_query",
        schema="TABLES table_schema",
    )

__all__ = [
    "TABLES",
    "QueryResult",
    "TableTask",
    "open_database",
    "readable_tables",
    "run_query",
    "table_schema",
    "tabulated_keys",
    "update_tables",
    "write_batch",
]
