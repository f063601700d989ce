"""Read a DAG file without running it: its DAG ids, its imports, and the work it does while it is parsed.

What counts is what Python would run when Airflow imports the file: statements of the module and of classes,
and the bodies of functions that these call by name, such as a function under ``@dag``. Bodies of tasks, and
of functions that nobody calls, wait for a run. What hides behind objects (``client = make(); client.get()``)
cannot be seen; the real import is for that.
"""

from __future__ import annotations

import ast
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airbridge.publisher._findings import Finding, finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.publisher._files import LocalFile

__all__ = ["DagId", "Source", "read_source"]

_PYTHON: Final = (3, 11)  # of the images

_DAG_CLASSES: Final = frozenset(
    {
        "airflow.sdk.DAG",
        "airflow.DAG",
        "airflow.models.DAG",
        "airflow.models.dag.DAG",
        "airflow.sdk.definitions.dag.DAG",
    }
)
_DAG_DECORATORS: Final = frozenset(
    {"airflow.sdk.dag", "airflow.decorators.dag", "airflow.models.dag.dag", "airflow.sdk.definitions.dag.dag"}
)
_TASK_DECORATORS: Final = frozenset(
    f"{module}.{name}"
    for module in ("airflow.sdk", "airflow.decorators")
    for name in ("task", "setup", "teardown")
)

#: What a call does, by the beginning of its full name; the longest one that fits counts.
_CALLS: Final = {
    "open": "ABP401",
    "io.open": "ABP401",
    "os.open": "ABP401",
    "os.listdir": "ABP401",
    "os.scandir": "ABP401",
    "os.walk": "ABP401",
    "os.remove": "ABP401",
    "os.unlink": "ABP401",
    "os.makedirs": "ABP401",
    "os.mkdir": "ABP401",
    "os.rename": "ABP401",
    "os.replace": "ABP401",
    "os.rmdir": "ABP401",
    "glob.glob": "ABP401",
    "glob.iglob": "ABP401",
    "shutil": "ABP401",
    "tempfile": "ABP401",
    "sqlite3": "ABP401",
    "requests": "ABP402",
    "httpx": "ABP402",
    "aiohttp": "ABP402",
    "urllib3": "ABP402",
    "urllib.request": "ABP402",
    "http.client": "ABP402",
    "socket": "ABP402",
    "ssl.create_connection": "ABP402",
    "boto3": "ABP402",
    "botocore": "ABP402",
    "smtplib": "ABP402",
    "ftplib": "ABP402",
    "imaplib": "ABP402",
    "paramiko": "ABP402",
    "psycopg2": "ABP402",
    "psycopg": "ABP402",
    "pymysql": "ABP402",
    "sqlalchemy.create_engine": "ABP402",
    "redis": "ABP402",
    "kubernetes.config": "ABP402",
    "docker.from_env": "ABP402",
    "docker.DockerClient": "ABP402",
    "docker.APIClient": "ABP402",
    "subprocess": "ABP403",
    "os.system": "ABP403",
    "os.popen": "ABP403",
    "os.fork": "ABP403",
    "os.exec": "ABP403",
    "os.spawn": "ABP403",
    "os.posix_spawn": "ABP403",
    "pty.spawn": "ABP403",
    "multiprocessing": "ABP403",
    "airflow.sdk.Variable": "ABP404",
    "airflow.models.Variable": "ABP404",
    "airflow.models.variable.Variable": "ABP404",
    "airflow.sdk.Connection.get": "ABP404",
    "airflow.models.Connection.get": "ABP404",
    "airflow.models.connection.Connection.get": "ABP404",
    "airflow.sdk.BaseHook.get_": "ABP404",
    "airflow.hooks.base.BaseHook.get_": "ABP404",
    "airflow.settings.Session": "ABP404",
    "airflow.utils.session.create_session": "ABP404",
    "time.sleep": "ABP405",
    "asyncio.run": "ABP405",
    "asyncio.sleep": "ABP405",
    "input": "ABP405",
    "threading.Thread": "ABP405",
    "eval": "ABP406",
    "exec": "ABP406",
    "compile": "ABP406",
}
#: Prefixes that end inside of a name: os.execvp, BaseHook.get_connection.
_OPEN_ENDED: Final = tuple(
    name for name in _CALLS if name.endswith(("_", "os.exec", "os.spawn", "os.posix_spawn"))
)
#: Calls below a flagged module that only describe something.
_HARMLESS: Final = (
    "socket.gethostname",
    "subprocess.list2cmdline",
    "multiprocessing.cpu_count",
    "botocore.config.Config",
    "airflow.sdk.Variable.__init__",
    "requests.auth",
    "requests.exceptions",
    "httpx.Timeout",
    "httpx.Limits",
)
#: Methods whose name alone says what they do, on whatever object (that of a pathlib.Path, most of all).
_METHODS: Final = {
    "open": "ABP401",
    "read_text": "ABP401",
    "read_bytes": "ABP401",
    "write_text": "ABP401",
    "write_bytes": "ABP401",
    "iterdir": "ABP401",
    "rglob": "ABP401",
    "get_conn": "ABP404",
}
_SAID: Final = {
    "ABP401": "uses files",
    "ABP402": "uses the network",
    "ABP403": "starts a program",
    "ABP404": "asks Airflow's database",
    "ABP405": "waits",
    "ABP406": "makes code",
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class DagId:
    """A DAG id, and where it is written."""

    dag_id: str
    line: int


@dataclass(slots=True)
class Source:
    """What was read out of one file."""

    file: LocalFile
    dags: list[DagId] = field(default_factory=list)
    dynamic: bool = False
    """Whether it makes DAGs whose id cannot be read."""
    imports: list[tuple[str, int, int]] = field(default_factory=list)
    """Modules that parsing imports: full name, level (0: absolute), line."""
    findings: list[Finding] = field(default_factory=list)


# Two threads that parse at once share one recursion counter, and one of them fails with SystemError
# (https://github.com/python/cpython/issues/106905); the filters of warnings are the whole process's as well.
_ONE_AT_A_TIME = threading.Lock()


def read_source(file: LocalFile) -> Source:
    """Read ``file``; what is wrong with it alone is in the findings."""
    source = Source(file)
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.content.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} is not UTF-8"
        source.findings.append(finding("ABP201", message, file=file.shown, line=line))
        return source
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code, for its author: not for who publishes it
            tree = ast.parse(text, filename=file.shown, feature_version=_PYTHON)
            _Walk(source, tree).run()
    except SyntaxError as error:
        message = f"it is no Python: {error.msg}"
        source.findings.append(finding("ABP202", message, file=file.shown, line=error.lineno or 0))
    except (ValueError, RecursionError, MemoryError) as error:
        message = f"it cannot be parsed: {error or type(error).__name__}"
        source.findings.append(finding("ABP202", message, file=file.shown, line=1))
    return source


