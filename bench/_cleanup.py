"""Take away what was started, whatever happens, without hiding what happened."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airbridge.errors import AirbridgeError
from bench._progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["removing"]


@contextmanager
def removing(remove: Callable[[], object]) -> Iterator[None]:
    """Call ``remove`` at the end. When the body failed, a failure of ``remove`` is only said: the first one
    is the cause."""
    try:
        yield
    except BaseException:
        try:
            remove()
        except AirbridgeError as error:
            say("clean-up", f"failed as well: {error}")
        raise
    remove()
