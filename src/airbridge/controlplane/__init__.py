"""The control plane's own code: one-shot work, health checks, and the Airflow plugin.

* ``python -m airbridge.controlplane`` is what the compose services call: ``secrets`` makes the secrets
  that are missing, ``init`` migrates the database and makes users and buckets, ``migrate`` is the guard
  before a service starts, ``health`` proves a service's job, ``show`` prints one secret, ``collect`` tells
  every dag-sync which trees DAG runs need.
* :mod:`airbridge.controlplane.plugin` is loaded by Airflow through the entry point ``airflow.plugins``.
  It authenticates every request of an edge worker and re-signs it for the edge API behind it.
"""

__all__: list[str] = []
