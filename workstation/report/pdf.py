"""Make a PDF of a report with WeasyPrint, without access to files or the network."""

from __future__ import annotations

import logging

from capsule_edge.runtime.errors import PackageError

__all__ = ["write_pdf"]


def write_pdf(page: str) -> bytes:
    """Return a report as PDF.

    Args:
        page: the HTML of the report; of its addresses, only ``data:`` is followed.

    Raises:
        PackageError: WeasyPrint, or the library Pango that it needs, is not installed.
    """
    try:
        import weasyprint
        from weasyprint.urls import URLFetcher
    except ImportError as error:
        raise PackageError(
            "a PDF needs WeasyPrint, which is not installed", hint="pip install 'capsule-edge[serve]'"
        ) from error
    except OSError as error:
        # WeasyPrint is a Python package; it loads Pango when it is imported.
        raise PackageError(
            "a PDF needs the library Pango, which is not installed",
            hint="install Pango (Debian: libpango-1.0-0 libpangoft2-1.0-0), or print the HTML report to PDF",
        ) from error
    # It would log every rule that is meant for browsers.
    logging.getLogger("weasyprint").setLevel(logging.ERROR)
    fetcher = URLFetcher(allowed_protocols=("data",), allow_redirects=False)
    content: bytes = weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf()
    return content
