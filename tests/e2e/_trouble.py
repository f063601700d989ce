"""Ways to disturb a stack, and to look at what became of it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from _stack import (
    CONTROL_PLANE_FILE,
    DAG_BUCKET,
    EDGE_FILE,
    ENVIRONMENT,
    LOG_BUCKET,
    PATIENCE_S,
    PROJECT,
    ROOT,
    Compose,
    Done,
    EdgeHost,
    Stack,
    docker,
    free_ports,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "bare_control_plane",
    "crash",
    "edge_like",
    "exit_code",
    "make",
    "next_exit",
    "psql",
    "restarts",
    "worker_state",
]


def bare_control_plane(folder: Path, name: str, **settings: str) -> Compose:
    """A control plane of which nothing was started yet. Whoever uses it removes it."""
    ui_port, gateway_port = free_ports(2)
    overrides = folder / "secrets.d"
    overrides.mkdir(parents=True, exist_ok=True)
    overrides.chmod(0o755)
    return Compose(
        f"{PROJECT}-{name}",
        CONTROL_PLANE_FILE,
        {
            "AIRBRIDGE_UI_PORT": str(ui_port),
            "AIRBRIDGE_GATEWAY_PORT": str(gateway_port),
            "AIRBRIDGE_SECRETS_DIR": str(overrides),
            "DAG_BUCKET": DAG_BUCKET,
            "LOG_BUCKET": LOG_BUCKET,
            "ENVIRONMENT": ENVIRONMENT,
            **settings,
        },
    )


def edge_like(host: EdgeHost, name: str, **settings: str) -> Compose:
    """An edge host with another one's credential, and so its name, of which nothing was started yet.

    Whoever uses it removes it.

    :param name: of its compose project
    :param settings: what is different about it
    """
    own = {"COMPOSE_PROFILES": ""}
    return Compose(f"{PROJECT}-edge-{name}", EDGE_FILE, {**host.compose.settings, **own, **settings})


def restarts(compose: Compose, service: str) -> int:
    """How often the restart policy has started the container again."""
    return int(docker("inspect", "--format", "{{.RestartCount}}", compose.container(service)).stdout)


def exit_code(compose: Compose, service: str) -> int:
    """Exit code of a service that has ended for good."""
    return int(docker("inspect", "--format", "{{.State.ExitCode}}", compose.container(service)).stdout)


def next_exit(compose: Compose, service: str) -> int:
    """Wait for the next end of a service that the restart policy starts again, and return its exit code."""
    return int(docker("wait", compose.container(service)).stdout)


def crash(compose: Compose, *services: str) -> None:
    """Kill all that runs in these containers, and return once the restart policy has noticed.

    From inside, because ``docker kill`` counts as a stop by hand, after which nothing is started again.
    """
    before = {service: restarts(compose, service) for service in services}
    for service in services:
        compose.exec(service, "bash", "-c", "kill -KILL -1", check=False)
    for service, count in before.items():
        until(
            f"{service} of {compose.project} is started again",
            lambda service=service, count=count: restarts(compose, service) > count,  # type: ignore[misc]
        )


def make(stack: Stack, *arguments: str) -> Done:
    """Call make for this control plane, as if it were the one of this clone."""
    ours = ("AIRBRIDGE_", "COMPOSE_")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        **stack.compose.settings,
        "AIRBRIDGE_ENV_FILE": os.devnull,
        "AIRBRIDGE_VERSION": os.environ.get("AIRBRIDGE_VERSION", ""),
        "COMPOSE_PROJECT_NAME": stack.compose.project,
    }
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def psql(stack: Stack, query: str) -> str:
    """Answer of the metadata database: one row a line, columns apart by ``|``."""
    command = ("psql", "-qAt", "-U", "airflow", "-d", "airflow", "-c", query)
    return stack.exec("postgres", *command).stdout.strip()


def worker_state(stack: Stack, name: str) -> str:
    """State of an edge worker as the control plane sees it; empty when it knows none of this name."""
    return psql(stack, f"SELECT state FROM edge_worker WHERE worker_name = '{name}'")
