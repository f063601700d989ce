"""Has task logs sent to S3 that could not be sent when their tasks ended, in a process of its own.

Not in the worker, which forks for each task: an S3 client in a thread of it would hand locks that nobody ever
releases to some of them, and its memory would be there for ever.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from airbridge.courier_status import read_status
from airbridge.edge._log_files import list_unsent, waits_for_s3
from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["LateLogs"]

# After a try that failed, which costs seconds of CPU for the imports alone; doubled each time. Random below
# it, so that a fleet does not come back as one.
_FIRST_PAUSE_S: Final = 15.0
_LONGEST_PAUSE_S: Final = 300.0


_COMMAND: Final = (sys.executable, "-m", "airbridge.edge", "send-logs")


class LateLogs:
    """The logs below ``root`` that wait for S3; :meth:`look` is called now and then.

    :param command: sends what is on the list, and exits 0 when nothing is left
    """

    def __init__(self, root: Path, courier_url: str, command: Sequence[str] = _COMMAND) -> None:
        self._root = root
        self._courier_url = courier_url
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._next = 0.0
        self._failed = 0
        self._looked = False

    def look(self) -> None:
        """Start to send what waits, unless that is being done or the control plane is away."""
        if not self._looked:
            self._looked = True
            list_unsent(self._root)
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._failed = self._failed + 1 if self._process.returncode else 0
            self._process = None
            longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._failed) if self._failed else 0.0
            self._next = time.monotonic() + random.uniform(0.0, longest)  # noqa: S311 - no secret
        if time.monotonic() < self._next or not waits_for_s3(self._root) or self._is_away():
            return
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)

    def _is_away(self) -> bool:
        try:
            return read_status(self._courier_url).away
        except UnreachableError:
            return True
