"""Publish from a program: what the command line does, without its flags and its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airbridge.publisher._files import read_folder
from airbridge.publisher._import_check import ImportCheck
from airbridge.publisher._publish import InvalidReleaseError, Published, whoami
from airbridge.publisher._publish import publish as _publish
from airbridge.publisher._s3 import Store
from airbridge.publisher._settings import load_settings, package_name
from airbridge.publisher._validate import Checks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ImportCheck", "InvalidReleaseError", "Published", "publish_folder"]


def publish_folder(
    package: str,
    folder: Path,
    *,
    published_by: str | None = None,
    import_check: ImportCheck = ImportCheck.NEVER,
    allow_imports: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    allow_empty: bool = False,
    take_over: bool = False,
    dry_run: bool = False,
    **settings: Any,
) -> Published:
    """Make the DAG files in ``folder`` the current release of ``package``; unchanged files cost nothing.

    ``settings`` are ``dag_bucket``, ``environment``, ``s3_endpoint_url`` and ``aws_default_region``; what is
    not given comes from the environment.

    Raises :class:`InvalidReleaseError` for errors in the files, :class:`airbridge.errors.RefusedError` when
    another publish came first, and other :class:`airbridge.errors.AirbridgeError`. Nothing that anyone sees
    has changed then.
    """
    loaded = load_settings(**settings)
    checks = Checks(
        image=loaded.airbridge_airflow_image,
        import_check=import_check,
        allow_imports=allow_imports,
        ignore=ignore,
        allow_empty=allow_empty,
    )
    return _publish(
        Store(loaded),
        package_name(package),
        read_folder(folder),
        checks,
        published_by=whoami(published_by),
        take_over=take_over,
        dry_run=dry_run,
    )
