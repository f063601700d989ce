"""Generated DAGs as the control plane sees them: parsed and serialized in its image, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airbridge.jobs.generation import asset_uri

if TYPE_CHECKING:
    from jobs_in_image import Airflow

PROBES = {
    *(
        "everything",
        "every",
        "once",
        "continuous",
        "timetable",
        "any_asset",
        "hostile",
        "raises",
        "bell",
        "slow",
    ),
}
EXAMPLES = {
    *(
        "orders_hello",
        "orders_repeat_args",
        "orders_import_orders",
        "orders_check_stock",
        "orders_flaky_upload",
    ),
    *("orders_slow_export", "orders_big_merge", "orders_ring_bell", "orders_talk", "orders_old_script"),
    *("reporting_daily_report", "reporting_archive", "reporting_heartbeat"),
}


@pytest.fixture(scope="module")
def parsed(airflow: Airflow) -> dict[str, Any]:
    return airflow.parse()


def test_every_job_is_a_dag_and_nothing_else_is_looked_at(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert set(parsed["dags"]) == EXAMPLES | {f"probe_{name}" for name in PROBES}
    assert len(parsed["files"]) == len(parsed["dags"])
    assert not [file for file in parsed["files"] if "_source" in file]


def test_no_job_is_imported_while_dags_are_parsed(parsed: dict[str, Any]) -> None:
    """J2, S9."""
    assert parsed["imported"] == []


def test_every_option_arrives_in_airflow(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"]["probe_everything"]
    assert dag["timetable"] == "MultipleCronTriggerTimetable"
    assert dag["tags"] == ["auto-generated", "etl", "group:g", "probe", "t"]
    assert dag["start_date"].startswith("2026-01-01")
    assert (dag["catchup"], dag["max_active_runs"], dag["dagrun_timeout"]) == (True, 2, 3600)
    assert dag["params"] == ["args", "day", "n"]
    assert dag["owner"] == "Somebody"
    assert dag["has_failure_callback"]
    assert dag["task"] == {
        "id": "run",
        "retries": 2,
        "retry_delay": 1,
        "backoff": True,
        "max_retry_delay": 2,
        "timeout": 60,
        "queue": "gpu",
        "pool": "small",
        "pool_slots": 2,
        "priority_weight": 3,
        "outlets": [asset_uri("probe", "everything")],
        "callbacks": ["SlackWebhookNotifier", "SmtpNotifier", "WebhookNotifier"],
    }


@pytest.mark.parametrize(
    ("dag_id", "timetable", "summary"),
    [
        ("orders_hello", "NullTimetable", "None"),
        ("orders_import_orders", "CronTriggerTimetable", "0 5 * * 1-5"),
        ("orders_check_stock", "CronTriggerTimetable", "0 0 * * *"),
        ("probe_every", "DeltaTriggerTimetable", "0:15:00"),
        ("probe_once", "OnceTimetable", "@once"),
        ("probe_continuous", "ContinuousTimetable", "@continuous"),
        ("probe_timetable", "CronTriggerTimetable", "0 0 * * *"),
        ("probe_any_asset", "AssetTriggeredTimetable", "Asset"),
    ],
)
def test_schedule_is_what_the_job_asked_for(
    parsed: dict[str, Any], dag_id: str, timetable: str, summary: str
) -> None:
    dag = parsed["dags"][dag_id]
    assert (dag["timetable"], dag["schedule"]) == (timetable, summary)


def test_cron_runs_on_the_jobs_own_clock(parsed: dict[str, Any]) -> None:
    assert "Europe/Berlin" in parsed["dags"]["orders_import_orders"]["timezone"]


def test_job_waits_for_the_assets_that_others_update(parsed: dict[str, Any]) -> None:
    report = parsed["dags"]["reporting_daily_report"]
    assert report["timetable"] == "AssetTriggeredTimetable"
    updated = [
        uri
        for other in ("orders_check_stock", "orders_import_orders")
        for uri in parsed["dags"][other]["task"]["outlets"]
    ]
    assert report["waits_for"] == updated
    assert parsed["dags"]["reporting_archive"]["waits_for"] == report["task"]["outlets"]
