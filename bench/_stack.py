"""The stack that is measured: a control plane and edge hosts of a project and ports of their own."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
import httpx
from botocore.config import Config

from airbridge.errors import AirbridgeError, RefusedError, UnreachableError
from bench._cleanup import removing
from bench._progress import say
from bench._shell import ROOT, Shell, neutral_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "BENCH_DAGS",
    "EDGE",
    "PATIENCE_S",
    "PROJECT",
    "Stack",
    "control_plane",
    "only_one_run",
    "stack",
    "until",
]

PROJECT: Final = os.environ.get("AIRBRIDGE_BENCH_PROJECT") or "airbridge-bench"
"""Compose project; what carries it is removed before a run and after it."""

EDGE: Final = "shipped"
"""Name of the edge host that every stack has."""

BENCH_DAGS: Final = ROOT / "bench" / "dags"
"""Templates of the benchmarks' DAGs."""

PATIENCE_S: Final = 900.0
"""After this long something is broken. Reaching it is an error, never a sample."""

_COMPOSE: Final = "compose.yaml"
_DAG_BUCKET: Final = "airbridge-dags"
_ENVIRONMENT: Final = "dev"
_USER: Final = "admin"
_PUBLISHER: Final = "bench"

_Result = TypeVar("_Result")


def until(what: str, probe: Callable[[], _Result | None], every: float) -> _Result:
    """Return the first result of ``probe`` that is not None, asking every so many seconds.

    :raises UnreachableError: nothing came within :data:`PATIENCE_S`
    """
    deadline = time.monotonic() + PATIENCE_S
    while (result := probe()) is None:
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"{what}: not within {PATIENCE_S:.0f} s", fix="make bench ARGS=--keep, then look at its logs"
            )
        time.sleep(every)
    return result


@contextmanager
def only_one_run() -> Iterator[None]:
    """Keep other runs of the benchmarks out: they would measure each other.

    :raises AirbridgeError: one is running
    """
    path = ROOT / ".airbridge" / "bench.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AirbridgeError("another benchmark is running", fix="wait for its end") from None
        yield


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


