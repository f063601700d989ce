"""Whole stacks for the end-to-end tests: control plane and edge hosts, with projects and ports of their own.

:class:`Stack` is a running control plane; :meth:`Stack.edge` adds an edge host. What they start carries the
prefix :data:`PROJECT` in its compose project, so that :func:`remove_everything` finds it even after a run
that was killed. To run a second set of tests on the same engine at the same time, set
``AIRBRIDGE_E2E_PROJECT`` to a name that does not begin with the other one's.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import boto3
import httpx
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "CONTROL_PLANE_FILE",
    "DAG_BUCKET",
    "EDGE_FILE",
    "ENVIRONMENT",
    "EXAMPLES",
    "LOG_BUCKET",
    "PATIENCE_S",
    "PROJECT",
    "RAW_S3_FILE",
    "ROOT",
    "TEST_DAGS",
    "Api",
    "Compose",
    "Done",
    "EdgeHost",
    "FinishedRun",
    "Run",
    "Stack",
    "Task",
    "check_engine",
    "docker",
    "free_ports",
    "leftovers",
    "remove_everything",
    "running_projects",
    "until",
]

ROOT = Path(__file__).parents[2]
CONTROL_PLANE_FILE = ROOT / "compose.yaml"
RAW_S3_FILE = Path(__file__).parent / "raw-s3.yaml"
EDGE_FILE = ROOT / "compose.edge.yaml"
EXAMPLES = ROOT / "dags"
TEST_DAGS = Path(__file__).parent / "dags"

PROJECT = os.environ.get("AIRBRIDGE_E2E_PROJECT", "airbridge-e2e")
DAG_BUCKET = "airbridge-dags"
LOG_BUCKET = "airbridge-logs"
ENVIRONMENT = "dev"

#: Seconds that anything may take which takes seconds on a quiet machine. A limit, not a wait; a very
#: busy machine may need a longer one.
PATIENCE_S = float(os.environ.get("AIRBRIDGE_E2E_PATIENCE", "300"))
_POLL_S = 0.3
_LOG_LINES = 80
_LONG_LINE = 500
# Settings of the developer's own stack must not reach the one under test.
_OURS = re.compile(
    r"(AIRBRIDGE|AIRFLOW|AWS|BUILD|COMPOSE|CONTROL_PLANE|DAG|EDGE|FRESH_POC|GATEWAY|LOG|S3|WORKER)_|ENVIRONMENT$"
)
_KEPT = frozenset({"AIRBRIDGE_VERSION"})

_Result = TypeVar("_Result")

#: Compose projects that a failing test shows the logs of, by name.
_running: dict[str, Compose] = {}


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, for messages."""
        return f"{self.stdout}{self.stderr}"


