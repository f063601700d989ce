"""An edge host's surroundings, all real and all on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.edge.edge_servers import SECRET, TOKEN, VERSIONS, WORKER, Authority, Plane, Servers, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def servers() -> Iterator[Servers]:
    running = Servers()
    yield running
    running.stop()


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Return address and folder of an S3 server that takes worker north-1's signature only."""
    folder = tmp_path_factory.mktemp("s3")
    with _served(folder, WORKER) as url:
        yield url, folder


@pytest.fixture(scope="session")
def strange_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of an S3 server that takes another worker's signature only."""
    with _served(tmp_path_factory.mktemp("strange-s3"), "south-1") as url:
        yield url


@contextmanager
def _served(folder: Path, worker: str) -> Iterator[str]:
    (folder / "airbridge-dags" / "dev" / "examples" / "dags").mkdir(parents=True)
    (folder / "airbridge-dags" / "dev" / "examples" / "dags" / "a.py").write_text("")
    (folder / "airbridge-logs" / "dev").mkdir(parents=True)
    port = free_port()
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(folder)]
    command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{worker},{SECRET}", "--config", "/dev/null"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "rclone ended"
                assert time.monotonic() < deadline, "rclone does not listen"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def edge_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that sets this process's environment to an edge host's; ``None`` unsets."""
    for name in (
        "CONTROL_PLANE_TOKEN_FILE",
        "CONTROL_PLANE_CA_FILE",
        "ENVIRONMENT",
        "DAG_BUCKET",
        "LOG_BUCKET",
    ):
        monkeypatch.delenv(name, raising=False)

    def configure(**changes: str | None) -> None:
        values: dict[str, str | None] = {
            "CONTROL_PLANE_URL": "https://control.example.com:8443",
            "CONTROL_PLANE_TOKEN": TOKEN,
            "WORKER_NAME": WORKER,
            "WORKER_QUEUES": "default,gpu",
            "WORKER_CONCURRENCY": "4",
            "EDGE_STATE_DIR": str(tmp_path / "state"),
            "EDGE_MIN_FREE_DISK_MB": "1",
            "EDGE_HEARTBEAT_INTERVAL": "1",
            "DAG_STORE": str(tmp_path / "store"),
            **changes,
        }
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return configure


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PYTHONPATH with this project and the metadata (only) of Airflow and its edge provider."""
    site = tmp_path_factory.mktemp("site")
    for package, version in (
        ("apache_airflow", VERSIONS.airflow),
        ("apache_airflow_providers_edge3", VERSIONS.edge_provider),
    ):
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {package.replace('_', '-')}\nVersion: {version}\n")
    return f"{Path('src').resolve()}:{site}"
