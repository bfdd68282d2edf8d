"""Routes of exact frames: pictures, the hash of the model's input, activation maps and strips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel
from starlette.responses import Response

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import Backend
from capsule_edge.runtime.preprocessing import FieldOfView
from capsule_edge.runtime.private_names import PrivateNames
from capsule_edge.runtime.recording import hash_recording

from ..frames import (
    LARGEST_TILE,
    STRIP,
    THUMBNAIL,
    FrameSource,
    FrameUnavailable,
    StaleSourceError,
    find_contours,
    mark_recording,
)
from ..store import current_result
from .frame_work import FrameThread
from .problems import RequestError
from .workstation import Workstation, existing_study, workstation

__all__ = ["router", "use_frames"]

T = TypeVar("T")
# Opening a recording anew helps where it was put back. Another request may close it once more.
_TRIES = 3

router = APIRouter(prefix="/v1/studies/{study_id}", tags=["frames"])
Station = Annotated[Workstation, Depends(workstation)]
Index = Annotated[int, PathParameter(ge=0, le=10**9)]
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/jpeg": {}, "image/png": {}},
        "description": "The picture, with the headers X-Frame-Index, X-Frame-Pts and X-Frame-Time.",
    }
}


class InputHash(BaseModel):
    """The SHA-256 of a frame as the model's input, uint8 RGB (size, size, 3)."""

    index: int
    sha256: str
    size: int


class Box(BaseModel):
    """A part of the frame, pixels of the upright picture."""

    left: int
    top: int
    width: int
    height: int


class ActivationMap(BaseModel):
    """The parts of a frame in which the model sees evidence for a label.

    Values are 0 to 1 in rows from the top; contours are closed lines of (x, y), 0 to 1 of the box.
    """

    index: int
    label: str
    width: int
    height: int
    values: list[float]
    box: Box
    level: float
    contours: list[list[tuple[float, float]]]


class FrameAccess(BaseModel):
    """The speed at which any frame of the recording can be shown."""

    speed: Literal["fast", "slow"]
    reason: str
    most_frames: int


@router.get("/frames/{index}", response_class=Response, responses=_PICTURES)
async def get_frame(
    run: FrameThread,
    station: Station,
    study_id: str,
    index: Index,
    format: Literal["jpeg", "png"] = "jpeg",
    size: Annotated[int | None, Query(ge=16, le=4096, description="pixels of the longer side")] = None,
) -> Response:
    """Return the picture of a frame: JPEG of quality 92 and 4:4:4, or PNG without loss."""

    def answer(source: FrameSource) -> Response:
        _check_index(source, index)
        content = source.png(index, size) if format == "png" else source.jpeg(index, size)
        container = source.container
        headers = {
            "X-Frame-Index": str(index),
            "X-Frame-Pts": str(container.pts[index]),
            "X-Frame-Time": f"{container.times_s[index]:.6f}",
        }
        return Response(content, headers=headers, media_type=f"image/{format}")

    return await run(study_id, use_frames, station, study_id, answer)


@router.get("/frames/{index}/sha256")
async def get_input_hash(
    run: FrameThread, station: Station, study_id: str, index: Index, result: str | None = None
) -> InputHash:
    """Return the SHA-256 of the frame's model input: with it, anybody can check which pixels were judged."""

    def answer(source: FrameSource) -> InputHash:
        _check_index(source, index)
        spec = _model(station, study_id, result).spec.input
        return InputHash(index=index, sha256=source.input_sha256(index, input=spec), size=spec.size)

    return await run(study_id, use_frames, station, study_id, answer)


@router.get("/frames/{index}/map")
async def get_map(
    run: FrameThread,
    station: Station,
    study_id: str,
    index: Index,
    label: Annotated[str, Query(max_length=200, description="key of a label")],
    level: Annotated[float, Query(gt=0, lt=1, description="value of the contours")] = 0.5,
    result: str | None = None,
) -> ActivationMap:
    """Return the class-activation map of a label in a frame, and its contours."""

    def answer(source: FrameSource) -> ActivationMap:
        _check_index(source, index)
        found = source.activation(index, label, _model(station, study_id, result))
        height, width = found.values.shape
        box = found.box
        return ActivationMap(
            index=index,
            label=label,
            width=width,
            height=height,
            values=[round(float(value), 4) for value in found.values.ravel()],
            box=Box(left=box.left, top=box.top, width=box.width, height=box.height),
            level=level,
            contours=find_contours(found.values, level),
        )

    return await run(study_id, use_frames, station, study_id, answer)


