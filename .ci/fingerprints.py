"""Read recordings with the installed ``capsule-edge`` and print the SHA-256 of every file a run leaves.

    python .ci/fingerprints.py [RECORDING...] > before.json

Reads the demo, each RECORDING, and a copy of the first RECORDING with 40 damaged bytes. Two outputs of this script
are equal when two versions of the code, of Python or of a dependency give the same answers. The tool's version in
``study.json`` is left out. The demo's recording is encoded anew by each run, and two versions of FFmpeg need not
write the same file: its own SHA-256 is left out of the demo's results.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = ("frames.csv", "study.json", "report.html")
READ, READ_WITH_DAMAGE = 0, 3
DAMAGED_BYTES = 40


def main() -> None:
    recordings = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = {"demo": read(work / "demo", "--demo")}
        for path in recordings:
            found[path.name] = read(work / path.stem, str(path))
        for path in recordings[:1]:
            damaged = damage(path, work / f"damaged{path.suffix}")
            found[damaged.name] = read(work / "damaged", str(damaged))
    print(json.dumps(found, indent=1))


def read(out: Path, *arguments: str) -> dict[str, str]:
    """Run ``capsule-edge run`` into ``out`` and return the SHA-256 of each result, by file name."""
    command = [sys.executable, "-c", "from capsule_edge.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "run", *arguments, "--out", str(out)], capture_output=True, text=True, cwd=out.parent
    )
    if done.returncode not in (READ, READ_WITH_DAMAGE):
        raise SystemExit(
            f"error: capsule-edge run {' '.join(arguments)} exited {done.returncode}: {done.stderr}"
        )
    recording = json.loads((out / "study.json").read_text("utf-8"))["source"]["sha256"]
    digests = {}
    for name in FILES:
        text = (out / name).read_text("utf-8")
        if name == "study.json":
            text = re.sub(r'("tool": \{\s*"version": )"[^"]*"', r'\1""', text)
        if "--demo" in arguments:
            text = text.replace(recording, "")
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def damage(recording: Path, copy: Path) -> Path:
    """Copy a recording and overwrite some bytes of its first half, always the same ones."""
    content = bytearray(recording.read_bytes())
    choose = random.Random(recording.name)
    for _ in range(DAMAGED_BYTES):
        content[choose.randrange(len(content) // 10, len(content) // 2)] = choose.randrange(256)
    copy.write_bytes(content)
    return copy


if __name__ == "__main__":
    main()
