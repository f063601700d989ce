"""The edge worker: the provider's own, which waits for jobs instead of asking every second.

A subclass of ``airflow.providers.edge3.cli.worker.EdgeWorker`` (5.1.0). Registration, heartbeats, drain,
maintenance mode, signals and states are the provider's. Different here:

* jobs come by a call that is held (:mod:`airbridge.edge._job_feed`), several at once;
* in the place of a worker that was killed, it says at once that the tasks of that one have failed;
* the end of a task is noticed when its process ends, not at the next look, and its report brings the next;
* supervisors of tasks take one after the other (:mod:`airbridge.edge._supervisors`);
* processes are forked from one that has everything imported and its garbage collector frozen, and a task's
  client of the Execution API loads no certificates for the plain HTTP to the courier.

docs/adr/0020 says what each of these replaces. ``WORKER_RUNNER=stock`` runs the provider's worker instead.
Needs Airflow.
"""

from __future__ import annotations

import asyncio
import gc
import os
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import ClientResponseError
from airflow.configuration import conf
from airflow.executors.workloads import ExecuteTask  # noqa: TC002 - pydantic looks it up
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.edge3.cli.api_client import jobs_set_state, logs_push
from airflow.providers.edge3.cli.worker import EdgeWorker, _make_task_temp_file, _reset_parent_signal_state
from airflow.providers.edge3.worker_api.datamodels import EdgeJobFetched
from airflow.utils import timezone
from airflow.utils.state import TaskInstanceState
from pydantic import BaseModel
from setproctitle import setproctitle

from airbridge.edge._correlation import FIELD, work_on
from airbridge.edge._job_feed import HELD_S, AttemptKey, JobFeed
from airbridge.edge._log_files import is_sent
from airbridge.edge._process_end import ProcessEnd
from airbridge.edge._supervise import supervise_task
from airbridge.edge._supervisors import Supervised, Supervisors
from airbridge.edge._warm import warm_up

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.providers.edge3.cli.dataclasses import Job

__all__ = ["Runner"]

# Logs of running tasks are shown while they run; a second or two later is soon enough.
_LOG_INTERVAL_S: Final = 2.0
# For the last question before a stop; a control plane that is away must not hold it up.
_RECALL_S: Final = 10.0

_TITLE: Final = "airflow edge supervisor"

_log = structlog.get_logger("airbridge.edge.runner")


class _Order(BaseModel):
    """What a supervisor is told of an attempt."""

    workload: ExecuteTask
    error_file: Path
    """Where it says what kept it from supervising."""


def _key(job: Job) -> AttemptKey:
    key = job.edge_job.key
    return (key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)


