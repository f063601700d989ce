"""A control plane that goes away in every way there is, and comes back (D3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jwt
import pytest
from tests.integration.courier.courier_peer import RUN, SECRET, TASK, WORKER, Courier, Peer, Script, until

if TYPE_CHECKING:
    from pathlib import Path

FACES = {
    "no connection": None,
    "hangs up after the request was processed": Script(cut=True),
    "500": Script(500),
    "502 of the uplink": Script(502, body=b"uplink: dial tcp: connection refused"),
    "503": Script(503),
    "401": Script(401, body=b'{"detail": "no", "reason": "token_invalid"}'),
    "403": Script(403, body=b'{"detail": "no", "reason": "worker_revoked"}'),
    "404 of a proxy": Script(404, body=b"<html>nothing here</html>"),
    "404 without the edge API": Script(404, body=b'{"detail": "Not Found"}'),
    "429": Script(429, headers={"Retry-After": "1"}),
}
JOB = {
    "dag_id": "etl",
    "task_id": "extract",
    "run_id": RUN,
    "map_index": -1,
    "try_number": 1,
    "command": {"ti": {"id": TASK}},
}


def _break(peer: Peer, face: str) -> None:
    script = FACES[face]
    if script is None:
        peer.close()
    else:
        peer.script = script


def _chunks(peer: Peer) -> list[str]:
    return [request.json["log_chunk_data"] for request in peer.seen if "/logs/push/" in request.path]


def _deduplicated(reports: list[str]) -> list[str]:
    """Without repeats of the one before: what the control plane makes of a delivery that comes twice."""
    return [report for number, report in enumerate(reports) if not number or reports[number - 1] != report]


@pytest.mark.parametrize("face", FACES)
def test_reports_are_acknowledged_while_it_is_away_and_delivered_in_order_when_it_is_back(
    peer: Peer, courier: Courier, face: str
) -> None:
    peer.jobs.append(JOB)
    assert courier.fetch() == JOB
    assert courier.job_state("running").status_code == 200
    _break(peer, face)

    for number in range(3):
        assert courier.log(f"line {number}").status_code == 200
    assert courier.task_heartbeat().status_code == 204
    assert courier.task_state("success").status_code == 204
    assert courier.log("the last line").status_code == 200
    assert courier.job_state("success").status_code == 200
    answer = courier.heartbeat("running")
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
    assert courier.fetch() is None
    assert courier.status().waiting >= 6

    peer.heal()
    courier.wait_until_delivered()
    delivered = _deduplicated(peer.reports())
    assert [json.loads(text)["log_chunk_data"] for text in delivered if "log_chunk_data" in text] == [
        *(f"line {number}" for number in range(3)),
        "the last line",
    ]
    # The task's own word is there before the worker's word about its job.
    assert [text for text in delivered if "log_chunk_data" not in text] == [
        "running",
        '{"state": "success"}',
        "success",
    ]
    assert courier.status().lost == courier.status().refused == 0


def test_kept_reports_are_signed_anew(peer: Peer, courier: Courier) -> None:
    peer.close()
    courier.job_state("success")
    peer.heal()
    courier.wait_until_delivered()
    delivered = peer.seen[-1]
    claims = jwt.decode(delivered.headers["Authorization"], SECRET, ["HS512"], audience="api", issuer=WORKER)
    assert claims["method"] == f"jobs/state/etl/extract/{RUN}/1/-1/success"
    assert delivered.headers["Content-Type"] == "application/json"


def test_courier_that_is_killed_loses_nothing_that_it_acknowledged(peer: Peer, courier: Courier) -> None:
    peer.close()
    for number in range(20):
        assert courier.log(f"line {number}").status_code == 200
        if number % 5 == 4:
            courier.kill()
            courier.start()
    assert courier.job_state("success").status_code == 200
    courier.kill()
    peer.heal()
    courier.start()
    courier.wait_until_delivered()
    assert _deduplicated(_chunks(peer)) == [f"line {number}" for number in range(20)]
    assert peer.reports()[-1] == "success"


def test_courier_that_is_killed_while_it_delivers_delivers_the_rest_in_order(
    peer: Peer, courier: Courier
) -> None:
    peer.close()
    for number in range(200):
        courier.log(f"line {number}")
    peer.heal()
    until("some are delivered", lambda: len(peer.seen) > 20)
    courier.kill()
    at_kill = len(peer.seen)
    courier.start()
    courier.wait_until_delivered()
    assert at_kill < 200
    assert _deduplicated(_chunks(peer)) == [f"line {number}" for number in range(200)]
    # Each carries its key, by which the control plane knows those that come twice.
    keys = {request.headers["X-AirBridge-Chunk"]: request.json["log_chunk_time"] for request in peer.seen}
    assert all(key == written for key, written in keys.items())


def test_stopped_courier_keeps_what_waits_for_the_next_start(peer: Peer, courier: Courier) -> None:
    peer.close()
    courier.job_state("success")
    assert courier.stop() == 0
    peer.heal()
    courier.start()
    courier.wait_until_delivered()
    assert peer.reports() == ["success"]


def test_job_whose_fetch_got_no_answer_is_given_again(peer: Peer, courier: Courier) -> None:
    peer.jobs.append(JOB)
    peer.script = Script(cut=True)
    assert courier.fetch() is None
    assert peer.jobs == [], "the control plane believes that it was fetched"
    courier.kill()
    peer.heal()
    courier.start()
    courier.wait_until(away=False)
    until("the job arrives", lambda: courier.fetch() == JOB)
    assert courier.fetch() is None


def test_away_worker_is_told_what_it_knows(peer: Peer, courier: Courier) -> None:
    assert courier.heartbeat().json()["queues"] == ["default", "added"]
    peer.close()
    courier.log("notices it")
    answer = courier.heartbeat("terminating").json()
    assert (answer["state"], answer["queues"], answer["versions_match"]) == (
        "terminating",
        ["default", "added"],
        True,
    )


def test_question_waits_and_is_answered_when_the_line_is_back(peer: Peer, courier: Courier) -> None:
    peer.close()
    courier.log("notices it")
    answer = courier.task("GET", "connections/warehouse")
    assert answer.status_code == 503
    assert "away" in answer.json()["detail"]
    peer.heal()
    until("it is answered", lambda: courier.task("GET", "connections/warehouse").text == '"an answer"')


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"detail": {"reason": "not_found", "message": "Task Instance not found"}}),
        (409, {"detail": {"reason": "not_running", "message": "should terminate"}}),
        (403, {"detail": "no", "reason": "connection_not_enrolled"}),
    ],
)
def test_word_of_the_control_plane_reaches_the_task(
    peer: Peer, courier: Courier, status: int, body: dict[str, object]
) -> None:
    peer.script = Script(
        status, {"Content-Type": "application/json"}, json.dumps(body).encode(), only="/execution/"
    )
    for answer in (
        courier.task_heartbeat(),
        courier.task("GET", "connections/warehouse"),
        courier.task_state("success"),
    ):
        assert (answer.status_code, answer.json()) == (status, body)
        assert answer.headers["Content-Type"] == "application/json"
    assert not courier.status().away


def test_refused_report_is_dropped_and_holds_up_nothing(peer: Peer, courier: Courier) -> None:
    peer.close()
    courier.job_state("success", task="cleared")
    courier.job_state("success", task="extract")
    refusal = b'{"detail": "this worker has no such job", "reason": "job_not_yours"}'
    peer.heal()
    peer.script = Script(403, body=refusal, only="cleared")
    courier.wait_until_delivered()
    assert courier.status().refused == 1
    assert '"event": "report refused, and dropped"' in courier.said
    assert peer.reports() == ["success"]


def test_worker_hears_nothing_of_a_refusal(peer: Peer, courier: Courier) -> None:
    """It would forget the job, which runs."""
    peer.script = Script(403, body=b'{"detail": "no", "reason": "job_not_yours"}', only="/jobs/state/")
    assert courier.job_state("running").status_code == 200
    assert courier.status().refused == 1


def test_error_of_one_job_holds_up_no_other_and_is_no_absence(peer: Peer, courier: Courier) -> None:
    peer.script = Script(500, only="/broken/")
    for state in ("running", "success"):
        assert courier.job_state(state, task="broken").status_code == 200
        assert courier.job_state(state, task="extract").status_code == 200
    assert peer.reports() == ["running", "success"]
    assert not courier.status().away
    peer.jobs.append(JOB)
    until("jobs are fetched all the same", lambda: courier.fetch() == JOB)
    peer.heal()
    courier.wait_until_delivered()
    assert peer.reports() == ["running", "success", "running", "success"]


def test_state_whose_answer_got_lost_is_no_refusal(peer: Peer, courier: Courier) -> None:
    peer.script = Script(cut=True)
    assert courier.task_state("success").status_code == 204
    peer.script = Script(
        409, body=b'{"detail": {"reason": "invalid_state", "previous_state": "success"}}', only="/execution/"
    )
    courier.wait_until_delivered()
    assert courier.status().refused == 0


def test_worker_that_nobody_knows_any_more_is_registered_again(peer: Peer, courier: Courier) -> None:
    peer.script = Script(404, body=b'{"detail": "Worker not found"}', only=f"/worker/{WORKER}")
    assert courier.heartbeat().status_code == 200
    assert "registered again" in courier.said
    assert not courier.status().away


def test_worker_of_another_release_is_told_so(peer: Peer, courier: Courier) -> None:
    """It drains then; its successor is refused at its start."""
    peer.script = Script(400, body=b'{"detail": "other release", "reason": "version_mismatch"}')
    assert courier.heartbeat().status_code == 400
    courier.wait_until(away=True)
    assert courier.heartbeat().status_code == 400
    assert courier.job_state("success").status_code == 200, "kept for the release that can deliver it"


def test_nobody_but_the_worker_reports(peer: Peer, courier: Courier) -> None:
    path = f"jobs/state/etl/extract/{RUN}/1/-1/success"
    assert courier.edge("PATCH", path, secret="o" * 64).status_code == 401
    assert courier.http.patch(f"/edge_worker/v1/{path}").status_code == 401
    assert courier.status().waiting == 0
    assert peer.seen == []


def test_worker_reports_with_the_credential_that_it_was_started_with(peer: Peer, tmp_path: Path) -> None:
    """Another takes its place in the file first; then the worker ends its tasks."""
    file = tmp_path / "token"
    file.write_text(f"{WORKER}.{SECRET}")
    courier = Courier(peer, tmp_path / "spool", CONTROL_PLANE_TOKEN="", CONTROL_PLANE_TOKEN_FILE=str(file))
    courier.start()
    try:
        courier.wait_until(away=False)
        for turn, secret in enumerate(("n" * 64, "m" * 64)):
            file.write_text(f"{WORKER}.{secret}")
            path = f"jobs/state/etl/extract/{RUN}/1/{turn}/success"
            assert courier.edge("PATCH", path, secret=secret).status_code == 200
            assert courier.edge("PATCH", path).status_code == (200 if turn == 0 else 401)
    finally:
        courier.kill()


def test_nobody_asks_but_the_courier_while_it_is_away(peer: Peer, courier: Courier) -> None:
    peer.script = Script(503)
    courier.log("notices it")
    courier.wait_until(away=True)
    before = len(peer.seen)
    for _ in range(30):
        courier.heartbeat()
        courier.fetch()
        courier.task_heartbeat()
        courier.log("more")
    peer.heal()
    courier.wait_until_delivered()
    assert len(peer.seen) - before == 31
    assert courier.said.count('"event": "control plane away') == 1
    assert courier.said.count('"event": "control plane is back"') == 1


def test_tasks_end_when_the_control_plane_may_run_them_again(peer: Peer, tmp_path: Path) -> None:
    courier = Courier(peer, tmp_path / "spool", EDGE_ABSENCE_LIMIT="1")
    courier.start()
    try:
        courier.wait_until(away=False)
        peer.close()
        assert courier.task_heartbeat().status_code == 204
        courier.wait_until(away=True)
        courier.kill()
        courier.start()  # which starts no new count
        until("the limit is over", lambda: courier.task_heartbeat().status_code == 409)
        answer = courier.task_heartbeat()
        assert (answer.status_code, answer.json()["detail"]["reason"]) == (409, "control_plane_away")
        assert courier.task_state("success").status_code == 204, "still kept: it may count"
    finally:
        courier.kill()


def test_full_spool_drops_live_logs_first_and_says_so(peer: Peer, tmp_path: Path) -> None:
    courier = Courier(peer, tmp_path / "spool", COURIER_SPOOL_MB="1")
    courier.start()
    try:
        peer.close()
        for number in range(12):
            assert courier.log(f"{number}" * 100_000).status_code == 200
        assert courier.status().lost > 0
        assert courier.said.count('"event": "spool is full"') == 1
        assert "COURIER_SPOOL_MB" in courier.said
        assert courier.job_state("success").status_code == 200
        assert courier.task_state("x" * 200_000).status_code == 503, "who sent it tries again"
        assert courier.status().waiting_bytes <= 1024 * 1024
        peer.heal()
        courier.wait_until_delivered()
        assert peer.reports()[-1] == "success"
    finally:
        courier.kill()


def test_host_that_has_not_joined_waits(peer: Peer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    courier = Courier(
        peer, tmp_path / "spool", CONTROL_PLANE_TOKEN=f"join_{WORKER}.{SECRET}", EDGE_STATE_DIR=str(state)
    )
    courier.start()
    try:
        courier.wait_until(away=True)
        assert "has not joined" in courier.status().reason
    finally:
        courier.kill()


def test_large_answer_comes_in_pieces_and_whole(peer: Peer, courier: Courier) -> None:
    large = json.dumps("x" * 3_000_000).encode()
    peer.script = Script(200, {"Content-Type": "application/json"}, large, only="/xcoms/")
    answer = courier.task("GET", f"xcoms/etl/{RUN}/extract/return_value")
    assert answer.content == large
    assert answer.headers["Content-Type"] == "application/json"


def test_question_without_a_body_is_answered_with_its_headers(peer: Peer, courier: Courier) -> None:
    """HEAD: how the Task SDK asks how many mapped XComs there are."""
    peer.script = Script(200, {"Content-Range": "map_indexes 0-49/50"}, only="/xcoms/")
    answer = courier.task("HEAD", f"xcoms/etl/{RUN}/extract/return_value")
    assert (answer.status_code, answer.headers["Content-Range"]) == (200, "map_indexes 0-49/50")


def test_state_that_a_task_says_again_is_taken(peer: Peer, courier: Courier) -> None:
    """Its first call was cut off by a courier that was killed, after the control plane had heard it."""
    body = b'{"detail": {"reason": "invalid_state", "previous_state": "success"}}'
    peer.script = Script(409, {"Content-Type": "application/json"}, body, only="/execution/")
    assert courier.task_state("success").status_code == 204
    assert courier.task_state("failed").status_code == 409


def test_report_that_fails_for_too_long_makes_way(peer: Peer, tmp_path: Path) -> None:
    courier = Courier(peer, tmp_path / "spool", EDGE_ABSENCE_LIMIT="1")
    courier.start()
    try:
        courier.wait_until(away=False)
        peer.script = Script(500, only="/rtif")
        assert courier.task("PUT", f"task-instances/{TASK}/rtif", {}).status_code == 204
        assert courier.task_state("success").status_code == 204
        courier.wait_until_delivered()
        assert courier.status().refused == 1
        assert peer.reports() == ['{"state": "success"}']
    finally:
        courier.kill()
