"""The report page: safe, self-contained, the same for the same study, and never calmer than the study is."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from cool_rule import cool_rule
from exam_samples import make_exam
from paths import ROOT
from study_samples import SPEC, make_study

from capsule_edge.runtime.errors import PackageError
from capsule_edge.runtime.events import find_events
from capsule_edge.runtime.inference import (
    NOT_STATED,
    HeldOutBy,
    Label,
    OperatingPoint,
    PrecisionAtScore,
    SuggestionGrouping,
    SuggestionPrecision,
    SuggestionWeights,
)
from capsule_edge.runtime.recording import RecordingWarning
from capsule_edge.runtime.report import render_report, templates
from capsule_edge.runtime.report.figures import CURVE_POINTS
from capsule_edge.runtime.report.text import assessed, has_evidence, nothing_found
from capsule_edge.runtime.report.view import CARDS, View
from capsule_edge.runtime.study import StripPicture, Study

ASSETS = ROOT / "runtime" / "report" / "assets"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Elements, visible text and nesting errors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, tag
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace("\u00a0", " ").split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag
            and all(value in (found.get(key.rstrip("_")) or "").split() for key, value in attributes.items())
        ]


def render(study: Study, colours: np.ndarray | None = None) -> str:
    return render_report(study, tool_version="0.0.test", colours=colours)


def page(study: Study, colours: np.ndarray | None = None) -> Page:
    return Page(render(study, colours))


@pytest.mark.quick
def test_the_same_study_gives_the_same_page() -> None:
    colours = np.linspace(0, 255, 300).reshape(100, 3)
    assert render(make_study(), colours) == render(make_study(), colours)


def test_nothing_is_loaded_from_anywhere() -> None:
    text = render(make_study(), np.full((10, 3), 90.0))
    found = Page(text)
    for tag, attributes in found.elements:
        for name in ("src", "href", "data-map", "action", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name)
        assert "style" not in attributes, tag  # the policy would drop it
        assert not [name for name in attributes if name.startswith("on")], tag
    assert not re.search(r"https?://|@import|url\(", text)


@pytest.mark.quick
def test_the_policy_allows_the_one_script_and_style_and_nothing_else() -> None:
    text = render(make_study())
    (policy,) = [m["content"] for m in Page(text).all("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        bodies = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(bodies) == len(Page(text).all(tag)) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.quick
def test_names_cannot_carry_markup() -> None:
    evil = "\"><script>alert('x')</script><img src=x onerror=alert(1)>$name${style}&lt;"
    spec = replace(
        SPEC,
        name=evil,
        version=evil,
        license=evil,
        intended_use=evil,
        labels=(Label("normal", evil, "normal"), Label(evil, evil, "finding", evil)),
        operating_points={evil: OperatingPoint(0.5, measured_on=evil)},
        parity={evil: {evil: evil}},
    )
    study = make_study(stretches=((20, 40, evil, 0.9),), spec=spec, name=evil, codec=evil, sha256=evil)
    study = replace(study, backend=evil, model_sha256=evil)
    found = page(study)
    plain = page(make_study(stretches=((20, 40, "ulcer", 0.9),)))
    assert len(found.all("script")) == len(plain.all("script")) == 1
    assert [e for e in found.all("img") if "onerror" in e] == []
    assert evil in "".join(found.words)  # shown, as it is
    (heading,) = re.findall("<h1>(.*?)</h1>", render(study))
    assert heading.startswith("<bdi>&quot;&gt;&lt;script&gt;")


@pytest.mark.quick
def test_values_are_escaped_as_the_standard_library_does() -> None:
    """The page is the same bytes whatever escapes it: MarkupSafe would write ``&#34;`` and ``&#39;``."""
    name = "\"a\" & 'b' <c>"
    labels = (Label("normal", name, "normal"), Label(name, name, "finding"), Label("q", name, "quality"))
    failed = {"verdict": "fail", "failed": [f"sensitivity_loss.{name}"]}
    spec = replace(
        SPEC, labels=labels, operating_points={name: OperatingPoint(0.5)}, parity={"shipping": failed}
    )
    text = render(make_study(stretches=((20, 40, name, 0.9),), spec=spec, name=name))
    assert text.count(html.escape(name)) > 20
    assert not re.search("&#34;|&#39;|&amp;(lt|gt|amp|quot|#)", text)


