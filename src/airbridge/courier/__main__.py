"""``python -m airbridge.courier``: the service, and its health check."""

from __future__ import annotations

import os
import sys

from airbridge.errors import AirbridgeError

__all__ = ["main"]


def main() -> int:
    """Run the service, or look at its health, and return the exit code."""
    try:
        if sys.argv[1:] == ["health"]:
            # Every few seconds, so without the service's imports.
            from airbridge.courier_status import read_status

            print(read_status(f"http://127.0.0.1:{os.environ.get('COURIER_PORT') or 8080}").line)
            return 0
        from airbridge.courier._service import serve
        from airbridge.courier._settings import load_settings

        serve(load_settings(os.environ))
    except AirbridgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
