"""From a fresh clone to the first green edge task: with nothing at all, with a build cache, and warm.

A build cache belongs to the engine and cannot be left out of a build: ``--no-cache`` still uses the cache
mounts with every downloaded wheel in them. So each repetition runs in an engine of its own that has never
seen the project: own data, own network name space (it would otherwise rewrite the first engine's firewall
rules), own folders for what uv and pip keep. There:

- ``cold``: clone, ``make up``. The engine is started, and the base image, every layer, every package and
  wheel is fetched. What is there before: Docker's programs, Python, and where no registry serves the base the
  program that bootstraps it.
- ``warm``: ``make down``, then ``make up``: the containers start, nothing is built.
- ``cached``: everything destroyed, images removed, another clone, ``make up``: as a machine that has built an
  earlier release of the project.

Time counts from before the clone to the line in which ``make up`` says that the sample DAG's run on the edge
host succeeded; for ``warm``, to the end of the whole command.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airbridge.errors import AirbridgeError, SettingsError
from bench._cleanup import removing
from bench._progress import say
from bench._shell import ROOT, Shell, neutral_environment
from bench._stack import PATIENCE_S
from bench._stats import summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["GREEN", "Step", "measure", "read_steps", "seconds_to"]

GREEN: Final = "sample run"
"""The step of ``make up`` that says that a DAG ran on the edge host."""

# As say() in scripts/lib.sh prints it.
_LINE = re.compile(r"\[ *\d+ s\] (?P<step>.{13}) (?P<text>.*)")
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """A line of ``make up``, and when it came."""

    name: str
    text: str
    seconds: float
    """Since the clock was started."""


def read_steps(lines: Iterable[tuple[float, str]]) -> list[Step]:
    """Return the steps among lines that came with their seconds."""
    found = []
    for seconds, line in lines:
        if match := _LINE.fullmatch(line.rstrip("\n")):
            found.append(Step(match["step"].strip(), match["text"], seconds))
    return found


def seconds_to(steps: list[Step], name: str) -> float:
    """Return when the step was there.

    :raises AirbridgeError: it never was
    """
    for step in steps:
        if step.name == name:
            return step.seconds
    raise AirbridgeError(f"make up never came to the step '{name}'")


@dataclass(frozen=True, slots=True)
class _FreshMachine:
    """An engine that nobody has used, and a place for clones."""

    root: Path
    shell: Shell

    @property
    def clone(self) -> Path:
        return self.root / "clone"

    def in_clone(self) -> Shell:
        return Shell(cwd=self.clone, environment=self.shell.environment, prefix=self.shell.prefix)

    def make_clone(self) -> None:
        """Clone the project's current commit."""
        shutil.rmtree(self.clone, ignore_errors=True)
        self.shell.run("git", "clone", "--quiet", "--no-local", str(ROOT), str(self.clone))

    def make_up(self, started: float) -> tuple[list[Step], float]:
        """Run ``make up`` in the clone; return its steps and when it ended, both since ``started``."""
        shell = self.in_clone()
        lines: list[tuple[float, str]] = []
        process = subprocess.Popen(
            [*shell.prefix, "make", "up"],
            cwd=shell.cwd,
            env=dict(shell.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append((time.monotonic() - started, line))
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
        ended = time.monotonic() - started
        if code:
            raise AirbridgeError(
                f"make up ended with {code}: {''.join(line for _, line in lines)[-4000:].strip()}"
            )
        return read_steps(lines), ended

    def forget_images(self) -> None:
        """Remove the project's containers, data and images; the build cache and the base image stay."""
        self.in_clone().run("make", "destroy", "FORCE=1")
        images = self.shell.run("docker", "images", "--quiet", "--filter", "reference=airbridge/*").split()
        self.shell.run("docker", "image", "rm", "--force", *sorted(set(images)))


@contextmanager
def _own_network() -> Iterator[tuple[str, ...]]:
    """Yield what puts a program into a network of its own with a way out: that of a resting container."""
    shell = Shell()
    name = f"airbridge-bench-network-{os.getpid()}"
    base = os.environ.get("BASE_IMAGE", "debian:bookworm-slim")
    shell.run(
        "docker",
        "run",
        "--detach",
        "--rm",
        "--init",
        "--network",
        "bridge",
        "--name",
        name,
        base,
        "sleep",
        "infinity",
    )
    with removing(lambda: shell.run("docker", "rm", "--force", name)):
        pid = shell.run("docker", "inspect", "--format", "{{.State.Pid}}", name).strip()
        yield ("nsenter", f"--net=/proc/{pid}/ns/net", "--")


def _check() -> None:
    if os.geteuid() != 0 or not shutil.which("nsenter") or not shutil.which("dockerd"):
        raise SettingsError(
            "the cold start is measured in an engine of its own, which needs root, dockerd and nsenter",
            fix="run it as root, or leave it out: make bench ONLY='visible idle dispatch'",
        )
    resolvers = re.findall(r"(?m)^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text())
    if all(resolver.startswith("127.") or resolver == "::1" for resolver in resolvers):
        raise SettingsError(
            "/etc/resolv.conf names resolvers on the loopback only, which another network cannot ask",
            fix="leave it out: make bench ONLY='visible idle dispatch'",
        )


@contextmanager
def _fresh_machine() -> Iterator[_FreshMachine]:
    _check()
    with _own_network() as prefix:
        # Not /tmp, which may be memory or noexec; a short path, because a socket's must fit into 108 bytes.
        root = Path(tempfile.mkdtemp(prefix="airbridge-bench.", dir="/var/tmp"))
        run = root / "run"
        environment = neutral_environment(os.environ) | {
            "AIRBRIDGE_RUN_DIR": str(run),
            "AIRBRIDGE_ENGINE_DATA": str(root / "data"),
            "AIRBRIDGE_ENGINE_LOG": str(root / "dockerd.log"),
            "AIRBRIDGE_SYSTEM_CONTAINERD": str(run / "no-system-containerd.sock"),
            "AIRBRIDGE_WAIT": f"{PATIENCE_S:.0f}",
            "DOCKER_HOST": f"unix://{run}/docker.sock",
            "XDG_CACHE_HOME": str(root / "cache"),
            "UV_CACHE_DIR": str(root / "cache" / "uv"),
            "PIP_CACHE_DIR": str(root / "cache" / "pip"),
        }
        machine = _FreshMachine(root, Shell(cwd=root, environment=environment, prefix=prefix))
        with removing(lambda: _remove(machine)):
            yield machine


def _engine_pid(machine: _FreshMachine) -> int | None:
    """Return the pid of the machine's own dockerd while it lives."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((machine.root / "run" / "docker.pid").read_text())
        if Path(f"/proc/{pid}/exe").readlink().name == "dockerd":
            return pid
    return None


def _remove(machine: _FreshMachine) -> None:
    """Stop the engine with all that runs in it, and delete its folder."""
    if pid := _engine_pid(machine):
        containers = machine.shell.run("docker", "ps", "--all", "--quiet", check=False).split()
        if containers:
            machine.shell.run("docker", "rm", "--force", "--volumes", *containers, check=False)
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while _engine_pid(machine) and time.monotonic() < deadline:
            time.sleep(0.2)
        if _engine_pid(machine):
            raise AirbridgeError(f"the engine {pid} in {machine.root} does not stop", fix=f"kill -KILL {pid}")
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{machine.root}/")), reverse=True):
        Shell().run("umount", mount)
    shutil.rmtree(machine.root)


def measure(*, repetitions: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of so many machines."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "cached": []}
    phases: dict[str, list[list[str]]] = {kind: [] for kind in seconds}

    def note(kind: str, number: int, steps: list[Step], total: float) -> None:
        seconds[kind].append(round(total, 2))
        phases[kind].append([f"{step.seconds:.2f} s {step.name}: {step.text}" for step in steps])
        say("cold", f"{kind}, {number} of {repetitions}: {total:.1f} s")

    for number in range(1, repetitions + 1):
        with _fresh_machine() as machine:
            started = time.monotonic()
            machine.make_clone()
            steps, _ = machine.make_up(started)
            note("cold", number, steps, seconds_to(steps, GREEN))

            machine.in_clone().run("make", "down")
            steps, ended = machine.make_up(time.monotonic())
            seconds_to(steps, GREEN)
            note("warm", number, steps, ended)

            machine.forget_images()
            started = time.monotonic()
            machine.make_clone()
            steps, _ = machine.make_up(started)
            note("cached", number, steps, seconds_to(steps, GREEN))
    return {f"{kind}_s": summary(values) for kind, values in seconds.items()}, {
        "seconds": seconds,
        "steps": phases,
    }
