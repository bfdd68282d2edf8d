"""Models that several modules of these tests need: each is built, quantised and exported once.

The RUN folders are shared. A test that changes one copies it first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Return a function from an architecture, a size and ``safe`` to a RUN folder, which it writes once.

    Beside the architectures of the project it knows ``short_mobilenet``.
    """
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from quantised_models import short_mobilenet, write_run

    from capsule_edge.train.models import architectures

    @cache
    def make(architecture: str = "plain_cnn", size: int = 64, safe: bool = True) -> Path:
        folder = tmp_path_factory.mktemp(architecture) / "run"
        return write_run(folder, architecture, size, saturation_safe=safe)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.ARCHITECTURES, "short_mobilenet", short_mobilenet)
        yield make


@pytest.fixture(scope="session", params=["plain_cnn", "short_mobilenet"])
def exported(
    request: pytest.FixtureRequest, make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A saturation-safe RUN and its export (``quantised_models.Exported``)."""
    from quantised_models import Exported

    from capsule_edge.export.bundle import export_run
    from capsule_edge.export.int8 import read_integers
    from capsule_edge.export.run_folder import load_run

    folder = make_run(request.param)
    report = export_run(folder, tmp_path_factory.mktemp("exported") / "out")
    run = load_run(folder)
    return Exported(folder, run, read_integers(run.qat), report)


@pytest.fixture(scope="session")
def plain_run(make_run: Callable[..., Path]) -> Path:
    """The RUN folder of a plain CNN that is not saturation-safe."""
    return make_run(safe=False)


@pytest.fixture(scope="session")
def plain_export(
    plain_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    """The export of ``plain_run`` by the command line: its folder, its JSON document and its standard error."""
    from capsule_edge.cli.export import command

    out = tmp_path_factory.mktemp("plain") / "out"
    result = CliRunner().invoke(command, [str(plain_run), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout), result.stderr


@pytest.fixture(scope="session")
def plain_out(plain_export: tuple[Path, dict[str, Any], str]) -> Path:
    """The folder of ``plain_export``."""
    return plain_export[0]
