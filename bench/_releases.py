"""From a publish to the REST API that shows the DAG, and to the store of an edge host that has its file.

One package of ten DAGs, published with the publisher's own code: a release with a new DAG, and one with a
changed DAG, in turns. The clock starts before the publish, so validation and upload count as well. *visible*
stops when the API's answer has arrived, *edge* when the current tree of the edge host has the file, *both*
with the later of the two.
"""

from __future__ import annotations

import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airbridge.publisher.api import publish_folder
from bench._progress import say
from bench._stack import EDGE, until
from bench._stats import summary
from bench._visible import dag_text

if TYPE_CHECKING:
    from bench._stack import Stack

__all__ = ["DAGS", "measure"]

DAGS: Final = 10
"""DAGs of the package before the first new one."""

# How often the API and the store are asked: the resolution of the measure.
_POLL_S = 0.1
# dag-sync and the DAG processor look at fixed beats: publishes are spread over more than one of the slowest.
_SPREAD_S = 2.0


class _Package:
    """A folder of DAG files, and what is published of it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        # A name that no earlier run of a kept stack has used: a DAG that was there once is not new.
        self.name = f"bench_release_{int(time.time()):x}"
        self._stack = stack
        self._folder = folder
        for number in range(DAGS):
            self.write(number, "first")
        self.publish()
        self.await_visible(DAGS - 1, "first")

    def dag_id(self, number: int) -> str:
        return f"{self.name}_{number:03d}"

    def write(self, number: int, description: str) -> None:
        dag_id = self.dag_id(number)
        (self._folder / f"{dag_id}.py").write_text(dag_text(dag_id, description))

    def publish(self) -> None:
        publish_folder(self.name, self._folder, published_by="bench", **self._stack.bucket)

    def await_visible(self, number: int, description: str) -> float:
        """Return when the API shows the DAG with this description."""

        def shown() -> bool | None:
            found = self._stack.find(f"/dags/{self.dag_id(number)}")
            return True if found and found["description"] == description else None

        until(f"'{description}' of {self.dag_id(number)} is visible", shown, every=_POLL_S)
        return time.monotonic()

    def await_edge(self, number: int, description: str) -> float:
        """Return when the edge host's current tree has the DAG with this description."""
        path = f"{self.name}/dags/{self.dag_id(number)}.py"

        def there() -> bool | None:
            return True if description in self._stack.edge_file(EDGE, path) else None

        until(f"'{description}' of {self.dag_id(number)} is on the edge host", there, every=_POLL_S)
        return time.monotonic()


def measure(stack: Stack, *, publishes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of so many publishes with a new DAG, and as many with a changed one."""
    samples: dict[str, dict[str, list[float]]] = {
        kind: {"publish": [], "visible": [], "edge": [], "both": []} for kind in ("new", "changed")
    }
    with (
        tempfile.TemporaryDirectory(prefix="airbridge-bench-release.") as folder,
        ThreadPoolExecutor(2) as pool,
    ):
        package = _Package(stack, Path(folder))
        for round_number in range(publishes):
            number = DAGS + round_number
            for kind in ("new", "changed"):
                time.sleep(random.uniform(0, _SPREAD_S))
                description = f"{kind} {round_number}"
                package.write(number, description)
                started = time.monotonic()
                package.publish()
                published = time.monotonic()
                edge = pool.submit(package.await_edge, number, description)
                visible = package.await_visible(number, description)
                times = {
                    "publish": published - started,
                    "visible": visible - started,
                    "edge": edge.result() - started,
                    "both": max(visible, edge.result()) - started,
                }
                for name, seconds in times.items():
                    samples[kind][name].append(round(seconds, 3))
                said = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items())
                say("releases", f"{kind} {round_number + 1} of {publishes}: {said}")
    numbers = {
        kind: {name: summary(values) for name, values in parts.items()} for kind, parts in samples.items()
    }
    return numbers, samples
