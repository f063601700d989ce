"""``airflow-control-plane``: jobs to DAG files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import structlog
import typer
from rich.console import Console

from airbridge.errors import AirbridgeError, SettingsError
from airbridge.jobs._pass import PassResult, run_pass
from airbridge.jobs._report import print_jobs, print_json, print_pass, print_problems
from airbridge.jobs._settings import Settings, load_settings
from airbridge.jobs.discovery import discover
from airbridge.jobs.generation import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.jobs._releases import ReleaseWriter

__all__ = ["PROBLEMS_EXIT_CODE", "app"]

PROBLEMS_EXIT_CODE: Final = 6
"""With ``--strict``: something was left out. Next after those of :mod:`airbridge.errors`."""

app = typer.Typer(
    name="airflow-control-plane",
    help="Find jobs in packages and make Airflow DAGs of them. No job is ever imported.\n\n"
    "Exit codes: 0 done; 2 a setting is wrong; 3 S3 not reachable; 4 refused; 5 damaged data; "
    f"{PROBLEMS_EXIT_CODE} with --strict: something was left out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Root = Annotated[
    Path | None,
    typer.Option("--packages-root", help="Folder of the packages. [ETL_PACKAGES_ROOT, else ./packages]"),
]
_Dags = Annotated[
    Path | None, typer.Option("--dags-dir", help="Folder that DAG files are written to. [AIRFLOW_DAGS_DIR]")
]
_Code = Annotated[
    Code | None,
    typer.Option(
        "--code",
        help="Where workers find the jobs' code: in the release, or installed in their image. "
        "[JOB_CODE, else release]",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]
_Strict = Annotated[
    bool, typer.Option("--strict", help=f"Exit {PROBLEMS_EXIT_CODE} when anything was left out.")
]
_Package = Annotated[
    list[str] | None, typer.Option("--package", help="Show this package only; may be repeated.")
]


def _settings(**flags: Any) -> Settings:
    try:
        return load_settings(**flags)
    except AirbridgeError as error:
        raise _exit(error) from None


def _exit(error: AirbridgeError) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(error.exit_code)


@app.command("discover")
def discover_command(
    packages_root: _Root = None,
    package: _Package = None,
    as_json: _Json = False,
    strict: _Strict = False,
) -> None:
    """List the jobs of all packages, and what is wrong with the others."""
    settings = _settings(etl_packages_root=packages_root)
    try:
        found = discover(settings.etl_packages_root)
    except AirbridgeError as error:
        raise _exit(error) from None
    jobs = [job for job in found.jobs if not package or job.package in package]
    problems = [problem for problem in found.problems if not package or problem.package in package]
    if as_json:
        print_json(
            {
                "jobs": [job.to_json() for job in jobs],
                "problems": [problem.to_json() for problem in problems],
            }
        )
    else:
        print_jobs(jobs)
        print_problems(problems)
        packages = len({job.package for job in jobs})
        typer.echo(f"{len(jobs)} jobs in {packages} packages, {len(problems)} problems", err=True)
    if strict and problems:
        raise typer.Exit(PROBLEMS_EXIT_CODE)


@app.command("generate")
def generate_command(
    packages_root: _Root = None,
    dags_dir: _Dags = None,
    code: _Code = None,
    as_json: _Json = False,
    strict: _Strict = False,
) -> None:
    """Write a DAG file for every job; remove nothing."""
    settings = _settings(etl_packages_root=packages_root, airflow_dags_dir=dags_dir, job_code=code)
    _once(lambda progress: _pass(settings, None, progress, remove_stale=False), as_json, strict)


@app.command("sync")
def sync_command(  # noqa: PLR0917  (options of a command, given by name)
    packages_root: _Root = None,
    dags_dir: _Dags = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish every package that changed as a release, to S3.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, every JOB_SYNC_INTERVAL seconds (300).")
    ] = False,
    every: Annotated[
        float | None, typer.Option("--every", help="Go on, every so many seconds.", min=1)
    ] = None,
    code: _Code = None,
    as_json: _Json = False,
    strict: _Strict = False,
) -> None:
    """Discover, generate, and remove generated files whose job is gone; to a folder, to S3, or both."""
    settings = _settings(
        etl_packages_root=packages_root,
        airflow_dags_dir=dags_dir,
        job_code=code,
        job_sync_interval=every,
    )
    try:
        writer = _writer() if publish else None
        if not (watch or every):
            _once(lambda progress: _pass(settings, writer, progress), as_json, strict)
            return
        from airbridge.jobs._watch import watch as watch_passes

        _configure_logging()
        watch_passes(
            lambda: _pass(settings, writer, lambda _what: None),
            settings.job_sync_interval,
            settings.job_sync_status_file,
        )
    except AirbridgeError as error:
        raise _exit(error) from None


@app.command("health")
def health_command() -> None:
    """Exit 0 when the last pass of 'sync --watch' on this host succeeded, and lately."""
    from airbridge.jobs._status import check_health

    healthy, line = check_health()
    typer.echo(line, err=not healthy)
    raise typer.Exit(0 if healthy else 1)


def _writer() -> ReleaseWriter:
    from airbridge.jobs._bucket import Bucket

    return Bucket()


def _pass(
    settings: Settings,
    writer: ReleaseWriter | None,
    progress: Callable[[str], None],
    *,
    remove_stale: bool = True,
) -> PassResult:
    if settings.airflow_dags_dir is None and writer is None:
        raise SettingsError(
            "there is nowhere to write to", fix="set AIRFLOW_DAGS_DIR or give --dags-dir; to S3: --publish"
        )
    return run_pass(
        settings.etl_packages_root,
        settings.job_code,
        dags_dir=settings.airflow_dags_dir,
        remove_stale=remove_stale,
        writer=writer,
        progress=progress,
    )


def _once(work: Callable[[Callable[[str], None]], PassResult], as_json: bool, strict: bool) -> None:
    console = Console(stderr=True)
    try:
        if console.is_terminal and not as_json:
            with console.status("") as status:
                result = work(status.update)
        else:
            result = work(lambda _what: None)
    except AirbridgeError as error:
        raise _exit(error) from None
    if as_json:
        print_json(result.to_json())
    else:
        print_problems(result.problems)
        print_pass(result)
    if strict and not result.is_clean:
        raise typer.Exit(PROBLEMS_EXIT_CODE)


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
    )