def _run(
    command: list[str],
    *,
    check: bool,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> Done:
    done = subprocess.run(
        command,
        env=environment,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        cwd=ROOT,
    )
    result = Done(done.returncode, done.stdout, done.stderr)
    assert not check or result.code == 0, (
        f"{' '.join(command)} ended with {result.code}:\n{result.output[-8000:]}"
    )
    return result


def docker(
    *arguments: str, check: bool = True, timeout: float = PATIENCE_S, stdin: str | None = None
) -> Done:
    """Run the docker CLI; AssertionError with its output when it fails, unless ``check`` is off."""
    return _run(["docker", *arguments], check=check, timeout=timeout, stdin=stdin)


def until(
    what: str,
    probe: Callable[[], _Result],
    timeout: float = PATIENCE_S,
    every: float = _POLL_S,
) -> _Result:
    """Return the first true result of ``probe``; AssertionError with the last one after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not (result := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:.0f} s, last answer {result!r}")
        time.sleep(every)
    return result


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, on any address."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("0.0.0.0", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def check_engine() -> None:
    """AssertionError of one line when no engine answers."""
    try:
        done = docker("version", "--format", "{{.Server.Version}}", check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise AssertionError(f"no Docker engine answers ({error}) | fix: run make engine") from None
    assert done.code == 0, f"no Docker engine answers ({done.stderr.strip()}) | fix: run make engine"


@dataclass(frozen=True, slots=True)
class Compose:
    """One compose project: its name, its file, and the settings that are its whole environment."""

    project: str
    file: Path
    settings: Mapping[str, str]
    overlay: Path | None = None

    def __call__(
        self, *arguments: str, check: bool = True, timeout: float = PATIENCE_S * 2, stdin: str | None = None
    ) -> Done:
        """Run ``docker compose`` for this project."""
        environment = {
            name: value for name, value in os.environ.items() if name in _KEPT or not _OURS.match(name)
        }
        command = ["docker", "compose", "--project-name", self.project, "--file", str(self.file)]
        command += ["--file", str(self.overlay)] if self.overlay else []
        # An empty file in the place of the developer's .env.
        command += ["--env-file", os.devnull, *arguments]
        return _run(
            command, check=check, timeout=timeout, environment={**environment, **self.settings}, stdin=stdin
        )

    def with_settings(self, **settings: str) -> Compose:
        """The same project with other settings; ``up`` then makes anew what they change."""
        return Compose(self.project, self.file, {**self.settings, **settings})

    def up(self, *services: str, wait: bool = True, check: bool = True) -> Done:
        """Start services (default: all of them); ``wait`` until they are healthy."""
        _running[self.project] = self
        self._check_images()
        waiting = ["--wait", "--wait-timeout", f"{PATIENCE_S:.0f}"] if wait else []
        return self("up", "--detach", "--no-build", *waiting, *services, check=check)

    def _check_images(self) -> None:
        wanted = sorted(set(self("config", "--images").stdout.split()))
        missing = [image for image in wanted if docker("image", "inspect", image, check=False).code]
        assert not missing, f"no image {', '.join(missing)} | fix: run make build"

    def exec(
        self,
        service: str,
        *command: str,
        check: bool = True,
        timeout: float = PATIENCE_S,
        stdin: str | None = None,
    ) -> Done:
        """Run a command in a running service; ``stdin`` is one line, of which the command must read no more.

        Now and then the end of the input is lost between the Docker client and containerd when the machine is
        busy (seen once in 160 with engine 26.1): a command that reads to the end would wait for ever.
        """
        line = None if stdin is None else f"{stdin.strip()}\n"
        return self("exec", "--no-TTY", service, *command, check=check, timeout=timeout, stdin=line)

    def services(self) -> list[str]:
        """Names of the services that run now."""
        return self("ps", "--services", "--status", "running").stdout.split()

    def container(self, service: str) -> str:
        """Id of a service's container, running or not."""
        return self("ps", "--all", "--quiet", service).stdout.strip()

    def containers(self) -> list[dict[str, Any]]:
        """What ``docker inspect`` says about each running container."""
        ids = docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}").stdout
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *ids.split()).stdout) if ids else []
        return inspected

    def health(self, service: str) -> str:
        """``healthy``, ``starting``, ``unhealthy``, or a state such as ``exited``."""
        form = "{{if .State.Running}}{{if .State.Health}}{{.State.Health.Status}}{{else}}running{{end}}"
        form += "{{else}}{{.State.Status}}{{end}}"
        return docker("inspect", "--format", form, self.container(service)).stdout.strip()

    def wait_until_healthy(self, *services: str, timeout: float = PATIENCE_S) -> None:
        """Return when all of these services are healthy."""
        for service in services:
            until(
                f"{service} of {self.project} is healthy",
                lambda service=service: self.health(service) == "healthy",  # type: ignore[misc]
                timeout,
            )

    def logs(self, *services: str, since: str = "", tail: int | None = None) -> str:
        """What the services wrote, stdout and stderr."""
        options = ["--no-color"]
        options += ["--since", since] if since else []
        options += ["--tail", str(tail)] if tail else []
        return self("logs", *options, *services, check=False).output

    def remove(self) -> None:
        """Remove the containers at once, without a drain, then volumes and networks."""
        _running.pop(self.project, None)
        _remove_projects([self.project])


