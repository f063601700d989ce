"""Whatever publishers and hosts do, and whenever they die, a reader of a store sees whole releases only.

Random publishes, rollbacks and crashes of concurrent publishers against the project's own S3 service;
publishers go on between any two requests of a pass, and a pass is killed before any of its changes of the
disk. After every step each package of the store's current tree is, byte for byte, a release that was
committed; after a pass that came to its end it is the one that counted.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sync_stack import CREDENTIALS, DagBucket, S3Server
from tests.unit.sync.sync_crash import killed_at
from tests.unit.sync.sync_peer import read_tree
from tests.unit.sync.sync_rig import Rig, make_rig

from airbridge.manifest import MANIFEST_NAME
from airbridge.sync._settings import Settings
from airbridge.sync.store import current_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from tests.release_writer import ReleaseWriter, Written

PACKAGES = st.sampled_from(["one", "two"])
NAMES = ["dags/a.py", "dags/b.py", "dags/sub/c.py"]
FILES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 99).map("x = {:2}\n".format), max_size=3)
CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict"}


class Publisher:
    """One publish under way: it goes on by single requests, and may never come to its end."""

    def __init__(self, world: World, package: str, files: dict[str, str]) -> None:
        self._world = world
        self._package = package
        # What it read when it began: whoever commits after that makes it the loser.
        etag = world.etags[package]

        def put_manifest(key: str, body: bytes) -> tuple[str, str]:
            written = world.bucket.write(key, body, IfMatch=f'"{etag}"')
            world.etags[package] = written[0]
            return written

        self._steps: Iterator[str] = world.writers[random.randrange(2)].steps(
            package, dict(files), put_manifest
        )

    def go_on(self) -> bool:
        """Send one more request; return whether there is another one."""
        try:
            next(self._steps)
        except StopIteration as done:
            self._world.commit(self._package, done.value)
            return False
        except ClientError as error:
            if error.response["Error"]["Code"] not in CONFLICT:
                raise
            World.losers += 1
            return False
        return True


class World(RuleBasedStateMachine):
    """A bucket, publishers, the control plane's dag-sync and an edge host's."""

    server: ClassVar[S3Server]
    kills: ClassVar[int] = 0
    fetched: ClassVar[int] = 0
    losers: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.bucket = DagBucket(self.server)
        self.writers: list[ReleaseWriter] = [self.bucket.writer(), self.bucket.writer()]
        self.etags: dict[str, str] = {}
        self.committed: dict[str, list[Written]] = {}
        self.under_way: list[Publisher] = []
        self._hosts = 0
        self._turn = threading.Lock()
        self._between = 0  # requests of publishers that are sent between those of a pass
        self._folder = Path(tempfile.mkdtemp())
        self._control: Rig | None = None
        self._edge: Rig | None = None
        self._trees: dict[str, dict[str, bytes]] = {}  # what the control plane ever showed, by its name

    # Publishers

    @initialize()
    def begin(self) -> None:
        for package in ("one", "two"):
            self._first(package)
        self._control = self._open("control", publishes=True)
        self._edge = self._open("edge", publishes=False)

    def _first(self, package: str) -> None:
        """Take the package with a release without files, so that nothing is seen before the next one."""

        def put_first(key: str, body: bytes) -> tuple[str, str]:
            written = self.bucket.write(key, body, IfNoneMatch="*")
            self.etags[package] = written[0]
            return written

        manifest = self.writers[0].manifest(package, ())
        self.commit(package, self.writers[0].point_at(manifest, {}, put_first))

    def commit(self, package: str, release: Written) -> None:
        self.committed.setdefault(package, []).append(release)

    @rule(package=PACKAGES, files=FILES)
    def start_publishing(self, package: str, files: dict[str, str]) -> None:
        self.under_way.append(Publisher(self, package, files))

    @rule(package=PACKAGES, files=FILES)
    def publish(self, package: str, files: dict[str, str]) -> None:
        publisher = Publisher(self, package, files)
        while publisher.go_on():
            pass

    @rule(package=PACKAGES, slow=FILES, fast=FILES)
    def overtake(self, package: str, slow: dict[str, str], fast: dict[str, str]) -> None:
        overtaken = Publisher(self, package, slow)
        self.publish(package, fast)
        while overtaken.go_on():
            pass

    @rule(requests=st.integers(1, 6))
    def go_on_publishing(self, requests: int) -> None:
        for _ in range(requests):
            self._go_on()

    @rule()
    def a_publisher_dies(self) -> None:
        if self.under_way:
            self.under_way.pop(random.randrange(len(self.under_way)))

    @rule(package=PACKAGES, back=st.integers(1, 3))
    def roll_back(self, package: str, back: int) -> None:
        releases = self.committed[package]
        target = releases[max(0, len(releases) - 1 - back)]
        written: list[str] = []

        def put(key: str, body: bytes) -> tuple[str, str]:
            etag, version = self.bucket.write(key, body, IfMatch=f'"{self.etags[package]}"')
            written.append(etag)
            return etag, version

        writer = self.bucket.writer()
        writer._put = put  # type: ignore[method-assign]
        self.commit(package, writer.roll_back(target))
        self.etags[package] = written[0]

    def _go_on(self) -> None:
        if self.under_way:
            publisher = random.choice(self.under_way)
            if not publisher.go_on():
                self.under_way.remove(publisher)

    # Hosts

    def _open(self, name: str, *, publishes: bool) -> Rig:
        store = self._folder / name
        store.mkdir(exist_ok=True)
        here = Settings(
            dag_bucket=self.bucket.name,
            environment="dev",
            s3_endpoint_url=self.server.url,
            dag_store=store,
            dag_sync_keep_trees=3,
            dag_sync_keep_seconds=0,
            dag_sync_publish_trees=publishes,
        )
        return make_rig(None, here, self._at_request)

    def _at_request(self, _operation: str) -> None:
        with self._turn:
            for _ in range(self._between):
                self._go_on()

    @rule(edge=st.booleans(), full=st.booleans(), between=st.integers(0, 3))
    def run_a_pass(self, edge: bool, full: bool, between: int) -> None:
        rig = self._edge if edge else self._control
        assert rig is not None
        before = {package: len(releases) for package, releases in self.committed.items()}
        self._between = between
        outcome = rig.run(full=full or rig.seen() is None)
        self._between = 0
        assert outcome.held == {}
        self._check(rig, before)
        if not edge:
            self._trees[outcome.tree] = rig.seen() or {}

    @rule(between=st.integers(0, 3))
    def a_new_host_starts(self, between: int) -> None:
        self._hosts += 1
        rig = self._open(f"host-{self._hosts}", publishes=False)
        before = {package: len(releases) for package, releases in self.committed.items()}
        self._between = between
        assert rig.run(full=True).held == {}
        self._between = 0
        self._check(rig, before)
        rig.store.close()

    @rule(edge=st.booleans(), step=st.integers(0, 120))
    def a_pass_is_killed(self, edge: bool, step: int) -> None:
        rig = self._edge if edge else self._control
        assert rig is not None
        name, publishes = ("edge", False) if edge else ("control", True)
        rig.store.close()
        if killed_at(step, lambda: self._open(name, publishes=publishes).run(full=True)):
            World.kills += 1
        again = self._open(name, publishes=publishes)
        again.run(full=True)
        if edge:
            self._edge = again
        else:
            self._control = again
            current = current_tree(again.settings.dag_store)
            assert current is not None
            self._trees[current.hash] = again.seen() or {}

    @rule(choice=st.integers(0, 1000))
    def a_task_asks_for_a_tree(self, choice: int) -> None:
        assert self._edge is not None
        if self._trees:
            tree_hash = sorted(self._trees)[choice % len(self._trees)]
            World.fetched += self._edge.demand.fetch(tree_hash)
            path = self._edge.settings.dag_store / "trees" / tree_hash
            assert read_tree(path) == self._trees[tree_hash]

    # The promise

    def _check(self, rig: Rig, before: dict[str, int]) -> None:
        """The store shows the release that counted when a pass began, or one that was committed since."""
        seen = self._packages(rig)
        for package, releases in self.committed.items():
            assert seen.get(package) in [release.seen for release in releases[before[package] - 1 :]]

    @staticmethod
    def _packages(rig: Rig) -> dict[str, dict[str, bytes]]:
        packages: dict[str, dict[str, bytes]] = {}
        for path, data in (rig.seen() or {}).items():
            packages.setdefault(path.partition("/")[0], {})[path] = data
        return packages

    @invariant()
    def only_whole_releases_are_seen(self) -> None:
        for rig in (self._control, self._edge):
            if rig is None:
                continue
            for package, files in self._packages(rig).items():
                assert files in [release.seen for release in self.committed[package]]
                assert f"{package}/{MANIFEST_NAME}" in files

    def teardown(self) -> None:
        for rig in (self._control, self._edge):
            if rig is not None:
                rig.store.close()
        for path in [self._folder, *self._folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(self._folder)


def test_a_reader_sees_only_whole_releases_ever(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("DAG_SYNC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(World, "server", s3_server, raising=False)
    chosen = settings(
        max_examples=40,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    # Runs in which no pass was ever killed, no tree fetched and nobody told "too late" prove less. Chance may
    # leave one of them out of a run, not of three.
    for _ in range(3):
        run_state_machine_as_test(World, settings=chosen)
        if World.kills and World.fetched and World.losers:
            return
    raise AssertionError(f"kills: {World.kills}, trees fetched: {World.fetched}, too late: {World.losers}")
