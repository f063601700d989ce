"""Checks of heartbeats served together, by the edge provider in the image; see checks_in_image.py."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", "internal-" + "i" * 64)

from airflow import __version__ as airflow_version
from airflow import settings
from airflow.providers.edge3 import __version__ as provider_version
from airflow.providers.edge3.models.edge_worker import EdgeWorkerModel
from airflow.providers.edge3.worker_api.datamodels import WorkerSetStateReturn
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airbridge.controlplane._heartbeats import Heartbeat
from airbridge.controlplane._provider_heartbeats import _Shared, serve_heartbeats

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = {"airflow_version": airflow_version, "edge_provider_version": provider_version}


class _Fleet:
    """Registered workers in a database of their own, in the place of Airflow's."""

    def __init__(self, **states: str) -> None:
        self.engine = create_engine(
            "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
        )
        EdgeWorkerModel.__table__.create(self.engine)
        self._long_ago = datetime.now(UTC) - timedelta(hours=1)
        with Session(self.engine) as session:
            for name, state in states.items():
                session.add(EdgeWorkerModel(name, state, ["default"], last_update=self._long_ago))
            session.commit()
        self.commits = 0
        self.looks = 0
        event.listen(self.engine, "commit", self._count)
        event.listen(self.engine, "before_cursor_execute", self._count_looks)

    def _count(self, _: object) -> None:
        self.commits += 1

    def _count_looks(self, _: object, __: object, statement: str, *___: object) -> None:
        self.looks += statement.lstrip().startswith("SELECT")

    def beat(self, *heartbeats: Heartbeat) -> list[Any]:
        before = settings.engine
        settings.engine = self.engine
        try:
            return serve_heartbeats(heartbeats)
        finally:
            settings.engine = before

    def states(self) -> dict[str, str]:
        """State of each worker, with ``silent`` where no heartbeat was heard."""
        with Session(self.engine) as session:
            return {
                worker.worker_name: str(worker.state) if worker.last_update > self._long_ago else "silent"
                for worker in session.query(EdgeWorkerModel)
            }


def _heartbeat(name: str, state: str = "idle", **changes: Any) -> Heartbeat:
    sysinfo = {"concurrency": 4, "free_concurrency": 4, "status": 20, **VERSIONS}
    said = {"state": state, "jobs_active": 0, "queues": ["default"], "sysinfo": sysinfo, **changes}
    return Heartbeat(name, json.dumps(said).encode())


def check_heartbeats_of_many_are_one_transaction_and_answered_as_the_provider_does(_: Path) -> None:
    fleet = _Fleet(a="idle", b="running", c="idle", d="idle")
    answers = fleet.beat(_heartbeat("c", "running"), _heartbeat("a"), _heartbeat("b"))
    assert (fleet.commits, fleet.looks) == (1, 1)
    assert fleet.states() == {"a": "idle", "b": "idle", "c": "running", "d": "silent"}
    for answer, state in zip(answers, ("running", "idle", "idle"), strict=True):
        assert answer.status == 200
        said = WorkerSetStateReturn.model_validate_json(answer.body)
        assert (said.state, said.queues, said.versions_match) == (state, ["default"], True)


def check_heartbeat_brings_maintenance_and_shutdown_to_the_worker(_: Path) -> None:
    fleet = _Fleet(a="maintenance request", b="shutdown request", c="idle")
    answers = fleet.beat(_heartbeat("a"), _heartbeat("b"), _heartbeat("c"))
    said = [WorkerSetStateReturn.model_validate_json(answer.body).state for answer in answers]
    assert said == ["maintenance request", "shutdown request", "idle"]
    assert fleet.states() == {"a": "maintenance request", "b": "shutdown request", "c": "idle"}


def check_refusals_of_the_provider_are_that_workers_alone(_: Path) -> None:
    fleet = _Fleet(a="idle", old="idle")
    old = {"concurrency": 4, **VERSIONS, "airflow_version": "2.0.0"}
    answers = fleet.beat(_heartbeat("unregistered"), _heartbeat("old", sysinfo=old), _heartbeat("a"))
    assert [answer.status for answer in answers] == [404, 400, 200]
    assert json.loads(answers[0].body) == {"detail": "Worker not found"}
    # The provider notes the heartbeat before it refuses the version.
    assert fleet.states() == {"a": "idle", "old": "idle"}


def check_body_that_is_none_is_left_to_the_edge_api(_: Path) -> None:
    fleet = _Fleet(a="idle")
    bodies = (b"", b"[]", b"{", b'{"state": "dancing"}', b"[" * 50_000)
    answers = fleet.beat(*(Heartbeat("a", body) for body in bodies), _heartbeat("a"))
    assert answers[:-1] == [None] * len(bodies)
    assert answers[-1].status == 200


def check_two_heartbeats_of_one_worker_are_both_answered(_: Path) -> None:
    fleet = _Fleet(a="idle")
    answers = fleet.beat(_heartbeat("a", "running"), _heartbeat("a", "terminating"))
    said = [WorkerSetStateReturn.model_validate_json(answer.body).state for answer in answers]
    assert said == ["running", "terminating"]
    assert fleet.states() == {"a": "terminating"}
    assert fleet.looks == 2  # of this test's own look one


def check_what_the_provider_asks_for_besides_the_worker_is_asked_of_the_database(_: Path) -> None:
    fleet = _Fleet(a="idle", b="running")
    with _Shared(bind=fleet.engine) as session:
        session.look_up(["a"])
        of = EdgeWorkerModel.worker_name
        assert session.scalar(select(EdgeWorkerModel).where(of == "b")).state == "running"
        assert session.scalar(select(EdgeWorkerModel).where(of != "a")).worker_name == "b"
        assert session.scalar(select(EdgeWorkerModel).where(EdgeWorkerModel.state == "a")) is None
        assert session.scalar(select(EdgeWorkerModel.state).where(of == "a")) == "idle"
        assert session.scalar(select(EdgeWorkerModel).order_by(of.desc())).worker_name == "b"