def test_only_the_style_sheet_the_script_and_their_policy_are_written_unescaped() -> None:
    templates = {path.name: path.read_text("utf-8") for path in ASSETS.glob("*.html")}
    assert {
        name: re.findall(r"(\w+)\s*\|\s*safe", text) for name, text in templates.items() if "safe" in text
    } == {"page.html": ["policy", "style", "script"]}
    # Both escape as MarkupSafe does.
    assert [name for name, text in templates.items() if re.search(r"{[{%][^}]*(~|\|\s*join)", text)] == []


def test_every_event_has_a_card_and_a_link_in_its_lane() -> None:
    study = make_study()
    found = page(study)
    cards = found.all("article", class_="card")
    assert [card["id"] for card in cards] == ["suggestion-1", "suggestion-2"]
    assert all(card["tabindex"] == "0" for card in cards)
    links = [a["href"] for a in found.all("a") if a.get("aria-label")]
    assert links == ["#suggestion-1", "#suggestion-2"]
    first = study.events[0]
    assert (first.start_s, first.end_s) == (10.0, 20.5)  # a frame on either side is smoothed in
    assert "00:00:10 \u2013 00:00:20" in found.text
    assert f"{first.frames} frames" in found.text
    assert f"Frame {first.peak_index} at 00:00:{int(first.peak_s):02d}" in found.text
    assert "2 suggestions, 2 kinds of finding, to be confirmed" in found.text


def test_pictures_are_the_thumbnail_and_the_map() -> None:
    study = make_study()
    found = page(study)
    images = found.all("img")
    assert len(images) == 2
    figures = found.all("figure", class_="view")
    for image, figure, event in zip(images, figures, study.events, strict=True):
        assert (image["width"], image["height"]) == ("64", "48")
        assert f"Frame {event.peak_index}" in (image["alt"] or "")
        data = base64.b64decode((figure["data-map"] or "").split(",")[1])
        gray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        # half a level of 255 from rounding
        assert np.abs(gray / 255 - study.activations[event.id]).max() <= 0.5 / 255 + 1e-6
    without = page(replace(study, thumbnails={}, activations={}))
    assert without.all("img") == []
    assert without.text.count("No picture of this frame was kept") == 2


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (make_study(statuses={5: "corrupt"}), "1 frame (0.8 %) is damaged and could not be looked at."),
        (make_study(missing=3), "3 frames (2.4 %) announced by the container are not in the file."),
        (make_study(ledger={"truncated": True}), "The file ends before its container says it should"),
        (
            make_study(statuses=dict.fromkeys(range(60, 120), "unread")),
            "stopped early: 60 frames (50 %) were not read.",
        ),
        (make_study(statuses=dict.fromkeys(range(120), "corrupt")), "No frame could be read"),
        (make_study(0, ()), "this report says nothing about the examination"),
    ],
    ids=["corrupt", "missing", "truncated", "unread", "all corrupt", "empty"],
)
@pytest.mark.quick
def test_a_recording_not_read_whole_warns_loudly(study: Study, words: str) -> None:
    found = page(study)
    assert found.all("section", role="alert")
    assert words in found.text
    assert "All 120 frames" not in found.text


def test_a_whole_recording_does_not_warn() -> None:
    found = page(make_study())
    assert not found.all("section", role="alert")
    assert "All 120 frames of the recording were read" in found.text


def test_a_share_never_rounds_to_nothing() -> None:
    study = make_study(2000, (), statuses={7: "corrupt"})
    assert "1 frame (under 0.1 %) is damaged" in page(study).text
    assert "(over 99.9 %)" in page(study).text


