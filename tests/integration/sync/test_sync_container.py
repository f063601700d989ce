"""The dag-sync image, hardened as compose runs it."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import docker
import pytest
from sync_stack import DAG_SYNC_IMAGE, eventually, need_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker.models.containers import Container
    from sync_stack import DagBucket

IDLE_MIB = 60  # the Python process alone; rclone comes and goes


@pytest.fixture
def run(bucket: DagBucket) -> Iterator[Callable[..., Container]]:
    need_image(DAG_SYNC_IMAGE)
    client = docker.from_env()
    name = f"airbridge-sync-test-{uuid.uuid4().hex[:8]}"
    volume = client.volumes.create(name)
    containers: list[Container] = []

    def run(*, store: dict[str, str] | None = None, **settings: str) -> Container:
        mounts: dict[str, Any] = (
            {"tmpfs": store} if store else {"volumes": {name: {"bind": "/store", "mode": "rw"}}}
        )
        environment = bucket.environment() | {
            "S3_ENDPOINT_URL": bucket.server.inside_url,
            "DAG_SYNC_POLL_INTERVAL": "0.2",
            "DAG_SYNC_INTERVAL": "1",
        }
        containers.append(
            client.containers.run(
                DAG_SYNC_IMAGE,
                name=f"{name}-{len(containers)}",
                detach=True,
                environment=environment | settings,
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                mem_limit="256m",
                pids_limit=64,
                **mounts,
            )
        )
        return containers[-1]

    yield run
    for container in containers:
        container.remove(force=True)
    volume.remove(force=True)


def health(container: Container) -> dict[str, Any]:
    code, output = container.exec_run(["python", "-m", "airbridge.sync", "health"])
    try:
        return json.loads(output) | {"exit_code": code}
    except ValueError:
        return {"exit_code": code, "status": "silent"}


def shell(container: Container, script: str) -> str:
    return container.exec_run(["sh", "-c", script])[1].decode().strip()


def test_the_hardened_image_serves_a_store_that_any_user_can_read_and_none_can_write(
    bucket: DagBucket, run: Callable[..., Container]
) -> None:
    bucket.put("etl/dags/a.py", "x = 1\n")
    container = run()
    eventually(lambda: health(container)["exit_code"] == 0, "for health")
    assert shell(container, "id -u; cat /store/current/etl/dags/a.py") == "50000\nx = 1"
    modes = shell(
        container, "stat -c %a /store /store/trees /store/current/etl/dags /store/current/etl/dags/a.py"
    )
    assert modes.split() == ["755", "755", "555", "444"]
    (volume,) = [mount["Name"] for mount in container.attrs["Mounts"] if mount["Destination"] == "/store"]
    reader = docker.from_env().containers.run(
        DAG_SYNC_IMAGE,
        entrypoint=[
            "sh",
            "-c",
            "cat /store/current/etl/dags/a.py; touch /store/current/etl/x || echo refused",
        ],
        user="12345:12345",
        volumes={volume: {"bind": "/store", "mode": "ro"}},
        remove=True,
        stderr=False,
    )
    assert reader.decode() == "x = 1\nrefused\n"


def test_a_full_disk_keeps_the_old_tree_says_so_and_heals_by_itself(
    bucket: DagBucket, run: Callable[..., Container]
) -> None:
    bucket.put("etl/dags/a.py", "x = 1\n")
    container = run(store={"/store": "size=1m,uid=50000,gid=50000,mode=755"})
    eventually(lambda: health(container)["exit_code"] == 0, "for health")
    bucket.put("etl/dags/big.py", b"#" * 2_000_000)
    eventually(lambda: health(container)["exit_code"] == 1, "for the full disk")
    report = health(container)
    assert "DAG_STORE=/store" in report["reason"]
    assert "no space left" in report["reason"]
    assert shell(container, "cat /store/current/etl/dags/*") == "x = 1"
    bucket.delete("etl/dags/big.py")
    eventually(lambda: health(container)["exit_code"] == 0, "for recovery")


def test_a_kill_and_a_restart_find_the_store_as_it_was(
    bucket: DagBucket, run: Callable[..., Container]
) -> None:
    bucket.put("etl/dags/a.py", "x = 1\n")
    container = run()
    eventually(lambda: health(container)["exit_code"] == 0, "for health")
    container.kill("SIGKILL")
    container.wait()
    bucket.put("etl/dags/b.py", "y = 1\n")
    container.start()
    eventually(
        lambda: shell(container, "cat /store/current/etl/dags/*.py") == "x = 1\ny = 1", "for the new tree"
    )


def test_it_stops_within_a_second_of_sigterm(bucket: DagBucket, run: Callable[..., Container]) -> None:
    container = run()
    eventually(lambda: health(container)["exit_code"] == 0, "for health")
    container.kill("SIGTERM")
    started = time.monotonic()
    code = container.wait()["StatusCode"]
    # The engine itself takes a while to take a container down on a busy machine.
    assert time.monotonic() - started < 3
    assert code == 0


def test_idle_memory_stays_small(bucket: DagBucket, run: Callable[..., Container]) -> None:
    for number in range(30):
        bucket.put(f"etl/dags/f{number}.py", f"n = {number}\n")
    container = run()
    eventually(lambda: health(container)["exit_code"] == 0, "for health")
    time.sleep(3)  # a few full passes
    script = (
        "import urllib.request as web; print(web.urlopen('http://127.0.0.1:8081/metrics').read().decode())"
    )
    metrics = container.exec_run(["python", "-c", script])[1].decode().splitlines()
    (resident,) = [
        float(line.split()[1]) for line in metrics if line.startswith("process_resident_memory_bytes ")
    ]
    assert resident / (1 << 20) < IDLE_MIB


def test_a_second_container_on_the_same_store_is_refused(
    bucket: DagBucket, run: Callable[..., Container]
) -> None:
    first = run()
    eventually(lambda: health(first)["exit_code"] == 0, "for health")
    second = run()
    assert second.wait(timeout=30)["StatusCode"] == 4
    assert "in use by another dag-sync" in second.logs().decode()
    assert health(first)["exit_code"] == 0
