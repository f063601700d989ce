"""From what was measured of each peer to the numbers that they are compared by."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench._counters import per_loop, per_second, per_task
from bench._peers import FAR_MS, PAIRS
from bench._results import Target
from bench._stats import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench._counters import Cost
    from bench._dispatch_runs import Run

__all__ = ["Taken", "numbers_of", "ratios", "samples_of", "targets"]

# What was asked for.
_P50_MORE_S = 0.1
_P95_MORE_S = 0.3
_OF_LOCAL = 0.9
_TIMES_STOCK = 5


@dataclass(slots=True)
class Taken:
    """Everything that was measured of a peer."""

    waits: list[float] = field(default_factory=list)
    chains: list[Run] = field(default_factory=list)
    mapped: list[Run] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    idle: list[Cost] = field(default_factory=list)


def ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """Return one peer's median divided by another's, of the pairs that were both measured."""
    return {
        f"{ours}/{other}": round(medians[ours] / medians[other], 3)
        for ours, other in PAIRS
        if ours in medians and other in medians
    }


def _medians(rows: Sequence[Mapping[str, float]], digits: int = 3) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), digits) for name in rows[0]}


def numbers_of(all_taken: Mapping[str, Taken]) -> dict[str, Any]:
    """Return what is read: medians, percentiles and ratios."""
    waits = {name: summary(taken.waits) for name, taken in all_taken.items()}
    rates = {
        name: summary([run.tasks_per_minute for run in taken.mapped], digits=1)
        for name, taken in all_taken.items()
    }
    hops = {name: summary([run.seconds_per_hop for run in taken.chains]) for name, taken in all_taken.items()}
    costs = {
        name: {
            "per_task": _medians(
                [per_task(cost, len(run.ended)) for cost, run in zip(taken.costs, taken.mapped, strict=True)]
            ),
            "scanned_per_loop": _medians([per_loop(cost) for cost in taken.costs], digits=1),
            "idle_per_second": _medians([per_second(cost) for cost in taken.idle], digits=4),
        }
        for name, taken in all_taken.items()
    }
    return {
        "queued_to_running_s": waits,
        "queued_to_running_ratios": ratios({name: row["median"] for name, row in waits.items()}),
        "tasks_per_minute": rates,
        "tasks_per_minute_ratios": ratios({name: row["median"] for name, row in rates.items()}),
        "seconds_per_hop": hops,
        "seconds_per_hop_ratios": ratios({name: row["median"] for name, row in hops.items()}),
        "costs": costs,
    }


def samples_of(all_taken: Mapping[str, Taken]) -> dict[str, Any]:
    """Return what the numbers were made of."""

    def each(read: Callable[[Taken], Any]) -> dict[str, Any]:
        return {name: read(taken) for name, taken in all_taken.items()}

    def ends(runs: Sequence[Run]) -> list[list[float]]:
        return [[round(end, 2) for end in run.ended] for run in runs]

    return {
        "queued_to_running_s": each(lambda taken: [round(wait, 4) for wait in taken.waits]),
        "ended_after_s": each(lambda taken: ends(taken.mapped)),
        "chain_ended_after_s": each(lambda taken: ends(taken.chains)),
        "costs": each(lambda taken: [asdict(cost) for cost in taken.costs]),
        "idle": each(lambda taken: [asdict(cost) for cost in taken.idle]),
    }


def targets(numbers: dict[str, Any]) -> tuple[Target, ...]:
    """Return what was asked for beside what came out, as far as both sides were measured."""
    waits, rates, costs = numbers["queued_to_running_s"], numbers["tasks_per_minute"], numbers["costs"]
    if "airbridge" not in waits:
        return ()
    found: list[Target] = []
    ours, rate, cost = waits["airbridge"], rates["airbridge"]["median"], costs["airbridge"]
    if "local" in waits:
        local = waits["local"]
        found += [
            Target(
                f"queued to running, p50: LocalExecutor + {_P50_MORE_S:g} s",
                round(local["median"] + _P50_MORE_S, 3), ours["median"], "s",
            ),
            Target(
                f"queued to running, p95: LocalExecutor + {_P95_MORE_S:g} s",
                round(local["p95"] + _P95_MORE_S, 3), ours["p95"], "s",
            ),
            Target(
                f"throughput: {_OF_LOCAL:g} of LocalExecutor",
                round(_OF_LOCAL * rates["local"]["median"], 1), rate, "tasks/min", "at least",
            ),
        ]  # fmt: skip
    if "celery" in rates:
        found.append(
            Target("throughput: CeleryExecutor", rates["celery"]["median"], rate, "tasks/min", "at least")
        )
    if "airbridge-far" in rates and "stock5-far" in rates:
        found.append(
            Target(
                f"throughput at {FAR_MS} ms: {_TIMES_STOCK} times the stock worker",
                round(_TIMES_STOCK * rates["stock5-far"]["median"], 1),
                rates["airbridge-far"]["median"],
                "tasks/min",
                "at least",
            )
        )
    for stock, title in (("stock5", "the stock worker"), ("stock1", "the stock worker at 1 s")):
        if stock in costs:
            found += [
                Target(
                    f"queries per task: {title}",
                    costs[stock]["per_task"]["queries"], cost["per_task"]["queries"], "",
                ),
                Target(
                    f"rows scanned per task: {title}",
                    costs[stock]["per_task"]["rows_scanned"], cost["per_task"]["rows_scanned"], "",
                ),
                Target(
                    f"rows scanned per scheduler loop: {title}",
                    costs[stock]["scanned_per_loop"]["dispatch"], cost["scanned_per_loop"]["dispatch"], "",
                ),
            ]  # fmt: skip
    return tuple(found)
