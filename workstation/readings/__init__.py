"""Readings: the decisions of a reader, and the log from which all of them can be rebuilt.

In: actions of a reader on a study. Out: rows of the log, each in the transaction that acknowledges the action.
Must not know: HTTP, pictures, models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .active_time import ActiveTime
    from .coverage import add_seen, find_coverage
    from .decisions import FINDING_VERDICTS, VERDICTS, add_finding, decide, decision_document
    from .entries import LONGEST_TEXT, OTHER, check_text
    from .examination import change_examination
    from .landmarks import find_landmarks, remove_landmark, set_landmark, transit_document
    from .lifecycle import WAYS, finish, open_reading, reopen, second_pass, switch_way
    from .log import (
        FIRST_HASH,
        STORE_CHAIN,
        LogLine,
        append_line,
        canonical_json,
        hash_line,
        head_hash,
        read_lines,
    )
    from .log_faults import LogFaultError
    from .progress import list_readings, progress_document, reading_document, small_bowel_frames
    from .ranges import Ranges, count, intersect, subtract, unite
    from .reading_errors import (
        ReadingConflictError,
        ReadingNotFoundError,
        ReadingValueError,
        ResultDamagedError,
    )
    from .reading_export import SCHEMA, export_log, export_reading
    from .rebuilt_tables import differing_rows, project_all, rebuild
    from .recorder import Recorder
    from .result_facts import FactsCache, ResultFacts, SuggestionFacts, known_scale, read_facts
    from .table_repair import RepairedTables, repair_tables
    from .undo_lines import find_undoable, undo
    from .verify import VerifiedLog, verify_database, verify_file
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        active_time="ActiveTime",
        coverage="add_seen find_coverage",
        decisions="FINDING_VERDICTS VERDICTS add_finding decide decision_document",
        entries="LONGEST_TEXT OTHER check_text",
        examination="change_examination",
        landmarks="find_landmarks remove_landmark set_landmark transit_document",
        lifecycle="WAYS finish open_reading reopen second_pass switch_way",
        log="FIRST_HASH STORE_CHAIN LogLine append_line canonical_json hash_line head_hash read_lines",
        log_faults="LogFaultError",
        progress="list_readings progress_document reading_document small_bowel_frames",
        ranges="Ranges count intersect subtract unite",
        reading_export="SCHEMA export_log export_reading",
        reading_errors="ReadingConflictError ReadingNotFoundError ReadingValueError ResultDamagedError",
        rebuilt_tables="differing_rows project_all rebuild",
        recorder="Recorder",
        result_facts="FactsCache ResultFacts SuggestionFacts known_scale read_facts",
        table_repair="RepairedTables repair_tables",
        undo_lines="find_undoable undo",
        verify="VerifiedLog verify_database verify_file",
    )

__all__ = [
    "FINDING_VERDICTS",
    "FIRST_HASH",
    "LONGEST_TEXT",
    "OTHER",
    "SCHEMA",
    "STORE_CHAIN",
    "VERDICTS",
    "WAYS",
    "ActiveTime",
    "FactsCache",
    "LogFaultError",
    "LogLine",
    "Ranges",
    "ReadingConflictError",
    "ReadingNotFoundError",
    "ReadingValueError",
    "Recorder",
    "RepairedTables",
    "ResultDamagedError",
    "ResultFacts",
    "SuggestionFacts",
    "VerifiedLog",
    "add_finding",
    "add_seen",
    "append_line",
    "canonical_json",
    "change_examination",
    "check_text",
    "count",
    "decide",
    "decision_document",
    "differing_rows",
    "export_log",
    "export_reading",
    "find_coverage",
    "find_landmarks",
    "find_undoable",
    "finish",
    "hash_line",
    "head_hash",
    "intersect",
    "known_scale",
    "list_readings",
    "open_reading",
    "progress_document",
    "project_all",
    "read_facts",
    "read_lines",
    "reading_document",
    "rebuild",
    "remove_landmark",
    "reopen",
    "repair_tables",
    "second_pass",
    "set_landmark",
    "small_bowel_frames",
    "subtract",
    "switch_way",
    "transit_document",
    "undo",
    "unite",
    "verify_database",
    "verify_file",
]
