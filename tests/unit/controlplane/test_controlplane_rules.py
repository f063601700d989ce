"""Who may ask what: the whole table of the edge API and the Execution API. The rest is refused."""

from __future__ import annotations

import json
import uuid
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.controlplane.edge_requests import NEIGHBOUR, WORKER, Ledger, worker

from airbridge.controlplane._edge_rules import EdgeRules, asks_database, is_fetch, needs_body
from airbridge.controlplane._execution_rules import ExecutionRules, task_instance_of
from airbridge.controlplane._fetch import Fetched, fetched
from airbridge.controlplane._refusal import Refusal
from airbridge.identity.jobs import Job, JobKey, RunningTask
from airbridge.identity.model import Allowance

RUN = "manual__2026-01-01T00:00:00+00:00"
MINE = JobKey("etl", "extract", RUN, -1, 1)
THEIRS = JobKey("etl", "load", RUN, -1, 1)
MAPPED = JobKey("etl", "each", RUN, 3, 2)
TASK = uuid.UUID("0199a5e0-7c3b-7a11-8f2e-3f1d2c4b5a69")
MAPPED_TASK = uuid.UUID("0199a5e0-7c3b-7a11-8f2e-3f1d2c4b5a70")
THEIR_TASK = uuid.UUID("0199a5e0-7c3b-7a11-8f2e-3f1d2c4b5a71")


@pytest.fixture
def ledger() -> Ledger:
    """north-1 runs "extract" and the third of "each", south-2 runs "load"."""
    made = Ledger()
    for task, key, name in (
        (TASK, MINE, WORKER),
        (MAPPED_TASK, MAPPED, WORKER),
        (THEIR_TASK, THEIRS, NEIGHBOUR),
    ):
        made.jobs[key] = Job(name, "running")
        made.tasks[task] = RunningTask(key, made.jobs[key])
    return made


def _reason(check: Any, *arguments: Any) -> str:
    """Why it is refused; empty when it is not."""
    try:
        check(*arguments)
    except Refusal as refusal:
        return refusal.reason
    return ""


# --- the edge API -----------------------------------------------------------------------------------


def _edge(ledger: Ledger, verb: str, call: str, body: Any = None) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    return _reason(EdgeRules(ledger).check, worker(), verb, call, content)


def _path(key: JobKey) -> str:
    return f"{key.dag_id}/{key.task_id}/{key.run_id}/{key.try_number}/{key.map_index}"


@pytest.mark.parametrize(
    ("queues", "reason"),
    [
        (["default"], ""),
        (["default", "gpu"], ""),
        (["default", "secret"], "queue_not_allowed"),
        (["DEFAULT"], "queue_not_allowed"),
        ([], "queue_not_allowed"),
        (None, "queue_not_allowed"),
        ("default", "queue_not_allowed"),
        ([["default"]], "queue_not_allowed"),
        ({"default": 1}, "queue_not_allowed"),
    ],
)
def test_worker_gets_the_queues_of_its_enrolment_whatever_it_asks(
    ledger: Ledger, queues: Any, reason: str
) -> None:
    assert _edge(ledger, "POST", f"worker/{WORKER}", {"queues": queues}) == reason
    assert _edge(ledger, "POST", f"jobs/fetch/{WORKER}", {"queues": queues, "free_concurrency": 1}) == reason
    if queues:
        assert _edge(ledger, "PATCH", f"worker/queues/{WORKER}", {"new_queues": queues}) == reason


def test_worker_may_leave_queues(ledger: Ledger) -> None:
    body = {"new_queues": None, "remove_queues": ["default", "gpu"]}
    assert _edge(ledger, "PATCH", f"worker/queues/{WORKER}", body) == ""


@pytest.mark.parametrize(
    ("free", "reason"), [(1, ""), (4, ""), (0, ""), (5, "no"), (None, "no"), ("4", "no")]
)
def test_worker_fetches_no_more_than_its_concurrency(ledger: Ledger, free: Any, reason: str) -> None:
    body = {"queues": ["default"], "free_concurrency": free}
    assert _edge(ledger, "POST", f"jobs/fetch/{WORKER}", body) == (reason and "concurrency_not_allowed")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"x"', b"{", b"\xff", b"[" * 5000])
def test_body_that_is_no_object_is_refused(ledger: Ledger, body: bytes) -> None:
    assert _edge(ledger, "POST", f"jobs/fetch/{WORKER}", body) == "body_invalid"


