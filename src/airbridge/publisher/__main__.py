"""``airflow-dag-publisher``, also as ``python -m airbridge.publisher``."""

from __future__ import annotations

import sys

from airbridge.errors import AirbridgeError

__all__ = ["main"]

_INTERRUPTED = 130  # as a shell reports Ctrl-C


def main() -> None:
    """Run the command line; an expected failure is one line and an exit code."""
    from airbridge.publisher._cli import app

    try:
        app()
    except AirbridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


if __name__ == "__main__":
    main()
