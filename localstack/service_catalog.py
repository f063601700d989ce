"""Image build step: the index by which LocalStack finds a request's service, with S3 as the only one.

LocalStack's own (``python -m localstack.aws.spec``) holds the 400 services of botocore. Without a file it is
built at the first request, which takes seconds and 300 MB of memory that are never given back.
"""

from __future__ import annotations

from pathlib import Path

import dill
from localstack import config
from localstack.aws import spec

__all__ = ["main"]


def main() -> None:
    """Write the index where LocalStack looks for it."""
    model = spec.load_service("s3")
    s3 = [spec.get_service_model_identifier(model)]
    index = spec.ServiceCatalogIndex(
        service_names=["s3"],
        target_prefix_index={},
        signing_name_index={model.signing_name: s3},
        operations_index=dict.fromkeys(model.operation_names, s3),
        endpoint_prefix_index={model.endpoint_prefix: s3},
    )
    folder = Path(config.dirs.static_libs)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / spec._get_catalog_filename()).open("wb") as file:
        dill.dump(index, file)


if __name__ == "__main__":
    main()
