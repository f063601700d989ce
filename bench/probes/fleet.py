"""Plays a fleet of enrolled edge workers: what they say to the control plane, without running any task.

Runs in a container of the control plane's image beside the gateway, which it reaches as an uplink does: TLS,
connections that are kept. Each worker registers, sends heartbeats, holds a call for jobs, and reports what it
is handed: running, a piece of log, success. Requests and tokens are those of the real clients
(``providers/edge3/cli/api_client.py`` and :mod:`airbridge.edge`).

An uplink has one HTTP/2 connection; a worker here has two of HTTP/1.1, one of which holds the call for jobs.

Takes one JSON document as its argument (:class:`Plan`), prints one JSON document a line: an event as it
happens, and samples at the end of each phase.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from typing import Any, Final

import aiohttp
import psycopg2
import uvloop
from psycopg2.extras import execute_values

import airbridge
from airbridge.credential import Credential
from airbridge.edge.token import API_PREFIX, request_token
from airbridge.identity.database import Database
from airbridge.identity.model import Allowance
from airbridge.identity.store import Cipher, WorkerStore

_GATEWAY: Final = "https://gateway:8443"
_EDGE: Final = "/edge_worker/v1/"
_DAG: Final = "bench_fleet"
_QUEUES: Final = 8
_SLOTS: Final = 4
_MS: Final = 1000
# The provider's worker looks once a second whether it is time for the next heartbeat.
_LOOK_S: Final = 1.0
# New workers a second: a fleet does not start as one.
_ARRIVALS: Final = 50.0
_TASK_S: Final = 0.5
_RETRY_S: Final = 1.0
_PATIENCE_S: Final = 30.0
_KEEPALIVE_S: Final = 120.0  # the uplink's
_LOG: Final = "[2026-01-01T00:00:00.000000Z] {task_runner.py:100} INFO - one line of a task's log\n" * 20
_SYSINFO: Final = {
    "status": 20,
    "airflow_version": version("apache-airflow"),
    "edge_provider_version": version("apache-airflow-providers-edge3"),
    "python_version": sys.version,
    "worker_start_time": datetime.now(UTC).isoformat(),
    "concurrency": _SLOTS,
    "airbridge_version": airbridge.__version__,
    "dag_tree": "0" * 64,
    "disk_free_mb": 50_000,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played. Sizes ascend: the fleet grows from step to step."""

    ca: str
    sizes: list[int]
    heartbeat_s: float
    held_s: float
    idle_s: float
    load_s: float
    rate: float
    """Jobs a second under load."""
    burst: int
    """Jobs that are queued in one transaction at the end of a step."""


def _say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def _uri() -> str:
    return os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


class Book:
    """What was asked, how long it took, and when each job was queued and handed out."""

    def __init__(self) -> None:
        self.took_ms: dict[str, list[float]] = defaultdict(list)
        self.answers: Counter[str] = Counter()
        self.queued_at: dict[str, float] = {}
        self.dispatch_ms: dict[str, float] = {}
        self.ended: set[str] = set()
        self.twice = 0

    def clear(self) -> None:
        """Begin a phase."""
        self.__init__()  # type: ignore[misc]

    def asked(self, kind: str, began: float, answer: str) -> None:
        """Note a request and its answer."""
        self.took_ms[kind].append(round((time.perf_counter() - began) * _MS, 2))
        self.answers[f"{kind} {answer}"] += 1

    def arrived(self, task: str) -> None:
        """Note that a worker was handed a job."""
        if task in self.dispatch_ms:
            self.twice += 1
        elif task in self.queued_at:
            self.dispatch_ms[task] = round((time.perf_counter() - self.queued_at[task]) * _MS, 2)

    def report(self) -> dict[str, Any]:
        """Return everything as data."""
        return {
            "answers": dict(self.answers),
            # A held call ends when its time is over: how long it took says nothing.
            "took_ms": {kind: took for kind, took in self.took_ms.items() if kind != "jobs"},
            "queued": len(self.queued_at),
            "dispatch_ms": list(self.dispatch_ms.values()),
            "ended": len(self.ended & self.queued_at.keys()),
            "handed_out_twice": self.twice,
        }


