"""What runs on an edge host: the worker's entry, its health check and ``diag``.

``python -m airbridge.edge launch``
    Checks the settings, waits for the control plane, makes sure that nobody else works under this
    worker's name, and then becomes the stock ``airflow edge worker``.
``python -m airbridge.edge health``
    Asks the control plane whether this worker is registered and was heard of lately.
``python -m airbridge.edge diag``
    Goes through everything that an edge host needs, one line a check, each with its fix.

Every request leaves through the uplink, the small proxy beside the worker that holds the one HTTPS
connection to the control plane. Only ``diag`` also dials the control plane itself, to tell a broken
uplink from a broken network.
"""

from __future__ import annotations

__all__: list[str] = []
