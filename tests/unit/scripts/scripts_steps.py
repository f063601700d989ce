"""Running the steps in ``scripts/`` as people do, with settings of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["ROOT", "SCRIPTS", "debian", "environment", "run_step", "shell"]

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"

# What the developer's shell says about a stack must not leak into a test.
_FOREIGN = (
    "AIRBRIDGE_",
    "COMPOSE_",
    "DOCKER_",
    "BUILD_CA_BUNDLE",
    "BASE_IMAGE",
    "MAKE",
    "MFLAGS",
    "FORCE",
    "NAME",
    "QUEUES",
)


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of a stack, plus ``settings``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, "AIRBRIDGE_ENV_FILE": "/nonexistent/.env", **settings}


def run_step(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a script of ``scripts/`` (or a command) from another directory than the project's."""
    name, *arguments = command
    return subprocess.run(
        [str(SCRIPTS / name), *arguments],
        cwd="/",
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def shell(code: str, **settings: str) -> str:
    """Run bash code after ``lib.sh`` was sourced; return what it printed, stripped."""
    answer = subprocess.run(
        ["bash", "-c", f". '{SCRIPTS}/lib.sh'; {code}"],
        cwd="/",
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return answer.stdout.strip()


def debian(code: str, apt: Path) -> list[str]:
    """Run bash code of the Debian steps as on a Debian 12 with that /etc/apt; return the lines it printed."""
    release = apt.parent / "os-release"
    release.write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    settings = {"AIRBRIDGE_APT_DIR": str(apt), "AIRBRIDGE_OS_RELEASE": str(release)}
    return shell(f". scripts/lib-debian.sh; {code}", **settings).splitlines()