class JobSource:
    """Queues jobs as the EdgeExecutor does, with a task instance for each. Methods block."""

    def __init__(self) -> None:
        self._connection = psycopg2.connect(_uri().replace("postgresql+psycopg2://", "postgresql://", 1))
        self._lock = threading.Lock()  # one transaction at a time
        self._ids: dict[str, str] = {}
        self._numbers = count()
        self._run = f"bench_{uuid.uuid4().hex[:12]}"
        with self._lock, self._connection, self._connection.cursor() as cursor:
            # A run that has ended: the scheduler leaves it alone.
            cursor.execute(
                "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, log_template_id)"
                " VALUES (%s, %s, 'manual', 'success', now(), (SELECT max(id) FROM log_template))",
                (_DAG, self._run),
            )

    def prepare(self, number: int) -> list[str]:
        """Make task instances and return their ids; their jobs are not queued yet."""
        tasks = [f"task_{next(self._numbers)}" for _ in range(number)]
        rows = [(str(uuid.uuid4()), task, _DAG, self._run) for task in tasks]
        with self._lock, self._connection, self._connection.cursor() as cursor:
            execute_values(
                cursor,
                "INSERT INTO task_instance (id, task_id, dag_id, run_id, state, try_number, pool, pool_slots,"
                " queued_dttm) VALUES %s",
                rows,
                template="(%s, %s, %s, %s, 'queued', 1, 'default_pool', 1, now())",
            )
        self._ids |= {task: identity for identity, task, _, _ in rows}
        return tasks

    def queue(self, tasks: list[str], book: Book) -> None:
        """Queue the jobs of these task instances in one transaction."""
        rows = [
            (_DAG, task, self._run, _queue_of(int(task.rpartition("_")[2])), self._command(task))
            for task in tasks
        ]
        with self._lock, self._connection.cursor() as cursor:
            execute_values(
                cursor,
                "INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, state, queue,"
                " concurrency_slots, priority_weight, command, queued_dttm) VALUES %s",
                rows,
                template="(%s, %s, %s, -1, 1, 'queued', %s, 1, 1, %s, now())",
                page_size=len(rows),
            )
            book.queued_at |= dict.fromkeys(tasks, time.perf_counter())
            self._connection.commit()

    def succeed(self, task: str) -> None:
        """Say what the task itself would tell the Execution API at its end."""
        with self._lock, self._connection, self._connection.cursor() as cursor:
            cursor.execute("UPDATE task_instance SET state = 'success' WHERE id = %s", (self._ids[task],))

    def remove(self) -> None:
        """Take everything away that was made."""
        with self._lock, self._connection, self._connection.cursor() as cursor:
            for table in ("edge_job", "edge_logs", "dag_run"):
                cursor.execute(f"DELETE FROM {table} WHERE dag_id = %s", (_DAG,))
            cursor.execute("DELETE FROM airbridge.handed_out WHERE dag_id = %s", (_DAG,))
        self._connection.close()

    def _command(self, task: str) -> str:
        instance = {
            "id": self._ids[task],
            "task_id": task,
            "dag_id": _DAG,
            "run_id": self._run,
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
            "executor_config": None,
            "parent_context_carrier": {},
            "context_carrier": {},
            "queued_dttm": datetime.now(UTC).isoformat(),
        }
        return json.dumps(
            {
                "token": "x" * 400,  # as long as one that is signed with Ed25519
                "ti": instance,
                "dag_rel_path": "bench_fleet/dags/bench_fleet.py",
                "bundle_info": {"name": "airbridge", "version": "0" * 64},
                "log_path": f"dag_id={_DAG}/run_id={self._run}/task_id={task}/attempt=1.log",
                "type": "ExecuteTask",
            }
        )


def _queue_of(number: int) -> str:
    return f"bench-{number % _QUEUES}"


