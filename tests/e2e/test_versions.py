"""What does not fit together is refused: versions of the two sides, and images older than their lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _stack import ROOT, EdgeHost, Stack
from _trouble import bare_control_plane, edge_like, exit_code, next_exit, worker_state

import airbridge

if TYPE_CHECKING:
    from pathlib import Path

_OTHER = "0.0.9"


def test_edge_host_of_another_version_is_refused_and_both_versions_are_named(
    stack: Stack, edge: EdgeHost, tmp_path: Path
) -> None:
    override = tmp_path / "other-version.yaml"
    override.write_text(f'services: {{uplink: {{environment: {{AIRBRIDGE_VERSION: "{_OTHER}"}}}}}}\n')
    host = edge_like(
        edge,
        "outdated",
        WORKER_NAME="outdated",
        WORKER_QUEUES="outdated",
        CONTROL_PLANE_TOKEN=stack.ensure("outdated", "outdated"),
        CONTROL_PLANE_TOKEN_FILE="",
    )
    try:
        host("--file", str(override), "up", "--detach", "--no-build")
        assert next_exit(host, "edge-worker") == 4
        said = host.logs("edge-worker")
        assert f"this edge host runs AirBridge {_OTHER}, the control plane {airbridge.__version__}" in said
        assert "version_mismatch" in said
        assert "fix: run the edge images of the control plane's release (AIRBRIDGE_VERSION)" in said
        assert "Traceback" not in said
        assert worker_state(stack, "outdated") == ""
    finally:
        host.remove()


def test_lock_that_changed_since_the_build_is_refused_and_nothing_starts(tmp_path: Path) -> None:
    lock = tmp_path / "airflow.txt"
    lock.write_text((ROOT / "requirements" / "airflow.txt").read_text() + "# one more line\n")
    lock.chmod(0o644)
    override = tmp_path / "changed-lock.yaml"
    mount = f"{lock}:/run/airbridge/requirements.txt:ro"
    override.write_text(
        f'services: {{secrets: {{volumes: ["{mount}"]}}, api-server: {{volumes: ["{mount}"]}}}}\n'
    )
    compose = bare_control_plane(tmp_path, "lock")
    try:
        done = compose(
            "--file", str(override), "up", "--detach", "--no-build", "gateway", "api-server", check=False
        )
        assert done.code != 0, done.output
        assert exit_code(compose, "secrets") == 4
        said = compose.logs("secrets")
        assert "airbridge: image was built from lock" in said
        assert "but requirements/airflow.txt is" in said
        assert "fix: rebuild it: make build" in said
        assert not {"api-server", "gateway", "postgres"} & set(compose.services())
    finally:
        compose.remove()
