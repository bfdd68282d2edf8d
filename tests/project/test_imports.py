"""Imports between packages follow the table in the design; an import takes little time."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

import capsule_edge.runtime as runtime

# Each package, and which of ours it may import beside itself.
MAY_IMPORT = {
    "runtime": set(),
    "evaluation": {"runtime"},
    "train": {"runtime", "evaluation"},
    "export": {"runtime", "evaluation", "train"},
    "benchmarks": {"runtime", "evaluation", "workstation", "archive"},
    "workstation": {"runtime", "evaluation"},
    "archive": {"runtime", "evaluation"},
    "cli": {"runtime", "evaluation", "train", "export", "benchmarks", "workstation", "archive"},
}
TENSORFLOW = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization"}
# What the plain install brings; all else that the runtime imports must be of the standard library.
PLAIN = {"numpy", "cv2", "onnxruntime", "av", "click", "rich", "jinja2", "markupsafe"}
# What else one module of the runtime may import, in functions: the engine or format that it is for. flatbuffers comes
# with onnxruntime, and with LiteRT.
OPTIONAL = {
    "openvino_backend": {"openvino"},
    "litert_backend": {"ai_edge_litert"},
    "tflite_metadata": {"flatbuffers"},
    "dicom_header": {"pydicom"},
    "dicom_pictures": {"pydicom"},
}
# Run in environments of others, never imported: what a user would write instead of ours.
PEER = "peer_program"
HEAVY = ("av", "cv2", "jinja2", "onnxruntime", "tensorflow", "numpy", "click", "rich")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of the modules that are imported anywhere in a source of ``package``, in functions too.

    ``package`` is that of the source, without ``capsule_edge``: ``runtime`` or ``runtime.recording``.
    """
    own = ["capsule_edge", *package.split(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*own[: len(own) - node.level + 1], *([base] if base else [])])
            # "from capsule_edge import train" names the package only in what is imported.
            yield from (
                (f"{base}.{alias.name}" for alias in node.names) if base == "capsule_edge" else (base,)
            )


def faults(source: str, package: str, module: str = "") -> list[str]:
    found = []
    allowed = PLAIN | OPTIONAL.get(module, set())
    folder = package.split(".")[0]
    for name in imported(ast.parse(source), package):
        top, *rest = name.split(".")
        if top == "capsule_edge":
            other = rest[0] if rest else ""
            if other != folder and other not in MAY_IMPORT[folder]:
                found.append(f"imports {name}")
            elif ".".join(rest) not in (package, f"{other}.errors", f"{other}.lazy") and enters_room(
                rest, package
            ):
                found.append(f"imports {name}: import the room's door")
        elif top in MAY_IMPORT:
            found.append(f"imports {name} by its folder's name")
        elif top in TENSORFLOW and folder not in ("train", "export") and module != PEER:
            found.append(f"imports {name}")
        elif folder == "runtime" and top not in allowed and top not in sys.stdlib_module_names:
            found.append(f"imports {name}, which the plain install lacks")
    return found


def enters_room(path: list[str], package: str) -> bool:
    """Return True if a module inside a room is imported from outside. A room in a room is part of the outer one."""
    depth = len(path)
    while depth and not ROOT.joinpath(*path[:depth]).is_dir():
        depth -= 1
    room = ".".join(path[:depth])
    return len(path) > depth >= 2 and package != room and not package.startswith(f"{room}.")


def package_of(path: Path) -> str:
    """The package of a source file: ``runtime/recording/gop.py`` is in ``runtime.recording``."""
    return ".".join(path.relative_to(ROOT).parent.parts)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    assert {
        path.relative_to(ROOT).as_posix(): found
        for path in modules(package)
        if (found := faults(path.read_text("utf-8"), package_of(path), path.stem))
    } == {}


@pytest.mark.parametrize("package", [package for package in MAY_IMPORT if (ROOT / package).is_dir()])
def test_there_is_something_to_look_at(package: str) -> None:
    assert modules(package)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("runtime", "from capsule_edge.evaluation import metrics"),
        ("runtime", "from capsule_edge import train"),
        ("runtime", "from ..evaluation import metrics"),
        ("runtime", "from .. import cli"),
        ("runtime", "import runtime.video"),
        ("runtime", "def f():\n    import tensorflow as tf"),
        ("runtime", "import sklearn.metrics"),
        ("runtime", "import openvino"),
        ("evaluation", "from tf_keras.layers import Dense"),
        ("evaluation", "import capsule_edge.export.bundle"),
        ("train", "from capsule_edge.export.bundle import export_run"),
        ("cli", "import tensorflow"),
        ("runtime.events", "from ..recording.gop import find_gops"),
        ("runtime.events", "from ...evaluation import metrics"),
        ("evaluation.audit", "from capsule_edge.runtime.recording.gop import find_gops"),
        ("export.adopt", "from .sources.conversion import to_onnx"),
        ("export.adopt.sources", "from ...int8.post_training import fit_ranges"),
    ],
)
def test_an_import_the_other_way_would_be_seen(package: str, source: str) -> None:
    assert faults(source, package)


