"""Drive headless Chromium through chromedriver's HTTP interface (W3C WebDriver), without a client library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRIVER = shutil.which("chromedriver")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WHY_NOT = "Chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)"
AVAILABLE = DRIVER is not None and BROWSER is not None

# The browser makes no request of its own, so that every request is one of the page.
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--disable-dev-shm-usage",
)
KEYS = {"ArrowRight": "\ue014", "ArrowLeft": "\ue012", "Escape": "\ue00c", "Tab": "\ue004", "Enter": "\ue007"}


class Browser:
    """One page of one browser."""

    def __init__(self, base: str, session: str) -> None:
        self._base = f"{base}/session/{session}"

    def open(self, page: Path) -> None:
        # Asked for the page that it shows, the driver may return before the page is loaded anew.
        self._post("/url", {"url": "about:blank"})
        self._post("/url", {"url": page.absolute().as_uri()})

    def js(self, body: str, *arguments: Any) -> Any:
        """Run a function body in the page and return its result."""
        return self._post("/execute/sync", {"script": body, "args": list(arguments)})

    def js_later(self, body: str) -> Any:
        """Run a function body in the page and return what it passes to its callback ``arguments[0]``."""
        return self._post("/execute/async", {"script": body, "args": []})

    def settle(self) -> None:
        """Wait until the page is drawn: two frames, since a redraw may request another."""
        self.js_later(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        )

    def press(self, *keys: str) -> None:
        """Press and release keys one after the other, then wait until the page is drawn."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})
        self.settle()

    def hold(self, key: str) -> None:
        """Press a key and keep it down, then wait until the page is drawn."""
        self._act("keyDown", key)

    def release(self, key: str) -> None:
        """Let a key go that ``hold`` pressed, then wait until the page is drawn."""
        self._act("keyUp", key)

    def _act(self, kind: str, key: str) -> None:
        action = {"type": kind, "value": KEYS.get(key, key)}
        self._post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": [action]}]})
        self.settle()

    def size(self, width: int, height: int) -> None:
        # A headless window has a minimum width. This sets the width of the page itself, as on a phone.
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.settle()

    def media(self, *, scheme: str = "light", kind: str = "") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.cdp("Emulation.setEmulatedMedia", media=kind, features=features)
        self.settle()

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """Return errors and warnings of the console since the last call; violations of the page's policy are errors."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Return the addresses requested since the last call."""
        addresses = []
        for entry in self._post("/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                addresses.append(message["params"]["request"]["url"])
        return addresses

    def screenshot(self, path: Path) -> None:
        with urllib.request.urlopen(f"{self._base}/screenshot", timeout=60) as answer:
            path.write_bytes(base64.b64decode(json.load(answer)["value"]))

    def quit(self) -> None:
        urllib.request.urlopen(urllib.request.Request(self._base, method="DELETE"), timeout=30).close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _call(self._base + path, body)


def _call(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None


@contextmanager
def browse(arguments: Sequence[str] = ()) -> Generator[Browser]:
    """Start a browser with an empty profile; stop it and its driver afterwards."""
    assert DRIVER is not None
    assert BROWSER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
        )
        try:
            base = f"http://127.0.0.1:{port}"
            options = {
                "binary": BROWSER,
                "args": [*ARGUMENTS, f"--user-data-dir={profile}", "--window-size=1400,1000", *arguments],
            }
            capabilities = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "WARNING", "performance": "ALL"},
            }
            _await(base)
            made = _call(f"{base}/session", {"capabilities": {"alwaysMatch": capabilities}})
            browser = Browser(base, made["sessionId"])
            try:
                yield browser
            finally:
                browser.quit()
        finally:
            driver.terminate()
            driver.wait(30)


def _await(base: str) -> None:
    """Wait until the driver listens, at most 30 s."""
    until = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{base}/status", timeout=5):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
