"""Which client certificate the uplink shows: the script that chooses it, run as the uplink runs it."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airbridge.client_certificate import ClientCertificate
from airbridge.edge._client_certificate import current_certificate

SCRIPT = Path(__file__).parents[3] / "edge-worker/uplink/client-certificate.sh"
NAME = "north-1"
DAY = timedelta(days=1)


def _held(serial: str, begins: timedelta = -DAY, ends: timedelta = DAY, name: str = NAME) -> str:
    now = datetime.now(UTC)
    key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    return ClientCertificate(name, serial, now + begins, now + ends, certificate, key).text


@dataclass(frozen=True)
class Uplink:
    """The folders of an uplink."""

    folder: Path
    environment: dict[str, str]

    @property
    def state(self) -> Path:
        """Where the worker keeps its certificate."""
        return self.folder / "state" / "client.pem"

    @property
    def bundle(self) -> Path:
        """The certificate that the host was given."""
        return self.folder / "bundle.pem"

    def choose(self) -> str:
        """Serial number of the certificate that is shown; empty: none."""
        done = subprocess.run(
            ["bash", SCRIPT, "choose"], env=self.environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        lines = (self.folder / "run" / "client-certificate.caddy").read_text()
        if lines == "# none\n":
            return ""
        directive, certificate, key = lines.split()
        assert directive == "tls_client_auth"
        assert certificate == key
        shown = Path(certificate)
        assert shown.stat().st_mode & 0o777 == 0o600
        return ClientCertificate.parse(shown.read_text()).serial

    def agrees(self) -> str:
        """The same, as the worker's side sees it."""
        found = current_certificate(self.environment)
        return found[1].serial if found else ""


@pytest.fixture
def uplink(tmp_path: Path) -> Uplink:
    made = Uplink(
        tmp_path,
        {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "UPLINK_RUN_DIR": str(tmp_path / "run"),
            "EDGE_STATE_DIR": str(tmp_path / "state"),
            "CONTROL_PLANE_CERTIFICATE_FILE": str(tmp_path / "bundle.pem"),
            "WORKER_NAME": NAME,
        },
    )
    made.state.parent.mkdir()
    return made


def test_host_without_a_certificate_shows_none(uplink: Uplink) -> None:
    assert uplink.choose() == uplink.agrees() == ""


def test_newer_of_the_two_is_shown(uplink: Uplink) -> None:
    uplink.bundle.write_text(_held("1", begins=-2 * DAY))
    assert uplink.choose() == uplink.agrees() == "1"
    uplink.state.write_text(_held("2", begins=-DAY))
    assert uplink.choose() == uplink.agrees() == "2"
    uplink.bundle.write_text(_held("3", begins=timedelta(seconds=-5)))
    assert uplink.choose() == uplink.agrees() == "3"


def test_expired_one_is_not_shown_because_it_would_end_the_handshake(uplink: Uplink) -> None:
    uplink.state.write_text(_held("1", begins=-DAY, ends=timedelta(seconds=-1)))
    assert uplink.choose() == uplink.agrees() == ""
    uplink.bundle.write_text(_held("2", begins=-2 * DAY))
    assert uplink.choose() == uplink.agrees() == "2"


@pytest.mark.parametrize(
    "text", [_held("1", name="south-2"), "nothing", "", "# AirBridge client certificate {}\n"]
)
def test_other_files_are_not_shown(uplink: Uplink, text: str) -> None:
    uplink.state.write_text(text)
    assert uplink.choose() == uplink.agrees() == ""


def test_certificate_of_an_earlier_life_is_not_shown_with_a_new_join_token(uplink: Uplink) -> None:
    token = "join_north-1.new"
    uplink.state.write_text(_held("1"))
    fresh = replace(uplink, environment={**uplink.environment, "UPLINK_JOIN_TOKEN_HASH": _hash(token)})
    assert fresh.choose() == ""
    (uplink.folder / "state" / "credential.from").write_text(f"{_hash('join_north-1.old')}\n")
    assert fresh.choose() == ""
    (uplink.folder / "state" / "credential.from").write_text(f"{_hash(token)}\n")
    assert fresh.choose() == "1"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_caddy_is_told_when_another_one_comes_and_not_otherwise(uplink: Uplink) -> None:
    # Stands in for Caddy: says each time that it is told.
    listener = (
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('told', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.1)"
    )
    caddy = subprocess.Popen([sys.executable, "-c", listener], stdout=subprocess.PIPE, text=True)
    assert caddy.stdout is not None
    assert caddy.stdout.readline() == "ready\n"
    uplink.choose()
    watcher = subprocess.Popen(
        ["bash", SCRIPT, "watch", str(caddy.pid)],
        env=uplink.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(1.5)
        uplink.state.write_text(_held("7"))
        assert caddy.stdout.readline() == "told\n"
        assert "7" in (uplink.folder / "run" / "client-certificate.caddy").read_text()
    finally:
        caddy.send_signal(signal.SIGKILL)
        rest, _ = caddy.communicate()
        # It ends with Caddy.
        watcher.wait(timeout=10)
    assert rest == ""
