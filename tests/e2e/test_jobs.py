"""Jobs of packages run on the edge, from the release that holds their code; nobody wrote a DAG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from _runs import JOBS, JOBS_THAT_WAIT
from _stack import DAG_BUCKET, ENVIRONMENT, ROOT, Compose, EdgeHost, Run, Stack, until

from airbridge.jobs.discovery import discover
from airbridge.manifest import MANIFEST_NAME, Manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASK = "run"
# Inside the container that a callback runs in: writes down what it is told.
ENDPOINT = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        open("/tmp/told", "a").write(self.path + " " + body + "\\n")
        self.send_response(204)
        self.end_headers()
HTTPServer(("127.0.0.1", 8099), Endpoint).serve_forever()
"""


def manifest_of(stack: Stack, package: str) -> Manifest:
    key = f"{ENVIRONMENT}/{package}/{MANIFEST_NAME}"
    found = read_manifest(stack.s3.get_object(Bucket=DAG_BUCKET, Key=key)["Body"].read(), package)
    assert found is not None
    return found


def publish(stack: Stack, root: Path) -> dict[str, Any]:
    """Publish jobs from this machine, as a developer or CI does."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "airbridge.jobs", "sync", "--publish", "--json", "--strict"],
        env=kept
        | {
            "ETL_PACKAGES_ROOT": str(root),
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{stack.s3_port}",
            "DAG_BUCKET": DAG_BUCKET,
            "ENVIRONMENT": ENVIRONMENT,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["package"]: row["outcome"] for row in json.loads(done.stdout)["releases"]}


def write(root: Path, name: str, text: str) -> None:
    file = root / "e2e_jobs/jobs" / f"{name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


@contextmanager
def listening(compose: Compose, service: str, stack: Stack, connection: str) -> Iterator[None]:
    """An HTTP endpoint in a container of ``service``, and the Airflow connection that leads to it."""
    compose("exec", "--detach", service, "python", "-c", ENDPOINT)
    stack.api.post(
        "/connections",
        {"connection_id": connection, "conn_type": "http", "host": "http://127.0.0.1", "port": 8099},
    )
    try:
        yield
    finally:
        stack.api.call("DELETE", f"/connections/{connection}")


def told(compose: Compose, service: str, dag_id: str) -> tuple[str, dict[str, Any]]:
    def read() -> list[str]:
        lines = compose.exec(service, "cat", "/tmp/told", check=False).stdout.splitlines()
        return [line for line in lines if f'"{dag_id}"' in line]

    path, _, body = until(f"{dag_id} told the webhook", read)[0].partition(" ")
    return path, json.loads(body)


def test_examples_are_published_before_anything_is_triggered(stack: Stack, job_runs: dict[str, Run]) -> None:
    """J1 to J4: by job-sync, before the DAG processor started."""
    assert job_runs
    found = discover(ROOT / "packages")
    for package in found.packages:
        manifest = manifest_of(stack, package.name)
        assert manifest.tool.startswith("airflow-control-plane/")
        assert manifest.dags == tuple(sorted(job.dag_id for job in found.jobs_of(package.name)))
    assert {job.dag_id for job in found.jobs} == {*JOBS, *JOBS_THAT_WAIT}
    shown = stack.api.get("/dags", tags=["auto-generated"], limit=100)["dags"]
    assert {*JOBS, *JOBS_THAT_WAIT} <= {dag["dag_id"] for dag in shown}
    started = {
        container["Config"]["Labels"]["com.docker.compose.service"]: container["State"]["StartedAt"]
        for container in stack.compose.containers()
    }
    assert started["job-sync"] < started["dag-processor"]


@pytest.mark.parametrize("dag_id", JOBS)
def test_example_job_succeeds_on_the_edge(stack: Stack, job_runs: dict[str, Run], dag_id: str) -> None:
    finished = stack.wait_for_run(job_runs[dag_id])
    assert finished.one(TASK).hostname == "a"
    log = stack.log_from_s3(finished.run, TASK, finished.one(TASK).try_number)
    assert "ended with exit code 0" in log


@pytest.mark.parametrize("dag_id", JOBS_THAT_WAIT)
def test_job_that_waits_runs_when_the_others_have_succeeded(
    stack: Stack, job_runs: dict[str, Run], dag_id: str
) -> None:
    """Two jobs of another package, and then one of its own."""
    assert job_runs

    def run() -> Run | None:
        rows = stack.api.get(f"/dags/{dag_id}/dagRuns")["dag_runs"]
        return Run(dag_id, rows[0]["dag_run_id"]) if rows else None

    finished = stack.wait_for_run(until(f"{dag_id} has a run", run))
    row = stack.api.get(finished.run.path)
    assert row["run_type"] == "asset_triggered"
    assert finished.one(TASK).hostname == "a"


def test_arguments_of_the_run_reach_the_job(stack: Stack, job_runs: dict[str, Run]) -> None:
    log = stack.log_from_s3(stack.wait_for_run(job_runs["orders_repeat_args"]).run, TASK)
    assert "argument 0: --one" in log
    assert "argument 1: two words" in log
    assert "argument 2" not in log


def test_arguments_of_a_wrong_type_are_refused_when_the_run_is_asked_for(
    stack: Stack, job_runs: dict[str, Run]
) -> None:
    assert job_runs
    body = {"logical_date": None, "conf": {"args": "--one"}}
    answer = stack.api.request("POST", "/dags/orders_repeat_args/dagRuns", json=body)
    assert answer.status_code == 400, answer.text
    assert "args" in answer.text


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ("exit code", "job orders.jobs.repeat_args ended with exit code 3"),
        ("left", "no orders today"),
        ("left", "job orders.jobs.old_script ended with exit code 1"),
        ("too slow", "AirflowTaskTimeout"),
        ("too big", "MemoryError"),
    ],
)
def test_job_that_fails_says_why_in_its_log(
    stack: Stack, job_runs: dict[str, Run], run: str, line: str
) -> None:
    finished = stack.wait_for_run(job_runs[run], "failed")
    assert line in stack.log_from_s3(finished.run, TASK)


def test_flaky_job_is_tried_again_until_it_succeeds(stack: Stack, job_runs: dict[str, Run]) -> None:
    finished = stack.wait_for_run(job_runs["orders_flaky_upload"])
    assert finished.one(TASK).try_number == 3
    for attempt in (1, 2):
        log = stack.log_from_s3(finished.run, TASK, attempt)
        assert f"the shop did not answer attempt {attempt}" in log


def test_everything_that_a_job_says_is_in_its_log(stack: Stack, job_runs: dict[str, Run]) -> None:
    log = stack.log_from_s3(stack.wait_for_run(job_runs["orders_talk"]).run, TASK)
    for line in ("said to stdout", "said to stderr", "said to the log", "warned in the log"):
        assert line in log


def test_webhook_is_told_by_the_worker_when_a_job_fails(
    stack: Stack, edge: EdgeHost, job_runs: dict[str, Run]
) -> None:
    assert job_runs
    with listening(edge.compose, "edge-worker", stack, "orders_alarm"):
        run = stack.trigger("orders_ring_bell", {"args": ["--fail"]})
        stack.wait_for_run(run, "failed")
        path, facts = told(edge.compose, "edge-worker", run.dag_id)
    assert path == "/alarm"
    assert facts["event"] == "job_failed"
    assert facts["run_id"] == run.run_id
    assert facts["error"] == "job orders.jobs.ring_bell ended with exit code 3"


def test_webhook_is_told_of_a_missed_deadline(stack: Stack, edge: EdgeHost, tmp_path: Path) -> None:
    """Nobody serves the queue, so no worker could tell: the DAG processor does."""
    assert edge
    write(
        tmp_path,
        "late",
        """
        from airbridge.jobs import Job
        def main(argv): ...
        JOB = Job(
            main, "Never starts", queue="nobody", dagrun_timeout="5s", on_failure={"webhook": "e2e_deadline"}
        )
        """,
    )
    assert publish(stack, tmp_path)["e2e_jobs"] == "published"
    with listening(stack.compose, "dag-processor", stack, "e2e_deadline"):
        run = stack.trigger("e2e_jobs_late")
        stack.wait_for_run(run, "failed")
        _, facts = told(stack.compose, "dag-processor", run.dag_id)
    assert facts["event"] == "deadline_missed"
    assert facts["run_id"] == run.run_id


def test_run_finishes_on_the_code_that_it_started_with(stack: Stack, edge: EdgeHost, tmp_path: Path) -> None:
    """S8: a second release was published between two attempts."""
    assert edge
    text = """
        import os
        from airbridge.jobs import Job
        def main(argv):
            print("this is release RELEASE")
            return 0 if os.environ["AIRFLOW_CTX_TRY_NUMBER"] != "1" or "once" in argv else 1
        JOB = Job(main, "Say which release it is", retries=1, retry_delay="10s")
        """
    write(tmp_path, "versioned", text.replace("RELEASE", "one"))
    publish(stack, tmp_path)
    run = stack.trigger("e2e_jobs_versioned")
    stack.wait_for_task(run, TASK, ["up_for_retry"])
    write(tmp_path, "versioned", text.replace("RELEASE", "two"))
    assert publish(stack, tmp_path)["e2e_jobs"] == "published"
    stack.wait_for_run(run)
    assert "this is release one" in stack.log_from_s3(run, TASK, 2)
    until("a new run is of the second release", lambda: _says(stack, "two"))


def _says(stack: Stack, release: str) -> bool:
    run = stack.trigger("e2e_jobs_versioned", {"args": ["once"]})
    stack.wait_for_run(run)
    return f"this is release {release}" in stack.log_from_s3(run, TASK)


def test_job_that_is_gone_disappears(stack: Stack, edge: EdgeHost, tmp_path: Path) -> None:
    """J3; and what another folder published stays."""
    assert edge
    write(tmp_path, "brief", "def main(argv): ...\nJOB = (main, 'Brief')\n")
    write(tmp_path, "stays", "def main(argv): ...\nJOB = (main, 'Stays')\n")
    publish(stack, tmp_path)
    stack.wait_for_dag("e2e_jobs_brief")
    (tmp_path / "e2e_jobs/jobs/brief.py").unlink()
    assert publish(stack, tmp_path) == {"e2e_jobs": "published"}
    until(
        "the DAG is gone",
        lambda: (stack.api.find("/dags/e2e_jobs_brief") or {"is_stale": True}).get("is_stale", False),
    )
    assert stack.api.find("/dags/e2e_jobs_stays")
    assert manifest_of(stack, "orders").dags


def test_job_sync_is_small_and_says_what_it_did(stack: Stack) -> None:
    lines = [line.partition("| ")[2] for line in stack.compose.logs("job-sync").splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert {event["package"] for event in events if event["event"] == "published"} >= {"orders", "reporting"}
    read = "cat /sys/fs/cgroup/memory.current || cat /sys/fs/cgroup/memory/memory.usage_in_bytes"
    usage = stack.compose.exec("job-sync", "sh", "-c", f"({read}) 2>/dev/null")
    assert int(usage.stdout) < 200 * 2**20
