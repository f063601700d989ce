"""A package's release: its DAG files, and exactly the code that belongs to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from airbridge.jobs import _release_files
from airbridge.jobs._model import Problem
from airbridge.jobs._release_files import PackageFiles, build_package, fingerprint
from airbridge.jobs.generation import Code

if TYPE_CHECKING:
    from pathlib import Path

    from job_packages import Packages


def build(packages: Packages, code: Code = Code.RELEASE) -> PackageFiles | Problem:
    found = packages.discover()
    (package,) = found.packages
    return build_package(found, package, code)


def files(packages: Packages, code: Code = Code.RELEASE) -> dict[str, bytes]:
    built = build(packages, code)
    assert isinstance(built, PackageFiles)
    return built.files


def test_release_holds_dag_files_the_package_and_the_rule_that_hides_it(packages: Packages) -> None:
    packages.job()
    packages.put("sales/__init__.py", "")
    packages.put("sales/sql/query.sql", "select 1")
    packages.put("sales/jobs/helper.py", "x = 1\n")
    built = build(packages)
    assert isinstance(built, PackageFiles)
    assert built.dags == ("sales_load",)
    assert sorted(built.files) == [
        "dags/.airflowignore",
        "dags/_source/sales/__init__.py",
        "dags/_source/sales/jobs/helper.py",
        "dags/_source/sales/jobs/load.py",
        "dags/_source/sales/sql/query.sql",
        "dags/sales_load.py",
    ]
    assert built.files["dags/_source/sales/sql/query.sql"] == b"select 1"
    assert built.files["dags/.airflowignore"].splitlines()[1:] == [b"/_source/"]


def test_installed_code_is_not_in_the_release(packages: Packages) -> None:
    packages.job()
    assert list(files(packages, Code.INSTALLED)) == ["dags/sales_load.py"]


def test_package_without_a_job_is_an_empty_release(packages: Packages) -> None:
    packages.put("sales/jobs/helper.py", "x = 1\n")
    built = build(packages)
    assert isinstance(built, PackageFiles)
    assert built.is_empty
    assert built.files == {}


def test_secrets_bytecode_and_version_control_stay_out(packages: Packages) -> None:
    packages.job()
    for name in (".env", ".git/config", "__pycache__/x.cpython-311.pyc", "x.pyc", ".venv/lib.py"):
        packages.put(f"sales/{name}", "secret")
    assert b"secret" not in files(packages).values()


def test_link_out_of_the_package_or_to_a_hidden_file_is_left_out_and_told(
    packages: Packages, tmp_path: Path
) -> None:
    packages.job()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    packages.put("sales/.env", "secret")
    packages.put("sales/real.txt", "real")
    links = {
        "out.txt": secret,
        "hidden.txt": packages.root / "sales/.env",
        "gone.txt": tmp_path / "gone",
        "folder": tmp_path,
        "inner": packages.root / "sales/jobs",
    }
    for name, target in links.items():
        (packages.root / "sales" / name).symlink_to(target)
    (packages.root / "sales/good.txt").symlink_to("real.txt")
    built = build(packages)
    assert isinstance(built, PackageFiles)
    assert b"secret" not in built.files.values()
    assert built.files["dags/_source/sales/good.txt"] == b"real"
    assert {problem.file for problem in built.problems} == {f"sales/{name}" for name in links}


@pytest.mark.parametrize("name", ["a\nb.txt", "a\\b.txt", "a\u202eb.txt"])
def test_name_that_no_store_can_hold_is_left_out_and_told(packages: Packages, name: str) -> None:
    packages.job()
    packages.put(f"sales/{name}", "x")
    built = build(packages)
    assert isinstance(built, PackageFiles)
    assert not [path for path in built.files if path.endswith("b.txt")]
    (problem,) = built.problems
    assert "its name holds control characters or a backslash" in problem.what
    assert str(problem).isprintable()


def test_pipe_is_left_out_and_holds_nobody_up(packages: Packages) -> None:
    packages.job()
    os.mkfifo(packages.root / "sales/pipe")
    built = build(packages)
    assert isinstance(built, PackageFiles)
    assert [problem.file for problem in built.problems] == ["sales/pipe"]


def test_too_many_files_are_refused(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_release_files, "MAX_FILES", 6)
    packages.job()
    for number in range(3):
        packages.put(f"sales/{number}.txt", "x")
    assert isinstance(build(packages), PackageFiles)
    packages.put("sales/3.txt", "x")
    problem = build(packages)
    assert isinstance(problem, Problem)
    assert "more than 6 files" in problem.what


def test_a_file_or_a_package_that_is_too_large_is_refused(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_release_files, "MAX_FILE_BYTES", 1024)
    packages.job()
    packages.put("sales/data.bin", b"x" * 1024)
    assert isinstance(build(packages), PackageFiles)
    packages.put("sales/data.bin", b"x" * 1025)
    problem = build(packages)
    assert isinstance(problem, Problem)
    assert "data.bin has more than" in problem.what
    packages.put("sales/data.bin", b"x")
    monkeypatch.setattr(_release_files, "MAX_PACKAGE_BYTES", 10)
    problem = build(packages)
    assert isinstance(problem, Problem)
    assert "the package has more than" in problem.what


def test_fingerprint_tells_a_change(packages: Packages) -> None:
    packages.job()
    (package,) = packages.discover().packages
    before = fingerprint(package)
    assert fingerprint(package) == before
    packages.put("sales/new.txt", "x")
    assert fingerprint(package) != before
