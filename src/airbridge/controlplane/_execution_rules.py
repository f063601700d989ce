"""What a task on an edge host may ask of the Execution API.

Airflow 3.0.4 checks the signature of a task's token and, for calls that name a task instance, that it is the
token's own. Whether the caller is the host that runs the task, and which connections, variables and XComs
the task needs, it does not check (airflow/api_fastapi/execution_api/routes: ``has_connection_access`` and its
like are placeholders). Here the worker that sends the call must hold the job of the task that the token
names; the signature itself stays Airflow's to verify, so a forged token fails there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs
from uuid import UUID

import jwt

from airbridge.controlplane._refusal import Refusal
from airbridge.identity.jobs import HELD_STATES, RunningTask

if TYPE_CHECKING:
    from airbridge.identity.model import Worker

__all__ = ["ExecutionRules", "TaskLookup", "task_instance_of"]

_BEARER: Final = "bearer "
# Calls about the task's own instance: the id in the path is the token's.
_OWN: Final = {
    "PATCH": re.compile("task-instances/(?P<id>[^/]+)/(?:run|state|skip-downstream)"),
    "PUT": re.compile("task-instances/(?P<id>[^/]+)/(?:heartbeat|rtif)"),
    "GET": re.compile(
        "task-instances/(?P<id>[^/]+)/(?:previous-successful-dagrun|validate-inlets-and-outlets)"
        "|task-reschedules/(?P<id2>[^/]+)/start_date"
    ),
}
# What any running task may ask or do: states of other tasks and runs (sensors), runs of other DAGs
# (TriggerDagRunOperator), assets.
_SHARED: Final = {
    "GET": re.compile(
        "task-instances/(?:count|states)|dag-runs/count|dag-runs/[^/]+/[^/]+/state"
        "|assets/by-(?:name|uri)|asset-events/by-asset(?:-alias)?"
    ),
    "POST": re.compile("dag-runs/[^/]+/[^/]+(?:/clear)?"),
}
_CONNECTION: Final = re.compile("connections/(?P<name>[^/]+)")
_VARIABLE: Final = re.compile("variables/(?P<name>[^/]+)")
_XCOM: Final = re.compile(
    "xcoms/(?P<dag>[^/]+)/(?P<run>[^/]+)/(?P<task>[^/]+)/(?P<key>[^/]+)(?:/item/[^/]+|/slice)?"
)
_NOT_MAPPED: Final = -1
_FALSE: Final = ("false", "0", "no", "off", "f", "n")  # as pydantic reads a bool


class TaskLookup(Protocol):
    """Who runs which task instance."""

    def task(self, task_instance: UUID) -> RunningTask | None:
        """Return the task instance of this id with its job."""


def task_instance_of(authorization: str) -> UUID:
    """Return which task instance the token of a workload names; its signature is for Airflow to verify.

    :raises Refusal: it names none
    """
    refusal = Refusal(403, "task_token_invalid", "the token of the task was not accepted")
    if authorization[: len(_BEARER)].lower() != _BEARER:
        raise refusal
    try:
        claims: Any = jwt.decode(authorization[len(_BEARER) :].strip(), options={"verify_signature": False})
        return UUID(claims["sub"])
    except (jwt.PyJWTError, KeyError, AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        raise refusal from None


class ExecutionRules:
    """The rules of the Execution API. :meth:`check` asks the database and blocks: call it in a thread."""

    def __init__(self, tasks: TaskLookup) -> None:
        self._tasks = tasks

    def check(self, worker: Worker, verb: str, call: str, query: str, task_instance: UUID) -> None:
        """Make sure that ``worker`` may send this call for this task instance.

        :param call: path below ``/execution/``
        :raises Refusal: it may not
        """
        task = self._tasks.task(task_instance)
        if task is None or task.job.worker != worker.name or task.job.state not in HELD_STATES:
            raise Refusal(403, "task_not_yours", "this worker does not run that task")
        if match := _match(_OWN, verb, call):
            if not _is_same(match["id"] or match["id2"] if verb == "GET" else match["id"], task_instance):
                raise Refusal(403, "task_not_yours", "this worker does not run that task")
        elif _match(_SHARED, verb, call):
            return
        elif verb == "GET" and (match := _CONNECTION.fullmatch(call)):
            if not worker.allowance.allows_connection(match["name"]):
                raise _not_enrolled(worker, "connection", match["name"])
        elif verb in ("GET", "PUT", "DELETE") and (match := _VARIABLE.fullmatch(call)):
            if not worker.allowance.allows_variable(match["name"]):
                raise _not_enrolled(worker, "variable", match["name"])
        elif match := _XCOM.fullmatch(call):
            _check_xcom(task, verb, match, query)
        else:
            raise Refusal(404, "unknown_path", "there is nothing here")


def _match(rules: dict[str, re.Pattern[str]], verb: str, call: str) -> re.Match[str] | None:
    rule = rules.get(verb)
    return rule.fullmatch(call) if rule else None


def _is_same(text: str, task_instance: UUID) -> bool:
    try:
        return UUID(text) == task_instance
    except ValueError:
        return False


def _not_enrolled(worker: Worker, kind: str, name: str) -> Refusal:
    """The same whether there is such a one or not; the caller named it, so naming it tells nothing."""
    return Refusal(
        403,
        f"{kind}_not_enrolled",
        f"worker '{worker.name}' is not enrolled for {kind} '{name[:250]}'; "
        f"the operator may allow it: airbridge edge update {worker.name} --{kind}s ...",
    )


def _check_xcom(task: RunningTask, verb: str, match: re.Match[str], query: str) -> None:
    asked = parse_qs(query, keep_blank_values=True)
    if any(len(values) > 1 for values in asked.values()):
        raise Refusal(400, "query_invalid", "a parameter is given twice")
    if (match["dag"], match["run"]) != (task.key.dag_id, task.key.run_id):
        raise Refusal(403, "xcom_not_yours", "a task on an edge host uses XComs of its own DAG run")
    if verb in ("GET", "HEAD"):
        if asked.get("include_prior_dates", ["false"])[0].lower() not in (
            "false",
            "0",
            "no",
            "off",
            "f",
            "n",
        ):
            raise Refusal(403, "xcom_not_yours", "a task on an edge host uses XComs of its own DAG run")
        return
    written = asked.get("map_index", [str(_NOT_MAPPED)])[0]
    own = {str(task.key.map_index)}
    if verb == "DELETE":
        # The Task SDK (1.0.4, task_runner.py, run) takes back what an earlier try of a mapped task left, and
        # names no index. There is nothing at the one that it so means, and it may say so.
        own.add(str(_NOT_MAPPED))
    if verb not in ("POST", "DELETE") or match["task"] != task.key.task_id or written not in own:
        raise Refusal(403, "xcom_not_yours", "a task on an edge host writes its own XComs")
