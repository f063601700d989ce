"""The Airflow dag bundle on the DAG store that dag-sync fills.

A bundle version is the hash of an immutable tree in the store, so every reader (DAG processor, LocalExecutor
task, edge worker) looks at one whole tree, never at the link that may flip under it.
"""

from airbridge.bundle._bundle import AirbridgeDagBundle

__all__ = ["AirbridgeDagBundle"]
