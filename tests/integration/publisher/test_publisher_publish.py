"""Publish, list, diff and roll back, against the project's S3."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from publisher_bucket import Bucket, Team, dag_file

from airbridge.errors import AirbridgeError, RefusedError
from airbridge.manifest import MAX_FILES, read_manifest
from airbridge.publisher._catalog import read_catalog
from airbridge.publisher._history import find_release, releases
from airbridge.publisher._publish import InvalidReleaseError
from airbridge.publisher._rollback import rollback
from airbridge.publisher.api import publish_folder

if TYPE_CHECKING:
    from pathlib import Path


def command(bucket: Bucket, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airbridge.publisher", *arguments],
        env={"PATH": "/usr/bin:/bin", "IMPORT_CHECK": "never", **bucket.environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def as_json(bucket: Bucket, *arguments: str) -> Any:
    done = command(bucket, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- publish -------------------------------------------------------------------------------------------
def test_first_publish_makes_a_release_of_the_folder(team: Team) -> None:
    team.write("hourly")
    result = team.publish()
    assert result.outcome == "published"
    assert team.bucket.visible("sales") == (result.release, team.files())
    manifest = read_manifest(team.bucket.get("sales/metadata.json"), "sales")
    assert manifest is not None
    assert manifest.dags == ("sales_daily", "sales_hourly")
    assert (manifest.published_by, manifest.activated_by) == ("ana@laptop", "ana@laptop")
    assert manifest.tool.startswith("airflow-dag-publisher/")
    for file in manifest.files:
        head = team.bucket.client.head_object(
            Bucket=team.bucket.name, Key=f"dev/sales/{file.path}", ChecksumMode="ENABLED"
        )
        assert (head["VersionId"], head["ETag"].strip('"')) == (file.version_id, file.etag)
        assert head["ChecksumSHA256"]


def test_only_what_changed_is_uploaded_and_the_rest_keeps_its_version(team: Team) -> None:
    for number in range(5):
        team.write(f"job{number}")
    team.publish()
    before = read_manifest(team.bucket.get("sales/metadata.json"), "sales")
    team.write("job3", note="new")
    team.write("more")
    team.remove("job4")
    result = team.publish()
    after = read_manifest(team.bucket.get("sales/metadata.json"), "sales")
    assert before is not None
    assert after is not None
    assert result.uploaded == ["dags/sales_job3.py", "dags/sales_more.py"]
    assert (result.reused, result.deleted) == (4, ["dags/sales_job4.py"])
    kept = {file.path: file.version_id for file in before.files}
    assert {
        f.path: f.version_id for f in after.files if f.path not in result.uploaded
    }.items() <= kept.items()
    assert after.replaces == before.release
    assert team.bucket.visible("sales") == (result.release, team.files())
    assert team.bucket.paths() == {f"sales/{path}" for path in team.files()} | {"sales/metadata.json"}


def test_same_content_again_writes_nothing(team: Team) -> None:
    first = team.publish()
    before = team.bucket.everything()
    result = team.publish()
    assert (result.outcome, result.release) == ("unchanged", first.release)
    assert team.bucket.everything() == before


def test_dry_run_shows_the_plan_and_writes_nothing(team: Team) -> None:
    team.publish()
    team.write("daily", note="new")
    team.write("more")
    before = team.bucket.everything()
    result = team.publish(dry_run=True)
    assert (result.outcome, result.uploaded) == ("planned", ["dags/sales_daily.py", "dags/sales_more.py"])
    assert team.bucket.everything() == before


def test_drift_of_the_same_release_is_healed(team: Team) -> None:
    team.write("hourly")
    first = team.publish()
    team.bucket.put("sales/dags/sales_daily.py", "overwritten by hand")
    team.bucket.put("sales/dags/stray.py", "x")
    drift = read_catalog(team.bucket.store()).package("sales").drift
    assert (drift.changed, drift.extra) == (("dags/sales_daily.py",), ("dags/stray.py",))
    # Whoever follows the manifest never saw it.
    assert team.bucket.visible("sales") == (first.release, team.files())
    result = team.publish()
    assert (result.outcome, result.uploaded) == ("published", ["dags/sales_daily.py"])
    assert not read_catalog(team.bucket.store()).package("sales").drift
    assert team.bucket.get("sales/dags/sales_daily.py") == team.files()["dags/sales_daily.py"]


def test_leftovers_alone_are_removed_without_a_new_release(team: Team) -> None:
    first = team.publish()
    team.bucket.put("sales/dags/stray.py", "x")
    manifest = team.bucket.get("sales/metadata.json")
    result = team.publish()
    assert (result.outcome, result.release, result.deleted) == ("healed", first.release, ["dags/stray.py"])
    assert team.bucket.get("sales/metadata.json") == manifest


def test_version_that_was_deleted_under_the_manifest_is_uploaded_again(team: Team) -> None:
    team.publish()
    manifest = read_manifest(team.bucket.get("sales/metadata.json"), "sales")
    assert manifest is not None
    (file,) = manifest.files
    content = team.files()[file.path]
    team.bucket.put(f"sales/{file.path}", content)  # same content, another version
    team.bucket.client.delete_object(
        Bucket=team.bucket.name, Key=f"dev/sales/{file.path}", VersionId=file.version_id
    )
    assert team.publish().uploaded == [file.path]
    assert team.bucket.visible("sales") is not None


def test_manifest_that_lies_is_replaced(team: Team) -> None:
    team.bucket.put("sales/metadata.json", '{"format": "airbridge.release/1", "package": "crm"}')
    result = team.publish()
    assert any("no manifest" in text for text in result.warnings)
    assert team.bucket.visible("sales") == (result.release, team.files())


def test_files_without_a_release_are_not_hidden_by_accident(team: Team) -> None:
    team.bucket.put("sales/dags/old.py", "x")
    before = team.bucket.everything()
    with pytest.raises(RefusedError, match=r"old\.py.*would disappear"):
        team.publish()
    assert team.bucket.everything() == before
    assert team.publish(take_over=True).deleted == ["dags/old.py"]
    assert "sales/dags/old.py" not in team.bucket.paths()
    # What lay there is a release now.
    rollback(team.bucket.store(), "sales", None, activated_by="bob")
    visible = team.bucket.visible("sales")
    assert visible is not None
    assert visible[1] == {"dags/old.py": b"x"}


def test_files_that_were_copied_there_become_a_release_as_they_are(team: Team) -> None:
    (path,) = team.files()
    team.bucket.put(f"sales/{path}", team.files()[path])
    team.bucket.put("sales/metadata.json", '{"owner": "somebody else\'s JSON"}')
    before = team.bucket.everything()
    result = team.publish()
    assert (result.outcome, result.uploaded) == ("published", [])
    assert team.bucket.visible("sales") == (result.release, team.files())
    assert {key for key, _, _ in team.bucket.everything() - before} == {"dev/sales/metadata.json"}


def test_bucket_without_versions_is_published_to_with_a_warning(s3_url: str, team: Team) -> None:
    team.bucket = Bucket(s3_url, versioned=False)
    result = team.publish()
    assert any("no rollback" in text for text in result.warnings)
    assert team.publish().outcome == "unchanged"
    team.write("daily", note="new")
    team.publish()
    with pytest.raises(RefusedError):
        rollback(team.bucket.store(), "sales", None, activated_by="x")


def test_many_files_are_published_whole(team: Team) -> None:
    for number in range(300):
        team.write(f"job{number}")
    result = team.publish()
    assert len(result.uploaded) == 301
    visible = team.bucket.visible("sales")
    assert visible == (result.release, team.files())
    assert team.publish().outcome == "unchanged"


def test_publish_from_a_program(team: Team) -> None:
    result = publish_folder(
        "sales", team.folder, dag_bucket=team.bucket.name, s3_endpoint_url=team.bucket.url, environment="dev"
    )
    assert team.bucket.visible("sales") == (result.release, team.files())


# --- refused -------------------------------------------------------------------------------------------
def _link(team: Team) -> None:
    (team.folder / "sales_link.py").symlink_to("/etc/passwd")


def _pipe(team: Team) -> None:
    import os

    os.mkfifo(team.folder / "sales_pipe.py")


def _huge(team: Team) -> None:
    (team.folder / "sales_huge.py").write_bytes(b"#" * (2 * 1024 * 1024))


def _too_many(team: Team) -> None:
    for number in range(MAX_FILES + 1):
        (team.folder / f"sales_{number}.sql").touch()


def _not_utf_8(team: Team) -> None:
    (team.folder / "sales_latin.py").write_bytes(b"x = '\xe9'\n")


def _syntax(team: Team) -> None:
    (team.folder / "sales_bad.py").write_text("def\n")


def _traversal(team: Team) -> None:
    (team.folder / "..\\..\\crm\\dags\\x.py").write_text("x = 1\n")


def _control(team: Team) -> None:
    (team.folder / "sales\n.py").write_text("x = 1\n")


def _own_twice(team: Team) -> None:
    (team.folder / "sales_twin.py").write_text(dag_file("sales", "daily"))


def _foreign_dag(team: Team) -> None:
    (team.folder / "sales_crm.py").write_text(dag_file("crm", "hourly"))


def _foreign_file(team: Team) -> None:
    (team.folder / "crm_hourly.py").write_text("x = 1\n")


def _package_code(team: Team) -> None:
    (team.folder / "sales_code.py").write_text("from sales.jobs import load\n")


def _network(team: Team) -> None:
    (team.folder / "sales_net.py").write_text("import socket\nsocket.create_connection(('x', 1))\n")


def _nothing(team: Team) -> None:
    team.remove("daily")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_link, "ABP102"),
        (_pipe, "ABP102"),
        (_huge, "ABP105"),
        (_too_many, "ABP106"),
        (_not_utf_8, "ABP201"),
        (_syntax, "ABP202"),
        (_traversal, "ABP101"),
        (_control, "ABP101"),
        (_own_twice, "ABP204"),
        (_foreign_dag, "ABP205"),
        (_foreign_file, "ABP108"),
        (_package_code, "ABP302"),
        (_network, "ABP402"),
        (_nothing, "ABP107"),
    ],
)
def test_refused_release_leaves_the_bucket_untouched(
    team: Team, other_team: Team, spoil: Any, code: str
) -> None:
    other_team.publish()
    team.publish()
    before = team.bucket.everything()
    spoil(team)
    with pytest.raises(InvalidReleaseError) as caught:
        team.publish()
    assert code in {found.code for found in caught.value.validation.errors}
    assert caught.value.exit_code == 1
    assert team.bucket.everything() == before


def test_names_of_a_package_without_a_manifest_are_taken_too(team: Team) -> None:
    team.bucket.put("plain/dags/plain_x.py", dag_file("sales", "daily"))
    with pytest.raises(InvalidReleaseError, match="belongs to the package 'plain'"):
        team.publish()


def test_name_is_free_again_when_its_package_has_let_it_go(team: Team, other_team: Team) -> None:
    (other_team.folder / "crm_more.py").write_text(dag_file("crm", "more"))
    other_team.publish()
    (other_team.folder / "crm_more.py").unlink()
    other_team.publish()
    (team.folder / "crm_more.py").write_text("x = 1\n")
    assert team.publish().outcome == "published"


def test_bucket_that_is_not_there_is_named(team: Team) -> None:
    team.bucket.name = "no-such-bucket-here"
    with pytest.raises(RefusedError, match="DAG_BUCKET=no-such-bucket-here does not exist"):
        team.publish()


# --- clocks --------------------------------------------------------------------------------------------
def off_by(**delta: float) -> Any:
    return lambda: datetime.now(UTC) + timedelta(**delta)


def test_clock_that_is_far_off_is_refused_and_nothing_written(team: Team) -> None:
    for store in (team.bucket.store(clock=off_by(hours=1)), team.bucket.store(clock=off_by(hours=-1))):
        with pytest.raises(RefusedError, match=r"clock is 3\d\d\d s (ahead|behind)"):
            team.publish(store)
    assert team.bucket.everything() == set()


def test_clock_that_is_a_little_off_is_a_warning(team: Team) -> None:
    result = team.publish(team.bucket.store(clock=off_by(minutes=-2)))
    assert any("behind" in text for text in result.warnings)


def test_releases_stay_in_order_whatever_the_clock_says(team: Team) -> None:
    first = team.publish(team.bucket.store(clock=off_by(minutes=4)))
    team.write("daily", note="new")
    second = team.publish(team.bucket.store(clock=off_by(minutes=-4)))
    assert first.release is not None
    assert second.release is not None
    assert first.release < second.release


# --- two at once ---------------------------------------------------------------------------------------
def test_of_publishes_at_once_one_wins_whole_and_the_others_are_told(team: Team, tmp_path: Path) -> None:
    team.publish()
    rivals = []
    for number in range(4):
        rival = Team(team.bucket, tmp_path / f"rival{number}")
        rival.write("daily", note=f"by {number}")
        rival.write(f"own{number}")
        rivals.append(rival)
    start = threading.Barrier(len(rivals))

    def go(rival: Team) -> str | AirbridgeError:
        def at_the_line(stage: str, _done: int, _total: int) -> None:
            if stage == "writing the manifest":
                start.wait(60)

        try:
            return rival.publish(progress=at_the_line).release or ""
        except AirbridgeError as error:
            return error

    for _ in range(3):
        for rival in rivals:
            rival.write("daily", note=f"{rival.folder.name} {datetime.now(UTC)}")
        with ThreadPoolExecutor(len(rivals)) as pool:
            outcomes = list(pool.map(go, rivals))
        winners = [(o, r) for o, r in zip(outcomes, rivals, strict=True) if isinstance(o, str)]
        losers = [o for o in outcomes if not isinstance(o, str)]
        assert len(winners) == 1
        assert all(isinstance(o, RefusedError) and o.exit_code == 4 for o in losers)
        assert all("came first" in str(o) for o in losers)
        release, winner = winners[0]
        assert team.bucket.visible("sales") == (release, winner.files())


def test_of_first_publishes_at_once_one_wins_whole(team: Team, tmp_path: Path) -> None:
    rivals = []
    for number in range(6):
        rival = Team(team.bucket, tmp_path / f"rival{number}")
        rival.write(f"own{number}")
        rivals.append(rival)
    start = threading.Barrier(len(rivals))

    def go(rival: Team) -> str | AirbridgeError:
        start.wait(60)
        try:
            return rival.publish().release or ""
        except AirbridgeError as error:
            return error

    with ThreadPoolExecutor(len(rivals)) as pool:
        outcomes = list(pool.map(go, rivals))
    assert all(isinstance(o, str | RefusedError) for o in outcomes)
    # One after the other is right too: the last one that won is what is seen.
    won = {o: rival.files() for o, rival in zip(outcomes, rivals, strict=True) if isinstance(o, str)}
    assert won
    last = max(won)
    assert team.bucket.visible("sales") == (last, won[last])


def test_loser_is_told_however_large_the_release_that_won(team: Team, tmp_path: Path) -> None:
    team.publish()
    team.write("daily", note="new")
    rival = Team(team.bucket, tmp_path / "rival")
    for number in range(40):
        rival.write(f"job{number}")
    store = team.bucket.store()

    def publish_meanwhile(params: dict[str, Any], **_: object) -> None:
        if params.get("Key", "").endswith("metadata.json"):
            rival.publish()

    store.client.meta.events.register("provide-client-params.s3.PutObject", publish_meanwhile)
    with pytest.raises(RefusedError, match="came first"):
        team.publish(store)
    visible = team.bucket.visible("sales")
    assert visible is not None
    assert visible[1] == rival.files()


def test_answer_that_got_lost_is_no_lost_race(team: Team) -> None:
    """The manifest was written, the answer was cut off, and the retry finds what it wrote itself."""
    store = team.bucket.store()
    cut = []

    def cut_off(params: dict[str, Any], **_: object) -> None:
        if params.get("Key", "").endswith("metadata.json") and not cut:
            cut.append(True)
            team.bucket.client.put_object(
                Bucket=team.bucket.name,
                Key=params["Key"],
                Body=params["Body"],
                ContentType="application/json",
            )

    store.client.meta.events.register("provide-client-params.s3.PutObject", cut_off)
    result = team.publish(store)
    assert cut
    assert team.bucket.visible("sales") == (result.release, team.files())


# --- roll back -----------------------------------------------------------------------------------------
def publish_notes(team: Team, *notes: str) -> list[tuple[str, dict[str, bytes]]]:
    made = []
    for note in notes:
        team.write("daily", note=note)
        made.append((team.publish().release or "", team.files()))
    return made


def test_rollback_is_one_write_and_shows_exactly_the_earlier_release(team: Team) -> None:
    first, second = publish_notes(team, "one", "two")
    before = team.bucket.everything()
    result = rollback(team.bucket.store(), "sales", first[0], activated_by="bob")
    assert (result.outcome, result.release, result.replaces) == ("rolled back", first[0], second[0])
    assert team.bucket.visible("sales") == first
    new = {row[:2] for row in team.bucket.everything()} - {row[:2] for row in before}
    assert [key for key, _ in new] == ["dev/sales/metadata.json"]
    manifest = read_manifest(team.bucket.get("sales/metadata.json"), "sales")
    assert manifest is not None
    assert (manifest.published_by, manifest.activated_by, manifest.replaces) == (
        "ana@laptop",
        "bob",
        second[0],
    )
    assert manifest.activated_at > manifest.published_at


def test_rollback_to_previous_goes_back_one_more_each_time(team: Team) -> None:
    made = publish_notes(team, "one", "two", "three")
    store = team.bucket.store()
    for expected in (made[1], made[0]):
        rollback(store, "sales", None, activated_by="bob")
        assert team.bucket.visible("sales") == expected
    with pytest.raises(RefusedError, match="no release before"):
        rollback(store, "sales", None, activated_by="bob")
    # And forward again, by the end of its id.
    rollback(store, "sales", made[2][0][-6:], activated_by="bob")
    assert team.bucket.visible("sales") == made[2]


def test_publish_after_a_rollback_heals_the_keys(team: Team) -> None:
    first, _ = publish_notes(team, "one", "two")
    rollback(team.bucket.store(), "sales", first[0], activated_by="bob")
    assert read_catalog(team.bucket.store()).package("sales").drift.changed == ("dags/sales_daily.py",)
    team.write("daily", note="three")
    team.publish()
    assert not read_catalog(team.bucket.store()).package("sales").drift


def test_rollback_to_the_current_release_writes_nothing(team: Team) -> None:
    (only,) = publish_notes(team, "one")
    before = team.bucket.everything()
    assert rollback(team.bucket.store(), "sales", only[0], activated_by="bob").outcome == "unchanged"
    assert team.bucket.everything() == before


def test_rollback_to_a_release_that_is_not_whole_is_refused(team: Team) -> None:
    first, _ = publish_notes(team, "one", "two")
    manifest = find_release(team.bucket.store(), "sales", first[0]).manifest
    team.bucket.client.delete_object(
        Bucket=team.bucket.name,
        Key="dev/sales/dags/sales_daily.py",
        VersionId=manifest.files[0].version_id,
    )
    before = team.bucket.everything()
    with pytest.raises(
        RefusedError, match=r"not whole any more: 1 of its 1 files are gone \(dags/sales_daily"
    ):
        rollback(team.bucket.store(), "sales", first[0], activated_by="bob")
    assert team.bucket.everything() == before


def test_rollback_onto_a_name_that_another_package_took_is_refused(team: Team, other_team: Team) -> None:
    (team.folder / "sales_crm.py").write_text(dag_file("sales", "shared"))
    first = team.publish().release
    (team.folder / "sales_crm.py").unlink()
    team.publish()
    other_team.bucket.put("plain/dags/plain.py", dag_file("sales", "shared"))
    before = team.bucket.everything()
    with pytest.raises(RefusedError, match=r"DAG id sales_shared \(plain\)"):
        rollback(team.bucket.store(), "sales", first, activated_by="bob")
    assert team.bucket.everything() == before


def test_rollback_to_what_is_not_there_is_refused(team: Team) -> None:
    with pytest.raises(RefusedError, match="there is no package"):
        rollback(team.bucket.store(), "sales", None, activated_by="bob")
    made = publish_notes(team, "one", "two")
    with pytest.raises(RefusedError, match="no release 'nonsense'"):
        rollback(team.bucket.store(), "sales", "nonsense", activated_by="bob")
    with pytest.raises(RefusedError, match="2 releases"):
        rollback(team.bucket.store(), "sales", made[0][0][:4], activated_by="bob")


def test_rollback_that_meets_a_publish_is_told(team: Team) -> None:
    publish_notes(team, "one", "two")
    store = team.bucket.store()

    def publish_meanwhile(params: dict[str, Any], **_: object) -> None:
        if params.get("Key", "").endswith("metadata.json"):
            team.write("daily", note="three")
            team.publish()

    store.client.meta.events.register("provide-client-params.s3.PutObject", publish_meanwhile)
    with pytest.raises(RefusedError, match="came first"):
        rollback(store, "sales", None, activated_by="bob")
    visible = team.bucket.visible("sales")
    assert visible is not None
    assert visible[1] == team.files()


def test_history_names_each_release_once_and_the_current_one(team: Team) -> None:
    made = publish_notes(team, "one", "two", "three")
    rollback(team.bucket.store(), "sales", made[0][0], activated_by="bob")
    found = list(releases(team.bucket.store(), "sales"))
    assert sorted(item.manifest.release for item in found) == sorted(release for release, _ in made)
    assert [item.manifest.release for item in found if item.current] == [made[0][0]]


# --- the commands --------------------------------------------------------------------------------------
def test_commands_from_an_empty_folder_to_a_rollback(bucket: Bucket, tmp_path: Path) -> None:
    folder = str(tmp_path / "dags")
    flags = ("--package-name", "sales")
    output = str(tmp_path / "dags/sales_load.py")
    generate = ("generate", *flags, "--job-name", "load", "--template", "python", "--output", output)
    assert command(bucket, *generate).returncode == 0
    planned = as_json(bucket, "publish", *flags, "--dag-path", folder, "--dry-run")
    assert (planned["outcome"], planned["uploaded"]) == ("planned", ["dags/sales_load.py"])
    first = as_json(bucket, "publish", "sales", "--dag-path", folder)
    assert (first["outcome"], first["dags"]) == ("published", ["sales_load"])
    assert command(bucket, *generate, "--queue", "plant-7").returncode == 0
    changed = as_json(bucket, "diff", *flags, "--dag-path", folder)
    assert changed["files"] == [
        {"path": "dags/sales_load.py", "change": "changed", "added_lines": 2, "removed_lines": 2}
    ]
    text = command(bucket, "diff", *flags, "--dag-path", folder).stdout
    assert '-        queue="default",\n+        queue="plant-7",\n' in text
    second = as_json(bucket, "publish", "sales", "--dag-path", folder)
    assert second["replaces"] == first["release"]
    assert as_json(bucket, "diff", "previous", *flags)["files"] == changed["files"]
    (row,) = as_json(bucket, "list")["packages"]
    assert (row["release"], row["files"], row["dags"]) == (second["release"], 1, ["sales_load"])
    back = as_json(bucket, "rollback", "--to-previous", *flags)
    assert (back["outcome"], back["release"]) == ("rolled back", first["release"])
    history = as_json(bucket, "list", "sales")["releases"]
    assert {item["release"]: item["current"] for item in history} == {
        first["release"]: True,
        second["release"]: False,
    }
    shown = command(bucket, "list").stdout
    assert first["release"] in shown
    assert "1 changed" in shown


def test_command_that_loses_says_so_with_exit_code_4(team: Team) -> None:
    team.bucket.put("sales/dags/stranger.py", "x")
    done = command(team.bucket, "publish", "sales", "--dag-path", str(team.folder))
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("error: sales has no manifest but 1 files")


def test_plain_progress_lines_go_to_standard_error(team: Team) -> None:
    done = command(team.bucket, "publish", "sales", "--dag-path", str(team.folder))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "reading the bucket",
        "validating",
        "uploading (0/1)",
        "uploading (1/1)",
        "writing the manifest",
    ]
    assert "is current; 1 files uploaded" in done.stdout
