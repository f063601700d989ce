"""Jobs become releases in the real S3 service, and what people decided there stands."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from airbridge.errors import RefusedError
from airbridge.jobs._bucket import Bucket
from airbridge.jobs._release_files import build_package
from airbridge.jobs._releases import Outcome, publish_all
from airbridge.jobs.discovery import discover
from airbridge.jobs.generation import Code

if TYPE_CHECKING:
    from jobs_bucket import Site

HAND_MADE = 'from airflow.sdk import DAG\n\nwith DAG("other_thing", schedule=None):\n    pass\n'


def test_package_becomes_a_release_with_its_code(site: Site) -> None:
    site.job("sales/jobs/load.py")
    site.job("sales/ledger.py", "x = 1\n")
    assert site.outcomes() == {"sales": "published"}
    manifest = site.manifest("sales")
    assert manifest.tool.startswith("airflow-control-plane/")
    assert manifest.dags == ("sales_load",)
    content = site.content("sales")
    assert set(content) == {
        "dags/.airflowignore",
        "dags/_source/sales/jobs/load.py",
        "dags/_source/sales/ledger.py",
        "dags/sales_load.py",
    }
    assert content["dags/_source/sales/ledger.py"] == b"x = 1\n"
    for file in manifest.files:
        assert hashlib.sha256(content[file.path]).hexdigest() == file.sha256


def test_unchanged_package_writes_nothing(site: Site) -> None:
    site.job("sales/jobs/load.py")
    site.sync()
    before = site.versions()
    assert site.outcomes() == {"sales": "unchanged"}
    assert site.versions() == before


def test_change_is_a_new_release_that_uploads_what_changed_only(site: Site) -> None:
    site.job("sales/jobs/load.py")
    site.job("sales/ledger.py", "x = 1\n")
    site.sync()
    first = site.manifest("sales")
    site.job("sales/ledger.py", "x = 2\n")
    site.job("other/jobs/load.py")
    assert site.outcomes() == {"sales": "published", "other": "published"}
    second = site.manifest("sales")
    assert second.replaces == first.release
    changed = {file for file in second.files if file not in first.files}
    assert [file.path for file in changed] == ["dags/_source/sales/ledger.py"]


def test_job_that_is_gone_leaves_the_release_and_a_package_that_is_gone_becomes_an_empty_one(
    site: Site,
) -> None:
    site.job("sales/jobs/load.py")
    site.job("sales/jobs/count.py")
    site.job("other/jobs/load.py")
    site.sync()
    site.remove("sales/jobs/count.py")
    site.remove("other")
    assert site.outcomes() == {"sales": "published", "other": "emptied"}
    assert site.manifest("sales").dags == ("sales_load",)
    assert "sales/dags/sales_count.py" not in site.object_keys()
    assert site.manifest("other").files == ()
    assert [key for key in site.object_keys() if key.startswith("other/")] == ["other/metadata.json"]
    assert site.outcomes() == {"sales": "unchanged", "other": "unchanged"}
    site.job("other/jobs/load.py")
    assert site.outcomes()["other"] == "published"


def test_package_that_somebody_else_published_is_not_gone_because_it_is_not_here(site: Site) -> None:
    site.job("sales/jobs/load.py")
    site.run("airbridge.jobs", "sync", "--publish", LOGNAME="colleague")
    assert site.manifest("sales").published_by.startswith("colleague@")
    site.remove("sales")
    site.job("other/jobs/load.py")
    assert site.outcomes() == {"other": "published"}
    assert site.manifest("sales").dags == ("sales_load",)


def test_empty_packages_folder_publishes_nothing(site: Site) -> None:
    assert site.outcomes() == {}
    assert site.versions() == []


def test_broken_job_is_left_out_and_a_package_of_broken_jobs_keeps_its_release(site: Site) -> None:
    site.job("sales/jobs/load.py")
    site.job("sales/jobs/count.py")
    site.sync()
    site.job("sales/jobs/count.py", "def main(:\n")
    assert site.outcomes() == {"sales": "published"}
    assert site.manifest("sales").dags == ("sales_load",)
    site.job("sales/jobs/load.py", "def main(:\n")
    before = site.versions()
    assert site.outcomes() == {"sales": "kept"}
    assert site.versions() == before


def test_package_that_is_changed_while_it_is_read_keeps_its_release(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airbridge.jobs import _pass

    site.job("sales/jobs/load.py")
    site.sync()
    before = site.versions()

    def build_and_change(*arguments: object) -> object:
        built = build_package(*arguments)  # type: ignore[arg-type]
        site.job("sales/ledger.py", "x = 1\n")
        return built

    monkeypatch.setattr(_pass, "build_package", build_and_change)
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    result = _pass.run_pass(site.root, Code.RELEASE, writer=Bucket())
    assert [problem.what for problem in result.problems] == ["the package was changed while it was read"]
    assert [row.outcome for row in result.releases] == [Outcome.KEPT]
    assert site.versions() == before


def test_package_of_a_team_that_publishes_by_itself_is_left_alone(site: Site) -> None:
    site.job("sales/jobs/load.py")
    site.job("plain/jobs/load.py")
    site.put("plain/dags/plain_thing.py", HAND_MADE)
    folder = site.root.parent / "team"
    folder.mkdir()
    (folder / "sales_own.py").write_text(HAND_MADE.replace("other_thing", "sales_own"))
    done = site.run(
        *("airbridge.publisher", "publish", "--package-name", "sales", "--dag-path", str(folder)),
        *("--import-check", "never"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before = site.versions()
    outcomes = site.sync()
    assert {package: outcome for package, (outcome, _) in outcomes.items()} == {
        "sales": "refused",
        "plain": "refused",
    }
    assert "airflow-dag-publisher/" in outcomes["sales"][1]
    assert " | fix: give the package another name" in outcomes["plain"][1]
    assert site.versions() == before
    # Nor are they emptied when there are no jobs of that name.
    site.remove("sales")
    site.remove("plain")
    assert site.outcomes() == {}
    assert site.versions() == before


def test_dag_id_of_another_package_is_refused_and_harms_no_other_package(site: Site) -> None:
    site.put("elsewhere/dags/whatever.py", HAND_MADE.replace("other_thing", "sales_load"))
    site.job("sales/jobs/load.py")
    site.job("other/jobs/load.py")
    outcomes = site.sync()
    assert outcomes["other"][0] == "published"
    assert outcomes["sales"][0] == "refused"
    assert "DAG id sales_load is of package elsewhere" in outcomes["sales"][1]
    assert not [key for key in site.object_keys() if key.startswith("sales/")]


def test_helper_modules_of_two_packages_may_have_one_name(site: Site) -> None:
    for package in ("sales", "other"):
        site.job(f"{package}/jobs/load.py")
        site.job(f"{package}/helper.py", "x = 1\n")
    assert site.outcomes() == {"sales": "published", "other": "published"}


def test_rollback_by_a_person_stands_until_the_package_has_something_new(site: Site) -> None:
    for number in (1, 2, 3):
        site.job("sales/ledger.py", f"x = {number}\n")
        site.job("sales/jobs/load.py")
        site.sync()
    for number in (2, 1):
        done = site.run("airbridge.publisher", "rollback", "--package-name", "sales", "--to-previous")
        assert done.returncode == 0, done.stdout + done.stderr
        outcome, why = site.sync()["sales"]
        assert outcome == "held"
        assert "rolled back by " in why
        assert site.content("sales")["dags/_source/sales/ledger.py"] == f"x = {number}\n".encode()
    site.job("sales/ledger.py", "x = 4\n")
    assert site.outcomes() == {"sales": "published"}
    assert site.content("sales")["dags/_source/sales/ledger.py"] == b"x = 4\n"


def test_of_two_that_publish_at_once_one_wins_and_the_other_comes_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    site.job("sales/jobs/load.py")
    found = discover(site.root)
    (package,) = found.packages
    built = build_package(found, package, Code.RELEASE)

    class Late(Bucket):
        def publish(self, *arguments: object) -> str:
            site.job("sales/ledger.py", "x = 1\n")
            assert site.outcomes() == {"sales": "published"}
            return super().publish(*arguments)  # type: ignore[arg-type]

    (outcome,) = publish_all(Late(), [built], [])  # type: ignore[list-item]
    assert outcome.outcome is Outcome.REFUSED
    assert "came first" in outcome.why
    assert site.content("sales")["dags/_source/sales/ledger.py"] == b"x = 1\n"
    assert site.outcomes() == {"sales": "unchanged"}


def test_name_that_cannot_be_stored_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    bucket = Bucket()
    bucket.packages()
    for path in ("dags/../x.py", "dags/a\\b.py", "dags/a\nb.py"):
        with pytest.raises(RefusedError, match="cannot be published"):
            bucket.publish("sales", {path: b""}, [])
    assert site.versions() == []


def test_missing_bucket_and_missing_service_are_one_line(site: Site) -> None:
    site.job("sales/jobs/load.py")
    missing = site.run("airbridge.jobs", "sync", "--publish", DAG_BUCKET="no-such-bucket")
    assert missing.returncode == 4
    away = site.run("airbridge.jobs", "sync", "--publish", S3_ENDPOINT_URL="http://127.0.0.1:9")
    assert away.returncode == 3
    for done in (missing, away):
        (line,) = done.stderr.splitlines()
        assert " | fix: " in line
