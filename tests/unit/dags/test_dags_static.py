"""What can be said about the example DAGs without Airflow: layout, imports, nothing done on reading them."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "dags"
FILES = sorted(ROOT.glob("*/dags/*.py"))

#: Calls that may stand outside of a function: they compute, read the environment, or declare a DAG.
ALLOWED_CALLS = re.compile(
    r"datetime|timedelta|frozenset|Param|Step|logging\.getLogger|os\.environ\.get|len|[^\"]*\.join|dag|_retry_delay"
    r"|_edge_sample_dag|_fresh_poc_e2e|_feature_tour_deferral|_feature_tour_mapping"
)
#: Modules of the standard library that could do I/O or change from one parse to the next.
FORBIDDEN_AT_TOP = {"http", "pathlib", "random", "requests", "sqlite3", "subprocess", "urllib", "uuid"}


def _modules(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere below."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import finds nothing: a DAG file is read alone"
            found.add(node.module or "")
    return found


def _outside_functions(node: ast.AST) -> list[ast.AST]:
    """Every node that runs when the file is read: bodies of functions do not, their decorators do."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            defaults = child.args.defaults + [item for item in child.args.kw_defaults if item]
            for part in [*getattr(child, "decorator_list", []), *defaults]:
                found += [part, *_outside_functions(part)]
        else:
            found += [child, *_outside_functions(child)]
    return found


def _top_calls(tree: ast.Module) -> list[str]:
    return [ast.unparse(node.func) for node in _outside_functions(tree) if isinstance(node, ast.Call)]


def test_there_are_three_packages_and_nothing_lies_beside_the_layout() -> None:
    assert {path.parents[1].name for path in FILES} == {"edge_sample", "feature_tour", "fresh_poc"}
    assert sorted(ROOT.rglob("*.py")) == FILES


def test_file_names_are_unique_over_all_packages() -> None:
    names = Counter(path.name for path in FILES)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_named_after_its_package(path: Path) -> None:
    assert path.stem.startswith(f"{path.parents[1].name}_")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_airflow_and_the_standard_library_are_imported(path: Path) -> None:
    """``httpx`` comes with Airflow's Task SDK and is imported inside the task only."""
    tree = ast.parse(path.read_text())
    foreign = {
        module
        for module in _modules(tree)
        if module.split(".")[0] not in {*sys.stdlib_module_names, "airflow", "httpx"}
    }
    assert foreign == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_imported_when_the_file_is_read_cannot_reach_out(path: Path) -> None:
    read = {
        module.split(".")[0]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in _modules(node)
    }
    assert read & (FORBIDDEN_AT_TOP | {"httpx"}) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_outside_a_function_does_io_or_reads_a_clock(path: Path) -> None:
    calls = _top_calls(ast.parse(path.read_text()))
    assert calls, "at least the DAG itself is made"
    assert [call for call in calls if not ALLOWED_CALLS.fullmatch(call)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_dag_has_documentation_and_no_schedule(path: Path) -> None:
    (declared,) = [
        node
        for node in _outside_functions(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "dag"
    ]
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in declared.keywords}
    assert options["doc_md"] == "DOC"
    assert options["schedule"] == "None"
    assert options["catchup"] == "False"


@pytest.mark.parametrize(
    "code",
    [
        "open('x')",
        "import httpx\nX = httpx.get('http://x')",
        "class A:\n    now = datetime.now()",
        "def f(x=time.time()): ...",
        "@d(socket.create_connection(('x', 1)))\ndef f(): ...",
    ],
)
def test_the_check_for_io_finds_it_wherever_it_hides(code: str) -> None:
    assert [call for call in _top_calls(ast.parse(code)) if not ALLOWED_CALLS.fullmatch(call)]


def test_the_check_for_io_leaves_bodies_of_functions_alone() -> None:
    assert _top_calls(ast.parse("def f():\n    open('x')\ng = lambda: open('y')")) == []
