"""What waits for what: unknown jobs and circles are refused, and whatever waits for a refused one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.jobs._dependencies import refused_dependencies

if TYPE_CHECKING:
    from job_packages import Packages


def test_jobs_wait_for_others_of_their_own_and_of_other_packages(packages: Packages) -> None:
    packages.job("load")
    packages.job("check", depends_on=["load"])
    packages.job("report", "reporting", depends_on=["sales.load", "sales.check"])
    found = packages.discover()
    assert found.problems == ()
    assert [job.reference for job in found.jobs] == ["reporting.report", "sales.check", "sales.load"]


def test_unknown_job_is_named_with_the_line_and_the_one_that_was_meant(packages: Packages) -> None:
    packages.job("load")
    packages.put(
        "reporting/jobs/report.py",
        'def main(argv): ...\nJOB = (main, "x", {\n    "depends_on": ["sales.laod"],\n})\n',
    )
    found = packages.discover()
    assert [job.reference for job in found.jobs] == ["sales.load"]
    (problem,) = found.problems
    assert str(problem) == (
        "reporting/jobs/report.py:3: depends_on names 'sales.laod', which is no job | fix: did you mean "
        "'sales.load'? name a job as 'package.job', or 'job' of the same package"
    )


def test_circle_is_named_from_each_of_its_jobs(packages: Packages) -> None:
    packages.job("a", depends_on=["b"])
    packages.job("b", depends_on=["other.c"])
    packages.job("c", "other", depends_on=["sales.a"])
    packages.job("alone")
    found = packages.discover()
    assert [job.reference for job in found.jobs] == ["sales.alone"]
    assert [problem.what for problem in found.problems] == [
        "depends_on leads in a circle: other.c -> sales.a -> sales.b -> other.c",
        "depends_on leads in a circle: sales.a -> sales.b -> other.c -> sales.a",
        "depends_on leads in a circle: sales.b -> other.c -> sales.a -> sales.b",
    ]


def test_job_that_waits_for_itself_is_refused(packages: Packages) -> None:
    packages.job("a", depends_on=["a"])
    assert "in a circle: sales.a -> sales.a" in packages.only_problem()


@pytest.mark.parametrize("reason", ["syntax", "options", "circle"])
def test_what_waits_for_a_refused_job_is_refused_and_says_so(packages: Packages, reason: str) -> None:
    if reason == "syntax":
        packages.put("sales/jobs/load.py", "def JOB(:\n")
    else:
        packages.job("load", **({"retries": -1} if reason == "options" else {"depends_on": ["load"]}))
    packages.job("check", depends_on=["load"])
    packages.job("report", "reporting", depends_on=["sales.check"])
    found = packages.discover()
    assert found.jobs == ()
    texts = {problem.file: problem.what for problem in found.problems}
    assert texts["sales/jobs/check.py"] == "depends_on names 'sales.load', which is left out"
    assert texts["reporting/jobs/report.py"] == "depends_on names 'sales.check', which is left out"


_names = st.sampled_from("abcdefg")


@given(
    graph=st.dictionaries(_names, st.lists(_names, max_size=3, unique=True).map(tuple), max_size=7),
    broken=st.sets(st.sampled_from("hij"), max_size=2),
)
def test_what_is_left_can_always_be_put_in_an_order(
    graph: dict[str, tuple[str, ...]], broken: set[str]
) -> None:
    refused = refused_dependencies(graph, broken)
    left = {job: needed for job, needed in graph.items() if job not in refused}
    ordered: set[str] = set()
    while len(ordered) < len(left):
        ready = {job for job, needed in left.items() if job not in ordered and ordered.issuperset(needed)}
        assert ready, left
        ordered |= ready
    # Nothing is refused without need: whoever can be put in an order with what it waits for stays.
    possible: set[str] = set()
    while more := {
        job for job, needed in graph.items() if job not in possible and possible.issuperset(needed)
    }:
        possible |= more
    assert possible == set(left)
