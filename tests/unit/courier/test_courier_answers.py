"""Which answers are the control plane's word, and which only say that it is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airbridge.courier._answers import Answer, Meaning, is_repeat_of


def _json(status: int, **body: Any) -> Answer:
    return Answer(status, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(0, error="connection refused"),
        Answer(502, body=b"uplink: dial tcp: connection refused"),
        Answer(503),
        Answer(504),
        Answer(408),
        _json(429, detail="slow down"),
        # A gateway that does not know its api-server, a router without the edge API.
        Answer(404),
        Answer(404, body=b"<html>not here</html>"),
        _json(404, detail="Not Found"),
        _json(405, detail="Method Not Allowed"),
        Answer(302, {"Location": "https://login.example.org"}),
        # About the worker, not about the call.
        Answer(401),
        _json(401, detail="no", reason="token_invalid"),
        _json(403, detail="no", reason="worker_revoked"),
        _json(403, detail="Forbidden. The server side traceback may be identified with error_id=1"),
        _json(400, detail="other release", reason="version_mismatch"),
        _json(503, detail="no database", reason="not_ready"),
    ],
)
def test_absence_has_many_faces(answer: Answer) -> None:
    assert answer.meaning is Meaning.AWAY


@pytest.mark.parametrize(
    "answer",
    [
        _json(403, detail="no", reason="job_not_yours"),
        _json(403, detail="no", reason="task_not_yours"),
        _json(403, detail="no", reason="connection_not_enrolled"),
        _json(403, detail={"reason": "access_denied"}),
        _json(404, detail={"reason": "not_found", "message": "Task Instance not found"}),
        _json(404, detail="XCom with key x not found"),
        _json(409, detail={"reason": "not_running"}),
        _json(410, detail="gone"),
        _json(422, detail=[{"loc": ["body"]}]),
    ],
)
def test_word_on_the_call_itself_is_final(answer: Answer) -> None:
    assert answer.meaning is Meaning.NO


@pytest.mark.parametrize("status", [500, 501, 507, 599])
def test_error_of_one_call_says_nothing_about_the_line(status: int) -> None:
    assert Answer(status).meaning is Meaning.TROUBLE


@pytest.mark.parametrize("status", [200, 201, 204])
def test_success_is_success(status: int) -> None:
    assert Answer(status).meaning is Meaning.DONE


def test_release_that_differs_is_told_from_other_absences() -> None:
    assert _json(400, reason="version_mismatch", detail="…").is_version_mismatch
    assert _json(
        400, detail="Edge Worker runs on Airflow 3 and the core on 2. Rejecting access"
    ).is_version_mismatch
    assert not _json(400, detail="body").is_version_mismatch
    assert not Answer(503).is_version_mismatch


def test_refused_state_that_the_task_has_already_is_a_repeat() -> None:
    refused = _json(409, detail={"reason": "invalid_state", "previous_state": "success"})
    assert is_repeat_of(b'{"state": "success"}', refused)
    assert not is_repeat_of(b'{"state": "failed"}', refused)
    assert not is_repeat_of(b"not json", refused)
    assert not is_repeat_of(b'{"state": null}', _json(409, detail={"previous_state": None}))


def test_reason_is_one_short_text() -> None:
    assert Answer(0, error="no answer within 5 s").reason == "no answer within 5 s"
    assert _json(403, detail="x", reason="worker_revoked").reason == "HTTP 403 worker_revoked"
    assert Answer(502, body=b"uplink: " + b"x" * 1000).reason.startswith("HTTP 502 uplink: x")
    assert len(Answer(502, body=b"x" * 1000).reason) <= 200
    assert _json(409, detail={"reason": "a"}).reason == 'HTTP 409 {"reason": "a"}'
