"""Durable storage for the S3 of LocalStack.

LocalStack's open-source edition keeps S3 in memory and forgets it when it stops. Here S3 holds the truth
(DAGs and task logs), so this package gives it storage that survives a restart, ``kill -9`` and power loss
right after an acknowledged write. It uses LocalStack's own extension points only:

* the provider plug-in ``s3:durable`` (entry point group ``localstack.aws.provider``, chosen with
  ``PROVIDER_OVERRIDE_S3=durable``) in :mod:`airbridge.localstack.provider`;
* ``S3Provider(storage_backend=...)`` for object bodies;
* the key stores of a bucket (``KeyStore``, ``VersionedKeyStore``), its dictionaries of uploads and parts, and
  the tagging service, which are replaced by ones that note what a request changed.

How a write becomes durable::

    request --> body: temporary file, fsync, rename, fsync of the folder   (immutable, one name each)
            --> metadata in memory; every change is noted in the request's ``Changes``
            --> one SQLite transaction with all of them (WAL, synchronous=FULL)
            --> response
            --> bodies that nothing refers to any more are removed a moment later

A crash at any point leaves either the old or the new state, never a mixture, because the transaction
switches from one body name to another. Bodies that no row names are removed at the next start. The cost of a
write does not depend on the number of objects. Metadata is read from memory.

Modules without LocalStack in them can be imported and tested anywhere: ``_codec``, ``_bodies``,
``_database``, ``_journal``, ``_keystores``, ``_memory``, ``_storage``. ``_backend`` and ``provider`` connect
them to LocalStack.
"""

__all__: list[str] = []