@pytest.mark.parametrize("state", ["running", "success", "failed"])
def test_worker_reports_how_its_own_job_is(ledger: Ledger, state: str) -> None:
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(MINE)}/{state}") == ""
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(MAPPED)}/{state}") == ""
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(THEIRS)}/{state}") == "job_not_yours"
    nobodys = JobKey("etl", "no_such_task", RUN, -1, 1)
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(nobodys)}/{state}") == "job_not_yours"


@pytest.mark.parametrize("state", ["queued", "removed", "restarting", "scheduled", "skipped", "up_for_retry"])
def test_worker_reports_no_state_that_only_a_scheduler_sets(ledger: Ledger, state: str) -> None:
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(MINE)}/{state}") == "state_not_allowed"


@pytest.mark.parametrize(("state", "reason"), [("success", ""), ("failed", ""), ("running", "job_not_yours")])
def test_worker_may_only_say_how_a_job_ended_that_is_queued_again(
    ledger: Ledger, state: str, reason: str
) -> None:
    ledger.jobs[MINE] = Job(WORKER, "queued")
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(MINE)}/{state}") == reason


@pytest.mark.parametrize(("verb", "call"), [("POST", "logs/push/{}"), ("GET", "logs/logfile_path/{}")])
def test_worker_writes_the_logs_of_its_own_jobs(ledger: Ledger, verb: str, call: str) -> None:
    assert _edge(ledger, verb, call.format(_path(MINE))) == ""
    assert _edge(ledger, verb, call.format(_path(THEIRS))) == "job_not_yours"


def test_worker_may_finish_the_log_of_a_part_while_the_next_one_runs_elsewhere(ledger: Ledger) -> None:
    ledger.handed.add((MINE, WORKER))
    ledger.jobs[MINE] = Job(NEIGHBOUR, "running")
    assert _edge(ledger, "POST", f"logs/push/{_path(MINE)}") == ""
    assert _edge(ledger, "PATCH", f"jobs/state/{_path(MINE)}/success") == "job_not_yours"
    del ledger.jobs[MINE]
    assert _edge(ledger, "POST", f"logs/push/{_path(MINE)}") == ""


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("GET", f"worker/{WORKER}"),
        ("PUT", f"worker/{WORKER}"),
        ("DELETE", f"worker/{WORKER}"),
        ("POST", f"worker/queues/{WORKER}"),
        ("GET", f"jobs/fetch/{WORKER}"),
        ("POST", f"jobs/state/{_path(MINE)}/success"),
        ("PATCH", f"jobs/state/{_path(MINE)}"),
        ("PATCH", f"jobs/state/{_path(MINE)}/success/x"),
        ("POST", f"logs/logfile_path/{_path(MINE)}"),
        ("GET", f"logs/push/{_path(MINE)}"),
        ("GET", "health"),
        ("POST", "rpcapi"),
        ("GET", ""),
    ],
)
def test_call_that_the_worker_never_makes_is_not_there(ledger: Ledger, verb: str, call: str) -> None:
    assert _edge(ledger, verb, call) == "unknown_path"


VERBS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", ""])
PARTS = st.sampled_from(["worker", "queues", "jobs", "fetch", "state", "logs", "push", "etl", "load", RUN])
CALLS = st.lists(PARTS | st.sampled_from(["1", "-1", WORKER, NEIGHBOUR, "success", "", "\n"]), max_size=9)


@given(VERBS, CALLS)
def test_no_call_of_this_worker_touches_what_is_the_neighbours(verb: str, parts: list[str]) -> None:
    ledger = Ledger({THEIRS: Job(NEIGHBOUR, "running")})
    call = "/".join(parts)
    if _edge(ledger, verb, call, {"queues": ["default"], "free_concurrency": 1}) == "":
        assert WORKER in parts
        assert NEIGHBOUR not in parts


def test_answer_to_a_fetch_names_its_job() -> None:
    assert is_fetch("POST", f"jobs/fetch/{WORKER}")
    assert not is_fetch("POST", f"worker/{WORKER}")
    assert needs_body("POST", f"jobs/fetch/{WORKER}")
    assert not needs_body("POST", f"logs/push/{_path(MINE)}")
    assert asks_database("POST", f"logs/push/{_path(MINE)}")
    assert not asks_database("POST", f"jobs/fetch/{WORKER}")
    fields = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 3, "try_number": 2, "command": {}}
    assert fetched(json.dumps(fields).encode()) == Fetched(JobKey("d", "t", "r", 3, 2), "")
    workload = {**fields, "command": {"ti": {"id": str(TASK)}}}
    assert fetched(json.dumps(workload).encode()) == Fetched(JobKey("d", "t", "r", 3, 2), str(TASK))
    for nothing in (b"null", b"", b"{}", b"<html>"):
        assert fetched(nothing) is None


