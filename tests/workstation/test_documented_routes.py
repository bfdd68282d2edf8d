"""Run the blocks of ``docs/workstation_api.md`` in their order against a real service, word for word.

The service counts its answers by route, so the test knows which routes the blocks of each language have called. Only
``pip install`` is not run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from paths import ROOT

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

from capsule_edge.workstation import Settings
from capsule_edge.workstation.service import AccessToken, create_app

PAGE = (ROOT / "docs" / "workstation_api.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sh|bash|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(START,) = [line for _, code in BLOCKS for line in code.splitlines() if line.startswith("capsule-edge serve")]
TABLED = re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \|", PAGE, re.MULTILINE)
# FastAPI does not list the document itself.
DOCUMENT = ("GET", "/v1/openapi.json")
# These are looked for in the text of the blocks: a stream is counted some time after it was closed, the test itself
# asks for the metrics, and the document is no route of FastAPI.
IN_TEXT = {("GET", "/v1/events"), ("GET", "/v1/metrics"), DOCUMENT}
PDF = ("GET", "/v1/readings/{reading_id}/report.pdf")
# The commands of the page are those of this environment.
COMMANDS = """
capsule-edge() { "$THIS_PYTHON" -m capsule_edge.cli "$@"; }
python3() { "$THIS_PYTHON" "$@"; }
"""
MARK = "-- end of block --"
Calls = set[tuple[str, str]]


class Shell:
    """A bash that keeps its variables from block to block and ends at the first command that fails."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail"],
            cwd=folder,
            env={**os.environ, "CAPSULE_EDGE_HOME": str(home), "THIS_PYTHON": sys.executable},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.run(COMMANDS)

    def run(self, code: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{code}\necho\necho '{MARK}'\n")
        self.process.stdin.flush()
        shown = []
        for line in self.process.stdout:
            if line.rstrip() == MARK:
                return
            shown.append(line)
        pytest.fail(f"bash ended in the block\n{code}\nand wrote\n{''.join(shown)}", pytrace=False)


@contextmanager
def serving(folder: Path, home: Path) -> Iterator[str]:
    """Run the line of the page that starts the service; yields the address without its fragment, and the token."""
    words = shlex.split(START)
    assert (words[0], words[-3:]) == ("capsule-edge", [">", "address.json", "&"])
    process = subprocess.Popen(
        [sys.executable, "-m", "capsule_edge.cli", *words[1:-3]],
        cwd=folder,
        env={**os.environ, "CAPSULE_EDGE_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        while not printed.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, "the service has ended"
            printed += line
        (folder / words[-2]).write_text(printed)
        yield json.loads(printed)["address"]
    finally:
        process.kill()
        process.communicate()


def count_answers(address: str) -> Counter[tuple[str, str]]:
    """Return how often each route was answered with success, or the PDF refused for lack of Pango."""
    url, token = address.split("/#token=")
    request = Request(f"{url}/v1/metrics", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    counts: Counter[tuple[str, str]] = Counter()
    pattern = r'^capsule_edge_requests_total\{method="(\w+)",route="(\S+)",status="(\d+)"\} (\S+)$'
    for method, route, status, count in re.findall(pattern, text, re.MULTILINE):
        if status.startswith("2") or ((method, route), status) == (PDF, "501"):
            counts[method, route] += int(float(count))
    return counts


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory, exam: Path, red_model: Path) -> dict[str, Calls]:
    """Run all blocks, and return the routes that each language has called."""
    for tool in ("bash", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder, home = tmp_path_factory.mktemp("integrator"), tmp_path_factory.mktemp("home")
    (folder / "recordings" / "2026").mkdir(parents=True)
    for copy in ("recordings/2026/exam.mp4", "exam.mp4"):
        shutil.copyfile(exam, folder / copy)
    shutil.copyfile(red_model, folder / "new.onnx")
    calls: dict[str, Calls] = {"bash": set(), "python": set(), "sh": set()}
    names: dict[str, Any] = {}
    with serving(folder, home) as address, chdir(folder):
        shell = Shell(folder, home)
        before = count_answers(address)
        try:
            for language, code in BLOCKS:
                if START in code:
                    continue
                if language == "python":
                    exec(compile(code, "docs/workstation_api.md", "exec"), names)
                else:
                    shell.run(code)
                after = count_answers(address)
                calls[language] |= set(after - before)
                before = after
        finally:
            shell.process.kill()
            shell.process.communicate()
    return calls


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    access, _ = AccessToken.issue(1.0)
    settings = Settings(home=tmp_path_factory.mktemp("unused"), port=8780)
    return create_app(settings, access).openapi()


def routes_of(document: dict[str, Any]) -> Calls:
    return {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", ["bash", "python"])
def test_the_blocks_of_the_integrators_page_call_every_route(
    called: dict[str, Calls], openapi: dict[str, Any], language: str
) -> None:
    text = "".join(code for kind, code in BLOCKS if kind == language)
    silent = {call for call in IN_TEXT if call[1].removeprefix("/v1/") not in text}
    assert silent == set()
    assert routes_of(openapi) - IN_TEXT - called[language] == set()


def test_the_integrators_page_lists_the_routes_of_openapi(openapi: dict[str, Any]) -> None:
    assert {call: count for call, count in Counter(TABLED).items() if count > 1} == {}
    assert set(TABLED) == routes_of(openapi) | {DOCUMENT}


def test_openapi_has_an_example_for_every_body(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    bodies = {
        (method.upper(), path): media
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
        for media in operation.get("requestBody", {}).get("content", {}).values()
    }
    assert len(bodies) >= 12

    def has_example(media: dict[str, Any]) -> bool:
        schema = media["schema"]
        named = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
        return any(each.get("examples") for each in (media, schema, named))

    assert [call for call, media in bodies.items() if not has_example(media)] == []


def test_openapi_names_the_token_and_the_form_of_errors(openapi: dict[str, Any]) -> None:
    assert openapi["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert openapi["security"] == [{"token": []}]
    assert openapi["paths"]["/v1/health"]["get"]["security"] == []
    assert "HTTPValidationError" not in openapi["components"]["schemas"]
    for operations in openapi["paths"].values():
        for operation in operations.values():
            answer = operation["responses"]["default"]["content"]["application/json"]
            assert answer["schema"]["$ref"].endswith("/Problem")
