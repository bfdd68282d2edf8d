"""The database of the workstation: studies, results, jobs, readings and the log.

In: statements of SQLAlchemy Core. Out: transactions, each kept whole or not at all, also through a power cut.
Must not know: HTTP, recordings, models. Nothing here is special to SQLite except ``database``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .database import Database
    from .job_rows import (
        OPEN_STATES,
        add_job,
        change_job,
        count_jobs,
        find_job,
        last_job,
        list_jobs,
        requeue_running,
        take_next_job,
    )
    from .result_rows import add_result, current_result, find_result, list_results, models_in_use
    from .store_errors import (
        ConflictError,
        NotFoundError,
        StoreBusyError,
        StoreDamagedError,
        StoreError,
        StoreFullError,
    )
    from .study_rows import (
        BANNER,
        add_study,
        change_study,
        delete_study,
        find_study,
        list_studies,
        list_unseen_studies,
        study_at,
    )
    from .tables import (
        coverage,
        decisions,
        jobs,
        landmarks,
        log,
        metadata,
        new_id,
        readings,
        results,
        studies,
        utc_now,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        database="Database",
        job_rows=(
            "OPEN_STATES add_job change_job count_jobs find_job last_job list_jobs requeue_running take_next_job"
        ),
        result_rows="add_result current_result find_result list_results models_in_use",
        store_errors=(
            "ConflictError NotFoundError StoreBusyError StoreDamagedError StoreError StoreFullError"
        ),
        study_rows=(
            "BANNER add_study change_study delete_study find_study list_studies list_unseen_studies study_at"
        ),
        tables="coverage decisions jobs landmarks log metadata new_id readings results studies utc_now",
    )

__all__ = [
    "BANNER",
    "OPEN_STATES",
    "ConflictError",
    "Database",
    "NotFoundError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "add_job",
    "add_result",
    "add_study",
    "change_job",
    "change_study",
    "count_jobs",
    "coverage",
    "current_result",
    "decisions",
    "delete_study",
    "find_job",
    "find_result",
    "find_study",
    "jobs",
    "landmarks",
    "last_job",
    "list_jobs",
    "list_results",
    "list_studies",
    "list_unseen_studies",
    "log",
    "metadata",
    "models_in_use",
    "new_id",
    "readings",
    "requeue_running",
    "results",
    "studies",
    "study_at",
    "take_next_job",
    "utc_now",
]
