"""How a module of the project ends that is run by ``python -m``: as the command line does."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from capsule_edge.runtime.errors import CapsuleEdgeError, Interrupted

__all__ = ["run_module"]


def run_module(main: Callable[[], None]) -> NoReturn:
    """Call ``main`` and exit: an error of ours is one line and its code, and who has gone is told nothing."""
    code = 0
    try:
        main()
        sys.stdout.flush()
    except CapsuleEdgeError as error:
        code = _say(error)
    except KeyboardInterrupt:
        code = _say(Interrupted("interrupted, nothing more was written"))
    except BrokenPipeError:
        # Whoever read us (head, a pager) has gone; the interpreter must not try to flush again at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _say(error: CapsuleEdgeError) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return error.exit_code
