"""Run a workstation in a test: its application in this process, with its token, and its jobs in real processes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from capsule_edge.workstation import Settings
from capsule_edge.workstation.service import AccessToken, Workstation, create_app

PORT = 8731
# A job of a small recording takes seconds; on a machine that is busy with other tests, a minute.
JOB_S = 180.0


@dataclass
class Station:
    """A running workstation: ``client`` sends the token, ``bare`` sends nothing by itself."""

    client: TestClient
    bare: TestClient
    token: str
    home: Path
    workstation: Workstation

    def get(self, path: str, status: int = 200, **options: Any) -> Any:
        return self.send("GET", path, status, **options)

    def send(self, method: str, path: str, status: int, **options: Any) -> Any:
        """Return the JSON of an answer, after checking its status; the text of one that is no JSON."""
        answer = self.client.request(method, f"/v1/{path}", **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.headers.get("content-type") == "application/json" else answer

    def refuse(self, method: str, path: str, status: int, **options: Any) -> dict[str, str]:
        """Return the error of a refused request, which must be one line with a code."""
        error = self.send(method, path, status, **options)["error"]
        assert error["code"]
        assert error["message"]
        assert "\n" not in error["message"] + error["hint"]
        return error

    def add(self, folder: str, path: str, **more: Any) -> dict[str, Any]:
        return self.send("POST", "studies", 201, json={"folder": folder, "path": path, **more})

    def finish(self, job_id: str) -> dict[str, Any]:
        """Wait until a job has ended and return it."""
        assert self.workstation.queue.wait(job_id, timeout_s=JOB_S)
        return self.get(f"jobs/{job_id}")

    def read(self, study: dict[str, Any]) -> dict[str, Any]:
        """Wait until a study was read and return it."""
        job = self.finish(study["job"]["id"])
        assert job["state"] == "done", job
        return self.get(f"studies/{study['id']}")


@contextmanager
def running(home: Path, *folders: Path, **settings: Any) -> Iterator[Station]:
    """Run a workstation while the block runs."""
    options = Settings(home=home, folders=folders, port=PORT, **settings)
    access, token = AccessToken.issue(options.token_hours)
    app = create_app(options, access)
    address = f"http://127.0.0.1:{PORT}"
    with TestClient(app, base_url=address, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        bare = TestClient(app, base_url=address, raise_server_exceptions=False)
        yield Station(client, bare, token, home, app.state.workstation)


@contextmanager
def served(home: Path, *folders: Path, **settings: Any) -> Iterator[tuple[str, int, str, Workstation]]:
    """Serve a workstation on a real socket; yields host, port, token and workstation."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        options = Settings(home=home, folders=folders, port=port, **settings)
        access, token = AccessToken.issue(options.token_hours)
        app = create_app(options, access)
        started = threading.Event()

        class Server(uvicorn.Server):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                started.set()

        server = Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        assert started.wait(60)
        try:
            yield "127.0.0.1", port, token, app.state.workstation
        finally:
            with suppress(AttributeError):
                app.state.workstation.hub.close()
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
