"""Routes of models: list, add by upload, use, roll back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request

from ..jobs import check_model_apart
from ..store import new_id
from .documents import ModelList
from .model_log import change_model
from .uploads import CHECK_S, describe_upload, received_body
from .workstation import Workstation, workstation

__all__ = ["router"]

router = APIRouter(prefix="/v1/models", tags=["models"])
Station = Annotated[Workstation, Depends(workstation)]
_MOST_BYTES = 1 << 30


@router.get("")
def get_models(station: Station) -> ModelList:
    """Return all models, and which one reads new studies."""
    return ModelList.model_validate(station.models.document())


@router.post(
    "",
    status_code=201,
    openapi_extra=describe_upload("An ONNX or TFLite file with a ModelSpec.", "new.int8.onnx"),
)
async def post_model(request: Request, station: Station) -> ModelList:
    """Add a model: the body is an ONNX or TFLite file with a ModelSpec, which is opened and checked."""
    folder = station.settings.home / "uploads" / new_id()
    limit = min(_MOST_BYTES, station.settings.upload_bytes)
    async with received_body(request, folder / "model", limit=limit):
        await to_thread.run_sync(_add, station, folder / "model", limiter=station.checks)
        await to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
    return await to_thread.run_sync(_changed, station)


@router.post("/{sha256}/use")
def post_use(station: Station, sha256: str) -> ModelList:
    """Read new studies with this model from now on. Results of other models stay."""
    change_model(station.database, station.models, lambda: station.models.use(sha256))
    return _changed(station)


@router.post("/rollback")
def post_rollback(station: Station) -> ModelList:
    """Use the model again that was in use before the last choice."""
    change_model(station.database, station.models, station.models.roll_back)
    return _changed(station)


def _add(station: Workstation, path: Path) -> None:
    """Add an uploaded model. A process of its own opens it, as it may be harmful."""
    limits = replace(station.limits, seconds=min(CHECK_S, station.limits.seconds))
    station.models.add(path, check=lambda source: check_model_apart(source, limits))


def _changed(station: Workstation) -> ModelList:
    document = station.models.document()
    station.hub.publish("models", document)
    return ModelList.model_validate(document)