@dataclass(frozen=True, slots=True)
class Stack:
    """A running control plane; ``api`` is logged in as its administrator."""

    shell: Shell
    api: httpx.Client
    s3: Any
    files: tuple[str, ...] = (_COMPOSE,)

    # --- containers -------------------------------------------------------------------------------

    def compose(self, *arguments: str, **options: Any) -> str:
        """Run ``docker compose`` for the control plane."""
        return self.shell.run(*_compose(self.files), *arguments, **options)

    def add_edge(
        self, name: str, queue: str, overrides: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        """Add an edge host exactly as ``make edge`` does.

        :param overrides: compose files that are merged over the shipped one
        :param settings: more of the environment
        """
        environment = {**self.shell.environment, **(settings or {}), "EDGE_OVERRIDES": " ".join(overrides)}
        replace(self.shell, environment=environment).run("scripts/edge-up.sh", name, queue)

    def containers(self, edge: str | None = None) -> dict[str, str]:
        """Return service -> container id of what runs on the control plane, or on an edge host."""
        project = PROJECT if edge is None else f"{PROJECT}-edge-{edge}"
        form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        listed = self.shell.run(
            "docker",
            "ps",
            "--no-trunc",
            "--filter",
            f"label=com.docker.compose.project={project}",
            "--format",
            form,
        )
        return dict(sorted(line.split() for line in listed.splitlines()))

    # --- data -------------------------------------------------------------------------------------

    def query(self, sql: str, **variables: str) -> list[dict[str, str]]:
        """Return the rows of a query on Airflow's database; ``:'name'`` in it is a quoted variable."""
        settings = [part for name, value in variables.items() for part in ("--set", f"{name}={value}")]
        # \q, because Docker now and then loses the end of the input.
        answer = self.compose(
            "exec", "-T", "postgres", "psql", "--quiet", "--csv", "--set", "ON_ERROR_STOP=1",
            "--username", "airflow", "--dbname", "airflow", *settings, stdin=f"{sql};\n\\q\n",
        )  # fmt: skip
        return list(csv.DictReader(io.StringIO(answer)))

    def put_dag(self, package: str, file: str, text: str) -> None:
        """Copy one DAG file to S3."""
        self.s3.put_object(
            Bucket=_DAG_BUCKET, Key=f"{_ENVIRONMENT}/{package}/dags/{file}", Body=text.encode()
        )

    @property
    def bucket(self) -> dict[str, Any]:
        """Where releases are published to, as the publisher's settings name it."""
        return {
            "dag_bucket": _DAG_BUCKET,
            "environment": _ENVIRONMENT,
            "s3_endpoint_url": self.s3.meta.endpoint_url,
        }

    def edge_file(self, name: str, path: str) -> str:
        """Return the text of a file in the current tree of an edge host; "" when it is not there."""
        container = self.containers(name)["edge-worker"]
        return self.shell.run("docker", "exec", container, "cat", f"/store/current/{path}", check=False)

    def publish(self, root: Path) -> None:
        """Copy every ``<package>/dags/*.py`` below ``root`` to S3."""
        for path in sorted(root.glob("*/dags/*.py")):
            self.put_dag(path.parts[-3], path.name, path.read_text())

    # --- REST API ---------------------------------------------------------------------------------

    def find(self, path: str) -> Any:
        """GET that may find nothing: None for 404."""
        answer = self.api.get(f"/api/v2{path}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return self._checked(answer)

    def trigger(self, dag_id: str) -> str:
        """Start a run now and return its id."""
        answer = self.api.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None})
        return str(self._checked(answer)["dag_run_id"])

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with everything that the database has of it."""
        answer = self.api.delete(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        if answer.is_error:
            raise AirbridgeError(f"run {run_id} of {dag_id} stays: HTTP {answer.status_code}")

    def wait_for_dag(self, dag_id: str) -> None:
        """Return once the API shows the DAG."""
        until(f"{dag_id} is visible", lambda: self.find(f"/dags/{dag_id}"), every=0.5)

    def wait_for_success(self, dag_id: str, run_id: str, every: float) -> None:
        """Return once the run has ended well.

        :raises AirbridgeError: it failed
        """

        def ended() -> str | None:
            state = str(self.find(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])
            return state if state in ("success", "failed") else None

        state = until(f"run {run_id} of {dag_id} ends", ended, every)
        if state != "success":
            raise AirbridgeError(f"run {run_id} of {dag_id} ended as {state}", fix="make bench ARGS=--keep")

    @staticmethod
    def _checked(answer: httpx.Response) -> Any:
        if answer.is_error:
            raise AirbridgeError(
                f"{answer.request.method} {answer.request.url.path}: "
                f"HTTP {answer.status_code} {answer.text[:300]}"
            )
        return answer.json()


def _shell() -> Shell:
    """Return a shell in which every step of the project means this stack and no other."""
    ui_port, gateway_port = _free_ports(2)
    # A folder of overrides without any: generated secrets. Always the same one: for another one, compose
    # would make the services of a stack that was kept anew.
    secrets = ROOT / ".airbridge" / "bench-secrets.d"
    secrets.mkdir(mode=0o755, parents=True, exist_ok=True)
    settings = {
        "COMPOSE_PROJECT_NAME": PROJECT,
        "AIRBRIDGE_UI_PORT": str(ui_port),
        "AIRBRIDGE_GATEWAY_PORT": str(gateway_port),
        "AIRBRIDGE_SECRETS_DIR": str(secrets),
        "AIRBRIDGE_WAIT": f"{PATIENCE_S:.0f}",
        # As shipped: the developer's .env is not read, neither by the steps nor by compose.
        "AIRBRIDGE_ENV_FILE": os.devnull,
        "COMPOSE_DISABLE_ENV_FILE": "1",
    }
    return Shell(environment={**neutral_environment(os.environ), **settings})


def _running_shell(shell: Shell) -> Shell | None:
    """Return the shell with the ports of a stack that was kept, or None when none runs."""

    def port(service: str, inner: int) -> str:
        answer = shell.run(
            "docker", "compose", "--file", "compose.yaml", "port", service, str(inner), check=False
        )
        return answer.strip().rpartition(":")[2]

    found = {
        "AIRBRIDGE_UI_PORT": port("api-server", 8080),
        "AIRBRIDGE_GATEWAY_PORT": port("gateway", 8443),
    }
    return Shell(environment={**shell.environment, **found}) if all(found.values()) else None


def _destroy(shell: Shell) -> None:
    shell.run("env", "FORCE=1", "scripts/down.sh", "--destroy")
    say("stack", f"nothing of project {PROJECT} is left")


def _compose(files: Sequence[str]) -> list[str]:
    return ["docker", "compose", *(part for file in files for part in ("--file", file))]


def _up(shell: Shell, files: Sequence[str]) -> None:
    shell.run(
        *_compose(files), "up", "--detach", "--no-build", "--wait", "--wait-timeout", f"{PATIENCE_S:.0f}"
    )


def _publisher_settings(shell: Shell) -> dict[str, str]:
    """Return what publisher.env sets."""
    script = '. scripts/lib.sh; . "$(publisher_dir "$1")/publisher.env"; env'
    lines = shell.run("bash", "-c", script, "bash", _PUBLISHER).splitlines()
    settings = dict(line.split("=", 1) for line in lines if line.startswith("AWS_"))
    return {**settings, "NO_PROXY": "localhost"}


def _log_in(shell: Shell, files: tuple[str, ...]) -> Stack:
    base = f"http://127.0.0.1:{shell.environment['AIRBRIDGE_UI_PORT']}"
    password = shell.run("scripts/password.sh").strip()
    # A proxy of the machine must not catch calls to its own loopback.
    api = httpx.Client(base_url=base, timeout=60, trust_env=False)
    answer = api.post("/auth/token", json={"username": _USER, "password": password})
    if answer.is_error:
        raise RefusedError(f"{base} refused user '{_USER}' (HTTP {answer.status_code})")
    api.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    # As a publisher that may write every package: LocalStack itself is reached from nowhere.
    shell.run("scripts/publisher.sh", "ensure", _PUBLISHER, "*")
    os.environ.update(_publisher_settings(shell))  # the publisher's own code looks there as well
    s3 = boto3.client(
        "s3",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )
    return Stack(shell, api, s3, files)


@contextmanager
def control_plane(*overrides: str, keep: bool = False) -> Iterator[Stack]:
    """Bring a control plane up, and take it away at the end with every edge host that it then has.

    :param overrides: compose files that are merged over the shipped one
    :param keep: leave it running at the end, and use one that was left running
    """
    files = (_COMPOSE, *overrides)
    shell = _shell()
    kept = _running_shell(shell) if keep else None
    with removing(lambda: None if keep else _destroy(shell)):
        if kept is None:
            say("stack", f"starting the control plane as project {PROJECT}")
            _destroy(shell)
            _up(shell, files)
        else:
            shell = kept
            say("stack", "the one that was kept")
            if overrides:
                _up(shell, files)
        yield _log_in(shell, files)


@contextmanager
def stack(*, keep: bool = False) -> Iterator[Stack]:
    """Bring the stack up as shipped, with the examples published and one edge host."""
    with control_plane(keep=keep) as running:
        # What `make up` leaves behind is what an installation begins with.
        running.publish(ROOT / "dags")
        running.add_edge(EDGE, "bench-edge")
        running.wait_for_dag("edge_sample_dag")
        say("stack", "control plane and edge host are healthy")
        yield running
