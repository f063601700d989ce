"""Kill a process before its n-th change of the file system."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MUTATIONS = (
    "link",
    "rename",
    "replace",
    "symlink",
    "mkdir",
    "chmod",
    "utime",
    "fsync",
    "unlink",
    "rmdir",
    "open",
    "write",
)


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that kills itself before its ``step``-th change of the disk; True if so."""
    child = os.fork()
    if child == 0:
        count = 0

        def counting(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count > step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            return call

        try:
            for name in MUTATIONS:
                setattr(os, name, counting(getattr(os, name)))
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
