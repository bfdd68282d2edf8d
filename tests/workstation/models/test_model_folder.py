"""The models of a workstation: list, add, use, roll back, over Python, the command line and HTTP."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the extra [serve] is not installed")
pytest.importorskip("alembic", reason="the extra [serve] is not installed")

from capsule_edge.runtime.errors import ModelError, UsageError
from capsule_edge.runtime.inference import default_model
from capsule_edge.workstation.models import ModelFolder


def test_the_shipped_models_are_listed_and_the_standard_one_is_used(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    assert [model.shipped for model in folder.list()] == ["standard", "small"]
    assert folder.in_use.shipped == "standard"
    assert not (tmp_path / "models").exists()
    with pytest.raises(UsageError, match="no earlier model"):
        folder.roll_back()


def test_a_model_is_added_used_and_rolled_back(tmp_path: Path, red_model: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    added = folder.add(red_model)
    assert folder.add(red_model) == added
    assert (added.name, folder.in_use.shipped) == ("red", "standard")
    assert (tmp_path / "models" / added.file).read_bytes() == red_model.read_bytes()
    change = folder.use(added.sha256[:10])
    assert (change.after, folder.in_use) == (added.sha256, added)
    folder.use("small")
    # Another process, or a later start, sees the same.
    again = ModelFolder(tmp_path / "models")
    assert again.in_use.shipped == "small"
    assert again.roll_back().after == added.sha256
    assert again.roll_back().after == folder.find("standard").sha256
    with pytest.raises(UsageError):
        again.roll_back()
    assert [model.name for model in folder.list()][-1] == "red"


def test_a_shipped_model_is_kept_when_it_has_read_something(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    path = folder.path_of(folder.find("small").sha256)
    assert path.parent == tmp_path / "models"
    assert path.read_bytes() == default_model("small").read_bytes()
    assert [model.shipped for model in folder.list()] == ["standard", "small"]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="was changed"):
        folder.path_of(folder.find("small").sha256)
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        folder.path_of(folder.find("small").sha256)


@pytest.mark.parametrize("content", [b"", b"no model" * 100, b"\x08\x07"])
def test_files_that_are_no_model_are_not_added(tmp_path: Path, content: bytes) -> None:
    folder = ModelFolder(tmp_path / "models")
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError):
        folder.add(tmp_path / "x.onnx")
    assert len(folder.list()) == 2


def test_unknown_names_and_a_damaged_index_are_told(tmp_path: Path, red_model: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    with pytest.raises(ModelError, match="known are standard, small"):
        folder.use("large")
    folder.add(red_model)
    index = tmp_path / "models" / "models.json"
    for text in ("{", "[]", '{"schema": "other/9", "in_use": ""}', '{"schema": "capsule-edge/models/1"}'):
        index.write_text(text)
        with pytest.raises(ModelError, match=r"models\.json"):
            folder.list()


def test_threads_that_add_models_at_once_lose_none(tmp_path: Path, red_model: Path, model: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    threads = [threading.Thread(target=folder.add, args=(path,)) for path in (red_model, model) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.name for each in folder.list()[2:]) == ["red", "tiny"]


def test_the_command_line_changes_the_same_folder(tmp_path: Path, red_model: Path, call: Any) -> None:
    home = ("--home", tmp_path / "home")
    listed = call("models", *home, "--json")
    assert listed.code == 0
    assert [model["shipped"] for model in json.loads(listed.out)["models"]] == ["standard", "small"]
    added = call("models", "add", red_model, *home)
    assert added.code == 0
    assert "added: " in added.out
    used = json.loads(call("models", "use", "small", *home, "--json").out)
    assert [model["in_use"] for model in used["models"]] == [False, True, False]
    assert call("models", "rollback", *home).code == 0
    assert ModelFolder(tmp_path / "home" / "models").in_use.shipped == "standard"
    refused = call("models", "rollback", *home)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert call("models", "use", "nothing", *home).code == 1


def test_models_over_http(tmp_path: Path, red_model: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
    pytest.importorskip("httpx2", reason="httpx2 is not installed")
    import sqlalchemy as sa
    from stations import running

    from capsule_edge.workstation.store import log

    with running(tmp_path / "home") as station:
        added = station.send("POST", "models", 201, content=red_model.read_bytes())
        sha256 = added["models"][-1]["sha256"]
        used = station.send("POST", f"models/{sha256}/use", 200)
        assert [model["in_use"] for model in used["models"]] == [False, False, True]
        assert used["history"][-1]["after"] == sha256
        assert station.get("session")["model_sha256"] == sha256
        assert station.send("POST", "models/rollback", 200)["models"][0]["in_use"]
        station.refuse("POST", "models/rollback", 422)
        station.refuse("POST", "models/nothing/use", 422)
        station.refuse("POST", "models", 422, content=b"no model")
        assert not list((tmp_path / "home" / "uploads").iterdir())
        with station.workstation.database.reading() as connection:
            actions = connection.execute(sa.select(log.c.action, log.c.model_sha256)).all()
    standard = used["models"][0]["sha256"]
    assert [tuple(row) for row in actions] == [("model_use", sha256), ("model_rollback", standard)]
