"""``diag`` in a running edge host: all well, and one thing wrong at a time (A5)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _stack import EdgeHost

# What the issue of an edge host that does not work may be, and so what diag must look at.
CHECKS = {
    *("settings", "name resolution", "tcp", "tls version", "tls chain", "clock", "endpoint get", "token"),
    *(
        "versions",
        "endpoint post",
        "uplink get",
        "uplink post",
        "client certificate",
        "spool",
        "s3 read",
        "s3 write",
        "dag store",
        "free disk",
    ),
}


def test_diag_passes_every_check_on_a_healthy_edge_host(edge: EdgeHost) -> None:
    """A5: as `docker compose exec edge-worker diag`."""
    done = edge.exec("edge-worker", "diag", check=False)
    assert done.code == 0, done.output
    *lines, summary = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"PASS"}
    assert len(lines) == len(CHECKS)
    assert summary == f"{len(CHECKS)} pass, 0 fail, 0 not run"


def test_diag_says_the_same_as_one_json_document(edge: EdgeHost) -> None:
    """A5: for monitoring."""
    done = edge.exec("edge-worker", "diag", "--json", check=False)
    assert done.code == 0, done.output
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert {check["check"]: check["outcome"] for check in report["checks"]} == dict.fromkeys(CHECKS, "pass")


def _diag_with(edge: EdgeHost, **settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and checks by name of a diag in a container of its own, with other settings."""
    given = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
    done = edge.compose(
        "run", "--rm", "--no-deps", "--no-TTY", *given, "edge-worker", "diag", "--json", check=False
    )
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    return done.code, checks


@pytest.mark.parametrize(
    ("settings", "check", "says"),
    [
        (
            {"CONTROL_PLANE_TOKEN": f"a.{'0' * 64}", "CONTROL_PLANE_TOKEN_FILE": ""},
            "token",
            "CONTROL_PLANE_TOKEN",
        ),
        ({"CONTROL_PLANE_CA_FILE": ""}, "tls chain", "CONTROL_PLANE_CA_FILE"),
        ({"CONTROL_PLANE_URL": "https://no-such-host.invalid:8443"}, "name resolution", "CONTROL_PLANE_URL"),
        ({"CONTROL_PLANE_URL": "https://host.docker.internal:9"}, "tcp", "9"),
        ({"WORKER_QUEUES": "a,,b"}, "settings", "WORKER_QUEUES"),
    ],
    ids=["wrong token", "no CA", "unknown host", "closed port", "malformed setting"],
)
def test_diag_fails_at_the_check_of_what_is_wrong_and_names_the_fix(
    edge: EdgeHost, settings: dict[str, str], check: str, says: str
) -> None:
    """A5: the first check that fails is the cause; what depends on it is not run."""
    code, checks = _diag_with(edge, **settings)
    assert code == 1
    failed = [name for name, found in checks.items() if found["outcome"] == "fail"]
    assert failed[0] == check, checks
    found = checks[check]
    assert found["fix"]
    assert says in found["value"] + found["fix"]
    assert "0" * 64 not in json.dumps(checks)
