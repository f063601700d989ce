"""What runs in the stack and what measures it must mean the same. Airflow is not here: read, not imported."""

from __future__ import annotations

import ast
import re

import pytest
import yaml
from bench._delay import NETEM, RELAY
from bench._dispatch import COMPOSE
from bench._dispatch_runs import dag_text
from bench._peers import PEERS
from bench._shell import ROOT
from bench._visible import dag_text as visible_dag_text


def _settings(path: str) -> dict[str, dict[str, object]]:
    services: dict[str, dict[str, object]] = yaml.safe_load((ROOT / path).read_text())["services"]
    return services


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_dags_of_peers_differ_in_names_and_place_only(peer):
    text = dag_text(peer, 200, 20)
    ast.parse(text)
    assert set(re.findall(r'dag_id="([^"]+)"', text)) == {
        f"bench_{kind}_{peer.name}" for kind in ("one", "mapped", "chain")
    }
    first = PEERS[0]
    same = text.replace(repr(peer.where).replace("'", '"'), repr(first.where).replace("'", '"'))
    assert re.sub(rf"_{peer.name}\b", f"_{first.name}", same) == dag_text(first, 200, 20)


def test_executors_have_as_many_slots_as_an_edge_host():
    services = _settings(COMPOSE)
    shipped = (ROOT / "compose.edge.yaml").read_text()
    (slots,) = re.findall(r"WORKER_CONCURRENCY:-(\d+)", shipped)
    assert services["scheduler"]["environment"]["AIRBRIDGE_LOCAL_PARALLELISM"] == slots
    command = services["celery-worker"]["command"]
    assert command[command.index("--concurrency") + 1] == slots


def test_every_executor_and_worker_that_a_peer_names_is_in_the_control_plane():
    services = _settings(COMPOSE)
    for peer in PEERS:
        if not peer.edge:
            assert peer.executor in services["scheduler"]["environment"]["AIRFLOW__CORE__EXECUTOR"]
            assert services[peer.worker].get("hostname", peer.worker) == peer.worker


def test_changed_dag_differs_from_the_new_one_in_its_description_only():
    new, changed = visible_dag_text("bench_visible_1", "new"), visible_dag_text("bench_visible_1", "changed")
    ast.parse(new)
    assert new != changed
    assert new.replace('"new"', '"changed"') == changed
    assert 'dag_id="bench_visible_1"' in new


def test_stock_worker_differs_from_the_shipped_one_in_its_program_only():
    services = _settings("bench/dispatch/stock.yaml")
    assert list(services) == ["edge-worker"]
    worker = services["edge-worker"]
    # The provider's own defaults, as its provider.yaml has them.
    assert worker["environment"]["AIRFLOW__EDGE__JOB_POLL_INTERVAL"] == "${BENCH_POLL_S:-5}"
    assert worker["environment"]["AIRFLOW__EDGE__HEARTBEAT_INTERVAL"] == "30"
    assert "airflow edge worker" in worker["command"][-1]
    # Same image, same limits, same store, same way in.
    assert set(worker) == {"command", "environment", "healthcheck"}
    # What makes the shipped worker quick must not be here.
    assert not any("SYSTEM_INFO" in name for name in worker["environment"])


@pytest.mark.parametrize("path", [NETEM, RELAY])
def test_far_host_differs_from_a_near_one_in_its_distance_only(path):
    services = _settings(path)
    assert set(services) <= {"relay", "netem", "uplink"}
    assert set(services.get("uplink", {})) <= {"environment", "depends_on"}
    assert "${BENCH_ROUND_TRIP_MS}" in str(services)
