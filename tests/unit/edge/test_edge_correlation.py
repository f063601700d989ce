"""Which attempt a process works on is in each line that it logs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from airbridge.edge import _correlation
from airbridge.edge._correlation import (
    add_correlation,
    attempt_in_arguments,
    learn_correlation,
    work_on,
)

ATTEMPT = uuid.UUID("01a1feee-9ef2-7f1f-8963-14b081adb7ba")


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_correlation, "_process", _correlation._Process())


def _said(**event: Any) -> dict[str, Any]:
    return dict(add_correlation(None, "info", event))


def test_process_that_works_on_nothing_says_nothing() -> None:
    assert _said(event="hello") == {"event": "hello"}


def test_process_says_what_it_works_on() -> None:
    work_on(str(ATTEMPT))
    assert _said(event="hello") == {"event": "hello", "correlation_id": str(ATTEMPT)}


def test_supervisor_learns_it_from_the_first_message_of_its_task() -> None:
    assert "correlation_id" not in learn_correlation(None, "info", {"event": "before"})
    learn_correlation(None, "info", {"event": "task runner starts", "correlation_id": str(ATTEMPT)})
    assert _said(event="printed by the task", chan="stdout")["correlation_id"] == str(ATTEMPT)


def test_worker_that_speaks_of_one_attempt_does_not_take_the_next_for_it() -> None:
    _said(event="Launched", correlation_id=str(ATTEMPT))
    assert _said(event="Received job") == {"event": "Received job"}


def test_line_that_names_another_attempt_keeps_it() -> None:
    work_on(str(ATTEMPT))
    other = str(uuid.uuid4())
    assert _said(event="about another", correlation_id=other)["correlation_id"] == other


def test_line_of_the_worker_that_names_an_attempt_carries_it() -> None:
    event = {"event": "Launched task fork pid=31 for ...", "positional_args": (31, ATTEMPT)}
    assert attempt_in_arguments(None, "info", event) == {
        "event": "Launched task fork pid=31 for ...",
        "correlation_id": str(ATTEMPT),
    }
    assert attempt_in_arguments(None, "info", {"event": "x", "positional_args": None}) == {"event": "x"}
