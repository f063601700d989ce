"""Do a few things at once, on threads that end with the process.

``concurrent.futures`` would wait for its threads when the process is told to stop, and one of them may wait
for an S3 that does not answer.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

from airbridge.sync.s3 import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["in_parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[tuple[Item, Result]]:
    """Return each of ``items`` with what ``work`` made of it, in the order in which they were done.

    The first exception is raised here; what has not begun by then is not done.
    """
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007  (the number of items, in the end)
        todo.put(item)
    done: queue.SimpleQueue[tuple[Item, Result] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        while True:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((item, work(item)))
            except BaseException as error:  # noqa: BLE001, RUF100  (raised again by the caller)
                _drain(todo)
                done.put(error)

    for _ in range(min(THREADS, count)):
        threading.Thread(target=run, daemon=True).start()
    results: list[tuple[Item, Result]] = []
    while len(results) < count:
        result = done.get()
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def _drain(todo: queue.SimpleQueue[Item]) -> None:
    while True:
        try:
            todo.get_nowait()
        except queue.Empty:
            return
