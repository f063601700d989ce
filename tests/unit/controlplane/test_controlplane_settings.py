"""Malformed settings of the control plane are refused before anything is changed."""

from __future__ import annotations

import os

import pytest

from airbridge.controlplane._settings import check_settings
from airbridge.errors import SettingsError

GOOD = {
    "DAG_BUCKET": "airbridge-dags",
    "LOG_BUCKET": "airbridge-logs",
    "ENVIRONMENT": "dev",
    "S3_ENDPOINT_URL": "http://localstack:4566",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AIRBRIDGE_ADMIN_USER": "admin",
    "AIRFLOW_CONN_AIRBRIDGE_S3": '{"conn_type": "aws", "password": "airbridge"}',
    "AIRFLOW__CORE__PARALLELISM": "64",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "512",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": "16",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("AIRFLOW", "AWS_", "S3_")):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def _refused() -> str:
    with pytest.raises(SettingsError) as caught:
        check_settings()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_defaults_of_compose_pass() -> None:
    check_settings()


def test_empty_endpoint_means_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    check_settings()


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("DAG_BUCKET", "Bad_Bucket", "DAG_BUCKET='Bad_Bucket'"),
        ("LOG_BUCKET", "x y", "LOG_BUCKET='x y'"),
        ("ENVIRONMENT", "a/b", "ENVIRONMENT='a/b'"),
        ("S3_ENDPOINT_URL", "localstack:4566", "S3_ENDPOINT_URL='localstack:4566'"),
        ("S3_ENDPOINT_URL", "http://localstack:port", "S3_ENDPOINT_URL="),
        ("AWS_DEFAULT_REGION", "somewhere nice", "AWS_DEFAULT_REGION="),
        ("AIRBRIDGE_ADMIN_USER", "--role", "AIRBRIDGE_ADMIN_USER="),
        ("AIRFLOW__CORE__PARALLELISM", "lots", "AIRFLOW_PARALLELISM='lots' must be a valid integer"),
        ("AIRFLOW__CORE__PARALLELISM", "0", "AIRFLOW_PARALLELISM='0' must be greater"),
        ("AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES", "-1", "AIRFLOW_PARSING_PROCESSES='-1'"),
        ("AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", "1m", "AIRFLOW_MIN_FILE_PROCESS_INTERVAL="),
        ("AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY", "1e3", "AIRFLOW_MAX_TIS_PER_QUERY="),
        ("AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP", "0", "AIRFLOW_MAX_DAGRUNS_TO_CREATE_PER_LOOP"),
        ("AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME", "soon", "AIRFLOW_SCHEDULER_IDLE_SLEEP_TIME='soon'"),
    ],
)  # fmt: skip
def test_malformed_setting_is_named_as_in_the_env_file(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert named in _refused()


def test_all_problems_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAG_BUCKET", "")
    monkeypatch.setenv("LOG_BUCKET", "x y")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "lots")
    said = _refused()
    for part in ("DAG_BUCKET is not set", "LOG_BUCKET=", "AIRFLOW_PARALLELISM="):
        assert part in said


def test_key_that_breaks_the_connection_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AIRBRIDGE_S3", '{"conn_type": "aws", "password": "se"cret"}')
    said = _refused()
    assert "AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY must hold neither" in said
    assert "cret" not in said.replace("AWS_SECRET", "")
