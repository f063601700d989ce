"""A second, real engine beside the machine's own: started, killed, started again from what the kill left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENGINE = Path(__file__).parents[2] / "scripts" / "engine.sh"
# Neither a bridge nor firewall rules. dockerd with --bridge=none deletes the docker0 that it finds, which is
# the machine's own: so this engine lives in a network namespace of its own as well.
_OWN_NETWORK = ("unshare", "--net")
_QUIET_ARGS = "--bridge=none --iptables=false --ip6tables=false --storage-driver=vfs"


@dataclass(frozen=True, slots=True)
class SecondEngine:
    """An engine with folders, socket and log of its own."""

    root: Path

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "dockerd.log"

    @property
    def pid(self) -> int:
        return int((self.run_dir / "docker.pid").read_text())

    def start(self, arguments: str = _QUIET_ARGS) -> subprocess.CompletedProcess[str]:
        """Call engine.sh and read its output to the end: a pipe that the engine held open would hang."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRBRIDGE_", "DOCKER_"))
        }
        environment |= {
            "AIRBRIDGE_RUN_DIR": str(self.run_dir),
            "AIRBRIDGE_ENGINE_DATA": str(self.root / "data"),
            "AIRBRIDGE_ENGINE_ARGS": arguments,
            "AIRBRIDGE_ENGINE_LOG": str(self.log),
            "AIRBRIDGE_SYSTEM_CONTAINERD": str(self.run_dir / "no-system-containerd.sock"),
        }
        return subprocess.run(
            [*_OWN_NETWORK, str(_ENGINE)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def version(self) -> str:
        """The engine's answer, empty when it does not answer."""
        answer = subprocess.run(
            [
                "docker",
                "--host",
                f"unix://{self.run_dir}/docker.sock",
                "version",
                "--format",
                "{{.Server.Version}}",
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return answer.stdout.strip()

    def kill(self) -> None:
        """Kill it as the kernel does when memory runs out: nothing is cleaned up."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while _alive(pid):
            assert time.monotonic() < deadline, "the engine survived SIGKILL"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it properly, and wait until it has unmounted and removed what it holds."""
        if not (self.run_dir / "docker.pid").exists() or not _alive(pid := self.pid):
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(0.1)


def _alive(pid: int) -> bool:
    """Is this the pid of a living dockerd? (A zombie, or another process of that pid, is none.)"""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name == "dockerd"
    except OSError:
        return False


def _unmount(folder: str) -> None:
    """Unmount; the last processes of an engine may hold a folder for a moment after it has ended."""
    deadline = time.monotonic() + 15
    while (
        answer := subprocess.run(["umount", folder], capture_output=True, text=True, check=False)
    ).returncode:
        assert time.monotonic() < deadline, answer.stderr
        time.sleep(0.2)


def _own_bridge() -> str:
    """Index of the machine's own docker0, empty where there is none; a bridge made anew has a new one."""
    index = Path("/sys/class/net/docker0/ifindex")
    return index.read_text() if index.exists() else ""


@pytest.fixture
def engine() -> Iterator[SecondEngine]:
    # A short path: a socket's must fit into 108 bytes.
    root = Path(
        subprocess.check_output(["mktemp", "-d", "/var/tmp/airbridge-engine.XXXXXX"], text=True).strip()
    )
    second = SecondEngine(root)
    bridge = _own_bridge()
    try:
        yield second
    finally:
        second.stop()
        # A killed engine leaves mounts behind, one more each time.
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (mounted := line.split()[1]).startswith(f"{root}/"):
                _unmount(mounted)
        shutil.rmtree(root)
        assert _own_bridge() == bridge, "the second engine touched the bridge of the machine's own"


def test_engine_killed_is_started_again_from_what_it_left(engine: SecondEngine) -> None:
    first = engine.start()
    assert first.returncode == 0, first.stderr
    assert "started, version" in first.stdout
    assert engine.version()

    engine.kill()
    assert (engine.run_dir / "docker.pid").exists()
    assert (engine.run_dir / "docker.sock").is_socket()
    assert engine.version() == ""

    second = engine.start()
    assert second.returncode == 0, second.stderr
    assert f"removed the stale {engine.run_dir}/docker.pid" in second.stdout
    assert engine.version()


def test_engine_starts_although_its_old_pid_belongs_to_another_process(engine: SecondEngine) -> None:
    assert engine.start().returncode == 0
    engine.kill()
    other = subprocess.Popen(["sleep", "300"])
    try:
        (engine.run_dir / "docker.pid").write_text(str(other.pid))
        (engine.run_dir / "docker/containerd/containerd.pid").write_text(str(other.pid))
        again = engine.start()
        assert again.returncode == 0, again.stderr
        assert engine.version()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_engine_starts_from_sockets_that_nobody_listens_on(engine: SecondEngine) -> None:
    engine.run_dir.mkdir()
    for name in ("docker.sock", "no-system-containerd.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(engine.run_dir / name))
    started = engine.start()
    assert started.returncode == 0, started.stderr
    assert engine.version()
    assert not (engine.run_dir / "no-system-containerd.sock").exists()


def test_engine_that_works_is_not_touched(engine: SecondEngine) -> None:
    assert engine.start().returncode == 0
    pid = engine.pid
    again = engine.start()
    assert again.returncode == 0
    assert "running, version" in again.stdout
    assert engine.pid == pid


def test_engine_outlives_the_session_that_started_it_and_holds_none_of_its_files(
    engine: SecondEngine, tmp_path: Path
) -> None:
    # start() itself reads the pipe to its end; a session of its own ended right after.
    assert engine.start().returncode == 0
    pid = engine.pid
    assert os.getsid(pid) == pid
    files = {link.name: str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    assert files["0"] == "/dev/null"
    assert files["1"] == files["2"] == str(engine.log)
    assert str(engine.run_dir / "airbridge-engine.lock") not in files.values()


def test_engine_that_cannot_start_fails_soon_with_the_end_of_its_log(engine: SecondEngine) -> None:
    began = time.monotonic()
    answer = engine.start("--storage-driver=no-such-driver --bridge=none --iptables=false")
    assert answer.returncode == 1
    assert "no-such-driver" in answer.stderr
    assert "error: the engine stopped while it was starting | fix: " in answer.stderr
    assert str(engine.log) in answer.stderr
    assert time.monotonic() - began < 45


def test_base_image_that_is_here_is_not_made_again() -> None:
    def image() -> str:
        command = ["docker", "image", "inspect", "--format", "{{.Id}}", "debian:bookworm-slim"]
        return subprocess.check_output(command, text=True)

    before = image()
    step = str(_ENGINE.with_name("base-image.sh"))
    answer = subprocess.run([step], capture_output=True, text=True, timeout=60, check=True)
    assert "debian:bookworm-slim is here" in answer.stdout
    assert image() == before
