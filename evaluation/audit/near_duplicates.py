"""Find pictures that are equal byte for byte, or copies with another encoding, size, border or brightness.

The fingerprint is a difference hash (Krawetz, "Kind of Like That", 2013) of 512 bits: 16 x 16 steps to the right and
16 x 16 steps down. It covers the square inscribed in the field of view, because the black corners are common to all
capsule frames. It distinguishes frames of different patients, which the usual 64 bits do not (figures in
docs/log/2026-11.md). Bit sampling (Indyk and Motwani, STOC 1998) finds similar fingerprints in a time that grows with
N log N and with the number of pairs found. The correlation of small pictures confirms them. Rotated and mirrored
copies are not found.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.cores import count_cores
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.preprocessing import find_field_of_view

from ..datasets import decode_picture, read_bytes

__all__ = ["BITS", "RADIUS", "Fingerprints", "NearPair", "exact_groups", "fingerprint", "near_pairs"]

Uint8 = npt.NDArray[np.uint8]

BITS = 512
RADIUS = 48
"""Copies may differ in this many bits. Of 500 frames encoded again at JPEG quality 50, 98 % stay within it, and 99 % of
those resized to 160 or 336 pixels. Of 17,489 frames, no two of different videos come within it."""

MIN_CORRELATION = 0.95
# A picture with a smaller standard deviation of levels is blank: its hash is noise, or equals that of other blank ones.
_BLANK = 2.0
_SIDE, _THUMB = 16, 16
# One table of 24 sampled bits misses a pair that differs in all 48 bits of RADIUS with probability
# 1 - (1 - 48/512)^24 = .906, and all 48 tables miss it with .906^48 = .9 %. A pair that differs in half as many bits is
# practically never missed (2e-8).
_SAMPLED, _TABLES = 24, 48
# Frames of a capsule at rest are all near copies of each other. Compare each with at most this many that follow.
_CROWD = 128
_WORKERS = 8


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of N readable files.

    Attributes:
        files: The files.
        sha256: The SHA-256 of each file's bytes.
        hashes: uint64 (N, 8), the 512 bits of each difference hash.
        thumbs: uint8 (N, 16, 16), a small grey picture of each file.
        blank: bool (N,), whether the picture has one colour and cannot be compared.
        unreadable: (file, reason) of each file that cannot be read.
        twelve_bits: The files that were read as 12 bits in 16.
    """

    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]
    thumbs: Uint8
    blank: npt.NDArray[np.bool_]
    unreadable: tuple[tuple[Path, str], ...]
    twelve_bits: tuple[Path, ...] = ()


class NearPair(NamedTuple):
    """Two similar files: indices into the fingerprints, ``a`` < ``b``, and the number of differing bits of 512."""

    a: int
    b: int
    distance: int


def fingerprint(files: Sequence[Path], *, advance: Callable[[int], None] | None = None) -> Fingerprints:
    """Read every file once, on all cores, and compute its fingerprint.

    Args:
        files: The files to read. One that cannot be read goes to ``unreadable``, with the reason.
        advance: Called with 1 after each file, from several threads.
    """

    twelve: set[Path] = set()

    def read(file: Path) -> tuple[Path, str, Uint8, Uint8] | tuple[Path, str]:
        try:
            data = read_bytes(file)
            frame, is_twelve = decode_picture(data, file)
            if is_twelve:
                twelve.add(file)
            steps, thumb = _shrink(frame)
            return file, hashlib.sha256(data.tobytes()).hexdigest(), steps, thumb
        except InputError as error:
            return file, error.message
        finally:
            if advance is not None:
                advance(1)

    with ThreadPoolExecutor(min(_WORKERS, count_cores())) as pool:
        found = list(pool.map(read, files))
    whole = [entry for entry in found if len(entry) == 4]
    no_steps, no_thumbs = (
        np.zeros((0, _SIDE + 1, _SIDE + 1), np.uint8),
        np.zeros((0, _THUMB, _THUMB), np.uint8),
    )
    steps = np.stack([entry[2] for entry in whole]) if whole else no_steps
    thumbs = np.stack([entry[3] for entry in whole]) if whole else no_thumbs
    return Fingerprints(
        files=tuple(entry[0] for entry in whole),
        sha256=tuple(entry[1] for entry in whole),
        hashes=_hash(steps),
        thumbs=thumbs,
        blank=thumbs.reshape(-1, _THUMB * _THUMB).std(axis=1) < _BLANK,
        unreadable=tuple((entry[0], entry[1]) for entry in found if len(entry) == 2),
        twelve_bits=tuple(sorted(twelve)),
    )


def _shrink(frame: Uint8) -> tuple[Uint8, Uint8]:
    """Return the inscribed square of the field of view in grey, uint8 (17, 17) and (16, 16)."""
    box = find_field_of_view([frame])
    height, width = max(1, int(box.height * 0.5**0.5)), max(1, int(box.width * 0.5**0.5))
    top, left = box.top + (box.height - height) // 2, box.left + (box.width - width) // 2
    grey = cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_RGB2GRAY)
    side = _SIDE + 1
    steps = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    thumb = cv2.resize(grey, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    return np.asarray(steps, np.uint8), np.asarray(thumb, np.uint8)


def _hash(steps: Uint8) -> npt.NDArray[np.uint64]:
    """Return the difference hashes, uint64 (N, 8), of grey pictures uint8 (N, 17, 17)."""
    right = steps[:, :_SIDE, 1:] > steps[:, :_SIDE, :-1]
    down = steps[:, 1:, :_SIDE] > steps[:, :-1, :_SIDE]
    bits = np.concatenate([right.reshape(-1, BITS // 2), down.reshape(-1, BITS // 2)], axis=1)
    return np.packbits(bits, axis=1).view(np.uint64)


def exact_groups(prints: Fingerprints) -> list[list[int]]:
    """Return the groups of two or more files with equal bytes, as indices."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(prints.sha256):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(prints: Fingerprints, *, radius: int = RADIUS, seed: int = 0) -> list[NearPair]:
    """Return the pairs of files with different bytes that show the same picture, most similar first.

    Args:
        prints: The fingerprints; blank pictures are not compared.
        radius: The largest number of differing bits.
        seed: The seed of the bit sampling.
    """
    hashes, digests = prints.hashes, np.array(prints.sha256)
    there = np.flatnonzero(~prints.blank)
    found: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for a, b in _candidates(hashes[there], seed):
        code = there[np.minimum(a, b)] * len(hashes) + there[np.maximum(a, b)]
        # A capsule at rest gives the same pairs in every table. Compare each pair once.
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
    return [NearPair(int(a[i]), int(b[i]), int(distance[i])) for i in order]


def _candidates(
    hashes: npt.NDArray[np.uint64], seed: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yield, for each sample of bits, the pairs of rows that agree in all sampled bits. Pairs may repeat."""
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
    thumbs: Uint8, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return Pearson's correlation of pictures ``a`` with ``b``; brightness and contrast do not change it."""
    flat = thumbs.reshape(-1, _THUMB * _THUMB).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    found = np.empty(len(a), np.float32)
    for at in range(0, len(a), 4096):
        chunk = slice(at, at + 4096)
        found[chunk] = np.einsum("nd,nd->n", flat[a[chunk]], flat[b[chunk]])
    return found
