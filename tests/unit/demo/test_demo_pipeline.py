"""What the five services do together, over real HTTP (F2)."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from demo_pipeline import ACTIONS

if TYPE_CHECKING:
    from demo_pipeline import Pipeline


def test_a_run_through_all_services_ends_in_a_report_of_the_repository(pipeline: Pipeline) -> None:
    answers = pipeline.run("run-1")
    assert answers["ingestion"]["records"] == 5
    assert answers["miner"] == {"service": "miner", "run_id": "run-1", "models": 5, "references": 4}
    assert answers["analyzer"]["layers"] == 3
    assert answers["analyzer"]["results"] == ["customers"]
    assert answers["analyzer"]["dangling"] == []
    assert answers["writer"]["nodes"] == 5
    assert answers["writer"]["edges"] == 4
    status, report = pipeline.call("reporting", "/report", run_id="run-1")
    assert status == 200
    assert "# Models of https://github.com/dbt-labs/jaffle-shop-classic" in report
    assert "| 2 | customers | 11 | orders, stg_customers |" in report


def test_writer_keeps_the_graph_in_tables(pipeline: Pipeline) -> None:
    pipeline.run("run-1")
    with sqlite3.connect(pipeline.root / "writer" / "writer.sqlite") as connection:
        edges = connection.execute("SELECT model, refers_to FROM edge ORDER BY 1, 2").fetchall()
    connection.close()
    assert edges == [
        ("customers", "orders"),
        ("customers", "stg_customers"),
        ("orders", "stg_orders"),
        ("orders", "stg_payments"),
    ]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_calling_every_service_again_gives_the_same_answers_and_adds_nothing(
    pipeline: Pipeline, method: str
) -> None:
    first = pipeline.run("run-1")
    second = {
        name: pipeline.call(name, action, method=method, run_id="run-1")[1]
        for name, action in ACTIONS.items()
    }
    assert second == first
    assert len(pipeline.call("writer", "/result", run_id="run-1")[1]["nodes"]) == 5


def test_calls_of_one_run_at_the_same_time_all_get_the_same_answer(pipeline: Pipeline) -> None:
    for name in ("ingestion", "miner", "analyzer"):
        pipeline.call(name, ACTIONS[name], run_id="run-1")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: pipeline.call("writer", "/apply", run_id="run-1"), range(16)))
    assert {status for status, _ in answers} == {200}
    assert {(body["nodes"], body["edges"]) for _, body in answers} == {(5, 4)}


def test_runs_do_not_see_each_other(pipeline: Pipeline) -> None:
    pipeline.run("run-1")
    assert pipeline.call("miner", "/run", run_id="run-2")[0] == 409


def test_a_result_outlives_a_restart_of_its_service(pipeline: Pipeline) -> None:
    first = pipeline.run("run-1")
    for name in ACTIONS:
        pipeline.stop(name)
        pipeline.start(name)
    assert pipeline.run("run-1") == first


def test_a_run_may_stop_in_the_middle_and_go_on(pipeline: Pipeline) -> None:
    pipeline.call("ingestion", "/trigger", run_id="run-1")
    pipeline.stop("ingestion")
    status, body = pipeline.call("miner", "/run", run_id="run-1")
    assert status == 502
    assert "ingestion" in body["error"]
    pipeline.start("ingestion")
    assert pipeline.call("miner", "/run", run_id="run-1")[0] == 200


@pytest.mark.parametrize("name", ACTIONS)
def test_a_service_that_is_asked_to_fail_answers_500_every_time_and_keeps_nothing(
    pipeline: Pipeline, name: str
) -> None:
    for _ in range(4):
        status, body = pipeline.call(name, ACTIONS[name], run_id="run-1", fail="1")
        assert status == 500
        assert name in body["error"]
    assert pipeline.call(name, "/result", run_id="run-1")[0] == 404
    assert pipeline.call(name, "/healthz") == (200, {"service": name, "status": "ok"})


def test_a_service_recovers_after_the_failures_that_were_asked_for(pipeline: Pipeline) -> None:
    asked = {"run_id": "run-1", "fail": "1", "fail_times": "2"}
    statuses = [pipeline.call("ingestion", "/trigger", **asked)[0] for _ in range(4)]
    assert statuses == [500, 500, 200, 200]


def test_failures_are_counted_for_each_run_and_over_a_restart(pipeline: Pipeline) -> None:
    assert pipeline.call("ingestion", "/trigger", run_id="run-1", fail="1", fail_times="1")[0] == 500
    assert pipeline.call("ingestion", "/trigger", run_id="run-2", fail="1", fail_times="1")[0] == 500
    pipeline.stop("ingestion")
    pipeline.start("ingestion")
    assert pipeline.call("ingestion", "/trigger", run_id="run-1", fail="1", fail_times="1")[0] == 200


@pytest.mark.parametrize(
    ("path", "query", "status", "says"),
    [
        ("/trigger", {"run_id": ""}, 400, "run_id"),
        ("/trigger", {"run_id": "x" * 251}, 400, "run_id"),
        ("/trigger", {"run_id": "a\nb"}, 400, "run_id"),
        ("/trigger", {"fail": "yes"}, 400, "fail"),
        ("/trigger", {"fail": "1", "fail_times": "-1"}, 400, "fail_times"),
        ("/trigger", {"fail": "1", "fail_times": "101"}, 400, "fail_times"),
        ("/trigger", {"repo": "https://example.org/other"}, 422, "catalogue"),
        ("/result", {"run_id": "nobody"}, 404, "nobody"),
        ("/other", {}, 404, "/trigger"),
    ],
)
def test_bad_input_is_refused_with_a_reason(
    pipeline: Pipeline, path: str, query: dict[str, str], status: int, says: str
) -> None:
    got, body = pipeline.call("ingestion", path, **query)
    assert got == status
    assert says in body["error"]


def test_a_parameter_given_twice_is_refused(pipeline: Pipeline) -> None:
    pipeline.urls["ingestion"] += "/trigger?run_id=a&run_id=b&x="
    status, body = pipeline.call("ingestion", "")
    assert status == 400
    assert "twice" in body["error"]


def test_a_method_that_no_service_has_is_answered_in_json(pipeline: Pipeline) -> None:
    status, body = pipeline.call("ingestion", "/trigger", method="DELETE")
    assert status == 501
    assert "DELETE" in body["error"]


def test_a_run_cannot_change_its_repository(pipeline: Pipeline) -> None:
    repo = "https://github.com/dbt-labs/jaffle-shop-classic"
    assert pipeline.call("ingestion", "/trigger", run_id="run-1")[0] == 200
    assert pipeline.call("ingestion", "/trigger", run_id="run-1", repo=f"{repo}.git/")[0] == 200
    status, body = pipeline.call("ingestion", "/trigger", run_id="run-1", repo="https://example.org/other")
    assert status == 409
    assert repo in body["error"]


def test_a_service_that_cannot_write_is_not_healthy(pipeline: Pipeline) -> None:
    lock = sqlite3.connect(pipeline.root / "miner" / "miner.sqlite", isolation_level=None)
    (pipeline.root / "miner" / "miner.sqlite").write_bytes(b"no database" * 100)
    lock.close()
    status, body = pipeline.call("miner", "/healthz")
    assert status == 503
    assert "cannot write" in body["error"]
