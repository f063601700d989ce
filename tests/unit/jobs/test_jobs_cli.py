"""``airflow-control-plane``: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from airbridge.jobs._status import check_health, note_success

if TYPE_CHECKING:
    from pathlib import Path

    from job_packages import Packages

_SETTINGS = ("ETL_PACKAGES_ROOT", "AIRFLOW_DAGS_DIR", "JOB_SYNC_INTERVAL", "JOB_CODE", "JOB_SYNC_STATUS_FILE")
_PATIENCE_S = 30


def environment(**settings: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    return kept | {name: str(value) for name, value in settings.items()}


def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airbridge.jobs", *map(str, arguments)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
    )


def test_discover_prints_one_line_a_job_and_problems_beside(packages: Packages) -> None:
    packages.job(schedule="0 5 * * *", timezone="Europe/Berlin")
    packages.put("sales/jobs/broken.py", "def main(:\n")
    done = run("discover", ETL_PACKAGES_ROOT=packages.root)
    assert done.returncode == 0
    assert done.stdout == "sales_load\t0 5 * * * Europe/Berlin\tsales/jobs/load.py:3\tLoad\n"
    assert done.stderr.splitlines() == [
        "sales/jobs/broken.py:1: the module is no Python: invalid syntax | fix: correct the syntax",
        "1 jobs in 1 packages, 1 problems",
    ]


def test_discover_as_json_and_of_one_package(packages: Packages) -> None:
    packages.job()
    packages.job(package="other")
    packages.put("third/jobs/broken.py", "def main(:\n")
    done = run("discover", "--packages-root", packages.root, "--json", "--package", "sales")
    found = json.loads(done.stdout)
    assert [job["dag_id"] for job in found["jobs"]] == ["sales_load"]
    assert found["problems"] == []
    everything = json.loads(run("discover", "--packages-root", packages.root, "--json").stdout)
    assert [problem["file"] for problem in everything["problems"]] == ["third/jobs/broken.py"]


@pytest.mark.parametrize("command", ["discover", "generate", "sync"])
def test_strict_ends_with_six_when_something_was_left_out(
    packages: Packages, tmp_path: Path, command: str
) -> None:
    packages.job()
    settings = {"ETL_PACKAGES_ROOT": packages.root, "AIRFLOW_DAGS_DIR": tmp_path / "dags"}
    assert run(command, "--strict", **settings).returncode == 0
    packages.put("sales/jobs/broken.py", "def main(:\n")
    assert run(command, **settings).returncode == 0
    assert run(command, "--strict", **settings).returncode == 6


def test_strict_counts_files_that_are_in_the_way(packages: Packages, tmp_path: Path) -> None:
    packages.job()
    (tmp_path / "dags/sales/dags").mkdir(parents=True)
    (tmp_path / "dags/sales/dags/sales_load.py").write_text("mine = True\n")
    done = run("sync", "--strict", "--packages-root", packages.root, "--dags-dir", tmp_path / "dags")
    assert done.returncode == 6
    assert "left alone sales/dags/sales_load.py: it was not generated | fix: move it away" in done.stderr


def test_generate_writes_and_sync_removes_what_is_stale(packages: Packages, tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    settings = {"ETL_PACKAGES_ROOT": packages.root, "AIRFLOW_DAGS_DIR": dags}
    packages.job("old")
    run("generate", **settings)
    (packages.root / "sales/jobs/old.py").unlink()
    packages.job("new")
    run("generate", **settings)
    assert sorted(file.name for file in dags.glob("sales/dags/*.py")) == ["sales_new.py", "sales_old.py"]
    done = run("sync", "--json", **settings)
    document: dict[str, Any] = json.loads(done.stdout)
    assert sorted(document["folder"]["removed"]) == [
        "sales/dags/_source/sales/jobs/old.py",
        "sales/dags/sales_old.py",
    ]
    assert sorted(file.name for file in dags.glob("sales/dags/*.py")) == ["sales_new.py"]


def test_package_with_nothing_but_broken_jobs_keeps_its_files(packages: Packages, tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    module = packages.job()
    arguments = ("sync", "--packages-root", packages.root, "--dags-dir", dags)
    run(*arguments)
    before = (dags / "sales/dags/sales_load.py").read_bytes()
    module.write_text("def main(:\n")
    run(*arguments)
    assert (dags / "sales/dags/sales_load.py").read_bytes() == before
    module.unlink()
    run(*arguments)
    assert not (dags / "sales").exists()


def test_installed_code_is_not_copied(packages: Packages, tmp_path: Path) -> None:
    packages.job()
    run("sync", "--packages-root", packages.root, "--dags-dir", tmp_path / "dags", JOB_CODE="installed")
    assert not (tmp_path / "dags/sales/dags/_source").exists()


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (("sync",), {}, 2, "there is nowhere to write to | fix: set AIRFLOW_DAGS_DIR"),
        (("discover", "--packages-root", "/nowhere"), {}, 2, "ETL_PACKAGES_ROOT='/nowhere' cannot be read"),
        (("sync",), {"JOB_SYNC_INTERVAL": "soon"}, 2, "JOB_SYNC_INTERVAL='soon': "),
        (("sync",), {"JOB_CODE": "elsewhere"}, 2, "JOB_CODE='elsewhere': "),
    ],
)
def test_wrong_settings_are_one_line(
    packages: Packages, arguments: tuple[str, ...], settings: dict[str, str], code: int, words: str
) -> None:
    done = run(*arguments, **({"ETL_PACKAGES_ROOT": packages.root} | settings))
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert words in line
    assert " | fix: " in line


def test_health_before_during_and_long_after_a_pass(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    settings = {"JOB_SYNC_STATUS_FILE": str(status)}
    assert check_health(settings) == (False, "no pass has succeeded yet | fix: read the log of job-sync")
    note_success(status, 300, {"jobs": 3})
    healthy, line = check_health(settings)
    assert healthy
    assert line.endswith("3 jobs")
    document = json.loads(status.read_text())
    status.write_text(json.dumps(document | {"succeeded_at": time.time() - 3 * 300 - 61}))
    healthy, line = check_health(settings)
    assert not healthy
    assert "the last pass that succeeded ended 96" in line
    for text in ("{", "[]", "5", '{"succeeded_at": "x", "interval": 1, "summary": {}}'):
        status.write_text(text)
        healthy, line = check_health(settings)
        assert not healthy
        assert " | fix: " in line


def test_watch_goes_on_reports_each_problem_once_and_stops_when_told(
    packages: Packages, tmp_path: Path
) -> None:
    packages.job()
    broken = packages.put("sales/jobs/broken.py", "def main(:\n")
    dags, status, log = tmp_path / "dags", tmp_path / "status.json", tmp_path / "log"
    settings = environment(
        ETL_PACKAGES_ROOT=packages.root,
        AIRFLOW_DAGS_DIR=dags,
        JOB_SYNC_STATUS_FILE=status,
        JOB_SYNC_INTERVAL=1,
    )
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airbridge.jobs", "sync", "--watch"],
            env=settings,
            stdout=output,
            stderr=output,
        )

    def events(name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def wait_for(what: str, count: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while len(events(what)) < count:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    try:
        wait_for("pass done", 2)
        assert run("health", JOB_SYNC_STATUS_FILE=status).returncode == 0
        assert len(events("problem")) == 1
        broken.unlink()
        packages.job("second")
        wait_for("problem solved", 1)
        assert (dags / "sales/dags/sales_second.py").is_file()
        hidden = packages.root.rename(packages.root.with_name("away"))
        wait_for("pass failed", 1)
        assert (dags / "sales/dags/sales_second.py").is_file()
        hidden.rename(packages.root)
        wait_for("pass done", len(events("pass done")) + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert len(events("job sync stops")) == 1


def test_health_of_a_watch_that_never_ran(tmp_path: Path) -> None:
    done = run("health", JOB_SYNC_STATUS_FILE=tmp_path / "none")
    assert done.returncode == 1
    assert "no pass has succeeded yet" in done.stderr


def test_no_airflow_is_imported(packages: Packages, tmp_path: Path) -> None:
    packages.job()
    script = (
        "import sys; from airbridge.jobs.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e\n"
        "assert not {m for m in sys.modules if m.partition('.')[0] == 'airflow'}, 'airflow'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "sync", "--dags-dir", str(tmp_path / "dags")],
        env=environment(ETL_PACKAGES_ROOT=packages.root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
