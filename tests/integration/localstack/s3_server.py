"""A LocalStack container with its volume, and what happens to it in tests: restart, kill -9, full disk."""

from __future__ import annotations

import http.client
import itertools
import time
import urllib.error
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import boto3
import docker
from botocore.config import Config
from testcontainers.core.container import DockerContainer

if TYPE_CHECKING:
    from types import TracebackType

    from docker.models.containers import Container

PREFIX = "airbridge-test-s3-"
PORT = 4566
START_SECONDS = 120  # generous: the machine may be busy, and no test is about this number
HARDENING: dict[str, Any] = {
    "user": "50000:50000",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "read_only": True,
    "tmpfs": {"/tmp": "mode=1777,size=64m"},
    "pids_limit": 256,
    "mem_limit": "512m",
}


class S3Server:
    """Starts with an empty volume; removes container and volume at the end."""

    def __init__(
        self, image: str, *, volume_options: dict[str, str] | None = None, **environment: str
    ) -> None:
        self._docker = docker.from_env()
        self.name = PREFIX + uuid.uuid4().hex[:8]
        self.image = image
        self.volume = self._docker.volumes.create(
            self.name, driver="local", driver_opts=volume_options, labels={"airbridge.test": "localstack"}
        )
        self._container = DockerContainer(image).with_name(self.name).with_exposed_ports(PORT)
        self._container.with_volume_mapping(self.name, "/var/lib/localstack", "rw")
        self._container.with_tmpfs_mount("/tmp", "mode=1777,size=64m")
        self._container.with_kwargs(**{name: value for name, value in HARDENING.items() if name != "tmpfs"})
        for name, value in environment.items():
            self._container.with_env(name, value)
        # Without the durable provider there is only LocalStack's own, which says less.
        durable = environment.get("PROVIDER_OVERRIDE_S3", "durable") == "durable"
        self._health_path = "_airbridge/health" if durable else "_localstack/health"
        self._names = itertools.count()

    def __enter__(self) -> S3Server:
        self._container.start()
        self.wait_until_healthy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.logs()[-4000:])
        self._container.stop()
        self.volume.remove(force=True)

    @property
    def container(self) -> Container:
        """The container, freshly looked at."""
        container = self._container.get_wrapped_container()
        container.reload()
        return container

    @property
    def url(self) -> str:
        """Address on this host; it changes with every start."""
        port = self.container.ports[f"{PORT}/tcp"][0]["HostPort"]
        return f"http://127.0.0.1:{port}"

    def client(self) -> Any:
        """A client that tries once, so that what fails is seen to fail."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(
                retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, max_pool_connections=32
            ),
        )

    def wait_until_healthy(self, *, or_not: bool = False) -> None:
        """Wait for the health check to succeed (``or_not``: to answer at all)."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/{self._health_path}", timeout=10):
                    return
            except (OSError, KeyError, IndexError, http.client.HTTPException) as error:
                if or_not and isinstance(error, urllib.error.HTTPError):
                    return
                if time.monotonic() > deadline or self.container.status == "exited":
                    raise TimeoutError(f"no healthy S3: {error}\n{self.logs()}") from error
                time.sleep(0.1)

    def kill(self) -> None:
        """kill -9, at once."""
        self._container.get_wrapped_container().kill("SIGKILL")
        self._container.get_wrapped_container().wait()

    def start(self) -> None:
        """Start again on the same volume."""
        self.container.start()
        self.wait_until_healthy()

    def kill_and_start(self) -> Any:
        """kill -9, start again, and return a client."""
        self.kill()
        self.start()
        return self.client()

    def kill_and_start_unhealthy(self) -> Any:
        """kill -9, start again although it cannot get healthy, and return a client."""
        self.kill()
        self.container.start()
        self.wait_until_healthy(or_not=True)
        return self.client()

    def restart(self) -> Any:
        """Stop in order, start again, and return a client."""
        self.container.stop(timeout=30)
        self.start()
        return self.client()

    def replace(self) -> Any:
        """Remove the container and run a new one on the same volume, as compose down and up do."""
        self._container.stop()
        self._container.start()
        self.wait_until_healthy()
        return self.client()

    def ensure_running(self) -> None:
        """Start the container if a test that failed left it stopped."""
        if self.container.status != "running":
            self.start()

    def run(self, *command: str) -> tuple[int, str]:
        """Run a command in the container; return its exit code and output."""
        code, output = self.container.exec_run(list(command))
        return code, output.decode()

    def logs(self) -> str:
        """What the container wrote."""
        return str(self._container.get_wrapped_container().logs().decode(errors="replace"))

    def unused_bucket_name(self) -> str:
        """A bucket name that no test used."""
        return f"bucket-{next(self._names)}-{uuid.uuid4().hex[:6]}"
