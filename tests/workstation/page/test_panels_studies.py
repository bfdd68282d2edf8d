"""The list of examinations, the examination banner and the models, on the real service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_probe import read_store, wait_until
from page_station import PageStation

from capsule_edge.runtime.phantom import Phantom, write_recording


def open_list(page: Any, station: PageStation) -> None:
    # A page that is open already would only see another fragment, and load itself anew later.
    page.goto("about:blank")
    page.goto(station.address)
    wait_until(page, "store.session && store.connected")


def test_the_token_leaves_the_address_bar(station: PageStation, new_page: Any) -> None:
    page = new_page()
    open_list(page, station)
    assert "token" not in page.url


def test_an_empty_store_says_how_to_begin(station: PageStation, new_page: Any) -> None:
    page = new_page()
    page.route("**/v1/studies?*", lambda route: route.fulfill(json={"studies": [], "total": 0}))
    open_list(page, station)
    assert "No examinations yet" in page.inner_text(".welcome")


def test_a_recording_is_added_from_a_folder_searched_and_deleted(station: PageStation, new_page: Any) -> None:
    page = new_page()
    open_list(page, station)
    page.click("[data-act=folder]")
    dialog = page.locator("dialog[data-name=folder]")
    dialog.locator("[data-act='short.mp4']").wait_for()
    assert "1 recording. Enter adds it." in dialog.inner_text()
    dialog.locator("[name=path]").fill("SHOR")
    dialog.locator("[name=path]").press("Enter")
    row = page.locator("tr[data-id]").filter(has_text="short.mp4")
    row.wait_for()
    page.fill(".studies-head input", "no such examination")
    page.wait_for_selector(".welcome:not([hidden])")
    assert "no such examination" in page.inner_text(".welcome")
    page.fill(".studies-head input", "short")
    row.wait_for()
    row.locator("[data-act=delete]").click()
    page.click("dialog[data-name=delete] footer [data-act=plain]")
    assert row.count() == 1
    row.locator("[data-act=delete]").click()
    assert "The recording stays in its folder" in page.inner_text("dialog[data-name=delete]")
    page.click("dialog[data-name=delete] [type=submit]")
    row.wait_for(state="detached")


def test_a_path_outside_the_folders_is_refused_in_the_dialog(station: PageStation, new_page: Any) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.click("[data-act=folder]")
    dialog = page.locator("dialog[data-name=folder]")
    dialog.locator("[data-act='short.mp4']").wait_for()
    dialog.locator("[name=path]").fill("../../etc/passwd")
    dialog.locator("[type=submit]").click()
    dialog.locator(".trouble:not([hidden])").wait_for()
    trouble = dialog.locator(".trouble").inner_text()
    assert "no recording at this path" in trouble
    assert "/v1/" not in trouble
    assert dialog.locator("[name=path]").input_value() == "../../etc/passwd"


def test_a_file_is_uploaded_and_one_that_is_no_recording_refused(
    station: PageStation, new_page: Any, tmp_path: Path
) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.click("[data-act=upload]")
    dialog = page.locator("dialog[data-name=upload]")
    text = tmp_path / "<b>letter<b>.mp4"
    text.write_text("Dear reader", encoding="utf-8")
    dialog.locator("[type=file]").set_input_files(text)
    dialog.locator("[type=submit]").click()
    dialog.locator(".trouble:not([hidden])").wait_for()
    write_recording(tmp_path / "up.mp4", Phantom(5, frames=12, size=64))
    dialog.locator("[type=file]").set_input_files(tmp_path / "up.mp4")
    dialog.locator("[type=submit]").click()
    dialog.wait_for(state="detached")
    row = page.locator("tr[data-id]").filter(has_text="up.mp4")
    row.wait_for()
    assert "uploaded" in row.inner_text()
    station.send("DELETE", f"studies/{row.get_attribute('data-id')}")
    row.wait_for(state="detached")


def test_a_job_is_shown_live_cancelled_and_tried_again(station: PageStation, new_page: Any) -> None:
    page = new_page()
    open_list(page, station)
    study = station.add_short()
    row = page.locator(f"tr[data-id='{study['id']}']")
    row.locator("[data-act=cancel]").click()
    row.locator(".job[data-state=cancelled]").wait_for()
    row.locator("[data-act=retry]").click()
    row.locator(".job[data-state=read]").wait_for(timeout=200_000)
    assert station.get(f"studies/{study['id']}")["job"]["state"] == "done"
    assert "40 frames" in row.inner_text()
    station.send("DELETE", f"studies/{study['id']}")
    row.wait_for(state="detached")


def test_a_job_that_failed_says_why(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page()
    error = {"code": "input", "message": "the recording is gone", "hint": "put it back and try again"}
    broken = {
        **demo,
        "state": "failed",
        "error": error,
        "job": {**demo["job"], "state": "failed", "error": error},
    }
    page.route("**/v1/studies?*", lambda route: route.fulfill(json={"studies": [broken], "total": 1}))
    open_list(page, station)
    page.wait_for_selector(".job[data-state=failed]")
    assert "The recording is gone. Put it back and try again." in page.inner_text(".job")
    assert page.locator("[data-act=retry]").count() == 1


LONG = "Ж" * 2000 + "<script>document.title='ran'</script>" + "x" * 1900
NAMES = ["Σωκράτης O'Neill", "مريم بنت محمد", "<img src=x onerror=document.title='ran'>"]


def test_names_are_shown_as_typed_and_break_nothing(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page()
    for name in (*NAMES, LONG):
        change(station, demo, patient_name=name, indication=name, preparation=name)
        open_list(page, station)
        row = page.locator(f"tr[data-id='{demo['id']}']")
        row.wait_for()
        assert row.locator("td:nth-child(2)").text_content() == name
        row.locator("[data-act=open]").click()
        page.wait_for_selector("dialog[data-name=reading]")
        page.keyboard.press("Escape")
        assert page.text_content("[data-field=patient_name] dd") == name
        assert page.title() != "ran"
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        box = page.locator("#banner").bounding_box()
        assert box
        assert box["height"] < 80
    assert page.locator("#banner [data-act=edit]").is_visible()
    change(station, demo, patient_name="", indication="", preparation="")


def test_two_windows_that_edit_the_examination(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    page.click("#banner [data-act=edit]")
    dialog = page.locator("dialog[data-name=examination]")
    dialog.locator("[name=patient_name]").fill("Mine")
    dialog.locator("[name=indication]").fill("anaemia")
    dialog.locator("[name=reader]").fill("Dr. Test")
    change(station, demo, patient_name="Theirs")
    dialog.locator("[type=submit]").click()
    dialog.locator(".conflict:not([hidden])").wait_for()
    assert "Theirs" in dialog.locator(".conflict").inner_text()
    assert dialog.locator("[name=indication]").input_value() == "anaemia"
    assert station.get(f"studies/{demo['id']}")["examination"]["patient_name"] == "Theirs"
    dialog.locator("[data-act=theirs-patient_name]").click()
    dialog.locator("[type=submit]").click()
    dialog.wait_for(state="detached")
    examination = station.get(f"studies/{demo['id']}")["examination"]
    assert (examination["patient_name"], examination["indication"]) == ("Theirs", "anaemia")
    change(station, demo, patient_name="", indication="")


def test_what_is_typed_survives_an_expired_session(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    page.click("#banner [data-act=edit]")
    page.fill("dialog[data-name=examination] [name=preparation]", "two litres of PEG")
    page.goto("about:blank")
    open_list(page, station)
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    page.click("#banner [data-act=edit]")
    assert page.input_value("dialog[data-name=examination] [name=preparation]") == "two litres of PEG"


def edit_examination(page: Any) -> Any:
    page.click("#banner [data-act=edit]")
    return page.locator("dialog[data-name=examination]")


def test_a_draft_does_not_replace_what_another_window_saved(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    dialog = edit_examination(page)
    dialog.locator("[name=indication]").fill("begun here")
    page.keyboard.press("Escape")
    change(station, demo, patient_name="Theirs", indication="saved there")
    wait_until(page, "store.study.examination.patient_name === 'Theirs'")
    edit_examination(page)
    assert "filled in again" in dialog.inner_text()
    assert dialog.locator("[name=patient_name]").input_value() == "Theirs"
    assert dialog.locator("[name=indication]").input_value() == "begun here"
    dialog.locator("[name=reader]").fill("Dr. Test")
    dialog.locator("[type=submit]").click()
    dialog.locator(".conflict:not([hidden])").wait_for()
    assert "saved there" in dialog.locator(".conflict").inner_text()
    assert station.get(f"studies/{demo['id']}")["examination"]["indication"] == "saved there"
    dialog.locator("[type=submit]").click()
    dialog.wait_for(state="detached")
    examination = station.get(f"studies/{demo['id']}")["examination"]
    assert (examination["patient_name"], examination["indication"]) == ("Theirs", "begun here")
    change(station, demo, patient_name="", indication="")


@pytest.mark.parametrize("way", ["cancel", "forget"])
def test_a_draft_that_is_given_up_does_not_come_back(
    station: PageStation, demo: Any, new_page: Any, way: str
) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    dialog = edit_examination(page)
    dialog.locator("[name=preparation]").fill("of another patient")
    if way == "forget":
        page.keyboard.press("Escape")
        edit_examination(page)
        dialog.locator("[data-act=forget]").click()
        assert dialog.locator("[name=preparation]").input_value() == ""
        page.keyboard.press("Escape")
    else:
        dialog.locator("footer [data-act=plain]").click()
    edit_examination(page)
    assert dialog.locator("[name=preparation]").input_value() == ""
    assert "filled in again" not in dialog.inner_text()


def test_models_are_used_and_rolled_back(station: PageStation, new_page: Any) -> None:
    page = new_page()
    open_list(page, station)
    page.click("[data-act=models]")
    page.wait_for_selector(".models li")
    used = next(each for each in station.get("models")["models"] if each["in_use"])["sha256"]
    other = next(each for each in station.get("models")["models"] if not each["in_use"])["sha256"]
    page.click(f"[data-act='use-{other}']")
    page.wait_for_selector(f".models li[data-sha256='{other}'][data-in-use=true]")
    page.click("[data-act=rollback]")
    page.wait_for_selector(f".models li[data-sha256='{used}'][data-in-use=true]")
    assert next(each for each in station.get("models")["models"] if each["in_use"])["sha256"] == used
    assert read_store(page, "view") == ["studies"]


def test_a_file_that_is_no_model_is_refused_in_the_dialog(
    station: PageStation, new_page: Any, tmp_path: Path
) -> None:
    page = new_page(quiet=False)
    open_list(page, station)
    page.click("[data-act=models]")
    page.wait_for_selector(".models li")
    text = tmp_path / "model.onnx"
    text.write_text("no model", encoding="utf-8")
    page.set_input_files("dialog[data-name=models] [type=file]", text)
    page.wait_for_selector("dialog[data-name=models] .trouble:not(:empty)")


def change(station: PageStation, study: dict[str, Any], **fields: str) -> None:
    version = station.get(f"studies/{study['id']}")["examination_version"]
    body = {"reader": "Dr. Other", "version": version, **fields}
    station.send("PATCH", f"studies/{study['id']}/examination", body)


def test_a_birth_date_in_the_future_is_refused(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page()
    open_list(page, station)
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    page.click("#banner [data-act=edit]")
    dialog = page.locator("dialog[data-name=examination]")
    dialog.locator("[name=reader]").fill("Dr. Test")
    dialog.locator("[name=birth_date]").fill("2999-01-31")
    dialog.locator("[type=submit]").click()
    assert dialog.locator(".trouble").inner_text() == "The birth date 2999-01-31 is in the future."
    assert station.get(f"studies/{demo['id']}")["examination"]["birth_date"] == ""


def test_deleting_names_the_patient_and_the_list_leads_back_to_readings(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page()
    readings = [{"id": "1" * 32, "reader": "Dr. A", "state": "finished"}]
    finished = {**demo, "id": "3" * 32, "readings": readings, "examination": {"patient_name": "Ada Lovelace"}}
    opened = {
        **demo,
        "id": "4" * 32,
        "readings": [*readings, {"id": "2" * 32, "reader": "B", "state": "open"}],
    }
    rows = [finished, opened, {**demo, "id": "5" * 32, "readings": []}]
    page.route("**/v1/studies?*", lambda route: route.fulfill(json={"studies": rows, "total": 3}))
    open_list(page, station)
    page.wait_for_selector("tr[data-id]")
    verbs = page.locator("td [data-act=enter]")
    assert verbs.all_inner_texts() == ["Open", "Go on", "Read"]
    assert [each.get_attribute("class") for each in verbs.all()] == ["primary", "primary", "plain"]
    page.locator("tr [data-act=delete]").first.click()
    assert "Patient: Ada Lovelace" in page.inner_text("dialog[data-name=delete]")
