"""Turn the class names of a data set into label keys and roles, and refuse names that would become one key.

A key is the name in lower case with ``_`` between its words. Letters and digits of every script stay. Signs that carry
a meaning are spelled (``HP+`` is ``hp_plus``, ``<5 mm`` is ``lt_5_mm``), others separate words. Two names of one data
set never become the same key in silence: a label map has to say that they are one class.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import Label, Role

from .table_rows import is_missing

if TYPE_CHECKING:
    from .label_map import LabelMapping

__all__ = ["SYNONYMS", "LabelKeys", "check_roles", "known_role", "label_key", "plain_key", "unclear_classes"]

SYNONYMS: Mapping[str, str] = {
    "angiectasia": "angioectasia",
    "angiodysplasia": "angioectasia",
    "blood": "bleeding",
    "blood_fresh": "bleeding",
    "erythematous": "erythema",
    "foreign_bodies": "foreign_body",
    "ileo_cecal_valve": "ileocecal_valve",
    "normal_clean_mucosa": "normal",
    "polyps": "polyp",
    "ulcers": "ulcer",
    "worm": "worms",
}
"""Other names of a class in published data sets (Kvasir-Capsule, Kvasir v2, Capsule Vision), and its label key."""

_LANDMARKS = {"pylorus", "ileocecal_valve", "ampulla_of_vater", "z_line", "cecum"} | {
    "normal_z_line", "normal_pylorus", "normal_cecum",
}  # fmt: skip
_QUALITY = {"reduced_mucosal_view"}
# Names that may mean health. Whether they do, the owner of the data has to say.
_HEALTH = re.compile(
    r"(normal|healthy?|unremarkable|negative|no_(finding|lesion|abnormalit|patholog)|clean_mucosa|control)",
)
_SIGNS = {
    "+": "plus", "\N{MINUS SIGN}": "minus", "±": "plus_minus", "%": "percent",
    "<": "lt", ">": "gt", "≤": "le", "≥": "ge", "=": "eq",
}  # fmt: skip
# A hyphen that ends a name or stands before a number is a minus. Elsewhere it joins words.
_MINUS = re.compile(r"-(?=\s*$)|(?<!\S)-(?=\d)")


def label_key(name: str) -> str:
    """Return the label key of a class name: ``Foreign Bodies`` gives ``foreign_body``, ``Полип`` gives ``полип``.

    Returns:
        Letters, digits and ``_``; empty for a name without a letter, a digit or a sign that is spelled.
    """
    key = plain_key(name)
    return SYNONYMS.get(key, key)


def plain_key(name: str) -> str:
    """Return the key of a class name as ``label_key`` does, without ``SYNONYMS``. The key of a key is itself."""
    text = unicodedata.normalize("NFC", name).strip().lower()
    text = _MINUS.sub(" minus ", text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    # A vowel sign of Devanagari or Thai is a mark ("M"), and part of its word.
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else "_" for c in text)
    return unicodedata.normalize("NFC", re.sub("_+", "_", kept).strip("_"))


def known_role(key: str) -> Role:
    """Return the role of a label key of the published data sets; ``finding`` for any other key."""
    if key == "normal":
        return "normal"
    return "landmark" if key in _LANDMARKS else "quality" if key in _QUALITY else "finding"


class LabelKeys:
    """The keys of the class names of one data set, by its label map or by ``label_key``.

    Args:
        labels: The label map; None: every key follows from its name.
        published: The data set is a published one that uses several names of ``SYNONYMS`` for one class.
        whole: The names are those of a whole data set. Recordings may have a part of them: the label map may then
            name none of their classes.

    Attributes:
        excluded: The number of frames that the label map excludes.
    """

    def __init__(
        self, labels: LabelMapping | None = None, *, published: bool = False, whole: bool = True
    ) -> None:
        self._map, self.published, self._whole = labels, published, whole
        self._names: dict[str, dict[str, str]] = defaultdict(dict)
        self._key_of: dict[str, str | None] = {}
        self.excluded = 0

    def key_of(self, name: str, where: str) -> str | None:
        """Return the key of a class name, or None if the label map excludes the class (counted in ``excluded``).

        Args:
            name: The name as the data set has it.
            where: The place of the name, for messages, such as ``labels.csv line 3``.

        Raises:
            InputError: The name means "no value" (``nan``, ``NULL``), or no key follows from it.
        """
        if name not in self._key_of:
            self._key_of[name] = self._find(name, where)
        key = self._key_of[name]
        if key is None:
            self.excluded += 1
        return key

    def _find(self, name: str, where: str) -> str | None:
        entry = self._map.entry_of(name) if self._map is not None else None
        if entry is not None and entry.excluded:
            return None
        if entry is None and is_missing(name):
            raise _missing_label(name, where)
        key = label_key(name) if entry is None else entry.key
        if not key:
            raise InputError(
                f"{where}: no label key follows from the name {name!r}, which has no letter and no digit",
                hint=f"give it one in a label map (--labels map.yaml), with the line {name!r}: KEY",
            )
        self._names[key].setdefault(name, where)
        return key

    def classes(self) -> tuple[Label, ...]:
        """Return the classes that were met, sorted by key, with their display names and roles.

        Raises:
            InputError: Two names that no map merges have one key, two keys have one display name, or the map names
                none of the classes.
        """
        for key, names in sorted(self._names.items()):
            self._check_merge(key, names)
        self._check_used()
        found = tuple(self._described(key) for key in sorted(self._names))
        by_name: dict[str, str] = {}
        for label in found:
            other = by_name.setdefault(label.name.casefold(), label.key)
            if other != label.key:
                raise InputError(
                    f"the labels {other} and {label.key} have the same name, {label.name!r}",
                    hint="give one of them another name in the label map (--labels map.yaml)",
                )
        return found

    def stated_roles(self) -> frozenset[str]:
        """Return the keys whose role the label map states."""
        stated = {} if self._map is None else self._map.roles
        return frozenset(key for key in self._names if key in stated)

    def _check_merge(self, key: str, names: Mapping[str, str]) -> None:
        unlisted = [name for name in names if self._map is None or not self._map.lists(name)]
        if len(names) < 2 or not unlisted or self.published:
            return
        (one, at), (two, there) = list(names.items())[:2]
        # Two Unicode forms of one name look alike: show their code points.
        show = ascii if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", two) else repr
        raise InputError(
            f"the labels {show(one)} ({at}) and {show(two)} ({there}) would both become the key {key!r}",
            hint="give each its key in a label map (--labels map.yaml), a line \"'NAME': KEY\" for each; the same key "
            "for both makes them one class",
        )

    def unused(self) -> tuple[str, ...]:
        """Return the names of the label map that the data set does not have."""
        if self._map is None:
            return ()
        met = {key for key in self._key_of.values() if key}
        entries = self._map.entries.items()
        return tuple(name for name, entry in entries if name not in self._key_of and entry.key not in met)

    def _check_used(self) -> None:
        if (
            self._map is None
            or not self._whole
            or not self._key_of
            or any(map(self._map.entry_of, self._key_of))
        ):
            return
        raise InputError(
            f"{self._map.path} names none of the labels of the data set, which are "
            f"{', '.join(sorted(map(repr, self._key_of)))}",
            hint="its names are those of the class folders or of the column label",
        )

    def _described(self, key: str) -> Label:
        stated = self._map.name_of(key) if self._map is not None else None
        role = self._map.roles.get(key) if self._map is not None else None
        return Label(key, stated or _display_name(key, self._names[key]), role or known_role(key))


def _missing_label(name: str, where: str) -> InputError:
    if not name.strip():
        return InputError(f"{where} has no label", hint="every frame needs a file and a label")
    return InputError(
        f"{where} has the label {name!r}, which programs write for a missing value",
        hint="give the frame its label or leave the row out; if it is the name of a class, give it a key in a label "
        f"map (--labels map.yaml), with the line {name}: KEY",
    )


def _display_name(key: str, names: Iterable[str]) -> str:
    """Return the key in words, or the name itself where it has signs that the key spells."""
    (first, *_) = names
    spelled = any(c in _SIGNS for c in first) or _MINUS.search(first)
    return unicodedata.normalize("NFC", first) if spelled else key.replace("_", " ").capitalize()


def unclear_classes(classes: Sequence[Label], stated: Collection[str] = ()) -> tuple[str, ...]:
    """Return the keys of the classes whose role has to be asked before a model learns them as findings.

    These are classes whose name may mean health, or all classes if none of them is normal, without those whose role a
    label map states.
    """
    open_ = [label for label in classes if label.key not in stated and label.role == "finding"]
    likely = tuple(label.key for label in open_ if _HEALTH.match(label.key))
    if likely or any(label.role == "normal" for label in classes):
        return likely
    return tuple(label.key for label in open_)


def check_roles(classes: Sequence[Label], stated: Collection[str] = ()) -> None:
    """Check that a model can be told which class is normal.

    Raises:
        UsageError: A class may mean health, or no class is normal, and no label map states the roles.
    """
    unclear = unclear_classes(classes, stated)
    if not unclear:
        return
    healthy = _HEALTH.match(unclear[0]) is not None
    what = (
        f"the class {unclear[0]} may mean health, and would be reported as a finding"
        if healthy
        else f"no class is known as normal, and all would be reported as findings: {', '.join(unclear)}"
    )
    name = unclear[0] if healthy else "NAME"
    raise UsageError(
        what,
        hint=f"write the line '{name}: {{role: normal}}' (or finding, landmark, quality) into a label map, and give "
        "--labels map.yaml" + ("" if healthy else "; if no class is normal, write such a line for each"),
    )
