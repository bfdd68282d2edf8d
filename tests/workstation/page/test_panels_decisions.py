"""Decisions on the real service: by keys, never shown as saved before they are, and kept when the service is gone."""

from __future__ import annotations

from typing import Any

import pytest
from page_probe import decide, read_store, set_store, wait_until
from page_service import READING, FakeService, make_reading, make_suggestion
from page_station import PageStation, enter_reading, wait_until_saved

DECISIONS = "**/v1/readings/*/decisions/*"


def badge(page: Any, suggestion: int) -> str:
    found = page.locator(f".suggestion[data-id='{suggestion}'] .badge")
    return found.inner_text() if found.count() else ""


def stored(station: PageStation, reading: dict[str, Any]) -> dict[str, Any]:
    """Return the stored decisions of a reading by target."""
    return {each["target"]: each for each in station.get(f"readings/{reading['id']}")["decisions"]}


@pytest.fixture
def reading(station: PageStation, demo: dict[str, Any]) -> dict[str, Any]:
    return station.open_reading(demo["id"])


def test_one_key_confirms_or_rejects_and_two_relabel(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    decide(page, "j", "c", "x", "r", "3")
    wait_until_saved(page)
    decisions = stored(station, reading)
    assert decisions["suggestion:1"]["verdict"] == "confirmed"
    assert decisions["suggestion:2"]["verdict"] == "rejected"
    labels = [each["key"] for each in station.get("session")["labels"] if each["role"] == "finding"]
    assert (decisions["suggestion:3"]["verdict"], decisions["suggestion:3"]["label"]) == (
        "relabelled",
        labels[2],
    )
    assert page.evaluate("document.activeElement.id") == "viewer"
    assert page.inner_text(".head .progress").startswith("3 of 4 decided")
    assert read_store(page, "selected") == [4]


def test_relabelling_to_the_class_of_the_model_confirms(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    own = station.get(f"studies/{reading['study_id']}/suggestions")["suggestions"][0]["label"]
    labels = [each["key"] for each in station.get("session")["labels"] if each["role"] == "finding"]
    decide(page, "j", "r", str(labels.index(own) + 1))
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "confirmed"


def test_moving_on_can_be_switched_off(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    page.uncheck("[data-act=move]")
    decide(page, "j", "c")
    wait_until_saved(page)
    assert read_store(page, "selected") == [1]


def test_letters_that_are_switched_off_decide_nothing(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    page.keyboard.press("j")
    page.evaluate("import('/page/main.js').then(({ page }) => page.store.set({ lettersOn: false }))")
    for key in ("c", "x", "a", "1"):
        page.keyboard.press(key)
    assert read_store(page, "unsaved") == [[]]
    assert stored(station, reading) == {}


def test_findings_of_ones_own_on_a_frame_and_on_a_range(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    decide(page, "a", "2")
    decide(page, "a", "0")
    page.keyboard.press("Shift+ArrowRight")
    wait_until(page, "store.index === 10")
    decide(page, "a", "w")
    page.fill("[data-name=other] input", "diverticulum")
    page.keyboard.press("Enter")
    wait_until_saved(page)
    found = sorted(stored(station, reading).values(), key=lambda each: each["end_index"])
    assert [(each["start_index"], each["end_index"], each["key_index"]) for each in found] == [
        (0, 1, 0),
        (0, 11, 10),
    ]
    assert found[1]["label"] == "other: diverticulum"
    assert page.locator(".finding").count() == 2
    page.click(".finding:nth-child(2) [data-act=select]")
    decide(page, "x")
    wait_until_saved(page)
    assert page.locator(".finding").count() == 1
    page.keyboard.press("u")
    wait_until_saved(page)
    wait_until(page, "document.querySelectorAll('.finding').length === 2")


def test_a_comment_is_shown_as_typed(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    text = "<img src=x onerror=\"document.title='ran'\"> مرحبا"
    page.keyboard.press("j")
    page.keyboard.press("n")
    page.fill("[data-name=comment] textarea", text)
    page.keyboard.press("Control+Enter")
    wait_until_saved(page)
    assert (
        stored(station, reading)["suggestion:1"] | {"verdict": "undecided", "comment": text}
        == stored(station, reading)["suggestion:1"]
    )
    assert page.inner_text(".suggestion p.comment") == text
    assert page.title() != "ran"
    assert page.locator(".suggestion img").count() == 0


def test_the_draft_of_a_comment_does_not_replace_the_comment_of_another_window(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    page.keyboard.press("j")
    page.keyboard.press("n")
    page.fill("[data-name=comment] textarea", "begun here")
    page.keyboard.press("Escape")
    place = f"readings/{reading['id']}/decisions/suggestion:1"
    station.send("PUT", place, {"verdict": "rejected", "version": 0, "comment": "saved there"})
    wait_until(page, "store.reading.decisions[0]?.comment === 'saved there'")
    page.keyboard.press("n")
    assert page.input_value("[data-name=comment] textarea") == "begun here"
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".conflict")
    assert "saved there" in page.inner_text(".conflict")
    assert stored(station, reading)["suggestion:1"]["comment"] == "saved there"


def test_a_verdict_of_another_window_does_not_hold_up_a_comment(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    page.keyboard.press("j")
    page.keyboard.press("n")
    page.fill("[data-name=comment] textarea", "shallow")
    place = f"readings/{reading['id']}/decisions/suggestion:1"
    station.send("PUT", place, {"verdict": "rejected", "version": 0})
    wait_until(page, "store.reading.decisions.length === 1")
    page.keyboard.press("Control+Enter")
    wait_until_saved(page)
    decision = stored(station, reading)["suggestion:1"]
    assert (decision["verdict"], decision["comment"]) == ("rejected", "shallow")


def test_landmarks_by_two_keys_and_one_that_is_refused(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    page.keyboard.press("End")
    wait_until(page, "store.shown?.index === 599")
    decide(page, "l", "2")
    wait_until_saved(page)
    page.keyboard.press("Home")
    wait_until(page, "store.shown?.index === 0")
    decide(page, "l", "3")
    page.wait_for_selector(".conflict")
    assert "Not saved: Colon" in page.inner_text(".conflict")
    page.keyboard.press("u")
    wait_until_saved(page)
    assert list(station.get(f"readings/{reading['id']}")["landmarks"]) == ["small-bowel"]


def test_undo_takes_back_the_last_decision(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    decide(page, "j", "c")
    wait_until_saved(page)
    page.keyboard.press("u")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "undecided"
    page.keyboard.press("u")
    assert "nothing to undo" in page.inner_text("#message")
    assert badge(page, 1) == ""
    # The version that follows an undo is the page's too.
    decide(page, "x")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "rejected"


def test_nothing_is_shown_as_saved_before_it_is(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    held: list[Any] = []
    page.route(DECISIONS, lambda route: held.append(route))
    decide(page, "j", "c")
    wait_until(page, "store.unsaved[0]?.state === 'sending'")
    assert badge(page, 1) == "Confirmed, saving"
    assert page.inner_text(".head .progress").startswith("0 of 4 decided")
    held[0].continue_()
    wait_until_saved(page)
    assert badge(page, 1) == "Confirmed"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (507, "The disk is full"),
        (503, "Another program holds the database"),
    ],
)
def test_what_cannot_be_saved_now_is_kept_and_sent_again(
    station: PageStation, reading: Any, new_page: Any, status: int, words: str
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    error = {"error": {"code": "store", "message": words[0].lower() + words[1:], "hint": "try again"}}
    page.route(DECISIONS, lambda route: route.fulfill(status=status, json=error))
    decide(page, "j", "c")
    page.wait_for_selector(".unsaved:not([hidden])")
    assert words in page.inner_text(".unsaved")
    assert badge(page, 1) == "Confirmed, not saved"
    assert stored(station, reading) == {}
    page.unroute(DECISIONS)
    # It may have been sent again by itself meanwhile.
    page.evaluate("document.querySelector('.unsaved [data-act=retry]')?.click()")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "confirmed"


def test_unsent_decisions_survive_loading_the_page_anew(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    page.route("**/v1/readings/**", lambda route: route.abort())
    decide(page, "j", "c", "x")
    wait_until(page, "store.unsaved[0]?.state === 'unsaved'")
    page.on("dialog", lambda dialog: dialog.accept())
    page.unroute("**/v1/readings/**")
    page.route(DECISIONS, lambda route: route.abort())
    page.reload()
    wait_until(page, "store.reading && store.suggestions.length && store.unsaved.length === 2")
    assert badge(page, 1).startswith("Confirmed, ")
    page.unroute(DECISIONS)
    page.evaluate("dispatchEvent(new Event('online'))")
    wait_until_saved(page)
    assert {name: each["verdict"] for name, each in stored(station, reading).items()} == {
        "suggestion:1": "confirmed",
        "suggestion:2": "rejected",
    }


@pytest.mark.parametrize("keys", [("j", "c"), ("a", "1")], ids=["decision", "finding"])
def test_an_answer_that_was_lost_stores_nothing_twice(
    station: PageStation, reading: Any, new_page: Any, keys: tuple[str, str]
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    versions = []

    def lose(route: Any) -> None:
        versions.append(route.fetch().json()["version"])
        route.abort()

    places = ("**/v1/readings/*/findings", DECISIONS)
    for place in places:
        page.route(place, lose, times=1)
    decide(page, *keys)
    wait_until_saved(page)
    # The version is the number of the line in the log: a second line would have another.
    assert [each["version"] for each in stored(station, reading).values()] == versions
    assert page.locator(".conflict").count() == 0


def test_an_undo_whose_answer_was_lost_undoes_once(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    decide(page, "j", "c", "x")
    wait_until_saved(page)
    page.route("**/v1/readings/*/undo", lambda route: (route.fetch(), route.abort()), times=1)
    page.keyboard.press("u")
    wait_until_saved(page)
    verdicts = {name: each["verdict"] for name, each in stored(station, reading).items()}
    assert verdicts == {"suggestion:1": "confirmed", "suggestion:2": "undecided"}


def test_an_undo_that_was_lost_undoes_nothing_newer_and_says_so(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    lost: list[str] = []

    def lose(route: Any) -> None:
        """Lose the request, and let another window decide before it is sent again."""
        body = {"verdict": "rejected", "version": 0}
        station.send("PUT", f"readings/{reading['id']}/decisions/suggestion:2", body)
        lost.append(route.request.url)
        route.abort()

    page.route("**/v1/readings/*/undo", lose, times=1)
    enter_reading(page, station, reading)
    decide(page, "j", "c")
    wait_until_saved(page)
    page.keyboard.press("u")
    wait_until_saved(page)
    assert len(lost) == 1
    assert "Nothing was undone now" in page.inner_text("#message")
    verdicts = {name: each["verdict"] for name, each in stored(station, reading).items()}
    assert verdicts == {"suggestion:1": "confirmed", "suggestion:2": "rejected"}
    wait_until(page, "store.reading.decisions.length === 2")


def test_an_undo_that_has_nothing_left_to_undo_says_that_it_was_done(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    page.route("**/v1/readings/*/undo", lambda route: (route.fetch(), route.abort()), times=1)
    enter_reading(page, station, reading)
    decide(page, "j", "c")
    wait_until_saved(page)
    page.keyboard.press("u")
    wait_until_saved(page)
    assert "undone already" in page.inner_text("#message")
    # The page shows the reading as it is now.
    wait_until(page, "store.reading.decisions[0].verdict === 'undecided'")


def test_a_landmark_is_removed_once_although_the_answer_was_lost(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    station.send("PUT", f"readings/{reading['id']}/landmarks/stomach", {"index": 5})
    enter_reading(page, station, reading)
    page.route("**/landmarks/stomach*", lambda route: (route.fetch(), route.abort()), times=1)
    page.click(".landmarks [data-act=remove]")
    wait_until_saved(page)
    assert page.locator(".conflict").count() == 0
    assert station.get(f"readings/{reading['id']}")["landmarks"] == {}


def test_a_landmark_that_another_window_set_meanwhile_is_not_removed(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    place = f"readings/{reading['id']}/landmarks/stomach"
    station.send("PUT", place, {"index": 5})
    enter_reading(page, station, reading)

    def lose(route: Any) -> None:
        """Lose the answer, and let another window set the landmark anew."""
        route.fetch()
        station.send("PUT", place, {"index": 9})
        route.abort()

    page.route("**/landmarks/stomach*", lose, times=1)
    page.click(".landmarks [data-act=remove]")
    wait_until_saved(page)
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == 9


@pytest.mark.parametrize(("choice", "index"), [("theirs", 9), ("mine", 0)])
def test_two_windows_that_set_the_same_landmark(
    station: PageStation, reading: Any, new_page: Any, choice: str, index: int
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    place = f"readings/{reading['id']}/landmarks/stomach"
    station.send("PUT", place, {"index": 9, "version": 0, "reader": "Dr. Other"})
    decide(page, "l", "1")
    page.wait_for_selector(".conflict")
    words = page.inner_text(".conflict")
    assert "Decided otherwise in another window: Stomach" in words
    assert "Dr. Other" in words
    assert "frame 9" in words
    assert "frame 0" in words
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == 9
    page.click(f".conflict [data-act={choice}]")
    wait_until_saved(page)
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == index


@pytest.mark.parametrize("choice", ["theirs", "mine"])
def test_a_landmark_that_another_window_moved_is_not_removed_unasked(
    station: PageStation, reading: Any, new_page: Any, choice: str
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    place = f"readings/{reading['id']}/landmarks/stomach"
    station.send("PUT", place, {"index": 5})
    enter_reading(page, station, reading)
    station.send("PUT", place, {"index": 9})
    page.click(".landmarks [data-act=remove]")
    page.wait_for_selector(".conflict:has-text('frame 9'):has-text('Removed')")
    page.click(f".conflict [data-act={choice}]")
    wait_until_saved(page)
    marks = station.get(f"readings/{reading['id']}")["landmarks"]
    assert list(marks) == (["stomach"] if choice == "theirs" else [])


def test_a_landmark_that_another_window_removed_is_set_again_on_request(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    place = f"readings/{reading['id']}/landmarks/stomach"
    station.send("PUT", place, {"index": 5})
    enter_reading(page, station, reading)
    station.send("DELETE", place)
    decide(page, "l", "1")
    page.wait_for_selector(".conflict:has-text('not set any more')")
    page.click(".conflict [data-act=mine]")
    wait_until_saved(page)
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == 0


def test_own_changes_of_a_landmark_in_a_row_are_in_no_conflict(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    held: list[Any] = []
    page.route("**/landmarks/stomach*", lambda route: held.append(route), times=1)
    decide(page, "l", "1")
    page.keyboard.press("End")
    # Set, moved, taken back and moved again before the first answer has come.
    decide(page, "l", "1", "u", "l", "1")
    held[0].continue_()
    wait_until_saved(page)
    assert page.locator(".conflict").count() == 0
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == 599
    page.click(".landmarks [data-act=remove]")
    decide(page, "l", "1")
    wait_until_saved(page)
    assert page.locator(".conflict").count() == 0
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == 599


def test_a_landmark_is_set_once_although_the_answer_was_lost(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    page.route("**/landmarks/stomach*", lambda route: (route.fetch(), route.abort()), times=1)
    decide(page, "l", "1")
    wait_until_saved(page)
    assert page.locator(".conflict").count() == 0
    assert station.get(f"readings/{reading['id']}")["landmarks"]["stomach"]["index"] == 0


@pytest.mark.parametrize(("choice", "verdict"), [("theirs", "rejected"), ("mine", "confirmed")])
def test_two_windows_that_decide_otherwise(
    station: PageStation, reading: Any, new_page: Any, choice: str, verdict: str
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    body = {"verdict": "rejected", "version": 0, "comment": "an artefact", "seconds": 1.0}
    station.send("PUT", f"readings/{reading['id']}/decisions/suggestion:1", body)
    decide(page, "j", "c")
    page.wait_for_selector(".conflict")
    words = page.inner_text(".conflict")
    assert "suggestion 1" in words
    assert "Dr. Test" in words
    assert "Rejected" in words
    assert "an artefact" in words
    assert "Confirmed" in words
    assert badge(page, 1) == "Confirmed, conflict, not saved"
    page.click(f".conflict [data-act={choice}]")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == verdict
    assert badge(page, 1).lower() == verdict


def test_a_conflict_shows_the_decision_that_saving_mine_would_replace(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    place = f"readings/{reading['id']}/decisions/suggestion:1"

    def decide_elsewhere(comment: str, version: int) -> int:
        body = {"verdict": "rejected", "version": version, "comment": comment}
        return station.send("PUT", place, body)["version"]

    version = decide_elsewhere("first", 0)

    def decide_between(route: Any) -> None:
        """Let the other window decide again between the conflict and the reading that is fetched after it."""
        nonlocal version
        version = decide_elsewhere("second", version)
        route.continue_()

    page.route(f"**/v1/readings/{reading['id']}", decide_between, times=1)
    decide(page, "j", "c")
    page.wait_for_selector(".conflict:has-text('second')")
    decide_elsewhere("third", version)
    page.click(".conflict [data-act=mine]")
    # The third decision was never shown, so it is not replaced.
    page.wait_for_selector(".conflict:has-text('third')")
    assert stored(station, reading)["suggestion:1"]["comment"] == "third"
    page.click(".conflict [data-act=mine]")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "confirmed"


def test_mine_is_saved_over_what_is_shown_where_the_reading_cannot_be_fetched(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    place = f"readings/{reading['id']}/decisions/suggestion:1"
    station.send("PUT", place, {"verdict": "rejected", "version": 0})
    page.route(f"**/v1/readings/{reading['id']}", lambda route: route.abort())
    decide(page, "j", "c")
    page.click(".conflict [data-act=mine]")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "confirmed"


def test_a_decision_that_a_finished_reading_refuses_is_no_decision_of_another_window(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    station.send("POST", f"readings/{reading['id']}/finish")
    decide(page, "j", "c")
    page.wait_for_selector(".conflict")
    words = page.inner_text(".conflict")
    assert "Not saved: suggestion 1" in words
    assert "finished" in words
    assert "Decided otherwise" not in words
    station.send("POST", f"readings/{reading['id']}/reopen")
    page.click(".conflict [data-act=mine]")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "confirmed"


def test_another_windows_decision_appears_by_itself(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    wait_until(page, "store.connected")
    station.send(
        "PUT",
        f"readings/{reading['id']}/decisions/suggestion:2",
        {"verdict": "confirmed", "version": 0, "seconds": 1},
    )
    wait_until(page, "document.querySelector(\".suggestion[data-id='2'] .badge\")")
    assert badge(page, 2) == "Confirmed"


def test_a_key_acts_on_what_was_selected_last(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    page.keyboard.press("j")
    decide(page, "a", "2")
    wait_until_saved(page)
    page.click(".finding [data-act=select]")
    # A click on the suggestion that was selected before the finding changes no other key of the store.
    top, share = page.evaluate(
        """async () => {
          const [{ page }, { rowsOf }] = await Promise.all([import('/page/main.js'), import('/page/timeline.js')]);
          const state = page.store.get();
          const events = rowsOf(state).filter(({ kind }) => kind === 'events')
            .flatMap((row) => row.facts.events.map((event) => ({ row, event })));
          const { row, event } = events.find(({ event }) => event.suggestion === 1);
          return [row.top + row.height / 2, (event.start_index + event.end_index) / 2 / state.study.recording.frames];
        }"""
    )
    box = page.locator(".slider").bounding_box()
    page.mouse.click(box["x"] + share * box["width"], box["y"] + top)
    assert read_store(page, "selected", "selectedFinding") == [1, None]
    decide(page, "x")
    wait_until_saved(page)
    decided = {name.partition(":")[0]: each["verdict"] for name, each in stored(station, reading).items()}
    assert decided == {"suggestion": "rejected", "finding": "added"}


def test_a_removed_finding_is_no_longer_chosen(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    page.keyboard.press("j")
    decide(page, "a", "2")
    wait_until_saved(page)
    page.click(".finding [data-act=select]")
    decide(page, "x")
    assert read_store(page, "selected", "selectedFinding") == [None, None]
    # A second press must neither remove it again nor reject the suggestion that was selected before.
    page.keyboard.press("x")
    assert "Select a suggestion first" in page.inner_text("#message")
    wait_until_saved(page)
    assert page.locator(".conflict").count() == 0
    assert stored(station, reading) == {}


def _meet_conflict(page: Any, station: PageStation, reading: dict[str, Any]) -> None:
    """Decide on the first suggestion twice, after another window has relabelled it."""
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    own = station.get(f"studies/{reading['study_id']}/suggestions")["suggestions"][0]["label"]
    other = next(each["key"] for each in station.get("session")["labels"] if each["key"] != own)
    body = {"verdict": "relabelled", "label": other, "version": 0, "seconds": 1.0}
    station.send("PUT", f"readings/{reading['id']}/decisions/suggestion:1", body)
    page.uncheck("[data-act=move]")
    decide(page, "j", "c")
    page.wait_for_selector(".conflict")
    decide(page, "x")


def test_keeping_the_saved_decision_keeps_it_from_the_next_action_too(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    _meet_conflict(page, station, reading)
    page.click(".conflict [data-act=theirs]")
    # The second decision was made on top of the first. It is not sent: the reader chooses again.
    wait_until(page, "store.unsaved.length === 1 && store.unsaved[0].state === 'conflict'")
    assert "Rejected" in page.inner_text(".conflict")
    assert stored(station, reading)["suggestion:1"]["verdict"] == "relabelled"
    page.click(".conflict [data-act=theirs]")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "relabelled"


def test_saving_mine_instead_carries_the_next_action_with_it(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    _meet_conflict(page, station, reading)
    page.click(".conflict [data-act=mine]")
    wait_until_saved(page)
    assert page.locator(".conflict").count() == 0
    assert stored(station, reading)["suggestion:1"]["verdict"] == "rejected"


def test_a_waiting_action_does_not_rest_on_what_another_window_saved(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    page.uncheck("[data-act=move]")
    place = f"readings/{reading['id']}/decisions/suggestion:1"

    def answer_late(route: Any) -> None:
        """Let another window decide between the request and its answer."""
        answer = route.fetch()
        body = {"verdict": "confirmed", "comment": "seen twice", "version": answer.json()["version"]}
        station.send("PUT", place, body)
        page.keyboard.press("x")
        route.fulfill(response=answer)

    page.route(DECISIONS, answer_late, times=1)
    decide(page, "j", "c")
    page.wait_for_selector(".conflict")
    assert "seen twice" in page.inner_text(".conflict")
    assert stored(station, reading)["suggestion:1"]["verdict"] == "confirmed"


@pytest.mark.parametrize("kind", ["finding", "landmark"])
def test_what_was_refused_can_be_saved_by_trying_again(
    station: PageStation, reading: Any, new_page: Any, kind: str
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, reading)
    place = {"finding": "**/v1/readings/*/findings", "landmark": "**/v1/readings/*/landmarks/*"}[kind]
    keys = {"finding": ("a", "2"), "landmark": ("l", "2")}[kind]
    if kind == "landmark":
        station.send("PUT", f"readings/{reading['id']}/landmarks/small-bowel", {"index": 7})
        wait_until(page, "store.reading.landmarks['small-bowel']")
    refusal = {"error": {"code": "invalid", "message": "not now", "hint": ""}}
    page.route(place, lambda route: route.fulfill(status=422, json=refusal), times=1)
    decide(page, *keys)
    page.wait_for_selector(".conflict")
    page.click(".conflict [data-act=mine]")
    wait_until_saved(page)
    now = station.get(f"readings/{reading['id']}")
    assert len(now["decisions"]) == (kind == "finding")
    assert {mark["index"] for mark in now["landmarks"].values()} == ({0} if kind == "landmark" else set())


def test_a_key_decides_only_on_the_suggestion_on_the_screen(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    page.uncheck("[data-act=move]")
    decide(page, "j", "x")
    wait_until_saved(page)
    assert page.inner_text("#message span") == f"Rejected: 1 {name_of(page, 1)}."
    elsewhere = free_frame(page)
    for key in ("c", "x", "r"):
        page.evaluate("(at) => import('/page/main.js').then(({ page }) => page.viewer.show(at))", elsewhere)
        wait_until(page, f"store.shown?.index === {elsewhere}")
        page.keyboard.press(key)
        assert f"frame {elsewhere} is not of suggestion 1" in page.inner_text("#message")
        assert page.locator(".picker").is_hidden()
    assert read_store(page, "unsaved") == [[]]
    page.keyboard.press("Enter")
    decide(page, "c")
    wait_until_saved(page)
    assert page.inner_text("#message span") == f"Confirmed: 1 {name_of(page, 1)}. Before it was rejected."
    # A button of the card is explicit. It shows what it decides on and stays there.
    page.check("[data-act=move]")
    page.evaluate("(at) => import('/page/main.js').then(({ page }) => page.viewer.show(at))", elsewhere)
    wait_until(page, f"store.shown?.index === {elsewhere}")
    page.click(".suggestion .verb.reject")
    wait_until_saved(page)
    assert stored(station, reading)["suggestion:1"]["verdict"] == "rejected"
    assert read_store(page, "selected") == [1]
    wait_until(page, f"store.shown?.index === {peak_of(page, 1)}")


def test_a_suggestion_whose_picture_was_not_seen_is_not_decided(
    station: PageStation, reading: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    held: list[Any] = []
    second = peak_of(page, 2)
    page.route(f"**/frames/{second}", lambda route: held.append(route))
    decide(page, "j", "c")
    assert read_store(page, "selected") == [2]
    page.keyboard.press("c")
    assert "suggestion 2" in page.inner_text("#message")
    assert "not on the screen long enough" in page.inner_text("#message")
    wait_until_saved(page)
    assert list(stored(station, reading)) == ["suggestion:1"]
    for route in held:
        route.continue_()
    page.unroute(f"**/frames/{second}")
    decide(page, "c")
    wait_until_saved(page)
    assert sorted(stored(station, reading)) == ["suggestion:1", "suggestion:2"]


def test_undo_leads_back_to_what_it_took_back(station: PageStation, reading: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, reading)
    decide(page, "j", "c")
    wait_until_saved(page)
    assert read_store(page, "selected") == [2]
    page.click(".head .verb.undo")
    wait_until_saved(page)
    wait_until(page, f"store.selected === 1 && store.shown?.index === {peak_of(page, 1)}")
    assert (
        page.inner_text("#message span") == f"Undone: Confirmed, 1 {name_of(page, 1)}. It is undecided now."
    )
    decide(page, "a", "2")
    wait_until_saved(page)
    at = read_store(page, "index")[0]
    page.keyboard.press("End")
    wait_until(page, "store.shown?.index === 599")
    page.keyboard.press("u")
    wait_until_saved(page)
    wait_until(page, f"store.shown?.index === {at}")
    assert "Undone: your finding" in page.inner_text("#message span")


def name_of(page: Any, suggestion: int) -> str:
    return next(each["name"] for each in read_store(page, "suggestions")[0] if each["id"] == suggestion)


def peak_of(page: Any, suggestion: int) -> int:
    found = next(each for each in read_store(page, "suggestions")[0] if each["id"] == suggestion)
    return found["events"][0]["peak_index"]


def free_frame(page: Any) -> int:
    """Return the first frame that belongs to no suggestion."""
    events = [event for each in read_store(page, "suggestions")[0] for event in each["events"]]
    return next(
        index
        for index in range(600)
        if not any(event["start_index"] <= index <= event["end_index"] for event in events)
    )


def test_a_conflict_about_a_suggestion_that_is_not_loaded_names_no_rank(open_page: Any) -> None:
    service = FakeService(suggestions=[make_suggestion(7, "polyp", 290, 310)], reading=make_reading())
    page = open_page(service)
    theirs = {
        "target": "suggestion:7", "verdict": "rejected", "label": "polyp", "comment": "", "reader": "Dr. Other",
        "decided_at": "2026-11-30T10:00:00.000000Z", "version": 3,
    }  # fmt: skip
    action = {
        "id": "a", "readingId": READING, "kind": "decision", "target": "suggestion:7", "state": "conflict",
        "body": {"verdict": "confirmed", "version": 0}, "error": {"message": "", "body": {"current": theirs}},
    }  # fmt: skip
    set_store(page, suggestions=[], unsaved=[action])
    assert page.inner_text(".conflict h3").endswith("another window: a suggestion")
    set_store(page, suggestions=service.suggestions)
    assert page.inner_text(".conflict h3").endswith("another window: suggestion 1, Polyp")
