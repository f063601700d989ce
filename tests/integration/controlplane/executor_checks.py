"""The control plane's EdgeExecutor decides as the provider's does; see checks_in_image.py.

Both get the same jobs, a database each, and are asked for what they made of them.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.edge3.executors import EdgeExecutor as ProviderExecutor
from airflow.providers.edge3.models.edge_job import EdgeJobModel
from airflow.providers.edge3.models.edge_logs import EdgeLogsModel
from airflow.providers_manager import ProvidersManager
from airflow.utils import timezone
from airflow.utils.state import TaskInstanceState as State
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airbridge.controlplane.executor import EdgeExecutor

if TYPE_CHECKING:
    from pathlib import Path

# The options of [edge] have their defaults in the provider, which only the command line reads by itself.
ProvidersManager().initialize_providers_configuration()

_SEEDS = 60
_JOBS = 25
_LOOPS = 4
# Before and after [edge] job_success_purge (5) and job_fail_purge (60).
_AGES_MIN = (0, 4, 6, 59, 61)


class _Side:
    """An executor with a database of its own."""

    def __init__(self, kind: type[ProviderExecutor]) -> None:
        self.executor = kind()
        self.engine = create_engine(
            "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
        )
        for model in (EdgeJobModel, EdgeLogsModel):
            model.__table__.create(self.engine)
        self.statements: list[str] = []
        event.listen(self.engine, "before_cursor_execute", self._note)

    def _note(self, _: object, __: object, statement: str, *___: object) -> None:
        self.statements.append(statement)

    def put(self, key: TaskInstanceKey, state: State, age_min: int) -> None:
        """A job in this state since so many minutes, with a piece of its log."""
        at = timezone.utcnow() - timedelta(minutes=age_min)
        names = {
            name: getattr(key, name) for name in ("dag_id", "task_id", "run_id", "map_index", "try_number")
        }
        with Session(self.engine) as session:
            session.merge(
                EdgeJobModel(
                    **names, state=state, queue="q", concurrency_slots=1, command="{}", last_update=at
                )
            )
            session.merge(EdgeLogsModel(**names, log_chunk_time=at, log_chunk_data="line"))
            session.commit()

    def loop(self) -> dict[str, Any]:
        """What one loop of the scheduler makes of it."""
        if isinstance(self.executor, EdgeExecutor):
            self.executor._looked.clear()  # each loop is one in which old jobs are looked for
        with Session(self.engine) as session:
            purged = self.executor._purge_jobs(session)
            session.commit()
            rows = session.execute(select(EdgeJobModel.task_id, EdgeJobModel.state))
            jobs = sorted((task, str(state)) for task, state in rows)
            logs = sorted(session.scalars(select(EdgeLogsModel.task_id)))
        events = {key.task_id: str(state) for key, (state, _) in self.executor.event_buffer.items()}
        self.executor.event_buffer.clear()
        running = sorted(key.task_id for key in self.executor.running)
        return {"purged": purged, "jobs": jobs, "logs": logs, "events": events, "running": running}


def _key(number: int) -> TaskInstanceKey:
    return TaskInstanceKey("dag", f"task-{number:02d}", "run", 1, -1)


def check_executor_makes_of_jobs_what_the_providers_makes_of_them(_: Path) -> None:
    for seed in range(_SEEDS):
        chance = random.Random(seed)
        sides = _Side(ProviderExecutor), _Side(EdgeExecutor)
        # Some of what runs has no job, and some jobs are another scheduler's.
        running = {_key(number) for number in range(_JOBS) if chance.random() < 0.7}
        for side in sides:
            side.executor.running |= running
        for loop in range(_LOOPS):
            for number in chance.sample(range(_JOBS), _JOBS // 2):
                state, age = chance.choice(list(State)), chance.choice(_AGES_MIN)
                for side in sides:
                    side.put(_key(number), state, age)
            theirs, ours = (side.loop() for side in sides)
            assert ours == theirs, (seed, loop, ours, theirs)


def check_executor_with_nothing_to_do_asks_for_no_job(_: Path) -> None:
    side = _Side(EdgeExecutor)
    for number in range(_JOBS):
        side.put(_key(number), State.SUCCESS, 1)
    side.loop()
    side.statements.clear()
    with Session(side.engine) as session:
        assert not side.executor._purge_jobs(session)
    assert side.statements == []


def check_executor_reads_of_what_has_ended_only_what_it_waits_for(_: Path) -> None:
    side = _Side(EdgeExecutor)
    for number in range(_JOBS):
        side.put(_key(number), State.SUCCESS, 1)
    side.executor.running = {_key(0)}
    side.loop()
    side.executor.running = {_key(1)}
    side.statements.clear()
    with Session(side.engine) as session:
        side.executor._purge_jobs(session)
    assert len(side.statements) == 2, side.statements
    assert side.executor.running == set()


def check_keys_of_jobs_are_still_those_of_airflow_3_0(_: Path) -> None:
    """When this fails, executors know jobs by the ids of their task instances, and ours has to."""
    assert EdgeExecutor.supports_task_instance_uuid is False