@router.get("/strip", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def get_strip(
    run: FrameThread,
    station: Station,
    study_id: str,
    start: Annotated[int, Query(ge=0, le=10**9)],
    end: Annotated[int, Query(ge=1, le=10**9)],
    size: Annotated[int, Query(ge=16, le=LARGEST_TILE, description="pixels of the longer side")] = THUMBNAIL,
    most: Annotated[int, Query(ge=1, le=STRIP, description="number of frames")] = STRIP,
) -> Response:
    """Return the frames of a range side by side in one JPEG; of a long range some, evenly spread."""
    strip = await run(
        study_id, use_frames, station, study_id, lambda source: source.strip(start, end, size=size, most=most)
    )
    headers = {
        "X-Strip-Indices": ",".join(map(str, strip.indices)),
        "X-Strip-Unavailable": ",".join(map(str, strip.unavailable)),
        "X-Strip-Tile": f"{strip.tile_width}x{strip.tile_height}",
    }
    return Response(strip.jpeg, headers=headers, media_type="image/jpeg")


@router.get("/access")
async def get_access(run: FrameThread, station: Station, study_id: str) -> FrameAccess:
    """Return whether any frame can be shown at once, and why not where it cannot."""
    access = await run(study_id, use_frames, station, study_id, lambda source: source.access())
    return FrameAccess(speed=access.speed, reason=access.reason, most_frames=access.most_frames)


def use_frames(station: Workstation, study_id: str, use: Callable[[FrameSource], T]) -> T:
    """Return what ``use`` makes of the frames of a study; only of the recording that was read, where it was.

    Args:
        station: the workstation.
        study_id: the study.
        use: called with the frames; a second time where the file was put back, or the frames were closed meanwhile.

    Raises:
        NotFoundError: there is no such study.
        RequestError: 404, the frame has no picture; 409, the recording is gone, was changed, or cannot be read.
    """
    with station.database.reading() as connection:
        study = existing_study(connection, study_id)
    path = station.recording_path(study)
    try:
        return _use_open(station, study, path, use)
    except FrameUnavailable as error:
        raise _unavailable(error) from None
    except InputError as error:
        cleaned = PrivateNames({path: study.title[:80]}).clean_error(error)
    raise RequestError(409, "recording", cleaned.message, hint=cleaned.hint)


def _use_open(station: Workstation, study: Any, path: Path, use: Callable[[FrameSource], T]) -> T:
    key = study.id, study.sha256
    known = study.recording or {}
    box = known.get("field_of_view")
    for tries_left in reversed(range(_TRIES)):
        source = station.frames.open(
            key,
            path,
            field_of_view=FieldOfView(**box) if box else None,
            sound=known.get("sound", False),
            verify=lambda: _check_same(station, study, path),
        )
        try:
            return use(source)
        except StaleSourceError:
            station.frames.discard(key, source)
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _check_same(station: Workstation, study: Any, path: Path) -> None:
    """Raise ``InputError`` unless the recording lies where it may, and is the one that was read, where it was."""
    mark = mark_recording(path, station.recording_roots(study.id)).digest
    if study.sha256 is None or mark == (study.recording or {}).get("mark"):
        return
    known, sha256 = station.hashed.get(study.id, ("", ""))
    if known != mark:
        # A file that changes while it is hashed has another mark afterwards, and is hashed again.
        sha256 = hash_recording(path)
        station.hashed[study.id] = mark, sha256
    if sha256 != study.sha256:
        raise InputError(
            "the recording was changed after it was read",
            hint="put the earlier file back; add the changed one under another name",
        )


def _model(station: Workstation, study_id: str, result: str | None) -> Backend:
    """Return the model of a result, opened; of the one in use where the study was not read yet."""
    with station.database.reading() as connection:
        row = current_result(connection, study_id, result)
    if row is None and result is not None:
        raise RequestError(404, "not_found", "the study has no such result")
    digest = station.models.in_use.sha256 if row is None else row.model_sha256
    return station.opened_model(digest)


def _check_index(source: FrameSource, index: int) -> None:
    if index >= source.frames:
        raise RequestError(
            404, "not_found", f"frame is {index}, the recording has the frames 0 to {source.frames - 1}"
        )


def _unavailable(error: FrameUnavailable) -> RequestError:
    found = RequestError(404, error.code, error.message, hint=error.hint)
    found.current = {"index": error.index, "status": error.status, "detail": error.detail}
    return found
