"""AirBridge: run Apache Airflow tasks on machines you do not control from the centre.

One folder a capability, each knowing as little of the others as possible:

* ``airbridge.sync`` mirrors ``s3://<bucket>/<env>/`` into a local DAG store (no Airflow needed).
* ``airbridge.bundle`` is the Airflow DAG bundle on that store.
* ``airbridge.edge`` is what runs on an edge host: settings, health check, ``diag``.
* ``airbridge.courier`` is what rides out a control plane that is away, on an edge host.
* ``airbridge.identity`` keeps who the edge workers are: enrolments, credentials, join tokens.
* ``airbridge.controlplane`` is the Airflow plugin and the one-shot work of the control plane.
* ``airbridge.localstack`` gives LocalStack's S3 durable storage.

They share six leaves: ``airbridge.errors``, the exception tree, ``airbridge.manifest``, the release of a
package, ``airbridge.tree_document``, what a host needs to make a tree that it never had,
``airbridge.credential``, what an edge worker proves itself with, ``airbridge.courier_status``, how an edge
host's courier is, and ``airbridge.python_literal``, values as the source of generated DAGs.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
