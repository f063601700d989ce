"""From the copy to S3 until the REST API shows the DAG: new ones, and changes of ones that are there.

The clock starts before the copy, so the upload counts as well, and stops when the API's answer has arrived.
"""

from __future__ import annotations

import random
import string
import time
from typing import TYPE_CHECKING, Any

from bench._progress import say
from bench._stack import BENCH_DAGS, until
from bench._stats import summary

if TYPE_CHECKING:
    from bench._stack import Stack

__all__ = ["dag_text", "measure"]

_PACKAGE = "bench_visible"
_TEMPLATE = BENCH_DAGS / "visible.py.txt"
# How often the API is asked: the resolution of the measure.
_POLL_S = 0.1
# dag-sync looks at S3 at a fixed beat (DAG_SYNC_POLL_INTERVAL): copies are spread over one and a half of it.
_SPREAD_S = 3.0


def dag_text(dag_id: str, description: str) -> str:
    """Return the source of a DAG that shows ``description`` in the API."""
    return string.Template(_TEMPLATE.read_text()).substitute(dag_id=dag_id, description=description)


def _publish_and_wait(stack: Stack, dag_id: str, description: str) -> float:
    time.sleep(random.uniform(0, _SPREAD_S))

    def shown() -> bool | None:
        found = stack.find(f"/dags/{dag_id}")
        return True if found and found["description"] == description else None

    started = time.monotonic()
    stack.put_dag(_PACKAGE, f"{dag_id}.py", dag_text(dag_id, description))
    until(f"'{description}' of {dag_id} is visible", shown, every=_POLL_S)
    return time.monotonic() - started


def measure(stack: Stack, *, copies: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of so many new DAGs, and as many changes."""
    # Names that no earlier run of a kept stack has used: a DAG that was there once is not new.
    series = f"{int(time.time()):x}"
    dag_ids = [f"bench_visible_{series}_{number:02d}" for number in range(copies)]
    samples: dict[str, list[float]] = {}
    for kind in ("new", "changed"):
        samples[kind] = []
        for number, dag_id in enumerate(dag_ids, start=1):
            seconds = _publish_and_wait(stack, dag_id, f"{kind} {series}")
            samples[kind].append(round(seconds, 3))
            say("visible", f"{kind} DAG {number} of {copies}: {seconds:.2f} s")
    return {f"{kind}_s": summary(values) for kind, values in samples.items()}, {"seconds": samples}
