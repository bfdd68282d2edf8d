"""The journal gives back the frames that were entered, also when its file ends anywhere or is damaged."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from capsule_edge.runtime.errors import InputError, OutputError, UsageError
from capsule_edge.runtime.preprocessing import FieldOfView
from capsule_edge.runtime.results import Journal, open_run
from capsule_edge.runtime.results.block_file import BlockFile
from capsule_edge.runtime.results.journal import JOURNAL, JournalEntries
from capsule_edge.runtime.results.lock import LOCK
from capsule_edge.runtime.study import FrameRecord

LABELS = 3


RECORDS = [FrameRecord(index, "unread", pts=index * 5, time_s=index / 2) for index in range(64)]


IDENTITY = {"recording": "a" * 64, "options": {"every": 1, "end_s": None}}


BOX = FieldOfView(3, 4, 120, 118)


def answers(first: int, after: int) -> JournalEntries:
    """Return frames ``[first, after)`` of a made-up run; a frame is the same in every call."""
    records, colours = [], []
    for record in RECORDS[first:after]:
        rng = np.random.default_rng(record.index)
        colours.append(rng.random(3) * 255)
        if record.index % 7 == 3:
            records.append(replace(record, status="corrupt", detail="depends_on_damaged"))
            continue
        values = rng.random(LABELS).astype(np.float32)
        # Frame 5 is a duplicate of frame 0, the others of the frame before them.
        twin = {5: 0}.get(record.index, record.index - 1) if record.index % 7 == 5 else None
        status = "classified" if twin is None else "duplicate"
        records.append(replace(record, status=status, duplicate_of=twin, probabilities=values))  # type: ignore[arg-type]
    return JournalEntries(records, np.array(colours), BOX)


def begin(folder: Path, identity: dict = IDENTITY) -> tuple[Journal, JournalEntries | None]:
    journal = Journal(folder)
    return journal, journal.begin(identity, labels=LABELS, records=RECORDS)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    journal, nothing = begin(tmp_path)
    assert nothing is None
    assert not journal.is_there
    for first in range(0, 64, 16):
        journal.enter(answers(first, first + 16))
        assert journal.is_there
    journal.close()
    return tmp_path / JOURNAL


def check(found: JournalEntries | None, *, after: int) -> None:
    """Check that ``found`` holds exactly the frames before the last classified one of the first ``after``."""
    all_of_it = [answers(first, first + 16) for first in range(0, 64, 16)]
    records = [record for part in all_of_it for record in part.records][:after]
    last = max((record.index for record in records if record.status == "classified"), default=0)
    if last == 0:
        assert found is None
        return
    assert found is not None
    assert found.field_of_view == BOX
    assert len(found.records) == len(found.colours) == last
    np.testing.assert_array_equal(found.colours, np.concatenate([part.colours for part in all_of_it])[:last])
    for one, other in zip(found.records, records[:last], strict=True):
        assert replace(one, probabilities=None) == replace(other, probabilities=None)
        if other.probabilities is None:
            assert one.probabilities is None
        else:
            np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_batches_stay_in_memory_until_the_identity_of_the_run_is_known(tmp_path: Path) -> None:
    known = threading.Event()

    def identity() -> dict:
        assert known.wait(10)
        return IDENTITY

    with Journal(tmp_path) as journal:
        assert journal.begin(identity, labels=LABELS, records=RECORDS) is None
        journal.enter(answers(0, 16))
        journal.enter(answers(16, 32))
        assert journal.path.stat().st_size == 0
        known.set()
        assert journal.is_there
        journal.enter(answers(32, 64))
    journal, found = begin(tmp_path)
    check(found, after=64)
    journal.close()


@pytest.mark.quick
def test_a_run_whose_identity_cannot_be_found_has_no_journal(tmp_path: Path) -> None:
    def identity() -> dict:
        raise InputError("the recording is gone")

    journal = Journal(tmp_path)
    journal.begin(identity, labels=LABELS, records=RECORDS)
    with suppress(InputError):  # raised here, or by close if the thread has not ended yet
        journal.enter(answers(0, 16))
    with pytest.raises(InputError, match="gone"):
        journal.close()
    journal.discard()
    assert not journal.is_there


@pytest.mark.quick
def test_a_journal_gives_back_what_was_entered(written: Path) -> None:
    journal, found = begin(written.parent)
    check(found, after=64)
    assert journal.resumed == 63  # frame 63 is classified, and its picture may be needed
    journal.enter(answers(48, 64))  # the same frames again: the last answers count
    journal.close()
    check(begin(written.parent)[1], after=64)


@pytest.mark.parametrize("kind", ["cut", "flipped", "zeros"])
def test_a_damaged_journal_gives_back_its_whole_blocks(kind: str, written: Path) -> None:
    data = written.read_bytes()
    rng = random.Random(5)
    ends = [end for end, _ in BlockFile(written).read()]
    for place in [0, 1, *ends[:-1], *rng.sample(range(len(data)), 40)]:
        damaged = bytearray(data[:place] if kind == "cut" else data)
        if kind == "zeros":  # a power cut can leave such a file
            damaged[place:] = bytes(len(data) - place)
        elif kind == "flipped":
            damaged[place] ^= 1 << rng.randrange(8)
        written.write_bytes(damaged)
        whole_blocks = sum(end <= place for end in ends)
        taken, found = begin(written.parent)
        check(found, after=16 * max(0, whole_blocks - 1))
        # The damaged journal can be continued: the next run gets the frames that are entered now.
        taken.enter(answers(16 * max(0, whole_blocks - 1), 64))
        taken.close()
        check(begin(written.parent)[1], after=64)


@pytest.mark.quick
def test_the_journal_of_another_run_is_refused_and_kept(written: Path) -> None:
    before = written.read_bytes()
    for identity in (IDENTITY | {"recording": "b" * 64}, IDENTITY | {"options": {"every": 2, "end_s": None}}):
        with pytest.raises(UsageError, match=r"has another (recording|options)") as caught:
            begin(written.parent, identity)
        assert "--overwrite" in caught.value.hint
    assert written.read_bytes() == before


@pytest.mark.quick
def test_a_folder_in_place_of_the_journal_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(OutputError, match="cannot be written") as caught:
        begin(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "a" / "b"
    shutil.rmtree(tmp_path / "a", ignore_errors=True)


@pytest.mark.quick
def test_a_run_without_answers_leaves_no_folder(folder: Path) -> None:
    def stopped() -> None:
        with open_run(folder) as run_:
            run_.journal.begin(IDENTITY, labels=LABELS, records=RECORDS)
            assert (folder / LOCK).exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not folder.parent.exists()


@pytest.mark.quick
def test_a_run_with_answers_stays_until_it_is_resumed_or_overwritten(folder: Path) -> None:
    def stopped() -> None:
        with open_run(folder) as run_:
            run_.journal.begin(IDENTITY, labels=LABELS, records=RECORDS)
            run_.journal.enter(answers(0, 16))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with pytest.raises(OutputError, match="holds an interrupted run"), open_run(folder):
        pass
    with open_run(folder, resume=True) as run_:
        check(run_.journal.begin(IDENTITY, labels=LABELS, records=RECORDS), after=16)
        assert run_.finished is None
    with open_run(folder, overwrite=True) as run_:
        assert run_.journal.begin(IDENTITY, labels=LABELS, records=RECORDS) is None
    assert list(folder.iterdir()) == []
    with pytest.raises(UsageError, match="starts over"), open_run(folder, overwrite=True, resume=True):
        pass


@pytest.mark.quick
def test_a_study_json_that_is_not_json_is_an_error(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{", "utf-8")
    with pytest.raises(OutputError, match=r"study\.json cannot be read"), open_run(folder, resume=True):
        pass
