"""The command line. A mistake that the user can fix is one line and exit code 2."""

from __future__ import annotations

import errno
import json
import logging
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as ProgressBar,
)
from rich.table import Table

import langcortex
from langcortex.errors import LangcortexError
from langcortex.progress import Progress
from langcortex.results.results import Results

if TYPE_CHECKING:
    from langcortex.study.settings import Study

app = typer.Typer(
    help="How much of the brain's response to language does a language model explain?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
err = Console(stderr=True, highlight=False, soft_wrap=True)

StudyFile = Annotated[
    Path, typer.Argument(help="a study file; write one with `langcortex init`", metavar="STUDY.toml")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a setting, e.g. data.path=/data/lpp", metavar="KEY=VALUE"),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="let the study run functions of files beside it, and code that comes with its models",
    ),
]

EXTRAS = {
    "torch": "models", "transformers": "models", "huggingface_hub": "models", "accelerate": "models", "gguf": "models",
    "h5py": "corpora", "xarray": "corpora", "h5netcdf": "corpora", "openneuro": "fetch", "wordfreq": "words",
    "statsmodels": "stats", "numba": "fast", "mne": "surfaces", "bitsandbytes": "quantised",
}  # fmt: skip
"""Package → the extra of langcortex that installs it."""


@app.command()
def run(
    study: StudyFile,
    set_: Set = None,
    allow_code: AllowCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the tidy score table, one JSON object per row")
    ] = False,
) -> None:
    """Run a study: features, encoding scores, comparison, tables, maps, figures and a report."""
    from langcortex.audit.run import audited_run
    from langcortex.results.results import tidy
    from langcortex.study.run import write_results

    settings = _read_settings(study, set_, allow_code)
    with _progress() as progress:
        results, notes = audited_run(settings, progress)
        progress("writing the report", 0, 1)
        report = write_results(results, settings.output_folder)
        progress("writing the report", 1, 1)
    for note in notes:
        err.print(f"[yellow]note[/yellow]  {escape(note)}")
    for leak in results.protocol.leaks:
        err.print(f"[red]LEAK[/red]  {escape(leak)}")
    if as_json:
        for row in tidy(results.scores).to_dict(orient="records"):
            sys.stdout.write(json.dumps({key: _plain(value) for key, value in row.items()}) + "\n")
        return
    out = Console(highlight=False, soft_wrap=True)
    out.print(_summary(results))
    for comparison in results.comparisons:
        out.print(comparison.verdict, markup=False)
    for warning in results.warnings:
        err.print(f"[yellow]note[/yellow]  {escape(warning)}")
    out.print(f"Report: {report}", markup=False)


@app.command()
def check(
    study: StudyFile,
    set_: Set = None,
    allow_code: AllowCode = False,
    clock: Annotated[
        str,
        typer.Option(
            help="which recordings are read to check that responses follow the words: sample, all or none"
        ),
    ] = "sample",
    gpu: Annotated[
        float | None,
        typer.Option(
            "--gpu", min=0.1, help="does each model fit a GPU with so many gigabytes?", metavar="GB"
        ),
    ] = None,
) -> None:
    """Check a study before it is run: what it reads, how words and scans pair, what it will cost, and every problem."""
    from langcortex.study.check import as_lines, as_rows, check_study

    settings = _read_settings(study, set_, allow_code)
    with _progress(transient=True) as progress:
        report = check_study(settings, clock, progress, gpu)
    out = Console(highlight=False, soft_wrap=True)
    rows = as_rows(report)
    if rows:
        out.print(_runs_table(rows, settings.design.rows))
    for line in as_lines(report):
        out.print(line, markup=False)
    for problem in report.problems:
        err.print(f"[red]problem[/red]  {escape(problem)}")
    if report.problems:
        raise typer.Exit(2)
    command = ["langcortex", "run", str(study)]
    command += [part for override in set_ or [] for part in ("--set", override)]
    command += ["--allow-code"] if allow_code else []
    out.print(f"No problems found. Run it with: {shlex.join(command)}", markup=False)


