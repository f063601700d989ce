"""Memory and disk stay the same: whatever happens, a fresh start shows what was acknowledged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from s3_model import ACCOUNT, DEFAULT_ENCRYPTION, MODEL, S3, Bucket, Object

from airbridge.errors import AirbridgeError, IntegrityError
from airbridge.localstack._errors import BucketGoneError, StorageFullError, UploadGoneError
from airbridge.localstack._keystores import UnversionedStore, VersionedStore


class DiskBroken(Exception):
    """Raised by a test inside a request."""


def reopened(s3: S3, root: Path) -> S3:
    s3.close()
    return S3(root)


def test_objects_versions_tags_and_uploads_survive_a_restart(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("plain")
    s3.create_bucket("versioned")
    s3.set_versioning("versioned", "Enabled")
    s3.put("plain", "a", b"one", tags={"team": "x"})
    s3.put("plain", "a", b"two")
    first = s3.put("versioned", "k", b"v1")
    s3.put("versioned", "k", b"v2")
    s3.delete("versioned", "k")
    upload = s3.start_upload("versioned", "big")
    s3.upload_part("versioned", upload, 1, b"part one ")
    s3.upload_part("versioned", upload, 2, b"to be replaced")
    s3.upload_part("versioned", upload, 2, b"part two")
    before = s3.picture()
    s3 = reopened(s3, tmp_path)
    assert s3.picture() == before
    s3.complete_upload("versioned", upload)
    s3 = reopened(s3, tmp_path)
    assert s3.read_body(s3.bucket("versioned").objects.get("big")) == b"part one part two"
    assert s3.read_body(s3.bucket("versioned").objects.get("k", first)) == b"v1"
    assert s3.bucket("versioned").multiparts == {}
    assert s3.bucket("plain").encryption_rule is DEFAULT_ENCRYPTION
    s3.close()


def test_change_in_place_is_stored(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.put("b", "k", b"x")
    with s3.storage.request(exclusive=True) as changes:
        changes.buckets.add("b")
        s3.bucket("b").policy = "{}"
        s3.bucket("b").objects.get("k").acl = {"Grants": [{"Permission": "READ"}]}
    s3 = reopened(s3, tmp_path)
    assert s3.bucket("b").policy == "{}"
    assert s3.bucket("b").objects.get("k").acl == {"Grants": [{"Permission": "READ"}]}
    s3.close()


def test_body_files_are_those_of_the_stored_versions(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    for number in range(5):
        s3.put("b", "k", b"%d" % number)
    s3.put("b", "gone", b"x")
    s3.delete("b", "gone")
    s3 = reopened(s3, tmp_path)
    files = [path for path in (tmp_path / "bodies").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"4"]
    s3.close()


def test_failed_request_changes_nothing_in_memory_or_on_disk(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.create_bucket("c")
    s3.set_versioning("c", "Enabled")
    s3.put("b", "k", b"old", tags={"a": "1"})
    s3.put("c", "k", b"old")
    upload = s3.start_upload("c", "up")
    s3.upload_part("c", upload, 1, b"part")
    before = s3.picture()

    def fail() -> None:
        with s3.storage.request(exclusive=True) as changes:
            changes.buckets.update({"b", "c"})
            s3.bucket("b").objects.set("k", s3.new_object("b", "k", b"new"))
            s3.bucket("b").objects.set("fresh", s3.new_object("b", "fresh", b"new"))
            s3.bucket("b").policy = "{}"
            s3.memory.tags["b/k/null"] = {"a": "2"}
            s3.memory.fit("b", versioned=True)
            s3.bucket("b").versioning_status = "Enabled"
            s3.bucket("c").objects.set("k", s3.new_object("c", "k", b"new"))
            s3.bucket("c").multiparts.pop(upload)
            s3.memory.buckets(ACCOUNT).pop("c")
            s3.memory.buckets(ACCOUNT)["d"] = Bucket("d", ACCOUNT, "us-east-1", None)
            raise DiskBroken

    with pytest.raises(DiskBroken):
        fail()
    assert s3.picture() == before
    s3.put("b", "k", b"works")
    s3.put("c", "k", b"works")
    files = {path.read_bytes() for path in (tmp_path / "bodies").rglob("*") if path.is_file()}
    assert b"new" not in files
    after = s3.picture()
    s3 = reopened(s3, tmp_path)
    assert s3.picture() == after
    s3.close()


def test_write_that_the_database_refuses_is_undone(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.put("b", "k", b"old")
    before = s3.picture()
    database = s3.storage._database
    database.pragma(f"max_page_count = {database.pragma('page_count')}")

    def fill() -> None:
        for number in range(1000):
            s3.put("b", f"key-{number:04}-{'x' * 200}", b"x")

    with pytest.raises(StorageFullError):
        fill()
    written = set(s3.picture()["b"][2]) - {"k"}
    assert s3.read_body(s3.bucket("b").objects.get("k")) == b"old"
    s3 = reopened(s3, tmp_path)
    assert set(s3.picture()["b"][2]) - {"k"} == written
    assert s3.picture()["b"][2]["k"] == before["b"][2]["k"]
    s3.close()


def test_process_ends_when_memory_cannot_be_made_equal_to_the_disk(tmp_path: Path) -> None:
    given_up: list[bool] = []
    s3 = S3(tmp_path, give_up=lambda: given_up.append(True))
    s3.create_bucket("b")

    def fail() -> None:
        with s3.storage.request(exclusive=True):
            s3.bucket("b").objects.set("k", Object("k"))
            s3.storage._database._connection.close()

    with pytest.raises(Exception, match="closed"):
        fail()
    assert given_up == [True]


def test_change_outside_of_a_request_is_a_programming_error(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    with pytest.raises(RuntimeError, match="outside of a request"):
        s3.bucket("b").objects.set("k", Object("k"))
    s3.close()


def test_late_writers_meet_the_store_that_took_over(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    store = s3.bucket("b").objects
    late_object = s3.new_object("b", "k", b"late")
    s3.set_versioning("b", "Enabled")
    with s3.storage.request(exclusive=False):
        store.set("k", late_object)
    assert isinstance(store, UnversionedStore)
    assert isinstance(s3.bucket("b").objects, VersionedStore)
    s3 = reopened(s3, tmp_path)
    assert s3.bucket("b").objects.get("k").version_id == "null"
    s3.close()


def test_late_writers_to_deleted_buckets_and_uploads_are_refused(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.create_bucket("c")
    store = s3.bucket("b").objects
    uploads = s3.bucket("c").multiparts
    first, second = s3.start_upload("c", "k"), s3.start_upload("c", "k")
    parts, orphan = uploads[first].parts, uploads[second].parts
    s3.complete_upload("c", first)
    s3.delete_bucket("b")

    def late(action: Any) -> None:
        with s3.storage.request(exclusive=False):
            action()

    with pytest.raises(BucketGoneError):
        late(lambda: store.set("k", Object("k")))
    with pytest.raises(UploadGoneError):
        late(lambda: parts.__setitem__(1, object()))
    s3.delete("c", "k")
    s3.delete_bucket("c")
    with pytest.raises(UploadGoneError):
        late(lambda: orphan.__setitem__(1, object()))
    s3 = reopened(s3, tmp_path)
    assert s3.picture() == {"tags": {}, "owners": {}}
    s3.close()


def test_deleting_a_bucket_removes_the_parts_of_its_uploads(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.upload_part("b", s3.start_upload("b", "k"), 1, b"x")
    s3.delete_bucket("b")
    s3.close()
    assert [path for path in (tmp_path / "bodies").rglob("*") if path.is_file()] == []


def test_null_version_that_is_written_again_is_the_newest(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.put("b", "k", b"before versioning")
    s3.set_versioning("b", "Enabled")
    s3.put("b", "k", b"a version")
    s3.set_versioning("b", "Suspended")
    s3.put("b", "k", b"null again")
    assert s3.read_body(s3.bucket("b").objects.get("k")) == b"null again"
    s3 = reopened(s3, tmp_path)
    assert s3.read_body(s3.bucket("b").objects.get("k")) == b"null again"
    assert [version.is_current for version in s3.bucket("b").objects.values(with_versions=True)] == [
        False,
        True,
    ]
    s3.close()


def test_writers_on_many_threads_lose_nothing(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.set_versioning("b", "Enabled")
    acknowledged: list[tuple[str, str | None, bytes]] = []
    errors: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for number in range(15):
                key, body = f"k{number % 3}", b"%d-%d" % (worker, number)
                acknowledged.append((key, s3.put("b", key, body), body))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    s3 = reopened(s3, tmp_path)
    store = s3.bucket("b").objects
    assert len(store.values(with_versions=True)) == len(acknowledged) == 60
    for key, version_id, body in acknowledged:
        assert s3.read_body(store.get(key, version_id)) == body
    s3.close()


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("meanwhile", ["replaced", "deleted"])
def test_condition_is_asked_of_what_is_there_when_the_write_takes_its_turn(
    tmp_path: Path, versioned: bool, meanwhile: str
) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    if versioned:
        s3.set_versioning("b", "Enabled")
    s3.put("b", "k", b"expected")
    expected = s3.bucket("b").objects.get("k")
    asked: list[Any] = []

    def condition(existing: Any) -> None:
        asked.append(existing)
        if existing is not expected:
            raise DiskBroken

    def between() -> None:
        if meanwhile == "replaced":
            s3.put("b", "k", b"somebody else's")
        else:
            s3.delete("b", "k")

    before: dict[str, Any] = {}

    def write() -> None:
        with s3.storage.request(exclusive=False) as changes:
            changes.condition = condition
            mine = s3.new_object("b", "k", b"mine")
            other = threading.Thread(target=between)
            other.start()  # after the check that LocalStack made, before the change
            other.join()
            before.update(s3.picture())
            s3.bucket("b").objects.set("k", mine)

    with pytest.raises(DiskBroken):
        write()
    assert asked[0] is not expected
    assert (asked[0] is None) == (meanwhile == "deleted")
    assert s3.picture() == before
    s3.close()


def test_directory_that_is_not_writable_is_refused_in_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(AirbridgeError, match=r"is not writable: .* \| fix: mount a volume") as caught:
        S3(blocked / "data")
    assert "\n" not in str(caught.value)


def test_unreadable_row_is_named(tmp_path: Path) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.put("b", "k", b"x")
    with s3.storage._database.transaction():
        s3.storage._database._connection.execute("UPDATE version SET state = '{'")
    s3.close()
    with pytest.raises(IntegrityError, match=r"s3://b/k \(null\)"):
        S3(tmp_path)


def test_missing_body_is_reported_and_the_rest_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = S3(tmp_path)
    s3.create_bucket("b")
    s3.put("b", "lost", b"lost")
    s3.put("b", "kept", b"kept")
    s3.storage.bodies.discard(s3.bucket("b").objects.get("lost").durable_body)
    s3 = reopened(s3, tmp_path)
    assert "1 object bodies are missing" in caplog.text
    assert s3.read_body(s3.bucket("b").objects.get("kept")) == b"kept"
    s3.close()


_KILLS = 8
_WRITER = """
    import itertools
    import sys
    from pathlib import Path
    from s3_model import S3

    s3 = S3(Path(sys.argv[1]), grace_seconds=60.0)
    if s3.bucket("b") is None:
        s3.create_bucket("b")
        s3.set_versioning("b", "Enabled")
    for number in itertools.count(int(sys.argv[2])):
        version = s3.put("b", f"k{number % 4}", b"body %d" % number, tags={"n": str(number)})
        print(number, version, flush=True)
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """Kill -9 in the middle of a write, again and again, each time after another number of writes."""
    acknowledged: dict[int, str] = {}
    for kills in range(_KILLS):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(_WRITER),
                str(tmp_path),
                str(len(acknowledged) + kills * 1000),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        )
        assert process.stdout is not None
        for _ in range(kills + 1):
            number, version = process.stdout.readline().split()
            acknowledged[int(number)] = version
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines():  # acknowledged while the signal was on its way
            number, version = line.split()
            acknowledged[int(number)] = version
        process.wait()
        process.stdout.close()
    s3 = S3(tmp_path)
    store = s3.bucket("b").objects
    for number, version in acknowledged.items():
        found = store.get(f"k{number % 4}", version)
        assert s3.read_body(found) == b"body %d" % number
        assert s3.memory.tags[f"b/k{number % 4}/{version}"] == {"n": str(number)}
    assert len(store.values(with_versions=True)) <= len(acknowledged) + _KILLS  # at most one in flight a kill
    s3.close()


