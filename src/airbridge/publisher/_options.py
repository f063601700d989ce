"""The flags that several commands share, each with its environment variable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllowImport",
    "AsJson",
    "BucketName",
    "DagPath",
    "DryRun",
    "EndpointUrl",
    "EnvironmentName",
    "Ignore",
    "Image",
    "PackageArgument",
    "PackageName",
    "PublishedBy",
    "Timeout",
    "Wait",
]

PackageName = Annotated[
    str | None,
    typer.Option("--package-name", envvar="PACKAGE_NAME", help="The package, such as sales_reports."),
]
PackageArgument = Annotated[
    str | None, typer.Argument(metavar="PACKAGE", help="The package; or give --package-name.")
]
BucketName = Annotated[
    str | None, typer.Option("--bucket", envvar="DAG_BUCKET", help="Bucket of the DAGs: airbridge-dags.")
]
EnvironmentName = Annotated[
    str | None, typer.Option("--environment", envvar="ENVIRONMENT", help="First segment of every key: dev.")
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url",
        envvar=["S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"],
        help="S3 endpoint: https://localhost:8443/s3. Set, and empty, means AWS.",
    ),
]
DagPath = Annotated[
    Path,
    typer.Option(
        "--dag-path",
        envvar="DAG_PATH",
        help="Folder of the DAG files (or the folder that holds it as 'dags').",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        envvar="ALLOW_IMPORTS",
        help="A module that the control plane has too; repeatable.",
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", envvar="ABP_IGNORE", help="Do not look for ABP3xx or ABP4xx; repeatable."),
]
Image = Annotated[
    str | None,
    typer.Option(
        "--import-image",
        envvar="AIRBRIDGE_AIRFLOW_IMAGE",
        help="Image of the control plane, for the real import.",
    ),
]
PublishedBy = Annotated[
    str | None,
    typer.Option("--published-by", envvar="PUBLISHED_BY", help="Who this is; user@host."),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Return when the DAG processor has parsed the release and every live edge worker shows it.",
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0, help="Seconds that --wait waits; then exit code 6.")
]
