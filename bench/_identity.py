"""What identity costs an edge request, and how soon a revocation is in force.

Both are measured beside the api-server, on the compose network, by ``bench/probes/identity.py``: the same
request in turn through gateway and middleware, and straight to the edge API without them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bench._progress import say
from bench._shell import ROOT
from bench._stats import percentile, summary

if TYPE_CHECKING:
    from bench._stack import Stack

__all__ = ["measure", "numbers_of"]

_PROBE: Final = ROOT / "bench" / "probes" / "identity.py"
_CA: Final = "/data/caddy/pki/authorities/local/root.crt"


def measure(stack: Stack, *, requests: int, revocations: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of so many requests of each kind each way, and so many revocations."""
    ca = stack.compose("exec", "-T", "gateway", "cat", _CA)
    say("identity", f"{requests} requests of each kind each way, {revocations} revocations")
    command = ("airbridge-env", "python", "-c", _PROBE.read_text(), str(requests), str(revocations), ca)
    samples = json.loads(stack.compose("exec", "-T", "api-server", *command).splitlines()[-1])
    return numbers_of(samples), samples


def numbers_of(samples: dict[str, Any]) -> dict[str, Any]:
    """Return what is read: each way, and what the door adds; percentiles of a difference are of pairs."""
    cost = {}
    for kind, ways in samples["cost_ms"].items():
        door, bypass = summary(ways["door"]), summary(ways["bypass"])
        pairs = [one - other for one, other in zip(ways["door"], ways["bypass"], strict=True)]
        cost[kind] = {
            "door_ms": door,
            "bypass_ms": bypass,
            "added_p50_ms": round(door["median"] - bypass["median"], 3),
            "added_p95_ms": round(door["p95"] - bypass["p95"], 3),
            "pairs_ms": summary(pairs),
            "ratio_of_medians": round(door["median"] / bypass["median"], 2),
        }
    revocation = samples["revocation_ms"]
    return {
        "cost": cost,
        "revocation_ms": {**summary(revocation, 1), "p95": round(percentile(revocation, 95), 1)},
    }
