"""Mirror ``s3://<bucket>/<env>/`` into a local DAG store that parsers read (dag-sync).

S3 is the source of truth, in the layout ``<env>/<package>/dags/*.py`` and ``<env>/<package>/metadata.json``.
``python -m airbridge.sync`` polls it cheaply, lets rclone move what changed into a private staging directory,
builds an immutable tree beside it (hard links for what did not change) and flips one relative symlink:

::

    <store>/current -> trees/<tree hash>
    <store>/trees/<tree hash>/<package>/dags/*.py      files 0444, directories 0555
    <store>/.sync/                                     lock, index, staging: dag-sync's own

The tree hash depends on paths and contents only, so every host names the same DAGs alike.

``airbridge.sync.store`` is how readers find a tree; it imports nothing but the standard library, and neither
does this package's top, so that an Airflow process pays nothing for it.
"""

__all__: list[str] = []
