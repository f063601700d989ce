"""What is logged of an attempt that failed and will be repeated."""

from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs
from tenacity import Retrying, stop_after_attempt, wait_fixed

from airbridge.errors import UnreachableError
from airbridge.retry_log import retry_warning


def _logged(error: Exception) -> list[dict[str, object]]:
    def fail() -> None:
        raise error

    retrying = Retrying(
        wait=wait_fixed(1.25),
        stop=stop_after_attempt(3),
        sleep=lambda _: None,
        before_sleep=retry_warning(structlog.get_logger(), "it does not answer"),
        reraise=True,
    )
    with capture_logs() as lines, pytest.raises(type(error)):
        retrying(fail)
    return [dict(line) for line in lines]


def test_each_attempt_but_the_last_is_a_line_with_the_wait_until_the_next() -> None:
    lines = _logged(OSError("no route\n"))
    assert [line["attempt"] for line in lines] == [1, 2]
    assert lines[0] == {
        "event": "it does not answer",
        "log_level": "warning",
        "error": "no route",
        "attempt": 1,
        "next_try_s": 1.2,
    }


def test_error_that_knows_what_to_do_says_so() -> None:
    [line, _] = _logged(UnreachableError("the control plane does not answer", fix="look at its log"))
    assert (line["error"], line["fix"]) == ("the control plane does not answer", "look at its log")
