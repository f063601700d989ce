"""Ten thousand DAG files in two hundred packages: what it costs to look, and to follow one change.

dag-sync against what else brings a prefix of S3 to a disk: ``aws s3 sync``, ``rclone sync`` and the amazon
provider's ``S3DagBundle``. All of them read the same bucket of one LocalStack, one after another, as they
come out of the box: from nothing (*first*), with nothing changed (*unchanged*), and after one file got
another content of the same size (*change*). Requests are what LocalStack logged meanwhile. A program that is
started for each pass counts with its start: that is how it runs every 30 s.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import httpx
from botocore.config import Config

from airbridge.errors import AirbridgeError
from airbridge.manifest import MANIFEST_NAME, Manifest, ManifestFile, new_release_id, now
from bench._cleanup import removing
from bench._idle import engine_client, read_sample
from bench._progress import say
from bench._shell import Shell
from bench._stack import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FOLLOWERS", "dag_file", "measure"]

FOLLOWERS: Final = {
    "dag_sync": "dag-sync",
    "rclone": "rclone sync",
    "aws": "aws s3 sync",
    "bundle": "S3DagBundle",
}
"""Who follows the bucket, and how a page calls them."""

_BUCKET: Final = "scale"
_ENVIRONMENT: Final = "dev"
_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "airbridge",
    "AWS_SECRET_ACCESS_KEY": "airbridge",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_NAME: Final = f"airbridge-bench-scale-{os.getpid()}"
# Many short requests to one LocalStack on the same cores: more at a time is slower.
_UPLOADS_AT_ONCE: Final = 8
_REQUEST = re.compile(r"AWS s3\.(\w+) =>")
_OPERATIONS: Final = 'file_operations_total{operation="changed"}'
_UNCHANGED_PASSES: Final = 5
_CHANGED: Final = "scale_000"
_CHANGED_FILE: Final = 3
_BUNDLE_PROGRAM: Final = """
import json, sys
from airflow.providers.amazon.aws.bundles.s3 import S3DagBundle

bundle = S3DagBundle(name="scale", bucket_name=sys.argv[1], prefix=sys.argv[2], aws_conn_id="aws_scale")
first = True
for line in sys.stdin:
    order, _, path = line.strip().partition(" ")
    answer = ""
    if order == "pass" and first:
        bundle.initialize()
        first = False
    elif order == "pass":
        bundle.refresh()
    elif order == "read":
        answer = (bundle.path / path).read_text()
    print("scale: " + json.dumps(answer), flush=True)
"""
"""Airflow's start is not what is measured: one process looks again when it is told to."""


def dag_file(package: str, number: int, edition: int) -> str:
    """Return one DAG file; every edition (0 to 9) of it has the same size."""
    return (
        "from datetime import datetime\nfrom airflow.sdk import DAG\n\n"
        f'with DAG("{package}_{number:03d}", schedule=None, start_date=datetime(2024, 1, 1)):\n    pass\n'
        f"# edition {edition}\n" + "# what a DAG file of about a kilobyte says about itself\n" * 14
    )


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A LocalStack in a container of its own, and a folder for what the followers write."""

    shell: Shell
    folder: Path
    url: str
    s3: Any
    packages: int
    files: int
    releases: dict[str, dict[str, ManifestFile]] = field(default_factory=dict)
    """The files of each package's release, by path."""

    def requests(self) -> int:
        """Return how many S3 requests LocalStack has logged so far."""
        return len(_REQUEST.findall(self.shell.run("sh", "-c", f"docker logs {_NAME} 2>&1")))

    def publish(self, package: str, editions: dict[int, int]) -> None:
        """Put the files in these editions, by number, and then the manifest of the whole release."""
        release = self.releases.setdefault(package, {})
        for number, edition in editions.items():
            path = _path(package, number)
            body = dag_file(package, number, edition).encode()
            answer = self.s3.put_object(Bucket=_BUCKET, Key=f"{_ENVIRONMENT}/{package}/{path}", Body=body)
            release[path] = ManifestFile(
                path=path,
                sha256=hashlib.sha256(body).hexdigest(),
                size=len(body),
                etag=answer["ETag"].strip('"'),
                version_id=answer["VersionId"],
            )
        when = now()
        name = new_release_id(when, {path: file.sha256 for path, file in release.items()})
        manifest = Manifest(package, name, when, "bench", when, "bench", tuple(release.values()))
        key = f"{_ENVIRONMENT}/{package}/{MANIFEST_NAME}"
        self.s3.put_object(Bucket=_BUCKET, Key=key, Body=manifest.to_bytes())

    def fill(self) -> None:
        """Write every package."""
        packages = [f"scale_{number:03d}" for number in range(self.packages)]
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
            for _ in pool.map(lambda name: self.publish(name, dict.fromkeys(range(self.files), 0)), packages):
                pass


