"""``publish`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airbridge.errors import SettingsError
from airbridge.publisher._commands_local import make_checks
from airbridge.publisher._import_check import ImportCheck
from airbridge.publisher._options import (
    AllowImport,
    AsJson,
    BucketName,
    DagPath,
    DryRun,
    EndpointUrl,
    EnvironmentName,
    Ignore,
    Image,
    PackageArgument,
    PackageName,
    PublishedBy,
    Timeout,
    Wait,
)
from airbridge.publisher._output import Format, print_findings, print_json, progress, say, size, warn
from airbridge.publisher._settings import load_settings, package_name

if TYPE_CHECKING:
    from airbridge.publisher._arrival import Arrival
    from airbridge.publisher._publish import Published
    from airbridge.publisher._s3 import Store

__all__ = ["WAIT_SECONDS", "follow", "publish_command", "rollback_command"]

WAIT_SECONDS = 120.0
"""How long ``--wait`` waits unless told: many times what a healthy control plane needs."""


def publish_command(
    package: PackageArgument = None,
    named: PackageName = None,
    dag_path: DagPath = Path("dags"),
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    endpoint_url: EndpointUrl = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    import_check: Annotated[
        ImportCheck,
        typer.Option("--import-check", envvar="IMPORT_CHECK", help="Import in a throw-away container first."),
    ] = ImportCheck.AUTO,
    import_image: Image = None,
    allow_import: AllowImport = None,
    ignore: Ignore = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Hide files that were copied there without a release.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="A release without files: the package disappears.")
    ] = False,
    published_by: PublishedBy = None,
    as_json: AsJson = False,
) -> None:
    """Validate a folder of DAG files and make it the current release of its package.

    Exit codes: 0 published (or nothing to do), 1 errors in the release, 2 wrong flags, 3 not reachable,
    4 refused (another publish came first, S3 said no), 6 published but not everywhere within --timeout.
    """
    from airbridge.publisher._files import read_folder
    from airbridge.publisher._publish import InvalidReleaseError, publish, whoami
    from airbridge.publisher._s3 import Store

    name = package_name(package or named)
    settings = load_settings(
        dag_bucket=bucket,
        environment=environment,
        s3_endpoint_url=endpoint_url,
        airbridge_airflow_image=import_image,
    )
    checks = make_checks(
        settings.airbridge_airflow_image, import_check, allow_import, ignore, allow_empty=allow_empty
    )
    store = Store(settings)
    try:
        with progress(quiet=as_json) as show:
            result = publish(
                store,
                name,
                read_folder(dag_path),
                checks,
                published_by=whoami(published_by),
                take_over=take_over,
                dry_run=dry_run,
                progress=show,
            )
    except InvalidReleaseError as error:
        form = Format.JSON if as_json else Format.TABLE
        print_findings(
            error.validation.findings,
            form,
            summary={"package": name, "outcome": "refused", "error": error.what},
        )
        raise
    document = result.to_json()
    if not as_json:
        _show_published(result)
    if wait and not dry_run:
        document["arrival"] = follow(store, name, seconds=timeout, quiet=as_json)
    if as_json:
        print_json(document)


def rollback_command(
    release: Annotated[
        str | None, typer.Argument(metavar="RELEASE", help="Id of the release, or its beginning or end.")
    ] = None,
    named: PackageName = None,
    to_previous: Annotated[
        bool, typer.Option("--to-previous", help="The release published before the current one.")
    ] = False,
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    endpoint_url: EndpointUrl = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    published_by: PublishedBy = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier release the current one again, in one write.

    Exit codes: 0 done, 2 wrong flags, 3 not reachable, 4 refused (its files are gone, somebody else came
    first), 6 done but not everywhere within --timeout.
    """
    from airbridge.publisher._publish import whoami
    from airbridge.publisher._rollback import rollback
    from airbridge.publisher._s3 import Store

    name = package_name(named)
    if to_previous == (release is not None):
        raise SettingsError("which release is not clear", fix="give its id, or --to-previous")
    store = Store(load_settings(dag_bucket=bucket, environment=environment, s3_endpoint_url=endpoint_url))
    result = rollback(store, name, release, activated_by=whoami(published_by), dry_run=dry_run)
    document = result.to_json()
    if not as_json:
        for text in result.warnings:
            warn(text)
        said = {
            "unchanged": "is the current release already",
            "planned": f"would replace {result.replaces}",
            "rolled back": f"is current again, instead of {result.replaces}",
        }
        say(f"{name}: release {result.release} {said[result.outcome]} ({result.files} files)")
    if wait and not dry_run:
        document["arrival"] = follow(store, name, seconds=timeout, quiet=as_json)
    if as_json:
        print_json(document)


def follow(store: Store, package: str, *, seconds: float, quiet: bool) -> dict[str, Any] | None:
    """Wait until the current release of ``package`` is everywhere; return where it is."""
    from airbridge.publisher._api import ControlPlane
    from airbridge.publisher._arrival import Watcher
    from airbridge.publisher._catalog import read_catalog

    manifest = read_catalog(store).package(package).manifest
    if manifest is None:
        return None
    with ControlPlane(store.settings) as control_plane, progress(quiet=quiet) as show:
        watcher = Watcher(store, control_plane, manifest)

        def on_look(arrival: Arrival) -> None:
            places = (*arrival.processor, *arrival.workers)
            show(arrival.summary(), sum(place.arrived for place in places), len(places))

        arrival = watcher.wait(seconds=seconds, on_look=on_look)
    if not quiet:
        say(
            f"{package}: release {arrival.release} is parsed ({len(arrival.processor)} DAGs) "
            f"and on {len(arrival.workers)} live edge workers"
        )
    return arrival.to_json()


def _show_published(result: Published) -> None:
    if result.validation.findings:
        print_findings(result.validation.findings, Format.TABLE, summary={})
    for text in result.warnings:
        warn(text)
    counts = (
        f"{len(result.uploaded)} files uploaded ({size(result.bytes_uploaded)}), {result.reused} unchanged, "
        f"{len(result.deleted)} removed"
    )
    if result.outcome == "planned":
        for mark, paths in (("+", result.uploaded), ("-", result.deleted)):
            for path in paths:
                say(f"{mark} {path}")
        say(f"{result.package}: {counts.replace('uploaded', 'to upload').replace('removed', 'to remove')}")
        return
    said = {
        "published": f"release {result.release} is current; {counts}",
        "healed": f"release {result.release} was current already; {len(result.deleted)} leftovers removed",
        "unchanged": f"release {result.release} has this content already, nothing was written",
    }
    say(f"{result.package}: {said[result.outcome]}")
