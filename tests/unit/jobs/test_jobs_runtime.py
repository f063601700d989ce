"""A job on its worker: the release's code, its arguments, and every way to end."""

from __future__ import annotations

import logging
import sys
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airbridge.jobs.runtime import JobFailedError, JobRefusedError, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Release:
    """The code beside the DAG files of one release."""

    source: Path
    package: str = "runtime_probe"
    ran: list[Any] = field(default_factory=list)

    def put(self, path: str, text: str) -> None:
        file = self.source / self.package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def job(self, body: str) -> None:
        self.put("__init__.py", "")
        self.put("jobs/__init__.py", "")
        self.put(
            "jobs/load.py",
            f"import sys, os\n\ndef main(argv):\n{textwrap.indent(textwrap.dedent(body), '    ')}",
        )

    def run(self, args: list[str] | None = None, **options: Any) -> None:
        run_job(f"{self.package}.jobs.load", "main", args=args or [], source=self.source, **options)


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    source = tmp_path / "one/_source"
    source.mkdir(parents=True)
    yield Release(source)
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("runtime_probe")]:
        del sys.modules[name]


@pytest.fixture
def out(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(
    "ending", ["return", "return None", "return 0", "return False", "sys.exit()", "sys.exit(0)"]
)
def test_job_that_succeeds_says_so(release: Release, out: pytest.LogCaptureFixture, ending: str) -> None:
    release.job(ending)
    release.run()
    assert "job runtime_probe.jobs.load ended with exit code 0 after" in out.text


@pytest.mark.parametrize(
    ("ending", "code"),
    [("return 3", 3), ("return -1", -1), ("return True", 1), ("sys.exit(4)", 4), ("sys.exit('no orders')", 1),
     ("raise SystemExit({'a': 1})", 1)],
)  # fmt: skip
def test_job_that_fails_has_its_exit_code_in_the_log_and_in_the_error(
    release: Release, out: pytest.LogCaptureFixture, ending: str, code: int
) -> None:
    release.job(ending)
    with pytest.raises(JobFailedError, match=f"ended with exit code {code}$") as caught:
        release.run()
    assert caught.value.exit_code == code
    assert f"job runtime_probe.jobs.load ended with exit code {code} after" in out.text


def test_what_is_said_by_sys_exit_is_in_the_log(release: Release, out: pytest.LogCaptureFixture) -> None:
    release.job("sys.exit('no orders today')")
    with pytest.raises(JobFailedError):
        release.run()
    assert "no orders today" in out.text


def test_exception_of_the_job_is_the_tasks_failure(release: Release) -> None:
    release.job("raise ZeroDivisionError('by nothing')")
    with pytest.raises(ZeroDivisionError, match="by nothing"):
        release.run()


@pytest.mark.parametrize("ending", ["return '0'", "return 0.0", "return [1]", "return object"])
def test_answer_that_is_no_exit_code_is_refused(release: Release, ending: str) -> None:
    release.job(ending)
    with pytest.raises(JobRefusedError, match=r"which is no exit code \| fix: return a whole number"):
        release.run()


@pytest.mark.parametrize(
    ("default", "conf", "argv"),
    [
        ([], None, []),
        (["a"], None, ["a"]),
        (["a"], {}, ["a"]),
        (["a"], {"other": 1}, ["a"]),
        (["a"], {"args": None}, ["a"]),
        (["a"], {"args": []}, []),
        (["a"], {"args": ["b", "--c=d e"]}, ["b", "--c=d e"]),
    ],
)
def test_arguments_of_the_run_replace_those_of_the_job(
    release: Release, capsys: pytest.CaptureFixture[str], default: list[str], conf: Any, argv: list[str]
) -> None:
    release.job("print(argv)")
    release.run(default, conf=conf)
    assert capsys.readouterr().out == f"{argv}\n"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--day", "is '--day' (str), not a list of texts"),
        (5, "is 5 (int), not a list of texts"),
        ({"a": 1}, "is {'a': 1} (dict), not a list of texts"),
        (["a", 5], "has 5 (int) at position 1, not a text"),
        ([None], "has None (NoneType) at position 0, not a text"),
        ([["a"]], "has ['a'] (list) at position 0, not a text"),
    ],
)
def test_arguments_of_a_wrong_type_are_a_clear_failure_before_anything_runs(
    release: Release, given: Any, words: str
) -> None:
    release.put("jobs/load.py", "raise SystemExit('imported')\n")
    with pytest.raises(JobRefusedError) as caught:
        release.run(conf={"args": given})
    assert words in str(caught.value)
    assert " | fix: " in str(caught.value)


