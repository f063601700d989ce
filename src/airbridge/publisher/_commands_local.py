"""``generate`` and ``validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airbridge.errors import SettingsError
from airbridge.publisher._findings import RULES
from airbridge.publisher._import_check import ImportCheck
from airbridge.publisher._options import (
    AllowImport,
    AsJson,
    BucketName,
    DagPath,
    EndpointUrl,
    EnvironmentName,
    Ignore,
    Image,
    PackageArgument,
    PackageName,
)
from airbridge.publisher._output import Format, print_findings, print_json, say
from airbridge.publisher._settings import load_settings, package_name

if TYPE_CHECKING:
    from airbridge.publisher._validate import Checks

__all__ = ["generate_command", "make_checks", "validate_command"]


def generate_command(
    job_name: Annotated[str, typer.Option("--job-name", envvar="JOB_NAME", help="The job.")],
    named: PackageName = None,
    dag_id: Annotated[str, typer.Option("--dag-id", envvar="DAG_ID", help="Default: <package>_<job>.")] = "",
    template: Annotated[
        str,
        typer.Option("--template", envvar="DAG_TEMPLATE", help="kubernetes, docker, python, or a path."),
    ] = "kubernetes",
    template_dir: Annotated[
        Path | None,
        typer.Option(
            "--template-dir",
            envvar="DAG_TEMPLATE_DIR",
            help="Folder whose <template>.py.j2 comes before the built-in one.",
        ),
    ] = None,
    image: Annotated[
        str, typer.Option("--image", envvar="IMAGE", help="Image of the job, without its tag.")
    ] = "",
    image_tag: Annotated[
        str,
        typer.Option("--image-tag", envvar="IMAGE_TAG", help="Its tag; or image and tag in one."),
    ] = "",
    queue: Annotated[
        str,
        typer.Option(
            "--queue",
            envvar="DAG_QUEUE",
            help="Queue of the edge hosts. Default: default; for kubernetes, the control plane.",
        ),
    ] = "",
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", envvar="DAG_SCHEDULE", help="Cron or preset. Default: by hand."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A further tag; repeatable.")] = None,
    description: Annotated[str, typer.Option("--description", help="One line for the web UI.")] = "",
    command: Annotated[
        list[str] | None,
        typer.Option(
            "--command",
            help="One word of the container's command; repeatable. Default: python -m <package>.jobs.<job>.",
        ),
    ] = None,
    entrypoint: Annotated[
        str,
        typer.Option(
            "--entrypoint", help="module:function of the template python. Default: <package>.jobs.<job>:main."
        ),
    ] = "",
    env: Annotated[
        list[str] | None, typer.Option("--env", help="NAME=value for the job; repeatable. No secrets.")
    ] = None,
    retries: Annotated[int, typer.Option("--retries", min=0, max=100, help="Retries of the task.")] = 0,
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of the pod.")] = "default",
    cpu: Annotated[
        str,
        typer.Option(
            "--cpu", envvar="DAG_CPU", help="Cores of the container: 0.5, 2 or 500m. Docker: a share."
        ),
    ] = "",
    memory: Annotated[
        str, typer.Option("--memory", envvar="DAG_MEMORY", help="Limit of the container: 512Mi or 2Gi.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", envvar="DAG_OUTPUT", help="The file. Default: dags/<dag id>.py; - prints it."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that was not generated, or changed since.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Generate a DAG file for a job, from a template."""
    from airbridge.publisher._generate import DagRequest, render, save

    package = package_name(named)
    pairs = [pair.partition("=") for pair in env or ()]
    if any(not equals for _, equals, _ in pairs):
        raise SettingsError("--env has no =", fix="use --env NAME=value")
    request = DagRequest(
        package=package,
        job=job_name,
        dag_id=dag_id,
        template=template,
        image=image,
        image_tag=image_tag,
        queue=queue,
        schedule=schedule,
        tags=tuple(tag or ()),
        description=description,
        command=tuple(command or ()),
        entrypoint=entrypoint,
        environment=tuple((name, value) for name, _, value in pairs),
        retries=retries,
        namespace=namespace,
        cpu=cpu,
        memory=memory,
    )
    text = render(request, templates=template_dir)
    made = dag_id or f"{package}_{job_name}"
    if output == Path("-"):
        print(text, end="")
        return
    target = output or Path("dags") / f"{made}.py"
    changed = save(text, target, force=force)
    if as_json:
        print_json({"dag_id": made, "file": str(target), "changed": changed})
    else:
        say(f"{target} {'written' if changed else 'is up to date'}: DAG {made}")


