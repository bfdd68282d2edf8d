"""A workstation, in this process, whose one study was read already: its result is made by the runtime, not by a job."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from starlette.testclient import TestClient

from capsule_edge.runtime import Reader, write_study
from capsule_edge.runtime.recording import hash_recording
from capsule_edge.workstation import Settings
from capsule_edge.workstation.readings import append_line
from capsule_edge.workstation.service import AccessToken, create_app
from capsule_edge.workstation.store import Database, add_result, add_study, studies

STUDY, RESULT = "5" * 32, "6" * 32
PORT = 8741


@dataclass(frozen=True)
class ReadExam:
    """A recording and the folder of its result."""

    recording: Path
    folder: Path
    model: Path


def read_exam(recording: Path, model: Path, folder: Path) -> ReadExam:
    """Read a recording into a folder."""
    folder.mkdir()
    with Reader.open(model) as reader:
        study = reader.read(recording)
        write_study(study, folder, timing={}, colours=study.colours)
    return ReadExam(recording, folder, model)


def fill_home(home: Path, exam: ReadExam, *, frames: int) -> None:
    """Make a home folder that holds the study of an exam that was read."""
    folder = f"studies/{STUDY}/results/{RESULT}"
    shutil.copytree(exam.folder, home / folder)
    document = json.loads((exam.folder / "study.json").read_text("utf-8"))
    with Database.open(home / "workstation.sqlite") as database, database.writing() as connection:
        add_study(
            connection,
            title=exam.recording.name,
            path=str(exam.recording),
            origin="folder",
            size=exam.recording.stat().st_size,
            study_id=STUDY,
        )
        connection.execute(
            sa.update(studies).values(
                sha256=hash_recording(exam.recording),
                frames=frames,
                recording={"duration_s": document["source"]["duration_s"], "time_kind": "capture"},
            )
        )
        model = document["model"]
        add_result(
            connection,
            id=RESULT,
            study_id=STUDY,
            model_sha256=model["sha256"],
            model_name=model["name"],
            model_version=model["version"],
            precision=model["precision"],
            tool_version="0.1.0",
            folder=folder,
            document_sha256="c" * 64,
        )
        append_line(connection, chain="store", reader="", target=f"study:{STUDY}", action="study_added")


@dataclass
class ReadStation:
    """A running workstation; ``client`` sends the token."""

    client: TestClient
    home: Path
    app: Any

    def send(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Return the JSON of an answer, or the answer itself where it is none, after checking its status."""
        answer = self.client.request(method, f"/v1/{path}", **options)
        assert answer.status_code == status, answer.text
        is_json = answer.content and answer.headers.get("content-type") == "application/json"
        return answer.json() if is_json else answer

    def get(self, path: str, status: int = 200) -> Any:
        """Return the JSON of a document."""
        return self.send("GET", path, status)

    def open(self, **more: Any) -> dict[str, Any]:
        """Open a reading."""
        body = {"reader": "Dr. Reader", "way": "suggestions_first", **more}
        return self.send("POST", f"studies/{STUDY}/readings", 201, json=body)

    def decide(self, reading: str, target: str, status: int = 200, **body: Any) -> dict[str, Any]:
        """Decide on a suggestion."""
        whole = {"version": 0, **body}
        return self.send("PUT", f"readings/{reading}/decisions/{target}", status, json=whole)


@contextmanager
def read_station(
    home: Path, exam: ReadExam, *, frames: int = 60, prepared: Path | None = None
) -> Iterator[ReadStation]:
    """Run a workstation whose study was read, while the block runs.

    Args:
        home: a folder that is not there yet.
        exam: what was read.
        frames: number of its frames.
        prepared: home folder of an earlier workstation, to go on with a copy of it.
    """
    if prepared is None:
        home.mkdir()
        fill_home(home, exam, frames=frames)
    else:
        shutil.copytree(prepared, home)
    settings = Settings(home=home, port=PORT)
    access, token = AccessToken.issue(1.0)
    app = create_app(settings, access)
    headers = {"Authorization": f"Bearer {token}"}
    address = f"http://127.0.0.1:{PORT}"
    with TestClient(app, base_url=address, raise_server_exceptions=False, headers=headers) as client:
        yield ReadStation(client, home, app)