def test_marks_by_hand_reach_every_card_and_the_timeline() -> None:
    study = replace(make_study(), landmarks={"small-bowel": 20.0, "colon": 40.0})
    found = page(study)
    share = 100 * study.events[0].peak_s / 20
    (card,) = found.all("article", id="suggestion-1")
    assert f"Stomach, {share:.0f}\u00a0% of its transit time" in (card["aria-label"] or "")
    text = render(study)
    assert "<dt>Small-bowel transit</dt><dd><strong>20 s</strong></dd>" in text
    assert "<dt>First picture of the duodenum</dt><dd>00:00:20, set by hand</dd>" in text
    assert (
        "<dt>Gastric transit</dt><dd><strong>20 s</strong>, counted from the start of the recording</dd>"
        in text
    )
    assert [svg["class"] for svg in found.all("svg", class_="segment")] == [
        "segment g-stomach",
        "segment g-small-bowel",
        "segment g-colon",
    ]
    unsure = page(replace(make_study(), landmarks={"small-bowel": 20.0}))
    assert "Small bowel or beyond" in unsure.text
    assert "This report does not say whether the colon was reached." in unsure.text


def test_the_view_qualifies_that_nothing_was_found() -> None:
    spec = replace(
        SPEC,
        labels=(*SPEC.labels, Label("debris", "Debris", "quality")),
        operating_points={**SPEC.operating_points, "debris": OperatingPoint(0.5)},
    )
    text = page(make_study(stretches=((0, 30, "debris", 0.9),), spec=spec)).text
    assert "Reduced on 25 %" in text
    nothing = text.split("This does not mean that the examination is normal.")[1].split("Landmarks, transit")[
        0
    ]
    assert "reduced on 30 of 120 frames (25.0 %). Findings may be hidden there." in nothing


@pytest.mark.quick
def test_no_finding_is_not_healthy() -> None:
    found = page(make_study(stretches=()))
    assert "No finding reached its threshold" in found.text
    assert "This does not mean that the examination is normal." in found.text
    assert "The model knows no landmark, and none was set by hand." in found.text
    assert "Quality of the view and cleansing: not assessed" in found.text
    assert not re.search(r"healthy|unremarkable|no abnormalit", found.text, re.I)


def test_a_finding_without_operating_point_is_said_to_be_never_marked() -> None:
    spec = replace(SPEC, operating_points={"ulcer": OperatingPoint(0.5)})
    text = page(make_study(spec=spec)).text
    assert "Blood, fresh: the model has no threshold for it, so it is never marked." in text
    assert "Looked for, frame by frame: 1 finding." in text
    assert "How well this model sees it was never measured: Ulcer." in text


def test_a_finding_that_the_model_hardly_sees_is_named_as_such() -> None:
    points = {"ulcer": OperatingPoint(0.5, 0.003, 0.999), "blood_fresh": OperatingPoint(0.5, 0.74, 0.99)}
    for stretches in ((), ((20, 40, "blood_fresh", 0.9),)):
        text = page(make_study(stretches=stretches, spec=replace(SPEC, operating_points=points))).text
        assert "Hardly seen by this model: Ulcer. Fewer than one in five" in text
        assert "Ulcer: fewer than 1 of 100" in text
        assert "Blood, fresh: 74 of 100" in text
    assert "Hardly seen" not in page(make_study()).text  # .9, and one that was not measured


def test_more_events_than_the_page_can_hold_are_counted_and_drawn() -> None:
    stretches = [(i * 30 + 5, i * 30 + 12, "ulcer", 0.8) for i in range(1500)]
    stretches += [(i * 30 + 18, i * 30 + 25, "blood_fresh", 0.9) for i in range(3)]
    apart = SuggestionPrecision((), 0, "nothing", grouping=SuggestionGrouping(within_s=0))
    study = make_study(46_000, stretches, spec=replace(SPEC, suggestions=apart), pictures=False)
    assert len(study.events) == 1503
    found = page(study)
    assert len(found.all("article", class_="card")) == CARDS
    labels = [card["data-label"] for card in found.all("article", class_="card")]
    assert labels.count("blood_fresh") == 3
    assert "1,503 suggestions" in found.text
    assert "This page has room for 1,000 of them, the others are in study.json." in found.text
    assert found.all("rect", class_="rest")


