"""What a worker may ask of the edge API: calls in its own name, in its queues, about its own jobs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from airbridge.controlplane._refusal import Refusal
from airbridge.identity.jobs import HELD_STATES, JobKey, had_part

if TYPE_CHECKING:
    from airbridge.identity.jobs import Job, JobLookup
    from airbridge.identity.model import Worker

__all__ = ["EdgeRules", "asks_database", "is_fetch", "is_heartbeat", "job_of_log", "needs_body"]

_NAME: Final = "[^/]+"
_JOB: Final = r"(?P<dag>[^/]+)/(?P<task>[^/]+)/(?P<run>[^/]+)/(?P<try>[0-9]{1,9})/(?P<map>-?[0-9]{1,9})"

_REGISTER: Final = ("POST", re.compile(rf"worker/(?P<name>{_NAME})"))
_HEARTBEAT: Final = ("PATCH", re.compile(rf"worker/(?P<name>{_NAME})"))
_QUEUES: Final = ("PATCH", re.compile(rf"worker/queues/(?P<name>{_NAME})"))
_FETCH: Final = ("POST", re.compile(rf"jobs/fetch/(?P<name>{_NAME})"))
_STATE: Final = ("PATCH", re.compile(rf"jobs/state/{_JOB}/(?P<state>[a-z_]+)"))
_LOG_PATH: Final = ("GET", re.compile(rf"logs/logfile_path/{_JOB}"))
_LOG_PUSH: Final = ("POST", re.compile(rf"logs/push/{_JOB}"))
_WITH_BODY: Final = (_REGISTER, _QUEUES, _FETCH)
_ABOUT_JOBS: Final = (_STATE, _LOG_PATH, _LOG_PUSH)

# What the stock worker reports; the edge API would take any state of a task, "removed" and "queued" too.
_REPORTED: Final = frozenset({"running", "success", "failed"})
_ENDED: Final = frozenset({"success", "failed"})


def _match(rule: tuple[str, re.Pattern[str]], verb: str, call: str) -> re.Match[str] | None:
    return rule[1].fullmatch(call) if rule[0] == verb else None


def needs_body(verb: str, call: str) -> bool:
    """Return whether :meth:`EdgeRules.check` looks at the body of this call."""
    return any(_match(rule, verb, call) for rule in _WITH_BODY)


def asks_database(verb: str, call: str) -> bool:
    """Return whether :meth:`EdgeRules.check` waits for the database; otherwise it needs no thread."""
    return any(_match(rule, verb, call) for rule in _ABOUT_JOBS)


def is_fetch(verb: str, call: str) -> bool:
    """Return whether the answer to this call may hand out a job."""
    return _match(_FETCH, verb, call) is not None


def is_heartbeat(verb: str, call: str) -> bool:
    """Return whether this call is a worker's word on how it is."""
    return _match(_HEARTBEAT, verb, call) is not None


def job_of_log(verb: str, call: str) -> JobKey | None:
    """Return the job that this call sends a piece of log of; ``None``: it is no such call."""
    match = _match(_LOG_PUSH, verb, call)
    return _key(match) if match else None


def _key(match: re.Match[str]) -> JobKey:
    return JobKey(match["dag"], match["task"], match["run"], int(match["map"]), int(match["try"]))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal(400, "body_invalid", "the body is no JSON object")
    return value


class EdgeRules:
    """The rules of the edge API. Methods may ask the database and block: see :func:`asks_database`."""

    def __init__(self, jobs: JobLookup) -> None:
        self._jobs = jobs

    def check(self, worker: Worker, verb: str, call: str, body: bytes) -> Job | None:
        """Make sure that ``worker`` may send this call; returns the job that it is about, if it is about one.

        :param body: only looked at where :func:`needs_body` says so
        :raises Refusal: it may not
        """
        if match := _match(_QUEUES, verb, call):
            _check_name(worker, match["name"])
            self._check_queue_update(worker, _object(body))
        elif match := _match(_REGISTER, verb, call):
            _check_name(worker, match["name"])
            _check_queues(worker, _object(body).get("queues"))
        elif match := _match(_HEARTBEAT, verb, call):
            # Its list of queues changes nothing there, and may hold one that an administrator added.
            _check_name(worker, match["name"])
        elif match := _match(_FETCH, verb, call):
            _check_name(worker, match["name"])
            asked = _object(body)
            _check_queues(worker, asked.get("queues"))
            _check_concurrency(worker, asked.get("free_concurrency"))
        elif match := _match(_STATE, verb, call):
            return self._check_state(worker, _key(match), match["state"])
        elif match := _match(_LOG_PUSH, verb, call) or _match(_LOG_PATH, verb, call):
            return self.check_log(worker, _key(match))
        else:
            raise Refusal(404, "unknown_path", "there is nothing here")
        return None

    @staticmethod
    def _check_queue_update(worker: Worker, body: dict[str, Any]) -> None:
        if body.get("new_queues"):
            _check_queues(worker, body["new_queues"])

    def _check_state(self, worker: Worker, key: JobKey, state: str) -> Job:
        if state not in _REPORTED:
            raise Refusal(403, "state_not_allowed", "a worker reports running, success or failed")
        job = self._jobs.job(key)
        # A job that is queued again keeps its last worker's name. That worker may still report how the part
        # before ended, which is then ignored (see _late_reports), and nothing else.
        late = job is not None and job.state not in HELD_STATES
        if job is None or job.worker != worker.name or (late and state not in _ENDED):
            raise _not_yours(job)
        return job

    def check_log(self, worker: Worker, key: JobKey) -> Job | None:
        """Make sure that ``worker`` may write the log of this attempt: it has, or had, a part of it.

        Returns the job, unless that is over and gone.

        :raises Refusal: it never had
        """
        job = self._jobs.job(key)
        if not had_part(self._jobs, key, job, worker.name):
            raise _not_yours(job)
        return job


def _not_yours(job: Job | None) -> Refusal:
    """The same for a job of somebody else and for one that does not exist; the audit log is told which."""
    attempt = str(job.task_instance) if job and job.task_instance else ""
    return Refusal(403, "job_not_yours", "this worker has no such job", correlation=attempt)


def _check_name(worker: Worker, named: str) -> None:
    if named != worker.name:
        raise Refusal(403, "name_mismatch", f"the token is of worker '{worker.name}', the path names another")


def _check_queues(worker: Worker, queues: Any) -> None:
    """An empty list would mean every queue to the edge API."""
    if (
        not isinstance(queues, list)
        or not queues
        or not all(isinstance(queue, str) and queue in worker.allowance.queues for queue in queues)
    ):
        allowed = ",".join(worker.allowance.queues)
        raise Refusal(
            403, "queue_not_allowed", f"worker '{worker.name}' is enrolled for the queues {allowed}, no other"
        )


def _check_concurrency(worker: Worker, free: Any) -> None:
    if not isinstance(free, int) or free > worker.allowance.concurrency:
        raise Refusal(
            403,
            "concurrency_not_allowed",
            f"worker '{worker.name}' is enrolled for {worker.allowance.concurrency} tasks at once",
        )
