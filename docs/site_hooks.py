"""Copy the files outside ``docs/`` that the pages link to into the site, so that every link works there too."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Where the copies lie in the site.
FOLDER = "files"
_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add each linked file outside ``docs/`` to the site."""
    for page in list(files.documentation_pages()):
        for _, target in _LINK.findall(page.content_string):
            path = _outside(page.src_uri, target)
            if path and (ROOT / path).is_file() and files.get_file_from_path(_site_path(path)) is None:
                copy = File.generated(config, _site_path(path), abs_src_path=str(ROOT / path))
                files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point each link to a file outside ``docs/`` to its copy."""
    source = page.file.src_uri

    def replace(match: re.Match[str]) -> str:
        path = _outside(source, match[2])
        if not path or not (ROOT / path).is_file():
            return match[0]
        return match[1] + posixpath.relpath(_site_path(path), posixpath.dirname(source) or ".")

    return _LINK.sub(replace, markdown)


def _outside(source: str, target: str) -> str:
    """Return the path from the root of the repository, empty for a target inside ``docs/``."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), target))
    return "" if path.startswith("docs/") else path


def _site_path(path: str) -> str:
    # A Markdown file becomes a page; anything else is copied as it is.
    return f"{FOLDER}/{path}"
