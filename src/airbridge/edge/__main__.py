"""``python -m airbridge.edge``: the commands of an edge host."""

from __future__ import annotations

import sys

__all__ = ["diag_main", "main"]


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["health"]:
        # The container's health check runs every few seconds: it skips the command line's imports.
        from airbridge.edge.health import main as health_main

        raise SystemExit(health_main())
    if sys.argv[1:] == ["send-logs"]:
        # Started by the worker, in its environment; no command for people. Airflow first: its start loads our
        # logging, which must not be half loaded then.
        import airflow.settings

        airflow.settings.initialize()
        from airbridge.edge.task_logs import send_late

        raise SystemExit(1 if send_late() else 0)
    from airbridge.edge._cli import app

    app()


def diag_main() -> None:
    """Entry of the ``diag`` program in the edge image: ``diag`` is short for ``airbridge-edge diag``."""
    from airbridge.edge._cli import app

    app(["diag", *sys.argv[1:]])


if __name__ == "__main__":
    main()
