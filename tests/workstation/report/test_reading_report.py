"""The report of a reading: its order, what it names, what it never does, and its PDF."""

from __future__ import annotations

import base64
import builtins
import hashlib
import html
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the extra [serve] is not installed")
pytest.importorskip("alembic", reason="the extra [serve] is not installed")

from reading_samples import FACTS, STUDY, begin, sample_database, write

from capsule_edge.runtime.errors import InputError, PackageError
from capsule_edge.runtime.inference import ModelSpec, default_model, open_model
from capsule_edge.workstation.readings import (
    add_finding,
    add_seen,
    change_examination,
    decide,
    export_reading,
    finish,
    set_landmark,
    switch_way,
)
from capsule_edge.workstation.report import render_reading, write_pdf
from capsule_edge.workstation.store import Database

JPEG = b"\xff\xd8 no real picture \xff\xd9"
NAMES = {"polyp": "Polyp", "bleeding": "Bleeding", "angioectasia": "Angioectasia"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with sample_database(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return open_model(default_model()).spec


def _export(database: Database, reading: str) -> dict[str, Any]:
    with database.reading() as connection:
        return export_reading(connection, FACTS, reading, names=NAMES)


def _page(
    database: Database, reading: str, picture: Callable[[int], bytes] = lambda _: JPEG, **more: Any
) -> str:
    return render_reading(_export(database, reading), picture=picture, **more)


def _text(page: str) -> str:
    """Return the words of the page as a browser shows them."""
    body = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(body).split())


class _Parsed(HTMLParser):
    """The tags, the names of attributes and the addresses of pictures of a page, as a browser finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name == "src"]


def _decided(database: Database) -> str:
    """Confirm one suggestion, relabel another, leave the third, and add a finding."""
    reading = begin(database)
    confirmed = {"verdict": "confirmed", "version": 0, "comment": "6 mm"}
    write(database, decide, FACTS, reading, "suggestion:1", **confirmed)
    relabelled = {"verdict": "relabelled", "label": "other: clot", "version": 0}
    write(database, decide, FACTS, reading, "suggestion:2", **relabelled)
    write(database, add_finding, FACTS, reading, label="bleeding", start_index=20, end_index=24)
    write(database, set_landmark, FACTS, reading, "small-bowel", index=30)
    write(database, set_landmark, FACTS, reading, "colon", index=400)
    write(database, add_seen, FACTS, reading, seen=[[0, 300]], skimmed=[[300, 310]], seconds=840)
    return reading


def test_the_report_names_everything_in_its_order(database: Database, spec: ModelSpec) -> None:
    reading = _decided(database)
    fields = {"patient_name": "Doe, Jane", "birth_date": "1950-02-28", "indication": "anaemia"}
    write(database, change_examination, STUDY, reader="A", version=0, fields=fields)
    document = _export(database, reading)
    text = _text(render_reading(document, picture=lambda _: JPEG, model=spec))
    order = (
        "Preliminary, not signed.",
        "Patient Doe, Jane",
        "Birth date 1950-02-28",
        "Accession number not entered",
        "Indication anaemia",
        "Whole recording of 580 frames 290 seen (50 %), 10 skimmed (1 %), 280 not seen (49 %)",
        "Small bowel of 360 frames 260 seen",
        "10 of 600 frames missing",
        "First picture of the duodenum 30 00:00:15 00:00:15.0",
        "Small-bowel transit 3 min",
        "Findings (3)",
        "Worms",
        "Bleeding Added by the reader; not a suggestion of the model Frame : 20",
        "Polyp Suggestion 1 of the model, confirmed by the reader Frame : 50",
        "Frames 40 to 59, 70 to 71 (22)",
        "6 mm",
        "clot Suggestion 2, relabelled by the reader; the model had said: Bleeding Frame : 215",
        "Where : Small bowel, 50 % of its transit",
        "for Bleeding;",
        "Not decided (1)",
        "3 Angioectasia 301",
        "Rejected by the reader (0)",
        "Reader Dr. Reader",
        "Way to read suggestions first",
        "Time of active reading 14 min",
        f"This report was made after line {document['log']['lines']}",
        document["log"]["head"],
        f"capsule-edge verify-log {STUDY} --head {document['log']['head']}",
        "Appendix: recording and model",
        "8-bit model against the original",
        "Lewis score",
    )
    # CSS sets the colon between a fact and its value.
    shown = re.sub(
        r"(Frame|Where) (?=\S)", r"\1 : ", text[text.index("Findings (3)") : text.index("Not decided")]
    )
    text = text[: text.index("Findings (3)")] + shown + text[text.index("Not decided") :]
    places = []
    for words in order:
        assert words in text, words
        places.append(text.index(words, places[-1] if places else 0))
    assert places == sorted(places)


def test_pictures_are_those_of_the_key_frames(database: Database) -> None:
    reading = _decided(database)
    asked: list[int] = []

    def picture(index: int) -> bytes:
        asked.append(index)
        return b"frame %d" % index

    page = _page(database, reading, picture)
    assert asked == [20, 50, 215]
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="Frame (\d+)"', page)
    assert [(base64.b64decode(content), int(index)) for content, index in shown] == [
        (b"frame 20", 20),
        (b"frame 50", 50),
        (b"frame 215", 215),
    ]


def test_a_picture_that_cannot_be_shown_says_why(database: Database) -> None:
    def gone(_: int) -> bytes:
        raise InputError("the recording is not there any more")

    page = _page(database, _decided(database), gone)
    assert page.count("No picture: the recording is not there any more") == 3
    assert "<img" not in page


def test_nothing_that_was_typed_runs_or_breaks_the_page(database: Database) -> None:
    evil = "<script>alert(1)</script>\" onload='x' </style><img src=http://192.0.2.1/x> {{ 7*7 }} \u202e\x0b"
    reading = begin(database, reader=evil)
    fields = dict.fromkeys(
        ("patient_name", "patient_id", "accession_number", "indication", "preparation"), evil
    )
    write(database, change_examination, STUDY, reader=evil, version=0, fields=fields)
    write(
        database,
        add_finding,
        FACTS,
        reading,
        label=f"other: {evil}",
        start_index=1,
        end_index=3,
        comment=evil,
    )
    rejected = {"verdict": "rejected", "version": 0, "comment": evil}
    write(database, decide, FACTS, reading, "suggestion:1", **rejected)
    page = _page(database, reading)
    assert page.count(html.escape(evil)) == 9
    parsed = _Parsed()
    parsed.feed(page)
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert not {name for name in parsed.attributes if name.startswith("on") or name in ("style", "href")}
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.sources)
    assert "{{ 7*7 }}" in _text(page)


def test_the_policy_allows_the_one_style_sheet_and_no_script(database: Database) -> None:
    page = _page(database, begin(database))
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert html.unescape(policy) == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_a_report_without_any_decision_claims_nothing(database: Database) -> None:
    reading = begin(database)
    text = _text(_page(database, reading))
    assert "confirmed and added no finding. This does not mean that the examination is normal." in text
    assert "0 seen (0 %)" in text
    assert "Not decided (3)" in text
    assert "The reading is not finished." in text
    assert "Small bowel not known" in text
    assert "The file of the model is not on this workstation any more" in text
    write(database, finish, reading)
    assert "not finished" not in _text(_page(database, reading))


def test_every_way_to_read_is_named_with_its_decisions(database: Database) -> None:
    reading = _decided(database)
    write(database, switch_way, reading, way="everything")
    write(database, decide, FACTS, reading, "suggestion:3", verdict="rejected", version=0)
    document = _export(database, reading)
    assert [(each["way"], each["decisions"]) for each in document["reading"]["ways"]] == [
        ("suggestions_first", 3), ("everything", 1),
    ]  # fmt: skip
    text = _text(_page(database, reading))
    assert "suggestions first, then the recording: 3 decisions, from 20" in text
    assert "the whole recording, with the suggestions marked: 1 decision, from 20" in text


def test_a_suggestion_that_was_confirmed_unseen_is_told(database: Database) -> None:
    reading = begin(database)
    write(database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0)
    assert "confirmed by the reader. None of its pictures was on the screen" in _text(
        _page(database, reading)
    )
    # The last frame of its second event is enough.
    write(database, add_seen, FACTS, reading, seen=[], skimmed=[[71, 75]], seconds=1)
    assert "None of its pictures" not in _text(_page(database, reading))


def test_hidden_suggestions_stay_hidden_in_the_report(database: Database) -> None:
    text = _text(_page(database, begin(database, way="hidden_first")))
    assert "were not shown to the reader yet" in text
    assert "Angioectasia" not in text


def test_transit_times_need_the_capture_rate(database: Database) -> None:
    document = _export(database, _decided(database))
    unknown = {**dict.fromkeys(document["transit"]), "unknown_for_lack_of": "capture rate"}
    changed = {**document, "transit": unknown}
    for each in changed["landmarks"]:
        each["exam_time_s"] = None
    text = _text(render_reading(changed, picture=lambda _: JPEG))
    assert "Transit times are not computed" in text
    assert "First picture of the duodenum 30 not known 00:00:15.0" in text


def test_warnings_of_the_recording_and_of_training_are_told(database: Database) -> None:
    document = _export(database, begin(database))
    document["recording"]["warnings"] = [
        {"code": "seen_in_training", "message": "the model was trained on a video of this name"},
        {"code": "cut", "message": "the file was cut"},
    ]
    text = _text(render_reading(document, picture=lambda _: JPEG))
    assert "Not a new recording for the model: the model was trained on a video of this name." in text
    assert text.index("the file was cut.") < text.index("Landmarks and transit")


@pytest.fixture
def pango() -> None:
    try:
        import weasyprint  # noqa: F401
    except ImportError:
        pytest.skip("WeasyPrint is not installed")
    except OSError:
        pytest.skip("Pango is not installed")


def test_a_report_of_two_hundred_findings_shows_each(database: Database) -> None:
    reading = begin(database)
    with database.writing() as connection:
        for index in range(200):
            add_finding(connection, FACTS, reading, label="polyp", start_index=index, end_index=index + 2)
    page = _page(database, reading)
    assert "Findings (200)" in _text(page)
    assert page.count('<article class="finding">') == page.count("<img ") == 200


def test_a_pdf_holds_long_names_of_any_script(database: Database, pango: None) -> None:
    import cv2
    import numpy as np

    picture = cv2.imencode(".jpg", np.full((16, 16, 3), 90, np.uint8))[1].tobytes()
    reading = begin(database, reader="\u05e9\u05dc\u05d5\u05dd" * 1000)
    options = {"label": "other: " + "W" * 300, "start_index": 1, "end_index": 2}
    write(database, add_finding, FACTS, reading, **options, comment="\x01\x0b<p>" * 800)
    content = write_pdf(_page(database, reading, lambda _: picture))
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert b"/Subtype /Image" in content


def test_a_pdf_is_made_without_files_or_network(
    tmp_path: Path, pango: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    secret = tmp_path / "secret.svg"
    secret.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>secret</text></svg>'
    )
    opened: list[str] = []
    real_open = builtins.open

    def watched(file: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(file))
        return real_open(file, *arguments, **options)

    def refused(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(socket, "create_connection", refused)
    page = (
        f'<link rel="stylesheet" href="http://127.0.0.1:9/x.css"><img src="{secret.as_uri()}">'
        f'<style>@import "{secret.as_uri()}"; p {{ background: url(http://127.0.0.1:9/x.png) }}</style><p>x</p>'
    )
    assert write_pdf(page).startswith(b"%PDF-")
    assert not [path for path in opened if "secret" in path]


def test_without_pango_only_the_pdf_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "weasyprint":
            raise OSError("cannot load library 'libpango-1.0-0'")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    page = _page(database, begin(database))
    with pytest.raises(PackageError, match="a PDF needs the library Pango"):
        write_pdf(page)
