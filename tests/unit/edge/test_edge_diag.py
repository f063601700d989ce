from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.unit.edge.edge_servers import SECRET, VERSIONS, Authority, Plane, free_port

from airbridge.edge.diag import ALL_CHECKS, Limits, Outcome, diagnose, run_diag

if TYPE_CHECKING:
    from pathlib import Path

HASH = "a" * 64


@pytest.fixture
def courier() -> Plane:
    return Plane()


@pytest.fixture
def healthy(edge_host, servers, plane, courier, authority, s3, tmp_path):
    """Return a function that sets up an edge host on which all is well, but for ``changes``."""

    def configure(pem: Path | None = None, **changes: str | None) -> None:
        port = servers.start(plane, pem or authority.issue())
        store = tmp_path / "store"
        (store / "trees" / HASH / "examples").mkdir(parents=True, exist_ok=True)
        if not (store / "current").is_symlink():
            (store / "current").symlink_to(f"trees/{HASH}")
        edge_host(
            **{
                "CONTROL_PLANE_URL": f"https://127.0.0.1:{port}",
                "CONTROL_PLANE_CA_FILE": str(authority.file),
                "UPLINK_URL": f"http://127.0.0.1:{servers.start(plane)}",
                "COURIER_URL": f"http://127.0.0.1:{servers.start(courier)}",
                "S3_ENDPOINT_URL": s3[0],
                **changes,
            }
        )

    return configure


def _diagnose(limits: Limits | None = None):
    findings = {f.check: f for f in diagnose(VERSIONS, limits or Limits(timeout_s=5.0))}
    assert list(findings) == ["settings", *(check.name for check in ALL_CHECKS)]
    assert not any(SECRET in str(finding) for finding in findings.values())
    return findings


def _one_fails(findings, name, *words, not_run=()):
    """Only ``name`` fails, with ``words`` in its line; what hangs on it is not run; all else passes."""
    finding = findings[name]
    assert finding.outcome is Outcome.FAIL, finding
    assert finding.fix
    for word in words:
        assert word in f"{finding.value} {finding.fix}"
    outcomes = {check: f.outcome for check, f in findings.items() if check != name}
    expected = {check: Outcome.NOT_RUN if check in not_run else Outcome.PASS for check in outcomes}
    assert outcomes == expected, findings
    return finding


BEHIND_TLS = (
    "clock",
    "endpoint get",
    "token",
    "versions",
    "endpoint post",
    "uplink post",
    "client certificate",
)
BEHIND_CHAIN = ("endpoint get", "token", "versions", "endpoint post", "uplink post", "client certificate")


def test_everything_passes_on_a_healthy_edge_host(healthy, s3):
    healthy()
    findings = _diagnose()
    assert {f.outcome for f in findings.values()} == {Outcome.PASS}, findings
    assert HASH in findings["dag store"].value
    assert "days to expiry" in findings["tls chain"].value
    assert findings["tls version"].value.startswith("TLSv1.3")
    assert len((s3[1] / "airbridge-logs/dev/diag/north-1/probe").read_bytes()) == 64


def test_malformed_settings_fail_one_line_each_and_nothing_else_runs(healthy):
    healthy(WORKER_QUEUES="", WORKER_CONCURRENCY="0")
    findings = diagnose(VERSIONS)
    assert [f.check for f in findings[:2]] == ["settings", "settings"]
    assert all(f.outcome is Outcome.FAIL and f.fix for f in findings[:2])
    assert {f.outcome for f in findings[2:]} == {Outcome.NOT_RUN}
    assert findings[2].value == "not run: needs settings"


def test_unknown_host_name_fails_resolution(healthy):
    healthy(CONTROL_PLANE_URL="https://no-such-host.invalid:8443")
    not_run = ("tcp", "tls version", "tls chain", *BEHIND_TLS)
    finding = _one_fails(
        _diagnose(), "name resolution", "no-such-host.invalid", "CONTROL_PLANE_URL", not_run=not_run
    )
    assert "does not resolve" in finding.value


def test_closed_port_fails_tcp(healthy):
    healthy(CONTROL_PLANE_URL=f"https://127.0.0.1:{free_port()}")
    findings = _diagnose()
    _one_fails(findings, "tcp", "refused", "port", not_run=("tls version", "tls chain", *BEHIND_TLS))
    assert findings["token"].value == "not run: needs endpoint get"


def test_port_without_tls_fails_the_handshake(healthy, servers, plane):
    healthy(CONTROL_PLANE_URL=f"https://127.0.0.1:{servers.start(plane)}")
    _one_fails(_diagnose(), "tls version", "HTTPS port", not_run=("tls chain", *BEHIND_TLS))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(healthy, servers, plane, authority):
    port = servers.start(plane, authority.issue(), oldest_tls=True)
    healthy(CONTROL_PLANE_URL=f"https://127.0.0.1:{port}")
    _one_fails(_diagnose(), "tls version", "TLSv1.1", "TLSv1.2", not_run=("tls chain", *BEHIND_TLS))


def test_expired_certificate_fails_the_chain(healthy, authority):
    healthy(authority.issue(starts=-30, ends=-1))
    _one_fails(_diagnose(), "tls chain", "expired", "renew", not_run=BEHIND_CHAIN)


