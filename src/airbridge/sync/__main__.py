"""``python -m airbridge.sync``: run dag-sync; ``health`` asks a running one; ``once`` is one full pass."""

from __future__ import annotations

import sys

__all__ = ["main"]

_USAGE = """\
usage: python -m airbridge.sync [once | health]

Mirror s3://$DAG_BUCKET/$ENVIRONMENT/ into immutable trees under $DAG_STORE.

  (nothing)  keep the store equal to the bucket; /healthz, /metrics and /trees/<hash> on $HEALTH_PORT
  once       one full pass, then exit: 0 when the store equals the bucket
  health     ask the dag-sync on this host: 0 when it is healthy

Settings, from the environment:
  DAG_BUCKET, ENVIRONMENT   what to mirror (required)
  S3_ENDPOINT_URL           S3 endpoint; empty means AWS
  AWS_DEFAULT_REGION        us-east-1; credentials the standard way (AWS_ACCESS_KEY_ID, ...)
  DAG_STORE                 /store
  DAG_SYNC_POLL_INTERVAL    2     seconds between cheap polls (one LIST per 1000 objects)
  DAG_SYNC_INTERVAL         30    seconds between full passes that also re-read every local file
  DAG_SYNC_KEEP_TREES       10    newest trees that stay, the current one included
  DAG_SYNC_KEEP_SECONDS     3600  trees that were used within so many seconds stay too
  DAG_SYNC_PUBLISH_TREES    false write a document of every tree into the bucket (control plane only)
  HEALTH_PORT               8081

Exit codes: 0 done, 2 a setting is wrong, 3 S3 not reachable, 4 refused (also: the store is in use),
5 some packages keep an earlier release.
"""


def main(arguments: list[str]) -> int:
    """Run the command in ``arguments`` and return the exit code."""
    match arguments:
        case ["health"]:
            from airbridge.sync._probe import probe

            return probe()
        case [] | ["once"]:
            from airbridge.sync._service import run

            return run(once=bool(arguments))
        case ["-h" | "--help"]:
            print(_USAGE, end="")
            return 0
        case _:
            print(_USAGE, end="", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
