"""Who the edge workers are: one enrolment and one credential for each, in the control plane's database.

* :mod:`airbridge.identity.model` is what an enrolment says: queues, concurrency, connections, variables.
* :mod:`airbridge.identity.store` keeps enrolments, encrypted secrets and hashes of join tokens in Postgres,
  in a schema of our own beside Airflow's tables.
* ``airbridge edge …`` (``python -m airbridge.identity edge …``) is the operator's command line.

No Airflow in here: who is enrolled is asked before every request of an edge host, and by one-shot commands
that should take a second and not five.
"""

from __future__ import annotations

__all__: list[str] = []
