"""Archives of made-up results, as ``archive read`` leaves them, for the tests of comparisons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.archive.manifest import Manifest, Row

LABELS = ("normal", "erosion", "ulcer")
OLD, NEW = "a" * 64, "b" * 64
MODELS = {OLD: ("old", "1"), NEW: ("new", "1")}
FRAMES = 200

# Label, first and last frame (inclusive), score.
Made = tuple[str, int, int, float]


@dataclass(frozen=True)
class MadeRecording:
    """A recording of a made-up archive; its content is its name."""

    name: str
    suggestions: Sequence[Made] = ()
    site: str | None = None
    patient: str | None = None
    capsule_type: str | None = None
    warnings: Sequence[str] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def made_study(recording: MadeRecording, of_model: str, **changes: Any) -> dict[str, Any]:
    """Return the ``study.json`` of a result; ``changes`` replace its keys."""
    ordered = sorted(recording.suggestions, key=lambda one: -one[3])
    events = [
        {
            **{"id": number, "label": label, "role": "finding", "start_index": first, "end_index": last},
            **{"start_s": first * 0.5, "end_s": (last + 1) * 0.5, "peak_index": first, "peak_s": first * 0.5},
            **{"peak_p": 0.9, "frames": last - first + 1},
        }
        for number, (label, first, last, _) in enumerate(ordered, 1)
    ]
    suggestions = [
        {
            **{"id": number, "label": label, "events": [number], "score": score, "precision": None},
            **{"alternatives": [], "similar": 0},
        }
        for number, (label, _, _, score) in enumerate(ordered, 1)
    ]
    name, version = MODELS.get(of_model, ("other", "1"))
    return {
        "tool": {"version": "1.0", "options": {"every": 1}},
        "source": {"name": recording.name, "sha256": recording.sha256, "field_of_view": None},
        "model": {
            **{"name": name, "version": version, "precision": "int8", "sha256": of_model},
            "backend": "onnxruntime",
        },
        "ledger": {"container": FRAMES},
        "rules": {"thresholds": {"normal": None, "erosion": 0.5, "ulcer": 0.5}},
        "events": events,
        "suggestions": suggestions,
        "warnings": [{"code": code, "message": code} for code in recording.warnings],
        **changes,
    }


def result_key(recording: MadeRecording, model: str) -> str:
    return hashlib.sha256(f"{recording.name} {model}".encode()).hexdigest()


def result_folder(archive: Path, recording: MadeRecording, model: str) -> Path:
    key = result_key(recording, model)
    return archive / "results" / key[:2] / key


def write_archive(
    archive: Path,
    recordings: Sequence[MadeRecording],
    model: str,
    *,
    changes: Mapping[str, Any] | None = None,
    at: str = "2026-11-30T00:00:00Z",
) -> Path:
    """Add the results of a model to an archive."""
    manifest = Manifest(archive)
    manifest.begin()
    rows = []
    for recording in recordings:
        folder = result_folder(archive, recording, model)
        folder.mkdir(parents=True)
        study = made_study(recording, model, **(changes or {}))
        (folder / "study.json").write_text(json.dumps(study), "utf-8")
        (folder / "frames.csv").write_text(_frames(recording), "utf-8")
        rows.append(
            Row(
                recording=f"/recordings/{recording.name}",
                **{"site": recording.site, "patient": recording.patient},
                capsule_type=recording.capsule_type,
                state="read",
                sha256=recording.sha256,
                model_sha256=model,
                identity="",
                version="1.0",
                options="{}",
                key=folder.name,
                frames=FRAMES,
                recorded_at=at,
            )
        )
    manifest.append(rows)
    return archive


def _frames(recording: MadeRecording) -> str:
    """Return a ``frames.csv`` in which the label of a suggestion is likely in its frames."""
    rows = ["index,pts,time_s,status,duplicate_of,detail,label,p_normal,p_erosion,p_ulcer"]
    labels = ["normal"] * FRAMES
    for label, first, last, _ in recording.suggestions:
        labels[first : last + 1] = [label] * (last + 1 - first)
    for index, label in enumerate(labels):
        p = [0.8 if key == label else 0.1 for key in LABELS]
        rows.append(f"{index},{index},{index / 2},classified,,,{label},{p[0]},{p[1]},{p[2]}")
    return "\n".join(rows) + "\n"


def write_marks(folder: Path, recording: MadeRecording, findings: Sequence[tuple[str, int, int]]) -> None:
    """Write the truth table of a recording: label, first and last frame of each finding."""
    labels = ["Normal"] * FRAMES
    for label, first, last in findings:
        labels[first : last + 1] = [label] * (last + 1 - first)
    rows = ["index,label", *(f"{index},{label}" for index, label in enumerate(labels))]
    folder.mkdir(exist_ok=True)
    (folder / f"{Path(recording.name).stem}.truth.csv").write_text("\n".join(rows) + "\n", "utf-8")
