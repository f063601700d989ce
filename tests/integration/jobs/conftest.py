"""The example jobs and some of the tests' own, generated, inside the real control-plane image."""

from __future__ import annotations

import textwrap
import time
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jobs_bucket import LOCALSTACK_IMAGE, Site
from jobs_in_image import Airflow, Finished
from testcontainers.core.container import DockerContainer

from airbridge.jobs._dags_folder import write_folder
from airbridge.jobs._release_files import PackageFiles, build_package
from airbridge.jobs.discovery import discover
from airbridge.jobs.generation import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
# Two cores.
RUNS_AT_A_TIME = 2
READY_WITHIN_SECONDS = 60

PROBES = {
    "everything": """
        from airbridge.jobs import Job
        def main(argv): print("got", argv)
        JOB = Job(
            main, "Every option", schedule=["0 5 * * *", "0 17 * * *"], timezone="Europe/Berlin",
            start_date="2026-01-01T05:30", end_date="2027-01-01", catchup=True,
            args=["--day", "{{ ds }}", "{{ params.day }}"], params={"day": "x", "n": None}, retries=2,
            retry_delay="1s", retry_exponential_backoff=True, max_retry_delay="2s", execution_timeout="1m",
            dagrun_timeout="1h", queue="gpu", pool="small", pool_slots=2, priority_weight=3,
            max_active_runs=2, cpu=1, memory="512Mi",
            on_failure={"slack": "ops", "email": ["a@example.org"], "webhook": {"connection": "hook"}},
            group="g", tags=["t"], owner="Somebody",
        )
        """,
    "every": 'def main(argv): ...\nJOB = (main, "x", {"schedule": {"every": "15m"}})\n',
    "once": 'def main(argv): ...\nJOB = (main, "x", {"schedule": "@once", "start_date": "2026-01-01"})\n',
    "continuous": (
        'def main(argv): ...\nJOB = (main, "x", {"schedule": "@continuous", "start_date": "2026-01-01"})\n'
    ),
    "timetable": (
        'def main(argv): ...\nJOB = (main, "x", {"schedule": {"timetable": '
        '"airflow.timetables.trigger.CronTriggerTimetable", "args": ["@daily"], '
        '"kwargs": {"timezone": "UTC"}}})\n'
    ),
    "any_asset": 'def main(argv): ...\nJOB = (main, "x", {"schedule": {"any_asset": ["s3://a/b", "c"]}})\n',
    "hostile": (
        "def main(argv): print(argv)\n"
        "JOB = (main, '\"); import os; os.abort() #', {'args': ['\\'\"\\\\\\n{{ \"}}\" }}', '# x']})\n"
    ),
    "raises": 'def main(argv): raise ZeroDivisionError("by nothing")\nJOB = (main, "x")\n',
    "bell": """
        from airbridge.jobs import Job
        def main(argv): return 7
        JOB = Job(main, "Fails", on_failure={"webhook": {"connection": "hook", "endpoint": "alarm"}})
        """,
    "slow": """
        import time
        from airbridge.jobs import Job
        def main(argv): time.sleep(60)
        JOB = Job(main, "Slow", execution_timeout="2s")
        """,
}


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the DAGs of the example packages, and of one more package."""
    root = tmp_path_factory.mktemp("packages")
    folder = tmp_path_factory.mktemp("dags")
    for name, text in PROBES.items():
        file = root / "probe/jobs" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    for place in (ROOT / "packages", root):
        found = discover(place)
        for package in found.packages:
            files = build_package(found, package, Code.RELEASE)
            assert isinstance(files, PackageFiles), files
            write_folder(folder, [files], remove_stale=False)
        assert found.problems == ()
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def airflow(dags: Path) -> Iterator[Airflow]:
    """An Airflow with an empty database of its own."""
    with Airflow.running(dags) as started:
        yield started


@pytest.fixture(scope="session")
def runs(airflow: Airflow) -> Iterator[dict[str, Future[Finished]]]:
    """Every run that the tests look at, a few at a time."""
    arguments = {"args": ["--one", "two words", "{{ ds }}"]}
    hook = {
        "AIRFLOW_CONN_HOOK": "http://127.0.0.1:8099",
        "AIRFLOW_CONN_ORDERS_ALARM": "http://127.0.0.1:8099",
    }
    airflow.run("sh", "-c", "python /tests/webhook.py >/tmp/webhook.log 2>&1 &", check=True)
    with ThreadPoolExecutor(RUNS_AT_A_TIME) as pool:
        started = {
            "plain": pool.submit(airflow.run_dag, "orders_hello"),
            "arguments": pool.submit(airflow.run_dag, "orders_repeat_args", arguments),
            "own arguments": pool.submit(airflow.run_dag, "orders_repeat_args"),
            "wrong arguments": pool.submit(airflow.run_dag, "orders_talk", {"args": "--one"}),
            "exit code": pool.submit(airflow.run_dag, "orders_repeat_args", {"args": ["--exit-code", "3"]}),
            "system exit": pool.submit(airflow.run_dag, "orders_old_script", {"args": ["--leave-with", "4"]}),
            "said by exit": pool.submit(
                airflow.run_dag, "orders_old_script", {"args": ["--leave-with", "enough"]}
            ),
            "clean exit": pool.submit(airflow.run_dag, "orders_old_script"),
            "helper": pool.submit(airflow.run_dag, "orders_import_orders"),
            "memory": pool.submit(airflow.run_dag, "orders_big_merge", {"args": ["512"]}),
            "output": pool.submit(airflow.run_dag, "orders_talk"),
            "timeout": pool.submit(airflow.run_dag, "probe_slow"),
            "exception": pool.submit(airflow.run_dag, "probe_raises"),
            "hostile": pool.submit(airflow.run_dag, "probe_hostile"),
            "webhook": pool.submit(airflow.run_dag, "probe_bell", None, **hook),
            "task": pool.submit(airflow.test_task, "orders_import_orders"),
        }
        yield started


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The project's S3 service."""
    with DockerContainer(LOCALSTACK_IMAGE).with_env("SERVICES", "s3").with_exposed_ports(4566) as container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(4566)}"
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{url}/_localstack/health", timeout=3):
                    break
            except OSError:
                assert time.monotonic() < deadline, container.get_logs()
                time.sleep(0.2)
        yield url


@pytest.fixture
def site(s3_url: str, tmp_path: Path) -> Site:
    """A packages' root and a bucket of one test's own."""
    root = tmp_path / "packages"
    root.mkdir()
    return Site(root, s3_url)