def _read_settings(study: Path, overrides: Sequence[str] | None, allow_code: bool) -> Study:
    """Read a study file; one that runs code needs --allow-code, and the command to type is in the error."""
    from langcortex.study.settings_file import read_study
    from langcortex.study.user_code import require_permission

    settings = read_study(study, overrides or (), allow_code)
    require_permission(settings, shlex.join(["langcortex", *sys.argv[1:], "--allow-code"]))
    return settings


@app.command()
def audit(
    study: StudyFile,
    set_: Set = None,
    allow_code: AllowCode = False,
    null: Annotated[
        int,
        typer.Option(min=0, help="run the study N times on recordings without a story", metavar="N"),
    ] = 0,
    kind: Annotated[
        str,
        typer.Option(
            help="of those recordings: phase (the study's own, phases randomised), ar (autoregressive noise), shift (each run shifted circularly) or rest"
        ),
    ] = "phase",
    rest_path: Annotated[
        Path | None,
        typer.Option(
            "--rest", help="a recording of rest, or a folder of them; for --kind rest", metavar="FILE"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of those recordings' randomness")] = 0,
    with_ablation: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="of the published recipe: fix its flaws one by one, and compute what noise gets from each",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """List what leaks in a study and, with --null, compute what noise gets from it. Exits with 0 unless the study cannot be read (2)."""
    from langcortex.audit import ablate, audit_study, calibrate, write_ablation, write_calibration

    settings = _read_settings(study, set_, allow_code)
    findings = audit_study(settings)
    calibration, ablation = None, None
    kind = "rest" if rest_path else kind
    if null or (rest_path and not with_ablation):
        with _progress() as progress:
            calibration = calibrate(settings, null, kind, seed, rest_path, progress)
        write_calibration(calibration, settings.output_folder)
    if with_ablation:
        draws = {"n": null} if null else {}
        with _progress() as progress:
            ablation = ablate(settings, kind=kind, seed=seed, rest_path=rest_path, progress=progress, **draws)
        write_ablation(ablation, settings.output_folder)
    if as_json:
        numbers = calibration.as_json() if calibration else {}
        numbers |= {"ablation": ablation.as_json()} if ablation else {}
        sys.stdout.write(json.dumps({"findings": findings.as_rows(), **numbers}) + "\n")
        return
    out = Console(highlight=False, soft_wrap=True)
    colours = {"leak": "red", "risk": "yellow", "note": "dim"}
    for finding in findings.findings:
        colour = colours[finding.level]
        out.print(f"[{colour}]{finding.level.upper()}[/{colour}]  {escape(str(finding))}")
    if not findings.leaks:
        out.print("No leak was found.", markup=False)
    lines = calibration.as_lines() if calibration else []
    lines += ablation.as_lines() if ablation else []
    for line in lines:
        out.print(line, markup=False)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="where to write it", metavar="STUDY.toml")] = Path(
        "study.toml"
    ),
) -> None:
    """Write a commented study file."""
    from langcortex.cache import atomic_write
    from langcortex.study.settings_file import study_template

    if path.exists():
        raise LangcortexError(f"{path} exists already and is left as it is. Give another name.")
    with atomic_write(path) as draft:
        draft.write_text(study_template(), encoding="utf-8")
    Console(highlight=False, soft_wrap=True).print(
        f"Wrote {path}. Fill in the paths, then: langcortex check {path}", markup=False
    )


