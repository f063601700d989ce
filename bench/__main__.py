"""``python -m bench``: measure, write the data, show them.

Exit codes: 0 everything was measured (a missed target is a result, not an error), else see
:mod:`airbridge.errors`.
"""

from __future__ import annotations

import enum
import shlex
import signal
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from botocore.exceptions import BotoCoreError, ClientError

from airbridge.errors import AirbridgeError, UnreachableError
from bench import _cold, _dispatch, _fleet, _identity, _idle, _releases, _scale, _visible
from bench._dispatch_numbers import targets as dispatch_targets
from bench._dispatch_runs import work
from bench._facts import code_facts, is_quiet, wait_for_quiet
from bench._peers import PEERS, Peer, chosen
from bench._progress import say
from bench._render import render
from bench._results import RESULTS, Measurement, Target, write
from bench._stack import control_plane, only_one_run, stack

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class _What(enum.StrEnum):
    """The measures, in the order in which they run."""

    cold = "cold"
    idle = "idle"
    visible = "visible"
    releases = "releases"
    scale = "scale"
    identity = "identity"
    fleet = "fleet"
    dispatch = "dispatch"


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How much of everything."""

    cold_repetitions: int = 3
    rounds: int = 5
    slow_rounds: int = 2
    singles: int = 10
    mapped: int = 200
    chain: int = 20
    idle_s: int = 10
    worked: int = 100
    copies: int = 20
    publishes: int = 30
    requests: int = 400
    revocations: int = 20
    packages: int = 200
    files: int = 50
    settle_s: int = 60
    watch_s: int = 60
    workers: int = 1000
    fleet_idle_s: int = 45
    fleet_load_s: int = 20
    jobs_a_second: int = 10
    burst: int = 500
    quiet_s: int = 180


_FLEET = 500
_CONTROL_PLANE_MIB = 1.6 * 1024
_EDGE_HOST_MIB = 300

_QUICK = _Sizes(
    cold_repetitions=1,
    rounds=1,
    slow_rounds=1,
    singles=2,
    mapped=16,
    chain=3,
    idle_s=2,
    worked=8,
    copies=2,
    publishes=2,
    requests=20,
    revocations=2,
    packages=4,
    files=5,
    settle_s=5,
    watch_s=10,
    workers=50,
    fleet_idle_s=10,
    fleet_load_s=5,
    jobs_a_second=5,
    burst=20,
    quiet_s=0,
)


# Idle again, after DAGs were published and changed, and tasks run.
_WORKED = "worked"


def _targets(what: str, numbers: dict[str, Any]) -> tuple[Target, ...]:
    """Return what was asked for, beside what came out."""
    if what == _What.cold:
        return (
            Target("fresh clone to the first green edge task, median", 180, numbers["cold_s"]["median"], "s"),
            Target("warm make up, median", 40, numbers["warm_s"]["median"], "s"),
        )
    if what == _What.dispatch:
        return dispatch_targets(numbers)
    if what == _What.visible:
        return tuple(
            Target(f"{kind} DAG in S3 to visible in the API, p95", 10, numbers[f"{kind}_s"]["p95"], "s")
            for kind in ("new", "changed")
        )
    if what == _What.releases:
        return tuple(
            Target(
                f"publish with a {kind} DAG to API and edge store, p95", 3, numbers[kind]["both"]["p95"], "s"
            )
            for kind in ("new", "changed")
        )
    if what == _What.scale:
        ours = numbers["followers"]["dag_sync"]
        return (
            Target("unchanged pass of dag-sync over all files", 1, ours["unchanged_s"], "s"),
            Target("lists of an unchanged pass", numbers["lists_allowed"], ours["unchanged_requests"], ""),
            Target("files moved by a change of one", 1, ours["change_moved_files"], ""),
            Target("memory of dag-sync", 150, ours["memory_mib"], "MiB"),
        )
    if what == _What.identity:
        return (
            *(
                Target(f"gateway and middleware add to a {kind}, p95", 5, cost["added_p95_ms"], "ms")
                for kind, cost in numbers["cost"].items()
            ),
            Target("revocation in force for new requests, p95", 1000, numbers["revocation_ms"]["p95"], "ms"),
        )
    if what == _What.fleet:
        return _fleet_targets(numbers["steps"])
    if what in (_What.idle, _WORKED):
        when = ", after work" if what == _WORKED else ""
        return tuple(
            Target(f"idle memory of {title}{when}", limit, numbers[group]["memory_mib"], "MiB")
            for group, title, limit in (
                ("control_plane", "the control plane", _CONTROL_PLANE_MIB),
                ("edge_host", "an edge host", _EDGE_HOST_MIB),
            )
        )
    return ()


def _fleet_targets(steps: dict[str, Any]) -> tuple[Target, ...]:
    """Return what was asked for of 500 workers; nothing where there were never so many."""
    if str(_FLEET) not in steps:
        return ()
    idle, load = steps[str(_FLEET)]["idle"], steps[str(_FLEET)]["load"]
    asked = idle["requests_of_a_worker_in_20_s_besides_heartbeats"]
    return (
        Target(f"api-server, {_FLEET} idle workers", 10, idle["services"]["api-server"]["cpu_percent"], "%"),
        Target("requests of an idle worker in 20 s besides heartbeats", 1, asked, ""),
        Target(f"dispatch with {_FLEET} workers, p95", 1000, load["dispatch_ms"]["p95"], "ms"),
    )


class _Runner:
    """Takes measures and writes them down, each as soon as it is there."""

    def __init__(self, sizes: _Sizes, out: Path) -> None:
        self._sizes = sizes
        self._out = out
        # One look for all of them: what the benchmark itself does to the load later is no disturbance.
        self._machine = wait_for_quiet(sizes.quiet_s)

    def take(self, what: str, measure: Any, **settings: int) -> None:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        numbers, samples = measure(**settings)
        measurement = Measurement(
            what=what,
            started=started,
            command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            machine=self._machine,
            code=code_facts(),
            quiet=is_quiet(self._machine),
            settings=settings,
            numbers=numbers,
            samples=samples,
            targets=_targets(what, numbers),
        )
        path = write(measurement, self._out)
        for target in measurement.targets:
            say("target", str(target))
        say("result", str(path))

    def all(self, wanted: set[_What], *, keep: bool, peers: tuple[Peer, ...]) -> None:
        self._take_others(wanted, keep=keep)
        if _What.dispatch in wanted:
            self._take_dispatch(peers, keep=keep)

    def _take_dispatch(self, peers: tuple[Peer, ...], *, keep: bool) -> None:
        sizes = self._sizes
        _dispatch.build()
        with control_plane(_dispatch.COMPOSE, keep=keep) as running:
            self.take(
                _What.dispatch,
                lambda **settings: _dispatch.measure(running, peers, **settings),
                rounds=sizes.rounds,
                slow_rounds=sizes.slow_rounds,
                singles=sizes.singles,
                mapped=sizes.mapped,
                chain=sizes.chain,
                idle=sizes.idle_s,
            )

    def _take_others(self, wanted: set[_What], *, keep: bool) -> None:
        sizes = self._sizes
        if _What.cold in wanted:
            self.take(_What.cold, _cold.measure, repetitions=sizes.cold_repetitions)
        if _What.scale in wanted:
            self.take(_What.scale, _scale.measure, packages=sizes.packages, files=sizes.files)
        if not wanted - {_What.cold, _What.scale, _What.dispatch}:
            return
        with stack(keep=keep) as running:

            def take_idle(what: str) -> None:
                self.take(
                    what,
                    lambda **settings: _idle.measure(running, **settings),
                    settle=sizes.settle_s,
                    seconds=sizes.watch_s,
                )

            if _What.idle in wanted:
                take_idle(_What.idle)
            if _What.visible in wanted:
                self.take(
                    _What.visible,
                    lambda **settings: _visible.measure(running, **settings),
                    copies=sizes.copies,
                )
            if _What.releases in wanted:
                self.take(
                    _What.releases,
                    lambda **settings: _releases.measure(running, **settings),
                    publishes=sizes.publishes,
                )
            if _What.identity in wanted:
                self.take(
                    _What.identity,
                    lambda **settings: _identity.measure(running, **settings),
                    requests=sizes.requests,
                    revocations=sizes.revocations,
                )
            if _What.fleet in wanted:
                self.take(
                    _What.fleet,
                    lambda **settings: _fleet.measure(running, **settings),
                    workers=sizes.workers,
                    idle=sizes.fleet_idle_s,
                    load=sizes.fleet_load_s,
                    rate=sizes.jobs_a_second,
                    burst=sizes.burst,
                )
            if _What.idle in wanted and wanted & {_What.visible, _What.releases}:
                work(running, sizes.worked)
                take_idle(_WORKED)


_Only = Annotated[
    list[_What] | None, typer.Argument(help="What to measure; nothing named: everything.", show_default=False)
]
_Out = Annotated[Path, typer.Option(help="Folder of the results.")]


@app.command()
def run(
    only: _Only = None,
    out: _Out = RESULTS,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A few samples, to see whether it works; slow peers only if named."),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack running, and use one left so.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds of dispatch; slow peers have at most two.")
    ] = None,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            help=f"Peer of dispatch, of {', '.join(peer.name for peer in PEERS)}; none named: all of them.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure, write the data, and render the page."""
    sizes = _QUICK if quick else _Sizes()
    if rounds is not None:
        sizes = replace(sizes, rounds=rounds, slow_rounds=min(rounds, sizes.slow_rounds))
    taking = chosen(tuple(peers or ()))
    if quick and not peers:
        taking = tuple(peer for peer in taking if not peer.slow)
    with only_one_run():
        _Runner(sizes, out).all(set(only or _What), keep=keep, peers=taking)
    say("page", str(render(out)))


@app.command("render")
def render_page(out: _Out = RESULTS) -> None:
    """Render the page and the pictures from the data that are there."""
    say("page", str(render(out)))


def _end(number: int, _frame: FrameType | None) -> None:
    # So that what was started is removed on SIGTERM as well.
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; expected failures are one line on stderr."""
    signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except AirbridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (httpx.HTTPError, BotoCoreError, ClientError) as error:
        print(f"error: the measured stack went away: {error} | fix: make bench ARGS=--keep", file=sys.stderr)
        raise SystemExit(UnreachableError.exit_code) from None


if __name__ == "__main__":
    main()
