"""Every example runs on the edge, and its log is in S3 and in the web UI's API."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from _runs import EXAMPLES
from _stack import ENVIRONMENT, LOG_BUCKET, Done, EdgeHost, Run, Stack
from _trouble import psql

if TYPE_CHECKING:
    from concurrent.futures import Future

FRESH_POC = ["ingestion_trigger", "miner_run", "analyzer_run", "writer_apply", "report_generate"]


def test_the_examples_of_the_repository_are_the_ones_tested_here(
    stack: Stack, example_runs: dict[str, Run]
) -> None:
    assert example_runs
    dags = stack.api.get("/dags", tags=["example"])["dags"]
    assert {dag["dag_id"] for dag in dags} == set(EXAMPLES)


@pytest.mark.parametrize("dag_id", EXAMPLES)
def test_example_succeeds_on_the_edge_with_its_logs_in_s3_and_in_the_api(
    stack: Stack, example_runs: dict[str, Run], dag_id: str
) -> None:
    """A2, A6, D1, F2, F7."""
    finished = stack.wait_for_run(example_runs[dag_id])
    assert len(finished.tasks) == EXAMPLES[dag_id]
    for task in finished.tasks:
        on_edge = task.executor is None
        # A worker reports its own name as the host of its tasks.
        assert task.hostname == ("a" if on_edge else "scheduler"), task
        attempt = (finished.run, task.task_id, task.try_number, task.map_index)
        events = [json.loads(line)["event"] for line in stack.log_from_s3(*attempt).splitlines()]
        shown = stack.log_from_api(*attempt)
        assert events
        assert [event for event in events if event not in shown] == []


def test_sample_says_which_host_each_task_ran_on(stack: Stack, example_runs: dict[str, Run]) -> None:
    """A6: start before finish, both on the edge host."""
    finished = stack.wait_for_run(example_runs["edge_sample_dag"])
    start, finish = finished.one("start"), finished.one("finish")
    assert start.end is not None
    assert finish.start is not None
    assert start.end <= finish.start
    assert "start ran on host a, worker 'a'" in stack.log_from_s3(finished.run, "start")
    assert "finish ran on host a, worker 'a'" in stack.log_from_s3(finished.run, "finish")


def test_sample_is_triggered_from_the_command_line_and_runs_on_the_edge(
    stack: Stack, cli_runs: dict[str, Future[Done]]
) -> None:
    """A6: ``airflow dags trigger edge_sample_dag``."""
    done = cli_runs["trigger"].result()
    assert done.code == 0, done.output
    finished = stack.wait_for_run(Run("edge_sample_dag", "cli"))
    assert {task.hostname for task in finished.tasks} == {"a"}


def test_a_task_of_the_sample_is_tested_from_the_command_line(cli_runs: dict[str, Future[Done]]) -> None:
    """A6: ``airflow tasks test edge_sample_dag start 2024-01-01``, here and now, without an edge host."""
    done = cli_runs["test"].result()
    assert done.code == 0, done.output
    assert "start ran on host scheduler" in done.output


def test_run_of_a_command_is_left_to_it(stack: Stack, edge: EdgeHost) -> None:
    """A6: the scheduler takes a run of ``airflow tasks test`` for its own; edge hosts get none of it."""
    assert edge
    stack.unpause("edge_sample_dag")
    run = Run("edge_sample_dag", "__airflow_temporary_run_2024-01-01__")
    stack.api.post("/dags/edge_sample_dag/dagRuns", {"logical_date": None, "dag_run_id": run.run_id})
    try:
        stack.wait_for_task(run, "start", ["queued"])
        said = [line for line in stack.compose.logs("scheduler").splitlines() if run.run_id in line]
        assert any("Left to the command that made this run" in line for line in said), said
        assert psql(stack, f"SELECT 1 FROM edge_job WHERE run_id = '{run.run_id}'") == ""
    finally:
        stack.api.patch(run.path, {"state": "failed"})


def test_fresh_poc_runs_in_strict_sequence(stack: Stack, example_runs: dict[str, Run]) -> None:
    """F2."""
    finished = stack.wait_for_run(example_runs["FreshPoC_E2E"])
    steps = [finished.one(task_id) for task_id in FRESH_POC]
    for before, after in pairwise(steps):
        assert before.end is not None
        assert after.start is not None
        assert before.end <= after.start, f"{after.task_id} began before {before.task_id} had ended"
    assert "answered: {" in stack.log_from_s3(finished.run, "report_generate")


def test_fresh_poc_retries_a_failing_service_three_times_and_then_stops(
    stack: Stack, example_runs: dict[str, Run]
) -> None:
    """F2, F6: 3 retries, then a failed task; what follows never starts."""
    finished = stack.wait_for_run(example_runs["failing service"], "failed")
    assert [(finished.one(task_id).state, finished.one(task_id).try_number) for task_id in FRESH_POC] == [
        ("success", 1),
        ("success", 1),
        ("failed", 4),
        ("upstream_failed", 0),
        ("upstream_failed", 0),
    ]
    for attempt in (1, 2, 3, 4):
        assert "analyzer answered HTTP 500" in stack.log_from_s3(finished.run, "analyzer_run", attempt)


def test_fresh_poc_has_one_run_at_a_time(stack: Stack, example_runs: dict[str, Run]) -> None:
    """F2: the second run, asked for at the same time, began when the first had ended."""
    first = stack.wait_for_run(example_runs["FreshPoC_E2E"])
    second = stack.wait_for_run(example_runs["failing service"], "failed")
    last_end, first_start = first.one(FRESH_POC[-1]).end, second.one(FRESH_POC[0]).start
    assert last_end is not None
    assert first_start is not None
    assert last_end <= first_start


def test_deferred_task_leaves_the_triggerers_part_of_its_log_in_s3_too(
    stack: Stack, example_runs: dict[str, Run]
) -> None:
    """A2, F7."""
    run = stack.wait_for_run(example_runs["feature_tour_deferral"]).run
    prefix = f"{ENVIRONMENT}/task-logs/dag_id={run.dag_id}/run_id={run.run_id}/task_id=wait/"
    keys = [row["Key"] for row in stack.s3.list_objects_v2(Bucket=LOG_BUCKET, Prefix=prefix)["Contents"]]
    (triggers,) = [key for key in keys if ".log.trigger." in key]
    text = stack.s3.get_object(Bucket=LOG_BUCKET, Key=triggers)["Body"].read().decode()
    assert "trigger starting" in text
    assert "trigger starting" in stack.log_from_api(run, "wait")
    # While it waited the worker's process was gone: two starts, one attempt.
    assert stack.wait_for_run(run).one("wait").try_number == 1


def test_mapped_tasks_run_on_the_edge_beside_a_task_of_the_local_executor(
    stack: Stack, example_runs: dict[str, Run]
) -> None:
    """F7. The values are checked by the DAG's own last task."""
    finished = stack.wait_for_run(example_runs["feature_tour_mapping"])
    assert [task.map_index for task in finished.of("square")] == [0, 1, 2, 3, 4, 5]
    assert finished.one("on_control_plane").executor == "LocalExecutor"
    result = stack.api.get(f"{finished.run.path}/taskInstances/verify/xcomEntries/return_value")["value"]
    result = json.loads(result) if isinstance(result, str) else result
    assert result == {"total": 91, "edge_hosts": ["a"], "control_plane_host": "scheduler"}
