"""The access log holds what is news."""

from __future__ import annotations

import logging

import pytest

from airbridge.controlplane._access_log import hide_granted_questions

# As uvicorn's h11 and httptools implementations log a request.
LINE = '%s - "%s %s HTTP/%s" %d'


@pytest.mark.parametrize(
    ("path", "status", "shown"),
    [
        ("/airbridge/v1/s3-auth", 200, False),
        ("/airbridge/v1/s3-auth?list-type=2&prefix=dev%2F", 200, False),
        ("/airbridge/v1/s3-auth", 403, True),
        ("/airbridge/v1/version", 200, True),
    ],
)
def test_granted_questions_about_s3_are_not_in_it(
    caplog: pytest.LogCaptureFixture, path: str, status: int, shown: bool
) -> None:
    logger = logging.getLogger("uvicorn.access")
    before = list(logger.filters)
    hide_granted_questions()
    try:
        with caplog.at_level(logging.INFO, "uvicorn.access"):
            logger.info(LINE, "10.0.0.9:4711", "GET", path, "1.1", status)
            logger.info("another line")
    finally:
        logger.filters = before
    assert ([path in line for line in caplog.messages] == [True, False]) == shown
    assert "another line" in caplog.messages
