"""The package keeps its own rules: public names are declared, private ones stay private, no import cycle.

Read from the syntax trees, so that modules which need Airflow or LocalStack are checked as well.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
SHARED = "airbridge.errors"


def _name(file: Path) -> str:
    parts = file.relative_to(SOURCES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(file): ast.parse(file.read_text(), str(file)) for file in sorted(SOURCES.rglob("*.py"))}


def _capability(module: str) -> str:
    """``airbridge.edge.diag._run`` belongs to ``edge``."""
    return module.split(".")[1] if "." in module else ""


def _declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            names = ast.literal_eval(node.value)
            assert isinstance(names, list)
            return names
    return None


def _defined(body: list[ast.stmt]) -> set[str]:
    """Names that the statements bind at module level, in their branches too."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.If):
            names |= _defined(node.body) | _defined(node.orelse)
        elif isinstance(node, ast.Try):
            names |= _defined(node.body) | _defined(node.orelse) | _defined(node.finalbody)
            names |= {name for handler in node.handlers for name in _defined(handler.body)}
    return names


def _imports(module: str, *, at_load: bool) -> set[str]:
    """Modules of this package that ``module`` imports; ``at_load`` leaves out what waits for a call or a
    type checker."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if (
            at_load
            and isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "airbridge")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "airbridge":
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively, which hides what it depends on"
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(MODULES[module])
    return found


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of the graph, or nothing."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for successor in sorted(graph.get(node, ())):
            if found := walk(successor, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def test_there_are_modules_to_check() -> None:
    assert {"airbridge", SHARED, "airbridge.controlplane.plugin", "airbridge.edge.diag"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_module_declares_its_public_names_and_has_them(module: str) -> None:
    declared = _declared(MODULES[module])
    assert declared is not None, f"{module} has no __all__"
    assert len(declared) == len(set(declared)), f"{module} names something twice"
    missing = set(declared) - _defined(MODULES[module].body)
    assert not missing, f"{module} declares what it does not have"


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_out_of_the_private_parts_of_other_capabilities(module: str) -> None:
    intrusions = {
        other
        for other in _imports(module, at_load=False)
        if _capability(other) not in ("", _capability(module))
        and any(part.startswith("_") and not part.startswith("__") for part in other.split("."))
    }
    assert not intrusions


@pytest.mark.parametrize("module", MODULES)
def test_private_names_are_imported_by_nobody_else(module: str) -> None:
    taken = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "airbridge"
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
        if f"{node.module}.{alias.name}" not in MODULES
    ]
    assert not taken


def test_modules_load_without_a_cycle() -> None:
    # A package's __init__ runs before any of its modules: importing the module needs both.
    graph = {module: _imports(module, at_load=True) & set(MODULES) for module in MODULES}
    assert not _cycle(graph)


def test_capabilities_know_each_other_without_a_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        own = _capability(module)
        graph.setdefault(own, set()).update(
            {_capability(o) for o in _imports(module, at_load=False)} - {own, ""}
        )
    assert not _cycle(graph)


def test_cycle_finder_finds_one() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