def test_certificate_of_the_future_points_at_the_clock(healthy, authority):
    healthy(authority.issue(starts=1, ends=30))
    _one_fails(_diagnose(), "tls chain", "not yet valid", "clock", not_run=BEHIND_CHAIN)


def test_certificate_of_another_name_fails_the_chain(healthy, authority):
    healthy(authority.issue(("gateway.example.com",)))
    _one_fails(_diagnose(), "tls chain", "mismatch", "CONTROL_PLANE_URL", not_run=BEHIND_CHAIN)


def test_certificate_of_an_unknown_ca_names_the_ca_file(healthy, tmp_path):
    other = Authority(tmp_path / "other-ca", "another CA")
    healthy(other.issue())
    _one_fails(_diagnose(), "tls chain", "CONTROL_PLANE_CA_FILE", not_run=BEHIND_CHAIN)


def test_private_ca_without_ca_file_names_the_setting(healthy):
    healthy(CONTROL_PLANE_CA_FILE="")
    _one_fails(_diagnose(), "tls chain", "CONTROL_PLANE_CA_FILE is empty", not_run=BEHIND_CHAIN)


def test_certificate_that_ends_soon_fails_before_it_does(healthy, authority):
    healthy(authority.issue(ends=3))
    _one_fails(_diagnose(), "tls chain", "3.0 days", "renew", not_run=BEHIND_CHAIN)


@pytest.mark.parametrize(("offset", "says"), [(90, "behind"), (-90, "ahead of")])
def test_wrong_clock_fails_and_says_by_how_much(healthy, plane, offset, says):
    healthy()
    plane.clock_offset = offset
    finding = _one_fails(_diagnose(), "clock", says, "NTP")
    assert "90." in finding.value or "89." in finding.value


def test_small_clock_difference_passes(healthy, plane):
    healthy()
    plane.clock_offset = 15
    assert _diagnose()["clock"].outcome is Outcome.PASS


def test_wrong_token_fails_with_the_setting_to_correct(healthy):
    healthy(CONTROL_PLANE_TOKEN="north-1." + "w" * 64)
    not_run = ("versions", "endpoint post", "uplink post", "client certificate")
    findings = _diagnose()
    for check in ("s3 read", "s3 write"):  # signed with the same secret
        assert findings[check].outcome is Outcome.FAIL
        assert "line 'token'" in findings.pop(check).fix
    _one_fails(findings, "token", "token_invalid", "CONTROL_PLANE_TOKEN", not_run=not_run)


def test_other_airflow_version_fails_versions_only(healthy, plane):
    healthy()
    plane.versions = dataclasses.replace(VERSIONS, airflow="3.0.5")
    _one_fails(_diagnose(), "versions", "Airflow here 3.0.4, there 3.0.5", "AIRBRIDGE_VERSION")


def test_other_airbridge_version_that_the_control_plane_refuses_fails_versions(healthy):
    healthy()
    findings = {f.check: f for f in diagnose(dataclasses.replace(VERSIONS, airbridge="9.9.9"))}
    not_run = ("token", "endpoint post", "uplink post", "client certificate")
    _one_fails(findings, "versions", "9.9.9", not_run=not_run)
    assert findings["token"].value == "not run: needs versions"


def test_gateway_without_its_api_server_fails_the_get(healthy, servers, plane, authority):
    healthy()
    down = type(plane)()
    down.status = 502
    os.environ["CONTROL_PLANE_URL"] = f"https://127.0.0.1:{servers.start(down, authority.issue())}"
    not_run = ("token", "versions", "endpoint post", "uplink post", "client certificate")
    _one_fails(_diagnose(), "endpoint get", "502", "make status", not_run=not_run)


def test_other_web_server_fails_the_get(healthy, servers, plane, authority):
    healthy()
    other = type(plane)()
    other.status = 200
    os.environ["CONTROL_PLANE_URL"] = f"https://127.0.0.1:{servers.start(other, authority.issue())}"
    not_run = ("token", "versions", "endpoint post", "uplink post", "client certificate")
    _one_fails(_diagnose(), "endpoint get", "CONTROL_PLANE_URL", not_run=not_run)


def test_changed_body_of_a_post_fails_the_posts(healthy, plane):
    healthy()
    plane.mangle_posts = True
    findings = _diagnose()
    failed = {name for name, f in findings.items() if f.outcome is Outcome.FAIL}
    assert failed == {"endpoint post", "uplink post"}
    assert "came back changed" in findings["uplink post"].value


def test_missing_uplink_fails_what_goes_through_it(healthy):
    healthy(UPLINK_URL=f"http://127.0.0.1:{free_port()}")
    not_run = ("uplink post", "client certificate", "s3 read", "s3 write")
    _one_fails(_diagnose(), "uplink get", "uplink", "compose.edge.yaml", not_run=not_run)