# --- the Execution API ------------------------------------------------------------------------------


def _execution(ledger: Ledger, verb: str, call: str, query: str = "", task: uuid.UUID = TASK) -> str:
    return _reason(ExecutionRules(ledger).check, worker(), verb, call, query, task)


OWN_CALLS = [
    ("PATCH", "task-instances/{}/run"),
    ("PATCH", "task-instances/{}/state"),
    ("PATCH", "task-instances/{}/skip-downstream"),
    ("PUT", "task-instances/{}/heartbeat"),
    ("PUT", "task-instances/{}/rtif"),
    ("GET", "task-instances/{}/previous-successful-dagrun"),
    ("GET", "task-instances/{}/validate-inlets-and-outlets"),
    ("GET", "task-reschedules/{}/start_date"),
]


@pytest.mark.parametrize(("verb", "call"), OWN_CALLS)
def test_task_speaks_for_itself_on_the_worker_that_runs_it(ledger: Ledger, verb: str, call: str) -> None:
    assert _execution(ledger, verb, call.format(TASK)) == ""
    # Another task of the same worker, with this one's token.
    assert _execution(ledger, verb, call.format(MAPPED_TASK)) == "task_not_yours"
    assert _execution(ledger, verb, call.format("no-uuid")) == "task_not_yours"
    # A task of another worker, with that task's own token.
    assert _execution(ledger, verb, call.format(THEIR_TASK), "", THEIR_TASK) == "task_not_yours"
    assert _execution(ledger, verb, call.format(uuid.UUID(int=1)), "", uuid.UUID(int=1)) == "task_not_yours"


@pytest.mark.parametrize("state", ["queued", "success", "failed", "removed", "deferred", "up_for_retry"])
def test_token_of_a_task_that_does_not_run_any_more_is_worth_nothing(ledger: Ledger, state: str) -> None:
    ledger.tasks[TASK] = RunningTask(MINE, Job(WORKER, state))
    for verb, call in OWN_CALLS:
        assert _execution(ledger, verb, call.format(TASK)) == "task_not_yours"
    assert _execution(ledger, "GET", "connections/warehouse") == "task_not_yours"


def test_task_may_start_before_its_worker_has_said_that_it_runs(ledger: Ledger) -> None:
    ledger.tasks[TASK] = RunningTask(MINE, Job(WORKER, "restarting"))  # as a fetch leaves it
    assert _execution(ledger, "PATCH", f"task-instances/{TASK}/run") == ""


def test_connections_and_variables_are_those_of_the_enrolment(ledger: Ledger) -> None:
    assert _execution(ledger, "GET", "connections/warehouse") == ""
    assert _execution(ledger, "GET", "connections/airbridge_s3") == "connection_not_enrolled"
    assert _execution(ledger, "GET", "connections/WAREHOUSE") == "connection_not_enrolled"
    for verb in ("GET", "PUT", "DELETE"):
        assert _execution(ledger, verb, "variables/threshold") == ""
        assert _execution(ledger, verb, "variables/other") == "variable_not_enrolled"
        assert _execution(ledger, verb, "variables/*") == "variable_not_enrolled"
    for verb in ("PUT", "DELETE", "PATCH", "POST"):
        assert _execution(ledger, verb, "connections/warehouse") == "unknown_path"


def test_star_allows_all_of_them_and_nothing_else(ledger: Ledger) -> None:
    check = ExecutionRules(ledger).check
    everything = worker(allowance=Allowance(("default",), 1, ("*",), ()))
    assert _reason(check, everything, "GET", "connections/any", "", TASK) == ""
    assert _reason(check, everything, "GET", "variables/any", "", TASK) == "variable_not_enrolled"


XCOM = f"xcoms/etl/{RUN}/extract/return_value"


