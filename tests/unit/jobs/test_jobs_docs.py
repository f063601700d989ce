"""docs/jobs.md says what the schema says, and its examples are jobs."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airbridge.jobs import Job
from airbridge.jobs._module_reader import JobDeclaration, read_module
from airbridge.jobs.options import JobOptions, check_options

if TYPE_CHECKING:
    from job_packages import Packages

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/jobs.md").read_text()


def section(heading: str) -> str:
    _, _, rest = PAGE.partition(f"\n## {heading}\n")
    assert rest, heading
    return rest.partition("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented_options() -> list[list[str]]:
    """What the table must say: name, values, default, meaning."""
    defaults = {field.name: field.default for field in dataclasses.fields(Job)}
    return [
        [
            f"`{name}`",
            str(field.title),
            "`"
            + (json.dumps(default) if isinstance(default := defaults[name], str) else repr(default))
            + "`",
            str(field.description),
        ]
        for name, field in JobOptions.model_fields.items()
    ]


def test_table_of_options_is_the_schema() -> None:
    assert rows("Options") == documented_options()


def test_every_schedule_of_the_table_is_one() -> None:
    seen = 0
    for values, _ in rows("Schedules"):
        for text in re.findall(r"`([^`]+)`", values):
            seen += 1
            needs = {"start_date": "2026-01-01"} if "once" in text or "continuous" in text else {}
            checked = check_options({"schedule": ast.literal_eval(text), **needs})
            assert isinstance(checked, JobOptions), (text, checked)
    assert seen > 10


@pytest.mark.parametrize("line", re.findall(r"^JOB = .+$", PAGE, re.MULTILINE))
def test_every_example_is_a_job(line: str) -> None:
    text = f"from airbridge.jobs import Job\ndef main(argv): ...\n{line}\n"
    assert isinstance(read_module(text.encode()), JobDeclaration)


def test_example_of_a_notification_is_taken() -> None:
    (text,) = re.findall(r"^on_failure = (.+?)\n```", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(check_options({"on_failure": ast.literal_eval(text)}), JobOptions)


def test_examples_that_are_shipped_are_all_jobs_and_as_many_as_the_page_says() -> None:
    from airbridge.jobs.discovery import discover

    found = discover(ROOT / "packages")
    assert found.problems == ()
    assert len(found.jobs) == 13
    assert "thirteen examples" in PAGE
    used = {option for job in found.jobs for option in job.options.model_fields_set}
    assert used >= {
        *("schedule", "timezone", "depends_on", "args", "params", "retries", "retry_exponential_backoff"),
        *(
            "execution_timeout",
            "dagrun_timeout",
            "queue",
            "pool_slots",
            "memory",
            "on_failure",
            "group",
            "tags",
        ),
    }


def test_first_job_of_the_page_is_found(packages: Packages) -> None:
    (text,) = re.findall(r"```python\n# packages/(sales/jobs/load_orders\.py\n.*?)```", PAGE, re.DOTALL)
    path, _, body = text.partition("\n")
    packages.put(path, body)
    assert packages.only_job().dag_id == "sales_load_orders"
