"""Recordings that arrive while they are read: pipes, cameras (RTSP, HTTP), and JSON lines for other programs.

In: a byte stream or a network address. Out: predictions, and lines of the schema ``capsule-edge/lines/2``.
Must not know: result folders. Only the command line and the package's door import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .json_lines import Lines
    from .live import Live, live_address
    from .pipe import read_pipe
    from .pipe_formats import Feed, parse_feed
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        json_lines="Lines",
        live="Live live_address",
        pipe="read_pipe",
        pipe_formats="Feed parse_feed",
    )

__all__ = ["Feed", "Lines", "Live", "live_address", "parse_feed", "read_pipe"]
