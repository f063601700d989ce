"""Task log files of an edge host: how much of each is in S3, and which may go.

Airflow's S3 logging uploads a whole file when a part of a task has ended, and can then only delete the folder
around it. That folder holds every attempt's log, so the end of one attempt took away what a quick retry was
writing; and the parts of a deferred task share one file, so an early end took away what the next part wrote.
Here a mark beside each file says how many bytes of it were sent, only one process at a time sends from it,
and files are deleted long after their last line.

A log that could not be sent is put on a list, one small file an entry, from which it is sent when S3 is back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["is_sent", "list_unsent", "put_on_list", "send_listed", "send_rest", "sweep", "waits_for_s3"]

_SUFFIX: Final = ".sent"
_LIST: Final = ".unsent"
# The control plane knows for a week who ran what, and takes a log from nobody else.
_LISTED_S: Final = 7 * 86_400.0
_IN_A_ROW: Final = 3
# Longer than a task that has come back from a deferral may be silent: its file must still be there.
_KEPT_S: Final = 6 * 3600.0


def _mark_of(log: Path) -> Path:
    return log.with_name(f".{log.name}{_SUFFIX}")


def _read_number(text: bytes) -> int:
    """A mark that a crash left half written counts as none: lines twice are better than lines lost."""
    return int(text) if text.isdigit() else 0


def send_rest(log: Path, send: Callable[[str], bool], *, whole_lines: bool = False) -> bool:
    """Hand what was not sent yet of ``log`` to ``send``, and remember that when it returns true.

    Returns true when everything is sent. A file that is not there has nothing to send.

    :param whole_lines: leave a line that is not ended to who is writing it
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
        if whole_lines:
            rest = rest[: rest.rfind(b"\n") + 1]
        if rest and not send(rest.decode(errors="backslashreplace")):
            return False
        mark.truncate(0)
        mark.write(str(sent + len(rest)).encode())
    return True


def is_sent(log: Path) -> bool:
    """Return whether S3 has all of ``log``."""
    try:
        return log.stat().st_size <= _read_number(_mark_of(log).read_bytes())
    except OSError:
        return False


def put_on_list(root: Path, log: Path) -> None:
    """Remember that ``log``, which lies below ``root``, is to be sent later."""
    path = str(log.relative_to(root))
    entry = root / _LIST / hashlib.sha256(path.encode()).hexdigest()
    entry.parent.mkdir(exist_ok=True)
    entry.write_text(path)


def list_unsent(root: Path) -> int:
    """Put every log below ``root`` on the list that is not whole in S3; return how many.

    For a worker that starts: the tasks of the one before, which may have been killed, write no more.
    """
    found = 0
    for log in list(root.glob("dag_id=*/**/*.log")):
        mark = _mark_of(log)
        with contextlib.suppress(OSError):
            sent = _read_number(mark.read_bytes()) if mark.exists() else 0
            if log.stat().st_size > sent:
                put_on_list(root, log)
                found += 1
    return found


def waits_for_s3(root: Path) -> bool:
    """Return whether anything is on the list."""
    folder = root / _LIST
    return folder.is_dir() and any(folder.iterdir())


def send_listed(root: Path, send: Callable[[Path], bool]) -> int:
    """Send what is on the list, and return how many are left.

    Ends early when several in a row cannot be sent. Those go to the end of the list, so that none of them
    stands before the others for ever, and leave it when the control plane would take them no more.
    """
    failed = 0
    for entry in sorted((root / _LIST).glob("*"), key=lambda entry: entry.stat().st_mtime):
        log = root / entry.read_text()
        if send(log):
            entry.unlink(missing_ok=True)
            failed = 0
            continue
        if not log.exists() or log.stat().st_mtime < time.time() - _LISTED_S:
            entry.unlink(missing_ok=True)
            continue
        os.utime(entry)
        failed += 1
        if failed == _IN_A_ROW:
            break
    return sum(1 for _ in (root / _LIST).glob("*"))


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
