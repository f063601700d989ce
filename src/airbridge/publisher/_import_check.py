"""The real half of ``validate``: import the release in a throw-away container of the control-plane image.

The container has no network, no capability, no writable disk, bounded memory, processes and time. The release
goes in through standard input, so this works with an engine on another machine too.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from airbridge.errors import UnreachableError
from airbridge.publisher._findings import Finding, finding
from airbridge.publisher._static import judge_dag_id, judge_dag_owner

if TYPE_CHECKING:
    from airbridge.publisher._catalog import Claims
    from airbridge.publisher._files import LocalFile, Snapshot

__all__ = ["IMPORT_SECONDS", "ImportCheck", "Imported", "import_release", "unavailable"]

IMPORT_SECONDS: Final = 120
"""How long importing a whole release may take; Airflow itself gives 30 s to one file."""

_NAME = "airbridge-import-check"
_ENGINE_SECONDS: Final = 20
_KILL_SECONDS: Final = 30
_MAX_ANSWER_CHARACTERS: Final = 16 * 1024 * 1024
_KILLED: Final = frozenset({137, 139})  # out of memory, or crashed
_DUPLICATE: Final = "AirflowDagDuplicatedIdException"
_CONTAINER: Final = (
    *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "50000:50000", "--memory", "1g", "--memory-swap", "1g", "--pids-limit", "128", "--cpus", "2"),
    *("--tmpfs", "/tmp:rw,nosuid,nodev,size=256m,mode=1777"),  # noqa: S108  (the container's own)
    *("--log-driver", "none", "--stop-timeout", "1"),
)
_ENVIRONMENT: Final = {
    "AIRFLOW_HOME": "/tmp/airflow",  # noqa: S108  (the container's own tmpfs)
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////tmp/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/tmp/logs",  # noqa: S108
    "PYTHONWARNINGS": "ignore",
}


class ImportCheck(StrEnum):
    """When to import for real: where it can be done, always, or never."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(slots=True)
class Imported:
    """What the real import found; ``complete`` when it ran to its end."""

    dags: dict[str, str] = field(default_factory=dict)
    """File, as the manifest writes it, by DAG id."""
    findings: list[Finding] = field(default_factory=list)
    complete: bool = False


def unavailable(image: str) -> str:
    """Return why nothing can be imported here; empty when it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        done = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Id}}", image],
            capture_output=True,
            text=True,
            timeout=_ENGINE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "the Docker engine does not answer"
    if done.returncode == 0:
        return ""
    missing = "no such" in done.stderr.lower()
    return f"the image {image} is not here" if missing else "the Docker engine does not answer"


def import_release(
    snapshot: Snapshot,
    package: str,
    *,
    image: str,
    mode: ImportCheck = ImportCheck.AUTO,
    others: Claims | None = None,
    seconds: float = IMPORT_SECONDS,
) -> Imported:
    """Import the files of a release of ``package``.

    Raises :class:`airbridge.errors.UnreachableError` when ``mode`` is always and it cannot be done.
    """
    if mode is ImportCheck.NEVER or not any(file.is_python for file in snapshot.files):
        return Imported()
    if why := unavailable(image):
        if mode is ImportCheck.ALWAYS:
            raise UnreachableError(
                f"the release cannot be imported: {why}",
                fix="make build-control-plane, name another image with AIRBRIDGE_AIRFLOW_IMAGE, or "
                "--import-check auto",
            )
        return Imported(findings=[finding("ABP503", f"the release was read, not imported: {why}")])
    return _judge(_run(snapshot, package, image, seconds), snapshot, package, others)


def _run(snapshot: Snapshot, package: str, image: str, seconds: float) -> dict[str, Any] | str:
    """Return what the container reported, or why it did not."""
    name = f"{_NAME}-{uuid.uuid4().hex[:12]}"
    probe = resources.files("airbridge.publisher").joinpath("_probe.py").read_text(encoding="utf-8")
    environment = [part for item in _ENVIRONMENT.items() for part in ("--env", "=".join(item))]
    command = [
        *("docker", "run", "--rm", "--interactive", "--pull", "never", "--name", name, *_CONTAINER),
        *(*environment, "--entrypoint", "python", image, "-c", probe),
    ]
    try:
        done = subprocess.run(
            command, input=_archive(snapshot, package), capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"importing the release did not end within {seconds:g} s"
    except OSError as error:
        return f"the container could not be started: {error.strerror}"
    finally:
        # Also when this program is interrupted: the container must not outlive it.
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", name],
            capture_output=True,
            timeout=_KILL_SECONDS,
            check=False,
        )
    if done.returncode == 0 and len(done.stdout) <= _MAX_ANSWER_CHARACTERS:
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer
        except ValueError:
            return "importing the release ended without an answer"
    if done.returncode in _KILLED:
        return "importing the release was killed: it takes more than 1 GiB of memory, or crashes Python"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["without a word"]
    return f"importing the release ended with exit code {done.returncode}: {last[0][:300]}"


def _archive(snapshot: Snapshot, package: str) -> bytes:
    """Return the release as a tar archive, where the DAG store would have it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in snapshot.files:
            entry = tarfile.TarInfo(f"{package}/{file.path}")
            entry.size, entry.mode = len(file.content), 0o444
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _judge(answer: dict[str, Any] | str, snapshot: Snapshot, package: str, others: Claims | None) -> Imported:
    if isinstance(answer, str):
        return Imported(findings=[finding("ABP502", answer)])
    files: dict[str, LocalFile] = {f"{package}/{file.path}": file for file in snapshot.files}

    def shown(name: object) -> str:
        file = files.get(str(name))
        return file.shown if file is not None else str(name)

    imported = Imported(complete=True)
    for error in answer["errors"]:
        message = str(error["message"])
        code = "ABP204" if _DUPLICATE in message else "ABP501"
        imported.findings.append(finding(code, message, file=shown(error["file"]), line=int(error["line"])))
    for dag in answer["dags"]:
        dag_id, name = str(dag["dag_id"]), str(dag["file"])
        imported.dags[dag_id] = name.removeprefix(f"{package}/")
        imported.findings += judge_dag_id(dag_id, package, file=shown(name), line=0)
        if others is not None:
            imported.findings += judge_dag_owner(dag_id, others, file=shown(name), line=0)
    return imported
