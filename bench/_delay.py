"""Edge hosts that are far away: by the kernel's ``netem``, else by a relay; checked either way."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from airbridge.errors import IntegrityError
from bench._peers import FAR_MS
from bench._progress import say
from bench._shell import ROOT

if TYPE_CHECKING:
    from bench._shell import Shell

__all__ = ["NETEM", "RELAY", "RoundTrip", "check", "choose", "measure_round_trip"]

NETEM = "bench/dispatch/netem.yaml"
RELAY = "bench/dispatch/relay.yaml"

_SCRIPT = "bench/dispatch/netem.sh"
_WORKS = "works"
_MS = 1000
_CONNECTIONS = 7
_REQUESTS = 7
# A first request waits for TCP's handshake, TLS 1.3's, and its own answer.
_FIRST_ROUND_TRIPS = 3
# What else a machine under load may add to, or take from, the difference of two medians; for each round trip.
_TOLERANCE_MS = 10

# Round trips to the gateway as the uplink has them: one connection, several requests.
_PROBE = """
set -eu
calls=()
for _ in $(seq "$1"); do calls+=(-o /dev/null "${CONTROL_PLANE_URL%/}/healthz"); done
exec curl --silent --show-error --fail --cacert "$CONTROL_PLANE_CA_FILE" \\
  --write-out '%{time_total}\\n' "${calls[@]}"
"""

RoundTrip = dict[str, float]
"""Medians, in milliseconds: ``first_ms`` of a request on a new connection, ``kept_ms`` of those after it."""


def choose(shell: Shell, image: str) -> str:
    """Return :data:`NETEM` or :data:`RELAY`.

    :param image: one that has ``tc``
    """
    # The very commands, in a network that is gone a moment later.
    answer = shell.run(
        "docker", "run", "--rm", "--cap-add", "NET_ADMIN", "--volume", f"{ROOT / _SCRIPT}:/netem.sh:ro",
        image,
        "sh", "/netem.sh", "443", str(FAR_MS), "echo", _WORKS,
        check=False,
    )  # fmt: skip
    found = NETEM if answer.strip() == _WORKS else RELAY
    say("delay", "by the kernel's netem" if found == NETEM else "by a relay: this kernel has no netem")
    return found


def measure_round_trip(shell: Shell, uplink: str) -> RoundTrip:
    """Ask the gateway for its health from an uplink's container."""
    firsts, kept = [], []
    for _ in range(_CONNECTIONS):
        answer = shell.run("docker", "exec", uplink, "bash", "-c", _PROBE, "bash", str(_REQUESTS))
        first, *others = (float(line) * _MS for line in answer.split())
        firsts.append(first)
        kept += others
    return {"first_ms": round(statistics.median(firsts), 2), "kept_ms": round(statistics.median(kept), 2)}


def check(near: RoundTrip, far: RoundTrip) -> None:
    """Compare an edge host that is far away with one that is not.

    :raises IntegrityError: what was added is not :data:`FAR_MS` for each round trip
    """
    for kind, round_trips in (("kept_ms", 1), ("first_ms", _FIRST_ROUND_TRIPS)):
        added = far[kind] - near[kind]
        wanted = round_trips * FAR_MS
        if abs(added - wanted) > _TOLERANCE_MS * round_trips:
            raise IntegrityError(
                f"{kind[:-3]} request of a far host takes {added:.1f} ms more, not {wanted} ms",
                fix="the machine is too busy for this measure, or the delay does not work here",
            )
