"""The server's access log leaves out what has a line of its own."""

from __future__ import annotations

import logging

import pytest

from airbridge.controlplane._access_log import hide_edge_requests

# As uvicorn's h11 and httptools implementations log a request.
LINE = '%s - "%s %s HTTP/%s" %d'


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/airbridge/v1/workers/north-1?x=1", False),
        ("/edge_worker/v1/jobs/fetch/north-1", False),
        ("/execution/task-instances/0199/run", False),
        ("/api/v2/dags", True),
        ("/executions", True),
    ],
)
def test_requests_with_a_line_of_their_own_are_not_in_it(
    caplog: pytest.LogCaptureFixture, path: str, shown: bool
) -> None:
    logger = logging.getLogger("uvicorn.access")
    before = list(logger.filters)
    hide_edge_requests()
    try:
        with caplog.at_level(logging.INFO, "uvicorn.access"):
            logger.info(LINE, "10.0.0.9:4711", "GET", path, "1.1", 200)
            logger.info("another line")
    finally:
        logger.filters = before
    assert ([path in line for line in caplog.messages] == [True, False]) == shown
    assert "another line" in caplog.messages
