"""The wheel installs every module and every data file of the packages, and nothing else."""

from __future__ import annotations

from importlib import metadata
from pathlib import PurePosixPath

import pytest
from paths import ROOT

PACKAGES = ("runtime", "evaluation", "train", "export", "benchmarks", "workstation", "archive", "cli")
# Made by benchmarks on one machine and read by no module.
NOT_INSTALLED = ("benchmarks/results/",)


def installed() -> set[str]:
    """Return the files of the installed wheel, as paths below the project's root."""
    # A build leaves an egg-info folder in the tree, which is another distribution of the same name without a RECORD.
    wheels = [one for one in metadata.distributions(name="capsule-edge") if one.read_text("RECORD")]
    found = {PurePosixPath(file.as_posix()) for one in wheels[:1] for file in one.files or ()}
    ours = {path for path in found if path.parts[0] == "capsule_edge" and "__pycache__" not in path.parts}
    if not ours:
        pytest.skip("the package is installed editable, so there is no wheel to look into")
    return {"/".join(path.parts[1:]) for path in ours}


def in_the_tree() -> set[str]:
    paths = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {path for path in paths if not path.startswith(NOT_INSTALLED)}


def test_the_wheel_holds_every_module_and_asset() -> None:
    assert installed() == in_the_tree()
