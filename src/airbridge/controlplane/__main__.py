"""``python -m airbridge.controlplane``: what the compose services and the Makefile call.

argparse and late imports, because the health checks among these run every few seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from airbridge.errors import AirbridgeError

__all__ = ["main"]

_SECRETS_ROOT = Path("/secrets")
_CHECKED = ("api-server", "scheduler", "dag-processor", "triggerer")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see :mod:`airbridge.errors`)."""
    parser = argparse.ArgumentParser(prog="airbridge-control-plane", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("secrets", help="make the secrets that are missing")
    commands.add_parser("init", help="migrate the database, make the admin user and the buckets")
    commands.add_parser("migrate", help="run 'airflow db migrate' if it has not run")
    commands.add_parser("collect", help="tell every dag-sync which trees DAG runs need; runs on")
    health = commands.add_parser("health", help="exit 0 when the service on this host does its job")
    health.add_argument("service", choices=[*_CHECKED, "collector"])
    show = commands.add_parser("show", help="print one secret and nothing else")
    show.add_argument("name")
    attempts = commands.add_parser("attempts", help="print attempts at a task, with their logs, as JSON")
    attempts.add_argument("asked", help="a correlation id, or DAG/RUN/TASK[/MAP INDEX]")
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except AirbridgeError as error:
        print(f"airbridge: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.command == "secrets":
        from airbridge.controlplane._secrets import ensure_secrets

        changes = ensure_secrets(_SECRETS_ROOT, _SECRETS_ROOT / "overrides", os.environ)
        print("\n".join(f"secrets: {line}" for line in changes) or "secrets: all there, nothing changed")
    elif options.command == "init":
        from airbridge.controlplane._init import initialize

        initialize(_SECRETS_ROOT)
    elif options.command == "migrate":
        from airbridge.controlplane._database import migrate

        migrate()
    elif options.command == "collect":
        from airbridge.controlplane._collector import collect

        collect()
    elif options.command == "health" and options.service == "collector":
        from airbridge.controlplane._rounds import check_collector

        print(check_collector())
    elif options.command == "health":
        from airbridge.controlplane._health import check_api_server, check_heartbeat

        print(check_api_server() if options.service == "api-server" else check_heartbeat(options.service))
    elif options.command == "show":
        from airbridge.controlplane._secrets import read_secret

        print(read_secret(_SECRETS_ROOT, options.name))
    elif options.command == "attempts":
        from airbridge.controlplane._attempts import attempts

        print(json.dumps(attempts(options.asked)))


if __name__ == "__main__":
    sys.exit(main())