@app.command()
def fetch(
    corpus: Annotated[str, typer.Argument(help="lpp, lebel, narratives or reading_brain", metavar="CORPUS")],
    to: Annotated[Path, typer.Option("--to", help="folder to fetch into", metavar="DIR")],
    subjects: Annotated[str, typer.Option(help="names separated by commas, e.g. EN057,EN058")] = "",
    option: Annotated[
        list[str] | None,
        typer.Option(help="another choice, e.g. kind=raw or stories=buck,souls", metavar="KEY=VALUE"),
    ] = None,
    tool: Annotated[
        str, typer.Option(help="datalad, openneuro, or auto: the first that is installed")
    ] = "auto",
    dry: Annotated[bool, typer.Option("--dry-run", help="print what would be fetched, and stop")] = False,
) -> None:
    """Fetch what a study needs of a published corpus: prints size and licence first, goes on where it stopped."""
    from langcortex.datasets.download import download, verify
    from langcortex.datasets.manifests import plan_download

    names = [name.strip() for name in subjects.split(",") if name.strip()]
    plan = plan_download(corpus, names, to, **dict(map(_option, option or [])))
    out = Console(highlight=False, soft_wrap=True)
    for line in plan.lines():
        out.print(line, markup=False)
    if dry:
        return
    with _progress() as progress:
        files = download(plan, tool, progress)
    problems = verify(plan.folder, files)
    for problem in problems:
        err.print(f"[red]problem[/red]  {escape(problem)}")
    if problems:
        raise typer.Exit(2)
    out.print(
        f'{len(files)} files are in {plan.folder}. Use them with data.path = "{plan.folder}".', markup=False
    )


def _option(text: str) -> tuple[str, object]:
    """Read KEY=VALUE; commas make a list, digits a number."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise LangcortexError(f"--option takes KEY=VALUE, e.g. --option kind=raw; not '{text}'.")
    if "," in value:
        return key, [part.strip() for part in value.split(",") if part.strip()]
    return key, int(value) if value.isdecimal() else value


@app.command()
def verify(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="results folders or folders of kept results; the cache of features where none is given",
            metavar="[DIR…]",
        ),
    ] = None,
) -> None:
    """Check results and stored results against their digests. Exits with 1 where something is missing or was changed."""
    from langcortex.results.upkeep import verify_folders

    problems, n_checked = verify_folders(folders or [])
    out = Console(highlight=False, soft_wrap=True)
    for problem in problems:
        out.print(problem, markup=False)
    if problems:
        raise typer.Exit(1)
    out.print(f"{n_checked} files and stored results are as they were written.", markup=False)


@app.command()
def clean(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="every results folder that is still needed", metavar="[RESULTS…]"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove what is listed")] = False,
) -> None:
    """List drafts of killed runs, and stored features and fits that no manifest of the results folders names."""
    from langcortex.results.upkeep import list_leftovers, remove_leftovers

    leftovers = list_leftovers(folders or [])
    out = Console(highlight=False, soft_wrap=True)
    for leftover in leftovers:
        out.print(f"{leftover.size / 1e6:10.1f} MB  {leftover.path}  ({leftover.reason})", markup=False)
    total = sum(leftover.size for leftover in leftovers) / 1e6
    if not folders:
        out.print(
            "Give the results folders that are needed to list stored features and fits, too.", markup=False
        )
    if not leftovers:
        out.print("Nothing is left over.", markup=False)
    elif not yes:
        out.print(f"{len(leftovers)} in all, {total:.1f} MB. Remove them with --yes.", markup=False)
    else:
        remaining = remove_leftovers(leftovers)
        out.print(f"{len(leftovers) - len(remaining)} were removed, {total:.1f} MB.", markup=False)
        if remaining:
            raise LangcortexError(f"{remaining[0].path} could not be removed. Check its permissions.")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where to put it", metavar="FOLDER")] = Path("demo"),
) -> None:
    """Simulate a brain with a known answer, run a study of it with a real model, and compare."""
    from langcortex.simulation.demo import run_demo

    out = Console(highlight=False, soft_wrap=True)
    with _progress() as progress:
        table, report = run_demo(folder, progress)
    out.print(table)
    out.print(f"Report: {report}", markup=False)


def _runs_table(rows: Sequence[tuple[str, ...]], unit: str) -> Table:
    """Return a table of every run, and of its words and scans on the story's clock."""
    table = Table(
        title="Runs; words and scans from first to last, in seconds on the story's clock",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    pieces = "sentences" if unit == "scans" else unit
    for name in ("run", "subjects", "scans", "s", "words", pieces, "words last", "scans last", "lag"):
        left = name in ("run", "subjects")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "subjects")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _summary(results: Results) -> Table:
    """Return a table of every model's best and chosen layer, and of every control."""
    table = Table(title=f"Mean r, {results.region}", title_justify="left")
    for column in ("model", "best layer", "r", "r of the layer chosen in training"):
        table.add_column(column, justify="left" if column == "model" else "right")
    scores = results.scores
    pooled = scores[(scores.run == "all") & (scores.region == results.region) & (scores.subject != "average")]
    for model in results.models:
        curve = results.curve(model).mean(axis=0)
        chosen = pooled[(pooled.model == model) & (pooled.metric == "r_chosen")].value.mean()
        table.add_row(
            model,
            str(results.best_layer(model)),
            f"{curve.max():.3f}",
            f"{chosen:.3f}" if chosen == chosen else "–",
        )
    for name in results.controls:
        value = pooled[(pooled.model == name) & (pooled.metric == "r")].value.mean()
        table.add_row(name, "–", f"{value:.3f}", "–")
    return table


