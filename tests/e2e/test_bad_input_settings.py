"""Malformed settings: each one is named, by the container itself or by compose, and nothing starts."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from _stack import EDGE_FILE, PROJECT, ROOT, Compose, Done, docker, free_ports, leftovers
from _trouble import bare_control_plane, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EDGE = {
    "CONTROL_PLANE_URL": "https://control.example.org:8443",
    "CONTROL_PLANE_TOKEN": f"settings.{'t' * 64}",
    "WORKER_NAME": "settings",
}


@pytest.fixture(scope="module", autouse=True)
def _projects(_nothing_left_behind: None) -> None:
    """The same clean start and end as with a stack, and nobody else in these projects meanwhile."""


@pytest.fixture
def edge_host() -> Iterator[Compose]:
    compose = Compose(f"{PROJECT}-edge-settings", EDGE_FILE, _EDGE)
    yield compose
    compose.remove()


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[Compose]:
    compose = bare_control_plane(tmp_path, "settings")
    yield compose
    compose.remove()


def _run(compose: Compose, service: str, *command: str) -> Done:
    done = compose("run", "--rm", "--no-deps", "--no-TTY", "--quiet-pull", service, *command, check=False)
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize("setting", ["CONTROL_PLANE_URL", "WORKER_NAME"])
def test_compose_refuses_an_edge_host_without(edge_host: Compose, setting: str) -> None:
    done = edge_host.with_settings(**{setting: ""})("up", "--detach", "--no-build", check=False)
    assert done.code != 0
    assert setting in done.stderr
    assert "is missing - the " in done.stderr


def test_edge_worker_names_every_malformed_setting_at_once(edge_host: Compose) -> None:
    malformed = edge_host.with_settings(
        CONTROL_PLANE_URL="http://control.example.org",
        CONTROL_PLANE_TOKEN="short",
        WORKER_NAME="Plant_7",
        WORKER_QUEUES="default,,gpu",
        WORKER_CONCURRENCY="many",
        WORKER_DRAIN_TIMEOUT="-1",
        EDGE_MIN_FREE_DISK_MB="lots",
        ENVIRONMENT="a/b",
        DAG_BUCKET="No_Bucket",
        LOG_BUCKET="x",
    )
    done = _run(malformed, "edge-worker")
    assert done.code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if " | fix: " in line]
    assert {line.partition(":")[0] for line in lines} == {
        *("CONTROL_PLANE_URL", "CONTROL_PLANE_TOKEN", "WORKER_NAME", "WORKER_QUEUES", "WORKER_CONCURRENCY"),
        *("WORKER_DRAIN_TIMEOUT", "EDGE_MIN_FREE_DISK_MB", "ENVIRONMENT", "DAG_BUCKET", "LOG_BUCKET"),
    }
    assert "'short'" not in done.output


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"CONTROL_PLANE_URL": "https://control.example.org/path"}, "CONTROL_PLANE_URL='https://"),
        ({"CONTROL_PLANE_TOKEN": ""}, "CONTROL_PLANE_TOKEN and CONTROL_PLANE_TOKEN_FILE are empty"),
        ({"CONTROL_PLANE_CA_FILE": str(ROOT / "README.md")}, "CONTROL_PLANE_CA_FILE="),
    ],
)
def test_uplink_names_the_malformed_setting(edge_host: Compose, settings: dict[str, str], named: str) -> None:
    done = _run(edge_host.with_settings(**settings), "uplink")
    assert done.code == 2, done.output
    assert named in done.stderr
    assert " | fix: " in done.stderr


def test_dag_sync_names_every_malformed_setting_at_once(control_plane: Compose) -> None:
    malformed = control_plane.with_settings(
        DAG_BUCKET="No_Bucket",
        DAG_SYNC_INTERVAL="soon",
        DAG_SYNC_KEEP_TREES="0",
        S3_ENDPOINT_URL="localstack",
    )
    done = _run(malformed, "dag-sync")
    assert done.code == 2, done.output
    for setting in ("DAG_BUCKET=", "DAG_SYNC_INTERVAL=", "DAG_SYNC_KEEP_TREES=", "S3_ENDPOINT_URL="):
        assert setting in done.stderr


def test_malformed_secrets_are_all_named_and_nothing_that_needs_one_starts(control_plane: Compose) -> None:
    malformed = {
        "AIRBRIDGE_ADMIN_PASSWORD": "short",
        "AIRBRIDGE_DB_PASSWORD": "tiny",
        "AIRBRIDGE_FERNET_KEY": "no key",
        "AIRBRIDGE_JWT_PRIVATE_KEY": "no key either",
        "AIRBRIDGE_SESSION_SECRET": "0123456789",
    }
    done = control_plane.with_settings(**malformed)("up", "--detach", "--no-build", check=False)
    assert done.code != 0
    assert exit_code(control_plane, "secrets") == 2
    said = control_plane.logs("secrets")
    for name, value in malformed.items():
        assert name in said
        assert value not in said
    assert "Traceback" not in said
    # LocalStack has no secret to wait for.
    assert set(control_plane.services()) <= {"localstack"}
    made = control_plane("run", "--rm", "--no-deps", "--no-TTY", "secrets", "ls", "-A", "/secrets/control")
    assert made.stdout.strip() == ""


def test_init_names_malformed_settings_before_it_changes_anything(control_plane: Compose) -> None:
    malformed = control_plane.with_settings(
        ENVIRONMENT="a/b", LOG_BUCKET="x y", AIRFLOW_PARALLELISM="lots", AWS_SECRET_ACCESS_KEY='quo"te'
    )
    done = _run(malformed, "init")
    assert done.code == 2, done.output
    for setting in (
        "ENVIRONMENT='a/b'",
        "LOG_BUCKET='x y'",
        "AIRFLOW_PARALLELISM='lots'",
        "AWS_SECRET_ACCESS_KEY",
    ):
        assert setting in done.stderr
    assert 'quo"te' not in done.output
    assert "migrat" not in done.output


def test_gateway_names_the_malformed_setting(control_plane: Compose) -> None:
    control_plane("run", "--rm", "--no-deps", "--no-TTY", "secrets")
    done = _run(control_plane.with_settings(GATEWAY_NAMES="edge.example.org https://two"), "gateway")
    assert done.code == 2, done.output
    assert "GATEWAY_NAMES holds 'https://two'" in done.stderr


def test_make_up_with_a_taken_port_says_which_and_starts_nothing() -> None:
    """The port is really taken, by this process."""
    project = f"{PROJECT}-port"
    (ui_port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        environment = {
            **os.environ,
            "AIRBRIDGE_ENV_FILE": os.devnull,
            "COMPOSE_PROJECT_NAME": project,
            "AIRBRIDGE_UI_PORT": str(ui_port),
            "AIRBRIDGE_GATEWAY_PORT": str(taken),
        }
        for command in (["scripts/preflight.sh", "--problems"], ["make", "--no-print-directory", "up"]):
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            said = done.stdout + done.stderr
            assert done.returncode != 0, said
            assert f"port {taken} (edge endpoint) is taken" in said
            assert "set AIRBRIDGE_GATEWAY_PORT to a free port" in said
            assert f"port {ui_port}" not in said
    assert not any(project in name for names in leftovers().values() for name in names)
    assert docker("ps", "--all", "--quiet", "--filter", f"name={project}").stdout == ""
