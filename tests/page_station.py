"""The real workstation in a process of its own, for tests of the page's panels, and what tests do on the page."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page_probe import wait_until

START_S = 60
# A whole reading by the AI on a busy machine.
READ_S = 400


@dataclass(frozen=True)
class PageStation:
    """A running workstation.

    Attributes:
        address: of the page, with the token in its fragment.
    """

    address: str

    @property
    def origin(self) -> str:
        return self.address.partition("/#")[0]

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a request and return its JSON; an answer that is no success raises an AssertionError."""
        token = self.address.partition("token=")[2]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.origin}/v1/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None
        return json.loads(content) if content else None

    def get(self, path: str) -> Any:
        return self.send("GET", path)

    def add_demo(self) -> dict[str, Any]:
        """Add the demo examination, wait until the AI has read it, and return it."""
        study = self.send("POST", "studies/demo")
        until = time.monotonic() + READ_S
        while study["current_result"] is None:
            assert study["state"] in ("queued", "reading", "read"), study["error"]
            assert time.monotonic() < until, "the demo was not read in time"
            time.sleep(0.2)
            study = self.get(f"studies/{study['id']}")
        return study

    def add_short(self) -> dict[str, Any]:
        """Add the short recording of the allowed folder; its job waits or runs."""
        folder = self.get("folders")["folders"][0]["id"]
        return self.send("POST", "studies", {"folder": folder, "path": "short.mp4"})

    def open_reading(
        self, study_id: str, way: str = "suggestions_first", reader: str = "Dr. Test"
    ) -> dict[str, Any]:
        return self.send("POST", f"studies/{study_id}/readings", {"reader": reader, "way": way})


@contextmanager
def run_station(home: Path, *folders: Path) -> Iterator[PageStation]:
    """Start ``capsule-edge serve`` on a free port; stop it afterwards."""
    command = [
        sys.executable,
        "-m",
        "capsule_edge.cli",
        "serve",
        "--home",
        str(home),
        "--json",
        *map(str, folders),
    ]
    errors = home.with_suffix(".log")
    with (
        errors.open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            assert process.stdout is not None
            text = ""
            while "}" not in text:
                line = process.stdout.readline().decode()
                assert line, errors.read_text("utf-8", "replace")
                text += line
            yield PageStation(json.loads(text)["address"])
        finally:
            process.terminate()
            process.wait(START_S)


def enter_reading(
    page: Any, station: PageStation, reading: dict[str, Any], *, reader: str | None = None
) -> None:
    """Open a reading in a page, as coming back to it in the same tab does.

    Args:
        page: of the browser.
        station: that holds the reading.
        reading: to open.
        reader: name of the person who goes on with it in this tab; None for the one who opened it.
    """
    study = reading["study_id"]
    page.goto(station.address)
    wait_until(page, "store.session")
    page.evaluate(
        """(kept) => { for (const [key, value] of kept) sessionStorage.setItem(`capsule-edge.${key}`, value); }""",
        [[f"reading.{study}", reading["id"]], [f"reader-of.{reading['id']}", reader or reading["reader"]]],
    )
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", study)
    wait_until(page, f"store.reading?.id === '{reading['id']}'")
    # The suggestions come after the first picture.
    wait_until(page, "store.resultId === store.reading.result_id")
    wait_until(page, "document.querySelector('.head .progress') && store.shown")


def wait_until_saved(page: Any) -> None:
    """Wait until the service has acknowledged everything that the reader did."""
    wait_until(page, "store.unsaved.length === 0")
