"""Jobs are found by reading: every form of JOB, every way to be broken, and nothing is ever imported."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_packages import MAIN, Packages

from airbridge.errors import SettingsError
from airbridge.jobs._module_reader import MAX_MODULE_BYTES, JobDeclaration, read_module
from airbridge.jobs.discovery import discover

if TYPE_CHECKING:
    from collections.abc import Callable

JOB = f"{MAIN}JOB = (main, 'Load')\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{MAIN}JOB = (main, 'Load it')\n",
        f"{MAIN}JOB = main, 'Load ' 'it'\n",
        f"{MAIN}JOB = (main, 'Load it', {{}})\n",
        f"from typing import Final\n{MAIN}JOB: Final = (main, 'Load it')\n",
        f"from airbridge.jobs import Job\n{MAIN}JOB = Job(main, 'Load it')\n",
        f"from airbridge.jobs import Job as J\n{MAIN}JOB: J = J(main, description='Load it')\n",
        f"from airbridge.jobs.definition import Job\n{MAIN}"
        "JOB = Job(description='Load it', entrypoint=main)\n",
        f"import airbridge.jobs\n{MAIN}JOB = airbridge.jobs.Job(main, 'Load it')\n",
        f"import airbridge.jobs as jobs\n{MAIN}JOB = jobs.Job(main, 'Load it')\n",
        f"from airbridge import jobs\n{MAIN}JOB = jobs.Job(main, 'Load it')\n",
        f"\ufeff{MAIN}JOB = (main, 'Load  it ')\n",
        "try:\n    from fast import main\nexcept ImportError:\n    def main(argv): ...\n"
        "JOB = (main, 'Load it')\n",
        "import functools\nmain = functools.partial(print, 1)\nJOB = (main, 'Load it')\n",
        "JOB = (main, 'Load it')\ndef main(*argv): ...\n",
        "def main(argv, dry=False, *, more=1): ...\nJOB = (main, 'Load it')\n",
        "@wrap\ndef main(): ...\nJOB = (main, 'Load it')\n",
        "from elsewhere import run as main\nJOB = (main, 'Load it')\n",
    ],
)
def test_job_is_found_in_every_form(packages: Packages, text: str) -> None:
    packages.put("sales/jobs/load.py", text)
    job = packages.only_job()
    assert (job.dag_id, job.package, job.name) == ("sales_load", "sales", "load")
    assert (job.module, job.file, job.entrypoint) == ("sales.jobs.load", "sales/jobs/load.py", "main")
    assert job.description == "Load it"
    assert text.splitlines()[job.line - 1].startswith("JOB")


def test_record_says_everything_as_json(packages: Packages) -> None:
    packages.job(schedule="@daily", tags=["x"])
    assert packages.only_job().to_json() == {
        "dag_id": "sales_load",
        "package": "sales",
        "job": "load",
        "module": "sales.jobs.load",
        "file": "sales/jobs/load.py",
        "line": 3,
        "entrypoint": "main",
        "description": "Load",
        "options": {"schedule": {"expressions": ["@daily"]}, "tags": ["x"]},
    }


def test_module_in_a_folder_below_jobs_is_a_job_too(packages: Packages) -> None:
    packages.put("sales/jobs/daily/load.py", JOB)
    job = packages.only_job()
    assert (job.dag_id, job.module) == ("sales_daily_load", "sales.jobs.daily.load")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1\n",
        "def JOBS(): ...\n",
        "def f():\n    JOB = (f, 'x')\n",
        "class C:\n    JOB = 1\n",
        "x.JOB = 1\n",
    ],
)
def test_module_without_a_job_is_none_and_no_problem(packages: Packages, text: str) -> None:
    packages.put("sales/jobs/helper.py", text)
    found = packages.discover()
    assert (found.jobs, found.problems) == ((), ())


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("def main(:\n", 1, "no Python"),
        ("x = 1\x00\n", 0, "no Python"),
        ("x = " + "(" * 5000 + ")" * 5000 + "\n", None, "no Python"),
        ("-" * 100_000 + "1\n", None, "no Python"),
        (b"# caf\xe9\nJOB = 1\n", 1, "not UTF-8"),
        (b"x = 1\n\n# \xff\n", 3, "not UTF-8"),
        ("# " + "x" * MAX_MODULE_BYTES + "\n", 0, "bytes"),
        (f"{MAIN}JOB = main\n", 2, "neither a tuple nor a Job"),
        (f"{MAIN}JOB = [main, 'x']\n", 2, "neither a tuple nor a Job"),
        (f"{MAIN}JOB = (main,)\n", 2, "neither a tuple nor a Job"),
        (f"{MAIN}JOB = make(main, 'x')\n", 2, "neither a tuple nor a Job"),
        (f"from elsewhere import Job\n{MAIN}JOB = Job(main, 'x')\n", 3, "neither a tuple nor a Job"),
        (f"{MAIN}JOB = (main, 'x', OPTIONS)\n", 2, "no dict written out"),
        (f"{MAIN}JOB = (main, 'x', {{**more}})\n", 2, "name of an option"),
        (f"{MAIN}JOB = (main, 'x', {{5: 6}})\n", 2, "name of an option"),
        (f"{MAIN}JOB = (main, TEXT)\n", 2, "description"),
        (f"{MAIN}JOB = (main, f'x{{1}}')\n", 2, "description"),
        (f"{MAIN}JOB = (main, '')\n", 2, "description"),
        (f"{MAIN}JOB = (main, b'x')\n", 2, "description"),
        (f"{MAIN}JOB = (main, 'x\\x07')\n", 2, "control characters"),
        (f"{MAIN}JOB = (main, '\\ud800')\n", 2, "control characters"),
        (f"{MAIN}JOB = (main, {'x' * 1001!r})\n", 2, "too long"),
        (f"{MAIN}JOB = (main, 'x', {{'retries': 1 + 1}})\n", 2, "is not written as a literal"),
        (f"{MAIN}JOB = (main, 'x',\n {{'tags': [a]}})\n", 3, "is not written as a literal"),
        (f"{MAIN}JOB = (main, 'x', {{'params': {{'a': {'[' * 30}{']' * 30}}}}})\n", 2, "nested too deeply"),
        ("JOB = (main, 'x')\n", 1, "'main' is not defined"),
        ("def f():\n    def main(argv): ...\nJOB = (main, 'x')\n", 3, "'main' is not defined"),
        ("JOB = (lambda argv: 0, 'x')\n", 1, "is no name"),
        ("import a\nJOB = (a.main, 'x')\n", 2, "is no name"),
        ("async def main(argv): ...\nJOB = (main, 'x')\n", 1, "is async"),
        ("class main: ...\nJOB = (main, 'x')\n", 1, "is a class"),
        ("def main(): ...\nJOB = (main, 'x')\n", 1, "cannot be called with one argument"),
        ("def main(a, b): ...\nJOB = (main, 'x')\n", 1, "cannot be called with one argument"),
        ("def main(a, *, b): ...\nJOB = (main, 'x')\n", 1, "cannot be called with one argument"),
        ("def main(**a): ...\nJOB = (main, 'x')\n", 1, "cannot be called with one argument"),
        (f"{MAIN}JOB = (main, 'x')\nJOB = (main, 'y')\n", 3, "exactly once"),
        (f"{MAIN}if True:\n    JOB = (main, 'x')\n", 3, "exactly once"),
        (f"{MAIN}JOB = OTHER = (main, 'x')\n", 2, "exactly once"),
        (f"{MAIN}JOB, x = (main, 'x'), 1\n", 2, "exactly once"),
        (f"{MAIN}JOB = (main, 'x')\nJOB += ({{}},)\n", 3, "exactly once"),
        (f"{MAIN}JOB = (main, 'x')\ndel JOB\n", 3, "exactly once"),
        ("from elsewhere import JOB\n", 1, "exactly once"),
        ("def JOB(): ...\n", 1, "exactly once"),
        (f"from airbridge.jobs import Job\n{MAIN}JOB = Job(main, 'x', 3)\n", 3, "Job(...) takes"),
        (f"from airbridge.jobs import Job\n{MAIN}JOB = Job(main)\n", 3, "Job(...) takes"),
        (
            f"from airbridge.jobs import Job\n{MAIN}JOB = Job(main, 'x', description='y')\n",
            3,
            "Job(...) takes",
        ),
        (f"from airbridge.jobs import Job\n{MAIN}JOB = Job(*x)\n", 3, "unpacks"),
        (f"from airbridge.jobs import Job\n{MAIN}JOB = Job(main, 'x', **y)\n", 3, "unpacks"),
    ],
)
def test_broken_module_is_named_with_its_line_and_breaks_no_other(
    packages: Packages, text: str | bytes, line: int | None, words: str
) -> None:
    packages.put("sales/jobs/broken.py", text)
    packages.put("sales/jobs/good.py", JOB)
    found = packages.discover()
    assert [job.name for job in found.jobs] == ["good"]
    (problem,) = found.problems
    assert problem.file == "sales/jobs/broken.py"
    assert line is None or problem.line == line
    assert words in problem.what
    assert problem.fix


def test_no_module_is_imported_whatever_it_does_when_it_is(packages: Packages, tmp_path: Path) -> None:
    trace = tmp_path / "imported"
    bomb = f"open({str(trace)!r}, 'w')\nraise SystemExit('imported')\n"
    for file in ("sales/__init__.py", "sales/jobs/__init__.py", "sales/helper.py"):
        packages.put(file, bomb)
    packages.put("sales/jobs/load.py", f"{MAIN}JOB = (main, 'Load')\nimport sales.helper\n{bomb}")
    before = set(sys.modules)
    assert packages.only_job().name == "load"
    assert not trace.exists()
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] == "sales"}


def test_module_of_the_capability_never_imports_by_name_of_a_package() -> None:
    """Nothing but the runtime, which workers call, can import anything dynamically."""
    folder = Path(discover.__code__.co_filename).parent
    importers = {
        file.name
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Name) and node.id in {"__import__", "exec", "eval", "compile"})
        or (isinstance(node, ast.Attribute) and node.attr in {"import_module", "exec_module", "run_path"})
    }
    assert importers == {"runtime.py"}


@pytest.mark.parametrize(
    "name", ["Sales", "sales-eu", "_sales", "1sales", "sales__eu", "json", "airflow", "x" * 64]
)
def test_package_whose_name_cannot_be_used_is_refused(packages: Packages, name: str) -> None:
    packages.put(f"{name}/jobs/load.py", JOB)
    problem = packages.only_problem()
    assert problem.startswith(f"{name}: the package's name ")


@pytest.mark.parametrize("name", ["Load", "load-it", "_load", "load__it", "größe"])
def test_job_whose_name_cannot_be_used_is_refused(packages: Packages, name: str) -> None:
    packages.put(f"sales/jobs/{name}.py", JOB)
    assert f"the job's name '{name}' must be words of a-z" in packages.only_problem()


def test_dag_id_that_would_not_fit_an_edge_task_is_refused(packages: Packages) -> None:
    packages.put(f"sales/jobs/{'x' * 94}.py", JOB)
    assert len(packages.only_job().dag_id) == 100
    packages.put(f"sales/jobs/{'x' * 95}.py", JOB)
    assert "more than 100 characters" in packages.problems()[0]


@pytest.mark.parametrize("name", ["__init__", "__main__"])
def test_job_in_a_special_module_is_refused(packages: Packages, name: str) -> None:
    packages.put(f"sales/jobs/{name}.py", JOB)
    assert "give the job a module of its own" in packages.only_problem()


@pytest.mark.parametrize(
    "files",
    [
        ("sales/jobs/eu_load.py", "sales_eu/jobs/load.py"),
        ("sales/jobs/eu_load.py", "sales/jobs/eu/load.py"),
    ],
)
def test_two_jobs_with_one_dag_id_are_both_refused_and_named(
    packages: Packages, files: tuple[str, str]
) -> None:
    for file in files:
        packages.put(file, JOB)
    packages.put("other/jobs/load.py", JOB)
    found = packages.discover()
    assert [job.dag_id for job in found.jobs] == ["other_load"]
    assert {problem.file for problem in found.problems} == set(files)
    for problem in found.problems:
        assert "the DAG id 'sales_eu_load' is also that of" in problem.what
        assert any(file in problem.what for file in files if file != problem.file)


def test_hidden_files_bytecode_and_other_files_are_not_looked_at(packages: Packages) -> None:
    for name in (".hidden.py", "__pycache__/load.py", "load.pyc", "load.txt", ".git/load.py"):
        packages.put(f"sales/jobs/{name}", JOB)
    packages.put(".venv/jobs/load.py", JOB)
    packages.put("no_jobs/load.py", JOB)
    packages.put("load.py", JOB)
    found = packages.discover()
    assert (found.jobs, found.problems) == ((), ())


def _link_module(packages: Packages, outside: Path) -> None:
    (outside / "load.py").write_text(JOB)
    (packages.root / "sales/jobs/load.py").symlink_to(outside / "load.py")


def _link_folder(packages: Packages, outside: Path) -> None:
    (outside / "load.py").write_text(JOB)
    (packages.root / "sales/jobs/daily").symlink_to(outside)


def _link_in_a_circle(packages: Packages, _: Path) -> None:
    (packages.root / "sales/jobs/daily").symlink_to(packages.root / "sales/jobs")


def _link_nowhere(packages: Packages, outside: Path) -> None:
    (packages.root / "sales/jobs/load.py").symlink_to(outside / "gone.py")


def _link_to_another_package(packages: Packages, _: Path) -> None:
    other = packages.put("other/module.py", JOB)
    (packages.root / "sales/jobs/load.py").symlink_to(other)


@pytest.mark.parametrize(
    "make", [_link_module, _link_folder, _link_in_a_circle, _link_nowhere, _link_to_another_package]
)
def test_link_that_leads_out_of_the_package_is_refused(
    packages: Packages, tmp_path: Path, make: Callable[[Packages, Path], None]
) -> None:
    packages.put("sales/jobs/good.py", JOB)
    outside = tmp_path / "outside"
    outside.mkdir()
    make(packages, outside)
    found = packages.discover()
    assert [job.name for job in found.jobs] == ["good"]
    (problem,) = found.problems
    assert "a symbolic link leads out of the package" in problem.what


def test_link_to_a_module_of_the_same_package_is_followed(packages: Packages) -> None:
    packages.put("sales/shared.py", JOB)
    (packages.root / "sales/jobs").mkdir()
    (packages.root / "sales/jobs/load.py").symlink_to("../shared.py")
    assert packages.only_job().name == "load"


@pytest.mark.parametrize("linked", ["sales", "sales/jobs"])
def test_package_that_is_a_link_is_refused(packages: Packages, tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside/jobs"
    outside.mkdir(parents=True)
    (outside / "load.py").write_text(JOB)
    link = packages.root / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if linked.endswith("jobs") else outside.parent)
    assert "is a symbolic link" in packages.only_problem()


def test_pipe_in_the_place_of_a_module_holds_nobody_up(packages: Packages) -> None:
    (packages.root / "sales/jobs").mkdir(parents=True)
    os.mkfifo(packages.root / "sales/jobs/load.py")
    assert "no regular file" in packages.only_problem()


def test_name_that_would_break_a_line_is_shown_escaped(packages: Packages) -> None:
    packages.put("sales/jobs/a\nb\x1b[31m.py", "def main(:\n")
    assert packages.only_problem().startswith(r"sales/jobs/a\nb\x1b[31m.py:1: ")


def test_empty_root_is_fine_and_a_missing_one_is_not(tmp_path: Path) -> None:
    found = discover(tmp_path)
    assert (found.packages, found.jobs, found.problems) == ((), (), ())
    with pytest.raises(SettingsError, match=r"ETL_PACKAGES_ROOT=.* cannot be read: No such file"):
        discover(tmp_path / "gone")


def test_results_come_in_the_order_of_names(packages: Packages) -> None:
    for name in ("zebra", "apple", "mango"):
        packages.put(f"{name}/jobs/b.py", JOB)
        packages.put(f"{name}/jobs/a.py", JOB)
    assert [job.dag_id for job in packages.discover().jobs] == [
        f"{package}_{job}" for package in ("apple", "mango", "zebra") for job in ("a", "b")
    ]


_literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(params=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), _literals, max_size=4))
def test_any_literal_is_read_as_python_reads_it(params: dict[str, Any]) -> None:
    params.pop("args", None)
    read = read_module(f"{MAIN}JOB = (main, 'x', {{'params': {params!r}}})\n".encode())
    if "\\x00" in repr(params):
        assert isinstance(read, tuple)
    else:
        assert isinstance(read, JobDeclaration)
        assert read.options.params == params


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.binary(max_size=300)
    | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text(max_size=100).map(lambda text: f"{MAIN}JOB = {text}\n".encode("utf-8", "surrogatepass"))
    | _literals.map(lambda value: f"{MAIN}JOB = (main, 'x', {value!r})\n".encode())
)
def test_any_module_is_a_job_or_none_or_told(body: bytes) -> None:
    read = read_module(body)
    assert read is None or isinstance(read, JobDeclaration) or (read and all(one.what for one in read))
