"""The control plane's executors: Airflow's own and the edge provider's, each with one thing changed.

And both leave tasks alone that go on (:mod:`airbridge.controlplane._earlier_parts`), or that a command runs
by itself (:mod:`airbridge.controlplane._test_runs`).

**LocalExecutor** has a number of workers of its own. ``[core] parallelism`` limits every executor of a
scheduler, and here it is sized for a fleet of edge hosts. Airflow 3.0.4's LocalExecutor takes it as the
number of worker processes as well, starts one a waiting task and never ends them
(``airflow/executors/local_executor.py``, ``_check_workers``): a burst of tasks would leave dozens in the
scheduler's container, about 150 MiB each.

**EdgeExecutor** asks for what has changed. The provider's (5.1.0) reads, in each loop of the scheduler, every
job that ended within five minutes, twice, and locks them: at ten tasks a second that is three thousand rows a
loop, which was a fifth of the scheduler's time at two hundred. The decisions are the provider's.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.executors.local_executor import LocalExecutor as _AirflowLocalExecutor
from airflow.providers.edge3.executors import EdgeExecutor as _ProviderEdgeExecutor
from airflow.providers.edge3.models.edge_job import EdgeJobModel, build_job_key
from airflow.providers.edge3.models.edge_logs import EdgeLogsModel
from airflow.utils import timezone
from airflow.utils.state import TaskInstanceState as State
from sqlalchemy import and_, delete, or_, select, tuple_

from airbridge.controlplane._earlier_parts import KnowsEarlierParts
from airbridge.controlplane._test_runs import LeavesTestRuns
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.models.taskinstancekey import TaskInstanceKey
    from sqlalchemy.orm import Session

__all__ = ["EdgeExecutor", "LocalExecutor"]

_VARIABLE: Final = "AIRBRIDGE_LOCAL_PARALLELISM"
_DEFAULT: Final = "2"  # with 150 MiB each: jobs belong to edge hosts, and few run here

# States in which a job keeps its slot of [core] parallelism.
_HELD: Final = (State.QUEUED, State.RESTARTING, State.RUNNING)
# Those that the provider deletes after [edge] job_fail_purge minutes.
_FAILED: Final = (State.FAILED, State.REMOVED, State.RESTARTING, State.UP_FOR_RETRY)
# What is minutes old is looked for this often, and workers that were silent for the better part of a minute.
_LOOK_EVERY_S: Final = 5.0
# Rows that one look deletes; what is left is deleted by the next.
_MOST_PURGED: Final = 1000

_ATTEMPT: Final = (
    EdgeJobModel.dag_id,
    EdgeJobModel.task_id,
    EdgeJobModel.run_id,
    EdgeJobModel.try_number,
    EdgeJobModel.map_index,
)
_ATTEMPT_OF_LOG: Final = (
    EdgeLogsModel.dag_id,
    EdgeLogsModel.task_id,
    EdgeLogsModel.run_id,
    EdgeLogsModel.try_number,
    EdgeLogsModel.map_index,
)


def _parallelism() -> int:
    text = os.environ.get(_VARIABLE) or _DEFAULT
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{_VARIABLE}='{text}' is no number of tasks", fix="give a number from 1")
    return int(text)


class LocalExecutor(LeavesTestRuns, KnowsEarlierParts, _AirflowLocalExecutor):  # type: ignore[misc]
    """Runs tasks with ``executor="LocalExecutor"`` in the scheduler's container, a few at a time."""

    def __init__(self) -> None:
        super().__init__(parallelism=_parallelism())