class Runner(EdgeWorker):  # type: ignore[misc]
    """An edge worker that is told of jobs.

    Args:
        courier: ``http://host:port`` of the courier.
        restarted: the worker before was this host's own, and is dead with all that it ran.
        arguments: those of the provider's worker.
    """

    def __init__(self, courier: str, *, restarted: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._feed = JobFeed(courier, self.hostname, conf.get("api_auth", "jwt_secret"))
        self._supervisors = Supervisors(self._run_order, _become_supervisor)
        self._has_lost = restarted
        self._asking: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Work until drained."""
        warm_up()
        # What is here now is never collected, so that no fork copies its pages.
        gc.collect()
        gc.freeze()
        async with self._feed:
            with self._supervisors:
                try:
                    await super().start()
                finally:
                    if self._asking is not None:
                        self._asking.cancel()

    # --- jobs come in -----------------------------------------------------------------------------

    async def fetch_and_run_job(self) -> None:
        """Ask for jobs, unless that is what is going on; the provider's loop calls this every second."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        if self._has_lost:
            await self._report_lost()
            self._has_lost = False
        while not self.drain and not self.maintenance_mode:
            await self._take(self.concurrency, HELD_S)

    async def _report_lost(self) -> None:
        """Say that the tasks of the worker before this one have failed, before this one runs any.

        Nobody else would notice for as long as a task may say nothing, which is many minutes, because a host
        that is only cut off goes on. Through the courier, so that what that worker had to say itself comes
        first: a task that had ended stays ended.
        """
        for dag_id, task_id, run_id, map_index, try_number in await self._feed.lost(self.queues or []):
            key = TaskInstanceKey(dag_id, task_id, run_id, try_number, map_index)
            _log.warning("task lost with the worker that was killed", job=str(key))
            await logs_push(
                task=key,
                log_chunk_time=timezone.utcnow(),
                log_chunk_data="The edge worker was killed while this task ran, and the task with it.\n",
            )
            await self._set_state(key, TaskInstanceState.FAILED)

    async def _take(self, slots: int, held_s: float) -> None:
        holding = {_key(job) for job in self.jobs}
        for fetched in await self._feed.jobs(self.queues or [], slots, holding, held_s):
            edge_job = EdgeJobFetched(**fetched)
            workload = edge_job.command
            job = self._launch_job(edge_job, workload, Path(self.base_log_folder, workload.log_path))
            self.jobs.append(job)
            self._in_background(self._attend(job))

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.background_tasks.add(task)
        task.add_done_callback(self.background_tasks.discard)

    async def _recall(self) -> None:
        """Stop asking; what was handed out meanwhile is run, so that nobody waits for it."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
            self._asking = None
            with suppress(TimeoutError):
                async with asyncio.timeout(_RECALL_S):
                    await self._take(0, 0.0)

    async def heartbeat(self, new_maintenance_comments: str | None = None) -> bool:
        """Report how this worker is, and do with the call for jobs what the answer says.

        It ends with maintenance, and is made anew for other queues or another number of tasks.
        """
        self._supervisors.retire()
        asked_with = (self.queues, self.concurrency)
        changed: bool = await super().heartbeat(new_maintenance_comments)
        if self.maintenance_mode:
            await self._recall()
        elif self._asking is not None and asked_with != (self.queues, self.concurrency):
            self._asking.cancel()  # the provider's loop asks again; what was on its way is handed out again
        return changed

    def _start_draining(self) -> bool:
        """Stop asking, whoever wants the worker to end: a call that is held would still be answered."""
        started: bool = super()._start_draining()
        if started:
            self._recalling = asyncio.create_task(self._recall())
        return started

    def shutdown_handler(self) -> None:
        """End the tasks and the worker; what was handed out just now is handed out at the next start."""
        super().shutdown_handler()
        if self._recalling is not None:
            self._recalling.cancel()
        if self._asking is not None:
            self._asking.cancel()

    async def loop(self) -> None:
        """Work until drained."""
        await super().loop()
        if self._recalling is not None:
            await asyncio.wait((self._recalling,))
        if self.jobs:
            await super().loop()

    # --- one job ----------------------------------------------------------------------------------

    async def _attend(self, job: Job) -> None:
        """Report a job from its start to its end."""
        edge_job = job.edge_job
        try:
            await self._report(job, TaskInstanceState.RUNNING)
            with ProcessEnd(job.process) as end:
                while not await end.wait(_LOG_INTERVAL_S):
                    await self._push_logs_in_chunks(job)
            # Before the report of the end, whose answer may be the next job.
            self._supervisors.release(job.process)
            state = TaskInstanceState.SUCCESS if job.is_success else TaskInstanceState.FAILED
            if state == TaskInstanceState.FAILED:
                # Before the state, as the provider does: whoever sees the failure finds the reason.
                await self._push_logs_in_chunks(job)
                await logs_push(
                    task=edge_job.key,
                    log_chunk_time=timezone.utcnow(),
                    log_chunk_data=f"Error executing job:\n{job.failure_details()}",
                    task_instance_id=edge_job.task_instance_id,
                )
            else:
                _log.info("Job completed", job=edge_job.identifier)  # in the provider's words
            await self._report(job, state)
            if not is_sent(job.logfile):
                await self._push_logs_in_chunks(job)  # what S3 has is read from there
        except Exception:
            # The next jobs are worth more than a log line that could not be sent.
            _log.exception("job could not be reported", job=edge_job.identifier)
        finally:
            self._supervisors.release(job.process)  # of one that nobody waits for to its end, after an error
            self.jobs.remove(job)
            job.cleanup()

    async def _report(self, job: Job, state: TaskInstanceState) -> None:
        await self._set_state(job.edge_job.key, state, job.edge_job.task_instance_id)

    @staticmethod
    async def _set_state(
        key: TaskInstanceKey, state: TaskInstanceState, task_instance_id: UUID | None = None
    ) -> None:
        try:
            await jobs_set_state(key, state, task_instance_id=task_instance_id)
        except ClientResponseError as error:
            # The job is somebody else's by now; what its task does is between it and the Execution API.
            _log.warning("state refused", job=str(key), state=str(state), status=error.status)

    def _launch_job_fork(self, workload: ExecuteTask) -> tuple[Supervised, Path]:
        """Hand a task to a supervisor; the provider forks one for each."""
        error_file, path = _make_task_temp_file("airflow-edge-task-error-")
        error_file.close()  # written by its path
        order = _Order(workload=workload, error_file=path)
        supervised = self._supervisors.start(order.model_dump_json().encode())
        _log.info("Launched task", pid=supervised.pid, **{FIELD: str(workload.ti.id)})  # as the provider does
        return supervised, path

    def _run_order(self, order: bytes) -> int:
        """Run a task; called in a supervisor."""
        asked = _Order.model_validate_json(order)
        task = asked.workload.ti
        work_on(str(task.id))
        setproctitle(
            f"{_TITLE}: dag_id={task.dag_id} task_id={task.task_id} run_id={task.run_id}"
            f" map_index={task.map_index} try_number={task.try_number}"
        )
        try:
            return supervise_task(asked.workload, self._execution_api_server_url)
        except Exception:
            with suppress(OSError):
                asked.error_file.write_text(traceback.format_exc())
            return 1
        finally:
            work_on("")
            setproctitle(f"{_TITLE}: idle")


def _become_supervisor() -> None:
    """Leave what is the worker's; called in a new supervisor."""
    _reset_parent_signal_state()
    # Ctrl-C is for the worker, which lets its tasks finish.
    os.setpgrp()