class _Walk:
    """Follows what importing the module would run."""

    def __init__(self, source: Source, tree: ast.Module) -> None:
        self._source = source
        self._tree = tree
        self._names: dict[str, str] = {}
        self._functions: dict[str, _Function | ast.ClassDef] = {}
        self._constants: dict[str, str] = {}
        self._followed: set[int] = set()

    def run(self) -> None:
        for node in ast.walk(self._tree):
            self._learn(node)
        self._learn_constants()
        self._find_dags()
        self._statements(self._tree.body)

    # --- what names mean ---------------------------------------------------------------------

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds a; `import a.b as c` binds a.b.
                bound = alias.asname or alias.name.split(".")[0]
                self._names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, _Function | ast.ClassDef):
            self._functions.setdefault(node.name, node)

    def _learn_constants(self) -> None:
        stored: dict[str, int] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                stored[node.id] = stored.get(node.id, 0) + 1
        for statement in self._tree.body:
            target = value = None
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target, value = statement.targets[0], statement.value
            elif isinstance(statement, ast.AnnAssign):
                target, value = statement.target, statement.value
            if isinstance(target, ast.Name) and stored[target.id] == 1 and value is not None:
                text = self._text(value)
                if text is not None:
                    self._constants[target.id] = text

    def _text(self, node: ast.expr) -> str | None:
        """Return the text that an expression is, when that can be read."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            return self._constants.get(node.id)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._text(node.left), self._text(node.right)
            return left + right if left is not None and right is not None else None
        if isinstance(node, ast.JoinedStr):
            parts = [
                self._text(part.value)
                if isinstance(part, ast.FormattedValue) and part.format_spec is None and part.conversion == -1
                else self._text(part)
                for part in node.values
            ]
            return None if None in parts else "".join(part for part in parts if part is not None)
        return None

    def _full_name(self, node: ast.expr) -> str:
        """Return the dotted name that an expression means, imports resolved; empty when it is none."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id if node.id not in self._functions else "")
        if isinstance(node, ast.Attribute):
            base = self._full_name(node.value)
            return f"{base}.{node.attr}" if base else ""
        if isinstance(node, ast.Call):
            return self._full_name(node.func)  # boto3.client("s3").list_buckets()
        return ""

    # --- DAG ids -------------------------------------------------------------------------------

    def _find_dags(self) -> None:
        nodes = list(ast.walk(self._tree))
        called = {
            node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        # Airflow takes what is bound in the module, or was entered with "with".
        lost = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Call) and self._full_name(node.func) in _DAG_CLASSES:
                if id(node) in lost:
                    self._add("ABP209", "this DAG is made and not kept", node.lineno)
                else:
                    self._note_dag(node, node.lineno, default=None)
            elif isinstance(node, _Function):
                for decorator in node.decorator_list:
                    target = decorator.func if isinstance(decorator, ast.Call) else decorator
                    if self._full_name(target) not in _DAG_DECORATORS:
                        continue
                    if node.name not in called:
                        self._add("ABP209", f"{node.name}() makes a DAG and is never called", node.lineno)
                        continue
                    call = decorator if isinstance(decorator, ast.Call) else None
                    self._note_dag(call, decorator.lineno, default=node.name)

    def _note_dag(self, call: ast.Call | None, line: int, *, default: str | None) -> None:
        given: ast.expr | None = None
        hidden = False
        if call is not None:
            given = next((word.value for word in call.keywords if word.arg == "dag_id"), None)
            if given is None and call.args:
                given = call.args[0]
            hidden = given is None and any(word.arg is None for word in call.keywords)
        text = default if given is None and not hidden else self._text(given) if given is not None else None
        if text is None:
            self._source.dynamic = True
            self._add("ABP206", "the id of this DAG is not written as a literal", line)
        else:
            self._source.dags.append(DagId(text, line))

    # --- what parsing runs -----------------------------------------------------------------------

    def _statements(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._visit(statement)

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, _Function):
            # The body waits for a call; decorators and defaults do not.
            for part in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self._visit(part)
            return
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.If) and self._is_type_checking(node.test):
            self._statements(node.orelse)
            return
        if isinstance(node, ast.If) and self._is_main(node.test):
            self._statements(node.orelse)
            return
        if isinstance(node, ast.Import):
            self._source.imports += [(alias.name, 0, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            self._note_import_from(node)
        elif isinstance(node, ast.Call):
            self._call(node)
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    def _note_import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            self._source.imports.append((module, node.level, node.lineno))
        elif module != "__future__":
            self._source.imports += [(f"{module}.{alias.name}", 0, node.lineno) for alias in node.names]

    def _call(self, node: ast.Call) -> None:
        name = self._full_name(node.func)
        if name in {"__import__", "importlib.import_module"}:
            module = self._text(node.args[0]) if node.args else None
            if module is None:
                self._add("ABP305", f"{name}() imports what cannot be read here", node.lineno)
            else:
                level = len(module) - len(module.lstrip("."))
                self._source.imports.append((module.lstrip("."), level, node.lineno))
            return
        if isinstance(node.func, ast.Name) and node.func.id in self._functions:
            self._follow(self._functions[node.func.id])
            return
        code = _code_of(name)
        if code is None and isinstance(node.func, ast.Attribute):
            name = name or node.func.attr
            code = _METHODS.get(node.func.attr)
        if code is not None:
            self._add(code, f"{name}() {_SAID[code]} whenever the file is parsed", node.lineno)

    def _follow(self, target: _Function | ast.ClassDef) -> None:
        if id(target) in self._followed:
            return
        self._followed.add(id(target))
        if isinstance(target, ast.ClassDef):
            for member in target.body:
                if isinstance(member, _Function) and member.name in {"__init__", "__new__"}:
                    self._follow(member)
        elif not self._is_task(target):
            self._statements(target.body)

    def _is_task(self, function: _Function) -> bool:
        """Tell whether calling ``function`` makes a task instead of running it."""
        for decorator in function.decorator_list:
            name = self._full_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
            # task.docker, task.branch and the like too.
            if name in _TASK_DECORATORS or any(name.startswith(f"{known}.") for known in _TASK_DECORATORS):
                return True
        return False

    def _is_type_checking(self, test: ast.expr) -> bool:
        return self._full_name(test) in {"typing.TYPE_CHECKING", "TYPE_CHECKING"}

    @staticmethod
    def _is_main(test: ast.expr) -> bool:
        return (
            isinstance(test, ast.Compare)
            and isinstance(test.left, ast.Name)
            and test.left.id == "__name__"
            and len(test.ops) == 1
            and isinstance(test.ops[0], ast.Eq)
        )

    def _add(self, code: str, message: str, line: int) -> None:
        self._source.findings.append(finding(code, message, file=self._source.file.shown, line=line))


def _code_of(name: str) -> str | None:
    if not name or any(name == known or name.startswith(f"{known}.") for known in _HARMLESS):
        return None
    for prefix in _prefixes(name):
        if prefix in _CALLS:
            return _CALLS[prefix]
    return next((_CALLS[known] for known in _OPEN_ENDED if name.startswith(known)), None)


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        yield ".".join(parts[:length])
