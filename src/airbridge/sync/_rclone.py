"""Let rclone move the objects that changed into a staging directory.

rclone gets an explicit list of files and asks S3 for exactly these (one GET each, no listing, no HEAD); its
credentials travel in its environment, never on a command line that every process can read. What arrived is
checked by the caller against the listing, so rclone's own checks, which misread the ETag of encrypted
objects, are off.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airbridge.errors import AirbridgeError
from airbridge.sync.s3 import ca_bundle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airbridge.sync._settings import Settings
    from airbridge.sync.s3 import Credentials

__all__ = ["Rclone", "Transfer"]

_REMOTE = "dags"  # name of the remote; its configuration is RCLONE_CONFIG_DAGS_*
_PASSED_ON = (
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "TMPDIR",
)
_FLAGS = (
    "--config", "",  # nothing but the environment
    "--no-traverse", "--s3-no-head-object", "--no-check-dest",  # one GET a file
    "--ignore-checksum",
    "--inplace",  # staging is private, and a name of 255 bytes leaves no room for ".partial"
    "--s3-encoding", "Raw", "--local-encoding", "Raw", "--no-unicode-normalization",  # names byte for byte
    "--buffer-size", "0", "--multi-thread-streams", "0", "--transfers", "8",
    "--retries", "1", "--low-level-retries", "3", "--contimeout", "5s", "--timeout", "30s",
    "--use-json-log", "--log-level", "INFO", "--stats", "0",
)  # fmt: skip


class Transfer(NamedTuple):
    """What rclone said: files and bytes copied, errors by path, and errors that belong to no path."""

    files: int
    size: int
    errors: dict[str, str]
    general: list[str]


class Rclone:
    """Runs rclone for one source; one process at a time."""

    def __init__(self, settings: Settings) -> None:
        """Find rclone on ``PATH``, or beside the Python that runs this (where pip puts it)."""
        beside = str(Path(sys.executable).parent)
        found = shutil.which("rclone") or shutil.which("rclone", path=beside)
        if found is None:
            raise AirbridgeError("rclone was not found on PATH", fix="install rclone 1.63 or newer")
        self._program = found
        self._settings = settings

    def copy(self, paths: Iterable[str], target: Path, credentials: Credentials) -> Transfer:
        """Copy the objects at ``paths`` (keys without the prefix) to the same paths under ``target``."""
        names = target.with_name(target.name + ".list")
        names.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
        source = f"{_REMOTE}:{self._settings.dag_bucket}/{self._settings.environment}"
        command = [self._program, "copy", source, str(target), "--files-from-raw", str(names), *_FLAGS]
        process = subprocess.Popen(
            command,
            env=self._environment(credentials),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        files = size = 0
        errors: dict[str, str] = {}
        general: list[str] = []
        try:
            assert process.stderr is not None  # noqa: S101  (asked for above)
            for line in process.stderr:
                try:
                    entry = json.loads(line)
                except ValueError:
                    general.append(line.strip())
                    continue
                if entry.get("level") in {"error", "critical"}:
                    if "object" in entry:
                        errors[entry["object"]] = str(entry.get("msg"))
                    else:
                        general.append(str(entry.get("msg")))
                elif str(entry.get("msg")).startswith("Copied"):
                    files += 1
                    size += int(entry.get("size", 0))
            if process.wait() != 0 and not errors and not general:
                general.append(f"rclone ended with status {process.returncode}")
        finally:
            if process.poll() is None:  # SIGTERM while it runs
                process.kill()
                process.wait()
        return Transfer(files, size, errors, general)

    def _environment(self, credentials: Credentials) -> dict[str, str]:
        endpoint = self._settings.s3_endpoint_url
        values = {
            "TYPE": "s3",
            "PROVIDER": "Other" if endpoint else "AWS",
            "ENDPOINT": endpoint,
            "REGION": self._settings.aws_default_region,
            "FORCE_PATH_STYLE": "true" if endpoint or "." in self._settings.dag_bucket else "false",
            "ACCESS_KEY_ID": credentials.access_key,
            "SECRET_ACCESS_KEY": credentials.secret_key,
            "SESSION_TOKEN": credentials.token,
        }
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {
            f"RCLONE_CONFIG_{_REMOTE.upper()}_{name}": value for name, value in values.items() if value
        }
        environment["GOMEMLIMIT"] = "64MiB"  # collect rather than grow; it is a soft limit
        if endpoint.startswith("https") or not endpoint:
            environment["RCLONE_CA_CERT"] = ca_bundle()
        return environment
