"""A missing package gives the same error everywhere: exit code 1, code ``package``, and what to install."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from capsule_edge.cli.main import main


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("tensorflow", ("train", "--data", "{data}", "--out", "run"), "train"),
        ("tensorflow", ("export", "{data}", "--out", "out"), "train"),
        ("tensorflow", ("explain", "{data}", "{image}", "--out", "sheet.png", "--layers"), "train"),
        ("sklearn", ("evaluate", "{model}", "--data", "{data}"), "eval"),
        ("pydicom", ("run", "{dicom}", "--model", "{model}"), "dicom"),
    ],
)
def test_a_missing_package_is_one_kind_of_error(
    module: str,
    arguments: tuple[str, ...],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    dicom = tmp_path / "exam.dcm"
    dicom.write_bytes(bytes(128) + b"DICM")
    places = {"data": data, "image": data / "a.png", "dicom": dicom}
    places["model"] = write_tiny_model(tmp_path / "tiny.onnx")
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in [
        name for name in sys.modules if name.startswith(("capsule_edge.export", "capsule_edge.train"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([argument.format(**places) for argument in arguments] + ["--json"])
    out = capsys.readouterr().out
    error = json.loads(out)["error"]
    assert (ended.value.code, error["code"]) == (1, "package")
    assert module in error["message"]
    assert f"capsule-edge[{extra}]" in error["hint"]
