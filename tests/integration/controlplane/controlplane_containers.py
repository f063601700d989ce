"""Containers of the control plane's images, hardened as in the compose file and removed afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["AIRFLOW", "GATEWAY", "HERE", "POSTGRES", "Container", "Finished", "Lab", "docker"]

AIRFLOW = os.environ.get("AIRBRIDGE_AIRFLOW_IMAGE", "airbridge/airflow:0.1.0")
GATEWAY = os.environ.get("AIRBRIDGE_GATEWAY_IMAGE", "airbridge/gateway:0.1.0")
POSTGRES = os.environ.get("AIRBRIDGE_POSTGRES_IMAGE", "airbridge/postgres:0.1.0")

HERE = Path(__file__).parent
# Far beyond what anything takes on an idle machine: a busy one must not fail a test.
PATIENCE_S = 300

#: As x-hardened of compose.yaml: every image must be able to live like this.
_HARDENED = (
    *("--user", "50000:50000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
    *("--read-only", "--tmpfs", "/tmp:mode=1777,size=256m", "--memory", "2g", "--pids-limit", "512"),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything that it printed."""
        return self.out + self.err


def docker(*arguments: str, check: bool = True) -> Finished:
    """Run the docker CLI."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return Finished(done.returncode, done.stdout, done.stderr)


def _options(
    network: str, environment: Mapping[str, str], mounts: Mapping[str | Path, str], ports: Sequence[int]
) -> list[str]:
    options = ["--network", network]
    for name, value in environment.items():
        options += ["--env", f"{name}={value}"]
    for source, target in mounts.items():
        options += ["--volume", f"{source}:{target}"]
    for port in ports:
        options += ["--publish", f"127.0.0.1::{port}"]
    return options


@dataclass(frozen=True, slots=True)
class Container:
    """A container that was started."""

    name: str

    def port(self, inner: int) -> int:
        """Port on loopback; another one after each start."""
        return int(docker("port", self.name, f"{inner}/tcp").out.splitlines()[0].rpartition(":")[2])

    def execute(self, *command: str, check: bool = False, **environment: str) -> Finished:
        """Run a command inside."""
        settings = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        return docker("exec", *settings, self.name, *command, check=check)

    def logs(self) -> str:
        """What it printed so far."""
        return docker("logs", self.name).text

    def wait(self) -> Finished:
        """Wait for its end."""
        code = int(docker("wait", self.name).out)
        printed = docker("logs", self.name)
        return Finished(code, printed.out, printed.err)

    def kill(self) -> None:
        """As a power cut."""
        docker("kill", "--signal", "KILL", self.name)
        docker("wait", self.name)

    def start(self) -> None:
        """Start it again."""
        docker("start", self.name)

    def is_running(self) -> bool:
        """Whether it runs."""
        return docker("inspect", "--format", "{{.State.Running}}", self.name).out.strip() == "true"

    def until(self, what: str, ready: Callable[[], bool], *, pause_s: float = 0.2) -> None:
        """Wait until ``ready()``; fails with the log when it does not come or the container ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < deadline, f"{self.name}: {what} did not come\n{self.logs()}"
            assert self.is_running(), f"{self.name} ended before {what}\n{self.logs()}"
            time.sleep(pause_s)

    def read(self, path: str) -> bytes:
        """Content of a file, with ``docker cp``."""
        with contextlib.ExitStack() as stack:
            process = subprocess.Popen(
                ["docker", "cp", f"{self.name}:{path}", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            stack.callback(process.wait)
            tar, error = process.communicate()
            assert process.returncode == 0, error
        return _only_file(tar)


def _only_file(tar: bytes) -> bytes:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        assert member is not None
        return member.read()


@dataclass(slots=True)
class Lab:
    """Everything that one test session makes in the engine."""

    prefix: str = field(default_factory=lambda: f"airbridge-test-cp-{uuid.uuid4().hex[:8]}")
    _containers: list[str] = field(default_factory=list)
    _volumes: list[str] = field(default_factory=list)
    _networks: list[str] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[Lab]:
        """Make sure that the images are there; remove everything at the end."""
        for image in (AIRFLOW, GATEWAY, POSTGRES):
            if docker("image", "inspect", image, check=False).code != 0:
                pytest.fail(f"image {image} is missing: run make build")
        lab = cls()
        try:
            yield lab
        finally:
            for kind, names in (("container", lab._containers), ("network", lab._networks)):
                if names:
                    force = ["--force", "--volumes"] if kind == "container" else []
                    docker(kind, "rm", *force, *names, check=False)
            if lab._volumes:
                docker("volume", "rm", "--force", *lab._volumes, check=False)

    def name(self, what: str) -> str:
        """A name of this session's own."""
        return f"{self.prefix}-{what}"

    def network(self, what: str) -> str:
        """Make a network."""
        name = self.name(what)
        self._networks.append(name)
        docker("network", "create", name)
        return name

    def volume(self, what: str) -> str:
        """Make a volume."""
        name = self.name(what)
        self._volumes.append(name)
        docker("volume", "create", name)
        return name

    def start(
        self,
        what: str,
        image: str,
        *command: str,
        network: str = "none",
        aliases: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[str | Path, str] | None = None,
        ports: Sequence[int] = (),
        hostname: str = "",
        entrypoint: str = "",
    ) -> Container:
        """Start a container in the background."""
        container = Container(self.name(what))
        self._containers.append(container.name)
        options = _options(network, environment or {}, mounts or {}, ports)
        options += [part for alias in aliases for part in ("--network-alias", alias)]
        options += ["--hostname", hostname] if hostname else []
        options += ["--entrypoint", entrypoint] if entrypoint else []
        docker("run", "--detach", "--name", container.name, *_HARDENED, *options, image, *command)
        return container

    def run(
        self,
        image: str,
        *command: str,
        network: str = "none",
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[str | Path, str] | None = None,
        hostname: str = "",
        entrypoint: str = "",
    ) -> Finished:
        """Run a container to its end."""
        options = _options(network, environment or {}, mounts or {}, ())
        options += ["--hostname", hostname] if hostname else []
        options += ["--entrypoint", entrypoint] if entrypoint else []
        return docker("run", "--rm", *_HARDENED, *options, image, *command, check=False)
