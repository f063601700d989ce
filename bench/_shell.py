"""Other programs, run with an environment that is ours alone."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airbridge.errors import AirbridgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ROOT", "Shell", "neutral_environment"]

ROOT = Path(__file__).parents[1]
"""The project's own folder."""

# Settings of the developer's own stack would change what is measured, and make's own the inner calls of make.
_OURS = re.compile(
    r"(AIRBRIDGE|AIRFLOW|AWS|COMPOSE|CONTROL_PLANE|DAG|EDGE|FRESH_POC|GATEWAY|LOG|S3|WORKER)_"
    r"|(ENVIRONMENT|LOCK_HASH|PROJECT|UI_PORT|NAME|QUEUES|CONCURRENCY|FORCE|TIMEOUT|SERVICE|FOLLOW|TAIL|ARGS|V"
    r"|ONLY|MAKEFLAGS|MAKELEVEL|MFLAGS|MAKEOVERRIDES|VIRTUAL_ENV)$"
)
# Of the machine, not of a stack: the trust store of its tools, and which images were built for this run.
_KEPT = frozenset({"AWS_CA_BUNDLE", "AIRBRIDGE_VERSION"})
_TAIL = 4000  # characters of a failed program's output that a person still reads


def neutral_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` without anything that configures AirBridge, AWS, compose or make."""
    return {name: value for name, value in environ.items() if name in _KEPT or not _OURS.match(name)}


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs programs in one folder with one environment, behind a prefix such as ``nsenter ...`` if any."""

    cwd: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=lambda: neutral_environment(os.environ))
    prefix: tuple[str, ...] = ()

    def run(self, *command: str, check: bool = True, stdin: str | None = None) -> str:
        """Run to the end and return stdout.

        :raises AirbridgeError: it failed, unless ``check`` is off
        """
        done = subprocess.run(
            [*self.prefix, *command],
            cwd=self.cwd,
            env=dict(self.environment),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if check and done.returncode:
            raise AirbridgeError(
                f"{' '.join(command[:6])} ended with {done.returncode}: "
                f"{(done.stdout + done.stderr)[-_TAIL:].strip()}"
            )
        return done.stdout

    def lines(self, *command: str) -> Iterator[str]:
        """Run to the end and yield the lines of stdout as they come.

        :raises AirbridgeError: it failed
        """
        with (
            tempfile.TemporaryFile("w+", errors="replace") as errors,
            subprocess.Popen(
                [*self.prefix, *command],
                cwd=self.cwd,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
            ) as running,
        ):
            assert running.stdout
            try:
                yield from (line.rstrip("\n") for line in running.stdout)
            finally:
                running.terminate()  # nothing, once it has ended
            if code := running.wait():
                errors.seek(0)
                raise AirbridgeError(
                    f"{' '.join(command[:6])} ended with {code}: {errors.read()[-_TAIL:].strip()}"
                )
