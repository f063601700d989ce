"""The IAM policy of a package's publisher: its own prefix to write, and no more to read than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airbridge.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from airbridge.publisher._settings import Settings

__all__ = ["make_policy"]


def make_policy(settings: Settings, package: str, *, partition: str = "aws") -> dict[str, Any]:
    """Return the policy that publish, rollback, list, diff and status of ``package`` need, as a document.

    No action deletes a version: what was published can always be had again.
    """
    bucket = f"arn:{partition}:s3:::{settings.dag_bucket}"
    environment, own = settings.prefix, f"{settings.prefix}{package}/"
    trees = f".airbridge/{settings.environment}/trees"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "SeeWhatOthersHold",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": bucket,
                "Condition": {"StringLike": {"s3:prefix": [f"{environment}*"]}},
            },
            {
                "Sid": "SeeOwnReleases",
                "Effect": "Allow",
                "Action": "s3:ListBucketVersions",
                "Resource": bucket,
                "Condition": {"StringLike": {"s3:prefix": [f"{own}*"]}},
            },
            {
                "Sid": "ReadManifestsAndNames",
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": [f"{bucket}/{environment}*", f"{bucket}/{trees}/*"],
            },
            {
                "Sid": "ReadOwnReleases",
                "Effect": "Allow",
                "Action": "s3:GetObjectVersion",
                "Resource": f"{bucket}/{own}*",
            },
            {
                "Sid": "WriteOwnRelease",
                "Effect": "Allow",
                "Action": "s3:PutObject",
                "Resource": [f"{bucket}/{own}dags/*", f"{bucket}/{own}{MANIFEST_NAME}"],
            },
            {
                "Sid": "RemoveOwnFiles",
                "Effect": "Allow",
                "Action": "s3:DeleteObject",
                "Resource": f"{bucket}/{own}dags/*",
            },
        ],
    }