class StorageMachine(RuleBasedStateMachine):
    """Random requests, some failing, compared with a plain list of versions and with a fresh start."""

    buckets = ("b1", "b2")

    @initialize()
    def start(self) -> None:
        # In memory where that is possible: what is tested here is not the disk.
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(prefix="airbridge-s3-", dir=memory if memory.is_dir() else None))
        self.s3 = S3(self.root)
        # bucket -> key -> [(version id, body or None for a delete marker)], oldest first
        self.expected: dict[str, dict[str, list[tuple[str | None, bytes | None]]]] = {}

    @rule(bucket=st.sampled_from(buckets))
    def create_or_delete_bucket(self, bucket: str) -> None:
        if bucket not in self.expected:
            self.s3.create_bucket(bucket)
            self.expected[bucket] = {}
        elif not self.expected[bucket]:
            self.s3.delete_bucket(bucket)
            del self.expected[bucket]

    def _status(self, bucket: str) -> str | None:
        status: str | None = self.s3.bucket(bucket).versioning_status
        return status

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), status=st.sampled_from(["Enabled", "Suspended"]))
    def change_versioning(self, data: st.DataObject, status: str) -> None:
        bucket = data.draw(st.sampled_from(sorted(self.expected)))
        if self._status(bucket) is None:
            for versions in self.expected[bucket].values():
                versions[:] = [("null", body) for _, body in versions]
        self.s3.set_versioning(bucket, status)

    def _place(self, bucket: str, key: str, version_id: str | None, body: bytes | None) -> None:
        versions = self.expected[bucket].setdefault(key, [])
        versions[:] = [item for item in versions if item[0] != version_id]
        versions.append((version_id, body))

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), key=st.sampled_from(["x", "y", "z"]), body=st.binary(max_size=20))
    def put(self, data: st.DataObject, key: str, body: bytes) -> None:
        bucket = data.draw(st.sampled_from(sorted(self.expected)))
        version_id = self.s3.put(bucket, key, body)
        self._place(bucket, key, version_id, body)

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), key=st.sampled_from(["x", "y", "z"]))
    def put_that_fails(self, data: st.DataObject, key: str) -> None:
        bucket = data.draw(st.sampled_from(sorted(self.expected)))

        def fail() -> None:
            with self.s3.storage.request(exclusive=False):
                self.s3.bucket(bucket).objects.set(key, self.s3.new_object(bucket, key, b"never"))
                raise DiskBroken

        with pytest.raises(DiskBroken):
            fail()

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), key=st.sampled_from(["x", "y", "z"]))
    def delete(self, data: st.DataObject, key: str) -> None:
        bucket = data.draw(st.sampled_from(sorted(self.expected)))
        self.s3.delete(bucket, key)
        if self._status(bucket) is None:
            self.expected[bucket].pop(key, None)
        else:
            self._place(bucket, key, self.s3.bucket(bucket).objects.get(key).version_id, None)

    @precondition(lambda self: any(self.expected.values()))
    @rule(data=st.data())
    def delete_version(self, data: st.DataObject) -> None:
        names = [(b, k) for b, keys in self.expected.items() for k in keys if self._status(b)]
        if not names:
            return
        bucket, key = data.draw(st.sampled_from(sorted(names)))
        versions = self.expected[bucket][key]
        victim = data.draw(st.sampled_from(range(len(versions))))
        self.s3.delete(bucket, key, versions[victim][0])
        del versions[victim]
        if not versions:
            del self.expected[bucket][key]

    @rule()
    def restart(self) -> None:
        before = self.s3.picture()
        self.s3 = reopened(self.s3, self.root)
        assert self.s3.picture() == before

    @invariant()
    def shows_what_was_acknowledged(self) -> None:
        if not hasattr(self, "s3"):
            return
        shown = {
            name: {
                key: [
                    (
                        version.version_id,
                        None if type(version).__name__ == "Marker" else self.s3.read_body(version),
                    )
                    for version in versions
                ]
                for key, versions in bucket.objects.versions()
            }
            for name, bucket in self.s3.memory.buckets(ACCOUNT).items()
        }
        assert shown == self.expected
        for name, keys in self.expected.items():
            store = self.s3.bucket(name).objects
            visible = {key for key, versions in keys.items() if versions[-1][1] is not None}
            assert {item.key for item in store.values()} == visible
            for versions in store.versions():
                assert [item.is_current for item in versions[1]] == [False] * (len(versions[1]) - 1) + [True]

    def teardown(self) -> None:
        if hasattr(self, "s3"):
            self.s3.close()
            shutil.rmtree(self.root)


StorageMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_random_requests_leave_what_was_acknowledged = StorageMachine.TestCase


def test_model_names_the_constants() -> None:
    assert MODEL.constants["DEFAULT_ENCRYPTION"] is DEFAULT_ENCRYPTION
