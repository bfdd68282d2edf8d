"""The models of a workstation: those that come with the package, and those that were added, in one folder.

In: model files. Out: the model to read with, and the file of any model that ever made a result.
Must not know: HTTP, studies, jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .model_folder import CheckedModel, KnownModel, ModelChange, ModelFolder, check_model, engine_of
else:
    __getattr__, __dir__ = lazy_names(
        __name__, model_folder="CheckedModel KnownModel ModelChange ModelFolder check_model engine_of"
    )

__all__ = ["CheckedModel", "KnownModel", "ModelChange", "ModelFolder", "check_model", "engine_of"]
