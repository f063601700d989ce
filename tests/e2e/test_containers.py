"""Every container of a running stack: what it may do, what it may use, what it opens (A4, A5)."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from _stack import ROOT, EdgeHost, Stack, docker

import airbridge

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL_PLANE = {
    *(
        "postgres",
        "localstack",
        "api-server",
        "scheduler",
        "dag-processor",
        "triggerer",
        "dag-sync",
        "collector",
        "job-sync",
        "s3-door",
        "gateway",
    ),
}
EDGE_HOST = {"uplink", "courier", "dag-sync", "edge-worker"}
DEMO = {"ingestion", "miner", "analyzer", "writer", "reporting"}
# What "locks" means to the build: see LOCK_HASH in scripts/lib.sh.
LOCKS = ("airflow", "edge", "gateway", "localstack", "sync")

Container = dict[str, Any]


def _name(container: Container) -> str:
    return str(container["Name"]).removeprefix("/")


@pytest.fixture(scope="session")
def containers(stack: Stack, edge: EdgeHost) -> list[Container]:
    """What the engine says about every running container of the control plane and the edge host."""
    return stack.compose.containers() + edge.compose.containers()


def _services(containers: list[Container], project: str) -> set[str]:
    labels = [container["Config"]["Labels"] for container in containers]
    return {
        str(label["com.docker.compose.service"])
        for label in labels
        if label["com.docker.compose.project"] == project
    }


def test_the_services_that_should_run_do_and_no_other(
    stack: Stack, edge: EdgeHost, containers: list[Container]
) -> None:
    """C1, C2. One-shot services have ended."""
    assert _services(containers, stack.compose.project) == CONTROL_PLANE
    assert _services(containers, edge.compose.project) == EDGE_HOST | DEMO


# name of the promise -> what is wrong with a container, or nothing.
def _health(container: Container) -> object:
    health = container["State"].get("Health", {}).get("Status", "there is no health check")
    return "" if health == "healthy" else health


def _label(container: Container) -> object:
    labels = container["Config"]["Labels"]
    found = labels.get("org.opencontainers.image.version"), labels.get("org.airbridge.lock")
    wanted = (airbridge.__version__, lock_hash())
    return "" if found == wanted else f"{found}, not {wanted} | fix: run make build"


def _log_rotation(container: Container) -> object:
    log = container["HostConfig"]["LogConfig"]
    return "" if log["Type"] == "json-file" and {"max-size", "max-file"} <= log["Config"].keys() else log


def _host_doors(container: Container) -> object:
    host = container["HostConfig"]
    shared = {key: host[key] for key in ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode")}
    return {key: value for key, value in shared.items() if value == "host"} or host["Devices"] or ""


def _mounts(container: Container) -> object:
    sources = [mount["Source"] for mount in container["Mounts"] if mount["Type"] == "bind"]
    return [source for source in sources if "docker" in source and source.endswith(".sock")]


PROMISES: dict[str, Callable[[Container], object]] = {
    "runs as nobody in particular": lambda c: c["Config"]["User"] != "50000:50000" and c["Config"]["User"],
    "gains no privileges": lambda c: "no-new-privileges:true" not in (c["HostConfig"]["SecurityOpt"] or []),
    "has no capability": lambda c: c["HostConfig"]["CapDrop"] != ["ALL"] or c["HostConfig"]["CapAdd"],
    "is not privileged": lambda c: c["HostConfig"]["Privileged"],
    "has a memory limit": lambda c: not c["HostConfig"]["Memory"],
    "has a limit of processes": lambda c: not c["HostConfig"]["PidsLimit"],
    "cannot write to its image": lambda c: not c["HostConfig"]["ReadonlyRootfs"],
    "rotates its log": _log_rotation,
    "is restarted": lambda c: c["HostConfig"]["RestartPolicy"]["Name"] != "unless-stopped",
    "has a health check that passes": _health,
    "shares nothing with the host": _host_doors,
    "does not see the engine's socket": _mounts,
    "says which release and lock it was built from": _label,
}


def lock_hash() -> str:
    """What the label ``org.airbridge.lock`` of an image built from this tree says."""
    digest = hashlib.sha256()
    for name in LOCKS:
        digest.update((ROOT / "requirements" / f"{name}.txt").read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("promise", PROMISES)
def test_every_container(containers: list[Container], promise: str) -> None:
    """A5, D4: each line of the table, for each container."""
    broken = {_name(container): wrong for container in containers if (wrong := PROMISES[promise](container))}
    assert broken == {}


def test_every_process_is_confined_by_the_kernel(containers: list[Container]) -> None:
    """Not what was asked for, but what the first process of each container really has."""

    def status(container: Container) -> tuple[str, dict[str, str]]:
        text = docker("exec", container["Id"], "cat", "/proc/1/status").stdout
        return _name(container), dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))

    with ThreadPoolExecutor(4) as pool:
        found = dict(pool.map(status, containers))
    assert len(found) == len(containers)
    for name, fields in found.items():
        assert fields["Uid"].split() == ["50000"] * 4, name
        assert fields["Gid"].split() == ["50000"] * 4, name
        assert fields["NoNewPrivs"] == "1", name
        assert {int(fields[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
            0
        }, name


def test_nothing_is_published_but_the_front_doors(stack: Stack, containers: list[Container]) -> None:
    """The edge endpoint for all, UI and S3 on loopback; an edge host opens nothing (A1)."""
    doors = set()
    for container in containers:
        for inside, places in (container["NetworkSettings"]["Ports"] or {}).items():
            for place in places or []:
                doors.add((_name(container), inside, place["HostIp"], place["HostPort"]))
    project = stack.compose.project
    expected = {
        (f"{project}-api-server-1", "8080/tcp", "127.0.0.1", str(stack.ui_port)),
        (f"{project}-localstack-1", "4566/tcp", "127.0.0.1", str(stack.s3_port)),
        (f"{project}-gateway-1", "8443/tcp", "0.0.0.0", str(stack.gateway_port)),
    }
    # An engine with IPv6 publishes the endpoint there as well.
    ipv6 = {(f"{project}-gateway-1", "8443/tcp", "::", str(stack.gateway_port))}
    assert doors - ipv6 == expected


def test_airflow_command_answers_in_each_airflow_image(stack: Stack) -> None:
    """A4, A5: without a network, a database or a setting, and as confined as in a stack."""
    assert stack
    version = os.environ.get("AIRBRIDGE_VERSION", airbridge.__version__)
    confined = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")

    def answer(image: str) -> str:
        return docker("run", "--rm", *confined, f"airbridge/{image}:{version}", "airflow", "version").stdout

    with ThreadPoolExecutor(2) as pool:
        answers = [text.split()[-1] for text in pool.map(answer, ("airflow", "edge-worker"))]
    assert answers == ["3.0.4", "3.0.4"]


def test_service_of_an_image_that_was_built_from_another_lock_does_not_start(
    stack: Stack, tmp_path: Any
) -> None:
    """D4: a changed lock without rebuilt images is refused, and the refusal says what to do."""
    lock = tmp_path / "requirements.txt"
    lock.write_bytes((ROOT / "requirements" / "airflow.txt").read_bytes() + b"# one line more\n")
    lock.chmod(0o644)
    done = stack.compose(
        *("run", "--rm", "--no-deps", "--no-TTY", "--volume", f"{lock}:/run/airbridge/requirements.txt:ro"),
        *("scheduler", "airflow", "version"),
        check=False,
    )
    assert done.code == 4, done.output
    assert "image was built from lock" in done.output
    assert "fix: rebuild it: make build" in done.output


def test_missing_image_is_one_line_that_says_what_to_do(stack: Stack) -> None:
    """The fixture of these tests itself: no download is tried."""
    other = stack.compose.with_settings(AIRBRIDGE_VERSION="0.0.0-none")
    with pytest.raises(
        AssertionError, match=r"no image .*airbridge/airflow:0\.0\.0-none.* fix: run make build"
    ):
        other.up(wait=False)


def test_engine_that_is_away_is_one_line_that_says_what_to_do(tmp_path: Any) -> None:
    """The whole session, against a socket that nobody listens on."""
    done = subprocess.run(
        [
            *(str(ROOT / ".venv/bin/python"), "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
            "tests/e2e/test_containers.py::test_every_container",
        ],
        env={
            **os.environ,
            "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
            "AIRBRIDGE_E2E_PROJECT": "airbridge-e2e-no-engine",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no Docker engine answers" in done.stdout
    assert "fix: run make engine" in done.stdout
    assert "Traceback" not in done.stdout