@pytest.mark.parametrize(
    ("verb", "call", "query", "reason"),
    [
        ("GET", XCOM, "", ""),
        ("HEAD", XCOM, "", ""),
        ("GET", XCOM, "map_index=2", ""),
        ("GET", f"xcoms/etl/{RUN}/load/return_value", "", ""),
        ("GET", f"xcoms/etl/{RUN}/load/return_value/item/0", "", ""),
        ("GET", f"xcoms/etl/{RUN}/load/return_value/slice", "start=0&stop=2", ""),
        ("GET", XCOM, "include_prior_dates=false", ""),
        ("GET", XCOM, "include_prior_dates=true", "xcom_not_yours"),
        ("GET", XCOM, "include_prior_dates=1", "xcom_not_yours"),
        ("GET", XCOM, "include_prior_dates=", "xcom_not_yours"),
        ("GET", XCOM, "include_prior_dates=false&include_prior_dates=true", "query_invalid"),
        ("GET", "xcoms/etl/other_run/extract/return_value", "", "xcom_not_yours"),
        ("GET", f"xcoms/other_dag/{RUN}/extract/return_value", "", "xcom_not_yours"),
        ("POST", XCOM, "", ""),
        ("POST", XCOM, "map_index=-1", ""),
        ("DELETE", XCOM, "", ""),
        ("POST", XCOM, "map_index=1", "xcom_not_yours"),
        ("POST", XCOM, "map_index=-1&map_index=1", "query_invalid"),
        ("POST", f"xcoms/etl/{RUN}/load/return_value", "", "xcom_not_yours"),
        ("DELETE", f"xcoms/etl/{RUN}/load/return_value", "", "xcom_not_yours"),
        ("PATCH", XCOM, "", "xcom_not_yours"),
        ("GET", f"xcoms/etl/{RUN}/extract", "", "unknown_path"),
    ],
)
def test_xcoms_are_those_of_the_tasks_own_run(
    ledger: Ledger, verb: str, call: str, query: str, reason: str
) -> None:
    assert _execution(ledger, verb, call, query) == reason


def test_mapped_task_writes_the_xcoms_of_its_own_index(ledger: Ledger) -> None:
    call = f"xcoms/etl/{RUN}/each/return_value"
    assert _execution(ledger, "POST", call, "map_index=3", MAPPED_TASK) == ""
    for query in ("map_index=2", "", "map_index=03", "map_index=+3"):
        assert _execution(ledger, "POST", call, query, MAPPED_TASK) == "xcom_not_yours"


def test_mapped_task_takes_back_its_own_xcoms_though_airflow_names_no_index(ledger: Ledger) -> None:
    call = f"xcoms/etl/{RUN}/each/return_value"
    for query in ("map_index=3", "", "map_index=-1"):
        assert _execution(ledger, "DELETE", call, query, MAPPED_TASK) == ""
    assert _execution(ledger, "DELETE", call, "map_index=2", MAPPED_TASK) == "xcom_not_yours"
    assert _execution(ledger, "DELETE", f"xcoms/etl/{RUN}/load/x", "", MAPPED_TASK) == "xcom_not_yours"


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("GET", "task-instances/count"),
        ("GET", "task-instances/states"),
        ("GET", "dag-runs/count"),
        ("GET", f"dag-runs/other/{RUN}/state"),
        ("POST", "dag-runs/other/a_run"),
        ("POST", "dag-runs/other/a_run/clear"),
        ("GET", "assets/by-name"),
        ("GET", "assets/by-uri"),
        ("GET", "asset-events/by-asset"),
        ("GET", "asset-events/by-asset-alias"),
    ],
)
def test_running_task_may_ask_about_others_and_trigger_runs(ledger: Ledger, verb: str, call: str) -> None:
    assert _execution(ledger, verb, call) == ""
    assert _execution(ledger, verb, call, "", THEIR_TASK) == "task_not_yours"


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("GET", "health"),
        ("GET", "docs"),
        ("GET", "openapi.json"),
        ("POST", f"task-instances/{TASK}/run"),
        ("PATCH", f"task-instances/{TASK}/heartbeat"),
        ("PATCH", f"task-instances/{TASK}"),
        ("DELETE", f"dag-runs/etl/{RUN}"),
        ("GET", "variables/"),
        ("GET", "variables/threshold/x"),
        ("GET", "connections/warehouse/x"),
        ("GET", "connections"),
        ("GET", "hitlDetails/x"),
    ],
)
def test_call_that_no_task_makes_is_not_there(ledger: Ledger, verb: str, call: str) -> None:
    assert _execution(ledger, verb, call) == "unknown_path"


def test_token_names_its_task_in_any_signature() -> None:
    for scheme in ("Bearer ", "bearer ", "BEARER  "):
        assert task_instance_of(scheme + jwt.encode({"sub": str(TASK)}, "k" * 64, algorithm="HS512")) == TASK


@pytest.mark.parametrize("claims", [{}, {"sub": 7}, {"sub": None}, {"sub": "x"}, {"sub": ["x"]}])
def test_token_that_names_no_task_is_refused(claims: dict[str, Any]) -> None:
    # As somebody else's library may make it: PyJWT encodes no "sub" that is not text.
    made = jwt.api_jws.encode(json.dumps(claims).encode(), "k" * 64, algorithm="HS512")
    assert _reason(task_instance_of, f"Bearer {made}") == "task_token_invalid"
