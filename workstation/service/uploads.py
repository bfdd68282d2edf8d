"""Take over the body of an upload into a file, within limits; whatever goes wrong leaves nothing behind."""

from __future__ import annotations

import errno
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from .problems import RequestError

__all__ = ["CHECK_S", "describe_upload", "received_body", "split_name"]

# A process that checks an upload is ended after this time.
CHECK_S = 120.0

_CHUNK = 1 << 20
# Keep this much of the disk free for the database and the results.
_RESERVE = 64 << 20


def describe_upload(content: str, example: str) -> dict[str, Any]:
    """Return the part of the OpenAPI document for a route whose body is a file.

    Args:
        content: of the file, for people.
        example: name of such a file.
    """
    media = {
        "schema": {"type": "string", "format": "binary"},
        # No value: JSON has no form for bytes.
        "examples": {
            "file": {"summary": f"the bytes of {example}", "description": f"as in --data-binary @{example}"}
        },
    }
    body = {"description": content, "required": True, "content": {"application/octet-stream": media}}
    return {"requestBody": body}


def split_name(name: str) -> tuple[str, str]:
    """Return the title and the suffix of the name of an uploaded file. Neither holds a path.

    Args:
        name: as the browser gives it; only text, never used as a path.
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    suffix = PurePosixPath(last).suffix.lower()
    known = suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 6 else ""
    return last or "recording", known


@asynccontextmanager
async def received_body(request: Request, path: Path, *, limit: int) -> AsyncIterator[int]:
    """Write the body of a request to a file and yield its size in bytes.

    The file and its folder are removed if the block raises an error, or the client goes away.

    Args:
        request: whose body was not read yet.
        path: the file to write. Its folder is new.
        limit: size in bytes that is allowed.

    Raises:
        RequestError: 413 the body is too large; 507 the disk is full; 400 the client went away; 422 it is empty.
    """
    announced = request.headers.get("content-length", "")
    _check_size(int(announced) if announced.isdigit() else 0, limit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_disk(path.parent, int(announced) if announced.isdigit() else 0)
        with path.open("xb") as file:
            size = await _receive(request, file, limit)
        if not size:
            raise RequestError(422, "invalid", "the upload is empty (0 bytes)", hint="choose a recording")
        yield size
    except BaseException as error:
        # BaseException: a cancelled task leaves nothing either.
        shutil.rmtree(path.parent, ignore_errors=True)
        if isinstance(error, OSError):
            raise _disk_problem(error) from error
        if isinstance(error, ClientDisconnect):
            raise RequestError(400, "disconnected", "the client went away during the upload") from None
        raise


async def _receive(request: Request, file: BinaryIO, limit: int) -> int:
    """Write the body in pieces of a megabyte, in a thread: a slow disk must not stop the other requests."""
    size, waiting = 0, bytearray()

    def write(part: bytes) -> None:
        # The length may not have been announced, and others write to the disk meanwhile.
        _check_disk(Path(file.name).parent, len(part))
        file.write(part)

    async for part in request.stream():
        size += len(part)
        _check_size(size, limit)
        waiting += part
        if len(waiting) >= _CHUNK:
            await to_thread.run_sync(write, bytes(waiting))
            waiting.clear()
    await to_thread.run_sync(write, bytes(waiting))
    return size


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestError(
            413,
            "too_large",
            f"the upload has {size:,} bytes or more, allowed are {limit:,}",
            hint="put the file into a folder that serve was started with, and open it there",
        )


def _check_disk(folder: Path, size: int) -> None:
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
    if size + _RESERVE > free:
        raise RequestError(
            507,
            "disk_full",
            f"the upload needs {size:,} bytes, and {max(0, free - _RESERVE):,} are free",
            hint="free some space and upload it again",
        )


def _disk_problem(error: OSError) -> RequestError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RequestError(
            507,
            "disk_full",
            "the disk is full, the upload was removed",
            hint="free some space, then try again",
        )
    return RequestError(
        503, "disk", f"the upload cannot be written: {(error.strerror or str(error)).lower()}"
    )