def _print_version(is_set: bool) -> None:
    if is_set:
        typer.echo(f"langcortex {langcortex.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """How much of the brain's response to language does a language model explain?"""


def main() -> None:
    """Run the command line; mistakes that the user can fix end in one line and exit code 2.

    Exit codes: 0 done; 1 `verify` found something; 2 a mistake that the user can fix; 130 stopped by Ctrl-C; 143 by SIGTERM.
    """
    notes, handler = logging.getLogger("langcortex"), _Notes()
    notes.addHandler(handler)
    before, is_main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    if is_main:
        signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except LangcortexError as error:
        _print_error(str(error))
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        _print_error(f"This needs the package {error.name}. Run: pip install 'langcortex[{extra}]'")
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _print_error(
            f"{where}{error.strerror}. Check free space and permissions, then run the same command again."
        )
        sys.exit(2)
    except _TerminationError:
        err.print(STOPPED)
        sys.exit(143)
    except KeyboardInterrupt:
        err.print(STOPPED)
        sys.exit(130)
    finally:
        notes.removeHandler(handler)
        if is_main:
            signal.signal(signal.SIGTERM, before)


DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EIO,
)  # fmt: skip
STOPPED = "Stopped. What was finished is kept; the same command goes on from there."


class _TerminationError(BaseException):
    """SIGTERM, which clusters send before they kill; ends work as Ctrl-C does."""


def _stop(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the tidying
    raise _TerminationError


class _Notes(logging.Handler):
    """Prints notes on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"[yellow]note[/yellow]  {escape(record.getMessage())}")


def _print_error(message: str) -> None:
    for line in message.splitlines():
        err.print(f"[red]error[/red]  {escape(line)}")


def _plain(value: object) -> object:
    """Return a value as JSON has it; missing values are None."""
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    return value.item() if hasattr(value, "item") else value


@contextmanager
def _progress(transient: bool = False) -> Iterator[Progress]:
    """Show progress on standard error; transient progress only on a terminal."""
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, int] = {}
    try:
        with ProgressBar(*columns, console=err, disable=transient and not err.is_terminal) as bar:

            def progress(what: str, done: int, total: int) -> None:
                key = what.partition(" · ")[0]  # the part after the dot changes as the work goes on
                if key not in tasks:
                    tasks[key] = bar.add_task(what, total=total)
                bar.update(tasks[key], description=what, completed=done, total=total)  # type: ignore[arg-type]  # rich's TaskID is an int

            yield progress
    except (KeyboardInterrupt, _TerminationError) as stop:  # typer would exit silently
        err.print(STOPPED)
        raise typer.Exit(143 if isinstance(stop, _TerminationError) else 130) from None


if __name__ == "__main__":
    main()
