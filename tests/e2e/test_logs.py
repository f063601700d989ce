"""The log of a task on the edge: while it runs, and after its host is gone (A2, D1)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from _stack import Run, Stack, until

if TYPE_CHECKING:
    from concurrent.futures import Future

    from _stack import EdgeHost

FIRST, LAST = "the first line of a long task", "the last line of a long task"


def test_log_is_shown_while_the_task_runs_and_is_in_s3_when_its_host_is_gone(
    stack: Stack, log_runs: Future[tuple[EdgeHost, Run]]
) -> None:
    """A2, D1: one text, whoever is asked."""
    host, run = log_runs.result()
    running = stack.wait_for_task(run, "talk", {"running"})
    assert running.hostname == "logs"
    until("the first line is in the API", lambda: FIRST in stack.log_from_api(run, "talk"))
    # It was live: the task has not ended, and nothing of it is in S3.
    assert stack.wait_for_task(run, "talk", {"running"}).state == "running"
    assert "Contents" not in stack.s3.list_objects_v2(
        Bucket="airbridge-logs", Prefix=stack.log_key(run, "talk")
    )

    stack.api.post("/variables", {"key": "e2e_live_log_may_end", "value": "yes"})
    stack.wait_for_run(run)
    text = stack.log_from_s3(run, "talk")

    assert host.stored() != []
    host.remove()
    assert host.stored() == []

    assert stack.log_from_s3(run, "talk") == text
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert FIRST in events
    assert LAST in events
    shown = stack.log_from_api(run, "talk")
    assert [event for event in events if event not in shown] == []
    # Once, although pieces of it were sent while the task ran.
    assert shown.count(FIRST) == shown.count(LAST) == 1
