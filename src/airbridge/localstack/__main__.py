"""Start LocalStack with durable S3: ``python -m airbridge.localstack``.

The storage is opened before LocalStack starts, because LocalStack only logs a provider that cannot be loaded
and goes on without it. Whatever is wrong is said in one line on stderr, and the exit code is not 0.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

from airbridge.errors import AirbridgeError

__all__ = ["main"]

_DURABLE = "durable"
_UPLOADS = "uploads"


def _open_storage() -> None:
    from airbridge.localstack._settings import load_settings

    # Twisted collects an upload in a temporary file before S3 sees it: on the volume, because /tmp is memory.
    # Not set with TMPDIR, which LocalStack warns about; set before LocalStack is imported, which reads it.
    uploads = load_settings().data_dir / _UPLOADS
    tempfile.tempdir = str(uploads)

    from airbridge.localstack.provider import durable_provider

    durable_provider()
    shutil.rmtree(uploads, ignore_errors=True)  # left over from a kill
    uploads.mkdir(exist_ok=True)


def main() -> None:
    """Open the storage, then run LocalStack until it is told to stop."""
    if os.environ.get("PROVIDER_OVERRIDE_S3") == _DURABLE:
        try:
            _open_storage()
        except AirbridgeError as error:
            print(f"localstack: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except OSError as error:
            print(f"localstack: cannot open the S3 storage: {error}", file=sys.stderr)
            sys.exit(AirbridgeError.exit_code)
    else:
        print("localstack: PROVIDER_OVERRIDE_S3 is not 'durable', S3 will forget everything", file=sys.stderr)

    from localstack.runtime.main import main as run_localstack

    run_localstack()


if __name__ == "__main__":
    main()
