"""Where the worker's token comes from. Standard library only: the health check reads it too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MIN_TOKEN_LENGTH", "TOKEN", "TOKEN_FILE", "read_token"]

TOKEN = "CONTROL_PLANE_TOKEN"  # noqa: S105 - the name of the setting
TOKEN_FILE = "CONTROL_PLANE_TOKEN_FILE"  # noqa: S105 - the name of the setting

# Nothing that a person types from memory; what the control plane generates is far longer.
MIN_TOKEN_LENGTH = 16

_MAX_FILE_BYTES = 4096


def _fail(name: str, problem: str, fix: str) -> SettingsError:
    return SettingsError(f"{name}: {problem}", fix=fix)


def read_token(environ: Mapping[str, str]) -> str:
    """Return the token from ``CONTROL_PLANE_TOKEN`` or from the file ``CONTROL_PLANE_TOKEN_FILE``.

    :raises SettingsError: none or both are set, the file cannot be read, or the text is no token.
        The message never holds any of the text.
    """
    value, path = environ.get(TOKEN, "").strip(), environ.get(TOKEN_FILE, "").strip()
    if value and path:
        raise _fail(TOKEN, f"is set, and so is {TOKEN_FILE}", "keep one of the two and unset the other")
    name = TOKEN
    if path:
        name = TOKEN_FILE
        try:
            with Path(path).open("rb") as file:
                value = file.read(_MAX_FILE_BYTES).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise _fail(name, f"the file {path!r} is not text", "put the token, and only it, there") from None
        except OSError as error:
            fix = "mount the file that holds the token, readable by the container's user (uid 50000)"
            raise _fail(name, f"cannot read the file {path!r}: {error.strerror}", fix) from None
        if not value:
            raise _fail(
                name, f"the file {path!r} is empty", "put the token that the control plane gave you there"
            )
    if not value:
        fix = f"set it, or {TOKEN_FILE}, to the token that the control plane gave you"
        raise _fail(name, "is not set", fix)
    if len(value) < MIN_TOKEN_LENGTH or not value.isascii() or not value.isprintable() or " " in value:
        problem = f"is not a token: at least {MIN_TOKEN_LENGTH} printable characters on one line, no blanks"
        raise _fail(name, problem, "copy the token again, whole, from the control plane")
    return value
