from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airbridge.errors import SettingsError
from airbridge.sync._settings import load_settings


def test_defaults_are_those_of_the_manual(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("S3_ENDPOINT_URL", "DAG_STORE", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")  # as compose passes a variable that is not set
    settings = load_settings()
    assert settings.s3_endpoint_url == ""
    assert settings.aws_default_region == "us-east-1"
    assert settings.dag_store == Path("/store")
    assert (settings.dag_sync_poll_interval, settings.dag_sync_interval) == (2.0, 30.0)
    assert (settings.dag_sync_keep_trees, settings.dag_sync_keep_seconds) == (10, 3600)
    assert settings.health_port == 8081


def test_polls_are_never_rarer_than_full_passes(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAG_SYNC_POLL_INTERVAL", "60")
    assert load_settings().poll_seconds == 30.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAG_BUCKET", ""),
        ("DAG_BUCKET", "Under_Score"),
        ("DAG_BUCKET", "a/b"),
        ("ENVIRONMENT", ""),
        ("ENVIRONMENT", "../prod"),
        ("ENVIRONMENT", "dev/eu"),
        ("S3_ENDPOINT_URL", "localstack:4566"),
        ("S3_ENDPOINT_URL", "http://localstack:port"),
        ("S3_ENDPOINT_URL", "http://user:secret@localstack"),
        ("AWS_DEFAULT_REGION", "Paris, France"),
        ("DAG_STORE", "store"),
        ("DAG_SYNC_INTERVAL", "soon"),
        ("DAG_SYNC_INTERVAL", "0"),
        ("DAG_SYNC_POLL_INTERVAL", "-1"),
        ("DAG_SYNC_POLL_INTERVAL", "nan"),
        ("DAG_SYNC_KEEP_TREES", "0"),
        ("DAG_SYNC_KEEP_TREES", "2.5"),
        ("DAG_SYNC_KEEP_SECONDS", "-1"),
        ("HEALTH_PORT", "65536"),
    ],
)
def test_a_malformed_setting_is_named_in_one_line(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(name)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


def test_a_malformed_setting_ends_the_program_with_2_and_nothing_half_started(
    environment: dict[str, str],
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "airbridge.sync"],
        env={**environment, "DAG_SYNC_INTERVAL": "soon"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "DAG_SYNC_INTERVAL='soon': input should be a valid number, unable to parse string as a number"
        " | fix: correct dag-sync's environment and start it again"
    ]
    assert ended.stdout == ""
    assert list(Path(environment["DAG_STORE"]).iterdir()) == []


def test_missing_credentials_are_named(environment: dict[str, str], tmp_path: Path) -> None:
    bare = {k: v for k, v in environment.items() if not k.startswith("AWS_")}
    ended = subprocess.run(
        [sys.executable, "-m", "airbridge.sync", "once"],
        env={**bare, "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("AWS_ACCESS_KEY_ID is not set")


@pytest.mark.parametrize("arguments", [["health", "now"], ["--interval", "5"], ["sync"]])
def test_an_unknown_argument_shows_the_usage(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "airbridge.sync", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "usage: python -m airbridge.sync" in ended.stderr
