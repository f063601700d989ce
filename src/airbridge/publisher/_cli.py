"""The command line ``airflow-dag-publisher``."""

from __future__ import annotations

import typer

import airbridge
from airbridge.publisher._commands_local import generate_command, validate_command
from airbridge.publisher._commands_look import diff_command, list_command, policy_command, status_command
from airbridge.publisher._commands_release import publish_command, rollback_command

__all__ = ["app"]

app = typer.Typer(
    name="airflow-dag-publisher",
    help="Generate, validate and publish the DAGs of a package, and roll them back.",
    epilog="Exit codes: 0 done, 1 errors found, 2 wrong flags or settings, 3 not reachable, 4 refused, "
    "5 data is not what it should be, 6 not everywhere in time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate_command)
app.command("validate")(validate_command)
app.command("publish")(publish_command)
app.command("list")(list_command)
app.command("rollback")(rollback_command)
app.command("diff")(diff_command)
app.command("status")(status_command)
app.command("policy")(policy_command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"airflow-dag-publisher {airbridge.__version__}")
        raise typer.Exit


@app.callback()
def _callback(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Generate, validate and publish the DAGs of a package, and roll them back."""
