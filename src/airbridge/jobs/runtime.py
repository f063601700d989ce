"""Run a job inside a task, on the worker. What generated DAG files call.

Standard library only: a worker has nothing more to have.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["JobFailedError", "JobRefusedError", "run_job"]

_log = logging.getLogger(__name__)


class JobFailedError(Exception):
    """The job ended with an exit code other than 0."""

    def __init__(self, job: str, exit_code: int) -> None:
        super().__init__(f"job {job} ended with exit code {exit_code}")
        self.exit_code = exit_code


class JobRefusedError(Exception):
    """The job was not started, or its answer makes no sense: the message says why, and what to do."""


def run_job(
    module: str,
    entrypoint: str,
    *,
    args: list[str],
    conf: Mapping[str, Any] | None = None,
    source: Path | None = None,
    memory_bytes: int | None = None,
) -> None:
    """Import a job and run it.

    Args:
        module: the job's module, such as ``sales.jobs.load``.
        entrypoint: name of the function in it.
        args: what it gets unless ``conf`` says otherwise.
        conf: the configuration of the DAG run; ``conf["args"]`` replaces ``args``.
        source: folder that holds the package; ``None``: the package is installed.
        memory_bytes: what the job may allocate on top of what this process has now.

    Raises:
        JobFailedError: it ended with an exit code other than 0.
        JobRefusedError: ``conf`` is wrong, or the code is not where it should be.
    """
    argv = _arguments(args, conf)
    package = module.partition(".")[0]
    with _importable(source, package), _memory_limit(memory_bytes):
        began = time.monotonic()
        _log.info("job %s starts with arguments %s", module, argv)
        exit_code = _exit_code(module, entrypoint, argv, source)
        seconds = time.monotonic() - began
    # What the job printed comes before what is said about it.
    sys.stdout.flush()
    sys.stderr.flush()
    if exit_code != 0:
        _log.error("job %s ended with exit code %d after %.1f s", module, exit_code, seconds)
        raise JobFailedError(module, exit_code)
    _log.info("job %s ended with exit code 0 after %.1f s", module, seconds)


def _arguments(default: list[str], conf: Mapping[str, Any] | None) -> list[str]:
    given = (conf or {}).get("args")
    if given is None:
        return [str(item) for item in default]
    if not isinstance(given, list):
        raise JobRefusedError(
            f'"args" of the run\'s configuration is {given!r} ({type(given).__name__}), not a list of texts'
            ' | fix: trigger it with {"args": ["--option", "value"]}'
        )
    for position, item in enumerate(given):
        if not isinstance(item, str):
            raise JobRefusedError(
                f'"args" of the run\'s configuration has {item!r} ({type(item).__name__}) at position '
                f"{position}, not a text | fix: put it in quotes"
            )
    return list(given)


@contextlib.contextmanager
def _importable(source: Path | None, package: str) -> Iterator[None]:
    """Put the release's code first on the import path, for as long as the job runs."""
    if source is None:
        yield
        return
    if not (source / package).is_dir():
        raise JobRefusedError(
            f"the release has no code of package '{package}' at {source}"
            " | fix: look whether dag-sync on this host is healthy, or publish the package again"
        )
    _forget(package, source)
    path = str(source)
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(path)


def _forget(package: str, source: Path) -> None:
    """Drop modules of this package that came from elsewhere, such as another release in the same process."""
    for name, loaded in list(sys.modules.items()):
        if name != package and not name.startswith(f"{package}."):
            continue
        if not _comes_from(loaded, source):
            del sys.modules[name]


def _comes_from(module: Any, folder: Path) -> bool:
    places = [getattr(module, "__file__", None) or "", *list(getattr(module, "__path__", None) or [])]
    return any(place and Path(place).is_relative_to(folder) for place in places)


def _exit_code(module: str, entrypoint: str, argv: list[str], source: Path | None) -> int:
    try:
        loaded = importlib.import_module(module)
        if source is not None and not _comes_from(loaded, source):
            raise JobRefusedError(
                f"module {module} was imported from {getattr(loaded, '__file__', '?')}, not from the release"
                " | fix: add an __init__.py to the package and to its jobs/, or rename the package"
            )
        function = getattr(loaded, entrypoint, None)
        if not callable(function):
            raise JobRefusedError(f"module {module} has no function '{entrypoint}' | fix: define it there")
        answer = function(argv)
    except SystemExit as left:
        return _code_of_exit(left)
    if answer is None:
        return 0
    if not isinstance(answer, int):
        raise JobRefusedError(
            f"job {module} returned {answer!r} ({type(answer).__name__}), which is no exit code"
            " | fix: return a whole number, 0 for success, or nothing"
        )
    return int(answer)


def _code_of_exit(left: SystemExit) -> int:
    """Read ``SystemExit`` as Python does: nothing is 0, a number is itself, a text is said and is 1."""
    match left.code:
        case None:
            return 0
        case int():
            return int(left.code)
    _log.error("%s", left.code)
    return 1


@contextlib.contextmanager
def _memory_limit(allowed: int | None) -> Iterator[None]:
    """Bound what this process may allocate, so that a greedy job fails alone and not the whole worker."""
    if allowed is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + allowed
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return what RLIMIT_DATA counts of this process: private writable memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise JobRefusedError("this host does not say how much memory a process has | fix: drop option 'memory'")
