"""Read one module of a ``jobs/`` folder as text: is it a job, and which? It is never imported."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airbridge.jobs._literals import NoLiteralError, read_literal, read_options
from airbridge.jobs.options import JobOptions, check_options

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_MODULE_BYTES", "Finding", "JobDeclaration", "read_module"]

MAX_MODULE_BYTES: Final = 1024 * 1024
"""Size of a module in ``jobs/`` at most: a person wrote it, and it is parsed with every pass."""

_MAX_DESCRIPTION: Final = 1000
_POSITIONAL = ("entrypoint", "description")
_JOB_CLASS = frozenset({"airbridge.jobs.Job", "airbridge.jobs.definition.Job"})
_FORMS = (
    'write JOB = (entrypoint, "description"), JOB = (entrypoint, "description", {"option": value}), '
    'or JOB = Job(entrypoint, "description", option=value)'
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong in a module."""

    line: int
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class JobDeclaration:
    """What a module says about its job, and the line of each option."""

    line: int
    entrypoint: str
    description: str
    options: JobOptions
    lines: dict[str, int]


class _Refused(Exception):
    def __init__(self, *findings: Finding) -> None:
        super().__init__()
        self.findings = findings


def read_module(body: bytes) -> JobDeclaration | tuple[Finding, ...] | None:
    """Read a module; ``None`` when it declares no job, findings when what it declares cannot be run."""
    try:
        tree = _parse(body)
        stores = [node for node in _module_scope(tree.body) if _binds_job(node)]
        if not stores:
            return None
        return _declaration(tree, stores)
    except _Refused as refused:
        return refused.findings


