"""Releases of a package: published whole, followed by every host, rolled back, and finished by the runs that
began on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _stack import DAG_BUCKET, ENVIRONMENT, until

from airbridge.publisher.api import publish_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _stack import Done, EdgeHost, Run, Stack

# Two tasks that tell which release they run; the first lasts for a while.
TWO_STEPS = '''"""Tells which release runs."""

from datetime import UTC, datetime

from airflow.sdk import dag, task

RELEASE = "{release}"


@dag(dag_id="{dag_id}", description="{release}", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC))
def _made():
    @task(queue="{queue}")
    def first():
        import time

        print("first runs release", RELEASE)
        time.sleep({pause})

    @task(queue="{queue}")
    def second():
        print("second runs release", RELEASE)

    first() >> second()


_made()
'''

# Four files that must be of one release: each looks at all of them when it is parsed and when it runs.
SIBLING = '''"""One of several files that belong together."""

import re
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import dag, task

RELEASE = {release}


def _releases():
    return {{
        int(re.search(r"(?m)^RELEASE = (\\d+)$", file.read_text())[1])
        for file in Path(__file__).parent.glob("{package}_*.py")
    }}


if _releases() != {{RELEASE}}:
    raise RuntimeError(f"a mixed release is seen: {{_releases()}} beside {{RELEASE}}")


@dag(dag_id="{dag_id}", description="{release}", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC))
def _made():
    @task(retries=0)
    def first():
        if _releases() != {{RELEASE}}:
            raise RuntimeError(f"a mixed release runs: {{_releases()}} beside {{RELEASE}}")
        return RELEASE

    @task(retries=0)
    def second(begun):
        if begun != RELEASE:
            raise RuntimeError(f"the run began on release {{begun}} and goes on with {{RELEASE}}")

    second(first())


_made()
'''
# Seconds that a task runs: so long that two publishes fit in, on a busy machine as well.
PAUSE_S = 20
LOOKS_AROUND = "ABP401"  # files that are read while a DAG file is parsed: here that is the point
SIBLINGS = ("a", "b", "c", "d")
STORM_SECONDS = 20.0
STORM_EVERY_S = 0.2


class Publisher:
    """``airflow-dag-publisher`` as a package team runs it, against the stack of these tests."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DAG_BUCKET": DAG_BUCKET,
            "ENVIRONMENT": ENVIRONMENT,
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{stack.s3_port}",
            "AIRBRIDGE_API_URL": stack.api.base,
            "AIRBRIDGE_API_USER": "admin",
            "AIRBRIDGE_API_PASSWORD": stack.password,
        }

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        """Run it with ``--json`` and return what it prints."""
        program = Path(sys.executable).with_name("airflow-dag-publisher")
        done = subprocess.run(
            [str(program), *arguments, "--json"],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{said}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def publish(self, package: str, files: dict[str, str], *options: str) -> Any:
        """Publish these files, and nothing else, as the package's release."""
        dags = self.folder / package / "dags"
        dags.mkdir(parents=True, exist_ok=True)
        for old in dags.iterdir():
            old.unlink()
        for name, text in files.items():
            (dags / name).write_text(text)
        return self(
            "publish", "--package-name", package, "--dag-path", str(dags), "--import-check", "never", *options
        )


class QuickWriter:
    """The publisher's own code without the start of a process: fast enough for a storm."""

    def __init__(self, stack: Stack, folder: Path, package: str) -> None:
        self._folder = folder / package / "dags"
        self._folder.mkdir(parents=True)
        self._package = package
        self._endpoint = f"http://127.0.0.1:{stack.s3_port}"

    def publish(self, files: dict[str, str]) -> None:
        """Publish these files as the package's release."""
        for name, text in files.items():
            (self._folder / name).write_text(text)
        publish_folder(
            self._package,
            self._folder,
            published_by="storm",
            ignore=(LOOKS_AROUND,),
            dag_bucket=DAG_BUCKET,
            environment=ENVIRONMENT,
            s3_endpoint_url=self._endpoint,
        )


@pytest.fixture(scope="module")
def publisher(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(stack, tmp_path_factory.mktemp("publisher"))


@pytest.fixture(scope="module", autouse=True)
def _clean_packages(stack: Stack) -> Iterator[None]:
    yield
    for package in ("e2e_steps", "e2e_late", "e2e_half", "e2e_storm"):
        found = stack.s3.list_objects_v2(Bucket=DAG_BUCKET, Prefix=f"{ENVIRONMENT}/{package}/")
        stack.unpublish(row["Key"] for row in found.get("Contents", []))


def _two_steps(dag_id: str, release: str, queue: str = "default", pause: float = 0) -> str:
    return TWO_STEPS.format(dag_id=dag_id, release=release, queue=queue, pause=pause)


def _current(where: Stack | EdgeHost, service: str, path: str) -> str:
    """Return the text of a file in the current tree of a host, "" when there is none."""
    done: Done = where.exec(service, "cat", f"/store/current/{path}", check=False)
    return done.stdout if done.code == 0 else ""


def _await_release(stack: Stack, edge: EdgeHost, package: str, dag_id: str, release: str) -> None:
    """Return when the API and the edge host show it: ``--wait`` without the worker's report."""
    until(
        f"the API shows release {release}",
        lambda: (stack.api.find(f"/dags/{dag_id}") or {}).get("description") == release,
    )
    path = f"{package}/dags/{dag_id}.py"
    until(f"the edge host has {release}", lambda: f'"{release}"' in _current(edge, "edge-worker", path))


def test_publish_that_waits_returns_when_the_release_is_in_the_api_and_on_the_edge(
    stack: Stack, edge: EdgeHost, publisher: Publisher
) -> None:
    dag_id, path = "e2e_steps_waited", "e2e_steps/dags/e2e_steps_waited.py"
    for release in ("one", "two"):
        text = _two_steps(dag_id, release)
        publisher.publish("e2e_steps", {f"{dag_id}.py": text}, "--wait")
        assert stack.api.get(f"/dags/{dag_id}")["description"] == release
        assert _current(edge, "edge-worker", path) == text
    status = publisher("status", "e2e_steps")
    assert status


def test_run_finishes_on_the_release_it_began_with_although_two_more_are_published(
    stack: Stack, edge: EdgeHost, publisher: Publisher
) -> None:
    dag_id = "e2e_steps_pinned"
    publisher.publish("e2e_steps", {f"{dag_id}.py": _two_steps(dag_id, "one", pause=PAUSE_S)})
    _await_release(stack, edge, "e2e_steps", dag_id, "one")
    run = stack.trigger(dag_id)
    stack.wait_for_task(run, "first", ("running",))
    path = f"e2e_steps/dags/{dag_id}.py"
    for release in ("two", "three"):
        publisher.publish("e2e_steps", {f"{dag_id}.py": _two_steps(dag_id, release)})
        for where, service in ((stack, "scheduler"), (edge, "edge-worker")):
            until(
                f"release {release} is the current one of {service}",
                lambda where=where, service=service, release=release: (
                    f'"{release}"' in _current(where, service, path)
                ),
            )
    assert stack.run_state(run) == "running", "the run ended before both releases were there"
    stack.wait_for_run(run)
    assert "first runs release one" in stack.log_from_s3(run, "first")
    assert "second runs release one" in stack.log_from_s3(run, "second")
    after = stack.wait_for_run(stack.trigger(dag_id)).run
    assert "second runs release three" in stack.log_from_s3(after, "second")


def test_rollback_brings_an_earlier_release_back_with_one_write(
    stack: Stack, edge: EdgeHost, publisher: Publisher
) -> None:
    dag_id = "e2e_steps_rolled"
    good = publisher.publish("e2e_steps", {f"{dag_id}.py": _two_steps(dag_id, "good")})["release"]
    publisher.publish("e2e_steps", {f"{dag_id}.py": _two_steps(dag_id, "bad")})
    _await_release(stack, edge, "e2e_steps", dag_id, "bad")
    before = _versions(stack, "e2e_steps")
    publisher("rollback", good, "--package-name", "e2e_steps", "--wait")
    written = _versions(stack, "e2e_steps") - before
    assert {key for key, _ in written} == {f"{ENVIRONMENT}/e2e_steps/metadata.json"}
    assert len(written) == 1
    run = stack.wait_for_run(stack.trigger(dag_id)).run
    assert "second runs release good" in stack.log_from_s3(run, "second")


def _versions(stack: Stack, package: str) -> set[tuple[str, str]]:
    """Return every version and delete marker of the package's objects as (key, version id)."""
    pages = stack.s3.get_paginator("list_object_versions").paginate(
        Bucket=DAG_BUCKET, Prefix=f"{ENVIRONMENT}/{package}/"
    )
    return {
        (row["Key"], row["VersionId"])
        for page in pages
        for kind in ("Versions", "DeleteMarkers")
        for row in page.get(kind, [])
    }


def test_edge_host_that_was_away_fetches_the_release_of_a_waiting_run(
    stack: Stack, edge: EdgeHost, publisher: Publisher
) -> None:
    dag_id, queue = "e2e_late_pinned", "e2e-late"
    publisher.publish("e2e_late", {f"{dag_id}.py": _two_steps(dag_id, "old", queue)})
    _await_release(stack, edge, "e2e_late", dag_id, "old")
    run = stack.trigger(dag_id)
    stack.wait_for_task(run, "first", ("queued",))
    for release in ("newer", "newest"):
        publisher.publish("e2e_late", {f"{dag_id}.py": _two_steps(dag_id, release, queue)})
        _await_release(stack, edge, "e2e_late", dag_id, release)
    # A host that never saw the old release: its store begins with the newest.
    late = stack.edge("late", queue)
    try:
        stack.wait_for_run(run)
        assert "first runs release old" in stack.log_from_s3(run, "first")
        assert "second runs release old" in stack.log_from_s3(run, "second")
        assert "release newest" not in stack.log_from_s3(run, "second")
        assert 'RELEASE = "newest"' in _current(late, "edge-worker", f"e2e_late/dags/{dag_id}.py")
    finally:
        stack.edges.pop("late").remove()


def test_publish_that_died_before_its_manifest_changes_nothing_anywhere(
    stack: Stack, edge: EdgeHost, publisher: Publisher
) -> None:
    dag_id, path = "e2e_half_way", "e2e_half/dags/e2e_half_way.py"
    whole, half = _two_steps(dag_id, "whole"), _two_steps(dag_id, "half")
    publisher.publish("e2e_half", {f"{dag_id}.py": whole})
    _await_release(stack, edge, "e2e_half", dag_id, "whole")
    # What a publish does before it dies: the file is there, the manifest still names the one before.
    stack.put_dag("e2e_half", f"{dag_id}.py", half)
    stack.put_dag("e2e_half", "e2e_half_stray.py", _two_steps("e2e_half_stray", "half"))
    # Another package's release that came later and is everywhere: so both hosts have looked since.
    publisher.publish("e2e_steps", {"e2e_steps_after.py": _two_steps("e2e_steps_after", "after")})
    _await_release(stack, edge, "e2e_steps", "e2e_steps_after", "after")
    assert stack.api.get(f"/dags/{dag_id}")["description"] == "whole"
    assert stack.api.find("/dags/e2e_half_stray") is None
    for where, service in ((stack, "dag-processor"), (edge, "edge-worker")):
        assert _current(where, service, path) == whole
    publisher.publish("e2e_half", {f"{dag_id}.py": half})
    _await_release(stack, edge, "e2e_half", dag_id, "half")


def test_releases_in_quick_succession_are_never_mixed_and_lose_no_run(
    stack: Stack, edge: EdgeHost, publisher: Publisher, tmp_path: Path
) -> None:
    """A release every 200 ms while files are parsed and tasks run."""
    assert edge
    package = "e2e_storm"
    names = [f"{package}_{name}" for name in SIBLINGS]

    def files(release: int) -> dict[str, str]:
        return {f"{name}.py": SIBLING.format(release=release, package=package, dag_id=name) for name in names}

    publisher.publish(package, files(0), "--ignore", LOOKS_AROUND, "--wait")
    for name in names:
        stack.unpause(name)
    writer = QuickWriter(stack, tmp_path, package)
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        published = pool.submit(_repeat, stop, STORM_EVERY_S, lambda number: writer.publish(files(number)))
        mistakes = pool.submit(_watch_import_errors, stack, stop, package)
        runs: list[Run] = []
        deadline = time.monotonic() + STORM_SECONDS
        while time.monotonic() < deadline:
            runs.append(stack.trigger(names[len(runs) % len(names)]))
            time.sleep(1)
        stop.set()
        count = published.result()
        assert mistakes.result() == set()
    # However slow this machine is now: no run had a release for itself.
    assert count >= len(runs), f"only {count} releases for {len(runs)} runs: this was no storm"
    for run in runs:
        stack.wait_for_run(run)
    until(
        "the last release is in the API",
        lambda: {stack.api.get(f"/dags/{name}")["description"] for name in names} == {str(count)},
    )


def _repeat(stop: threading.Event, every: float, step: Callable[[int], None]) -> int:
    """Call ``step`` with 1, 2, 3 ... at this beat until ``stop``; return the last number."""
    number = 0
    due = time.monotonic()
    while not stop.is_set():
        number += 1
        step(number)
        due = max(due + every, time.monotonic())
        stop.wait(due - time.monotonic())
    return number


def _watch_import_errors(stack: Stack, stop: threading.Event, package: str) -> set[str]:
    """Return all import errors of the package's files that the API ever shows."""
    seen: set[str] = set()
    while not stop.is_set():
        rows = stack.api.get("/importErrors", limit=100)["import_errors"]
        seen |= {row["stack_trace"] for row in rows if package in row["filename"]}
        stop.wait(0.3)
    return seen
