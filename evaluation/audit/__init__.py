"""Find faults of a data set that make figures misleading: copies, leaks between splits, conflicting labels.

In: a ``Listing``. Out: findings by check, and a page.
Must not know: models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .audit_report import MEANING, write_audit
    from .dataset_audit import audit
    from .tables import shared_videos
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        audit_report="MEANING write_audit",
        dataset_audit="audit",
        tables="shared_videos",
    )

__all__ = ["MEANING", "audit", "shared_videos", "write_audit"]