def test_the_use_is_said_at_both_ends() -> None:
    text = page(make_study()).text
    assert text.count("Not a medical device. Findings are suggestions to be confirmed by a physician.") == 2


@pytest.mark.parametrize(
    ("facts", "words", "absent"),
    [
        ({"step_s": 0.5}, "these are times of the examination", "assumed"),
        ({"step_s": 1 / 30}, "assumed 2 frames a second", "these are times of the examination"),
        ({"step_s": 1 / 30}, "transit times are not computed", "these are times of the examination"),
        ({"step_s": 1 / 30, "capture_fps": 3.0}, "the given rate of 3 frames a second", "assumed"),
        ({"step_s": 0.5, "capture_fps": 2.0}, "the given capture rate of 2 frames", "assumed"),
    ],
)
def test_the_clock_is_explained(facts: dict[str, float], words: str, absent: str) -> None:
    text = page(make_study(**facts)).text
    assert words in text
    assert absent not in text


def test_the_model_card_says_what_is_not_shown() -> None:
    text = page(make_study()).text
    assert (
        "Not shown. The file has no certificate that this 8-bit model answers as the full-precision model does."
        in text
    )
    assert "made up provisional" in text
    assert "not measured" in text


SHIPPING = {
    "verdict": "fail",
    "agreement": 0.98999,
    "macro_f1_delta": -0.01,
    "data": {"name": "sample", "frames": 3018, "videos": 13},
    "failed": ["agreement", "macro_f1_loss"],
    "undecided": ["sensitivity_loss.ulcer", "sensitivity_loss.blood_fresh"],
}


@pytest.mark.parametrize(
    ("shipping", "words"),
    [
        (
            SHIPPING,
            "Both give the same label on 98.9 % of 3,018 frames of 13 videos. Not as demanded: share of frames with "
            "the same label; mean accuracy over all labels (macro-F1). Not decided, for want of frames or videos "
            "that show it: sensitivity for Ulcer, Blood, fresh.",
        ),
        (
            SHIPPING | {"verdict": "pass", "agreement": 1, "failed": [], "undecided": []},
            "Both give the same label on 100.0 % of 3,018 frames of 13 videos. The comparison passed all that was "
            "demanded of it.",
        ),
        ({"verdict": "undecided", "data": None, "agreement": None}, "The comparison was not decided."),
    ],
)
def test_the_certificate_is_told_in_sentences(shipping: dict[str, object], words: str) -> None:
    """The names and hashes of the certificate stay out of its text."""
    conversion = {"verdict": "pass", "against_sha256": "f" * 64}
    spec = replace(SPEC, parity={"conversion": conversion, "shipping": shipping, "fp32_sha256": "e" * 64})
    text = page(make_study(spec=spec)).text
    assert words in text
    for raw in ("verdict", "sensitivity_loss", "sensitivity loss", "macro f1 delta", "f" * 64):
        assert raw not in text


def test_a_whole_day_with_many_events_stays_small() -> None:
    generator = np.random.default_rng(0)
    stretches = [(i * 230 + 5, i * 230 + 25, ("ulcer", "blood_fresh")[i % 2], 0.9) for i in range(240)]
    study = make_study(57_600, stretches, pictures=False)
    assert len(study.events) == 240
    # noise is the worst that a JPEG can be asked to hold
    noise = generator.integers(0, 256, (288, 288, 3), np.uint8)
    study = replace(study, thumbnails={event.id: noise for event in study.events})
    text = render(study, generator.uniform(0, 255, (2000, 3)))
    assert len(text) < 15_000_000
    assert "No picture of this frame was kept" in text  # noise does not fit the budget; frames do
    for path in re.findall('<path d="([^"]*)"', text):
        # beside its points a path has three to open and close it
        assert path.count(",") <= CURVE_POINTS + 3


PART = re.compile(r'<div class="part c\d+" data-event="(\d+)"(.*?)</div>', re.S)


