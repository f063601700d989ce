"""``python -m airbridge.s3door``: serve; ``health`` asks the door on this host."""

from __future__ import annotations

import sys
from typing import Final

from airbridge.errors import AirbridgeError

__all__ = ["main"]

_HEALTH_PORT: Final = 8081


def main(arguments: list[str]) -> int:
    """Run the command in ``arguments`` and return the exit code (see :mod:`airbridge.errors`)."""
    try:
        match arguments:
            case ["health"]:
                from airbridge.s3door._probe import probe

                print(probe(_HEALTH_PORT))
            case []:
                from airbridge.s3door._server import serve
                from airbridge.s3door._settings import load_settings

                serve(load_settings())
            case _:
                print("usage: python -m airbridge.s3door [health]", file=sys.stderr)
                return 2
    except AirbridgeError as error:
        print(f"s3-door: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
