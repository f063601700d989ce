"""Preflight sees what is wrong with a machine, says what to do, and changes nothing."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from scripts_steps import run_step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def held_port(address: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """A port that this process really listens on."""
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        yield listener.getsockname()[1]


def free_port() -> int:
    with held_port() as port:
        return port


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """A fit machine with a stopped engine of its own folder and free ports: the rest is as it really is."""
    release = tmp_path / "os-release"
    release.write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\n')
    return {
        "AIRBRIDGE_RUN_DIR": str(tmp_path / "run"),
        "AIRBRIDGE_DOCKERD": "/nonexistent/dockerd",
        "AIRBRIDGE_OS_RELEASE": str(release),
        "AIRBRIDGE_ROOT_UID": str(os.getuid()),
        "AIRBRIDGE_UI_PORT": str(free_port()),
        "AIRBRIDGE_GATEWAY_PORT": str(free_port()),
        "AIRBRIDGE_MIN_MEMORY_MIB": "1",
        "AIRBRIDGE_MIN_DISK_MIB": "1",
    }


def checks(settings: dict[str, str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    answer = run_step("preflight.sh", "--json", *arguments, **settings)
    report = json.loads(answer.stdout)
    assert report["ok"] is (answer.returncode == 0)
    return answer.returncode, report["checks"]


def problems(settings: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    return [check for check in checks(settings, *arguments)[1] if not check["ok"]]


def test_fit_machine_passes_every_check(machine: dict[str, str]) -> None:
    code, found = checks(machine)
    assert code == 0
    assert {check["name"] for check in found} >= {"engine", "port", "memory", "disk", "python"}


@pytest.mark.parametrize("setting", ["AIRBRIDGE_UI_PORT", "AIRBRIDGE_GATEWAY_PORT"])
def test_taken_port_is_named_with_its_setting_and_a_way_out(machine: dict[str, str], setting: str) -> None:
    with held_port() as port:
        (problem,) = problems({**machine, setting: str(port)})
    assert problem["name"] == "port"
    assert f"port {port} (" in problem["detail"]
    assert "is taken" in problem["detail"]
    assert f"set {setting} to a free port" in problem["fix"]


def test_port_held_on_every_address_collides_with_loopback(machine: dict[str, str]) -> None:
    with held_port("0.0.0.0") as port:
        assert len(problems({**machine, "AIRBRIDGE_UI_PORT": str(port)})) == 1
    with held_port("::", socket.AF_INET6) as port:
        assert len(problems({**machine, "AIRBRIDGE_UI_PORT": str(port)})) == 1


def test_port_held_on_another_address_collides_only_with_a_door_on_every_address(
    machine: dict[str, str],
) -> None:
    with held_port("127.0.0.2") as port:
        assert problems({**machine, "AIRBRIDGE_UI_PORT": str(port)}) == []
        assert len(problems({**machine, "AIRBRIDGE_GATEWAY_PORT": str(port)})) == 1
        moved = {**machine, "AIRBRIDGE_UI_PORT": str(port), "AIRBRIDGE_UI_BIND": "0.0.0.0"}
        assert len(problems(moved)) == 1


def test_port_is_free_again_once_its_holder_is_gone(machine: dict[str, str]) -> None:
    with held_port() as port:
        assert problems({**machine, "AIRBRIDGE_UI_PORT": str(port)})
    assert problems({**machine, "AIRBRIDGE_UI_PORT": str(port)}) == []


@pytest.mark.parametrize("value", ["http", "80a", "0", "65536", "99999999999", "-1", "8080 9090"])
def test_malformed_port_names_the_setting_and_its_range(machine: dict[str, str], value: str) -> None:
    (problem,) = problems({**machine, "AIRBRIDGE_UI_PORT": value})
    assert "AIRBRIDGE_UI_PORT" in problem["detail"]
    assert "1 to 65535" in problem["fix"]


def test_ports_are_read_from_the_env_file(machine: dict[str, str], tmp_path: Path) -> None:
    del machine["AIRBRIDGE_UI_PORT"]
    with held_port() as port:
        env_file = tmp_path / "settings.env"
        env_file.write_text(f'# ports\nAIRBRIDGE_UI_PORT="{port}"\n')
        (problem,) = problems({**machine, "AIRBRIDGE_ENV_FILE": str(env_file)})
    assert f"port {port} " in problem["detail"]


def test_without_ports_a_taken_port_is_no_problem(machine: dict[str, str]) -> None:
    with held_port() as port:
        assert problems({**machine, "AIRBRIDGE_UI_PORT": str(port)}, "--no-ports") == []


def test_too_little_memory_and_disk_say_what_there_is_and_what_is_needed(machine: dict[str, str]) -> None:
    found = problems(
        {**machine, "AIRBRIDGE_MIN_MEMORY_MIB": "999999999", "AIRBRIDGE_MIN_DISK_MIB": "999999999999"}
    )
    assert [problem["name"] for problem in found] == ["memory", "disk"]
    assert "999999999 MiB are needed" in found[0]["detail"]
    assert "999999999999 MiB are needed" in found[1]["detail"]


def test_all_problems_come_at_once_one_line_each(machine: dict[str, str]) -> None:
    with held_port() as port:
        bad = {
            "AIRBRIDGE_UI_PORT": str(port),
            "AIRBRIDGE_GATEWAY_PORT": "s3",
            "AIRBRIDGE_MIN_MEMORY_MIB": "999999999",
            "AIRBRIDGE_MIN_DISK_MIB": "999999999999",
        }
        answer = run_step("preflight.sh", "--problems", **{**machine, **bad})
    lines = answer.stdout.splitlines()
    assert answer.returncode == 1
    assert len(lines) == 4
    assert all(line.startswith("FAIL  ") and " | fix: " in line for line in lines)


def test_missing_engine_is_one_clear_line_where_it_cannot_be_installed(
    machine: dict[str, str], tmp_path: Path
) -> None:
    release = tmp_path / "fedora"
    release.write_text("ID=fedora\nVERSION_ID=42\n")
    (problem,) = problems({**machine, "AIRBRIDGE_OS_RELEASE": str(release)})
    assert problem["detail"] == "there is no Docker engine"
    assert "https://docs.docker.com/engine/install/" in problem["fix"]


def test_engine_at_a_dead_address_is_named(machine: dict[str, str], tmp_path: Path) -> None:
    del machine["AIRBRIDGE_RUN_DIR"]
    where = f"unix://{tmp_path}/dead.sock"
    (problem,) = problems({**machine, "DOCKER_HOST": where})
    assert problem["detail"] == f"no engine answers at {where}"
    assert "unset DOCKER_HOST" in problem["fix"]


def test_preflight_changes_nothing(machine: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    run_step("preflight.sh", **machine)
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_argument_is_wrong_usage() -> None:
    answer = run_step("preflight.sh", "--jason")
    assert answer.returncode == 2
    assert "--jason" in answer.stderr
