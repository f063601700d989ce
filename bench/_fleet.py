"""What a fleet of edge workers costs one control plane, by simulation.

``bench/probes/fleet.py`` plays the workers in a container of its own, whose cost is nobody's here; this
module watches the control plane meanwhile: CPU by the clocks of the control groups, memory, threads,
connections and file descriptors.
"""

from __future__ import annotations

import configparser
import json
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from airbridge.edge._job_feed import HELD_S
from bench._idle import Sample, engine_client, look
from bench._progress import say
from bench._shell import ROOT
from bench._stats import percentile, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from bench._stack import Stack

__all__ = ["STEPS", "measure", "numbers_of"]

STEPS: Final = (100, 250, 500, 1000)
"""Workers of each step, as far as there are to be so many."""

_PROBE: Final = ROOT / "bench" / "probes" / "fleet.py"
_CA: Final = "/data/caddy/pki/authorities/local/root.crt"
_WATCHED: Final = ("api-server", "postgres", "gateway", "scheduler")
_BASE_S: Final = 15
_HEARTBEATS: Final = "heartbeat"
# Requests of a worker that neither idles nor works: it begins.
_BEGINNING: Final = "register"


def _heartbeat_interval() -> int:
    """Return the interval that both images are shipped with."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "edge-worker" / "airflow.cfg")
    return settings.getint("edge", "heartbeat_interval")


class _Watch:
    """Looks at the containers of the control plane."""

    def __init__(self, stack: Stack, engine: httpx.Client) -> None:
        self._stack = stack
        self._engine = engine
        found = stack.containers()
        self._containers = {name: found[name] for name in _WATCHED}

    def look(self) -> tuple[float, dict[str, Sample]]:
        """Return the moment and what each container has used until then."""
        looks = {name: look(self._engine, name, container) for name, container in self._containers.items()}
        return time.monotonic(), looks

    def held(self) -> dict[str, int]:
        """Return what is open: connections to the database, file descriptors of the gateway."""
        rows = self._stack.query(
            "SELECT count(*) AS connections FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        # Numbers of descriptors of all processes of the container, of which Caddy is all but three.
        listed = self._stack.compose(
            "exec", "-T", "gateway", "sh", "-c", "ls /proc/[0-9]*/fd | grep -c '^[0-9]'"
        )
        return {"postgres_connections": int(rows[0]["connections"]), "gateway_descriptors": int(listed)}


def _cost(begin: tuple[float, dict[str, Sample]], end: tuple[float, dict[str, Sample]]) -> dict[str, Any]:
    """Return what each container used between two looks."""
    seconds = end[0] - begin[0]
    return {
        name: {
            "cpu_percent": round(100 * (after.cpu_s - begin[1][name].cpu_s) / seconds, 2),
            "memory_mib": round(after.memory_mib, 1),
            "threads": after.threads,
        }
        for name, after in end[1].items()
    }


def measure(
    stack: Stack, *, workers: int, idle: int, load: int, rate: int, burst: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of fleets of growing size.

    :param workers: of the last step
    :param idle: seconds that each step is watched while there are no jobs
    :param load: seconds that jobs are queued for in each step
    :param rate: jobs a second under load
    :param burst: jobs that are queued in one transaction at the end of each step
    """
    plan = {
        "ca": stack.compose("exec", "-T", "gateway", "cat", _CA),
        "sizes": [step for step in STEPS if step <= workers] or [workers],
        "heartbeat_s": _heartbeat_interval(),
        "held_s": HELD_S,
        "idle_s": idle,
        "load_s": load,
        "rate": rate,
        "burst": burst,
    }
    with engine_client() as engine:
        watch = _Watch(stack, engine)
        say("fleet", f"{_BASE_S} s without a fleet")
        begin = watch.look()
        time.sleep(_BASE_S)
        base = _cost(begin, watch.look())
        phases = list(_play(stack, watch, plan))
    samples = {"base": base, "phases": phases, "held_s": HELD_S, "heartbeat_s": plan["heartbeat_s"]}
    return numbers_of(samples), samples


