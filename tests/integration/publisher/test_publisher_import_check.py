"""The real import, in a container of the control-plane image."""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from publisher_bucket import AIRFLOW_IMAGE, dag_file, need_image

from airbridge.publisher import _import_check
from airbridge.publisher._catalog import Claims
from airbridge.publisher._files import LocalFile, Snapshot
from airbridge.publisher._generate import TEMPLATES, DagRequest, render
from airbridge.publisher._import_check import ImportCheck, Imported, import_release
from airbridge.publisher._validate import Checks, validate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    need_image(AIRFLOW_IMAGE)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Under a name of this test's own: others may validate on this machine at the same time."""
    name = f"airbridge-import-check-{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(_import_check, "_NAME", name)
    yield
    left = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"name={name}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert left == ""


def release(**files: str) -> Snapshot:
    return Snapshot(
        tuple(LocalFile(f"dags/{name}.py", text.encode(), f"work/{name}.py") for name, text in files.items()),
        (),
    )


def imported(snapshot: Snapshot, **options: object) -> Imported:
    return import_release(snapshot, "sales", image=AIRFLOW_IMAGE, mode=ImportCheck.ALWAYS, **options)  # type: ignore[arg-type]


def test_generated_files_of_all_templates_are_imported() -> None:
    files = {
        f"sales_{template}": render(
            DagRequest(
                "sales",
                template,
                template=template,
                image="registry.example.org/sales",
                image_tag="v1",
                schedule="0 6 * * *",
                description="Quotes \" ' \\ and {{ braces }}",
                command=("sh", "-c", 'echo "hello"'),
                environment=(("REGION", "eu"),),
                retries=2,
                cpu="" if template == "python" else "500m",
                memory="" if template == "python" else "512Mi",
            )
        )
        for template in TEMPLATES
    }
    result = imported(release(**files))
    assert result.findings == []
    assert result.complete
    assert result.dags == {f"sales_{template}": f"dags/sales_{template}.py" for template in TEMPLATES}


def test_everything_that_only_an_import_tells_is_found() -> None:
    result = imported(
        release(
            sales_good=dag_file("sales", "good"),
            sales_broken='from airflow.sdk import DAG\nd = DAG("sales_b")\n\nraise ValueError("no luck")\n',
            sales_missing='from airflow.sdk import DAG\nimport not_installed\ndag = DAG("sales_missing")\n',
            sales_twin_a=dag_file("sales", "twin"),
            sales_twin_b=dag_file("sales", "twin"),
            sales_loop=LOOP,
            sales_loud='from airflow.sdk import DAG\nprint("{\\"dags\\": []}")\ndag = DAG("sales_loud")\n',
            helper="raise RuntimeError('never imported: it makes no DAG')\n",
        ),
        others=Claims({"sales_taken": "crm"}, {}),
    )
    found = {(item.code, item.file, item.line) for item in result.findings}
    assert ("ABP501", "work/sales_broken.py", 4) in found
    assert ("ABP501", "work/sales_missing.py", 2) in found
    assert {code for code, _, _ in found if code == "ABP204"}
    assert ("ABP203", "work/sales_loop.py", 0) in found
    assert ("ABP205", "work/sales_loop.py", 0) in found
    assert not any(file == "work/helper.py" for _, file, _ in found)
    assert {"sales_good", "sales_one", "sales_loud", "sales_twin"} <= set(result.dags)
    messages = {item.file: item.message for item in result.findings}
    assert messages["work/sales_broken.py"] == "ValueError: no luck"


def test_computed_id_is_known_after_the_import() -> None:
    text = 'from airflow.sdk import DAG\ndag = DAG("_".join(("sales", "computed")))\n'
    read = validate(
        release(sales_x=text), "sales", Checks(image=AIRFLOW_IMAGE, import_check=ImportCheck.NEVER)
    )
    assert [item.code for item in read.findings] == ["ABP206"]
    both = validate(
        release(sales_x=text), "sales", Checks(image=AIRFLOW_IMAGE, import_check=ImportCheck.ALWAYS)
    )
    assert (both.dags, both.findings, both.imported) == (("sales_computed",), (), True)


LOOP = """
from airflow.sdk import DAG
for name in ("sales_one", "two", "sales_taken"):
    globals()[name] = DAG(name)
"""
ENDLESS = """
from airflow.sdk import DAG
import signal, time
while True:
    signal.alarm(0)
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
PROBES = """
import os, pathlib, socket
from airflow.sdk import DAG

def can(what):
    try:
        what()
    except OSError:
        return False
    return True

seen = {
    "network": can(lambda: socket.create_connection(("1.1.1.1", 53), 2)) or len(socket.if_nameindex()) > 1,
    "disk": can(lambda: pathlib.Path("/opt/airflow/x").write_text("x")),
    "root": os.getuid() == 0,
    "capabilities": "CapEff:\\t0000000000000000" not in pathlib.Path("/proc/self/status").read_text(),
    "host": pathlib.Path("/var/run/docker.sock").exists(),
    "secrets": pathlib.Path("/secrets").exists() and any(pathlib.Path("/secrets").rglob("*key*")),
}
dag = DAG("sales_" + "_".join([name for name, yes in seen.items() if yes] or ["shut_in"]))
"""


def test_container_has_no_network_no_disk_and_no_rights() -> None:
    assert set(imported(release(sales_probe=PROBES)).dags) == {"sales_shut_in"}


def test_import_that_does_not_end_is_killed_and_abp502() -> None:
    result = imported(release(sales_x=ENDLESS), seconds=15)
    assert [(item.code, "15 s" in item.message) for item in result.findings] == [("ABP502", True)]
    assert not result.complete


def test_import_that_takes_all_memory_is_abp502() -> None:
    text = 'from airflow.sdk import DAG\nx = []\nwhile True:\n    x.append(bytes(64 << 20) + b"x")\n'
    result = imported(release(sales_x=text))
    (item,) = result.findings
    assert item.code in {"ABP501", "ABP502"}


def test_image_that_is_not_here_is_a_notice_or_an_error() -> None:
    result = validate(release(sales_x=dag_file("sales", "x")), "sales", Checks(image="airbridge/none:0"))
    assert [item.code for item in result.findings] == ["ABP503"]
    assert "airbridge/none:0 is not here" in result.findings[0].message
