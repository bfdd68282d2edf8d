"""``capsule-edge``, the command line: parse the arguments, call the package, print. Errors become one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, NoReturn

import click

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.termination import as_interrupted, catch_termination

from ._options import HELP_OPTIONS

__all__ = ["COMMANDS", "cli", "main"]

# The module of a command has the command's name, with "_" for "-", and offers it as ``command``. A module is
# imported only when its command is called. The overview imports none, so its lines stand here.
COMMANDS = {
    "run": "Read recordings and write what was found.",
    "info": "Print what a model file says about itself.",
    "serve": "Start the reading workstation: a service and a page on this machine.",
    "models": "List the workstation's models, add one, use one, or go back to the one before.",
    "verify-log": "Check the log of a reading: nothing changed, missing or cut.",
    "doctor": "Check every inference engine on this machine and name the fastest.",
    "demo-data": "Make a small synthetic data set to try the other commands on.",
    "evaluate": "Measure a model on labelled frames.",
    "compare": "Certify an INT8 model against its FP32 original.",
    "split": "Divide a data set into splits by video.",
    "archive": "Read many recordings, on this machine or on a Ray cluster.",
    "audit": "Find faults of a data set that would make its figures misleading.",
    "explain": "Show which parts of an image a model relies on.",
    "bench": "Measure latency, throughput, cold start and memory of model files.",
    "train": "Train a model, FP32 and then INT8.",
    "export-dicom": "Write the findings of a recording as DICOM objects.",
    "export": "Export a trained run to ONNX and TFLite, verified.",
    "adopt": "Adopt a classifier that was trained elsewhere: FP32 and INT8 files, verified.",
}

# How an error is printed: as a line for people, a JSON document (--json) or a JSON line (--jsonl).
_ErrorFormat = Literal["text", "json", "jsonl"]


class _LazyGroup(click.Group):
    """Find sub-commands by name and import only the one that is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for name in COMMANDS if find_spec(_module_of(name))]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        command: click.Command = import_module(_module_of(name)).command
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(context)
        if args and args[0] not in known and not args[0].startswith("-"):
            # The first word may be a recording, where "run" was forgotten.
            shown = "of that name" if "--anonymous" in args else repr(args[0])
            raise click.UsageError(f"no command {shown}, the commands are {', '.join(known)}", context)
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(context)])


def _module_of(name: str) -> str:
    return f"{__package__}.{name.replace('-', '_')}"


@click.group(
    cls=_LazyGroup,
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge run --demo\n  capsule-edge run --help",
)
@click.version_option(package_name="capsule-edge", prog_name="capsule-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Read capsule endoscopy recordings with a neural network, and train, convert and test such networks.

    For research, not a medical device: findings are suggestions to be confirmed by a physician.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code.

    Args:
        arguments: the words after ``capsule-edge``; None takes those of this process.
    """
    args = list(sys.argv[1:] if arguments is None else arguments)
    # OpenCV would log a second account of a fault that our error line already reports. It reads this
    # variable once, when it is loaded.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    _bound_threads()
    for stream in (sys.stdout, sys.stderr):
        # A Windows code page can print neither every file name nor the characters of the tables.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        with catch_termination():
            code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output (head, a pager) has gone. Point stdout to nowhere, or the interpreter
        # would try to flush it again at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _bound_threads() -> None:
    """Keep the thread pools of OpenCV and NumPy within a CPU quota; they read these variables when they are loaded."""
    from capsule_edge.runtime.cores import bounded_threads

    if cores := bounded_threads():
        for name in ("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(cores))


def _run(args: list[str]) -> int:
    """Run the command in ``args``, print an error if it fails, and return the exit code."""
    # Looked up before parsing, because parsing itself may fail.
    style: _ErrorFormat = "json" if "--json" in args else "jsonl" if "--jsonl" in args else "text"
    try:
        result = cli.main(args=args, prog_name="capsule-edge", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        raise
    except (click.Abort, KeyboardInterrupt, Exception) as error:
        if "--debug" in args and not isinstance(
            error, click.Abort | KeyboardInterrupt | click.ClickException
        ):
            traceback.print_exc()
        return _print_error(_as_ours(error), style)


def _as_ours(error: BaseException) -> CapsuleEdgeError:
    """Return ``error`` as an error of the package, which has a code, a hint and an exit code."""
    if isinstance(error, CapsuleEdgeError):
        return error
    # click turns Ctrl-C and SIGTERM into Abort.
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return as_interrupted(error, "nothing more was written")
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        where = context.command_path if context else "capsule-edge"
        made = CapsuleEdgeError(error.format_message(), hint=f"see '{where} --help'")
        made.code, made.exit_code = "usage", error.exit_code
        return made
    made = CapsuleEdgeError(
        f"{type(error).__name__}: {error}", hint="run with --debug before the command for details"
    )
    made.code = "internal"
    return made


def _print_error(error: CapsuleEdgeError, style: _ErrorFormat) -> int:
    """Print ``error`` in one line and return its exit code."""
    if style == "text":
        click.echo("error: " + " ".join(str(error).split()), err=True)
        return error.exit_code
    document: dict[str, Any] = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    if style == "jsonl":
        document = {"type": "error", "recording": None, **document, "exit_code": error.exit_code}
    click.echo(json.dumps(document, ensure_ascii=False))
    return error.exit_code
