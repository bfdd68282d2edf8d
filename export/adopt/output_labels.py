"""Read the labels of a classifier's outputs: a YAML list, or a mapping from the output's number.

- normal
- {key: polyp, name: Polyp, role: finding}

0: normal
1: {key: z_line, role: landmark}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

from capsule_edge.evaluation._extras import require
from capsule_edge.evaluation.datasets import check_roles, known_role, label_key
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import Label, Role

__all__ = ["read_output_labels"]

_FIELDS = ("key", "name", "role")
_MOST_BYTES = 1 << 20
_EXAMPLE = 'one line for each output, in order: "- normal" or "- {key: polyp, name: Polyp, role: finding}"'

_ROLE = '"- {key: healthy, role: normal}" (or finding, landmark, quality)'


def read_output_labels(path: Path) -> tuple[Label, ...]:
    """Read the labels of the outputs, in the order of the outputs.

    An entry is a name, or has ``key``, ``name`` and ``role``. A role that is not given follows from the key as for a
    data set.

    Raises:
        InputError: The file cannot be read, or an entry does not make sense; the message names it.
        UsageError: No class is known as normal, or one may mean health, and its role is not given.
        PackageError: PyYAML is not installed.
    """
    entries = _entries(path)
    stated = [_label(path, at, entry) for at, entry in enumerate(entries)]
    labels = tuple(label for label, _ in stated)
    for field in ("key", "name"):
        values = [getattr(label, field) for label in labels]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            at = [place for place, value in enumerate(values) if value == twice]
            raise InputError(f"{path}: the outputs {at[0]} and {at[1]} have the same {field}, {twice!r}")
    try:
        check_roles(labels, {label.key for label, given in stated if given})
    except UsageError as error:
        # A data set's label map has another form.
        raise UsageError(error.message, hint=f"give that output its role in {path}, as in {_ROLE}") from None
    return labels


def _entries(path: Path) -> list[Any]:
    """Return an entry for each output."""
    document = _load(path)
    if isinstance(document, list):
        entries = document
    elif isinstance(document, dict) and all(isinstance(key, str) and key.isdecimal() for key in document):
        numbered = {int(key): value for key, value in document.items()}
        missing = sorted(set(range(len(numbered))) - set(numbered))
        if missing or len(numbered) != len(document):
            raise InputError(
                f"{path} has no label for output {missing[0]}"
                if missing
                else f"{path} lists an output twice",
                hint="number the outputs from 0 and leave none out",
            )
        entries = [numbered[at] for at in range(len(numbered))]
    else:
        raise InputError(f"{path} is neither a list nor a mapping from output numbers", hint=_EXAMPLE)
    if not entries:
        raise InputError(f"{path} lists no label", hint=_EXAMPLE)
    return entries


def _load(path: Path) -> Any:
    """Parse the file. Every scalar stays text: ``no`` is a name like any other."""
    require("yaml", what="--labels")
    import yaml

    class Loader(yaml.BaseLoader):  # type: ignore[misc]
        """A loader that refuses a key that is there twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            if len(set(map(str, keys))) != len(keys):
                raise yaml.YAMLError(f"line {node.start_mark.line + 1} has a key twice")
            return super().construct_mapping(node, deep)

    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise InputError(f"{path} has {len(data):,} bytes, allowed are {_MOST_BYTES:,}")
        return yaml.load(data.decode("utf-8-sig"), Loader=Loader)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}", hint=_EXAMPLE) from None


def _label(path: Path, at: int, entry: Any) -> tuple[Label, bool]:
    """Return a label, and whether the entry states its role."""
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict) or not entry or not set(entry) <= set(_FIELDS):
        raise InputError(
            f"{path}: output {at} is {entry!r}, allowed is a name, or {', '.join(_FIELDS)}", hint=_EXAMPLE
        )
    if not all(isinstance(value, str) and value.strip() for value in entry.values()):
        raise InputError(f"{path}: output {at} has a field that is no text: {entry!r}", hint=_EXAMPLE)
    role = entry.get("role")
    if role is not None and role not in get_args(Role):
        raise InputError(
            f"{path}: output {at} has the role {role!r}, allowed is one of {', '.join(get_args(Role))}"
        )
    key = label_key(entry.get("key") or entry.get("name", ""))
    if not key:
        raise InputError(
            f"{path}: no key follows from the name of output {at}, {entry!r}", hint="give it a key"
        )
    given = entry.get("name") if "key" in entry else None
    name = given or key.replace("_", " ").capitalize()
    return Label(key, name.strip(), cast(Role, role) if role else known_role(key)), role is not None
