"""Run the ``main`` of a module that is started with ``python -m``, with the exit codes of the command line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.termination import as_interrupted, catch_termination

__all__ = ["run_module"]


def run_module(main: Callable[[], None]) -> NoReturn:
    """Call ``main`` and exit the interpreter.

    A ``CapsuleEdgeError`` is printed as one line on stderr and gives its own exit code. Ctrl-C gives 130 and SIGTERM
    143. If the reader of stdout has closed it, nothing is printed and the exit code is 1.
    """
    code = 0
    try:
        with catch_termination():
            main()
        sys.stdout.flush()
    except CapsuleEdgeError as error:
        code = _print_error(error)
    except KeyboardInterrupt as error:
        code = _print_error(as_interrupted(error, "nothing more was written"))
    except BrokenPipeError:
        # The reader of stdout (head, a pager) has exited. Redirect stdout, or the interpreter fails to flush it.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _print_error(error: CapsuleEdgeError) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return error.exit_code
