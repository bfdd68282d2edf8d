"""Check that the pages of a built site load nothing from other hosts. Ordinary links may lead there.

python .ci/check_site.py SITE
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

# The attribute of each element by which a browser loads a file.
_LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}
# Links that name a page rather than load a file.
_NAMES = {"canonical", "next", "prev", "alternate"}


class _Loads(HTMLParser):
    """Collect the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") not in _NAMES:
            self.found.append(values.get("href") or "")
        elif tag in _LOADS:
            self.found.append(values.get(_LOADS[tag]) or "")


def foreign_loads(site: Path) -> list[str]:
    """Return ``page: address`` for each address outside the site that a page or a style sheet loads."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            parser = _Loads()
            parser.feed(path.read_text("utf-8"))
            loads = parser.found
        elif path.suffix == ".css":
            loads = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", path.read_text("utf-8"))
        else:
            continue
        found += [f"{path.relative_to(site)}: {load}" for load in loads if re.match(r"(https?:)?//", load)]
    return found


def main() -> None:
    site = Path(sys.argv[1])
    pages = len(list(site.rglob("*.html")))
    if not pages:
        raise SystemExit(f"error: {site} holds no page")
    if found := foreign_loads(site):
        raise SystemExit("error: the site loads files from other hosts:\n" + "\n".join(found))
    print(f"{pages} pages load nothing from other hosts")


if __name__ == "__main__":
    main()
