"""Five small HTTP services for the DAG ``FreshPoC_E2E``: a data pipeline that is real, only small.

::

    ingestion :8011 /trigger   takes a repository of SQL models from the built-in catalogue
    miner     :8012 /run       reads which model refers to which
    analyzer  :8013 /run       orders the models, finds sources, results and dangling references
    writer    :8014 /apply     stores the graph in SQLite
    reporting :8016 /generate  renders the stored graph as a Markdown report (``/report``)

Every service pulls what it needs from the one before it over HTTP (``/result?run_id=...``) and keeps its
own result per run id, so calling it again is safe and gives the same answer. ``/healthz`` proves that it can
write. ``fail=1`` makes a call answer 500, ``fail_times=N`` only the first N calls of that run.

Standard library only. Start one with ``python3 -m fresh_poc <service>``.
"""

from __future__ import annotations

__all__: list[str] = []
