"""The documents, the metadata and the layout of the project agree with each other and with the code."""

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
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
DOCS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))
}
# The log names modules as they were called on the day of an entry.
CURRENT = {name: text for name, text in DOCS.items() if not name.startswith("docs/log/")}
LINE_LENGTH = 100
PACKAGES = ("runtime", "evaluation", "train", "export", "benchmarks", "workstation", "archive", "cli")


def setup() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(ROOT / "setup.cfg", encoding="utf-8")
    return parsed


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def calls(*texts: str) -> list[list[str]]:
    """Return the arguments of each ``capsule-edge`` command in the shell blocks of the documents."""
    found = []
    for line in "".join("".join(blocks("sh", text)) for text in texts).splitlines():
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


def test_the_readme_is_short_and_in_order() -> None:
    assert len(README.splitlines()) <= 130
    heads = [line for line in README.splitlines() if line.startswith("#")]
    assert heads[0] == "# capsule-edge"
    assert [len(blocks(language)) for language in ("sh", "python")] == [3, 1]
    assert len(blocks("python")[0].splitlines()) == 6
    marks = [
        README.index(f"<!-- {name} -->") for name in ("findings", "/findings", "performance", "/performance")
    ]
    assert marks == sorted(marks)


def test_the_documents_show_every_command() -> None:
    assert {call[0] for call in calls(README, *CURRENT.values())} == set(COMMANDS)
    assert {"run", "train", "export", "compare", "bench"} <= {call[0] for call in calls(README)}


@pytest.mark.parametrize("call", calls(README, *CURRENT.values()), ids=" ".join)
def test_a_command_of_the_documents_parses(call: list[str]) -> None:
    """Every option exists and every argument fits. Nothing is read or run."""
    command, words = subcommand(call[0]), call
    if isinstance(command, click.Group):
        inner = command.get_command(click.Context(command), call[1])
        assert inner is not None, f"no command {call[1]!r} of {call[0]!r}"
        command, words = inner, call[1:]
    context = command.make_context(words[0], words[1:])
    assert context.params


def test_a_module_that_the_documents_run_is_there() -> None:
    others = [ROOT / "models" / "training" / "README.md", *(ROOT / ".ci").glob("*"), *ROOT.rglob("*/*.py")]
    texts = [README, *DOCS.values()]
    texts += [path.read_text("utf-8") for path in others if "build" not in path.relative_to(ROOT).parts]
    modules = set(re.findall(r"python -m (capsule_edge[a-z0-9_.]+[a-z0-9_])", "".join(texts)))
    assert {"capsule_edge.benchmarks.latency", "capsule_edge.train.models.pretrained"} <= modules
    assert {name for name in modules if find_spec(name) is None} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_with_an_example(name: str) -> None:
    command = subcommand(name)
    # With the settings of the command: click keeps the help option of the first context.
    text = command.get_help(
        click.Context(command, info_name=f"capsule-edge {name}", **command.context_settings)
    )
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
    for name, text in {"README.md": README, "CHANGELOG.md": CHANGELOG, **DOCS}.items():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if "://" not in target:
                assert ((ROOT / name).parent / target).exists(), f"{name} points to {target}"


def prose(text: str) -> list[tuple[int, str]]:
    """Return the numbered lines that can be wrapped: no code, tables, images or generated parts."""
    text = re.sub(
        r"^<!-- (\w+) -->$.*?^<!-- /\1 -->$",
        lambda m: "\n" * m[0].count("\n"),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    text = re.sub(r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    lines = enumerate(text.splitlines(), 1)
    return [(number, line) for number, line in lines if not re.match(r"\s*(\||!\[|:::)", line)]


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", *CURRENT])
def test_prose_wraps(name: str) -> None:
    text = {"README.md": README, "CHANGELOG.md": CHANGELOG, **CURRENT}[name]
    long = {number: line for number, line in prose(text) if len(line) > LINE_LENGTH and " " in line.strip()}
    assert long == {}


def test_the_api_reference_lists_the_public_names() -> None:
    listed = re.findall(r"^::: capsule_edge\.runtime\.(\w+)$", DOCS["docs/api.md"], re.MULTILINE)
    assert sorted([*listed, "__version__"]) == sorted(runtime.__all__)


def test_the_site_has_every_document() -> None:
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [name for name in DOCS if name.removeprefix("docs/") not in site] == []


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


def doubled(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def describes_json(node: ast.ClassDef) -> bool:
    """Return whether a class describes JSON of the service: OpenAPI shows its name, so it is the plain one."""
    return any(ast.unparse(base) in ("BaseModel", "_Document", "Folder") for base in node.bases)


def test_public_class_names_are_unique() -> None:
    found: dict[str, list[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not describes_json(node):
                found.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert doubled(found) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_module_names_are_unique_in_a_package(package: str) -> None:
    """Only the parallel rooms ``fp32`` and ``int8`` of export have the same modules."""
    found: dict[str, list[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        if not path.stem.startswith("__") and path.parent.name != "int8":
            found.setdefault(path.stem, []).append(path.relative_to(ROOT).as_posix())
    assert doubled(found) == {}


def test_every_module_that_a_text_names_is_there() -> None:
    """Paths such as ``runtime/reader.py`` and names such as ``train.gpu`` in documents and docstrings."""
    absent = set()
    sources = {
        path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")
    }
    texts = dict(CURRENT) | {
        name: (ROOT / name).read_text("utf-8") for name in sources if name.endswith(".py")
    }
    texts.pop("CHANGELOG.md", None)  # names what was removed
    places = "|".join(PACKAGES)
    for name, text in texts.items():
        for path in re.findall(rf"(?<![\w/.-])((?:{places})/[\w/]+\.py)\b", text):
            if path not in sources:
                absent.add(f"{name}: {path}")
        for module in re.findall(rf"`((?:{places})\.(?!html|json|csv|sqlite)[a-z_.]+)`", text):
            parts = module.split(".")
            heads = ["/".join(parts[:end]) for end in range(2, len(parts) + 1)]
            if not any(f"{head}.py" in sources or f"{head}/__init__.py" in sources for head in heads):
                absent.add(f"{name}: {module}")
    assert absent == set()


def lengths() -> dict[str, int]:
    """The lines of each function, without its docstring and decorators."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node, clean=False) is not None
                text = first.end_lineno - first.lineno + 1 if documented else 0
                name = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
                found[name] = node.end_lineno - node.lineno + 1 - text
    return found


def test_a_function_fits_a_screen() -> None:
    found = lengths()
    short = sum(lines <= 25 for lines in found.values())
    assert short / len(found) >= 0.9
    assert {name: lines for name, lines in found.items() if lines > 60} == {}


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
    names = {re.split(r"[<>=;!~ \[]", line)[0] for line in lines if line and not line.startswith("%")}
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
            name, bounds = re.match(r"([\w-]+)(?:\[\w+\])?(.*?)(;|$)", line).group(1, 2)
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
    heads = [line for line in CHANGELOG.splitlines() if line.startswith("## ")]
    assert heads[0] == "## Unreleased"
