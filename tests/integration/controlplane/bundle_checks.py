"""Checks of the dag bundle against stores on disk; see checks_in_image.py. Each gets an empty folder."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from airbridge.bundle import AirbridgeDagBundle

FILES = 8


def _tree(store: Path, content: str) -> str:
    """Put a tree of one package into the store, all of whose files hold ``content``."""
    name = hashlib.sha256(content.encode()).hexdigest()
    folder = store / "trees" / name / "etl" / "dags"
    folder.mkdir(parents=True)
    for number in range(FILES):
        (folder / f"dag_{number}.py").write_text(content)
    return name


def _flip(store: Path, name: str) -> None:
    """Point the store at a tree as dag-sync does: a new link, renamed over the old one."""
    new = store / ".current.new"
    new.symlink_to(Path("trees") / name)
    new.replace(store / "current")


def _bundle(store: Path, **arguments: Any) -> AirbridgeDagBundle:
    return AirbridgeDagBundle(name="airbridge", store=str(store), **arguments)


def _contents(path: Path) -> set[str]:
    return {file.read_text() for file in path.rglob("*.py")}


def check_bundle_without_a_version_is_the_current_tree(store: Path) -> None:
    name = _tree(store, "one")
    _flip(store, name)
    bundle = _bundle(store)
    bundle.initialize()
    assert bundle.is_initialized
    assert bundle.get_current_version() == name
    assert bundle.path == store / "trees" / name
    assert _contents(bundle.path) == {"one"}


def check_bundle_path_is_never_the_link(store: Path) -> None:
    _flip(store, _tree(store, "one"))
    bundle = _bundle(store)
    bundle.initialize()
    assert bundle.path.resolve() == bundle.path
    assert "current" not in bundle.path.parts


def check_bundle_follows_a_flip_with_the_next_refresh_and_not_before(store: Path) -> None:
    one, two = _tree(store, "one"), _tree(store, "two")
    _flip(store, one)
    bundle = _bundle(store)
    bundle.initialize()
    _flip(store, two)
    assert (bundle.get_current_version(), _contents(bundle.path)) == (one, {"one"})
    bundle.refresh()
    assert (bundle.get_current_version(), _contents(bundle.path)) == (two, {"two"})


def check_bundle_version_resolves_to_its_tree_whatever_is_current(store: Path) -> None:
    one, two = _tree(store, "one"), _tree(store, "two")
    _flip(store, two)
    bundle = _bundle(store, version=one)
    bundle.initialize()
    assert (bundle.get_current_version(), _contents(bundle.path)) == (one, {"one"})
    bundle.refresh()
    assert (bundle.get_current_version(), _contents(bundle.path)) == (one, {"one"})


def check_bundle_waits_for_a_version_that_is_on_its_way(store: Path) -> None:
    old = _tree(store, "old")
    _flip(store, old)
    wanted = hashlib.sha256(b"new").hexdigest()
    arrival = threading.Timer(0.7, lambda: _tree(store, "new"))
    arrival.start()
    bundle = _bundle(store, version=wanted, patience_s=20)
    began = time.monotonic()
    with capture_logs() as logs:
        bundle.initialize()
    arrival.join()
    assert 0.5 < time.monotonic() - began < 10
    assert bundle.get_current_version() == wanted
    assert bundle.path == store / "trees" / wanted
    assert logs == []


def check_bundle_falls_back_to_the_current_tree_with_a_warning(store: Path) -> None:
    current = _tree(store, "current")
    _flip(store, current)
    gone = hashlib.sha256(b"gone").hexdigest()
    bundle = _bundle(store, version=gone, patience_s=0.5)
    began = time.monotonic()
    with capture_logs() as logs:
        bundle.initialize()
    assert time.monotonic() - began >= 0.5
    assert (bundle.get_current_version(), _contents(bundle.path)) == (current, {"current"})
    [warning] = logs
    assert warning["log_level"] == "warning"
    assert (warning["wanted"], warning["using"]) == (gone, current)
    assert "DAG_SYNC_KEEP_TREES" in warning["fix"]


class _DagSync:
    """A dag-sync that makes a tree when it is asked often enough; remembers what it was asked for."""

    def __init__(self, store: Path, *contents: str, refusals: int = 0, status: int = 503) -> None:
        self.asked: list[str] = []
        dag_sync = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                dag_sync.asked.append(self.path)
                refused = len(dag_sync.asked) <= refusals
                if not refused:
                    for content in contents:
                        _tree(store, content)
                body = b'{"reason": "said the check"}' if refused else b'{"fetched": 1}'
                self.send_response(status if refused else 200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def check_bundle_asks_dag_sync_for_a_version_that_the_store_lacks(store: Path) -> None:
    _flip(store, _tree(store, "current"))
    wanted = hashlib.sha256(b"missing").hexdigest()
    dag_sync = _DagSync(store, "missing")
    bundle = _bundle(store, version=wanted, dag_sync_url=dag_sync.url)
    began = time.monotonic()
    with capture_logs() as logs:
        bundle.initialize()
    assert time.monotonic() - began < 5, "it waited for its patience although the tree was there"
    assert bundle.get_current_version() == wanted
    assert _contents(bundle.path) == {"missing"}
    assert dag_sync.asked == [f"/trees/{wanted}"]
    assert logs == []


def check_bundle_asks_nobody_for_a_version_that_the_store_has(store: Path) -> None:
    here = _tree(store, "here")
    dag_sync = _DagSync(store)
    bundle = _bundle(store, version=here, dag_sync_url=dag_sync.url)
    bundle.initialize()
    assert (bundle.get_current_version(), dag_sync.asked) == (here, [])


def check_bundle_asks_again_until_dag_sync_can_make_the_tree(store: Path) -> None:
    for status in (404, 503):
        folder = store / str(status)
        _flip(folder, _tree(folder, "current"))
        wanted = hashlib.sha256(b"missing").hexdigest()
        dag_sync = _DagSync(folder, "missing", refusals=2, status=status)
        os.environ["DAG_SYNC_URL"] = dag_sync.url
        try:
            bundle = _bundle(folder, version=wanted)
            bundle.initialize()
        finally:
            del os.environ["DAG_SYNC_URL"]
        assert bundle.get_current_version() == wanted
        assert len(dag_sync.asked) == 3


def check_bundle_takes_the_current_tree_when_dag_sync_cannot_help(store: Path) -> None:
    current = _tree(store, "current")
    _flip(store, current)
    gone = hashlib.sha256(b"gone").hexdigest()
    refusing = _DagSync(store, refusals=100)
    lying = _DagSync(store)  # says that it made the tree, and did not
    for dag_sync, said in ((refusing, "said the check"), (lying, lying.url)):
        bundle = _bundle(store, version=gone, patience_s=2, dag_sync_url=dag_sync.url)
        with capture_logs() as logs:
            bundle.initialize()
        assert bundle.get_current_version() == current
        assert said in logs[-1]["dag_sync"]
        assert 1 < len(dag_sync.asked) < 6, "pauses between requests grow"


def check_bundle_asks_for_nothing_that_is_no_tree(store: Path) -> None:
    _flip(store, _tree(store, "current"))
    dag_sync = _DagSync(store)
    for version in ("../../etc", "current", "x" * 64):
        _bundle(store, version=version, patience_s=0.3, dag_sync_url=dag_sync.url).initialize()
    assert dag_sync.asked == []


def check_bundle_version_cannot_lead_out_of_the_store(store: Path) -> None:
    current = _tree(store, "current")
    _flip(store, current)
    for version in ("../../etc", "current", "..", current.upper()):
        bundle = _bundle(store, version=version, patience_s=0)
        bundle.initialize()
        assert bundle.get_current_version() == current


def check_bundle_of_an_empty_store_is_empty_until_the_first_sync(store: Path) -> None:
    bundle = _bundle(store)
    bundle.initialize()
    assert bundle.get_current_version() is None
    assert not bundle.path.exists()
    assert list(bundle.path.rglob("*")) == []
    name = _tree(store, "one")
    bundle.refresh()
    assert bundle.get_current_version() is None, "a tree counts when the link points at it"
    _flip(store, name)
    bundle.refresh()
    assert (bundle.get_current_version(), _contents(bundle.path)) == (name, {"one"})


def check_bundle_of_a_store_that_is_not_there_is_empty(store: Path) -> None:
    bundle = _bundle(store / "missing")
    bundle.initialize()
    bundle.refresh()
    assert bundle.get_current_version() is None
    assert not bundle.path.exists()


def check_bundle_version_in_an_empty_store_stays_itself(store: Path) -> None:
    version = hashlib.sha256(b"x").hexdigest()
    bundle = _bundle(store, version=version, patience_s=0)
    with capture_logs() as logs:
        bundle.initialize()
    assert bundle.get_current_version() is None
    assert bundle.path == store / "trees" / version
    assert logs[0]["using"] is None


def check_bundle_has_a_path_before_it_is_initialized(store: Path) -> None:
    # The DAG processor asks for it when it queues a callback.
    one, two = _tree(store, "one"), _tree(store, "two")
    _flip(store, two)
    assert _bundle(store).path == store / "trees" / two
    assert _bundle(store, version=one).path == store / "trees" / one
    assert not _bundle(store / "empty").path.exists()


def check_bundle_takes_its_store_from_the_environment(store: Path) -> None:
    name = _tree(store, "one")
    _flip(store, name)
    os.environ["DAG_STORE"] = str(store)
    try:
        bundle = AirbridgeDagBundle(name="airbridge")
        bundle.initialize()
    finally:
        del os.environ["DAG_STORE"]
    assert bundle.get_current_version() == name


def check_bundle_is_the_one_that_airflow_is_configured_with(store: Path) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    version = hashlib.sha256(b"x").hexdigest()
    bundle = DagBundlesManager().get_bundle("airbridge", version)
    assert type(bundle) is AirbridgeDagBundle
    assert bundle.supports_versioning
    assert bundle.path == Path("/store/trees") / version


def check_airflows_own_clean_up_of_versions_is_off_because_it_would_end_the_scheduler(_: Path) -> None:
    from airflow.configuration import conf
    from airflow.dag_processing.bundles.base import BundleUsageTrackingManager, get_bundle_tracking_dir

    assert conf.getint("dag_processor", "stale_bundle_cleanup_interval") == 0
    used = get_bundle_tracking_dir("airbridge")
    used.mkdir(parents=True)
    for number in range(conf.getint("dag_processor", "stale_bundle_cleanup_min_versions") + 1):
        (used / f"{number:064}").write_text("2026-01-01T00:00:00+00:00")
    try:
        BundleUsageTrackingManager().remove_stale_bundle_versions()
    except FileNotFoundError:
        return  # in the scheduler's loop, nothing catches it
    raise AssertionError("the setting is not needed any more")


def check_bundle_never_shows_files_of_two_trees_while_the_store_flips(store: Path) -> None:
    names = {content: _tree(store, content) for content in ("one", "two", "three")}
    _flip(store, names["one"])
    stop = threading.Event()
    flips = 0

    def flip_on() -> None:
        nonlocal flips
        while not stop.is_set():
            for name in names.values():
                _flip(store, name)
                flips += 1

    flipper = threading.Thread(target=flip_on)
    flipper.start()
    seen: dict[str, int] = {}
    bundle = _bundle(store)
    bundle.initialize()
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline or len(seen) < len(names):
            assert time.monotonic() < deadline + 20, f"saw {seen} only"
            bundle.refresh()
            files = sorted(bundle.path.rglob("*.py"))
            contents = [file.read_text() for file in files]
            assert len(files) == FILES
            assert len(set(contents)) == 1, contents
            assert bundle.get_current_version() == names[contents[0]]
            seen[contents[0]] = seen.get(contents[0], 0) + 1
    finally:
        stop.set()
        flipper.join()
    assert flips > 100
    assert sum(seen.values()) > 50
