"""Write the right answers of golden frames beside model files.

    python -m capsule_edge.export.tools.golden MODEL...

Into each folder's ``golden.json``, one entry for each MODEL by its SHA-256; entries of files that are no longer there
are dropped. Nothing is written unless the backend that a user runs gives the same answers here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capsule_edge.evaluation._module import run_module
from capsule_edge.runtime.diagnostics import (
    GOLDEN_FILE,
    SCHEMA,
    Golden,
    entry_of,
    golden_frames,
    replay,
    work_out,
)
from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import find_format, open_model, readers_of

__all__ = ["write_golden"]


def write_golden(models: Sequence[Path]) -> list[Path]:
    """The files written. Raises ``ModelError`` when an engine does not give the answers that are right."""
    entries: dict[Path, dict[str, Any]] = {}
    for path in models:
        entries.setdefault(path.parent, {}).update(_entry(path))
    return [_write(folder, found) for folder, found in entries.items()]


def _entry(path: Path) -> dict[str, Any]:
    model = open_model(path, backend=readers_of(find_format(path))[0], threads=1)
    frames = golden_frames(model.spec.input)
    logits = work_out(path, frames)
    found = replay(model, frames, Golden(logits, "computed"))
    if not found.correct:
        raise ModelError(
            f"{path}: {model.name} is off the right logits by {found.off:.3g}, allowed is {found.limit:.3g}",
            hint="write golden answers on a machine that answers correctly",
        )
    return {model.sha256: entry_of(model.spec, path.name, frames, logits)}


def _write(folder: Path, found: dict[str, Any]) -> Path:
    target = folder / GOLDEN_FILE
    try:
        kept = json.loads(target.read_text("utf-8"))["models"] if target.exists() else {}
        there = {hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}
        models = {sha256: entry for sha256, entry in {**kept, **found}.items() if sha256 in there}
        ordered = dict(sorted(models.items(), key=lambda item: str(item[1]["file"])))
        # A row of logits on a line: the file stays readable and its differences small.
        lines = [f'{{"schema": {json.dumps(SCHEMA)}, "models": {{']
        for at, (sha256, entry) in enumerate(ordered.items()):
            facts = ", ".join(
                f"{json.dumps(key)}: {json.dumps(entry[key])}" for key in entry if key != "logits"
            )
            rows = ",\n".join(f" {json.dumps(row)}" for row in entry["logits"])
            end = "}" if at == len(ordered) - 1 else "},"
            lines.append(f'{json.dumps(sha256)}: {{{facts}, "logits": [\n{rows}]{end}')
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        temporary.write_text("\n".join([*lines, "}}"]) + "\n", "utf-8")
        os.replace(temporary, target)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{target} cannot be read or written: {error}") from None
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.export.tools.golden", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, help="model files, ONNX or TFLite")
    for path in write_golden(parser.parse_args(arguments).models):
        print(path)


if __name__ == "__main__":
    run_module(main)