def _path(package: str, number: int) -> str:
    return f"dags/{package}_{number:03d}.py"


def _image(name: str) -> str:
    return f"airbridge/{name}:{os.environ.get('AIRBRIDGE_VERSION', '0.1.0')}"


def _address(shell: Shell, container: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return shell.run("docker", "inspect", "--format", form, container).strip()


def _answers(url: str) -> bool | None:
    with contextlib.suppress(httpx.HTTPError):
        return True if httpx.get(url, trust_env=False).is_success else None
    return None


@contextmanager
def _container(shell: Shell, name: str, *arguments: str) -> Iterator[None]:
    shell.run("docker", "run", "--detach", "--name", name, *arguments)
    with removing(lambda: shell.run("docker", "rm", "--force", "--volumes", name)):
        yield


@contextmanager
def _filled_bucket(packages: int, files: int) -> Iterator[_Bucket]:
    shell = Shell()
    with (
        tempfile.TemporaryDirectory(prefix="airbridge-bench-scale.", dir="/var/tmp") as folder,
        _container(shell, _NAME, "--env", "SERVICES=s3", _image("localstack")),
    ):
        url = f"http://{_address(shell, _NAME)}:4566"
        until("LocalStack answers", lambda: _answers(f"{url}/_localstack/health"), every=0.5)
        s3 = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id=_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=_KEYS["AWS_DEFAULT_REGION"],
            config=Config(s3={"addressing_style": "path"}, proxies={}, max_pool_connections=32),
        )
        s3.create_bucket(Bucket=_BUCKET)
        s3.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": "Enabled"})
        bucket = _Bucket(shell, Path(folder), url, s3, packages, files)
        say("scale", f"writing {packages * files} files in {packages} packages")
        bucket.fill()
        yield bucket


# --- one pass after another -----------------------------------------------------------------------------


def _timed(step: Callable[[], object]) -> float:
    started = time.monotonic()
    step()
    return time.monotonic() - started


def _passes(
    bucket: _Bucket, one_pass: Callable[[], object], read: Callable[[str], str], edition: int
) -> dict[str, Any]:
    """Take the passes of a follower that is told when to look; ``read`` returns its copy of a file."""
    first_s = _timed(one_pass)
    started = bucket.requests()
    unchanged_s = [_timed(one_pass) for _ in range(_UNCHANGED_PASSES)]
    unchanged = bucket.requests() - started
    bucket.publish(_CHANGED, {_CHANGED_FILE: edition})
    started = bucket.requests()
    change_s = _timed(one_pass)
    change = bucket.requests() - started
    seen = read(f"{_CHANGED}/{_path(_CHANGED, _CHANGED_FILE)}") == dag_file(_CHANGED, _CHANGED_FILE, edition)
    return {
        "first_s": round(first_s, 2),
        "unchanged_s": round(statistics.median(unchanged_s), 3),
        "unchanged_requests": round(unchanged / _UNCHANGED_PASSES, 1),
        "change_s": round(change_s, 3),
        "change_requests": change,
        "same_size_edit_seen": seen,
    }


def _program(bucket: _Bucket, name: str, command: list[str], edition: int) -> dict[str, Any]:
    target = bucket.folder / name
    shell = Shell(environment={**bucket.shell.environment, **_KEYS})
    return _passes(
        bucket,
        lambda: shell.run(*command, str(target)),
        lambda path: (target / path).read_text(),
        edition,
    )


def _rclone(bucket: _Bucket, edition: int) -> dict[str, Any]:
    remote = f":s3,provider=Other,env_auth=true,endpoint='{bucket.url}':{_BUCKET}/{_ENVIRONMENT}"
    return _program(bucket, "rclone", [f"{sys.prefix}/bin/rclone", "sync", remote], edition)


def _aws(bucket: _Bucket, edition: int) -> dict[str, Any]:
    source = f"s3://{_BUCKET}/{_ENVIRONMENT}/"
    command = [
        f"{sys.prefix}/bin/aws",
        "--endpoint-url",
        bucket.url,
        "s3",
        "sync",
        "--delete",
        "--quiet",
        source,
    ]
    return _program(bucket, "aws", command, edition)