def test_the_best_events_have_strips_up_to_12_mb_then_one_picture_up_to_15_mb() -> None:
    study, colours = make_exam(900)
    text = render(study, colours)
    assert 12_000_000 < len(text.encode()) < 15_000_000
    shots = [(int(event), body.count('class="shot')) for event, body in PART.findall(text)]
    strips = {event for event, count in shots if count > 1}  # a made-up event of 7 frames has 7 pictures
    assert 50 < len(strips) < len(study.events)
    # In the order in which to look at them, no event without a strip comes before one that has it.
    view = View(study)
    assert {event.id for event in view.ranked[: len(strips)]} == strips
    assert len(Page(text).all("figure", class_="view")) == len(view.cards)
    few, colours = make_exam(20)
    counts = [body.count('class="shot') for _, body in PART.findall(render(few, colours))]
    assert len(counts) == len(few.events)
    assert min(counts) > 1


def test_pictures_bear_the_index_and_both_clocks() -> None:
    def stamps(**facts: float) -> list[tuple[str, ...]]:
        study = make_study(**facts)
        event = study.events[0]
        jpeg = cv2.imencode(".jpg", np.zeros((128, 128, 3), np.uint8))[1].tobytes()
        pictures = [StripPicture(index, 128, jpeg) for index in (20, 21)]
        text = render(replace(study, strips={event.id: pictures}))
        stamp = '<span class="stamp"><b>(.*?)</b> <span>(.*?)</span> <span>(.*?)</span></span>'
        return re.findall(stamp, text)

    assert stamps(step_s=0.5)[1] == ("21", "exam 00:00:10", "play 00:00:10")
    assert stamps(step_s=1 / 30)[1] == ("21", "exam unknown", "play 00:00:00.7")
    assert stamps(step_s=1 / 30, capture_fps=3.0)[1] == ("21", "exam 00:00:07", "play 00:00:00.7")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"step_s": 0.5}, "20 s by the exam clock of the file"),
        ({"step_s": 1 / 30, "capture_fps": 3.0}, "13 s by the exam clock, 3 frames a second"),
        ({"step_s": 1 / 30}, "Not known no exam clock: capture rate not known"),
    ],
)
def test_the_transit_time_names_its_clock(facts: dict[str, float], words: str) -> None:
    marks = {"small-bowel": 40 * facts["step_s"], "colon": 80 * facts["step_s"]}
    text = render(replace(make_study(**facts), landmarks=marks))
    (tile,) = re.findall("<dt>Small-bowel transit</dt><dd>([^<]*<small>.*?)</small></dd></div>", text)
    assert tile.replace("<small>", " ") == words
    told = "Times of landmarks are by the playback clock, transit times by the exam clock." in text
    assert told == (facts["step_s"] < 0.1)


def test_what_is_not_as_it_should_be_stands_before_the_findings() -> None:
    study = make_study(spec=replace(SPEC, familiarity=cool_rule()), statuses={100: "corrupt"})
    aside = [replace(frame, detail="unfamiliar") for frame in study.frames[:6]]
    warnings = [RecordingWarning("odd", "an odd field")]
    found = page(replace(study, frames=[*aside, *study.frames[6:]], warnings=warnings))
    before = found.text.split("Colour timeline")[0]
    for words in (
        "Not a medical device.",
        "1 frame (0.8 %) is damaged and could not be looked at.",
        "Unfamiliar pictures. 6 frames (5 % of those looked at) were set aside and raised no event.",
        "1 remark about this file",
    ):
        assert words in before
    assert "an odd field" in found.text.split("All suggestions")[1]


def test_a_report_without_jinja2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    templates._environment.cache_clear()
    with pytest.raises(PackageError, match="needs Jinja2") as caught:
        render_report(make_study(), tool_version="0.0.test")
    assert caught.value.hint == "pip install jinja2"


def test_a_report_says_that_patients_are_unknown() -> None:
    spec = replace(
        make_study().model,
        held_out=HeldOutBy("frame"),
        license=NOT_STATED,
        provenance={"data_license": NOT_STATED},
    )
    page = render(make_study(spec=spec))
    assert "patients unknown: frames were held out one by one" in page
    assert "Licence of the training data" in page
    assert "patients unknown" not in render(make_study())


