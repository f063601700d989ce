"""What runs in the stack and what measures it must mean the same. Airflow is not here: read, not imported."""

from __future__ import annotations

import ast

import yaml
from bench._peers import PEERS, TASKS_MAPPED
from bench._shell import ROOT
from bench._stack import BENCH_DAGS
from bench._visible import dag_text


def _constant(tree: ast.Module, name: str) -> object:
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert node.value is not None
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name}")


def test_tasks_and_measure_name_the_same_peers_and_numbers():
    (path,) = BENCH_DAGS.glob("*/dags/*.py")
    tree = ast.parse(path.read_text())
    peers = _constant(tree, "PEERS")
    assert isinstance(peers, dict)
    assert list(peers) == [peer.name for peer in PEERS]
    assert peers["local"] == {"executor": "LocalExecutor"}
    assert _constant(tree, "MAPPED") == TASKS_MAPPED


def test_changed_dag_differs_from_the_new_one_in_its_description_only():
    new, changed = dag_text("bench_visible_1", "new"), dag_text("bench_visible_1", "changed")
    ast.parse(new)
    assert new != changed
    assert new.replace('"new"', '"changed"') == changed
    assert 'dag_id="bench_visible_1"' in new


def test_untuned_worker_differs_from_the_shipped_one_in_tuning_only():
    override = yaml.safe_load((ROOT / "bench" / "untuned.yaml").read_text())["services"]
    assert list(override) == ["edge-worker"]
    worker = override["edge-worker"]
    # The provider's own defaults, as its provider.yaml has them.
    assert worker["environment"]["AIRFLOW__EDGE__JOB_POLL_INTERVAL"] == "5"
    assert worker["environment"]["AIRFLOW__EDGE__HEARTBEAT_INTERVAL"] == "30"
    assert "airflow edge worker" in worker["command"][-1]
    # Same image, same limits, same store, same way in.
    assert set(worker) == {"command", "environment", "healthcheck"}
    # What makes the shipped worker quick must not be here.
    assert not any("SYSTEM_INFO" in name for name in worker["environment"])
