"""Read a label map: a YAML file that says which class names of a data set are which labels.

    healthy:
      role: normal
    "HP+": {key: hp_positive, name: Helicobacter positive}
    Polyp small: polyp          # the same key: both are one class
    Polyp large: polyp
    blurred: {exclude: true}    # these frames are left out

A name that the map does not list keeps the key that ``label_key`` gives it. The keys of a map are names too: a table
that ``capsule-edge split --labels`` wrote is read with the same map.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import Role

from .._extras import require
from .label_keys import label_key, plain_key
from .table_rows import is_missing

__all__ = ["LabelEntry", "LabelMapping", "read_label_map"]

_FIELDS = ("key", "name", "role", "exclude")
_MOST_BYTES = 1 << 20
_EXAMPLE = 'two lines for each class: "healthy:" and "  role: normal"; other fields are key, name and exclude'


@dataclass(frozen=True)
class LabelEntry:
    """One class name of a label map.

    Attributes:
        key: The label key.
        name: The display name, None if the map gives none.
        role: The role, None if the map gives none.
        excluded: Whether frames of this name are left out.
    """

    key: str
    name: str | None = None
    role: Role | None = None
    excluded: bool = False


@dataclass(frozen=True)
class LabelMapping:
    """A label map: the entries by class name, as the file has them.

    Attributes:
        path: The file.
        entries: The entries by class name.
    """

    path: Path
    entries: Mapping[str, LabelEntry]

    def entry_of(self, name: str) -> LabelEntry | None:
        """Return the entry of a class name in any Unicode form, or of a key; None if the map does not list it."""
        if name in self.entries:
            return self.entries[name]
        # macOS names folders in another Unicode form than editors write.
        plain = unicodedata.normalize("NFC", name)
        same = [
            entry for other, entry in self.entries.items() if unicodedata.normalize("NFC", other) == plain
        ]
        if len(same) == 1:
            return same[0]
        if name in self.keys:
            return LabelEntry(name, self.name_of(name), self.roles.get(name))
        return None

    def lists(self, name: str) -> bool:
        """Return whether the map lists a class name just as it is written, and not only as a key."""
        return name in self.entries

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the classes that are not excluded."""
        return frozenset(entry.key for entry in self.entries.values() if not entry.excluded)

    @property
    def roles(self) -> dict[str, Role]:
        """The roles that the map states, by key."""
        return {e.key: e.role for e in self.entries.values() if e.role is not None and not e.excluded}

    def name_of(self, key: str) -> str | None:
        """Return the display name that the map states for a key."""
        return next((e.name for e in self.entries.values() if e.key == key and e.name), None)


def read_label_map(path: str | Path) -> LabelMapping:
    """Read a label map.

    Raises:
        InputError: The file cannot be read, is not YAML, or an entry does not make sense; the message has its line.
        PackageError: PyYAML is not installed.
    """
    path = Path(path)
    entries: dict[str, LabelEntry] = {}
    for name, name_line, node in _pairs(path, _root(path)):
        if name in entries:
            raise InputError(
                f"{path} line {name_line} lists {name!r} a second time", hint="leave one of them out"
            )
        if not name:
            raise InputError(f"{path} line {name_line} lists a class without a name", hint=_EXAMPLE)
        entries[name] = _entry(path, name, name_line, node)
    if not entries:
        raise InputError(f"the label map {path} lists no class", hint=_EXAMPLE)
    _check_merges(path, entries)
    return LabelMapping(path, entries)


def _root(path: Path) -> Any:
    """Return the root node of a YAML file. Nodes keep scalars as text: ``no`` and ``1.0`` are names like any other."""
    require("yaml", what="a label map")
    import yaml

    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise InputError(f"the label map {path} has {len(data)} bytes, allowed are {_MOST_BYTES}")
        return yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise InputError(f"the label map {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"the label map {path} is not UTF-8 (byte {error.start})") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise InputError(f"{path}{where} is not YAML: {problem}", hint=_EXAMPLE) from None


def _pairs(path: Path, node: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield the name, its line and the value's node for each pair of a mapping node."""
    import yaml

    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path} line {node.start_mark.line + 1} must list classes by name", hint=_EXAMPLE)
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{path} line {line}: a name must be text", hint=_EXAMPLE)
        yield str(key.value).strip(), line, value


def _entry(path: Path, name: str, line: int, node: Any) -> LabelEntry:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        text = str(node.value).strip()
        return LabelEntry(_checked_key(path, line, text) if text else _derived_key(path, line, name))
    fields: dict[str, str] = {}
    for field, field_line, value in _pairs(path, node):
        if field not in _FIELDS or field in fields or not isinstance(value, yaml.ScalarNode):
            fault = "has twice the" if field in fields else "has the"
            raise InputError(
                f"{path} line {field_line}: {name!r} {fault} field {field!r}, allowed is each of "
                f"{', '.join(_FIELDS)} once, with a text",
                hint=_EXAMPLE,
            )
        fields[field] = str(value.value).strip()
    return _from_fields(path, name, line, fields)


def _from_fields(path: Path, name: str, line: int, fields: Mapping[str, str]) -> LabelEntry:
    role, exclude = fields.get("role"), fields.get("exclude", "false").lower()
    if role is not None and role not in get_args(Role):
        raise InputError(
            f"{path} line {line}: the role of {name!r} is {role!r}, allowed is one of {', '.join(get_args(Role))}"
        )
    if exclude not in ("true", "false"):
        raise InputError(f"{path} line {line}: exclude of {name!r} is {exclude!r}, allowed is true or false")
    if exclude == "true":
        if len(fields) > 1:
            raise InputError(f"{path} line {line}: {name!r} is excluded, so it has no key, name or role")
        return LabelEntry("", excluded=True)
    key = _checked_key(path, line, fields["key"]) if "key" in fields else _derived_key(path, line, name)
    shown = fields.get("name")
    if shown is not None and not shown:
        raise InputError(f"{path} line {line}: the name of {name!r} is empty")
    return LabelEntry(key, shown, cast(Role | None, role))


def _checked_key(path: Path, line: int, key: str) -> str:
    if not key or plain_key(key) != key or is_missing(key):
        example = "small_polyp" if is_missing(plain_key(key)) else plain_key(key)
        raise InputError(
            f"{path} line {line}: the key {key!r} is not allowed, a key has lower-case letters and digits, with _ "
            "between words, and is no word for a missing value",
            hint=f"for instance {example}",
        )
    return key


def _derived_key(path: Path, line: int, name: str) -> str:
    key = label_key(name)
    if is_missing(key):
        raise InputError(f"{path} line {line}: no key follows from {name!r}", hint="give it a field key")
    return key


def _check_merges(path: Path, entries: Mapping[str, LabelEntry]) -> None:
    """Refuse classes of one key with different names or roles, and keys that share a display name."""
    first: dict[str, dict[str, str]] = {"name": {}, "role": {}}
    for name, entry in entries.items():
        for field in ("name", "role"):
            value = getattr(entry, field)
            stated = first[field].setdefault(entry.key, value) if value is not None else value
            if stated != value:
                raise InputError(
                    f"{path}: the key {entry.key} has the {field}s {stated!r} and {value!r} (in {name!r})",
                    hint=f"give the {field} once, or different keys",
                )