@dataclass(frozen=True, slots=True)
class Api:
    """The REST API as one user sees it. Paths begin with ``/api/v2`` unless they begin with ``/auth``."""

    base: str
    http: httpx.Client

    @classmethod
    def log_in(cls, base: str, user: str, password: str) -> Api:
        """Ask for a token and use it; AssertionError when the login is refused."""
        # trust_env off: a proxy of the machine must not catch calls to its own loopback.
        http = httpx.Client(
            base_url=base, timeout=60, trust_env=False, transport=httpx.HTTPTransport(retries=3)
        )
        answer = http.post("/auth/token", json={"username": user, "password": password})
        assert answer.status_code in (200, 201), (
            f"login of {user}: HTTP {answer.status_code} {answer.text[:500]}"
        )
        http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return cls(base, http)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any call, whatever the answer is."""
        return self.http.request(method, path if path.startswith("/auth") else f"/api/v2{path}", **options)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """A call that must succeed; returns the JSON of the answer (None when it is empty)."""
        answer = self.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: HTTP {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        """GET that must succeed."""
        return self.call("GET", path, params=params)

    def post(self, path: str, body: Any) -> Any:
        """POST that must succeed."""
        return self.call("POST", path, json=body)

    def patch(self, path: str, body: Any, **params: Any) -> Any:
        """PATCH that must succeed."""
        return self.call("PATCH", path, json=body, params=params)

    def find(self, path: str) -> Any:
        """GET that may find nothing: None for 404."""
        answer = self.request("GET", path)
        assert answer.is_success or answer.status_code == 404, (
            f"GET {path}: HTTP {answer.status_code} {answer.text[:2000]}"
        )
        return answer.json() if answer.is_success else None


@dataclass(frozen=True, slots=True)
class Run:
    """A DAG run that was asked for."""

    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """Where the REST API has it."""
        return f"/dags/{self.dag_id}/dagRuns/{quote(self.run_id, safe='')}"


@dataclass(frozen=True, slots=True)
class Task:
    """A task instance as the REST API shows it."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    hostname: str
    start: str | None
    end: str | None
    queue: str | None
    executor: str | None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A DAG run that ended, with its task instances."""

    run: Run
    state: str
    tasks: tuple[Task, ...]

    def of(self, task_id: str) -> list[Task]:
        """Instances of a task, in the order of their map index."""
        return sorted(
            (task for task in self.tasks if task.task_id == task_id), key=lambda task: task.map_index
        )

    def one(self, task_id: str) -> Task:
        """The only instance of a task."""
        (task,) = self.of(task_id)
        return task


@dataclass(frozen=True, slots=True)
class EdgeHost:
    """An edge host: a compose project, and so a network, of its own."""

    name: str
    compose: Compose
    folder: Path

    def exec(self, service: str, *command: str, **options: Any) -> Done:
        """Run a command in one of its services."""
        return self.compose.exec(service, *command, **options)

    def stored(self) -> list[str]:
        """Names of its volumes."""
        return _owned("volume", self.compose.project.__eq__)

    def remove(self) -> None:
        """Take it away with everything that it stored."""
        self.compose.remove()


@dataclass(frozen=True, slots=True)
class Stack:
    """A running control plane."""

    compose: Compose
    folder: Path
    ui_port: int
    gateway_port: int
    s3_port: int
    api: Api
    s3: Any
    password: str = field(repr=False)
    gateway_ca: str = field(repr=False)
    edges: dict[str, EdgeHost] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path, project: str = PROJECT, *, raw_s3: bool = True, **settings: str) -> Stack:
        """Bring a control plane up and log in as its administrator.

        :param folder: an empty folder of this stack's own
        :param project: compose project; must begin with :data:`PROJECT`, so that it is cleaned up
        :param raw_s3: publish LocalStack's port for the tests, which no stack of a user does
        :param settings: anything that .env could hold
        """
        assert project == PROJECT or project.startswith(f"{PROJECT}-"), f"{project} would never be cleaned up"
        ui_port, gateway_port, s3_port = free_ports(3)
        overrides = folder / "secrets.d"
        overrides.mkdir(parents=True)
        overrides.chmod(0o755)
        compose = Compose(
            project,
            CONTROL_PLANE_FILE,
            {
                "AIRBRIDGE_UI_PORT": str(ui_port),
                "AIRBRIDGE_GATEWAY_PORT": str(gateway_port),
                "AIRBRIDGE_S3_PORT": str(s3_port),
                "AIRBRIDGE_SECRETS_DIR": str(overrides),
                "DAG_BUCKET": DAG_BUCKET,
                "LOG_BUCKET": LOG_BUCKET,
                "ENVIRONMENT": ENVIRONMENT,
                # Retries of the demonstration within seconds.
                "FRESH_POC_RETRY_DELAY_SECONDS": "0.5",
                **settings,
            },
            RAW_S3_FILE if raw_s3 else None,
        )
        try:
            compose.up()
            secret = ("exec", "--no-TTY", "api-server", "cat")
            password = compose(*secret, "/secrets/signing/admin-password").stdout.strip()
            ca = compose.exec("gateway", "cat", "/data/caddy/pki/authorities/local/root.crt").stdout
            api = Api.log_in(f"http://127.0.0.1:{ui_port}", "admin", password)
        except Exception as error:
            error.add_note(compose.logs(tail=_LOG_LINES))
            raise
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{s3_port}",
            region_name="us-east-1",
            aws_access_key_id="airbridge",
            aws_secret_access_key="airbridge",
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 5}),
        )
        return cls(compose, folder, ui_port, gateway_port, s3_port, api, s3, password, ca)

    # --- edge hosts -------------------------------------------------------------------------------

    def edge_project(self, name: str) -> str:
        """Compose project of the edge host ``name``."""
        return f"{self.compose.project}-edge-{name}"

    def edge(
        self,
        name: str,
        queues: str,
        *,
        wait: bool = True,
        profiles: str = "",
        connections: str = "*",
        variables: str = "*",
        given: str = "",
        **settings: str,
    ) -> EdgeHost:
        """Add an edge host, as ``make edge`` does: address, credential and CA in files of its own.

        :param queues: of its own, unless it is to take the examples' tasks as well ("default" belongs to
            the edge host "a", which has the demo services beside it)
        :param wait: until the control plane has heard of the worker
        :param profiles: compose profiles, such as ``demo``
        :param connections: Airflow connections that its tasks may read
        :param variables: Airflow variables that its tasks may use
        :param given: its credential or join token; default: it is enrolled, or keeps what it has
        :param settings: any other setting of an edge host; wins over the ones made here
        """
        folder = self.folder / f"edge-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        token, ca = folder / "token", folder / "ca.crt"
        held = given or self.ensure(
            name,
            queues,
            token.read_text() if token.exists() else "",
            concurrency=settings.get("WORKER_CONCURRENCY", ""),
            connections=connections,
            variables=variables,
        )
        token.unlink(missing_ok=True)
        token.write_text(f"{held}\n")
        ca.write_text(self.gateway_ca)
        ca.chmod(0o644)
        # As scripts/edge-up.sh: root gives the file away, anyone else relies on the closed folder around it.
        if os.geteuid() == 0:
            token.chmod(0o400)
            os.chown(token, 50000, 50000)
        else:
            token.chmod(0o644)
        compose = Compose(
            self.edge_project(name),
            EDGE_FILE,
            {
                "CONTROL_PLANE_URL": f"https://host.docker.internal:{self.gateway_port}",
                "CONTROL_PLANE_TOKEN_FILE": str(token),
                "CONTROL_PLANE_CA_FILE": str(ca),
                "WORKER_NAME": name,
                "WORKER_QUEUES": queues,
                "COMPOSE_PROFILES": profiles,
                "DAG_BUCKET": DAG_BUCKET,
                "LOG_BUCKET": LOG_BUCKET,
                "ENVIRONMENT": ENVIRONMENT,
                **settings,
            },
        )
        host = EdgeHost(name, compose, folder)
        self.edges[name] = host
        try:
            compose.up(wait=wait)
        except Exception as error:
            error.add_note(compose.logs(tail=_LOG_LINES))
            raise
        return host

    def identity(self, *arguments: str, stdin: str = "", check: bool = True) -> Done:
        """Run ``airbridge edge …`` on the control plane."""
        return self.exec(
            "api-server", "airbridge-env", "airbridge", "edge", *arguments, stdin=stdin, check=check
        )

    def ensure(
        self,
        name: str,
        queues: str,
        held: str = "",
        *,
        concurrency: str = "",
        connections: str = "",
        variables: str = "",
    ) -> str:
        """Return a credential for the worker: the one that it holds, if it is good, else a new one."""
        options = ["--queues", queues, "--connections", connections, "--variables", variables]
        options += ["--concurrency", concurrency] if concurrency else []
        return self.identity("ensure", name, *options, stdin=held).stdout.strip()

    # --- DAGs -------------------------------------------------------------------------------------

    def publish(self, package: Path, name: str = "") -> list[str]:
        """Copy ``<package>/dags/*.py`` to S3 (as ``name``), file by file, and return the keys."""
        keys = []
        for file in sorted(package.glob("dags/*.py")):
            keys.append(self.put_dag(name or package.name, file.name, file.read_text()))
        assert keys, f"{package} holds no dags/*.py"
        return keys

    def put_dag(self, package: str, file: str, text: str) -> str:
        """Write one DAG file to S3 and return its key."""
        key = f"{ENVIRONMENT}/{package}/dags/{file}"
        self.s3.put_object(Bucket=DAG_BUCKET, Key=key, Body=text.encode(), ContentType="text/x-python")
        return key

    def unpublish(self, keys: Iterable[str]) -> None:
        """Delete DAG files from S3."""
        for key in keys:
            self.s3.delete_object(Bucket=DAG_BUCKET, Key=key)

    def wait_for_dag(self, dag_id: str, timeout: float = PATIENCE_S) -> dict[str, Any]:
        """Return the DAG once the API shows it."""
        found: dict[str, Any] = until(
            f"{dag_id} is visible in the API", lambda: self.api.find(f"/dags/{dag_id}"), timeout
        )
        return found

    def unpause(self, dag_id: str) -> None:
        """Wait for the DAG and let its runs go on; new DAGs are paused."""
        self.wait_for_dag(dag_id)
        self.api.patch(f"/dags/{dag_id}", {"is_paused": False}, update_mask="is_paused")

    # --- runs -------------------------------------------------------------------------------------

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Wait for the DAG, unpause it, and start a run."""
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": dict(conf or {})}
        return Run(dag_id, self.api.post(f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_state(self, run: Run) -> str:
        """State of the run now."""
        return str(self.api.get(run.path)["state"])

    def tasks(self, run: Run) -> tuple[Task, ...]:
        """Task instances of the run now."""
        rows = self.api.get(f"{run.path}/taskInstances", limit=100)["task_instances"]
        return tuple(
            Task(
                row["task_id"],
                row["map_index"],
                row["state"],
                row["try_number"],
                row["hostname"],
                row["start_date"],
                row["end_date"],
                row["queue"],
                row["executor"],
            )
            for row in rows
        )

    def wait_for_run(
        self, run: Run, state: str | None = "success", timeout: float = PATIENCE_S
    ) -> FinishedRun:
        """Wait for the run's end and return it.

        AssertionError with task states and logs when it does not end, or not in ``state`` (None: any).
        """
        deadline = time.monotonic() + timeout
        while (ended := self.run_state(run)) not in ("success", "failed"):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.describe(run)}\ndid not end within {timeout:.0f} s")
            time.sleep(_POLL_S)
        if state is not None and ended != state:
            raise AssertionError(f"{self.describe(run)}\nended as {ended}, not as {state}")
        return FinishedRun(run, ended, self.tasks(run))

    def wait_for_task(
        self, run: Run, task_id: str, states: Iterable[str], timeout: float = PATIENCE_S
    ) -> Task:
        """Return the task once it is in one of ``states``."""
        wanted = frozenset(states)
        try:
            return until(
                f"{task_id} of {run.run_id} is {'/'.join(sorted(wanted))}",
                lambda: next(
                    (task for task in self.tasks(run) if task.task_id == task_id and task.state in wanted),
                    None,
                ),
                timeout,
            )  # type: ignore[return-value]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(run)}") from None

    def describe(self, run: Run) -> str:
        """State, task states and the ends of the logs of a run, and what was said of it elsewhere.

        A run may have failed long before a test looks at it, so that logs since the test began miss it.
        """
        lines = [f"run {run.run_id} of {run.dag_id}: {self.run_state(run)}"]
        for task in self.tasks(run):
            lines.append(f"--- {task.task_id}[{task.map_index}] {task.state} on {task.hostname}")
            if task.state != "success" and task.try_number:
                answer = self.request_log(run, task.task_id, task.try_number, task.map_index)
                lines.append(answer.text[-3000:])
        said = [self.compose.logs("scheduler"), *(edge.compose.logs() for edge in self.edges.values())]
        about = [line[:_LONG_LINE] for text in said for line in text.splitlines() if run.run_id in line]
        return "\n".join([*lines, f"--- lines that name {run.run_id}", *about[-_LOG_LINES:]])

    # --- logs -------------------------------------------------------------------------------------

    def log_key(self, run: Run, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Where an attempt's log lies in the log bucket."""
        mapped = f"map_index={map_index}/" if map_index >= 0 else ""
        prefix = f"{ENVIRONMENT}/task-logs/dag_id={run.dag_id}/run_id={run.run_id}/task_id={task_id}/"
        return f"{prefix}{mapped}attempt={try_number}.log"

    def log_from_s3(
        self, run: Run, task_id: str, try_number: int = 1, map_index: int = -1, timeout: float = 60
    ) -> str:
        """An attempt's log from S3. It arrives when the attempt ends, a moment after its state."""
        key = self.log_key(run, task_id, try_number, map_index)

        def read() -> str:
            try:
                body = self.s3.get_object(Bucket=LOG_BUCKET, Key=key)["Body"].read()
            except self.s3.exceptions.NoSuchKey:
                return ""
            return str(body.decode())

        return until(f"s3://{LOG_BUCKET}/{key}", read, timeout)

    def request_log(self, run: Run, task_id: str, try_number: int = 1, map_index: int = -1) -> httpx.Response:
        """What the REST API answers when it is asked for an attempt's log."""
        return self.api.request(
            "GET",
            f"{run.path}/taskInstances/{task_id}/logs/{try_number}",
            params={"map_index": map_index, "full_content": "true"},
            headers={"Accept": "application/json"},
        )

    def log_from_api(self, run: Run, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """An attempt's log as the web UI shows it: one line an event."""
        answer = self.request_log(run, task_id, try_number, map_index)
        assert answer.is_success, f"log of {task_id}: HTTP {answer.status_code} {answer.text[:2000]}"
        return "\n".join(
            line if isinstance(line, str) else str(line.get("event", "")) for line in answer.json()["content"]
        )

    # --- the rest ---------------------------------------------------------------------------------

    def exec(self, service: str, *command: str, **options: Any) -> Done:
        """Run a command in a service of the control plane."""
        return self.compose.exec(service, *command, **options)

    def remove(self) -> None:
        """Take the control plane and its edge hosts away, with all data."""
        for host in self.edges.values():
            host.remove()
        self.edges.clear()
        self.compose.remove()


# --- cleaning up ------------------------------------------------------------------------------------


def running_projects() -> Iterator[Compose]:
    """The compose projects that were started and not removed."""
    yield from list(_running.values())


def _is_ours(project: str) -> bool:
    return project == PROJECT or project.startswith(f"{PROJECT}-")


_LABEL = "com.docker.compose.project"
_LISTS = {
    "container": ("ps", "--all", "--format"),
    "network": ("network", "ls", "--format"),
    "volume": ("volume", "ls", "--format"),
}


def leftovers() -> dict[str, list[str]]:
    """Containers, networks and volumes of this run's projects that are still there, as ``kind -> names``."""
    return {kind: names for kind in _LISTS if (names := _owned(kind, _is_ours))}


def _owned(kind: str, wanted: Callable[[str], bool]) -> list[str]:
    name = "{{.Names}}" if kind == "container" else "{{.Name}}"
    listed = docker(*_LISTS[kind], f'{{{{.Label "{_LABEL}"}}}} {name}', "--filter", f"label={_LABEL}").stdout
    rows = (line.split(" ", 1) for line in listed.splitlines())
    return [found for project, found in rows if wanted(project)]


def _remove_projects(projects: Iterable[str]) -> None:
    wanted = frozenset(projects).__contains__
    _remove(wanted)


def _remove(wanted: Callable[[str], bool]) -> None:
    # Force, not "compose down": a drain would wait for tasks that nobody needs any more.
    for kind, command in {
        "container": ("rm", "--force", "--volumes"),
        "network": ("network", "rm"),
        "volume": ("volume", "rm", "--force"),
    }.items():
        # An interrupted "up" may still be making containers: look again until nothing is left.
        for _ in range(5):
            names = _owned(kind, wanted)
            if not names:
                break
            docker(*command, *names, check=False)


def remove_everything() -> None:
    """Remove every project of this prefix, whoever left it."""
    _running.clear()
    _remove(_is_ours)
