"""Which call is which."""

from __future__ import annotations

import json

import jwt
import pytest

from airbridge.courier._calls import (
    EDGE_API,
    EXECUTION_API,
    OWN_API,
    Kind,
    held_s,
    job_of,
    jobs_of,
    read_call,
    task_instance_of,
)

RUN = "manual__2026-11-21T10%3A00%3A00%2B00%3A00"
JOB = "etl/extract/manual__2026-11-21T10:00:00+00:00/1/-1"
TASK = "0199a0b1-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("verb", "target", "kind"),
    [
        ("POST", f"{EDGE_API}worker/plant-7", Kind.REGISTRATION),
        ("PATCH", f"{EDGE_API}worker/plant-7", Kind.HEARTBEAT),
        ("POST", f"{EDGE_API}jobs/fetch/plant-7", Kind.FETCH),
        ("POST", f"{OWN_API}jobs/plant-7", Kind.JOBS),
        ("POST", f"{EDGE_API}logs/push/etl/extract/{RUN}/1/-1", Kind.LOG),
        ("PATCH", f"{EDGE_API}jobs/state/etl/extract/{RUN}/1/-1/running", Kind.JOB_STATE),
        ("PATCH", f"{EDGE_API}worker/queues/plant-7", Kind.QUESTION),
        ("GET", f"{EDGE_API}logs/logfile_path/etl/extract/{RUN}/1/-1", Kind.QUESTION),
        ("PUT", f"{EXECUTION_API}task-instances/{TASK}/heartbeat", Kind.TASK_HEARTBEAT),
        ("PATCH", f"{EXECUTION_API}task-instances/{TASK}/state", Kind.TASK_REPORT),
        ("PATCH", f"{EXECUTION_API}task-instances/{TASK}/skip-downstream", Kind.TASK_REPORT),
        ("PUT", f"{EXECUTION_API}task-instances/{TASK}/rtif", Kind.TASK_REPORT),
        ("POST", f"{EXECUTION_API}xcoms/etl/{RUN}/extract/return_value?map_index=3", Kind.TASK_REPORT),
        # The answer decides whether the task may start, or is what the task wants.
        ("PATCH", f"{EXECUTION_API}task-instances/{TASK}/run", Kind.QUESTION),
        ("GET", f"{EXECUTION_API}xcoms/etl/{RUN}/extract/return_value", Kind.QUESTION),
        ("GET", f"{EXECUTION_API}connections/warehouse", Kind.QUESTION),
        ("PUT", f"{EXECUTION_API}variables/x", Kind.QUESTION),
        ("POST", f"{EXECUTION_API}dag-runs/etl/{RUN}", Kind.QUESTION),
    ],
)
def test_kind_is_told_by_method_and_path(verb: str, target: str, kind: Kind) -> None:
    call = read_call(verb, target)
    assert call is not None
    assert call.kind is kind
    assert kind.is_report == (kind in {Kind.LOG, Kind.JOB_STATE, Kind.TASK_REPORT})


@pytest.mark.parametrize("target", ["/", "/airbridge/v1/version", "/edge_worker/v2/worker/x", "/exec/x"])
def test_other_paths_are_no_calls(target: str) -> None:
    assert read_call("GET", target) is None


def test_signed_path_is_the_decoded_one() -> None:
    """What the control plane compares with the token's method is the path as a server decodes it."""
    call = read_call("PATCH", f"{EDGE_API}jobs/state/etl/extract/{RUN}/1/-1/success")
    assert call is not None
    assert call.path == f"jobs/state/{JOB}/success"
    assert call.job == JOB
    assert call.ends_job


@pytest.mark.parametrize(("state", "ends"), [("running", False), ("success", True), ("failed", True)])
def test_job_ends_with_its_last_state(state: str, ends: bool) -> None:
    call = read_call("PATCH", f"{EDGE_API}jobs/state/etl/extract/{RUN}/1/-1/{state}")
    assert call is not None
    assert call.ends_job is ends


def test_job_of_a_fetch_is_the_job_of_its_reports() -> None:
    answer = {
        "dag_id": "etl",
        "task_id": "extract",
        "run_id": "manual__2026-11-21T10:00:00+00:00",
        "map_index": -1,
        "try_number": 1,
        "command": {"ti": {"id": TASK}},
    }
    assert job_of(json.dumps(answer).encode()) == (TASK, JOB)


def test_jobs_of_a_held_answer_are_those_of_their_reports() -> None:
    job = {"dag_id": "etl", "task_id": "extract", "run_id": "run", "map_index": 3, "try_number": 2}
    answer = {"jobs": [{**job, "command": {"ti": {"id": TASK}}}]}
    assert jobs_of(json.dumps(answer).encode()) == {TASK: "etl/extract/run/2/3"}


@pytest.mark.parametrize("answer", [b"null", b"", b"[]", b'{"dag_id": "etl"}', b"\xff", b'{"jobs": [1]}'])
def test_answer_without_a_job_hands_out_none(answer: bytes) -> None:
    assert job_of(answer) is None
    assert jobs_of(answer) == {}


@pytest.mark.parametrize(
    ("question", "seconds"),
    [(b'{"wait": 25.0}', 25.0), (b'{"wait": -1}', 0.0), (b"{}", 0.0), (b"[]", 0.0), (b'{"wait": []}', 0.0)],
)
def test_question_says_how_long_it_may_be_held(question: bytes, seconds: float) -> None:
    assert held_s(question) == seconds


def test_task_is_told_by_its_token() -> None:
    assert task_instance_of("Bearer " + jwt.encode({"sub": TASK}, "k" * 32)) == TASK


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer a.b.c", "Bearer a.e30.c", "Bearer a.W10.c"])
def test_text_that_is_no_token_names_no_task(token: str) -> None:
    assert task_instance_of(token) == ""
