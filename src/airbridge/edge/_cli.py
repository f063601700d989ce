"""The commands of an edge host."""

from __future__ import annotations

import sys
from typing import Annotated

import structlog
import typer

from airbridge.errors import AirbridgeError

__all__ = ["app"]

app = typer.Typer(
    name="airbridge-edge",
    help="Run, check and diagnose an edge host.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
    )


def _exit(error: AirbridgeError) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(error.exit_code)


@app.command("launch")
def launch_command() -> None:
    """Wait until this host may work, then become the edge worker."""
    from airbridge.edge.launch import launch

    _configure_logging()
    try:
        launch()
    except AirbridgeError as error:
        raise _exit(error) from None


@app.command("work", hidden=True)
def work_command(
    courier: Annotated[str, typer.Option()],
    edge_hostname: Annotated[str, typer.Option()],
    queues: Annotated[str, typer.Option()],
    concurrency: Annotated[int, typer.Option()],
    restarted: Annotated[bool, typer.Option("--restarted")] = False,
) -> None:
    """Be the edge worker; launch becomes this once the host may work."""
    from airbridge.edge._work import work

    _configure_logging()
    work(
        courier=courier,
        restarted=restarted,
        hostname=edge_hostname,
        queues=tuple(queues.split(",")),
        concurrency=concurrency,
    )


@app.command("health")
def health_command() -> None:
    """Exit 0 when the control plane heard of this worker lately."""
    from airbridge.edge.health import main

    raise typer.Exit(main())


@app.command("renew")
def renew_command() -> None:
    """Get a new client certificate for this host; the one before stays good for some minutes."""
    from airbridge.edge._control_plane import ControlPlane, local_versions
    from airbridge.edge._renewal import renew
    from airbridge.edge.settings import load_settings

    _configure_logging()
    try:
        settings = load_settings()
        with ControlPlane(settings, local_versions()) as control_plane:
            renew(settings, control_plane)
    except AirbridgeError as error:
        raise _exit(error) from None


@app.command("diag")
def diag_command(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
) -> None:
    """Check everything this edge host needs; exit 0 only when all of it passes."""
    from airbridge.edge.diag import run_diag

    raise typer.Exit(run_diag(as_json=as_json))