def test_the_command_line_imports_lazily() -> None:
    """A command's module imports at its top the standard library, click, errors, signals, its own package."""
    for path in modules("cli"):
        top = [
            node
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for name in imported(ast.Module(top, []), "cli"):
            light = name.split(".")[0] in {*sys.stdlib_module_names, "click"}
            ours = name in ("capsule_edge.runtime.errors", "capsule_edge.runtime.termination")
            assert light or ours or name.startswith("capsule_edge.cli"), (
                f"{path.name} imports {name} before it is needed"
            )


def loaded(code: str) -> set[str]:
    """Return the heavy modules that a fresh interpreter has loaded after running ``code``."""
    # None in sys.modules makes any import of that name fail.
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(TENSORFLOW))
    ask = f"print(*(name for name in {HEAVY!r} if sys.modules.get(name)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{block}{code}\n{ask}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert loaded("import capsule_edge.runtime as r; r.__version__; r.CapsuleEdgeError; dir(r)") == set()


def test_the_help_loads_nothing_heavy() -> None:
    code = "from capsule_edge.cli.main import cli\ncli.main(['--help'], standalone_mode=False)"
    assert loaded(code) == {"click"}


def test_the_whole_runtime_does_without_tensorflow() -> None:
    names = [f"{package_of(path)}.{path.stem}" for path in modules("runtime") if path.stem != "__init__"]
    code = "".join(f"import capsule_edge.{name}\n" for name in names)
    assert loaded(code) >= {"av", "cv2", "numpy"}
    assert "runtime.reader" in names


ROOMS = sorted(path.parent for path in ROOT.glob("*/*/__init__.py") if path.parts[-3] in MAY_IMPORT)


def arrows(package: str) -> dict[str, set[str]]:
    """Return the rooms and top modules of a package, each with those of it that it imports."""
    found: dict[str, set[str]] = {}
    for path in modules(package):
        inside = path.relative_to(ROOT / package).parts
        own = inside[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imported(ast.parse(path.read_text("utf-8")), package_of(path)):
            parts = name.split(".")
            if (
                parts[:2] == ["capsule_edge", package]
                and len(parts) > 2
                and parts[2] not in (own, "errors", "lazy")
            ):
                found.setdefault(own, set()).add(parts[2])
    return found


@pytest.mark.parametrize("package", ["runtime", "evaluation", "train", "export", "archive"])
def test_rooms_import_each_other_without_a_circle(package: str) -> None:
    found = arrows(package)
    assert found

    def reach(room: str, seen: frozenset[str] = frozenset()) -> set[str]:
        further = found.get(room, set()) - seen
        return further | {name for each in further for name in reach(each, seen | further)}

    assert {room for room in found if room in reach(room)} == set()


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: f"{room.parent.name}.{room.name}")
def test_a_room_says_what_it_is_for_and_lists_its_door(room: Path) -> None:
    """The docstring, the block that type checkers read, the lazy table and ``__all__`` say the same."""
    tree = ast.parse((room / "__init__.py").read_text("utf-8"))
    text = ast.get_docstring(tree)
    assert text
    assert 1 <= len(text.splitlines()) <= 6
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    assert len(blocks) <= 1
    typed = {
        (alias.name, node.module)
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {
        (name, keyword.arg)
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        for name in ast.literal_eval(keyword.value).split()
    }
    assert lazy == typed
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert {name for name, _ in typed} == set(listed[0] if listed else [])
    # A module of the same name would hide what the door offers.
    assert {name for name, _ in typed}.isdisjoint(path.stem for path in room.glob("*.py"))


@pytest.mark.parametrize(
    ("door", "heavy"),
    [
        ("runtime.recording", {"av", "cv2", "numpy"}),
        ("runtime.preprocessing", {"av", "cv2", "numpy"}),
        ("runtime.inference", {"numpy"}),
        ("runtime.report", {"av", "cv2", "numpy"}),
        ("runtime.study", {"numpy"}),
        ("runtime.results", {"av", "cv2", "numpy"}),
    ],
)
def test_a_door_loads_what_it_needs_and_no_more(door: str, heavy: set[str]) -> None:
    assert loaded(f"from capsule_edge.{door} import *") <= heavy


def test_every_public_name_is_there() -> None:
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
        assert name in dir(runtime)
    assert len(set(runtime.__all__)) == len(runtime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Writer'"):
        runtime.Writer  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    """The block that only type checkers read, the lazy table and ``__all__`` say the same."""
    tree = ast.parse((ROOT / "runtime" / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        (alias.name, node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.keywords)
    lazy = {
        (name, keyword.arg) for keyword in call.keywords for name in ast.literal_eval(keyword.value).split()
    }
    assert typed == lazy
    assert {name for name, _ in typed} | {"__version__"} == set(runtime.__all__)


def test_the_public_api() -> None:
    """Other software relies on these names; taking one away needs a new major version."""
    assert set(runtime.__all__) >= {
        *("Reader", "Prediction", "Study", "Event", "FrameRecord", "Ledger", "Source", "ModelSpec", "Label"),
        *("CapsuleEdgeError", "UsageError", "InputError", "ModelError", "BackendError", "OutputError"),
        *(
            "GateError",
            "AuditError",
            "Interrupted",
            "Terminated",
            "open_model",
            "write_study",
            "study_document",
        ),
        "__version__",
    }
