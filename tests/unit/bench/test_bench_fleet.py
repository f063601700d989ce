"""What a simulated fleet cost is worked out from what it asked, and from the clocks of its control plane."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bench.__main__ import _targets
from bench._fleet import numbers_of
from bench._render import markdown, render
from bench._results import write
from bench._shell import Shell

from airbridge.errors import AirbridgeError

SERVICES = ("api-server", "postgres", "gateway", "scheduler")


def _cost(percent: float) -> dict[str, Any]:
    return {name: {"cpu_percent": percent, "memory_mib": 200.0, "threads": 20} for name in SERVICES}


def _phase(
    phase: str, workers: int, answers: dict[str, int], cpu: float, dispatch: list[float]
) -> dict[str, Any]:
    return {
        "phase": phase,
        "workers": workers,
        "seconds": 20.0,
        "answers": answers,
        "took_ms": {"heartbeat": [5.0, 6.0]},
        "queued": len(dispatch),
        "dispatch_ms": dispatch,
        "ended": len(dispatch),
        "handed_out_twice": 0,
        "cost": _cost(cpu),
        "held": {"postgres_connections": 30, "gateway_descriptors": 2 * workers},
    }


@pytest.fixture
def samples() -> dict[str, Any]:
    idle = {"heartbeat 200": 1000, "jobs 200": 200, "register 200": 3, "heartbeat 503": 1}
    phases = []
    for workers, cpu in ((250, 5.0), (500, 9.0)):
        phases += [
            _phase("idle", workers, idle, cpu, []),
            _phase("load", workers, idle, cpu + 20, [10.0, 20.0, 30.0]),
            _phase("burst", workers, idle, cpu + 50, [10.0, 20.0, 900.0]),
        ]
    return {"base": _cost(1.0), "phases": phases, "held_s": 50.0, "heartbeat_s": 10}


def test_requests_of_an_idle_worker_are_counted_without_heartbeats_and_registrations(samples):
    idle = numbers_of(samples)["steps"]["500"]["idle"]
    assert idle["requests_of_a_worker_in_20_s_besides_heartbeats"] == 0.4
    assert idle["requests_per_s"] == 60.2
    assert idle["refused_or_lost"] == {"heartbeat 503": 1}
    assert idle["gateway_descriptors"] == 1000


def test_growth_is_what_a_hundred_idle_workers_more_cost(samples):
    assert numbers_of(samples)["api_server_percent_for_100_idle_workers"] == 1.6


def test_dispatch_is_that_of_the_jobs_that_were_queued(samples):
    step = numbers_of(samples)["steps"]["250"]
    assert step["burst"]["dispatch_ms"]["max"] == 900
    assert (step["load"]["jobs"], step["load"]["handed_out"]) == (3, 3)
    assert "dispatch_ms" not in step["idle"]


def test_targets_are_those_of_five_hundred_workers(samples):
    numbers = numbers_of(samples)
    assert [target.met for target in _targets("fleet", numbers)] == [True, True, True]
    del numbers["steps"]["500"]
    assert _targets("fleet", numbers) == ()


def test_page_shows_each_size_of_the_fleet_and_its_picture(samples, measurement, tmp_path):
    settings = {"rate": 10, "burst": 500}
    fleet = {"what": "fleet", "numbers": numbers_of(samples), "samples": samples, "settings": settings}
    result = replace(measurement("idle"), **fleet)
    assert "| 500 | 60.2 | 9.0 | 9.0 | 9.0 | 200.0 | 20 | 30 | 1000 |" in markdown({"fleet": result})
    write(result, tmp_path)
    render(tmp_path)
    first = (tmp_path / "fleet.svg").read_bytes()
    render(tmp_path)
    assert (tmp_path / "fleet.svg").read_bytes() == first


# --- a program whose lines are read as they come ------------------------------------------------------


def test_lines_of_a_program_come_as_it_writes_them():
    lines = Shell().lines("sh", "-c", "echo one; read -r never <&-; echo two")
    assert list(lines) == ["one", "two"]


def test_program_that_fails_says_why_after_its_last_line():
    lines = Shell().lines("sh", "-c", "echo one; echo reason >&2; exit 3")
    assert next(lines) == "one"
    with pytest.raises(AirbridgeError, match="ended with 3: reason"):
        next(lines)


def test_program_ends_when_nobody_reads_on():
    lines = Shell().lines("sh", "-c", "echo $$; exec sleep 600")
    pid = next(lines)
    lines.close()
    assert Shell().run("sh", "-c", f"kill -0 {pid} 2>&1 || echo gone").strip().endswith("gone")
