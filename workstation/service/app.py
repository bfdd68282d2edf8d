"""Put the application together: routes, errors, security."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI

from capsule_edge.runtime import __version__

from ..settings import Settings
from .page_files import page_router
from .problems import Problem, add_problem_handlers
from .security import AccessToken, Security, allowed_hosts
from .workstation import Workstation

__all__ = ["create_app"]

# Each module offers ``router``, in the order in which paths are compared.
_ROUTES = ("service", "studies", "jobs", "models", "frames", "readings", "exports")


def create_app(
    settings: Settings, access: AccessToken, *, opened: Workstation | None = None, page: Path | None = None
) -> FastAPI:
    """Return the application.

    Args:
        settings: with the port that the service listens on.
        access: the token that requests must carry.
        opened: the workstation; None to open it when the application starts, and close it when that ends.
        page: folder of the page's files; None for those of this installation.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if opened is not None:
            app.state.workstation = opened
            yield
            return
        with ExitStack() as stack:
            app.state.workstation = await to_thread.run_sync(stack.enter_context, Workstation.open(settings))
            yield
            await to_thread.run_sync(stack.close)

    app = FastAPI(
        title="capsule-edge workstation",
        version=__version__,
        description="Studies, jobs, exact frames, readings and models of a reading workstation on this machine. "
        "Every route but /v1/health needs the token: `Authorization: Bearer TOKEN`. Research use only.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # With this, FastAPI does not announce its own form of errors, which no route answers with.
        responses={"default": {"model": Problem, "description": "The request was refused or has failed."}},
    )
    _complete_description(app)
    app.state.access = access
    for router in _routers():
        app.include_router(router)
    app.include_router(page_router(page))
    add_problem_handlers(app)

    def observe(method: str, route: str, status: int, seconds: float) -> None:
        app.state.workstation.metrics.observe(method, route, status, seconds)

    app.add_middleware(
        Security, access=access, hosts=allowed_hosts(settings.host, settings.port), observe=observe
    )
    return app


def _complete_description(app: FastAPI) -> None:
    """Name the token in the OpenAPI document, so that clients made from it send it, and the type of all errors."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        document = describe()
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"]["/v1/health"]["get"]["security"] = []
        for operations in document["paths"].values():
            for operation in operations.values():
                # FastAPI gives the errors of a route the media type of its success.
                error = operation["responses"]["default"]
                error["content"] = {"application/json": next(iter(error["content"].values()))}
        return document

    app.openapi = described  # type: ignore[method-assign]


def _routers() -> list[APIRouter]:
    names = [f"{__package__}.routes_{name}" for name in _ROUTES]
    return [import_module(name).router for name in names if find_spec(name)]
