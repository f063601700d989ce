"""Publish the DAGs of a package to S3, as whole releases that can be rolled back.

A release is what :mod:`airbridge.manifest` says: files at exact S3 versions, and the manifest that makes them
count. ``airflow-dag-publisher`` is the command line; :mod:`airbridge.publisher.api` is the same for programs.

Files come in as a snapshot (``_files``), are judged by reading (``_source``, ``_static``) and by
importing them in a container (``_import_check``), compared with the bucket (``_catalog``, ``_plan``), and
written so that the manifest is last (``_publish``, ``_rollback``). ``_arrival`` follows a release to the DAG
processor and the edge workers.
"""

from __future__ import annotations

__all__: list[str] = []
