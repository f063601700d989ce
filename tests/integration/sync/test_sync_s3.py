"""dag-sync against the project's own S3 service: what a publisher does there is what readers see."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

from sync_stack import DagSync, eventually

from airbridge.sync.store import current_tree, name_tree

if TYPE_CHECKING:
    import pytest
    from sync_stack import DagBucket

MIB = 1 << 20


def test_puts_edits_and_deletions_arrive(bucket: DagBucket, dag_sync: DagSync) -> None:
    assert dag_sync.seen() == {}
    bucket.put("etl/dags/a.py", "x = 1\n")
    bucket.put("etl/dags/sub/ü b.py", "y = 1\n")
    bucket.put("etl/metadata.json", "{}")
    bucket.put("etl/notes.txt", "not ours")
    dag_sync.shows(
        {"etl/dags/a.py": b"x = 1\n", "etl/dags/sub/ü b.py": b"y = 1\n", "etl/metadata.json": b"{}"}
    )
    bucket.delete("etl/metadata.json")
    bucket.delete("etl/dags/sub/ü b.py")
    dag_sync.shows({"etl/dags/a.py": b"x = 1\n"})


def test_many_edits_of_equal_size_in_one_second_end_at_the_last(bucket: DagBucket, dag_sync: DagSync) -> None:
    for number in range(10, 40):
        bucket.put("etl/dags/a.py", f"x = {number}\n")
    dag_sync.shows({"etl/dags/a.py": b"x = 39\n"})


def test_a_deleted_object_comes_back_when_its_delete_marker_is_removed(
    bucket: DagBucket, dag_sync: DagSync
) -> None:
    bucket.put("etl/dags/a.py", "one")
    dag_sync.shows({"etl/dags/a.py": b"one"})
    bucket.delete("etl/dags/a.py")
    dag_sync.shows({})
    marker = bucket.client.list_object_versions(Bucket=bucket.name)["DeleteMarkers"][0]["VersionId"]
    bucket.client.delete_object(Bucket=bucket.name, Key="dev/etl/dags/a.py", VersionId=marker)
    dag_sync.shows({"etl/dags/a.py": b"one"})


def test_an_older_version_restored_is_shown(bucket: DagBucket, dag_sync: DagSync) -> None:
    bucket.put("etl/dags/a.py", "one")
    bucket.put("etl/dags/a.py", "two")
    dag_sync.shows({"etl/dags/a.py": b"two"})
    newest, oldest = bucket.versions("etl/dags/a.py")
    bucket.client.delete_object(Bucket=bucket.name, Key="dev/etl/dags/a.py", VersionId=newest)
    dag_sync.shows({"etl/dags/a.py": b"one"})
    assert bucket.versions("etl/dags/a.py") == [oldest]


def multipart(bucket: DagBucket, path: str, parts: list[bytes]) -> str:
    """Upload in parts and return the ETag, which is no MD5 of the content."""
    where = {"Bucket": bucket.name, "Key": f"dev/{path}"}
    upload = bucket.client.create_multipart_upload(**where)["UploadId"]
    done = [
        {
            "PartNumber": number,
            "ETag": bucket.client.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate(parts, 1)
    ]
    answer = bucket.client.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload={"Parts": done}
    )
    return str(answer["ETag"]).strip('"')


def test_a_multipart_object_and_its_edit_of_equal_size_arrive_whole(
    bucket: DagBucket, dag_sync: DagSync
) -> None:
    first, second = b"#" * (5 * MIB) + b"x = 1\n", b"#" * (5 * MIB) + b"x = 2\n"
    etag = multipart(bucket, "etl/dags/big.py", [first[: 5 * MIB], first[5 * MIB :]])
    assert etag.endswith("-2")
    dag_sync.shows({"etl/dags/big.py": first})
    multipart(bucket, "etl/dags/big.py", [second[: 5 * MIB], second[5 * MIB :]])
    dag_sync.shows({"etl/dags/big.py": second})


def test_one_edit_among_many_files_moves_one_file_and_an_idle_bucket_none(
    bucket: DagBucket, dag_sync: DagSync
) -> None:
    contents = {f"p{n % 7}/dags/f{n}.py": f"n = {n}\n".encode() for n in range(120)}
    for path, data in contents.items():
        bucket.put(path, data)
    dag_sync.shows(contents)
    before = len(dag_sync.log("transferred"))
    time.sleep(1)  # five polls
    assert len(dag_sync.log("transferred")) == before
    bucket.put("p3/dags/f3.py", "n = 'new'\n")
    dag_sync.shows(contents | {"p3/dags/f3.py": b"n = 'new'\n"})
    (transfer,) = dag_sync.log("transferred")[before:]
    assert (transfer["files"], transfer["bytes"]) == (1, 10)


def test_a_reader_sees_only_whole_trees_while_a_publisher_writes_without_pause(
    bucket: DagBucket, dag_sync: DagSync
) -> None:
    stop = threading.Event()
    wrong: list[str] = []
    trees: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            tree = current_tree(dag_sync.store)
            if tree is None:
                wrong.append("no tree")
                continue
            files = [
                (file.relative_to(tree.path).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest())
                for file in tree.path.rglob("*")
                if file.is_file()
            ]
            trees.add(tree.hash)
            if name_tree(files) != tree.hash:
                wrong.append(tree.hash)

    reader = threading.Thread(target=read)
    reader.start()
    final = {}
    for generation in range(60):
        for package in ("one", "two", "three"):
            path, data = f"{package}/dags/f{generation % 5}.py", f"generation = {generation}\n".encode()
            bucket.put(path, data)
            final[path] = data
        if generation % 7 == 0:
            bucket.delete("one/dags/f0.py")
            final.pop("one/dags/f0.py", None)
    dag_sync.shows(final)
    stop.set()
    reader.join()
    assert wrong == []
    assert len(trees) >= 2


def test_two_hosts_name_the_same_bucket_alike(
    bucket: DagBucket, dag_sync: DagSync, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bucket.put("etl/dags/a.py", "one")
    dag_sync.shows({"etl/dags/a.py": b"one"})
    bucket.put("etl/dags/a.py", "two")
    dag_sync.shows({"etl/dags/a.py": b"two"})
    edge = DagSync(bucket.environment(), tmp_path_factory.mktemp("edge"))
    try:
        eventually(edge.healthy)
        here, there = current_tree(edge.store), current_tree(dag_sync.store)
        assert here is not None
        assert there is not None
        assert here.hash == there.hash
    finally:
        edge.stop()


def test_a_bucket_that_is_deleted_leaves_the_store_as_it_was_and_is_named(
    bucket: DagBucket, dag_sync: DagSync
) -> None:
    bucket.put("etl/dags/a.py", "one")
    dag_sync.shows({"etl/dags/a.py": b"one"})
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})
    for version in bucket.versions("etl/dags/a.py"):
        bucket.client.delete_object(Bucket=bucket.name, Key="dev/etl/dags/a.py", VersionId=version)
    dag_sync.shows({})
    bucket.client.delete_bucket(Bucket=bucket.name)
    eventually(lambda: dag_sync.log("sync failed"))
    assert f"DAG_BUCKET={bucket.name} does not exist" in dag_sync.log("sync failed")[0]["reason"]
    bucket.client.create_bucket(Bucket=bucket.name)
    bucket.put("etl/dags/b.py", "back")
    dag_sync.shows({"etl/dags/b.py": b"back"})