def test_uplink_that_reaches_nothing_points_at_its_log(healthy, servers, plane):
    cut = type(plane)()
    cut.status = 502
    healthy(UPLINK_URL=f"http://127.0.0.1:{servers.start(cut)}")
    not_run = ("uplink post", "client certificate", "s3 read", "s3 write")
    _one_fails(_diagnose(), "uplink get", "502", "see its log", "CONTROL_PLANE_CA_FILE", not_run=not_run)


def test_s3_that_refuses_the_signature_fails_read_and_write(healthy, strange_s3):
    healthy(S3_ENDPOINT_URL=strange_s3)
    _s3_fails(_diagnose(), "403", "403")


def test_buckets_that_do_not_exist_fail_read_and_write(healthy):
    healthy(DAG_BUCKET="no-such-bucket", LOG_BUCKET="nor-this-one")
    _s3_fails(_diagnose(), "DAG_BUCKET", "LOG_BUCKET")


def _s3_fails(findings, read, write):
    failed = {name for name, f in findings.items() if f.outcome is Outcome.FAIL}
    assert failed == {"s3 read", "s3 write"}
    assert read in findings["s3 read"].value + findings["s3 read"].fix
    assert write in findings["s3 write"].value + findings["s3 write"].fix


def test_absent_s3_fails_read_and_write(healthy):
    healthy(S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    findings = _diagnose()
    failed = {name for name, f in findings.items() if f.outcome is Outcome.FAIL}
    assert failed == {"s3 read", "s3 write"}
    assert "EndpointConnectionError" in findings["s3 read"].value


def test_server_that_swallows_writes_is_not_taken_for_s3(healthy, servers, plane):
    swallows = type(plane)()
    swallows.status = 200
    healthy(S3_ENDPOINT_URL=f"http://127.0.0.1:{servers.start(swallows)}")
    findings = _diagnose()
    failed = {name for name, f in findings.items() if f.outcome is Outcome.FAIL}
    assert failed == {"s3 read", "s3 write"}
    assert "not S3" in findings["s3 read"].value
    assert "not what was written" in findings["s3 write"].value


@pytest.mark.parametrize("damage", ["no store", "no link", "dangling link", "link that leads out"])
def test_dag_store_without_a_tree_fails(healthy, tmp_path, damage):
    healthy()
    store = tmp_path / "store"
    if damage == "no store":
        os.environ["DAG_STORE"] = str(tmp_path / "nowhere")
    else:
        (store / "current").unlink()
    if damage == "dangling link":
        (store / "current").symlink_to("trees/" + "b" * 64)
    if damage == "link that leads out":
        (store / "current").symlink_to("/etc")
    _one_fails(_diagnose(), "dag store", "DAG_STORE" if damage == "no store" else "dag-sync")


def test_too_little_free_disk_fails(healthy):
    healthy(EDGE_MIN_FREE_DISK_MB="1048576")
    _one_fails(_diagnose(), "free disk", "1048576", "EDGE_MIN_FREE_DISK_MB")


def test_json_output_holds_every_check_and_the_verdict(healthy, capsys):
    healthy(EDGE_MIN_FREE_DISK_MB="1048576")
    assert run_diag(as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert {"check", "outcome", "value", "fix"} == set(document["checks"][0])
    assert next(c for c in document["checks"] if c["check"] == "free disk")["outcome"] == "fail"


def test_program_prints_one_plain_line_a_check_and_no_token(healthy, installed):
    healthy()
    environment = {**os.environ, "PYTHONPATH": installed}
    command = [sys.executable, "-m", "airbridge.edge", "diag"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(ALL_CHECKS) + 2
    assert all(line.startswith("PASS ") for line in lines[:-1])
    assert lines[-1] == f"{len(ALL_CHECKS) + 1} pass, 0 fail, 0 not run"
    assert SECRET not in done.stdout + done.stderr
    broken = subprocess.run(
        command,
        env={**environment, "WORKER_CONCURRENCY": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert broken.returncode == 1
    assert broken.stdout.startswith("FAIL    settings")


def test_courier_that_does_not_run_fails_the_spool(healthy):
    healthy(COURIER_URL=f"http://127.0.0.1:{free_port()}")
    _one_fails(_diagnose(), "spool", "does not answer", "start the courier")


def test_reports_that_wait_are_shown_and_those_that_were_lost_fail(healthy, courier):
    healthy()
    courier.courier = dataclasses.replace(courier.courier, waiting=3, waiting_bytes=200, oldest_s=12.0)
    spool = _diagnose()["spool"]
    assert spool.outcome is Outcome.PASS
    assert spool.value == "control plane there, 3 reports in the spool (0.0 MiB), the oldest 12 s old"
    courier.courier = dataclasses.replace(courier.courier, lost=2)
    _one_fails(_diagnose(), "spool", "2 lost", "COURIER_SPOOL_MB")
    courier.courier = dataclasses.replace(courier.courier, lost=0, waiting_bytes=900)
    _one_fails(_diagnose(), "spool", "COURIER_SPOOL_MB")


def test_absence_fails_the_spool_with_its_reason(healthy, courier):
    healthy()
    courier.courier = dataclasses.replace(courier.courier, away=True, away_s=61.0, reason="HTTP 503")
    _one_fails(_diagnose(), "spool", "away for 61 s (HTTP 503)")
