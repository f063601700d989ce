"""``list``, ``diff``, ``status`` and ``policy``: commands that change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airbridge.errors import RefusedError, SettingsError
from airbridge.publisher._commands_release import WAIT_SECONDS, follow
from airbridge.publisher._options import (
    AsJson,
    BucketName,
    DagPath,
    EndpointUrl,
    EnvironmentName,
    PackageArgument,
    PackageName,
    Timeout,
    Wait,
)
from airbridge.publisher._output import print_json, print_table, say, size, warn
from airbridge.publisher._settings import load_settings, package_name

if TYPE_CHECKING:
    from airbridge.publisher._catalog import Drift, RemotePackage
    from airbridge.publisher._diff import Side
    from airbridge.publisher._history import Release
    from airbridge.publisher._s3 import Store

__all__ = ["diff_command", "list_command", "policy_command", "status_command"]


def list_command(
    package: PackageArgument = None,
    named: Annotated[str | None, typer.Option("--package-name", help="The package; none: all.")] = None,
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    endpoint_url: EndpointUrl = None,
    as_json: AsJson = False,
) -> None:
    """Without a package: all packages and their current releases. With one: its releases."""
    from airbridge.publisher._catalog import read_catalog
    from airbridge.publisher._s3 import Store

    store = Store(load_settings(dag_bucket=bucket, environment=environment, s3_endpoint_url=endpoint_url))
    if package or named:
        _list_releases(store, package_name(package or named), as_json=as_json)
        return
    catalog = read_catalog(store)
    packages = [catalog.packages[name] for name in sorted(catalog.packages)]
    if as_json:
        print_json({"source": store.settings.where, "packages": [_package_json(item) for item in packages]})
        return
    print_table(
        ("package", "release", "activated", "by", "files", "size", "DAGs", "drift"),
        (
            (
                item.name,
                item.manifest.release if item.manifest else "broken" if item.problem else "none",
                item.manifest.activated_at[:19] if item.manifest else "",
                item.manifest.activated_by if item.manifest else "",
                len(item.manifest.files) if item.manifest else len(item.objects),
                size(_bytes(item)),
                len(item.manifest.dags) if item.manifest else "",
                _drift_text(item.drift) if item.manifest else "",
            )
            for item in packages
        ),
    )
    for item in packages:
        if item.problem:
            warn(item.problem)
    if not packages:
        say(f"there is no package in {store.settings.where}")


def _list_releases(store: Store, package: str, *, as_json: bool) -> None:
    from airbridge.publisher._history import releases

    found = list(releases(store, package))
    if as_json:
        print_json({"package": package, "releases": [_release_json(item) for item in found]})
        return
    if not found:
        raise RefusedError(f"{package} has no release in {store.settings.where}", fix="publish one")
    print_table(
        ("", "release", "published", "by", "activated", "by", "files", "size", "DAGs"),
        (
            (
                "*" if item.current else "",
                item.manifest.release,
                item.manifest.published_at[:19],
                item.manifest.published_by,
                item.manifest.activated_at[:19],
                item.manifest.activated_by,
                len(item.manifest.files),
                size(sum(file.size for file in item.manifest.files)),
                len(item.manifest.dags),
            )
            for item in sorted(found, key=lambda item: item.manifest.release, reverse=True)
        ),
    )


def diff_command(
    before: Annotated[
        str | None, typer.Argument(metavar="A", help="A release, current or previous. Default: current.")
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="B", help="Another one. Default: current; without A, the folder.")
    ] = None,
    named: PackageName = None,
    dag_path: DagPath = Path("dags"),
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    endpoint_url: EndpointUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare two releases; without any, the current release with the folder."""
    from airbridge.publisher._diff import compare
    from airbridge.publisher._s3 import Store

    package = package_name(named)
    store = Store(load_settings(dag_bucket=bucket, environment=environment, s3_endpoint_url=endpoint_url))
    left = _release_side(store, package, before or "current", may_lack=before is None)
    right = _release_side(store, package, after or "current") if before else _folder_side(dag_path)
    files = compare(left, right)
    if as_json:
        print_json(
            {
                "package": package,
                "before": left.name,
                "after": right.name,
                "files": [item.to_json() for item in files],
            }
        )
        return
    for item in files:
        if item.text:
            print(item.text, end="")
        else:
            say(f"{item.path}: {item.change}, no text")
    if not files:
        say(f"{left.name} and {right.name} are the same")


