"""From Airflow's rows and counters to the numbers that peers are compared by."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from bench._counters import Cost, per_loop, per_second, per_task
from bench._database import quoted
from bench._delay import check
from bench._dispatch import turns
from bench._dispatch_numbers import Taken, numbers_of, ratios, samples_of, targets
from bench._dispatch_runs import read_run
from bench._peers import FAR_MS, PAIRS, PEERS, chosen

from airbridge.errors import AirbridgeError, IntegrityError, SettingsError

_START = datetime(2031, 1, 1, tzinfo=UTC)


def _row(queued: float, started: float, ended: float, **changes: str) -> dict[str, str]:
    times = {"queued_dttm": queued, "start_date": started, "end_date": ended}
    return {
        "state": "success",
        "hostname": "north",
        **{name: (_START + timedelta(seconds=at)).isoformat(sep=" ") for name, at in times.items()},
        **changes,
    }


_ROWS = [_row(2, 5, 12), _row(0, 0.25, 5), _row(1, 2, 30)]


def test_rate_counts_from_the_first_queued_to_the_last_ended():
    run = read_run(_ROWS, 3, "north")
    assert run.ended == (5, 12, 30)
    assert run.tasks_per_minute == pytest.approx(6.0)
    assert run.seconds_per_hop == pytest.approx(10.0)


def test_wait_is_each_tasks_own():
    assert read_run(_ROWS, 3, "north").waits == pytest.approx([0.25, 3.0, 1.0])


def test_first_queued_is_the_beginning_whenever_it_ended():
    run = read_run([_row(7, 8, 9), _row(4, 5, 14)], 2, "north")
    assert run.ended == (5, 10)
    assert run.waits == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (_ROWS[:2], IntegrityError),
        ([*_ROWS[:2], _row(0, 1, 2, state="failed")], AirbridgeError),
        ([*_ROWS[:2], _row(0, 1, 2, hostname="south")], AirbridgeError),
    ],
    ids=["too few", "failed", "elsewhere"],
)
def test_run_that_is_not_what_was_to_be_measured_is_no_sample(rows, error):
    with pytest.raises(error):
        read_run(rows, 3, "north")


_COST = Cost(
    seconds=20,
    cpu_s={"control_plane": 8.0, "workers": 4.0},
    queries=600,
    database_ms=50,
    loops=10,
    scanned={"task_instance": 300.0, "edge_job": 100.0, "dag_run": 700.0},
)


def test_cost_of_a_task_is_its_share_of_everything():
    assert per_task(_COST, 200) == pytest.approx(
        {
            "control_plane_cpu_s": 0.04,
            "workers_cpu_s": 0.02,
            "queries": 3.0,
            "database_ms": 0.25,
            "rows_scanned": 2.0,
        }
    )


def test_cost_of_a_second_is_by_the_time_that_passed():
    each = per_second(_COST)
    assert each["queries"] == pytest.approx(30.0)
    assert each["control_plane_cpu_s"] == pytest.approx(0.4)


def test_rows_of_a_loop_are_counted_by_table_and_for_dispatch():
    assert per_loop(_COST) == pytest.approx(
        {"task_instance": 30.0, "edge_job": 10.0, "dag_run": 70.0, "dispatch": 40.0}
    )


def test_each_round_begins_with_another_peer_and_slow_ones_have_fewer():
    taken = list(turns(PEERS, 3, 1))
    assert [number for number, _ in taken] == [1, 2, 3]
    assert taken[0][1] == list(PEERS)
    assert taken[1][1][0] == PEERS[1]
    for _, peers in taken[1:]:
        assert {peer.name for peer in peers} == {peer.name for peer in PEERS if not peer.slow}


def test_ratios_are_of_the_pairs_that_were_both_measured():
    assert ratios({"airbridge": 1.0, "local": 0.5, "stock5": 4.0}) == {
        "airbridge/local": 2.0,
        "airbridge/stock5": 0.25,
    }
    names = {peer.name for peer in PEERS}
    assert all({ours, other} <= names for ours, other in PAIRS)


def test_peers_are_chosen_by_name_in_their_own_order():
    assert [peer.name for peer in chosen(("airbridge", "local"))] == ["local", "airbridge"]
    assert chosen(()) == PEERS
    with pytest.raises(SettingsError, match="nobody"):
        chosen(("nobody",))


def test_numbers_are_medians_of_rounds_and_samples_are_all_of_them():
    fast, slow = (read_run([_row(0, 0.5, end), _row(0, 1, 2 * end)], 2, "north") for end in (5, 10))
    taken = Taken(
        waits=[0.1, 0.2, 0.6], chains=[fast], mapped=[fast, slow, slow], costs=[_COST] * 3, idle=[_COST]
    )
    numbers = numbers_of({"airbridge": taken, "local": taken})
    assert numbers["queued_to_running_s"]["airbridge"]["median"] == pytest.approx(0.2)
    assert numbers["tasks_per_minute"]["local"]["median"] == pytest.approx(6.0)
    assert numbers["seconds_per_hop"]["local"]["median"] == pytest.approx(5.0)
    assert numbers["costs"]["local"]["per_task"]["queries"] == pytest.approx(300)
    assert numbers["costs"]["local"]["idle_per_second"]["queries"] == pytest.approx(30)
    assert numbers["tasks_per_minute_ratios"] == {"airbridge/local": 1.0}
    samples = samples_of({"local": taken})
    assert samples["ended_after_s"]["local"] == [[5, 10], [10, 20], [10, 20]]
    json.dumps(samples)


def _numbers(**peers: tuple[float, float, float, float]) -> dict[str, object]:
    """Return numbers of peers: median and p95 of the wait, tasks per minute, queries per task."""
    return {
        "queued_to_running_s": {name: {"median": row[0], "p95": row[1]} for name, row in peers.items()},
        "tasks_per_minute": {name: {"median": row[2]} for name, row in peers.items()},
        "costs": {
            name: {
                "per_task": {"queries": row[3], "rows_scanned": 5 * row[3]},
                "scanned_per_loop": {"dispatch": 10.0},
            }
            for name, row in peers.items()
        },
    }


def test_targets_stand_on_what_the_peers_did_in_the_same_run():
    numbers = _numbers(
        local=(0.05, 0.2, 200, 60),
        celery=(0.1, 0.2, 170, 70),
        airbridge=(0.14, 0.51, 181, 70),
        stock5=(3.0, 5.0, 80, 71),
        **{"airbridge-far": (0.2, 0.3, 150, 70), "stock5-far": (3.0, 5.0, 40, 80)},
    )
    found = {target.name: target for target in targets(numbers)}
    assert {name: target.met for name, target in found.items()} == {
        "queued to running, p50: LocalExecutor + 0.1 s": True,
        "queued to running, p95: LocalExecutor + 0.3 s": False,
        "throughput: 0.9 of LocalExecutor": True,
        "throughput: CeleryExecutor": True,
        "throughput at 50 ms: 5 times the stock worker": False,
        "queries per task: the stock worker": True,
        "rows scanned per task: the stock worker": True,
        "rows scanned per scheduler loop: the stock worker": True,
    }
    assert found["throughput: 0.9 of LocalExecutor"].limit == pytest.approx(180)


def test_run_without_airbridge_has_no_targets():
    assert targets(_numbers(local=(0.05, 0.2, 200, 60))) == ()


_NEAR = {"kept_ms": 1.0, "first_ms": 9.0}


def test_delay_that_is_what_was_asked_for_is_accepted():
    check(_NEAR, {"kept_ms": 1.0 + FAR_MS, "first_ms": 9.0 + 3 * FAR_MS})


@pytest.mark.parametrize(
    "far",
    [_NEAR, {"kept_ms": 1.0 + FAR_MS, "first_ms": 9.0 + FAR_MS}, {"kept_ms": 90.0, "first_ms": 159.0}],
    ids=["none", "handshakes are not delayed", "too much"],
)
def test_delay_that_is_not_what_was_asked_for_ends_the_measure(far):
    with pytest.raises(IntegrityError, match="far host"):
        check(_NEAR, far)


def test_text_with_quotes_stays_text():
    assert quoted("it's") == "'it''s'"
