"""Each change of the model in use is in the log of the store, whoever made it, and whatever ended the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import sqlalchemy as sa
from stations import Station, running

from capsule_edge.runtime.errors import ModelError
from capsule_edge.workstation.jobs import Limits, check_model_apart
from capsule_edge.workstation.models import ModelFolder, check_model
from capsule_edge.workstation.readings import verify_database
from capsule_edge.workstation.service import model_log
from capsule_edge.workstation.store import log


def logged(station: Station) -> list[tuple[str, str]]:
    with station.workstation.database.reading() as connection:
        rows = connection.execute(sa.select(log.c.action, log.c.after).order_by(log.c.sequence))
        return [(row.action, row.after["sha256"]) for row in rows]


def test_changes_on_the_command_line_are_logged(tmp_path: Path, call: Any) -> None:
    home = ("--home", tmp_path / "home")
    # Before there is a database: the first start logs it.
    assert call("models", "use", "small", *home).code == 0
    with running(tmp_path / "home") as station:
        small, standard = (station.workstation.models.find(name).sha256 for name in ("small", "standard"))
        assert logged(station) == [("model_use", small)]
        # While the service runs.
        assert call("models", "rollback", *home).code == 0
        assert logged(station) == [("model_use", small), ("model_rollback", standard)]
        assert station.get("session")["model_sha256"] == standard
    # After it has ended.
    assert call("models", "use", "small", *home).code == 0
    with running(tmp_path / "home") as station:
        assert [after for _, after in logged(station)] == [small, standard, small]
        with station.workstation.database.reading() as connection:
            assert verify_database(connection)


def test_a_change_that_a_crash_kept_from_the_log_is_logged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    with running(tmp_path / "home") as station:
        with monkeypatch.context() as patched:
            patched.setattr(model_log, "_append", crash)
            station.refuse("POST", "models/small/use", 500)
        assert logged(station) == []
        standard = station.workstation.models.find("standard").sha256
        small = station.workstation.models.find("small").sha256
        station.send("POST", "models/rollback", 200)
        assert [after for _, after in logged(station)] == [small, standard]
    with running(tmp_path / "home") as station:
        assert [after for _, after in logged(station)] == [small, standard]


def test_a_model_that_is_gone_is_told_and_not_replaced(tmp_path: Path, red_model: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    standard = folder.in_use.sha256
    red = folder.use(folder.add(red_model).sha256).after
    # The model before is kept: a later installation may ship another one.
    assert (tmp_path / "models" / f"{standard}.onnx").exists()
    index = tmp_path / "models" / "models.json"
    document = json.loads(index.read_text("utf-8"))
    document["history"][-1]["before"] = "0" * 64
    index.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ModelError, match="000000000000 is not there"):
        folder.roll_back()
    assert folder.in_use.sha256 == red
    assert folder.document()["history"] == document["history"]
    document["in_use"] = "1" * 64
    index.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ModelError, match="111111111111, is not there"):
        _ = folder.in_use
    assert not any(model["in_use"] for model in folder.document()["models"])
    assert folder.use("small").before == "1" * 64
    assert folder.in_use.shipped == "small"


def test_an_uploaded_model_is_checked_in_a_process_under_limits(tmp_path: Path, red_model: Path) -> None:
    limits = Limits(memory_bytes=4 << 30, seconds=120)
    assert check_model_apart(red_model, limits) == check_model(red_model)
    broken = tmp_path / "model"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError) as caught:
        check_model_apart(broken, limits)
    assert str(tmp_path) not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(ModelError, match="took too long"):
        check_model_apart(red_model, Limits(memory_bytes=4 << 30, seconds=0.01))
