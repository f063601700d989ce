"""AirBridge's benchmarks: what ``make bench`` runs.

Each measure is a module of its own:

=========================  =========================================================================
:mod:`bench._cold`         fresh clone to the first green edge task, and a warm ``make up``
:mod:`bench._idle`         memory and CPU of every container while nothing runs
:mod:`bench._visible`      copy to S3 until the REST API shows the DAG
:mod:`bench._releases`     publish until API and edge host have the DAG
:mod:`bench._scale`        ten thousand DAG files, against other ways to follow a bucket
:mod:`bench._identity`     what identity costs a request, and how soon a revocation is in force
:mod:`bench._dispatch`     queued to running, throughput, chains, and what a task costs, against
                           LocalExecutor, CeleryExecutor and the provider's edge worker
=========================  =========================================================================

Each writes raw samples and medians, with the facts of the machine, to ``bench/results/<date>-<what>.json``;
:mod:`bench._render` makes ``bench/results/README.md`` and its pictures from the newest of them.

What can not be measured is an error and an exit code, never a number: no sample is a time-out.
"""

from __future__ import annotations

__all__: list[str] = []
