"""What a killed engine leaves behind is removed; what belongs to a living one never is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scripts_steps import run_step

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A runtime folder such as /var/run, of an engine of its own."""
    # Not below tmp_path: a socket's path must fit into 108 bytes.
    with tempfile.TemporaryDirectory(prefix="ab") as short:
        folder = Path(short) / "run"
        (folder / "docker" / "containerd").mkdir(parents=True)
        yield folder


@pytest.fixture
def living_dockerd(tmp_path: Path) -> Iterator[int]:
    """The pid of a living process that the kernel knows as ``dockerd``."""
    binary = tmp_path / "dockerd"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", binary)
    process = subprocess.Popen([str(binary), "60"])
    yield process.pid
    process.kill()
    process.wait()


def dead_pid() -> int:
    """A pid that no process has any more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def clear_stale(run_dir: Path) -> str:
    answer = run_step(
        "engine.sh",
        "--clear-stale",
        AIRBRIDGE_RUN_DIR=str(run_dir),
        AIRBRIDGE_SYSTEM_CONTAINERD=str(run_dir / "system-containerd.sock"),
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    return answer.stdout


def leave_socket(path: Path) -> None:
    """Leave a socket file that nobody listens on, as a killed process does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_pid_file_of_a_dead_engine_is_removed(run_dir: Path) -> None:
    pid_file = run_dir / "docker.pid"
    pid_file.write_text(str(dead_pid()))
    assert f"removed the stale {pid_file}" in clear_stale(run_dir)
    assert not pid_file.exists()


def test_pid_file_whose_pid_went_to_another_process_is_removed_and_that_process_lives(run_dir: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        for pid_file in (run_dir / "docker.pid", run_dir / "docker/containerd/containerd.pid"):
            pid_file.write_text(f"{other.pid}\n")
        clear_stale(run_dir)
        assert list(run_dir.rglob("*.pid")) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "\n", "not a pid"])
def test_pid_file_cut_short_by_a_crash_is_removed(run_dir: Path, content: str) -> None:
    (run_dir / "docker.pid").write_text(content)
    clear_stale(run_dir)
    assert not (run_dir / "docker.pid").exists()


def test_pid_file_of_an_engine_that_nobody_reaped_is_removed(run_dir: Path, tmp_path: Path) -> None:
    binary = tmp_path / "dockerd"
    shutil.copy(shutil.which("true") or "/bin/true", binary)
    zombie = subprocess.Popen([str(binary)])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    (run_dir / "docker.pid").write_text(str(zombie.pid))
    clear_stale(run_dir)
    zombie.wait()
    assert not (run_dir / "docker.pid").exists()


def test_living_engine_keeps_its_files(run_dir: Path, living_dockerd: int) -> None:
    (run_dir / "docker.pid").write_text(str(living_dockerd))
    leave_socket(run_dir / "docker.sock")
    assert clear_stale(run_dir) == ""
    assert (run_dir / "docker.pid").exists()
    # It may be about to listen there.
    assert (run_dir / "docker.sock").exists()


@pytest.mark.parametrize(
    "name", ["docker.sock", "docker/containerd/containerd.sock", "system-containerd.sock"]
)
def test_socket_without_a_listener_is_removed(run_dir: Path, name: str) -> None:
    leave_socket(run_dir / name)
    assert f"removed the stale {run_dir / name}" in clear_stale(run_dir)
    assert not (run_dir / name).exists()


def test_socket_with_a_listener_stays(run_dir: Path) -> None:
    path = run_dir / "system-containerd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert clear_stale(run_dir) == ""
        assert path.exists()


def test_file_that_is_no_socket_is_not_touched(run_dir: Path) -> None:
    (run_dir / "docker.sock").write_text("somebody's file")
    assert clear_stale(run_dir) == ""
    assert (run_dir / "docker.sock").read_text() == "somebody's file"


def test_clean_folder_needs_nothing(run_dir: Path) -> None:
    assert clear_stale(run_dir) == ""


def _state(tmp_path: Path, os_release: str, **settings: str) -> str:
    release = tmp_path / "os-release"
    release.write_text(os_release)
    answer = run_step(
        "engine.sh",
        "--state",
        **{
            "AIRBRIDGE_RUN_DIR": str(tmp_path / "run"),
            "AIRBRIDGE_DOCKERD": "/nonexistent/dockerd",
            "AIRBRIDGE_OS_RELEASE": str(release),
            **settings,
        },
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


_DEBIAN_12 = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12"\n'


def test_debian_root_without_an_engine_can_install_one(tmp_path: Path) -> None:
    # The test may run on another system: there, a file says that Debian's installer is here.
    apt_get = tmp_path / "bin" / "apt-get"
    apt_get.parent.mkdir()
    apt_get.touch(mode=0o755)
    path = f"{os.environ['PATH']}:{apt_get.parent}"
    state = _state(tmp_path, _DEBIAN_12, AIRBRIDGE_ROOT_UID=str(os.getuid()), PATH=path)
    assert state == "installable Debian GNU/Linux 12"


@pytest.mark.parametrize("os_release", ["ID=ubuntu\nVERSION_ID=24.04\n", _DEBIAN_12.replace("12", "11"), ""])
def test_elsewhere_an_engine_is_not_installed(tmp_path: Path, os_release: str) -> None:
    assert _state(tmp_path, os_release, AIRBRIDGE_ROOT_UID=str(os.getuid())).startswith("missing ")


def test_a_user_who_is_not_root_is_told_that_it_is_missing(tmp_path: Path) -> None:
    assert _state(tmp_path, _DEBIAN_12, AIRBRIDGE_ROOT_UID=str(os.getuid() + 1)).startswith("missing ")


def test_missing_engine_fails_with_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=fedora\n")
    answer = run_step(
        "engine.sh",
        AIRBRIDGE_RUN_DIR=str(tmp_path / "run"),
        AIRBRIDGE_DOCKERD="/nonexistent/dockerd",
        AIRBRIDGE_OS_RELEASE=str(release),
    )
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: there is no Docker engine | fix: install Docker Engine")
    assert not (tmp_path / "run").exists()


def test_engine_elsewhere_that_does_not_answer_is_left_alone(tmp_path: Path) -> None:
    where = f"unix://{tmp_path}/elsewhere.sock"
    answer = run_step("engine.sh", DOCKER_HOST=where)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: no engine answers at {where} | fix: ")
