"""What holds the project together: the documents, the metadata and the layout say the same."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
from importlib import metadata
from importlib.util import find_spec

import click
import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from paths import ROOT

import capsule_edge.runtime as runtime
from capsule_edge.cli.main import COMMANDS, cli

README = (ROOT / "README.md").read_text("utf-8")
PACKAGES = ("runtime", "evaluation", "train", "export", "benchmarks", "cli")


def setup() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(ROOT / "setup.cfg", encoding="utf-8")
    return parsed


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def calls() -> list[list[str]]:
    """The words behind each ``capsule-edge`` in the README's shell blocks, up to what ends the command."""
    found = []
    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line, comments=True)
        for at, word in enumerate(words):
            if word == "capsule-edge":
                rest = words[at + 1 :]
                ends = [i for i, other in enumerate(rest) if other in ("&&", "||", "|", ";", ">")]
                found.append(rest[: min(ends, default=len(rest))])
    return found


def subcommand(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"no command {name!r}"
    return command


def test_the_readme_has_the_two_commands_of_a_fresh_machine() -> None:
    lines = README.splitlines()
    assert "pip install . && capsule-edge run --demo" in lines
    assert "pip install '.[dev]' && pytest" in lines


def test_the_readme_shows_every_command() -> None:
    assert {call[0] for call in calls()} == set(COMMANDS)


@pytest.mark.parametrize("call", calls(), ids=" ".join)
def test_a_command_of_the_readme_parses(call: list[str]) -> None:
    """Every option is known and every argument fits. Nothing is read or run."""
    command = subcommand(call[0])
    context = command.make_context(call[0], call[1:])
    assert context.params


def test_a_module_that_the_documents_run_is_there() -> None:
    text = README + "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    modules = set(re.findall(r"python -m ([a-z_.]+)", text))
    assert "capsule_edge.benchmarks.latency" in modules
    assert {name for name in modules if find_spec(name) is None} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_with_an_example(name: str) -> None:
    command = subcommand(name)
    text = command.get_help(click.Context(command, info_name=f"capsule-edge {name}"))
    assert f"capsule-edge {name} " in text.split("Example", 1)[1]
    assert "--json" in text


@pytest.mark.parametrize("code", blocks("python"))
def test_the_readme_imports_what_is_there(code: str) -> None:
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        assert node.module == "capsule_edge.runtime"
        assert {alias.name for alias in node.names} <= set(runtime.__all__)


def test_every_file_that_the_documents_point_to_is_there() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} points to {target}"


def test_packages_are_the_folders() -> None:
    options = setup()["options"]
    folders = {
        "capsule_edge." + ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert sorted(options["packages"].split()) == sorted(folders)
    folders = dict(line.split(" = ") for line in options["package_dir"].strip().splitlines())
    assert folders == {f"capsule_edge.{name}": name for name in PACKAGES}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in setup()["options.package_data"][f"capsule_edge.{package}"]


def test_there_is_one_version() -> None:
    version = setup()["metadata"]["version"]
    assert metadata.version("capsule-edge") == version
    assert runtime.__version__ == version


def test_the_licences_travel_with_the_package() -> None:
    files = setup()["metadata"]["license_files"].split()
    assert files == ["LICENSE", "THIRD_PARTY_LICENSES.md"]
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    told = metadata.metadata("capsule-edge")
    assert told.get_all("License-File") == files
    assert "Apache-2.0" in (told["License-Expression"] or told["License"])


def test_every_dependency_has_its_licence_named() -> None:
    parsed = setup()
    lines = parsed["options"]["install_requires"].splitlines()
    for extra, needs in parsed["options.extras_require"].items():
        lines += needs.splitlines() if extra else []
    names = {re.split(r"[<>=;!~ ]", line)[0] for line in lines if line and not line.startswith("%")}
    listed = (ROOT / "THIRD_PARTY_LICENSES.md").read_text("utf-8")
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", listed)} == set()


def requirements() -> dict[str, str]:
    """The version bounds of every direct dependency, by name."""
    parsed = setup()
    lines = parsed["options"]["install_requires"].splitlines()
    for extra, needs in parsed["options.extras_require"].items():
        lines += needs.splitlines() if extra else []
    found = {}
    for line in lines:
        if line and not line.startswith("%"):
            name, bounds = re.match(r"([\w-]+)(.*?)(;|$)", line).group(1, 2)
            found[name.replace("_", "-").lower()] = bounds.strip()
    return found


def pinned(name: str) -> dict[str, list[str]]:
    """The versions that a constraints file names for each package, one for each range of Python versions."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "constraints" / name).read_text("utf-8").splitlines():
        if not line.startswith("#"):
            package, version = line.split(";")[0].strip().split("==")
            found.setdefault(package, []).append(version)
    return found


@pytest.mark.parametrize("name", ["lowest.txt", "newest.txt"])
def test_constraints_fit_the_bounds(name: str) -> None:
    versions = pinned(name)
    for package, bounds in requirements().items():
        assert re.search(r">=.*,<", bounds), f"{package} has no bound on both sides: {bounds}"
        assert all(version in SpecifierSet(bounds) for version in versions[package]), package


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    versions = pinned("lowest.txt")
    for package, bounds in requirements().items():
        lowest = Version(re.search(r">=([\d.]+)", bounds).group(1))
        assert any(
            Version(version).release[:2] == (*lowest.release, 0)[:2] for version in versions[package]
        ), package


def test_the_changelog_has_its_unreleased_head() -> None:
    heads = [
        line for line in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines() if line.startswith("## ")
    ]
    assert heads[0] == "## Unreleased"
