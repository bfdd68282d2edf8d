"""The HTTP service of the workstation, on loopback: studies, jobs, frames, models, events, and the files of the page.

In: HTTP requests with the access token. Out: JSON documents, pictures, result files, server-sent events.
Must not know: how a reading is logged or a frame is decoded; it asks the rooms that do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .app import create_app
    from .model_log import change_model
    from .security import AccessToken
    from .server import serve
    from .workstation import Workstation
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        app="create_app",
        model_log="change_model",
        security="AccessToken",
        server="serve",
        workstation="Workstation",
    )

__all__ = ["AccessToken", "Workstation", "change_model", "create_app", "serve"]
