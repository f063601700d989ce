"""The held question for jobs goes through the courier, which knows what is still to be reported."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.integration.courier.courier_peer import RUN, TASK, Courier, Peer, Script, until

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = {
    "dag_id": "etl",
    "task_id": "extract",
    "run_id": RUN,
    "map_index": -1,
    "try_number": 1,
    "command": {"ti": {"id": TASK}},
}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def _questions(peer: Peer) -> int:
    return sum(request.path.startswith("/airbridge/v1/jobs/") for request in peer.seen)


def test_question_is_held_and_answered_when_there_is_a_job(
    peer: Peer, courier: Courier, pool: ThreadPoolExecutor
) -> None:
    asked = pool.submit(courier.jobs)
    with pytest.raises(TimeoutError):
        asked.result(timeout=0.5)
    peer.jobs.append(JOB)
    assert asked.result() == [JOB]
    (request,) = [one for one in peer.seen if one.path.startswith("/airbridge/v1/jobs/")]
    assert request.json == {"queues": ["default"], "slots": 4, "wait": 20.0, "holding": []}


def test_job_does_not_end_before_the_control_plane_has_heard_of_its_task(
    peer: Peer, courier: Courier
) -> None:
    """A job whose task seems to run still would be taken for one that lost its task."""
    peer.jobs.append(JOB)
    assert courier.jobs() == [JOB]
    peer.script = Script(500, only="/task-instances/")
    assert courier.task_state("success").status_code == 204
    assert courier.job_state("success").status_code == 200
    assert not [request for request in peer.seen if request.path.endswith("/success")]
    peer.heal()
    courier.wait_until_delivered()
    told = [request.path for request in peer.seen if request.verb == "PATCH"]
    assert [path.split("/")[1] for path in told] == ["execution", "edge_worker"]


def test_nothing_is_asked_for_before_the_control_plane_has_heard_what_this_host_knows(
    peer: Peer, courier: Courier, pool: ThreadPoolExecutor
) -> None:
    """It would hand out a job again whose start it has not heard of."""
    peer.close()
    courier.job_state("running")
    courier.wait_until(away=True)
    asked = pool.submit(courier.jobs)
    with pytest.raises(TimeoutError):
        asked.result(timeout=0.5)
    peer.jobs.append(JOB)
    peer.heal()
    assert asked.result() == [JOB]
    assert [request.path.split("/")[1] for request in peer.seen] == ["edge_worker", "airbridge"]


def test_question_of_a_worker_that_hung_up_is_taken_back(peer: Peer, courier: Courier) -> None:
    with pytest.raises(httpx.ReadTimeout):
        courier.jobs(patience=0.3)
    until("the control plane notices", lambda: peer.hung_up == 1)
    assert _questions(peer) == 0


def test_question_does_not_outlive_the_line_that_it_went_out_on(
    peer: Peer, courier: Courier, pool: ThreadPoolExecutor
) -> None:
    """A cut line says nothing; another call finds out, and the next question goes out once it is back."""
    asked = pool.submit(courier.jobs)
    until("the question is held", lambda: peer.held == 1)
    peer.script = Script(503)
    courier.heartbeat()
    assert asked.result(timeout=15) == []
    until("the control plane notices", lambda: peer.hung_up == 1)
    peer.jobs.append(JOB)
    peer.heal()
    assert courier.jobs() == [JOB]


@pytest.mark.parametrize(("wait", "status"), [(0, 503), (0.5, 200)])
def test_question_during_an_absence_ends_with_its_time(
    peer: Peer, courier: Courier, wait: float, status: int
) -> None:
    peer.close()
    courier.heartbeat()
    courier.wait_until(away=True)
    body = json.dumps({"queues": ["a"], "slots": 1, "wait": wait, "holding": []}).encode()
    answer = courier.http.post("/airbridge/v1/jobs/plant-7", content=body)
    assert answer.status_code == status, answer.text


def test_refusal_reaches_the_worker(peer: Peer, courier: Courier) -> None:
    peer.script = Script(403, body=b'{"detail": "no", "reason": "queue_not_allowed"}', only="/jobs/")
    answer = courier.http.post("/airbridge/v1/jobs/plant-7", content=b'{"wait": 5}')
    assert (answer.status_code, answer.json()["reason"]) == (403, "queue_not_allowed")
    assert not courier.status().away
