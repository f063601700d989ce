"""The whole of validate without a container: codes, others' names, what can be waived, how it is printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airbridge.errors import SettingsError, UnreachableError
from airbridge.publisher import _import_check
from airbridge.publisher._catalog import Claims
from airbridge.publisher._commands_local import make_checks
from airbridge.publisher._files import LocalFile, Snapshot, read_folder
from airbridge.publisher._findings import RULES, Severity, finding
from airbridge.publisher._import_check import ImportCheck, import_release
from airbridge.publisher._output import Format, print_findings
from airbridge.publisher._validate import Checks, validate

ROOT = Path(__file__).parents[3]
GOOD = 'from airflow.sdk import DAG\ndag = DAG("sales_daily")\n'
STATIC = Checks(image="none", import_check=ImportCheck.NEVER)


def snapshot(**files: str) -> Snapshot:
    return Snapshot(tuple(LocalFile(f"dags/{n}.py", t.encode(), f"{n}.py") for n, t in files.items()), ())


def codes(result: object) -> list[str]:
    return [found.code for found in result.findings]  # type: ignore[attr-defined]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airbridge.publisher", *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- codes -------------------------------------------------------------------------------------------
def test_every_code_has_a_row_in_the_documentation_and_a_test() -> None:
    page = (ROOT / "docs/publishing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ABP\d{3})` \| (\w+) \| (.+?) \|", page, re.MULTILINE)
    documented = {code: (severity, title) for code, severity, title in rows}
    assert documented == {code: (rule.severity, rule.title) for code, rule in RULES.items()}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_publisher_*.py"))
    assert [code for code in RULES if code not in tests] == []


def test_every_rule_has_a_hint_and_only_style_can_be_waived() -> None:
    assert all(rule.hint and rule.title for rule in RULES.values())
    assert {code for code, rule in RULES.items() if rule.waivable} == {
        code for code in RULES if code.startswith(("ABP3", "ABP4"))
    }


# --- what others hold --------------------------------------------------------------------------------
def test_dag_id_of_another_package_is_abp205() -> None:
    result = validate(snapshot(sales_daily=GOOD), "sales", STATIC, others=Claims({"sales_daily": "crm"}, {}))
    assert codes(result) == ["ABP205"]
    assert "'crm'" in result.findings[0].message
    assert result.findings[0].line == 2
    other = Claims({"crm_daily": "crm"}, {})
    assert codes(validate(snapshot(sales_daily=GOOD), "sales", STATIC, others=other)) == []


def test_file_name_of_another_package_is_abp108() -> None:
    others = Claims({}, {"sales_daily.py": "crm"})
    for name in ("sales_daily", "Sales_Daily", "deep/sales_daily"):
        assert codes(validate(snapshot(**{name: GOOD}), "sales", STATIC, others=others)) == ["ABP108"]
    assert codes(validate(snapshot(sales_other=GOOD), "sales", STATIC, others=others)) == []


def test_name_that_every_python_package_has_is_nobodys() -> None:
    others = Claims({}, {})
    files = snapshot(**{"sales_daily": GOOD, "lib/__init__": ""})
    assert codes(validate(files, "sales", STATIC, others=others)) == []


# --- the release as a whole --------------------------------------------------------------------------
def test_empty_release_is_abp107_unless_that_is_meant() -> None:
    empty = Snapshot((), ())
    assert codes(validate(empty, "sales", STATIC)) == ["ABP107"]
    allowed = Checks(image="none", import_check=ImportCheck.NEVER, allow_empty=True)
    assert codes(validate(empty, "sales", allowed)) == []
    assert codes(validate(snapshot(sales_daily=GOOD), "sales", STATIC)) == []


def test_release_without_a_dag_is_a_warning_abp208() -> None:
    result = validate(snapshot(helper="x = 1"), "sales", STATIC)
    assert codes(result) == ["ABP208"]
    assert result.errors == []
    assert codes(validate(snapshot(helper="x = 1"), "sales", STATIC, whole_release=False)) == []


def test_findings_come_once_and_in_order() -> None:
    result = validate(snapshot(b="import sales\nopen('x')", a=GOOD + "import sales"), "sales", STATIC)
    assert [(found.file, found.line, found.code) for found in result.findings] == [
        ("a.py", 3, "ABP302"),
        ("b.py", 1, "ABP302"),
        ("b.py", 2, "ABP401"),
    ]


def test_waived_codes_are_not_looked_for() -> None:
    checks = make_checks("none", ImportCheck.NEVER, None, ["abp401, ABP302"])
    assert codes(validate(snapshot(a=GOOD + "import sales\nopen('x')\nimport x"), "sales", checks)) == [
        "ABP304"
    ]


@pytest.mark.parametrize("code", ["ABP202", "ABP205", "ABP101", "ABP999", "x"])
def test_code_that_protects_others_cannot_be_waived(code: str) -> None:
    with pytest.raises(SettingsError, match="not possible"):
        make_checks("none", ImportCheck.NEVER, None, [code])


# --- without a container -----------------------------------------------------------------------------
def test_release_that_cannot_be_imported_here_is_a_notice_abp503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = validate(snapshot(a=GOOD), "sales", Checks(image="none"))
    assert [(found.code, found.severity) for found in result.findings] == [("ABP503", Severity.NOTICE)]
    assert not result.imported
    assert codes(validate(snapshot(a=GOOD), "sales", STATIC)) == []
    with pytest.raises(UnreachableError, match="no docker command"):
        import_release(snapshot(a=GOOD), "sales", image="none", mode=ImportCheck.ALWAYS)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            {"dags": [], "errors": [{"file": "sales/dags/a.py", "line": 3, "message": "ValueError: x"}]},
            "ABP501",
        ),
        (
            {
                "dags": [],
                "errors": [
                    {"file": "sales/dags/a.py", "line": 0, "message": "AirflowDagDuplicatedIdException: x"}
                ],
            },
            "ABP204",
        ),
        ({"dags": [{"dag_id": "other", "file": "sales/dags/a.py"}], "errors": []}, "ABP203"),
        ({"dags": [{"dag_id": "sales_taken", "file": "sales/dags/a.py"}], "errors": []}, "ABP205"),
        ("importing the release did not end within 1 s", "ABP502"),
    ],
)
def test_answer_of_the_container_becomes_findings(
    answer: object, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_import_check, "unavailable", lambda _image: "")
    monkeypatch.setattr(_import_check, "_run", lambda *_: answer)
    others = Claims({"sales_taken": "crm"}, {})
    result = import_release(snapshot(a="import os"), "sales", image="x", others=others)
    assert [(found.code, found.file) for found in result.findings] == [
        (code, "" if code == "ABP502" else "a.py")
    ]


def test_real_import_decides_about_ids_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_import_check, "unavailable", lambda _image: "")
    answer = {"dags": [{"dag_id": "sales_x", "file": "sales/dags/a.py"}], "errors": []}
    monkeypatch.setattr(_import_check, "_run", lambda *_: answer)
    files = snapshot(a="from airflow.sdk import DAG\nimport os\ndag = DAG(os.environ['X'])")
    assert codes(validate(files, "sales", STATIC)) == ["ABP206"]
    result = validate(files, "sales", Checks(image="x"))
    assert (codes(result), result.dags, result.imported) == ([], ("sales_x",), True)


def test_release_with_errors_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(_import_check, "unavailable", fail)
    assert codes(validate(snapshot(a="def"), "sales", Checks(image="x"))) == ["ABP202"]


# --- how it is printed -------------------------------------------------------------------------------
def test_annotations_of_github_carry_file_line_and_nothing_that_breaks_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = finding("ABP401", "50% of a\nline::error::x", file="dags/a,b:c.py", line=3)
    print_findings([found, finding("ABP208", "x")], Format.GITHUB, summary={})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "::error file=dags/a%2Cb%3Ac.py,line=3,title=ABP401::50%25 of a%0Aline::error::x ("
    )
    assert second.startswith("::warning title=ABP208::x (")


def test_command_prints_findings_and_fails(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/a.py").write_text("import sales\n[x]")
    done = run("validate", "sales", "--import-check", "never", "--allow-import", "x", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "dags/a.py:1  ABP302" in done.stdout
    assert "1 files read, 0 DAGs, 1 errors" in done.stdout
    document = json.loads(run("validate", "sales", "--import-check", "never", "--json", cwd=tmp_path).stdout)
    assert document["errors"] == 1
    assert document["findings"][0]["code"] == "ABP302"
    named = run(
        "validate", "--dag-file", "dags/a.py", cwd=tmp_path, PACKAGE_NAME="sales", IMPORT_CHECK="never"
    )
    assert named.returncode == 1


def test_command_ends_well_for_a_release_without_errors(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/sales_daily.py").write_text(GOOD)
    done = run("validate", "sales", "--import-check", "never", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("validate",), 2, "--package-name"),
        (("validate", "Sales"), 2, "no name of a package"),
        (("validate", "sales", "--dag-path", "nowhere"), 2, "does not exist"),
        (("list", "--bucket", "X"), 2, "DAG_BUCKET='X'"),
        (("list", "--environment", "a/b"), 2, "ENVIRONMENT='a/b'"),
        (("list", "--endpoint-url", "ftp://x"), 2, "S3_ENDPOINT_URL='ftp://x'"),
        (("list", "--endpoint-url", "http://127.0.0.1:9"), 3, "cannot be reached"),
        (("rollback", "--package-name", "sales"), 2, "which release is not clear"),
        (("generate", "--package-name", "sales", "--job-name", "x y"), 2, "--job-name"),
        (("generate", "--package-name", "sales", "--job-name", "x", "--env", "A"), 2, "--env"),
        (("policy", "sales", "--partition", "x"), 2, "--partition"),
    ],
)
def test_expected_failure_is_one_line_with_a_fix(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert said in line
    assert " | fix: " in line


def test_folder_is_looked_at_as_a_release(tmp_path: Path) -> None:
    (tmp_path / "sales_daily.py").write_text(GOOD)
    result = validate(read_folder(tmp_path), "sales", STATIC)
    assert (result.dags, codes(result)) == (("sales_daily",), [])
