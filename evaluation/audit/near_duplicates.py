"""Pictures that are the same, or nearly: byte for byte, or through another encoder, size, border or brightness.

The fingerprint is a difference hash (Krawetz, "Kind of Like That", 2013) of 16 x 16 steps to the right and 16 x 16
steps down, 512 bits, over the square inscribed in the field of view: what every capsule frame shares, its black
corners, takes no part. Frames of different patients are told apart by it, which the customary 64 bits fail to do
(docs/log has the figures). Neighbours are found by bit sampling (Indyk and Motwani, STOC 1998), in a time that
grows with N log N and with what is found, and are confirmed by the correlation of small pictures. Turned and mirrored
copies are not looked for.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.preprocessing import find_field_of_view

from ..datasets import decode_frame, read_bytes

__all__ = ["BITS", "RADIUS", "Fingerprints", "Pair", "exact_groups", "fingerprint", "near_pairs"]

Frame = npt.NDArray[np.uint8]

BITS = 512
RADIUS = 48
"""Bits that may differ. Of 500 frames encoded anew at JPEG quality 50, 98 % stay within it, and 99 % of those
resized to 160 or 336 pixels; of 17,489 frames no two of different videos come within it."""

MIN_CORRELATION = 0.95
# Below this standard deviation of levels a picture is blank: its hash is noise, or that of any other blank one.
_BLANK = 2.0
_SIDE, _THUMB = 16, 16
# A pair that differs in all of RADIUS is missed by one table of this many bits with 1 - (1 - 48/512)^24 = .906,
# by all of them with .906^48 = .9 %; one that differs in half as many never (2e-8).
_SAMPLED, _TABLES = 24, 48
# Frames of a capsule at rest are all near copies of each other: each is compared with this many that follow it.
_CROWD = 128
_WORKERS = 8


@dataclass(frozen=True)
class Fingerprints:
    """Of N readable files: ``sha256`` of their bytes, ``hashes`` uint64 (N, 8), ``thumbs`` uint8 grey (N, 16, 16).

    ``blank`` (N,) are pictures without anything to compare by; ``unreadable`` are (file, reason).
    """

    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]
    thumbs: Frame
    blank: npt.NDArray[np.bool_]
    unreadable: tuple[tuple[Path, str], ...]


class Pair(NamedTuple):
    """Indices into the fingerprints, ``a`` < ``b``, and in how many of 512 bits they differ."""

    a: int
    b: int
    distance: int


def fingerprint(files: Sequence[Path], *, advance: Callable[[int], None] | None = None) -> Fingerprints:
    """Read every file once, on all cores. What cannot be read is named with its reason and left out."""

    def of(file: Path) -> tuple[Path, str, Frame, Frame] | tuple[Path, str]:
        try:
            data = read_bytes(file)
            steps, thumb = _shrink(decode_frame(data, file))
            return file, hashlib.sha256(data.tobytes()).hexdigest(), steps, thumb
        except InputError as error:
            return file, error.message
        finally:
            if advance is not None:
                advance(1)

    with ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
        found = list(pool.map(of, files))
    read = [entry for entry in found if len(entry) == 4]
    steps = np.stack([entry[2] for entry in read]) if read else np.zeros((0, _SIDE + 1, _SIDE + 1), np.uint8)
    thumbs = np.stack([entry[3] for entry in read]) if read else np.zeros((0, _THUMB, _THUMB), np.uint8)
    return Fingerprints(
        files=tuple(entry[0] for entry in read),
        sha256=tuple(entry[1] for entry in read),
        hashes=_hash(steps),
        thumbs=thumbs,
        blank=thumbs.reshape(-1, _THUMB * _THUMB).std(axis=1) < _BLANK,
        unreadable=tuple((entry[0], entry[1]) for entry in found if len(entry) == 2),
    )


def _shrink(frame: Frame) -> tuple[Frame, Frame]:
    box = find_field_of_view([frame])
    height, width = max(1, int(box.height * 0.5**0.5)), max(1, int(box.width * 0.5**0.5))
    top, left = box.top + (box.height - height) // 2, box.left + (box.width - width) // 2
    grey = cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_RGB2GRAY)
    side = _SIDE + 1
    steps = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    thumb = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    return np.asarray(steps, np.uint8), np.asarray(thumb, np.uint8)


def _hash(steps: Frame) -> npt.NDArray[np.uint64]:
    right = steps[:, :_SIDE, 1:] > steps[:, :_SIDE, :-1]
    down = steps[:, 1:, :_SIDE] > steps[:, :-1, :_SIDE]
    bits = np.concatenate([right.reshape(-1, BITS // 2), down.reshape(-1, BITS // 2)], axis=1)
    return np.packbits(bits, axis=1).view(np.uint64)


def exact_groups(prints: Fingerprints) -> list[list[int]]:
    """Groups of two or more files of the same bytes, as indices."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(prints.sha256):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(prints: Fingerprints, *, radius: int = RADIUS, seed: int = 0) -> list[Pair]:
    """Pairs of files of different bytes that show the same, nearest first. Blank pictures are in none."""
    hashes, digests = prints.hashes, np.array(prints.sha256)
    there = np.flatnonzero(~prints.blank)
    found: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for a, b in _candidates(hashes[there], seed):
        code = there[np.minimum(a, b)] * len(hashes) + there[np.maximum(a, b)]
        # A capsule at rest has the same pairs in every table: they are looked at once.
        if len(found):
            code = code[found[np.minimum(np.searchsorted(found, code), len(found) - 1)] != code]
        a, b = np.divmod(code, len(hashes))
        near = np.bitwise_count(hashes[a] ^ hashes[b]).sum(axis=1) <= radius
        if near.any():
            found = np.sort(np.concatenate([found, code[near]]))
    if not len(found):
        return []
    a, b = np.divmod(found, len(hashes))
    other = digests[a] != digests[b]
    a, b = a[other], b[other]
    alike = _correlation(prints.thumbs, a, b) >= MIN_CORRELATION
    a, b = a[alike], b[alike]
    distance = np.bitwise_count(hashes[a] ^ hashes[b]).sum(axis=1)
    order = np.lexsort((b, a, distance))
    return [Pair(int(a[i]), int(b[i]), int(distance[i])) for i in order]


def _candidates(
    hashes: npt.NDArray[np.uint64], seed: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Pairs of rows that agree in all bits of a sample, some of them more than once; one yield a sample."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    random = np.random.default_rng(seed)
    for _ in range(_TABLES if len(bits) > 1 else 0):
        chosen = random.choice(BITS, _SAMPLED, replace=False)
        key = bits[:, chosen].astype(np.int64) @ (1 << np.arange(_SAMPLED, dtype=np.int64))
        order = np.argsort(key, kind="stable")
        key = key[order]
        first, second = [], []
        at = np.arange(len(key) - 1)
        for step in range(1, _CROWD + 1):
            at = at[at + step < len(key)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            first.append(order[at])
            second.append(order[at + step])
        if first:
            yield np.concatenate(first), np.concatenate(second)


def _correlation(
    thumbs: Frame, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Pearson's, of the pictures ``a`` and ``b``: another brightness or contrast changes nothing."""
    flat = thumbs.reshape(-1, _THUMB * _THUMB).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    found = np.empty(len(a), np.float32)
    for at in range(0, len(a), 4096):
        chunk = slice(at, at + 4096)
        found[chunk] = np.einsum("nd,nd->n", flat[a[chunk]], flat[b[chunk]])
    return found
