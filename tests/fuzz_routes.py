"""Send made-up requests to every route of a workstation that holds a read study and a reading.

    PYTHONPATH=tests python tests/fuzz_routes.py --requests 10000

Schemathesis makes the requests from the OpenAPI document of the service, valid ones and invalid ones. The ids in them
are often those of entries that exist. The last line of stdout is JSON: requests, statuses, and the faults: answers of
500 and above, and errors that are not ``{"error": ...}`` in one line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The processes that read recordings import this module when it runs as a script: heavy imports stand in functions.
if TYPE_CHECKING:
    import httpx2

__all__ = ["fuzz"]

# An event stream has no end.
_LEFT_OUT = ("/v1/events",)
_STUDY_S = 120.0


def fuzz(requests: int, folder: Path) -> dict[str, Any]:
    """Send about so many requests and return the counts.

    Args:
        requests: number of requests, spread over the routes.
        folder: for the home and the recording; empty.
    """
    import httpx2
    import schemathesis

    with _prepared(folder) as (address, token, known):
        headers = {"Authorization": f"Bearer {token}"}
        client = httpx2.Client(base_url=address, headers=headers, timeout=120)
        document = client.get("/v1/openapi.json").json()
        schema = schemathesis.openapi.from_dict(_with_known(document, known))
        statuses: Counter[int] = Counter()
        faults: list[dict[str, Any]] = []
        operations = [each.ok() for each in schema.get_all_operations()]
        operations = [each for each in operations if each.path not in _LEFT_OUT]
        share = max(1, requests // (2 * len(operations)))
        for operation in operations:
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                _send(operation, mode, share, client, statuses, faults)
            print(f"{operation.method} {operation.path}: {sum(statuses.values())} requests", file=sys.stderr)
        health = client.get("/v1/health").status_code
    return {
        "requests": sum(statuses.values()),
        "routes": len(operations),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "faults": len(faults),
        "first_faults": faults[:5],
        "health": health,
    }


def _send(
    operation: Any,
    mode: Any,
    share: int,
    client: httpx2.Client,
    statuses: Counter[int],
    faults: list[dict[str, Any]],
) -> None:
    """Send the requests of one route."""
    import httpx2
    from hypothesis import HealthCheck, Phase, given, settings

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=share,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any) -> None:
        options = case.as_transport_kwargs(base_url=str(client.base_url))
        options.pop("cookies", None)
        files = options.pop("data", None)
        headers = {
            key: value
            for key, value in dict(options.pop("headers", None) or {}).items()
            if key.lower() not in ("host", "authorization", "origin", "content-length", "transfer-encoding")
        }
        try:
            answer = client.request(
                options["method"],
                options["url"],
                params=options.get("params"),
                json=options.get("json"),
                content=files if isinstance(files, bytes | str) else None,
                headers=headers,
            )
        except (httpx2.InvalidURL, httpx2.LocalProtocolError, UnicodeError, TypeError, ValueError):
            return  # not a request of HTTP
        statuses[answer.status_code] += 1
        if fault := _fault_of(answer):
            faults.append({"request": f"{options['method']} {options['url']}"[:300], "fault": fault})

    try:
        send()
    except Exception as error:
        if type(error).__name__ not in ("Unsatisfiable", "SkipTest", "Skipped"):
            raise


def _fault_of(answer: httpx2.Response) -> str:
    """Return the fault of an answer, an empty text for a good one."""
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.text[:200]}"
    if answer.status_code < 400:
        return ""
    try:
        error = answer.json()["error"]
        one_line = all("\n" not in str(error[name]) for name in ("code", "message", "hint"))
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} without an error document: {answer.text[:200]}"
    return "" if one_line and error["message"] else f"{answer.status_code} with an error of several lines"


@contextmanager
def _prepared(folder: Path) -> Iterator[tuple[str, str, dict[str, list[Any]]]]:
    """Serve a workstation with a read study and an open reading; yields address, token and known ids."""
    import httpx2
    from red_model import write_exam, write_red_model
    from stations import served

    recordings = folder / "recordings"
    recordings.mkdir()
    exam = write_exam(recordings / "exam.mp4")
    model = write_red_model(folder / "red.onnx")
    with served(folder / "home", recordings, upload_bytes=1 << 20) as (host, port, token, station):
        added = station.models.use(station.models.add(model).sha256)
        address = f"http://{host}:{port}"
        client = httpx2.Client(
            base_url=f"{address}/v1", headers={"Authorization": f"Bearer {token}"}, timeout=120
        )
        place = client.get("/session").json()["folders"][0]["id"]
        study = client.post("/studies", json={"folder": place, "path": "exam.mp4"}).json()
        assert station.queue.wait(study["job"]["id"], timeout_s=_STUDY_S)
        shutil.copyfile(exam, recordings / "other.mp4")
        other = client.post("/studies", json={"folder": place, "path": "other.mp4"}).json()
        assert station.queue.wait(other["job"]["id"], timeout_s=_STUDY_S)
        reading = client.post(
            f"/studies/{study['id']}/readings", json={"reader": "R", "way": "everything"}
        ).json()
        yield (
            address,
            token,
            {
                "study_id": [study["id"], "0" * 32],
                "deleted": [other["id"], "0" * 32],
                "job_id": [study["job"]["id"], "0" * 32],
                "reading_id": [reading["id"], "0" * 32],
                "sha256": [added.after, "standard"],
                "result": [study["job"]["id"]],
                "folder": [place],
            },
        )


def _with_known(document: dict[str, Any], known: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the OpenAPI document with ids that exist in place of any text. Only the other study is deleted."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                name = parameter["name"]
                if name == "study_id" and method == "delete" and path.endswith("{study_id}"):
                    name = "deleted"
                if name in known and parameter["in"] in ("path", "query"):
                    parameter["schema"] = {"enum": known[name]}
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="number of requests")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(arguments.requests, Path(folder))
    print(json.dumps(counts))
    sys.exit(1 if counts["faults"] else 0)


if __name__ == "__main__":
    main()
