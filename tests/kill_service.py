"""Kill a service again and again amid jobs and decisions, and count what was lost.

    PYTHONPATH=tests python tests/kill_service.py --kills 20 --jobs 50 --decisions 200

The service is a process of its own, killed with SIGKILL at random moments and started again. A decision counts as
acknowledged when its answer has arrived. The last line of stdout is JSON: acknowledged decisions that are missing, jobs
that are not done, results that differ from those of ``capsule-edge run``, and whether the log is whole.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from red_model import write_exam, write_red_model

__all__ = ["Killed", "kill_and_count"]

_SAME = ("frames.csv", "report.html", "study.json")
_START_S, _END_S = 120.0, 1200.0
_SEED = 17


class Killed:
    """A service that is killed and started again on the same home.

    Args:
        home, recordings: folders.
    """

    def __init__(self, home: Path, recordings: Path) -> None:
        self._words = [*_cli(), "serve", str(recordings), "--home", str(home), "--json"]
        self._process: subprocess.Popen[str] | None = None
        self._client: httpx2.Client | None = None
        self.starts = 0

    def start(self) -> None:
        """Start the service and wait for its address."""
        self._process = subprocess.Popen(
            self._words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = self._process.stdout.readline()
            assert line, "the service ended before it answered"
            text += line
        base, token = json.loads(text)["address"].split("/#token=")
        self._client = httpx2.Client(
            base_url=f"{base}/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        self.starts += 1

    def kill(self) -> None:
        """Kill the service at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def send(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """Return the answer of a request; None where the service was killed before it came."""
        client = self._client
        assert client is not None
        try:
            return client.request(method, path, **options)
        except httpx2.HTTPError:
            return None

    def insist(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer, asked for until it comes."""
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            answer = self.send(method, path, **options)
            if answer is not None:
                assert answer.status_code < 400, answer.text
                return answer.json()
            time.sleep(0.1)
        raise AssertionError(f"no answer to {method} {path}")


def _cli() -> list[str]:
    return [sys.executable, "-m", "capsule_edge.cli"]


def kill_and_count(folder: Path, *, kills: int, jobs: int, decisions: int) -> dict[str, Any]:
    """Run the whole test in an empty folder and return the counts."""
    recordings, home = folder / "recordings", folder / "home"
    recordings.mkdir()
    exam = write_exam(folder / "exam.mp4")
    model = write_red_model(folder / "red.onnx")
    for words in (["models", "add", str(model)], ["models", "use", _sha256(model)]):
        subprocess.run([*_cli(), *words, "--home", str(home)], check=True, stdout=subprocess.DEVNULL)
    for number in range(jobs):
        shutil.copyfile(exam, recordings / f"{number}.mp4")
    service = Killed(home, recordings)
    service.start()
    place = service.insist("GET", "session")["folders"][0]["id"]
    studies = [
        service.insist("POST", "studies", json={"folder": place, "path": f"{number}.mp4"})["id"]
        for number in range(jobs)
    ]
    reading = _open_reading(service, studies[0])
    acknowledged: list[str] = []
    done = threading.Event()
    decider = threading.Thread(target=_decide, args=(service, reading, decisions, acknowledged, done))
    decider.start()
    chance = random.Random(_SEED)
    for _ in range(kills):
        time.sleep(chance.uniform(0.2, 3.0))
        service.kill()
        service.start()
    decider.join(_END_S)
    assert done.is_set(), "the decisions did not end"
    _wait_for_jobs(service)
    counts = _count(service, studies, reading, acknowledged, exam, model, folder)
    service.kill()
    return {"kills": service.starts - 1, "jobs": jobs, **counts}


def _open_reading(service: Killed, study: str) -> str:
    ends = time.monotonic() + _START_S
    while service.insist("GET", f"studies/{study}")["state"] != "read":
        assert time.monotonic() < ends, "the first study was not read"
        time.sleep(0.2)
    way = {"reader": "R", "way": "everything"}
    identity: str = service.insist("POST", f"studies/{study}/readings", json=way)["id"]
    return identity


def _decide(
    service: Killed, reading: str, decisions: int, acknowledged: list[str], done: threading.Event
) -> None:
    """Add findings, each with a comment of its own, until so many were acknowledged."""
    number = 0
    while len(acknowledged) < decisions:
        number += 1
        comment = f"decision {number}"
        frame = number % 60
        answer = service.send(
            "POST",
            f"readings/{reading}/findings",
            json={
                "label": "polyp",
                "start_index": frame,
                "end_index": frame + 1,
                "key_index": frame,
                "comment": comment,
                "seconds": 1.0,
            },
        )
        if answer is None:
            time.sleep(0.05)
            continue
        assert answer.status_code == 201, answer.text
        acknowledged.append(comment)
        # Slow enough that the kills fall between and into them.
        time.sleep(0.1)
    done.set()


def _wait_for_jobs(service: Killed) -> None:
    ends = time.monotonic() + _END_S
    while time.monotonic() < ends:
        listed = service.insist("GET", "jobs?limit=1000")["jobs"]
        if not any(job["state"] in ("queued", "running") for job in listed):
            return
        time.sleep(0.5)
    raise AssertionError("the jobs did not end")


def _count(
    service: Killed,
    studies: Sequence[str],
    reading: str,
    acknowledged: Sequence[str],
    exam: Path,
    model: Path,
    folder: Path,
) -> dict[str, Any]:
    kept = {each["comment"] for each in service.insist("GET", f"readings/{reading}")["decisions"]}
    unlike = undone = 0
    attempts = []
    for number, study in enumerate(studies):
        document = service.insist("GET", f"studies/{study}")
        attempts.append(document["job"]["attempts"])
        if document["state"] != "read":
            undone += 1
            continue
        expected = _expected(folder, exam, model, f"{number}.mp4")
        found = folder / "home" / "studies" / study / "results" / document["current_result"]
        unlike += any((found / name).read_bytes() != (expected / name).read_bytes() for name in _SAME)
    log = service.insist("GET", f"studies/{studies[0]}/log/verify")
    return {
        "decisions_acknowledged": len(acknowledged),
        "decisions_lost": len(set(acknowledged) - kept),
        "jobs_lost": undone,
        "results_unlike_run": unlike,
        "log_valid": log["valid"],
        "log_lines": log["lines"],
        "most_attempts": max(attempts),
    }


def _expected(folder: Path, exam: Path, model: Path, name: str) -> Path:
    """Return the results of ``capsule-edge run`` for a recording of this name."""
    from capsule_edge.cli.main import main

    copy, out = folder / "copies" / name, folder / "expected" / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(exam, copy)
    with open(os.devnull, "w") as nowhere:
        saved, sys.stdout = sys.stdout, nowhere
        try:
            main(["run", str(copy), "--model", str(model), "--out", str(out)])
        except SystemExit as ended:
            if ended.code:
                raise AssertionError(f"run ended with code {ended.code}") from None
        finally:
            sys.stdout = saved
    return out


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_as_script() -> None:
    """Run the test with the numbers of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--decisions", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_and_count(Path(folder), kills=given.kills, jobs=given.jobs, decisions=given.decisions)
    print(json.dumps(counts))
    lost = counts["decisions_lost"] or counts["jobs_lost"] or counts["results_unlike_run"]
    sys.exit(1 if lost or not counts["log_valid"] else 0)


if __name__ == "__main__":
    run_as_script()
