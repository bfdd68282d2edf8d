"""Write the correct logits of golden frames into ``golden.json`` beside model files.

    python -m capsule_edge.export.tools.golden MODEL...

Each MODEL gets an entry under its SHA-256 in the ``golden.json`` of its folder. Entries of files that are no longer in
the folder are removed. Nothing is written unless the backend that users run gives the same logits on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
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
from capsule_edge.runtime.inference import BACKENDS, find_format, readers_of
from capsule_edge.runtime.results import write_whole

__all__ = ["write_golden"]


def write_golden(models: Sequence[Path]) -> list[Path]:
    """Write the entries of model files, and return the ``golden.json`` files written.

    Args:
        models: ONNX or TFLite files with a ModelSpec.

    Raises:
        ModelError: A file cannot be read, or an engine does not give the correct logits.
        OutputError: A ``golden.json`` cannot be written.
    """
    entries: dict[Path, dict[str, Any]] = {}
    for path in models:
        entries.setdefault(path.parent, {}).update(_entry(path))
    return [_update(folder, found) for folder, found in entries.items()]


def _entry(path: Path) -> dict[str, Any]:
    """Return a model's entry, by its SHA-256."""
    # Not open_model: it refuses an installed model that golden.json lacks, which is what this mends.
    model = BACKENDS[readers_of(find_format(path))[0]].open(path, 1)
    frames = golden_frames(model.spec.input)
    logits = work_out(path, frames)
    found = replay(model, frames, Golden(logits, "computed"))
    if not found.correct:
        raise ModelError(
            f"{path}: {model.name} differs from the correct logits by {found.off:.3g}, allowed is {found.limit:.3g}",
            hint="write golden answers on a machine that answers correctly",
        )
    return {model.sha256: entry_of(model.spec, path.name, frames, logits)}


def _update(folder: Path, found: Mapping[str, Any]) -> Path:
    """Add entries to the ``golden.json`` of a folder and remove those of files that are gone."""
    target = folder / GOLDEN_FILE
    try:
        kept = json.loads(target.read_text("utf-8"))["models"] if target.exists() else {}
        there = {hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}
        models = {sha256: entry for sha256, entry in {**kept, **found}.items() if sha256 in there}
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{target} cannot be read: {error}") from None
    write_whole(target, _to_json(models).encode("utf-8"))
    return target


def _to_json(models: Mapping[str, Any]) -> str:
    """Return the document with each frame's logits on a line: readable, and with small differences."""
    ordered = dict(sorted(models.items(), key=lambda item: str(item[1]["file"])))
    lines = [f'{{"schema": {json.dumps(SCHEMA)}, "models": {{']
    for at, (sha256, entry) in enumerate(ordered.items()):
        facts = ", ".join(f"{json.dumps(key)}: {json.dumps(entry[key])}" for key in entry if key != "logits")
        rows = ",\n".join(f" {json.dumps(row)}" for row in entry["logits"])
        end = "}" if at == len(ordered) - 1 else "},"
        lines.append(f'{json.dumps(sha256)}: {{{facts}, "logits": [\n{rows}]{end}')
    return "\n".join([*lines, "}}"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.export.tools.golden", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, help="model files, ONNX or TFLite")
    for path in write_golden(parser.parse_args(arguments).models):
        print(path)


if __name__ == "__main__":
    run_module(main)