def validate_command(
    package: PackageArgument = None,
    named: PackageName = None,
    dag_file: Annotated[
        list[Path] | None,
        typer.Option("--dag-file", envvar="DAG_FILE", help="Single files instead of a folder; repeatable."),
    ] = None,
    dag_path: DagPath = Path("dags"),
    against_bucket: Annotated[
        bool,
        typer.Option(
            "--against-bucket/--no-bucket", help="Compare names with the other packages' in the bucket too."
        ),
    ] = False,
    bucket: BucketName = None,
    environment: EnvironmentName = None,
    endpoint_url: EndpointUrl = None,
    import_check: Annotated[
        ImportCheck,
        typer.Option("--import-check", envvar="IMPORT_CHECK", help="Import in a throw-away container too."),
    ] = ImportCheck.AUTO,
    import_image: Image = None,
    allow_import: AllowImport = None,
    ignore: Ignore = None,
    form: Annotated[
        Format, typer.Option("--format", envvar="ABP_FORMAT", help="github: annotations of a pull request.")
    ] = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Look for everything that would keep a release from working; nothing is published.

    Exit codes: 0 no error, 1 errors found, 2 wrong flags, 3 S3 or Docker not reachable.
    """
    from airbridge.publisher._catalog import read_catalog, read_claims
    from airbridge.publisher._files import read_files, read_folder
    from airbridge.publisher._s3 import Store
    from airbridge.publisher._validate import validate

    name = package_name(package or named)
    settings = load_settings(
        dag_bucket=bucket,
        environment=environment,
        s3_endpoint_url=endpoint_url,
        airbridge_airflow_image=import_image,
    )
    snapshot = read_files(dag_file) if dag_file else read_folder(dag_path)
    others = None
    if against_bucket:
        store = Store(settings)
        others = read_claims(store, read_catalog(store), but=name)
    checks = make_checks(settings.airbridge_airflow_image, import_check, allow_import, ignore)
    result = validate(snapshot, name, checks, others=others, whole_release=not dag_file)
    summary = {
        "package": name,
        "files": len(snapshot.files),
        "dags": list(result.dags),
        "imported": result.imported,
        "errors": len(result.errors),
    }
    chosen = Format.JSON if as_json else form
    print_findings(result.findings, chosen, summary=summary)
    if chosen is Format.TABLE:
        how = "read and imported" if result.imported else "read"
        say(
            f"{len(snapshot.files)} files {how}, {len(result.dags)} DAGs, {len(result.errors)} errors, "
            f"{len(result.findings) - len(result.errors)} others"
        )
    if result.errors:
        raise typer.Exit(1)


def make_checks(
    image: str,
    import_check: ImportCheck,
    allow_import: list[str] | None,
    ignore: list[str] | None,
    *,
    allow_empty: bool = False,
) -> Checks:
    """Return how to look at a release; a code that cannot be waived is refused."""
    from airbridge.publisher._validate import Checks

    waivable = sorted(code for code, rule in RULES.items() if rule.waivable)
    codes = tuple(code.upper() for value in ignore or () for code in value.replace(",", " ").split())
    if wrong := [code for code in codes if code not in waivable]:
        raise SettingsError(
            f"--ignore {wrong[0]} is not possible", fix=f"these can be ignored: {', '.join(waivable)}"
        )
    modules = tuple(module for value in allow_import or () for module in value.replace(",", " ").split())
    return Checks(image, import_check, modules, codes, allow_empty)
