"""What the author of a job writes: ``JOB = Job(entrypoint, "description", option=...)``.

Standard library only, and nothing is checked here: ``airflow-control-plane`` has checked the text of the
module before it published it, and a worker should run it, not argue with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Entrypoint", "Job"]

Entrypoint = Callable[[list[str]], int | None]
"""Takes the arguments, as ``sys.argv[1:]`` would be; returns an exit code, or ``None`` for 0."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job and how it is to be run; docs/jobs.md describes every option.

    Everything after ``entrypoint`` must be written as literals: the module is read, not run. Durations are
    seconds, or text such as ``"90s"``, ``"15m"``, ``"2h"``, ``"1d"``.
    """

    entrypoint: Entrypoint
    description: str
    schedule: str | Sequence[str] | Mapping[str, Any] | None = None
    timezone: str = "UTC"
    start_date: str | None = None
    end_date: str | None = None
    catchup: bool = False
    depends_on: Sequence[str] = ()
    args: Sequence[str] = ()
    params: Mapping[str, Any] | None = None
    retries: int = 0
    retry_delay: float | str = "5m"
    retry_exponential_backoff: bool = False
    max_retry_delay: float | str | None = None
    execution_timeout: float | str | None = None
    dagrun_timeout: float | str | None = None
    queue: str | None = None
    pool: str | None = None
    pool_slots: int = 1
    priority_weight: int = 1
    max_active_runs: int | None = None
    cpu: float | str | None = None
    memory: str | None = None
    on_failure: Mapping[str, Any] | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    owner: str | None = None
