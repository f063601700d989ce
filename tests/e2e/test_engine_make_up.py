"""What the README promises of ``make``: up, again, look, add a host, down, up with all data, destroy."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from _stack import PROJECT, ROOT, docker, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROJECT = f"{PROJECT}-make"
_FOREIGN = re.compile(
    r"(AIRBRIDGE|AWS|COMPOSE|CONTROL_PLANE|MAKE|WORKER)|(NAME|QUEUES|TIMEOUT|FORCE|V|ARGS)$"
)


@dataclass(frozen=True, slots=True)
class Make:
    """``make`` for a stack with a project and ports of its own."""

    settings: dict[str, str]

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
        done = subprocess.run(
            ["make", "--directory", str(ROOT), "--no-print-directory", *arguments],
            env=kept | self.settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert not check or done.returncode == 0, f"make {arguments}:\n{done.stdout}\n{done.stderr}"
        return done


def of_project(*kind: str, fields: str) -> set[str]:
    """Names or ids of this test's containers, volumes or networks, of its control plane and its hosts."""
    found = docker(*kind, "--format", f'{{{{.Label "com.docker.compose.project"}}}} {{{{.{fields}}}}}').stdout
    rows = (line.split(" ", 1) for line in found.splitlines() if line.startswith(_PROJECT))
    return {row[1] for row in rows}


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    ports = free_ports(2)
    names = ("AIRBRIDGE_UI_PORT", "AIRBRIDGE_GATEWAY_PORT")
    # A limit, not a wait, and a generous one: other tests may keep this machine busy.
    step = Make(
        {"COMPOSE_PROJECT_NAME": _PROJECT, "AIRBRIDGE_WAIT": "900"}
        | dict(zip(names, map(str, ports), strict=True))
    )
    yield step
    step("destroy", "FORCE=1")


@pytest.fixture(scope="module")
def first_up(make: Make) -> str:
    """What the first ``make up`` printed."""
    return make("up").stdout


@pytest.fixture(scope="module")
def password(first_up: str) -> str:
    found = re.search(r"admin password \(.*\): (\S+)$", first_up, re.MULTILINE)
    assert found, first_up
    return found[1]


def test_make_up_ends_with_a_task_that_ran_on_the_edge_and_its_log_in_s3(first_up: str) -> None:
    assert re.search(r"sample run +edge_sample_dag succeeded in [\d.]+ s on local$", first_up, re.MULTILINE)
    assert re.search(
        r"log +s3://airbridge-logs/dev/task-logs/dag_id=edge_sample_dag/\S+\.log$", first_up, re.MULTILINE
    )
    steps = re.findall(r"^\[ *\d+ s\] ([a-z-]+)", first_up, re.MULTILINE)
    assert [step for step in steps if step in ("preflight", "engine", "base-image", "edge", "ready")] == [
        "preflight",
        "engine",
        "base-image",
        "edge",
        "ready",
    ]


def test_make_password_prints_the_password_and_nothing_else(make: Make, password: str) -> None:
    answer = make("password")
    assert answer.stdout == f"{password}\n"
    assert answer.stderr == ""


def test_second_make_up_keeps_every_container_and_does_not_show_the_password_again(
    make: Make, password: str
) -> None:
    before = of_project("ps", "--quiet", fields="ID")
    again = make("up").stdout
    assert of_project("ps", "--quiet", fields="ID") == before
    assert password not in again
    assert "admin password" not in again
    assert re.search(r"publish +0 example DAG files copied", again)


def test_make_status_lists_every_service_as_healthy(make: Make, first_up: str) -> None:
    answer = make("status")
    for service in (
        "api-server",
        "scheduler",
        "dag-processor",
        "triggerer",
        "gateway",
        "localstack",
        "postgres",
    ):
        assert re.search(rf"^  {service} +running +healthy", answer.stdout, re.MULTILINE), answer.stdout
    assert "edge host local" in answer.stdout


def test_make_diag_passes_for_the_local_host(make: Make, first_up: str) -> None:
    assert "0 fail" in make("diag").stdout
    assert json.loads(make("diag", "JSON=1").stdout)


def test_another_edge_host_joins_keeps_its_queues_and_its_credentials_to_itself(
    make: Make, first_up: str
) -> None:
    make("edge", "NAME=berlin", "QUEUES=gpu,plant-7")
    assert "queues gpu,plant-7" in make("edge", "NAME=berlin").stdout
    folder = ROOT / "edge-bundles" / f".{_PROJECT}" / "berlin"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "edge.env").stat().st_mode & 0o777 == 0o600
    assert (folder / "token").read_text().strip() not in (folder / "edge.env").read_text()


def test_preflight_of_a_running_stack_does_not_complain_about_its_own_ports(
    make: Make, first_up: str
) -> None:
    assert make("preflight").stdout.count("is held by this stack") == 2


def test_down_keeps_all_data_and_the_next_up_finds_it(make: Make, password: str) -> None:
    volumes = of_project("volume", "ls", fields="Name")
    make("down")
    assert of_project("ps", "--all", fields="Names") == set()
    assert volumes
    assert of_project("volume", "ls", fields="Name") == volumes
    again = make("up").stdout
    assert re.search(r"publish +0 example DAG files copied", again), "S3 lost what was published"
    assert make("password").stdout == f"{password}\n"


def test_destroy_leaves_nothing_behind(make: Make, first_up: str) -> None:
    make("destroy", "FORCE=1")
    assert of_project("ps", "--all", fields="Names") == set()
    assert of_project("volume", "ls", fields="Name") == set()
    assert of_project("network", "ls", fields="Name") == set()
    assert not (ROOT / "edge-bundles" / f".{_PROJECT}").exists()
    assert make("status", check=False).returncode != 0
