"""``airflow-control-plane``, or ``python -m airbridge.jobs``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["health"]:
        # The container's health check runs again and again: it skips the command line's imports.
        from airbridge.jobs._status import check_health

        healthy, line = check_health()
        print(line, file=sys.stdout if healthy else sys.stderr)
        raise SystemExit(0 if healthy else 1)
    from airbridge.jobs._cli import app

    app()


if __name__ == "__main__":
    main()
