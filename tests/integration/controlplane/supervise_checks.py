"""The supervisor of an attempt on an edge host, beside upstream's: what is different, and no more."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from airflow.executors.workloads import TaskInstance
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.supervisor import MIN_HEARTBEAT_INTERVAL, ActivitySubprocess

from airbridge.edge._supervise import _Attempt, _NeighbourClient

if TYPE_CHECKING:
    from collections.abc import Callable

_LINGERS_S = 0.5
_FOREVER_S = 600.0
_DESCRIPTORS = 256
_SERVER = "http://courier:8080/execution/"


def _close_everything_and_linger() -> None:
    os.closerange(0, _DESCRIPTORS)
    time.sleep(_LINGERS_S)
    os._exit(0)


def _run(kind: type[ActivitySubprocess]) -> tuple[float, list[str]]:
    """Supervise a task whose pipes close before it ends; return the seconds that took, and what was asked."""
    asked: list[str] = []
    client = Client(base_url=None, dry_run=True, token="")  # answers by itself: there is no control plane
    client.event_hooks["request"].append(lambda request: asked.append(request.url.path.rpartition("/")[2]))
    began = time.monotonic()
    attempt = _start(kind, _close_everything_and_linger, client)
    attempt._monitor_subprocess()
    return time.monotonic() - began, asked


def _start(kind: type[ActivitySubprocess], target: Callable[[], None], client: Client) -> ActivitySubprocess:
    task = TaskInstance(
        id=uuid4(),
        dag_version_id=uuid4(),
        task_id="task",
        dag_id="dag",
        run_id="run",
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    return kind.start(what=task, dag_rel_path="dag.py", bundle_info=None, client=client, target=target)


def check_end_of_a_process_is_noticed_though_its_pipes_closed_before(_: Path) -> None:
    took, asked = _run(_Attempt)
    assert _LINGERS_S <= took < MIN_HEARTBEAT_INTERVAL, took
    assert asked == ["run"], asked


def check_upstream_still_sleeps_and_still_sends_a_heartbeat_at_once(_: Path) -> None:
    """What the subclass is for; when this fails, upstream has mended it and the subclass may go."""
    took, asked = _run(ActivitySubprocess)
    assert took >= MIN_HEARTBEAT_INTERVAL, took
    assert asked == ["run", "heartbeat"], asked


def check_client_for_a_neighbour_is_upstreams_but_for_the_trust_store(_: Path) -> None:
    def described(client: httpx.Client) -> dict[str, Any]:
        return {
            "base_url": client.base_url,
            "headers": dict(client.headers),
            "auth": (type(client.auth), client.auth.token),
            "hooks": {
                name: [getattr(hook, "__name__", "") for hook in hooks]
                for name, hooks in client.event_hooks.items()
            },
        }

    limits = httpx.Limits(max_keepalive_connections=1, max_connections=10)
    upstream = Client(base_url=_SERVER, limits=limits, dry_run=False, token="token")
    assert described(_NeighbourClient(_SERVER, "token")) == described(upstream)


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _sleep_for_ever() -> None:
    time.sleep(_FOREVER_S)


def check_process_that_cannot_be_supervised_any_more_is_ended(_: Path) -> None:
    """Its supervisor lives on, and it may be tried again."""
    attempt = _start(_Attempt, _sleep_for_ever, Client(base_url=None, dry_run=True, token=""))
    before = _descriptors()

    def fail() -> None:
        raise RuntimeError("no answer")

    attempt._monitor_subprocess = fail
    try:
        attempt.wait()
    except RuntimeError:
        assert not attempt._process.is_running()
        assert len(before - _descriptors()) >= 2, "its line and its pidfd are open"
    else:
        raise AssertionError("nobody hears of it")


def check_nothing_is_left_of_an_attempt_that_has_ended(_: Path) -> None:
    client = Client(base_url=None, dry_run=True, token="")
    gc.collect()
    before = _descriptors()
    for _round in range(20):
        attempt = _start(_Attempt, lambda: None, client)
        attempt._upload_logs = lambda: None  # there is no S3
        assert attempt.wait() == 0
    gc.collect()
    assert _descriptors() <= before
