"""Make the README's picture: the report of the demo recording, by the installed package and its default model.

    python tests/report_picture.py docs/report.png

Needs Chromium and chromedriver.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import AVAILABLE, WHY_NOT, browse

from capsule_edge.cli.main import main as run

WIDTH, HEIGHT = 1280, 900


def make_picture(target: Path) -> None:
    """Run the demo in a temporary folder and write its report's first screen as PNG."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(["run", "--demo", "--out", folder, "--overwrite"])
        except SystemExit as ended:
            if ended.code:
                raise
        with browse() as browser:
            browser.size(WIDTH, HEIGHT)
            browser.media()
            browser.open(Path(folder) / "report.html")
            browser.settle()
            browser.screenshot(target)


if __name__ == "__main__":
    if not AVAILABLE:
        raise SystemExit(WHY_NOT)
    if len(sys.argv) != 2:
        raise SystemExit(f"{len(sys.argv) - 1} arguments, needed is the path of the picture")
    make_picture(Path(sys.argv[1]))