def _parse(body: bytes) -> ast.Module:
    if len(body) > MAX_MODULE_BYTES:
        raise _Refused(
            Finding(
                0,
                f"the module has {len(body)} bytes, {MAX_MODULE_BYTES} are allowed",
                "move data into a file of their own, outside jobs/",
            )
        )
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise _Refused(Finding(line, "the module is not UTF-8", "save it as UTF-8")) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as '\d' in a text: the author's linter says so
            return ast.parse(text)
    except SyntaxError as error:
        raise _Refused(
            Finding(error.lineno or 0, f"the module is no Python: {error.msg}", "correct the syntax")
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        what = str(error) or "it is nested too deeply"
        raise _Refused(Finding(0, f"the module is no Python: {what}", "correct the syntax")) from None


def _module_scope(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield every node that runs when the module is imported, without bodies of functions and classes."""
    waiting: list[ast.AST] = list(reversed(statements))
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def _binds_job(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="JOB", ctx=ast.Store() | ast.Del()):
            return True
        case ast.FunctionDef(name="JOB") | ast.AsyncFunctionDef(name="JOB") | ast.ClassDef(name="JOB"):
            return True
        case ast.alias():
            return (node.asname or node.name) == "JOB"
    return False


def _declaration(tree: ast.Module, stores: list[ast.AST]) -> JobDeclaration:
    found = [(statement, value) for statement in tree.body if (value := _assigned(statement)) is not None]
    if len(stores) != 1 or len(found) != 1:
        place = stores[-1]
        raise _Refused(
            Finding(
                getattr(place, "lineno", 0),
                "JOB is not assigned exactly once, at the top level of the module",
                _FORMS,
            )
        )
    statement, value = found[0]
    parts = _parts(tree, value)
    entrypoint = _entrypoint(tree, parts.entrypoint)
    description = _description(parts.description)
    values, lines, wrong = read_options(parts.options)
    findings = [
        Finding(line, f"option '{name}' {what}", "write the value itself: JOB is read, not run")
        for name, line, what in wrong
    ]
    checked = check_options(values)
    unread = {name for name, _, _ in wrong}
    if isinstance(checked, list):
        findings += [
            Finding(lines.get(fault.option, value.lineno), fault.what, fault.fix)
            for fault in checked
            if fault.option not in unread
        ]
    if findings or isinstance(checked, list):
        raise _Refused(*findings)
    return JobDeclaration(statement.lineno, entrypoint, description, checked, lines)


def _assigned(statement: ast.stmt) -> ast.expr | None:
    """Return the value of ``JOB = value``."""
    match statement:
        case ast.Assign(targets=[ast.Name(id="JOB")], value=value):
            return value
        case ast.AnnAssign(target=ast.Name(id="JOB"), value=ast.expr() as value):
            return value
    return None


@dataclass(frozen=True, slots=True)
class _Parts:
    entrypoint: ast.expr
    description: ast.expr
    options: list[tuple[str, ast.expr, int]]


def _parts(tree: ast.Module, value: ast.expr) -> _Parts:
    match value:
        case ast.Tuple(elts=[entrypoint, description]):
            return _Parts(entrypoint, description, [])
        case ast.Tuple(elts=[entrypoint, description, ast.Dict() as options]):
            return _Parts(entrypoint, description, _dict_options(options))
        case ast.Tuple(elts=[_, _, third]):
            raise _Refused(Finding(third.lineno, "the options of JOB are no dict written out", _FORMS))
        case ast.Call(func=function) if _is_job_class(tree, function):
            return _call_parts(value)
    raise _Refused(Finding(value.lineno, "JOB is neither a tuple nor a Job(...)", _FORMS))


def _dict_options(options: ast.Dict) -> list[tuple[str, ast.expr, int]]:
    pairs: list[tuple[str, ast.expr, int]] = []
    for key, value in zip(options.keys, options.values, strict=True):
        match key:
            case ast.Constant(value=str() as name):
                pairs.append((name, value, key.lineno))
            case _:
                line = key.lineno if key is not None else value.lineno
                raise _Refused(Finding(line, "the name of an option is no text", _FORMS))
    return pairs


def _call_parts(call: ast.Call) -> _Parts:
    if any(keyword.arg is None for keyword in call.keywords) or any(
        isinstance(item, ast.Starred) for item in call.args
    ):
        raise _Refused(
            Finding(call.lineno, "Job(...) unpacks its arguments", "write each one out: JOB is read, not run")
        )
    given = [*zip(_POSITIONAL, call.args, strict=False)]
    given += [(str(keyword.arg), keyword.value) for keyword in call.keywords]
    first = [(name, value) for name, value in given if name in _POSITIONAL]
    if len(call.args) > len(_POSITIONAL) or sorted(name for name, _ in first) != sorted(_POSITIONAL):
        raise _Refused(
            Finding(
                call.lineno, "Job(...) takes an entrypoint and a description, then options by name", _FORMS
            )
        )
    options = [
        (keyword.arg, keyword.value, keyword.lineno)
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in _POSITIONAL
    ]
    return _Parts(dict(first)["entrypoint"], dict(first)["description"], options)


def _is_job_class(tree: ast.Module, function: ast.expr) -> bool:
    """Tell whether an expression names :class:`airbridge.jobs.Job`, however it was imported."""
    dotted = _dotted(function)
    if not dotted:
        return False
    head, _, rest = dotted.partition(".")
    meanings: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            meanings |= {f"{node.module}.{a.name}" for a in node.names if (a.asname or a.name) == head}
        elif isinstance(node, ast.Import):
            meanings |= {a.name for a in node.names if a.asname == head}
            meanings |= {head for a in node.names if not a.asname and a.name.partition(".")[0] == head}
    names = {f"{meaning}.{rest}" if rest else meaning for meaning in meanings}
    return not names.isdisjoint(_JOB_CLASS)


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute(value=inner):
            head = _dotted(inner)
            return f"{head}.{node.attr}" if head else ""
    return ""


def _description(node: ast.expr) -> str:
    try:
        text = read_literal(node)
    except NoLiteralError:
        text = None
    if not isinstance(text, str) or not text.strip():
        raise _Refused(Finding(node.lineno, "the description of JOB is no text written out", _FORMS))
    text = " ".join(text.split())
    if not text.isprintable() or len(text) > _MAX_DESCRIPTION:
        raise _Refused(
            Finding(
                node.lineno,
                "the description of JOB holds control characters or is too long",
                f"use at most {_MAX_DESCRIPTION} printable characters",
            )
        )
    return text


def _entrypoint(tree: ast.Module, node: ast.expr) -> str:
    if not isinstance(node, ast.Name):
        raise _Refused(
            Finding(node.lineno, "the entrypoint of JOB is no name", "name a function of this module")
        )
    name = node.id
    definitions = [found for found in _module_scope(tree.body) if name in _bound_names(found)]
    if not definitions:
        raise _Refused(
            Finding(
                node.lineno,
                f"the entrypoint '{name}' is not defined in this module",
                f"define it: def {name}(argv: list[str]) -> int | None",
            )
        )
    definition = definitions[-1]
    line = getattr(definition, "lineno", node.lineno)
    match definition:
        case ast.AsyncFunctionDef():
            raise _Refused(
                Finding(
                    line, f"the entrypoint '{name}' is async", "call asyncio.run(...) in a plain function"
                )
            )
        case ast.ClassDef():
            raise _Refused(Finding(line, f"the entrypoint '{name}' is a class", "name a function"))
        case ast.FunctionDef() if not _takes_one(definition.args) and not definition.decorator_list:
            raise _Refused(
                Finding(
                    line,
                    f"the entrypoint '{name}' cannot be called with one argument",
                    f"write def {name}(argv: list[str]) -> int | None",
                )
            )
    return name


def _bound_names(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.alias():
            return {(node.asname or node.name).partition(".")[0]}
        case ast.Name(ctx=ast.Store()):
            return {node.id}
    return set()


def _takes_one(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    named_only = any(default is None for default in arguments.kw_defaults)
    return required <= 1 and (positional >= 1 or arguments.vararg is not None) and not named_only
