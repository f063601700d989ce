"""AirBridge's benchmarks: what ``make bench`` runs.

Four measures, each a module of its own: :mod:`bench._cold` (fresh clone to first green edge task, and a warm
``make up``), :mod:`bench._latency` (queued to running and tasks per minute, against LocalExecutor and an
untuned edge worker), :mod:`bench._visible` (copy to S3 until the REST API shows the DAG), :mod:`bench._idle`
(memory and CPU of every container). Each writes raw samples and medians, with the facts of the machine, to
``bench/results/<date>-<what>.json``; :mod:`bench._render` makes ``bench/results/README.md`` and its pictures
from the newest of them.

What can not be measured is an error and an exit code, never a number: no sample is a time-out.
"""

from __future__ import annotations

__all__: list[str] = []