class EdgeExecutor(LeavesTestRuns, KnowsEarlierParts, _ProviderEdgeExecutor):  # type: ignore[misc]
    """Hands tasks to edge hosts, as the provider's executor does."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._looked: dict[str, float] = {}

    def _is_due(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._looked.get(what, -_LOOK_EVERY_S) < _LOOK_EVERY_S:
            return False
        self._looked[what] = now
        return True

    def _check_worker_liveness(self, session: Session) -> bool:
        """See the provider's; not in each loop."""
        return self._is_due("workers") and bool(super()._check_worker_liveness(session))

    def _update_orphaned_jobs(self, session: Session) -> bool:
        """See the provider's; not in each loop."""
        return self._is_due("orphans") and bool(super()._update_orphaned_jobs(session))

    def _purge_jobs(self, session: Session) -> bool:
        """Take note of jobs that went on or ended, and delete those that ended long ago.

        :return: whether any was deleted
        """
        if self.running:
            self._take_note(session)
        return self._is_due("old jobs") and self._delete_old_jobs(session)

    def _take_note(self, session: Session) -> None:
        held = self._states(session, EdgeJobModel.state.in_(_HELD))
        # Whoever is not held any more has ended, or is gone.
        missing = [_columns_of(key) for key in self.running if key not in held]
        ended = self._states(session, tuple_(*_ATTEMPT).in_(missing)) if missing else {}
        for key in tuple(self.running):
            state = held.get(key) or ended.get(key)
            if state == State.RUNNING:
                if self.last_reported_state.get(key) != state:
                    self.running_state(key)
                self.last_reported_state[key] = state
            elif state == State.SUCCESS:
                self.last_reported_state.pop(key, None)
                self.success(key)
            elif state in (State.FAILED, State.UP_FOR_RETRY):
                self.last_reported_state.pop(key, None)
                self.fail(key)
            elif state in (State.REMOVED, State.RESTARTING):
                self.last_reported_state[key] = State(state)
            elif state != State.QUEUED:
                # A job that is gone, or one that nobody would ever look at again, holds no slot.
                self.running.discard(key)
                self.last_reported_state.pop(key, None)

    def _states(self, session: Session, which: Any) -> dict[Any, str]:
        """Return the states of this team's jobs, by the keys that executors have for them, without locks."""
        rows = session.execute(
            select(*_ATTEMPT, EdgeJobModel.state).where(EdgeJobModel.team_name == self.team_name, which)
        )
        return {build_job_key(*row[:-1]): row[-1] for row in rows}

    def _delete_old_jobs(self, session: Session) -> bool:
        def older_than(option: str) -> Any:
            minutes = self.conf.getint("edge", option)
            return EdgeJobModel.last_update < timezone.utcnow() - timedelta(minutes=minutes)

        of_success = and_(EdgeJobModel.state == State.SUCCESS, older_than("job_success_purge"))
        of_failure = and_(EdgeJobModel.state.in_(_FAILED), older_than("job_fail_purge"))
        old = session.execute(
            select(*_ATTEMPT, EdgeJobModel.task_instance_id)
            .where(EdgeJobModel.team_name == self.team_name, or_(of_success, of_failure))
            .limit(_MOST_PURGED)
            .with_for_update(skip_locked=True)
        ).all()
        if old:
            _delete(session, [tuple(row) for row in old])
            for row in old:
                self.last_reported_state.pop(build_job_key(*row[:-1]), None)
        if len(old) == _MOST_PURGED:
            del self._looked["old jobs"]
        return bool(old)


def _columns_of(key: TaskInstanceKey) -> tuple[str, str, str, int, int]:
    """Return the parts of a key in the order of :data:`_ATTEMPT`."""
    return (key.dag_id, key.task_id, key.run_id, key.try_number, key.map_index)


def _delete(session: Session, jobs: Collection[tuple[Any, ...]]) -> None:
    """Delete jobs, and the logs of those attempts that no other job is for."""
    quietly = {"synchronize_session": False}
    session.execute(
        delete(EdgeJobModel)
        .where(tuple_(*_ATTEMPT, EdgeJobModel.task_instance_id).in_(jobs))
        .execution_options(**quietly)
    )
    same_attempt = [job == log for job, log in zip(_ATTEMPT, _ATTEMPT_OF_LOG, strict=True)]
    session.execute(
        delete(EdgeLogsModel)
        .where(
            tuple_(*_ATTEMPT_OF_LOG).in_({job[:-1] for job in jobs}),
            ~select(EdgeJobModel.dag_id).where(*same_attempt).exists(),
        )
        .execution_options(**quietly)
    )