def _play(stack: Stack, watch: _Watch, plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Play the fleet and yield what each phase showed."""
    # The scheduler's settings hold what enrols: the database's password and the key of secrets.
    lines = stack.shell.lines(
        "docker", "compose", "--file", "compose.yaml", "run", "--rm", "--no-deps", "-T",
        "--volume", f"{_PROBE}:/bench/fleet.py:ro", "scheduler",
        "airbridge-env", "python", "/bench/fleet.py", json.dumps(plan),
    )  # fmt: skip
    begin = watch.look()
    held: dict[str, int] = {}
    for line in lines:
        if not line.startswith("{"):
            continue  # a warning of compose
        event = json.loads(line)
        match event.pop("event"):
            case "begin":
                # The fleet is as large as it gets in this step, and rests.
                held = watch.held() if event["phase"] == "idle" else held
                begin = watch.look()
            case "end":
                cost = _cost(begin, watch.look())
                say("fleet", _line(event, cost))
                yield {**event, "cost": cost, "held": held}
            case other:
                say("fleet", f"{other}: {json.dumps(event)}")


def _line(event: dict[str, Any], cost: dict[str, Any]) -> str:
    text = f"{event['workers']} workers, {event['phase']}: api-server {cost['api-server']['cpu_percent']} %"
    if event["dispatch_ms"]:
        text += f", dispatch p95 {percentile(event['dispatch_ms'], 95):.0f} ms"
    return text


def numbers_of(samples: dict[str, Any]) -> dict[str, Any]:
    """Return what is read: each step's phases, and what a hundred idle workers more cost."""
    steps: dict[int, dict[str, Any]] = {}
    for phase in samples["phases"]:
        steps.setdefault(phase["workers"], {})[phase["phase"]] = _phase_numbers(phase)
    idle = {workers: step["idle"] for workers, step in steps.items()}
    sizes = sorted(idle)
    cpu = [idle[size]["services"]["api-server"]["cpu_percent"] for size in sizes]
    growth = None
    if len(sizes) > 1:
        growth = round(100 * statistics.linear_regression(sizes, cpu).slope, 3)
    return {
        "held_s": samples["held_s"],
        "heartbeat_s": samples["heartbeat_s"],
        "base": samples["base"],
        "steps": {str(size): steps[size] for size in sizes},
        "api_server_percent_for_100_idle_workers": growth,
    }


def _phase_numbers(phase: dict[str, Any]) -> dict[str, Any]:
    asked = _by_kind(phase["answers"])
    refused = {answer: n for answer, n in phase["answers"].items() if not answer.endswith(" 200")}
    besides = sum(number for kind, number in asked.items() if kind not in (_HEARTBEATS, _BEGINNING))
    numbers: dict[str, Any] = {
        "seconds": phase["seconds"],
        "requests_per_s": round(sum(asked.values()) / phase["seconds"], 1),
        "requests_of_a_worker_in_20_s_besides_heartbeats": round(
            20 * besides / phase["seconds"] / phase["workers"], 2
        ),
        "refused_or_lost": refused,
        "services": phase["cost"],
        **phase["held"],
        "took_ms": {kind: summary(took, 1) for kind, took in phase["took_ms"].items()},
    }
    if phase["queued"]:
        numbers |= {
            "jobs": phase["queued"],
            "handed_out": len(phase["dispatch_ms"]),
            "handed_out_twice": phase["handed_out_twice"],
            "ended": phase["ended"],
            "dispatch_ms": summary(phase["dispatch_ms"], 1),
        }
    return numbers


def _by_kind(answers: dict[str, int]) -> dict[str, int]:
    """Return kind -> number, of "kind status" -> number."""
    asked: dict[str, int] = {}
    for answer, number in answers.items():
        kind = answer.partition(" ")[0]
        asked[kind] = asked.get(kind, 0) + number
    return asked
