"""What one edge host remembers about its worker: a lock, and when the last heartbeat left.

Both live in the state directory, a volume that outlives the container. They answer one question
after a crash: is the registration that the control plane still shows *ours*, and is its owner dead?

* The lock is held by the worker process and, through ``fork``, by every task supervisor it started:
  whoever gets it knows that no process of a predecessor on this host is left.
* The mark holds the moment of the last heartbeat on the boot's own clock. When the control plane's
  last heartbeat is as old as the mark, it came from the predecessor and from nobody after it.
* It holds the host's time as well, for after a reboot: of a boot that has ended, nothing is left alive. That
  clock may have been set meanwhile, so it proves less.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from airbridge.errors import AirbridgeError, RefusedError

__all__ = ["Presence"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _boot_clock() -> tuple[str, float]:
    """Return this boot's id and the seconds since it began; no clock change touches them."""
    return _BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class _Mark:
    """When the last heartbeat left."""

    boot: str
    boot_s: float
    """Seconds since that boot began."""
    wall_s: float | None
    """The host's time; ``None`` in marks of earlier releases."""


class Presence:
    """The traces of worker ``name`` in ``state_dir``."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self._lock_path = state_dir / f"{name}.lock"
        self._mark_path = state_dir / f"{name}.heartbeat"
        self._lock_fd: int | None = None

    def acquire(self) -> None:
        """Take the lock for this process and whatever it becomes through ``exec``.

        :raises RefusedError: another process of this host holds it
        :raises AirbridgeError: the state directory cannot be written
        """
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise AirbridgeError(
                f"cannot write the state directory {self._lock_path.parent}: {error.strerror}",
                fix="make EDGE_STATE_DIR a volume that uid 50000 may write, with free space",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RefusedError(
                f"a worker of this name, or a task of its, still runs on this host (lock {self._lock_path})",
                fix="wait for it to end, or give this worker another WORKER_NAME",
            ) from None
        os.set_inheritable(descriptor, True)
        self._lock_fd = descriptor

    def release(self) -> None:
        """Give the lock back; the kernel does it for a process that ends."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def mark(self) -> None:
        """Note that a heartbeat leaves now; a power cut finds this mark or the one before it."""
        boot, now = _boot_clock()
        written = self._mark_path.with_suffix(".next")
        with written.open("w") as file:
            file.write(f"{boot} {now!r} {time.time()!r}\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._mark_path)

    def forget(self) -> None:
        """Remove the mark: what follows is a new worker's life."""
        self._mark_path.unlink(missing_ok=True)

    def mark_age(self) -> float | None:
        """Return the seconds since the last mark; None when there is none of this boot."""
        mark = self._read()
        current, now = _boot_clock()
        return now - mark.boot_s if mark is not None and mark.boot == current else None

    def age_across_boots(self) -> float | None:
        """Return the seconds since the last mark by the host's time.

        None when there is none of an earlier boot, or when that time is surely wrong.
        """
        mark = self._read()
        if mark is None or mark.wall_s is None or mark.boot == _boot_clock()[0]:
            return None
        age = time.time() - mark.wall_s
        return age if age >= 0 else None

    def _read(self) -> _Mark | None:
        try:
            boot, boot_s, *wall_s = self._mark_path.read_text().split()
            return _Mark(boot, float(boot_s), float(wall_s[0]) if wall_s else None)
        except (OSError, ValueError):
            return None
