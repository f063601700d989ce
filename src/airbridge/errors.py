"""The exception tree of AirBridge.

::

    AirbridgeError                 exit code 1: anything expected that stopped the work
    ├── SettingsError              exit code 2: a setting is missing or malformed; names the setting
    ├── UnreachableError           exit code 3: a peer (S3, Postgres, endpoint) did not answer
    ├── RefusedError               exit code 4: a peer answered and said no (token, version, name)
    └── IntegrityError             exit code 5: data is not what its checksum or format says

Every message is one line for a person: what failed, where, why, and what to do next. Command-line
entry points print ``str(error)`` to stderr without a traceback and exit with ``error.exit_code``.
"""

from __future__ import annotations

__all__ = ["AirbridgeError", "IntegrityError", "RefusedError", "SettingsError", "UnreachableError"]


class AirbridgeError(Exception):
    """Base of every expected failure."""

    exit_code = 1

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(f"{what} | fix: {fix}" if fix else what)
        self.what = what
        self.fix = fix


class SettingsError(AirbridgeError):
    """A setting is missing or malformed; the message names it."""

    exit_code = 2


class UnreachableError(AirbridgeError):
    """A peer did not answer."""

    exit_code = 3


class RefusedError(AirbridgeError):
    """A peer answered and refused."""

    exit_code = 4


class IntegrityError(AirbridgeError):
    """Data is not what its checksum or its format says."""

    exit_code = 5
