"""The files of the page: nothing from elsewhere, no inline script or style, and all texts in one catalogue."""

from __future__ import annotations

import re

import pytest
from paths import ROOT

ASSETS = ROOT / "workstation" / "page" / "assets"
SCRIPTS = sorted(ASSETS.glob("*.js"))
CATALOGUE = (ASSETS / "texts.js").read_text(encoding="utf-8")
KEYS = set(re.findall(r'^  "([^"]+)":', CATALOGUE, re.MULTILINE))


def test_index_has_no_inline_script_or_style_and_nothing_from_elsewhere() -> None:
    html = (ASSETS / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=\"/page/)", html) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|https?:", html) == []
    for name in re.findall(r'(?:src|href)="/page/([^"]+)"', html):
        assert (ASSETS / name).is_file(), name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_html_from_text_and_imports_only_the_page(script) -> None:
    source = script.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|document\.cookie"
    )
    assert re.findall(forbidden, source) == []
    for name in re.findall(r'from "([^"]+)"', source):
        assert (ASSETS / name).is_file(), name
    assert "http://" not in source.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in source


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_text_that_a_script_names_is_in_the_catalogue(script) -> None:
    source = script.read_text(encoding="utf-8")
    named = set(re.findall(r'\btext\(\s*"([^"]+)"', source))
    assert named - KEYS == set()
    # Names with a part that varies need at least one text that begins so.
    for start in re.findall(r"\btext\(`([^`$]+)\$\{", source):
        assert any(key.startswith(start) for key in KEYS), start


def test_no_text_has_two_entries_and_html_names_only_known_ones() -> None:
    entries = re.findall(r'^  "([^"]+)":', CATALOGUE, re.MULTILINE)
    assert len(entries) == len(set(entries))
    html = (ASSETS / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'data-(?:text|label|title)="([^"]+)"', html)) - KEYS == set()


def test_index_preloads_every_script_that_main_imports() -> None:
    # Without this the browser finds the scripts one level of imports after the other.
    html = (ASSETS / "index.html").read_text(encoding="utf-8")
    preloaded = re.findall(r'rel="modulepreload" href="/page/([^"]+)"', html)
    imported = {
        name
        for script in SCRIPTS
        for name in re.findall(r'from "\./([^"]+)"', script.read_text(encoding="utf-8"))
    }
    assert preloaded == sorted(imported)
