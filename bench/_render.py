"""``bench/results/README.md`` and its pictures, from the newest result of each measure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from bench._counters import TABLES
from bench._peers import PEERS
from bench._results import RESULTS, Measurement, newest
from bench._scale import FOLLOWERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["markdown", "render"]

_TITLES = {peer.name: peer.title for peer in PEERS}
_COLOURS = {
    "local": "#6b6b6b",
    "celery": "#3b8f3b",
    "airbridge": "#1b6ca8",
    "stock1": "#d98324",
    "stock5": "#b03a2e",
}


def _style(name: str) -> dict[str, str]:
    """Return how a peer is drawn: what is far away is broken."""
    near = name.removesuffix("-far")
    return {"color": _COLOURS[near], "linestyle": "-" if name == near else "--"}


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [head, tuple("---" if number == 0 else "---:" for number in range(len(head))), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines] + [""]


def _row(title: object, numbers: dict[str, float]) -> tuple[object, ...]:
    return (title, numbers["count"], numbers["min"], numbers["median"], numbers["p95"], numbers["max"])


_HEAD = ("n", "least", "median", "p95", "most")


def _cold(result: Measurement) -> list[str]:
    numbers = result.numbers
    return [
        "Seconds from before `git clone` to the first DAG run that succeeded on the edge host; *warm*: the",
        "whole of `make up` after `make down`. Each *cold* one ran in an engine of its own, without any",
        "image, layer or download.",
        "",
        *_table(
            ("", *_HEAD),
            [
                _row("cold: nothing there", numbers["cold_s"]),
                _row("cached: images gone, build cache there", numbers["cached_s"]),
                _row("warm: stack stopped", numbers["warm_s"]),
            ],
        ),
    ]


def _delay(delay: dict[str, Any]) -> list[str]:
    if not delay["means"]:
        return []
    means = {"netem": "the kernel's netem", "relay": "a relay in user space, as this kernel has no netem"}
    rows: list[tuple[object, ...]] = [
        (_TITLES[name], trip["kept_ms"], trip["first_ms"]) for name, trip in delay["round_trips"].items()
    ]
    return [
        f"The {delay['added_ms']} ms are added by {means[delay['means']]}. What a request to the gateway",
        "takes from each edge host, in milliseconds:",
        "",
        *_table(("", "on a kept connection", "on a new one (TCP, TLS, request)"), rows),
    ]


_COSTS = (
    ("CPU s, control plane", "control_plane_cpu_s"),
    ("CPU s, workers", "workers_cpu_s"),
    ("queries", "queries"),
    ("ms in Postgres", "database_ms"),
    ("rows scanned of task_instance and edge_job", "rows_scanned"),
)


def _dispatch_costs(costs: dict[str, Any]) -> list[str]:
    each: list[tuple[object, ...]] = []
    loops: list[tuple[object, ...]] = []
    for name, cost in costs.items():
        idle, scanned = cost["idle_per_second"], cost["scanned_per_loop"]
        each.append((_TITLES[name], *(cost["per_task"][key] for _, key in _COSTS)))
        loops.append(
            (
                _TITLES[name],
                *(scanned[table] for table in ("dispatch", *TABLES)),
                round(idle["queries"], 1),
                round(idle["rows_scanned"], 1),
                round(100 * idle["control_plane_cpu_s"], 1),
                round(100 * idle["workers_cpu_s"], 1),
            )
        )
    idle_head = ("idle: queries", "idle: rows", "idle: CPU %, control plane", "idle: CPU %, workers")
    return [
        "What one of the mapped tasks costs, all that runs meanwhile included. The control plane is all of",
        "its containers, Redis and LocalExecutor's tasks too; workers are the edge host's containers, or",
        "Celery's:",
        "",
        *_table(("", *(title for title, _ in _COSTS)), each),
        "Rows that are scanned in a loop of the scheduler while the mapped tasks run, and what a second",
        "costs in which there is nothing to do:",
        "",
        *_table(("", "the first two", *TABLES, *idle_head), loops),
    ]


def _dispatch(result: Measurement) -> list[str]:
    numbers, settings = result.numbers, result.settings
    rates = numbers["tasks_per_minute"]
    most = max(row["count"] for row in rates.values())
    few = [_TITLES[name] for name, row in rates.items() if row["count"] < most]
    lines = [
        f"Eight slots each, one control plane, peers in turn, rounds: {settings['rounds']}; in each"
        f" {settings['singles']} single tasks,",
        f"a chain of {settings['chain']}, and {settings['mapped']} mapped tasks. Whoever is not measured is",
        "paused. The stock worker comes through the same uplink, which keeps its TLS connections for it, to",
        "the same control plane, whose scheduler reads less than the provider's own would.",
    ]
    if few:
        lines.append(f"{settings['slow_rounds']} rounds only, because they are slow: {'; '.join(few)}.")
    for title, key in (
        ("Seconds from queued to running, one task at a time:", "queued_to_running_s"),
        (
            f"Tasks per minute, {settings['mapped']} mapped tasks, first queued to last ended:",
            "tasks_per_minute",
        ),
        (f"Seconds for each of {settings['chain']} tasks that wait for one another:", "seconds_per_hop"),
    ):
        lines += ["", title, ""]
        lines += _table(("", *_HEAD), [_row(_TITLES[name], row) for name, row in numbers[key].items()])[:-1]
    keys = ("queued_to_running_ratios", "tasks_per_minute_ratios", "seconds_per_hop_ratios")
    lines += ["", "Ratios of the medians:", ""]
    lines += _table(
        ("", "queued to running", "tasks per minute", "seconds a hop"),
        [(pair, *(numbers[key][pair] for key in keys)) for pair in numbers[keys[0]]],
    )
    lines += _dispatch_costs(numbers["costs"])
    lines += _delay(numbers["delay"])
    return [*lines, "![Wait of single tasks, how mapped tasks ended, seconds a hop](dispatch.svg)", ""]


def _visible(result: Measurement) -> list[str]:
    numbers = result.numbers
    return [
        "Seconds from before the copy to S3 until the REST API shows the DAG:",
        "",
        *_table(("", *_HEAD), [_row("new", numbers["new_s"]), _row("changed", numbers["changed_s"])]),
        "![Each copy](visible.svg)",
        "",
    ]


def _idle(result: Measurement) -> list[str]:
    lines = []
    for group, title in (("control_plane", "Control plane"), ("edge_host", "An edge host")):
        numbers = result.numbers[group]
        rows: list[tuple[object, ...]] = [
            (name, service["memory_mib"], service["cpu_percent"])
            for name, service in numbers["services"].items()
        ]
        rows.append(("**all**", f"**{numbers['memory_mib']}**", f"**{numbers['cpu_percent']}**"))
        lines += [f"{title}:", "", *_table(("", "memory, MiB", "CPU, % of a core"), rows)]
    return lines


def _releases(result: Measurement) -> list[str]:
    lines = [
        "Seconds from before a publish (one package of ten DAGs and more) until the REST API shows the DAG,",
        "until the edge host's store has it, and until both:",
        "",
    ]
    rows = [
        _row(f"{kind} DAG: {name}", result.numbers[kind][name])
        for kind in ("new", "changed")
        for name in ("publish", "visible", "edge", "both")
    ]
    return lines + _table(("", *_HEAD), rows)


def _scale(result: Measurement) -> list[str]:
    settings = result.settings
    lines = [
        f"{settings['packages'] * settings['files']} DAG files in {settings['packages']} packages, followed",
        "from one LocalStack: a first copy, a pass with nothing changed, and one after a file got another",
        "content of the same size. Seconds, and requests to S3. Programs count with their start, dag-sync's",
        "change with its wait for the next poll.",
        "",
    ]
    rows: list[tuple[object, ...]] = [
        (
            FOLLOWERS[name],
            row["first_s"],
            row["unchanged_s"],
            row["unchanged_requests"],
            row["change_s"],
            row["change_requests"],
            "yes" if row["same_size_edit_seen"] else "**no**",
        )
        for name, row in result.numbers["followers"].items()
    ]
    lines += _table(("", "first", "unchanged", "requests", "change", "requests", "change seen"), rows)
    ours = result.numbers["followers"]["dag_sync"]
    return [*lines, f"dag-sync held at most {ours['memory_mib']} MiB of memory.", ""]


def _identity(result: Measurement) -> list[str]:
    lines = [
        "The same edge request in turn through gateway and middleware with a worker's credential, and",
        "straight to the edge API without them, over kept-alive connections; milliseconds:",
        "",
    ]
    rows: list[tuple[object, ...]] = []
    for kind, cost in result.numbers["cost"].items():
        rows += [
            _row(f"{kind}: through the door", cost["door_ms"]),
            _row(f"{kind}: without it", cost["bypass_ms"]),
            _row(f"{kind}: difference of each pair", cost["pairs_ms"]),
        ]
    lines += _table(("", *_HEAD), rows)
    lines += ["Milliseconds from a revocation until a request is refused, asked every 20 ms:", ""]
    return lines + _table(("", *_HEAD), [_row("revocation", result.numbers["revocation_ms"])])


def _fleet(result: Measurement) -> list[str]:
    numbers, settings = result.numbers, result.settings
    lines = [
        "A simulated fleet against one control plane, through the gateway with TLS: each worker sends a",
        f"heartbeat every {numbers['heartbeat_s']:g} s and holds a call for jobs for"
        f" {numbers['held_s']:g} s.",
        "CPU in percent of a core; *dispatch*: milliseconds from the commit that queues a job until a worker",
        "has it. A worker here has two connections of HTTP/1.1, an uplink one of HTTP/2.",
        "",
        "Idle:",
        "",
    ]
    rows = [_fleet_row(0, numbers["base"])]
    for workers, step in numbers["steps"].items():
        rows.append(_fleet_row(workers, step["idle"]["services"], step["idle"]))
    head = ("workers", "requests/s", *_FLEET_SERVICES, "api-server MiB", "its threads")
    lines += _table((*head, "Postgres connections", "gateway descriptors"), rows)
    for phase, title in (
        ("load", f"{settings['rate']} jobs a second on several queues, each reported three times:"),
        ("burst", f"{settings['burst']} jobs in one transaction:"),
    ):
        lines += [title, ""]
        lines += _table(
            ("workers", *_HEAD, "requests/s", *_FLEET_SERVICES),
            [
                (
                    *_row(workers, step[phase]["dispatch_ms"]),
                    step[phase]["requests_per_s"],
                    *(step[phase]["services"][name]["cpu_percent"] for name in _FLEET_SERVICES),
                )
                for workers, step in numbers["steps"].items()
            ],
        )
    return [*lines, "![Cost of an idle fleet, and dispatch by its size](fleet.svg)", ""]


_FLEET_SERVICES = ("api-server", "postgres", "gateway")


def _fleet_row(
    workers: object, services: dict[str, Any], idle: dict[str, Any] | None = None
) -> tuple[object, ...]:
    api_server, idle = services["api-server"], idle or {}
    return (
        workers,
        idle.get("requests_per_s", ""),
        *(services[name]["cpu_percent"] for name in _FLEET_SERVICES),
        api_server["memory_mib"],
        api_server["threads"],
        idle.get("postgres_connections", ""),
        idle.get("gateway_descriptors", ""),
    )


_SECTIONS: dict[str, tuple[str, Callable[[Measurement], list[str]]]] = {
    "cold": ("From a fresh clone to a green task", _cold),
    "dispatch": ("How tasks come to workers, against others", _dispatch),
    "visible": ("From S3 to the API", _visible),
    "releases": ("From a publish to the API and the edge", _releases),
    "scale": ("Ten thousand files", _scale),
    "identity": ("What identity costs, and how soon it ends", _identity),
    "fleet": ("A fleet of a thousand edge workers", _fleet),
    "idle": ("Idle memory and CPU", _idle),
    "worked": ("Idle again, after the tasks and DAGs of the other measures", _idle),
}


def _facts(result: Measurement) -> list[str]:
    machine, code = result.machine, result.code
    lines = [
        f"{result.started[:16].replace('T', ' ')} UTC, commit `{code['commit'][:12]}`"
        f"{' with changes that are not committed' if code['dirty'] else ''}; {machine['cores']} cores"
        f" ({machine['processor']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, Docker"
        f" {machine['engine']}, load {machine['load_average'][0]} at the start. `{result.command}`",
        "",
    ]
    if not result.quiet:
        lines += [
            "**Measured while something else ran on the machine: not to be compared with anything.**",
            "",
        ]
    return lines


def markdown(results: dict[str, Measurement]) -> str:
    """Return the page."""
    lines = [
        "# Results of the benchmarks",
        "",
        "Made by `make bench` from the newest JSON file of each measure, which holds every raw sample.",
        "",
    ]
    targets = [target for name in _SECTIONS if name in results for target in results[name].targets]
    if targets:
        lines += _table(
            ("target", "limit", "measured", ""),
            [
                (
                    t.name,
                    f"{t.sense} {t.limit:g} {t.unit}",
                    f"{t.value:g} {t.unit}",
                    "met" if t.met else "**missed**",
                )
                for t in targets
            ],
        )
    for name, (title, section) in _SECTIONS.items():
        if name in results:
            lines += [f"## {title}", "", *_facts(results[name]), *section(results[name])]
    return "\n".join(lines)


def _dispatch_picture(samples: dict[str, Any]) -> Figure:
    figure, (waits, ends, hops) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    names = list(samples["queued_to_running_s"])
    for name in names:
        values = sorted(samples["queued_to_running_s"][name])
        shares = [(number + 1) / len(values) for number in range(len(values))]
        waits.step(values, shares, where="post", label=_TITLES[name], **_style(name))
        for run in samples["ended_after_s"][name]:
            ends.step([0, *run], range(len(run) + 1), where="post", linewidth=0.9, **_style(name))
    waits.set(
        xlabel="seconds from queued to running",
        ylabel="share of the tasks",
        title="One task at a time",
        xscale="log",
        ylim=(0, 1.02),
    )
    waits.legend(frameon=False, fontsize="small", loc="lower right")
    ends.set(
        xlabel="seconds since the first was queued",
        ylabel="tasks ended",
        title="Mapped tasks, each round",
        xlim=0,
        ylim=0,
    )
    for row, name in enumerate(names):
        values = [run[-1] / len(run) for run in samples["chain_ended_after_s"][name]]
        hops.barh(row, statistics.median(values), color=_style(name)["color"], alpha=0.5)
        hops.plot(values, [row] * len(values), "k.", markersize=4)
    hops.set_yticks(range(len(names)), [_TITLES[name] for name in names])
    hops.invert_yaxis()
    hops.set(xlabel="seconds a hop", title="A chain, each round a dot", xlim=0)
    return figure


def _visible_picture(samples: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for kind, marker in (("new", "o"), ("changed", "x")):
        values = samples["seconds"][kind]
        axes.plot(range(1, len(values) + 1), values, marker, label=kind)
    axes.set(xlabel="copy", ylabel="seconds until visible", ylim=0)
    axes.legend(frameon=False)
    return figure


def _fleet_picture(samples: dict[str, Any]) -> Figure:
    figure, (costs, waits) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    phases = samples["phases"]
    idle = [phase for phase in phases if phase["phase"] == "idle"]
    for service, marker in zip(_FLEET_SERVICES, "osx", strict=True):
        points = [(0, samples["base"][service]["cpu_percent"])]
        points += [(phase["workers"], phase["cost"][service]["cpu_percent"]) for phase in idle]
        costs.plot(*zip(*points, strict=True), marker=marker, label=service)
    costs.set(xlabel="idle workers", ylabel="CPU, % of a core", ylim=0, xlim=0)
    costs.legend(frameon=False)
    for phase in phases:
        if phase["phase"] == "load":
            values = sorted(phase["dispatch_ms"])
            shares = [(n + 1) / len(values) for n in range(len(values))]
            waits.step(values, shares, where="post", label=f"{phase['workers']} workers")
    waits.set(xlabel="milliseconds from queued to handed out", ylabel="share of the jobs", xscale="log")
    waits.legend(frameon=False)
    return figure


_PICTURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "dispatch": _dispatch_picture,
    "visible": _visible_picture,
    "fleet": _fleet_picture,
}


def _draw(figure: Figure, path: Path) -> None:
    # The same data draw the same file: no date, no random ids.
    with mpl.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def render(folder: Path = RESULTS) -> Path:
    """Write the page and its pictures beside the results and return the page's path."""
    results = newest(folder)
    for name, draw in _PICTURES.items():
        if name in results:
            _draw(draw(results[name].samples), folder / f"{name}.svg")
    page = folder / "README.md"
    page.write_text(markdown(results))
    return page
