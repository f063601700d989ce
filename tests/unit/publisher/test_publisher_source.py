"""What reading a DAG file tells, and what it leaves to running it."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.publisher._files import LocalFile, Snapshot
from airbridge.publisher._source import read_source
from airbridge.publisher._static import Judgement, judge

IMPORTS = "from airflow.sdk import DAG, Variable, dag, task, task_group\n"


def local(text: str | bytes, path: str = "dags/sales_x.py") -> LocalFile:
    content = textwrap.dedent(text).encode() if isinstance(text, str) else text
    return LocalFile(path, content, path.removeprefix("dags/"))


def judged(text: str | bytes, *beside: str, allow: tuple[str, ...] = ()) -> Judgement:
    files = (local(text), *(local("", f"dags/{name}") for name in beside))
    return judge(Snapshot(files, ()), "sales", allow_imports=allow)


def found(text: str | bytes, *beside: str, allow: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """Codes and lines, without the one that says that there is no DAG."""
    result = judged(text, *beside, allow=allow)
    return [(item.code, item.line) for item in result.findings if item.code != "ABP208"]


def dag_ids(text: str) -> list[str]:
    return [item.dag_id for item in read_source(local(IMPORTS + textwrap.dedent(text))).dags]


# --- DAG ids -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        'd = DAG("sales_daily")',
        'd = DAG(dag_id="sales_daily", schedule=None)',
        'with DAG("sales_daily") as d: pass',
        '@dag("sales_daily")\ndef f(): pass\nf()',
        '@dag(dag_id="sales_daily")\ndef f(): pass\nf()',
        "@dag\ndef sales_daily(): pass\nsales_daily()",
        "@dag(schedule=None)\ndef sales_daily(): pass\nsales_daily()",
        'PACKAGE = "sales"\nd = DAG(f"{PACKAGE}_daily")',
        'NAME: str = "sales_" + "daily"\nd = DAG(dag_id=NAME)',
        'import airflow\nd = airflow.DAG("sales_daily")',
        'from airflow import models as m\nd = m.DAG("sales_daily")',
        'from airflow.models.dag import DAG as D\nd = D("sales_daily")',
        'from airflow.decorators import dag as d\n@d("sales_daily")\ndef f(): pass\nf()',
        'def make():\n    return DAG("sales_daily")\nmake()',
    ],
)
def test_dag_id_that_is_written_down_is_read(text: str) -> None:
    assert dag_ids(text) == ["sales_daily"]
    assert found(IMPORTS + text) == []


@pytest.mark.parametrize(
    "text",
    [
        'import os\nd = DAG(os.environ["X"])',
        'for n in ("a", "b"):\n    globals()[n] = DAG(f"sales_{n}")',
        'NAME = "sales_a"\nNAME = "sales_b"\nd = DAG(NAME)',
        "def make(name):\n    return DAG(name)",
        'options = {"dag_id": "sales_x"}\nd = DAG(**options)',
        'd = DAG(f"sales_{1:03d}")',
    ],
)
def test_dag_id_that_only_running_tells_is_abp206(text: str) -> None:
    result = judged(IMPORTS + text)
    assert [item.code for item in result.findings if item.code != "ABP208"] == ["ABP206"]
    assert result.dynamic


@pytest.mark.parametrize(
    "text", ['class DAG: pass\nDAG("x")', "x = \"d = DAG('sales_a')\"", '# DAG("sales_a")']
)
def test_what_only_looks_like_a_dag_is_none(text: str) -> None:
    assert read_source(local(text)).dags == []


@pytest.mark.parametrize(
    "dag_id", ["daily", "sales", "sales_", "Sales_daily", "other_sales_daily", "salesdaily"]
)
def test_dag_id_outside_of_the_convention_is_abp203(dag_id: str) -> None:
    assert found(f"{IMPORTS}\nd = DAG({dag_id!r})") == [("ABP203", 3)]


def test_dag_id_twice_is_abp204_at_the_second_place() -> None:
    assert found(f'{IMPORTS}d = DAG("sales_a")\nd = DAG("sales_a")') == [("ABP204", 3)]
    files = tuple(local(f'{IMPORTS}d = DAG("sales_a")', f"dags/sales_{n}.py") for n in "ab")
    result = judge(Snapshot(files, ()), "sales")
    assert [(item.code, item.file) for item in result.findings] == [("ABP204", "sales_b.py")]
    assert "sales_a.py:2" in result.findings[0].message


@pytest.mark.parametrize("dag_id", ["sales_a b", "sales_ü", "sales_" + "x" * 250, "sales_a/b", "sales_\n"])
def test_dag_id_that_airflow_refuses_is_abp207(dag_id: str) -> None:
    assert [code for code, _ in found(f"{IMPORTS}d = DAG({dag_id!r})")] == ["ABP207"]


@pytest.mark.parametrize(
    "text",
    [
        'DAG("sales_x")',
        "def f():\n    DAG('sales_x')\nf()",
        "@dag\ndef sales_x(): pass",
        "@dag()\ndef sales_x(): pass",
    ],
)
def test_dag_that_airflow_does_not_see_is_abp209(text: str) -> None:
    assert [code for code, _ in found(IMPORTS + text)] == ["ABP209"]
    assert dag_ids(text) == []


# --- text --------------------------------------------------------------------------------------------
def test_bytes_that_are_not_utf_8_are_abp201_with_the_line() -> None:
    assert found(b"# ok\n# also\nx = '\xff'\n") == [("ABP201", 3)]
    assert found("\ufeffx = 'ü'\n".encode()) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"def f(:\n", 1),
        (b"x = 1\n  y = 2\n", 2),
        (b"x = 1\0", 1),
        (b"\nprint 'old'\n", 2),
        (b"type X = int\n", 1),  # newer than the control plane's Python
        (b"x = " + b"(" * 5000 + b")" * 5000, 1),
    ],
)
def test_what_is_no_python_is_abp202(text: bytes, line: int) -> None:
    result = found(text)
    assert [code for code, _ in result] == ["ABP202"]
    assert result[0][1] in {0, line}


@given(st.binary(max_size=200) | st.text(st.sampled_from("()[]{}:=\\\n\t '\"#@abfor.,0")).map(str.encode))
def test_no_content_breaks_the_reader(content: bytes) -> None:
    for item in read_source(local(content)).findings:
        assert item.line >= 0
        assert item.code.startswith("ABP")


# --- imports -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("from . import jobs", "ABP301"),
        ("from ..x import y", "ABP301"),
        ("import sales", "ABP302"),
        ("import sales.jobs.load as load", "ABP302"),
        ("from sales.jobs import load", "ABP302"),
        ("import importlib\nimportlib.import_module('sales.jobs')", "ABP302"),
        ("__import__('sales')", "ABP302"),
        ("import helper", "ABP303"),
        ("from helper import x", "ABP303"),
        ("import pandas", "ABP304"),
        ("import requests", "ABP304"),
        ("try:\n    import pandas\nexcept ImportError:\n    pandas = None", "ABP304"),
        ("class X:\n    import pandas", "ABP304"),
        ("def f():\n    import pandas\nf()", "ABP304"),
        ("from airflow.sdk import dag\n@dag\ndef sales_x():\n    import pandas\nsales_x()", "ABP304"),
        ("import importlib\nn = 'x'\nm = n\nimportlib.import_module(m * 2)", "ABP305"),
    ],
)
def test_import_that_the_parser_must_not_make_is_found(text: str, code: str) -> None:
    assert [item for item, _ in found(text, "helper.py")] == [code]


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations",
        "import os, json.decoder",
        "from airflow.providers.docker.operators.docker import DockerOperator",
        "from kubernetes.client import models",
        "import pendulum",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sales",
        "def f():\n    import sales",
        "f = lambda: __import__('sales')",
        "from airflow.sdk import task\n@task\ndef f():\n    import sales\nf()",
        "from airflow.sdk import task\n@task.docker(image='x')\ndef f():\n    import helper\nf()",
        "if __name__ == '__main__':\n    import sales",
        "class X:\n    def run(self):\n        import sales",
    ],
)
def test_import_that_waits_or_is_there_is_fine(text: str) -> None:
    assert found(text, "helper.py") == []


def test_allowed_module_brings_what_is_below_it_and_nothing_beside() -> None:
    text = "import acme.client.http\nimport acme.other"
    assert found(text, allow=("acme.client",)) == [("ABP304", 2)]
    assert found(text, allow=("acme",)) == []


# --- work while parsing --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("open('x')", "ABP401"),
        ("from pathlib import Path\nPath('x').read_text()", "ABP401"),
        ("from pathlib import Path\np = Path('x')\np.open()", "ABP401"),
        ("import os\nos.listdir('/')", "ABP401"),
        ("import shutil as s\ns.rmtree('x')", "ABP401"),
        ("import urllib.request\nurllib.request.urlopen('http://x')", "ABP402"),
        ("from urllib.request import urlopen as u\nu('http://x')", "ABP402"),
        ("import socket\nsocket.create_connection(('x', 1))", "ABP402"),
        ("import http.client\nhttp.client.HTTPConnection('x')", "ABP402"),
        ("import subprocess\nsubprocess.run(['x'])", "ABP403"),
        ("import os\nos.system('x')", "ABP403"),
        ("import os\nos.execvp('x', [])", "ABP403"),
        (IMPORTS + "Variable.get('x')", "ABP404"),
        ("from airflow.models import Variable as V\nV.get('x')", "ABP404"),
        ("from airflow.sdk import BaseHook\nBaseHook.get_connection('x')", "ABP404"),
        ("import time\ntime.sleep(1)", "ABP405"),
        ("from time import sleep\nsleep(1)", "ABP405"),
        ("input()", "ABP405"),
        ("eval('1')", "ABP406"),
        ("exec('x = 1')", "ABP406"),
        ("x = [open(n) for n in 'ab']", "ABP401"),
        ("def f(x=open('x')): pass", "ABP401"),
        ("class X:\n    y = open('x')", "ABP401"),
        ("class X:\n    def __init__(self):\n        open('x')\nX()", "ABP401"),
        ("def f():\n    g()\ndef g():\n    open('x')\nf()", "ABP401"),
        (IMPORTS + "with DAG('sales_x'):\n    open('x')", "ABP401"),
        (IMPORTS + "@dag\ndef sales_x():\n    open('x')\nsales_x()", "ABP401"),
        (
            IMPORTS
            + "@dag\ndef sales_x():\n    @task_group\n    def g():\n        open('x')\n    g()\nsales_x()",
            "ABP401",
        ),
    ],
)
def test_work_while_parsing_is_found(text: str, code: str) -> None:
    assert [item for item, _ in found(text)] == [code]


@pytest.mark.parametrize("module", ["requests", "httpx", "boto3"])
def test_client_of_the_network_is_found_wherever_it_hides(module: str) -> None:
    text = f"import {module}\nclient = {module}.client('s3')\n{module}.Session().get('x')"
    assert [item for item in found(text, allow=(module,)) if item[0] == "ABP402"][-1] == ("ABP402", 3)


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    open('x')",
        "f = lambda: open('x')",
        IMPORTS + "@task\ndef f():\n    open('x')\nf()",
        IMPORTS
        + "@dag\ndef sales_x():\n    @task(queue='x')\n    def f():\n        open('x')\n    f()\nsales_x()",
        IMPORTS + "from airflow.sdk import setup\n@setup\ndef f():\n    open('x')\nf()",
        "def open(x): return x\nopen('x')",
        "import re\nre.compile('x')",
        "import os\nos.environ.get('X'); os.path.join('a', 'b')",
        "import socket\nsocket.gethostname()",
        "from pathlib import Path\nP = Path(__file__).parent / 'x'",
        "if __name__ == '__main__':\n    open('x')",
        "class X:\n    def run(self):\n        open('x')",
        "def f():\n    f()\nf()",
    ],
)
def test_work_that_waits_for_a_run_is_fine(text: str) -> None:
    assert found(text) == []


def test_finding_names_file_line_and_call() -> None:
    (item,) = [item for item in judged("import os\n\nos.system('x')").findings if item.code == "ABP403"]
    assert (item.file, item.line) == ("sales_x.py", 3)
    assert "os.system()" in item.message
    assert item.hint
