"""Task log files of an edge host: how much of each is in S3, and which may go.

Airflow's S3 logging uploads a whole file when a part of a task has ended, and can then only delete the folder
around it. That folder holds every attempt's log, so the end of one attempt took away what a quick retry was
writing; and the parts of a deferred task share one file, so an early end took away what the next part wrote.
Here a mark beside each file says how many bytes of it were sent, only one process at a time sends from it,
and files are deleted long after their last line.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["send_rest", "sweep"]

_SUFFIX: Final = ".sent"
# Longer than a task that has come back from a deferral may be silent: its file must still be there.
_KEPT_S: Final = 6 * 3600.0


def _mark_of(log: Path) -> Path:
    return log.with_name(f".{log.name}{_SUFFIX}")


def _read_number(text: bytes) -> int:
    """A mark that a crash left half written counts as none: lines twice are better than lines lost."""
    return int(text) if text.isdigit() else 0


def send_rest(log: Path, send: Callable[[str], bool]) -> bool:
    """Hand what was not sent yet of ``log`` to ``send``, and remember that when it returns true.

    Returns true when everything is sent. A file that is not there has nothing to send.
    """
    if not log.is_file():
        return True
    with _mark_of(log).open("a+b") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.seek(0)
        sent = _read_number(mark.read())
        with log.open("rb") as file:
            file.seek(sent)
            rest = file.read()
        if rest and not send(rest.decode(errors="backslashreplace")):
            return False
        mark.truncate(0)
        mark.write(str(sent + len(rest)).encode())
    return True


def sweep(root: Path, kept_s: float = _KEPT_S) -> int:
    """Delete logs below ``root`` that are in S3 and older than ``kept_s``; return how many."""
    oldest, swept = time.time() - kept_s, 0
    for mark in list(root.rglob(f".*{_SUFFIX}")):  # a list: folders go on the way
        log = mark.with_name(mark.name.removeprefix(".").removesuffix(_SUFFIX))
        # Another process may be faster.
        with contextlib.suppress(OSError):
            if log.exists():
                about = log.stat()
                if about.st_mtime > oldest or _read_number(mark.read_bytes()) < about.st_size:
                    continue
                log.unlink()
                swept += 1
            mark.unlink()
            for folder in log.relative_to(root).parents[:-1]:
                (root / folder).rmdir()  # ends at the first that is not empty
    return swept