class FleetWorker:
    """One edge worker."""

    def __init__(
        self, number: int, credential: Credential, plan: Plan, book: Book, source: JobSource
    ) -> None:
        self.name = credential.name
        self._queues = [_queue_of(number), "bench-all"]
        self._secret = credential.secret
        self._plan = plan
        self._book = book
        self._source = source
        self._running: dict[str, list[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        context = ssl.create_default_context(cadata=plan.ca) if _CONTEXT is None else _CONTEXT
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=plan.held_s + _PATIENCE_S),
        )

    async def live(self) -> None:
        """Register, then work until cancelled."""
        await self._ask("register", "POST", f"worker/{self.name}", self._state("starting"))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats())
            group.create_task(self._wait_for_jobs())

    async def leave(self) -> None:
        """Sign off."""
        await self._ask("heartbeat", "PATCH", f"worker/{self.name}", self._state("offline"))
        await self._session.close()

    def _state(self, state: str) -> dict[str, Any]:
        return {
            "state": state,
            "jobs_active": len(self._running),
            "queues": self._queues,
            "sysinfo": {**_SYSINFO, "free_concurrency": _SLOTS - len(self._running)},
            "maintenance_comments": None,
            "team_name": None,
        }

    async def _heartbeats(self) -> None:
        await asyncio.sleep(random.uniform(0, self._plan.heartbeat_s))
        while True:
            state = "running" if self._running else "idle"
            await self._ask("heartbeat", "PATCH", f"worker/{self.name}", self._state(state))
            await asyncio.sleep(self._plan.heartbeat_s + random.uniform(0, _LOOK_S))

    async def _wait_for_jobs(self) -> None:
        # The first call is shorter: those of a fleet end one after the other, as they do after a while.
        held = random.uniform(0, self._plan.held_s)
        while True:
            asked = {
                "queues": self._queues,
                "slots": _SLOTS,
                "wait": held,
                "holding": list(self._running.values()),
            }
            held = self._plan.held_s
            answer = await self._ask("jobs", "POST", f"jobs/{self.name}", asked, prefix=API_PREFIX)
            if answer is None:
                await asyncio.sleep(_RETRY_S)
                continue
            for job in answer["jobs"]:
                self._book.arrived(job["task_id"])
                fields = ("dag_id", "task_id", "run_id", "map_index", "try_number")
                self._running[job["task_id"]] = [job[field] for field in fields]
                task = asyncio.create_task(self._attend(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _attend(self, job: dict[str, Any]) -> None:
        key = f"{job['dag_id']}/{job['task_id']}/{job['run_id']}/{job['try_number']}/{job['map_index']}"
        await self._ask("state", "PATCH", f"jobs/state/{key}/running")
        await asyncio.sleep(_TASK_S)
        await asyncio.to_thread(self._source.succeed, job["task_id"])
        del self._running[job["task_id"]]
        await self._ask("state", "PATCH", f"jobs/state/{key}/success")
        piece = {"log_chunk_time": datetime.now(UTC).isoformat(), "log_chunk_data": _LOG}
        await self._ask("log", "POST", f"logs/push/{key}", piece)
        self._book.ended.add(job["task_id"])

    async def _ask(self, kind: str, verb: str, call: str, body: object = None, prefix: str = _EDGE) -> Any:
        """Return the answer; ``None``: it was a refusal, or there was none."""
        headers = {
            "Authorization": request_token(self._secret, self.name, call),
            "Accept": "application/json",
            "X-AirBridge-Version": airbridge.__version__,
        }
        began = time.perf_counter()
        try:
            async with self._session.request(
                verb, f"{_GATEWAY}{prefix}{call}", json=body, headers=headers
            ) as response:
                answer = await response.json() if response.status == 200 else None
                self._book.asked(kind, began, str(response.status))
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            self._book.asked(kind, began, type(error).__name__)
            return None


_CONTEXT: ssl.SSLContext | None = None


class Fleet:
    """All workers."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._book = Book()
        self._source = JobSource()
        self._workers: list[FleetWorker] = []
        self._lives: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Play all steps."""
        try:
            for size in self._plan.sizes:
                await self._grow(size)
                await self._phase("idle", size, self._plan.idle_s)
                await self._phase("load", size, self._plan.load_s, self._load)
                await self._phase("burst", size, 0, self._burst)
        finally:
            for life in self._lives:
                life.cancel()
            await asyncio.gather(*self._lives, return_exceptions=True)
            await asyncio.gather(*(worker.leave() for worker in self._workers), return_exceptions=True)
            await asyncio.to_thread(self._source.remove)

    async def _grow(self, size: int) -> None:
        began = time.perf_counter()
        first = len(self._workers)
        credentials = await asyncio.to_thread(_enrolled, range(first, size))
        for number, credential in enumerate(credentials, start=first):
            worker = FleetWorker(number, credential, self._plan, self._book, self._source)
            self._workers.append(worker)
            life = asyncio.create_task(worker.live())
            life.add_done_callback(_ended)
            self._lives.add(life)
            await asyncio.sleep(1 / _ARRIVALS)
        _say("grown", workers=size, seconds=round(time.perf_counter() - began, 1))

    async def _phase(self, phase: str, size: int, seconds: float, work: Any = None) -> None:
        self._book.clear()
        _say("begin", phase=phase, workers=size)
        began = time.perf_counter()
        if work is not None:
            await work()
        await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - began)))
        took = time.perf_counter() - began
        _say("end", phase=phase, workers=size, seconds=round(took, 2), **self._book.report())

    async def _load(self) -> None:
        number = int(self._plan.rate * self._plan.load_s)
        tasks = await asyncio.to_thread(self._source.prepare, number)
        due = time.perf_counter()
        for task in tasks:
            due += random.expovariate(self._plan.rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await asyncio.to_thread(self._source.queue, [task], self._book)
        await self._until_ended()

    async def _burst(self) -> None:
        tasks = await asyncio.to_thread(self._source.prepare, self._plan.burst)
        await asyncio.to_thread(self._source.queue, tasks, self._book)
        await self._until_ended()

    async def _until_ended(self) -> None:
        deadline = time.perf_counter() + _PATIENCE_S
        while len(self._book.ended & self._book.queued_at.keys()) < len(self._book.queued_at):
            if time.perf_counter() > deadline:
                return  # what is missing is in the report
            await asyncio.sleep(0.1)


def _ended(life: asyncio.Task[None]) -> None:
    if not life.cancelled() and (error := life.exception()):
        _say("died", error=repr(error))


def _enrolled(numbers: range) -> list[Credential]:
    store = WorkerStore(Database.at(_uri()), Cipher(os.environ["AIRFLOW__CORE__FERNET_KEY"]))
    credentials = []
    for number in numbers:
        credential = Credential.new(f"bench-fleet-{number:04d}")
        if store.find(credential.name) is not None:
            store.revoke(credential.name)
        store.enroll(
            credential.name, Allowance((_queue_of(number), "bench-all"), _SLOTS), credential=credential
        )
        credentials.append(credential)
    return credentials


async def _main() -> None:
    await Fleet(Plan(**json.loads(sys.argv[1]))).play()


uvloop.install()
asyncio.run(_main())
