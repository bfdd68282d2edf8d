"""``capsule-edge``, the command line: an outer shell. Errors become one line and an exit code."""

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
from typing import Any, NoReturn

import click

from capsule_edge.runtime.errors import CapsuleEdgeError, Interrupted

__all__ = ["COMMANDS", "cli", "main"]

# Each is ``command`` of the module of that name here, imported when it is called. The overview imports none
# of them, so what it says of each stands here.
COMMANDS = {
    "run": "Read recordings and write what was found.",
    "info": "Print what a model file says about itself.",
    "doctor": "Prove every engine on this machine, and say which is fastest.",
    "evaluate": "Measure a model on labelled frames.",
    "compare": "Certify one model against another.",
    "split": "Part a data set by video.",
    "audit": "Find what would make evaluation on a data set mislead.",
    "explain": "Show what a model looks at.",
    "bench": "Measure latency, throughput, cold start and memory of model files.",
    "train": "Train a model, FP32 and then INT8.",
    "export": "Export a trained run to ONNX and TFLite, verified.",
}


class _LazyGroup(click.Group):
    """Sub-commands by name, without importing what they need."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for name in COMMANDS if find_spec(f"{__package__}.{name}")]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        command: click.Command = import_module(f"{__package__}.{name}").command
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(context)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}, there are {', '.join(known)}", context)
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(context)])


@click.group(cls=_LazyGroup, epilog="\b\nExample:\n  capsule-edge run --demo")
@click.version_option(package_name="capsule-edge", prog_name="capsule-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Capsule endoscopy AI on the reading workstation.

    For research, not a medical device: findings are suggestions to be confirmed by a physician.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: runs the command line and exits with the documented code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    # OpenCV logs its own words of what an error line says already; it asks for this once, when it is loaded.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        # A code page of Windows has neither a patient's file name nor the signs of the tables.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us (head, a pager) has gone; the interpreter must not try to flush again at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _run(args: list[str]) -> int:
    # Read before parsing, since parsing itself may fail.
    debug, as_json = "--debug" in args, "json" if "--json" in args else "lines" if "--jsonl" in args else ""
    try:
        result = cli.main(args=args, prog_name="capsule-edge", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        # click turns Ctrl-C into Abort.
        return _fail(Interrupted("interrupted, nothing more was written"), as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        where = (
            error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "capsule-edge"
        )
        return _say("usage", error.format_message(), f"see '{where} --help'", error.exit_code, as_json)
    except CapsuleEdgeError as error:
        if debug:
            traceback.print_exc()
        return _fail(error, as_json)
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        kind = type(error).__name__
        return _say(
            "internal", f"{kind}: {error}", "run with --debug before the command for details", 1, as_json
        )


def _fail(error: CapsuleEdgeError, as_json: str) -> int:
    return _say(error.code, error.message, error.hint, error.exit_code, as_json)


def _say(code: str, message: str, hint: str, exit_code: int, as_json: str) -> int:
    if as_json:
        document: dict[str, Any] = {"error": {"code": code, "message": message, "hint": hint}}
        if as_json == "lines":
            document = {"type": "error", "recording": None, **document, "exit_code": exit_code}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        text = f"{message} ({hint})" if hint else message
        click.echo("error: " + " ".join(text.split()), err=True)
    return exit_code
