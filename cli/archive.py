"""``capsule-edge archive``: read many recordings, say how far that is, and ask questions of the results."""

from __future__ import annotations

from pathlib import Path

import click

from ._archive_compare import CompareArchivesOptions, show_comparison
from ._archive_drift import ArchiveDriftOptions, show_drift
from ._archive_query import show_query
from ._archive_reading import ArchiveOptions, read_recordings
from ._archive_status import show_status
from ._options import HELP_OPTIONS, json_option, read_clock

__all__ = ["command"]


@click.group(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge archive read /recordings --out archive\n"
    "  capsule-edge archive status archive --json",
)
def command() -> None:
    """Read many recordings with one model, on the processes of this machine or on a Ray cluster.

    Needs pip install 'capsule-edge[archive]'.
    """


@command.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge archive read /recordings --out archive\n"
    "  capsule-edge archive read recordings.csv 's3://bucket/2026/*.mp4' --out archive\n"
    "  capsule-edge archive read /recordings --out /share/archive --ray 10.0.0.5:6379",
)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the archive: manifest, results, tables.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file, or the name of an installed model: standard or small.  [default: standard]",
)
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine.")
@click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Read on Ray: on this machine, or on the cluster with this address.  [default: plain processes]",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of workers; 0: one for each core.",
)
@click.option(
    "--tries",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Set a recording aside after so many tries.",
)
@click.option(
    "--memory-limit",
    "memory_mb",
    type=click.IntRange(256),
    default=4096,
    show_default=True,
    metavar="MB",
    help="Memory that a worker may take.",
)
@click.option(
    "--time-limit",
    "time_s",
    type=click.FloatRange(1.0),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that one task may take: a short recording, or a part of a long one.",
)
@click.option(
    "--split-frames",
    type=click.IntRange(0),
    default=4096,
    show_default=True,
    help="Divide longer recordings into parts of about so many frames; 0 divides none.",
)
@click.option(
    "--capture-fps", type=float, help='Frames per second at which the capsules recorded (see "run").'
)
@click.option(
    "--start", "start_s", callback=read_clock, metavar="TIME", help='Start reading here (see "run").'
)
@click.option("--end", "end_s", callback=read_clock, metavar="TIME", help='Stop reading here (see "run").')
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Read every N-th frame.")
@click.option("--gate/--no-gate", "gate", help='Skip near-duplicate frames (see "run").')
@click.option(
    "--allow-saturation", is_flag=True, help='Accept a model whose 8-bit sums saturate (see "doctor").'
)
@click.option("--retry", "retry", is_flag=True, help="Try recordings again that were set aside.")
@click.option(
    "--tables/--no-tables", "tables", default=True, show_default=True, help="Write the tables at the end."
)
@json_option
def read(sources: tuple[str, ...], **values: object) -> int:
    """Read the recordings of an archive, each once, and write a result folder for each.

    SOURCE is a folder (with its subfolders), a pattern in quotes, a list (CSV or Parquet with the columns path, site,
    capsule_type, patient, date), a recording, or an address such as s3://bucket/folder. Run again, the command reads
    what is new, changed or failed. Exit code 3: some recordings were set aside or not read whole.
    """
    return read_recordings(sources, ArchiveOptions(**values))  # type: ignore[arg-type]


@command.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge archive status archive\n  capsule-edge archive status archive --json",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--list", "listed", is_flag=True, help="List every recording that is not read whole.")
@json_option
def status(folder: Path, listed: bool, as_json: bool) -> int:
    """Say how many recordings of an archive are read, and which are not."""
    return show_status(folder, listed=listed, as_json=as_json)


@command.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n"
    "  capsule-edge archive query archive 'SELECT label, count(*) FROM suggestions GROUP BY label'\n"
    "  capsule-edge archive query s3://bucket/archive 'DESCRIBE frames' --json",
)
@click.argument("folder", metavar="DIR")
@click.argument("sql", metavar="SQL")
@json_option
def query(folder: str, sql: str, as_json: bool) -> int:
    """Ask a question of the tables of an archive in SQL (DuckDB).

    The tables are recordings (the manifest), frames, events, suggestions, ledgers, sources and models.
    """
    return show_query(folder, sql, as_json=as_json)


@command.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge archive compare old new --out comparison\n"
    "  capsule-edge archive compare archive --models standard small --truth /recordings --json",
)
@click.argument("old", metavar="OLD", type=click.Path(path_type=Path))
@click.argument("new", metavar="[NEW]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--models",
    nargs=2,
    metavar="OLD NEW",
    help="The two models, where a folder holds results of more: a file, standard or small, or the first 6 or more "
    "digits of a SHA-256. Maps need the file of a model that is not installed.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with truth tables: exam.truth.csv (index,label) is that of exam.mp4.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for comparison.json and comparison.html."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier comparison in --out.")
@click.option(
    "--pictures/--no-pictures", default=True, show_default=True, help="Show frames and maps on the page."
)
@click.option(
    "--gates",
    type=click.Choice(["equivalence", "replacement"]),
    help="Which limits decide.  [default: equivalence for two forms of one model, else replacement]",
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Resamples of the bootstrap over recordings.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the bootstrap.")
@json_option
def compare(old: Path, new: Path | None, **values: object) -> int:
    """Compare the results of two models over the same recordings.

    OLD and NEW are folders of archives. Without NEW, OLD holds the results of both models. Suggestions are matched by
    the frames that they show.

    Two forms of one model, such as FP32 and INT8, should show the same places. For another model, the truth decides:
    it should not lose findings or add false suggestions. The exit code is 4 if a limit is missed.
    """
    return show_comparison(old, new, CompareArchivesOptions(**values))  # type: ignore[arg-type]


@command.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge archive drift archive\n"
    "  capsule-edge archive drift archive --reference first-year --out drift.json",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="STUDIES",
    help="Archive of recordings to compare with, read with the same model.  [default: the model's training recordings]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model that read the archive: a file, standard or small. Needed if it is not installed, or if the archive "
    "holds results of several models.",
)
@click.option(
    "--inputs/--no-inputs",
    default=True,
    show_default=True,
    help="Decode some frames of each recording to measure colour, sharpness and familiarity.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of processes that decode frames; 0: one for each core.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the tests.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON document to FILE, too."
)
@json_option
def drift(folder: Path, **values: object) -> int:
    """Tell where recordings, or the model's answers to them, drift away from a reference.

    Each group of a site and a month is compared: colour, sharpness, familiarity, field of view, size and frame rate of
    the pictures; labels and scores of the answers. An alarm needs a large shift (population stability index of 0.2)
    and a test over recordings that is corrected for the number of tests. The exit code is 4 on an alarm.
    """
    return show_drift(folder, ArchiveDriftOptions(**values))  # type: ignore[arg-type]
