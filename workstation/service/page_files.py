"""Answer the files of the page. Only the files that lay there at the start are answered; they hold no data."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from .problems import RequestError

__all__ = ["page_router"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_INDEX, _FRAME = "index.html", "report_frame.html"
# A report is shown in a frame of its own, of opaque origin. It reaches neither the service nor the network.
_FRAME_POLICY = (
    "sandbox allow-scripts allow-modals; default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


def page_router(folder: Path | None = None) -> APIRouter:
    """Return the router of ``/`` and ``/page/...``.

    Args:
        folder: of the files; None for those of this installation.
    """
    if folder is None:
        folder = Path(str(resources.files("capsule_edge.workstation"))) / "page" / "assets"
    files = {
        path.relative_to(folder).as_posix(): path
        for path in (sorted(folder.rglob("*")) if folder.is_dir() else ())
        if path.suffix in _TYPES and path.is_file() and not path.is_symlink()
    }
    router = APIRouter(include_in_schema=False)

    def answer(name: str) -> Response:
        path = files.get(name)
        try:
            content = path.read_bytes() if path else None
        except OSError:
            content = None
        if path is None or content is None:
            raise RequestError(404, "not_found", "the page has no such file", hint="reload the page")
        headers = {"content-security-policy": _FRAME_POLICY} if name == _FRAME else None
        return Response(content, headers=headers, media_type=_TYPES[path.suffix])

    @router.get("/")
    def index() -> Response:
        """Return the page."""
        return answer(_INDEX)

    @router.get("/page/{name:path}")
    def page_file(name: str) -> Response:
        """Return a file of the page."""
        return answer(name)

    return router
