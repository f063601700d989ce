"""Jobs: Python modules that become Airflow DAGs without anyone writing a DAG.

A job is a module below ``<packages>/<package>/jobs/`` that says so::

    from airbridge.jobs import Job

    def main(argv: list[str]) -> int | None: ...

    JOB = Job(main, "Load yesterday's orders", schedule="0 5 * * *", retries=3)

``airflow-control-plane`` reads these modules as text (it never imports one), checks every option, writes a
DAG file for each, and publishes them with the package's code as one release. A worker imports the job inside
the task, from the release that the DAG run started with.

Public modules: :mod:`airbridge.jobs.definition` (what authors write), :mod:`airbridge.jobs.discovery`,
:mod:`airbridge.jobs.generation`, :mod:`airbridge.jobs.options` (what they may write), and for generated DAGs
:mod:`airbridge.jobs.runtime` and :mod:`airbridge.jobs.notifiers`. This module imports the standard library
only, because authors' modules import it on every worker.
"""

from __future__ import annotations

from airbridge.jobs.definition import Job

__all__ = ["Job"]