def status_command(
    package: PackageArgument = None,
    named: PackageName = None,
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    endpoint_url: EndpointUrl = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Which release S3, the DAG processor and each live edge worker have.

    Needs AIRBRIDGE_API_URL and AIRBRIDGE_API_PASSWORD, AIRBRIDGE_API_PASSWORD_FILE or AIRBRIDGE_API_TOKEN.
    """
    from airbridge.publisher._api import ControlPlane
    from airbridge.publisher._arrival import Watcher
    from airbridge.publisher._catalog import read_catalog
    from airbridge.publisher._s3 import Store

    name = package_name(package or named)
    store = Store(load_settings(dag_bucket=bucket, environment=environment, s3_endpoint_url=endpoint_url))
    manifest = read_catalog(store).package(name).manifest
    if manifest is None:
        raise RefusedError(f"{name} has no release in {store.settings.where}", fix="publish one")
    if wait:
        document = follow(store, name, seconds=timeout, quiet=as_json)
        if as_json:
            print_json(document)
        return
    with ControlPlane(store.settings) as control_plane:
        arrival = Watcher(store, control_plane, manifest).look()
    if as_json:
        print_json(arrival.to_json())
        return
    say(f"{name}: release {manifest.release}, activated {manifest.activated_at} by {manifest.activated_by}")
    print_table(
        ("where", "has it", "detail"),
        (
            (place.name, "yes" if place.arrived else "no", place.detail)
            for place in (*arrival.processor, *arrival.workers)
        ),
    )
    if not arrival.processor:
        say("the release has no DAG, so the DAG processor has nothing to show")
    if not arrival.workers:
        say("no edge worker is alive")
    for fault in arrival.faults:
        warn(f"{fault.file} cannot be imported: {fault.message}")


def policy_command(
    package: PackageArgument = None,
    named: PackageName = None,
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    partition: Annotated[str, typer.Option("--partition", help="aws, aws-cn or aws-us-gov.")] = "aws",
) -> None:
    """Print the least IAM policy that the publisher of a package needs, as JSON."""
    from airbridge.publisher._policy import make_policy

    if partition not in {"aws", "aws-cn", "aws-us-gov"}:
        raise SettingsError(f"--partition {partition!r} is none", fix="use aws, aws-cn or aws-us-gov")
    settings = load_settings(dag_bucket=bucket, environment=environment)
    print(json.dumps(make_policy(settings, package_name(package or named), partition=partition), indent=2))


def _release_side(store: Store, package: str, wanted: str, *, may_lack: bool = False) -> Side:
    from airbridge.publisher._diff import Side
    from airbridge.publisher._history import find_release, read_content

    try:
        manifest = find_release(store, package, wanted).manifest
    except RefusedError:
        if not may_lack:
            raise
        return Side("nothing", {}, lambda _path: b"")
    files = {file.path: file for file in manifest.files}
    return Side(
        manifest.release,
        {path: file.sha256 for path, file in files.items()},
        lambda path: read_content(store, manifest, files[path]),
    )


def _folder_side(dag_path: Path) -> Side:
    from airbridge.publisher._diff import Side
    from airbridge.publisher._files import read_folder

    snapshot = read_folder(dag_path)
    contents = {file.path: file.content for file in snapshot.files}
    return Side(str(dag_path), snapshot.hashes, lambda path: contents[path])


def _package_json(item: RemotePackage) -> dict[str, Any]:
    manifest, drift = item.manifest, item.drift
    return {
        "package": item.name,
        "release": manifest.release if manifest else None,
        "published_at": manifest.published_at if manifest else None,
        "published_by": manifest.published_by if manifest else None,
        "activated_at": manifest.activated_at if manifest else None,
        "activated_by": manifest.activated_by if manifest else None,
        "files": len(manifest.files) if manifest else len(item.objects),
        "bytes": _bytes(item),
        "dags": list(manifest.dags) if manifest else None,
        "drift": {"changed": drift.changed, "missing": drift.missing, "extra": drift.extra},
        "problem": item.problem,
    }


def _release_json(item: Release) -> dict[str, Any]:
    manifest = item.manifest
    return {
        "release": manifest.release,
        "current": item.current,
        "published_at": manifest.published_at,
        "published_by": manifest.published_by,
        "activated_at": manifest.activated_at,
        "activated_by": manifest.activated_by,
        "replaces": manifest.replaces,
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
        "dags": list(manifest.dags),
    }


def _bytes(item: RemotePackage) -> int:
    if item.manifest is not None:
        return sum(file.size for file in item.manifest.files)
    return sum(found.size for found in item.objects.values())


def _drift_text(drift: Drift) -> str:
    parts = [
        f"{len(paths)} {name}"
        for name, paths in (("changed", drift.changed), ("missing", drift.missing), ("extra", drift.extra))
        if paths
    ]
    return ", ".join(parts) or "none"
