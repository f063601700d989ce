"""The Makefile explains itself, and every target leads to a script that exists."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from scripts_steps import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

_PROMISED = [
    "up",
    "down",
    "destroy",
    "status",
    "logs",
    "password",
    "edge",
    "diag",
    "build",
    "build-control-plane",
    "build-edge-worker",
    "test",
    "test-unit",
    "test-integration",
    "test-e2e",
    "lint",
    "format",
    "bench",
    "lock",
    "help",
]


def make(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--directory", str(ROOT), "--no-print-directory", *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def targets() -> list[str]:
    """Every target that is declared phony: all there are."""
    declared = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return " ".join(declared).split()


def test_help_lists_every_target_with_its_text() -> None:
    answer = make("help")
    assert answer.returncode == 0
    listed = dict(re.findall(r"^  ([a-z0-9-]+) +(\S.*)$", answer.stdout, re.MULTILINE))
    assert sorted(listed) == sorted(targets())


def test_every_promised_target_exists() -> None:
    assert set(_PROMISED) <= set(targets())


def test_make_alone_explains_and_changes_nothing() -> None:
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", targets())
def test_target_calls_only_scripts_that_exist(target: str) -> None:
    answer = make("--dry-run", target)
    assert answer.returncode == 0, answer.stderr
    for script in re.findall(r"\bscripts/[\w.-]+", answer.stdout):
        assert (ROOT / script).is_file(), script


def test_variables_reach_the_script_unharmed(tmp_path: Path) -> None:
    # A name with a quote in it must be refused by the script, not run by the shell.
    bait = tmp_path / "bait"
    answer = make("edge", f"NAME=x; touch {bait}")
    assert answer.returncode != 0
    assert "is no name for an edge host" in answer.stderr
    assert not bait.exists()


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    run = ROOT / ".ci/run"
    assert run.stat().st_mode & 0o111
    assert run.read_text().splitlines()[-1] == "exec make test"