def test_modules_of_the_package_are_there_while_the_job_runs_and_only_then(release: Release) -> None:
    release.job(
        """
        from runtime_probe.helper import answer
        import runtime_probe.jobs.other
        assert str(sys.path[0]).endswith("_source")
        return answer()
        """
    )
    release.put("helper.py", "def answer(): return 0\n")
    release.put("jobs/other.py", "")
    before = list(sys.path)
    release.run()
    assert sys.path == before


def test_run_uses_the_code_of_its_own_release(release: Release, tmp_path: Path) -> None:
    release.job("from runtime_probe.helper import NUMBER\nreturn NUMBER")
    release.put("helper.py", "NUMBER = 1\n")
    newer = Release(tmp_path / "two/_source")
    newer.job("from runtime_probe.helper import NUMBER\nreturn NUMBER")
    newer.put("helper.py", "NUMBER = 2\n")
    for one, number in ((release, 1), (newer, 2), (release, 1)):
        with pytest.raises(JobFailedError) as caught:
            one.run()
        assert caught.value.exit_code == number


def test_package_without_init_files_works(release: Release) -> None:
    release.put("jobs/load.py", "from runtime_probe.helper import X\ndef main(argv): return X\n")
    release.put("helper.py", "X = 0\n")
    release.run()


def test_module_of_another_place_is_refused(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "site"
    (elsewhere / "runtime_probe/jobs").mkdir(parents=True)
    for file in ("__init__.py", "jobs/__init__.py", "jobs/load.py"):
        (elsewhere / "runtime_probe" / file).write_text("def main(argv): return 0\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    release.put("jobs/load.py", "def main(argv): return 0\n")  # no __init__.py: the regular package wins
    with pytest.raises(JobRefusedError, match=r"was imported from .*site.* \| fix: add an __init__.py"):
        release.run()


def test_missing_code_missing_module_and_missing_function_are_told(release: Release, tmp_path: Path) -> None:
    with pytest.raises(JobRefusedError, match=r"has no code of package 'runtime_probe' .* \| fix: "):
        release.run()
    release.put("jobs/other.py", "")
    with pytest.raises(ModuleNotFoundError):
        release.run()
    release.put("jobs/load.py", "main = 5\n")
    with pytest.raises(JobRefusedError, match="has no function 'main'"):
        release.run()


def test_installed_package_is_imported_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Release(tmp_path / "site", "runtime_probe_installed")
    installed.job("return 5")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(JobFailedError, match="exit code 5"):
        run_job("runtime_probe_installed.jobs.load", "main", args=[], source=None)


def test_memory_beyond_the_limit_fails_the_job_and_nothing_else(release: Release) -> None:
    release.job("return len(bytearray(int(argv[0]) * 2**20)) == 0")
    release.run(["8"], memory_bytes=64 * 2**20)
    with pytest.raises(MemoryError):
        release.run(["512"], memory_bytes=64 * 2**20)
    release.run(["512"])  # the limit is gone


def test_output_comes_before_what_is_said_about_the_end(release: Release) -> None:
    release.job("print('said', end=''); return 0")

    class Buffered:
        flushed = False

        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            self.flushed = True

    buffered, stdout = Buffered(), sys.stdout
    sys.stdout = buffered  # type: ignore[assignment]
    try:
        release.run()
    finally:
        sys.stdout = stdout
    assert buffered.flushed