def _bundle(bucket: _Bucket, edition: int) -> dict[str, Any]:
    connection = json.dumps({"conn_type": "aws", "extra": {"endpoint_url": bucket.url}})
    environment = {**_KEYS, "AIRFLOW_CONN_AWS_SCALE": connection, "AIRFLOW__LOGGING__REMOTE_LOGGING": "False"}
    name = f"{_NAME}-bundle"
    process = subprocess.Popen(
        [
            *("docker", "run", "--interactive", "--rm", "--name", name),
            *(part for key, value in environment.items() for part in ("--env", f"{key}={value}")),
            *(_image("airflow"), "python", "-c", _BUNDLE_PROGRAM, _BUCKET, _ENVIRONMENT),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    answers, questions = process.stdout, process.stdin

    def ask(question: str) -> str:
        questions.write(f"{question}\n")
        questions.flush()
        for line in answers:
            if line.startswith("scale: "):
                return str(json.loads(line.removeprefix("scale: ")))
        raise AirbridgeError("the process with S3DagBundle ended early", fix="docker logs shows why")

    with removing(lambda: bucket.shell.run("docker", "rm", "--force", name, check=False)):
        ask("start")
        return _passes(bucket, lambda: ask("pass"), lambda path: ask(f"read {path}"), edition)


# --- dag-sync: it looks by itself -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _DagSync:
    """dag-sync in a container, read through its metrics."""

    url: str

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics", trust_env=False).text
        match = re.search(rf"(?m)^{re.escape('airbridge_dag_sync_' + name)} (\S+)$", text)
        return float(match[1]) if match else 0.0

    def polls(self) -> tuple[float, float]:
        """Return seconds and number of all polls so far."""
        name = 'pass_duration_seconds_{}{{kind="poll"}}'
        return self.metric(name.format("sum")), self.metric(name.format("count"))


def _memory(container: str) -> float:
    with engine_client() as engine:
        answer = engine.get(f"/containers/{container}/stats", params={"stream": "false", "one-shot": "true"})
        return read_sample(answer.json()).memory_mib


def _dag_sync(bucket: _Bucket, edition: int) -> dict[str, Any]:
    name = f"{_NAME}-sync"
    settings = {
        **_KEYS,
        "DAG_BUCKET": _BUCKET,
        "ENVIRONMENT": _ENVIRONMENT,
        "S3_ENDPOINT_URL": bucket.url,
        # Full passes, which read every file again, stay out of the polls that are measured.
        "DAG_SYNC_INTERVAL": "3600",
    }
    options = [part for key, value in settings.items() for part in ("--env", f"{key}={value}")]
    started = time.monotonic()
    with _container(bucket.shell, name, "--memory", "512m", *options, _image("dag-sync")):
        sync = _DagSync(f"http://{_address(bucket.shell, name)}:8081")
        until("dag-sync is healthy", lambda: _answers(f"{sync.url}/healthz"), every=0.2)
        first_s = time.monotonic() - started
        peak = _memory(name)

        requests, (seconds, count) = bucket.requests(), sync.polls()
        until(
            "dag-sync has polled",
            lambda: True if sync.polls()[1] >= count + _UNCHANGED_PASSES else None,
            every=0.2,
        )
        now_seconds, now_count = sync.polls()
        looked = bucket.requests() - requests
        unchanged_s = (now_seconds - seconds) / (now_count - count)
        moved = sync.metric("transferred_files_total")
        done = sync.metric(_OPERATIONS)

        bucket.publish(_CHANGED, {_CHANGED_FILE: edition})
        requests, (seconds, _) = bucket.requests(), sync.polls()
        change_s = _timed(
            lambda: until(
                "the change is there", lambda: True if sync.metric(_OPERATIONS) > done else None, every=0.05
            )
        )
        peak = max(peak, _memory(name))
        path = f"/store/current/{_CHANGED}/{_path(_CHANGED, _CHANGED_FILE)}"
        copy = bucket.shell.run("docker", "exec", name, "cat", path)
        return {
            "first_s": round(first_s, 2),
            "unchanged_s": round(unchanged_s, 3),
            "unchanged_requests": round(looked / (now_count - count), 1),
            "change_s": round(change_s, 3),
            "change_requests": bucket.requests() - requests,
            "same_size_edit_seen": copy == dag_file(_CHANGED, _CHANGED_FILE, edition),
            "change_moved_files": sync.metric("transferred_files_total") - moved,
            "memory_mib": round(peak, 1),
        }


_FOLLOW: Final[dict[str, Callable[[_Bucket, int], dict[str, Any]]]] = {
    "dag_sync": _dag_sync,
    "rclone": _rclone,
    "aws": _aws,
    "bundle": _bundle,
}


def measure(*, packages: int, files: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of so many packages with so many files each."""
    numbers: dict[str, Any] = {}
    with _filled_bucket(packages, files) as bucket:
        for edition, (name, follow) in enumerate(_FOLLOW.items(), start=1):
            numbers[name] = follow(bucket, edition)
            say("scale", f"{FOLLOWERS[name]}: {numbers[name]}")
    ours = numbers["dag_sync"]
    ratios = {
        f"{name}/dag_sync": {
            what: round(numbers[name][what] / ours[what], 1)
            for what in ("first_s", "unchanged_s", "change_s")
        }
        for name in FOLLOWERS
        if name != "dag_sync"
    }
    # A page of a listing holds a thousand keys; a package has its manifest beside its files.
    lists_allowed = -(-packages * (files + 1) // 1000)
    return {"followers": numbers, "ratios": ratios, "lists_allowed": lists_allowed}, {}
