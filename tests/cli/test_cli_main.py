"""The command line as a whole: its overview, help, version, and ``python -m capsule_edge.cli``."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from cli_calls import check_refused

from capsule_edge.cli.main import COMMANDS

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_overview_lists_every_command(call, option: str) -> None:
    called = call(option)
    assert called.code == 0
    for name, line in COMMANDS.items():
        assert f"  {name} " in called.out
        assert line.split()[0] in called.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(call, name: str) -> None:
    short, long = call(name, "-h"), call(name, "--help")
    assert short.code == long.code == 0
    assert short.out == long.out
    assert f"capsule-edge {name}" in long.out.split("Example")[1]
    assert "--json" in long.out


def test_the_version_is_the_packages(call) -> None:
    called = call("--version")
    assert (called.code, called.out) == (0, f"capsule-edge, version {version('capsule-edge')}\n")


def test_an_unknown_command_is_one_line(call) -> None:
    check_refused(call("walk"), 2, "no command 'walk', the commands are run, info")


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "capsule_edge.cli"]
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("capsule-edge, version ")
    refused = subprocess.run([*command, "walk"], capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: no command 'walk'")
