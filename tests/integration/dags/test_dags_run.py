"""The example DAGs really run, in the control-plane image, against the real demo services (A6, F2, F7).

``airflow dags test`` runs a whole DAG in one process, without scheduler, executor or edge worker: what these
tests prove is what the DAGs do. That they do it on an edge host is proved end to end elsewhere.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dags_in_image import Airflow, Finished, Run, Site

Runs = dict[str, "Future[Run]"]
SERVICES = ["ingestion", "miner", "analyzer", "writer", "reporting"]


@pytest.mark.parametrize("task_id", ["start", "finish"])
def test_a_task_of_the_edge_sample_runs_alone_and_says_where(
    airflow: Airflow, runs: Runs, readiness: Future[Finished], task_id: str
) -> None:
    """Also starts what the tests below wait for."""
    assert runs
    assert readiness
    done = airflow.run("airflow", "tasks", "test", "edge_sample_dag", task_id, "2024-01-01")
    host = airflow.run("hostname", check=True).output.strip()
    assert done.code == 0, done.output
    assert f"{task_id} ran on host {host}" in done.output


def test_fresh_poc_recovers_from_a_failing_service_and_ends_in_a_report(runs: Runs, site: Site) -> None:
    run = runs["recovered"].result()
    assert run.finished.code == 0, run.finished.output
    assert run.state == "success"
    assert sorted(run.tasks) == [
        ("analyzer_run", "success", 1),
        ("ingestion_trigger", "success", 1),
        ("miner_run", "success", 3),
        ("report_generate", "success", 1),
        ("writer_apply", "success", 1),
    ]
    report = site.read("reporting", f"/report?run_id={quote(run.run_id)}")
    assert "| 2 | customers | 11 | orders, stg_customers |" in report


def test_fresh_poc_calls_each_service_once_an_attempt_and_one_after_the_other(runs: Runs, site: Site) -> None:
    run = runs["recovered"].result()
    calls = {service: site.calls(service, run.run_id) for service in SERVICES}
    assert {service: [line["status"] for line in lines] for service, lines in calls.items()} == {
        "ingestion": [200],
        "miner": [500, 500, 200],
        "analyzer": [200],
        "writer": [200],
        "reporting": [200],
    }
    assert [line["attempt"] for line in calls["miner"]] == ["1", "2", "3"]
    times = [line["time"] for service in SERVICES for line in calls[service]]
    assert times == sorted(times)


def test_fresh_poc_stops_at_a_service_that_keeps_failing(runs: Runs, site: Site) -> None:
    run = runs["stopped"].result()
    assert run.finished.code == 1
    assert "analyzer answered HTTP 500" in run.finished.output
    assert run.state == "failed"
    assert sorted(run.tasks) == [
        ("analyzer_run", "failed", 4),
        ("ingestion_trigger", "success", 1),
        ("miner_run", "success", 1),
        ("report_generate", "upstream_failed", 0),
        ("writer_apply", "upstream_failed", 0),
    ]
    assert [line["status"] for line in site.calls("analyzer", run.run_id)] == [500, 500, 500, 500]
    assert site.calls("writer", run.run_id) == []


def test_fresh_poc_does_not_repeat_a_call_that_cannot_succeed(runs: Runs, site: Site) -> None:
    run = runs["unknown repository"].result()
    assert "ingestion answered HTTP 422" in run.finished.output
    assert "is not in the catalogue" in run.finished.output
    assert run.state == "failed"
    assert run.of("ingestion_trigger") == [("failed", 1)]
    assert len(site.calls("ingestion", run.run_id)) == 1


def test_fresh_poc_refuses_a_parameter_that_it_does_not_know(airflow: Airflow) -> None:
    done = airflow.run("airflow", "dags", "test", "FreshPoC_E2E", "--conf", '{"fail_at": "nobody"}')
    assert done.code == 1
    assert "Invalid input for param fail_at" in done.output


def test_the_deferred_task_comes_back_after_its_wait(runs: Runs) -> None:
    run = runs["deferred"].result()
    assert run.state == "success", run.finished.output
    # As a value of a JSON line.
    assert re.search(r'"new_state": "[^"]*deferred', run.finished.output, re.IGNORECASE)
    assert "trigger starting" in run.finished.output
    assert "s passed, 5 s were promised" in run.finished.output


def test_mapped_values_are_right_but_one_host_for_both_executors_fails_the_tour(runs: Runs) -> None:
    """The hosts are compared last: a wrong value would have failed before, with another message."""
    run = runs["mapped on one host"].result()
    assert run.of("square") == [("success", 1)] * 6
    assert run.of("verify") == [("failed", 1)]
    assert "ran both the local-executor task and edge tasks" in run.finished.output


def test_readiness_is_asked_for_thirty_times_a_second_apart_before_a_task_gives_up(
    readiness: Future[Finished],
) -> None:
    done = readiness.result()
    assert done.code == 0, done.output
    answer = json.loads(done.output.splitlines()[-1])
    assert answer["attempts"] == 30
    assert 29 <= answer["seconds"] < 45
    assert "miner at http://127.0.0.1:9 is not ready after 30 attempts" in answer["error"]
    assert "FRESH_POC_MINER_URL" in answer["error"]