WEIGHED = SuggestionPrecision(
    (PrecisionAtScore(0.0, 0.1, 0.02, 0.3, 20), PrecisionAtScore(0.6, 0.62, 0.45, 0.77, 40)),
    60,
    "60 suggestions in 9 recordings",
    SuggestionWeights(0.0, {"mean": 1.0}, {"blood_fresh": -3.0}),
)


def test_a_card_shows_score_measured_precision_alternatives_and_similar_places() -> None:
    stretches = [
        (20, 40, "ulcer", 0.7),
        (60, 80, "ulcer", 0.69),  # alike, and 10 s later
        (100, 110, "blood_fresh", 0.9),
    ]
    study = make_study(stretches=stretches, spec=replace(SPEC, suggestions=WEIGHED))
    found = page(study)
    cards = found.all("article", class_="card")
    assert [card["data-label"] for card in cards] == ["ulcer", "blood_fresh"]
    assert len(found.all("a", href="#suggestion-1")) == 2
    assert len([a for a in found.all("a", href="#suggestion-1") if "data-lead" in a]) == 1
    assert "2 suggestions, 2 kinds of finding" in found.text
    assert "from 3 events, to be confirmed" in found.text
    assert "And 1 similar place" in found.text
    assert "Further events at 00:00:30" in found.text
    assert (
        "Of suggestions with such a score, whatever the finding, 62 % were right (45 to 77 %, n = 40)."
        in found.text
    )
    assert "Measured on 60 suggestions in 9 recordings." in found.text
    assert "62 % from a score of 0.60 (45 to 77 %, n = 40)" in found.text
    assert "Probability 0." not in found.text
    assert "estimated probability that the finding is really there" in found.text


def test_a_card_names_the_other_labels_of_its_frames() -> None:
    points = {key: OperatingPoint(0.2) for key in ("ulcer", "blood_fresh")}
    study = make_study(stretches=[(20, 40, "ulcer", 0.5)], spec=replace(SPEC, operating_points=points))
    for frame in study.frames[20:40]:
        frame.probabilities[:] = (0.1, 0.5, 0.4)
    study = replace(
        study,
        events=find_events(study.frames, study.model, median_distance_s=0.5, time_kind="capture"),
        thumbnails={},
        activations={},
    )
    assert len(study.events) == 2
    text = page(study).text
    assert "Or Blood, fresh (0.3" in text
    assert "1 suggestion, 1 kind of finding" in text


def test_without_weights_the_page_says_that_the_worth_was_not_measured() -> None:
    text = page(make_study()).text
    assert "How often suggestions with such a score are right was not measured." in text
    assert "the mean probability of the finding over its frames" in text


def test_a_recording_that_the_model_has_seen_is_told_before_anything_else() -> None:
    warnings = (
        RecordingWarning("seen_in_training", "the model was trained on it"),
        RecordingWarning("odd", "an odd field"),
    )
    found = page(replace(make_study(), warnings=warnings))
    assert len(found.all("section", role="alert")) == 1
    (title, reason, other) = (
        found.text.index(words)
        for words in (
            "This recording is not new to the model",
            "The model was trained on it.",
            "an odd field",
        )
    )
    assert title < reason < found.text.index("Frames read")
    assert found.text.index("About this file") < other
    assert found.text.count("trained on it") == 1


@pytest.mark.quick
def test_frames_that_were_set_aside_are_not_called_free_of_findings() -> None:
    study = make_study(20, ())
    assert has_evidence(study)
    assert "set aside" not in nothing_found(study)
    frames = [replace(frame, detail="unfamiliar") for frame in study.frames]
    some = replace(study, frames=frames[:5] + list(study.frames)[5:])
    assert "read and not set aside, none of" in nothing_found(some)
    whole = replace(study, frames=frames)
    assert not has_evidence(whole)
    assert "Every frame that was read was set aside" in nothing_found(whole)
    assert any("20 frames set aside" in line for line in assessed(whole).silent)
