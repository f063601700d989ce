"""A release on its way: the DAG processor and the edge workers, as the control plane's API tells of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airbridge.errors import RefusedError, SettingsError, UnreachableError
from airbridge.manifest import Manifest, read_manifest
from airbridge.publisher._api import ControlPlane
from airbridge.publisher._arrival import FailedToParseError, NotArrivedError, Watcher
from airbridge.publisher._settings import load_settings
from airbridge.tree_document import TreeDocument, TreeFile, document_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher_bucket import Team

    from airbridge.publisher._arrival import Arrival

PASSWORD = "secret-of-the-test"


@dataclass
class Api:
    """The four answers of a control plane, with its way to sign in."""

    url: str = ""
    dags: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    sign_ins: int = 0
    valid: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, list[str]], token: str) -> tuple[int, Any]:
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"detail": "x"}
        if token.removeprefix("Bearer ") not in self.valid:
            return 401, {"detail": "Invalid token"}
        if path == "/airbridge/v1/workers":
            return 200, {"workers": self.workers}
        rows, name = (self.dags, "dags") if path == "/api/v2/dags" else (self.errors, "import_errors")
        if pattern := query.get("dag_id_pattern"):
            rows = [row for row in rows if pattern[0] in row["dag_id"]]
        start, count = int(query["offset"][0]), min(int(query["limit"][0]), 100)
        return 200, {name: rows[start : start + count], "total_entries": len(rows)}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.sign_ins += 1
            if (body["username"], body["password"]) != ("admin", PASSWORD):
                self._send(401, {"detail": "Invalid credentials"})
                return
            token = f"token-{made.sign_ins}"
            made.valid = {token}
            self._send(201, {"access_token": token})

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._send(*made.answer(parts.path, parse_qs(parts.query), self.headers.get("Authorization", "")))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AIRBRIDGE_API_URL", made.url)
        monkeypatch.setenv("AIRBRIDGE_API_PASSWORD", PASSWORD)
        yield made
        server.shutdown()
        thread.join()


class Site:
    """A control plane and its edge, which show what the test says."""

    def __init__(self, team: Team, api: Api) -> None:
        self.team = team
        self.api = api
        self._trees = 0

    def manifest(self) -> Manifest:
        manifest = read_manifest(self.team.bucket.get("sales/metadata.json"), "sales")
        assert manifest is not None
        return manifest

    def tree(self, manifest: Manifest) -> str:
        """Write the document of a tree that shows ``manifest``, as dag-sync does; return the tree."""
        self._trees += 1
        tree = f"{self._trees:064x}"
        files = tuple(
            TreeFile(f"sales/{file.path}", file.sha256, file.size, file.version_id) for file in manifest.files
        )
        document = TreeDocument(tree, files, {"sales": manifest.release, "crm": "x"})
        self.team.bucket.client.put_object(
            Bucket=self.team.bucket.name, Key=document_key("dev", tree), Body=document.to_bytes()
        )
        return tree

    def parse(self, name: str, tree: str) -> None:
        self.api.dags = [row for row in self.api.dags if row["dag_id"] != f"sales_{name}"]
        self.api.dags.append(
            {
                "dag_id": f"sales_{name}",
                "bundle_version": tree,
                "relative_fileloc": f"sales/dags/sales_{name}.py",
                "last_parsed_time": datetime.now(UTC).isoformat(),
            }
        )

    def worker(self, name: str, tree: str | None, *, live: bool = True) -> None:
        self.api.workers = [row for row in self.api.workers if row["name"] != name]
        self.api.workers.append({"name": name, "state": "idle", "live": live, "dag_tree": tree, "age_s": 1.0})

    def fail(self, name: str, *, at: datetime | None = None, tree: str = "") -> None:
        """As Airflow tells it: with the tree, which a bundle of another kind would not have."""
        below = f"/store/trees/{tree}/" if tree else ""
        self.api.errors.append(
            {
                "filename": f"{below}sales/dags/sales_{name}.py",
                "stack_trace": "Traceback (most recent call last):\n  ...\nValueError: no luck\n",
                "timestamp": (at or datetime.now(UTC)).isoformat(),
            }
        )

    def watcher(self) -> Watcher:
        settings = load_settings(
            dag_bucket=self.team.bucket.name, s3_endpoint_url=self.team.bucket.url, environment="dev"
        )
        return Watcher(self.team.bucket.store(), ControlPlane(settings), self.manifest())

    def look(self) -> Arrival:
        return self.watcher().look()


@pytest.fixture
def site(team: Team, api: Api) -> Site:
    team.write("hourly")
    team.publish()
    return Site(team, api)


def places(arrival: Arrival) -> dict[str, bool]:
    return {place.name: place.arrived for place in (*arrival.processor, *arrival.workers)}


def test_release_arrives_place_by_place(site: Site) -> None:
    assert places(site.look()) == {"DAG sales_daily": False, "DAG sales_hourly": False}
    tree = site.tree(site.manifest())
    site.parse("daily", tree)
    site.worker("north", None)
    site.worker("south", tree)
    site.worker("gone", None, live=False)
    arrival = site.look()
    assert places(arrival) == {
        "DAG sales_daily": True,
        "DAG sales_hourly": False,
        "edge worker north": False,
        "edge worker south": True,
    }
    assert not arrival.complete
    assert "DAGs parsed 1/2, edge workers 1/2; DAG sales_hourly: not parsed yet" in arrival.summary()
    site.parse("hourly", tree)
    site.worker("north", tree)
    assert site.look().complete


def test_file_that_did_not_change_need_not_be_parsed_again(site: Site) -> None:
    old = site.tree(site.manifest())
    for name in ("daily", "hourly"):
        site.parse(name, old)
    site.team.write("daily", note="new")
    site.team.publish()
    assert places(site.look()) == {"DAG sales_daily": False, "DAG sales_hourly": True}
    site.parse("daily", site.tree(site.manifest()))
    assert site.look().complete


def test_change_of_a_file_beside_the_dags_counts_for_all_of_them(site: Site) -> None:
    old = site.tree(site.manifest())
    for name in ("daily", "hourly"):
        site.parse(name, old)
    (site.team.folder / "sales_helper.py").write_text("x = 1\n")
    site.team.publish()
    assert places(site.look()) == {"DAG sales_daily": False, "DAG sales_hourly": False}


def test_worker_on_another_release_says_which(site: Site) -> None:
    before = site.manifest()
    site.worker("north", site.tree(before))
    site.team.write("daily", note="new")
    site.team.publish()
    (place,) = site.look().workers
    assert (place.arrived, place.release) == (False, before.release)


def test_tree_without_a_document_is_not_known_and_one_that_lies_neither(site: Site) -> None:
    site.parse("daily", "f" * 64)
    site.worker("north", "e" * 64)
    site.team.bucket.client.put_object(
        Bucket=site.team.bucket.name, Key=document_key("dev", "e" * 64), Body=b"not gzip"
    )
    assert {place.detail for place in (*site.look().processor, *site.look().workers)} == {
        "parsed from tree ffffffffffff, which is not known",
        "not parsed yet",
        "has tree eeeeeeeeeeee, which is not known",
    }


def test_wait_returns_when_the_last_one_has_it(site: Site) -> None:
    tree = site.tree(site.manifest())
    looks: list[str] = []

    def on_look(arrival: Arrival) -> None:
        looks.append(arrival.summary())
        if len(looks) == 2:
            site.parse("daily", tree)
            site.parse("hourly", tree)
        if len(looks) == 4:
            site.worker("north", tree)

    site.worker("north", None)
    arrival = site.watcher().wait(seconds=60, on_look=on_look, pause=0.01)
    assert arrival.complete
    assert len(looks) == 5


def test_wait_that_is_over_names_who_is_missing(site: Site) -> None:
    with pytest.raises(NotArrivedError, match="DAG sales_daily: not parsed yet") as caught:
        site.watcher().wait(seconds=0.2, on_look=lambda _: None, pause=0.01)
    assert caught.value.exit_code == 6


def test_wait_survives_a_control_plane_that_restarts(site: Site) -> None:
    tree = site.tree(site.manifest())
    for name in ("daily", "hourly"):
        site.parse(name, tree)
    site.api.status = 503
    threading.Timer(0.5, lambda: setattr(site.api, "status", 200)).start()
    assert site.watcher().wait(seconds=60, on_look=lambda _: None, pause=0.05).complete


def test_wait_ends_at_once_when_the_tree_of_the_release_cannot_be_imported(site: Site) -> None:
    site.fail("hourly", tree=site.tree(site.manifest()), at=datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(FailedToParseError, match=r"sales_hourly\.py: ValueError: no luck"):
        site.watcher().wait(seconds=60, on_look=lambda _: None, pause=0.01)


def test_import_error_in_the_tree_of_another_release_is_none_of_this_one(site: Site) -> None:
    old = site.tree(site.manifest())
    site.team.write("hourly", note="corrected")
    site.team.publish()
    site.fail("hourly", tree=old, at=datetime.now(UTC) + timedelta(hours=1))
    site.fail("daily", tree="d" * 64, at=datetime.now(UTC) + timedelta(hours=1))
    assert site.look().faults == []


def test_wait_ends_when_the_release_cannot_be_imported(site: Site) -> None:
    site.parse("daily", site.tree(site.manifest()))
    site.fail("hourly", at=datetime.now(UTC) + timedelta(seconds=1))
    with pytest.raises(FailedToParseError, match=r"sales_hourly\.py: ValueError: no luck"):
        site.watcher().wait(seconds=60, on_look=lambda _: None, pause=0.01)


def test_import_error_of_the_release_before_does_not_end_the_wait(site: Site) -> None:
    site.fail("hourly", at=datetime.now(UTC) - timedelta(hours=1))
    site.fail("hourly")  # parsed once more from the old tree, before the new one came
    tree = site.tree(site.manifest())

    def on_look(_: Arrival) -> None:
        site.api.errors.clear()
        for name in ("daily", "hourly"):
            site.parse(name, tree)

    assert site.watcher().wait(seconds=60, on_look=on_look, pause=0.01).complete


def test_import_error_of_another_package_is_none_of_ours(site: Site) -> None:
    site.fail("hourly")
    site.api.errors[0]["filename"] = "crm/dags/crm_x.py"
    assert site.look().faults == []


def test_release_without_dags_and_a_fleet_without_workers_is_there_at_once(site: Site) -> None:
    for name in ("daily", "hourly"):
        site.team.remove(name)
    (site.team.folder / "notes.md").write_text("x")
    site.team.publish()
    assert site.watcher().wait(seconds=5, on_look=lambda _: None).complete


def test_all_pages_are_read(site: Site) -> None:
    tree = site.tree(site.manifest())
    for number in range(150):
        site.parse(f"n{number}", tree)
    site.parse("daily", tree)
    site.parse("hourly", tree)
    assert site.look().complete


# --- signing in ----------------------------------------------------------------------------------------
def test_token_that_expires_during_the_wait_is_replaced(site: Site) -> None:
    watcher = site.watcher()
    watcher.look()
    site.api.valid.clear()
    watcher.look()
    assert site.api.sign_ins == 2


def test_given_token_is_used_and_not_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBRIDGE_API_TOKEN", "given")
    with pytest.raises(RefusedError, match="401"):
        site.look()
    site.api.valid = {"given"}
    site.look()
    assert site.api.sign_ins == 0


def test_wrong_or_missing_password_is_one_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBRIDGE_API_PASSWORD", "wrong")
    with pytest.raises(RefusedError, match="not signed in") as caught:
        site.look()
    assert "wrong" not in str(caught.value)
    monkeypatch.delenv("AIRBRIDGE_API_PASSWORD")
    with pytest.raises(SettingsError, match="no password"):
        site.look()


@pytest.mark.parametrize(
    ("status", "error"), [(500, UnreachableError), (404, RefusedError), (302, RefusedError)]
)
def test_answer_that_is_none_of_a_control_plane_is_one_line(
    site: Site, status: int, error: type[Exception]
) -> None:
    site.api.status = status
    with pytest.raises(error, match=str(status)):
        site.look()


def test_control_plane_that_is_not_there_is_one_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBRIDGE_API_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"AIRBRIDGE_API_URL=http://127\.0\.0\.1:9 cannot be reached"):
        site.look()


# --- the commands --------------------------------------------------------------------------------------
def command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airbridge.publisher", *arguments],
        env={
            "PATH": "/usr/bin:/bin",
            **site.team.bucket.environment(),
            "AIRBRIDGE_API_URL": site.api.url,
            "AIRBRIDGE_API_PASSWORD": PASSWORD,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_status_command_shows_every_place(site: Site) -> None:
    tree = site.tree(site.manifest())
    site.parse("daily", tree)
    site.worker("north", tree)
    shown = command(site, "status", "sales")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:4] for line in shown.stdout.splitlines()[2:]] == [
        ["DAG", "sales_daily", "yes", "parsed"],
        ["DAG", "sales_hourly", "no", "not"],
        ["edge", "worker", "north", "yes"],
    ]
    document = json.loads(command(site, "status", "sales", "--json").stdout)
    assert document["complete"] is False
    assert [row["arrived"] for row in document["dag_processor"]] == [True, False]


def test_publish_command_waits_and_says_where_the_release_is(site: Site) -> None:
    site.team.write("daily", note="new")
    folder = str(site.team.folder)
    flags = ("publish", "sales", "--dag-path", folder, "--import-check", "never", "--wait")
    late = command(site, *flags, "--timeout", "0.5")
    assert late.returncode == 6
    assert "is published, and not everywhere after 0.5 s" in late.stderr.splitlines()[-1]
    tree = site.tree(site.manifest())
    for name in ("daily", "hourly"):
        site.parse(name, tree)
    site.worker("north", tree)
    done = command(site, *flags)
    assert done.returncode == 0, done.stderr
    assert "is parsed (2 DAGs) and on 1 live edge workers" in done.stdout
    assert "DAGs parsed 2/2, edge workers 1/1 (3/3)" in done.stderr.splitlines()
    assert json.loads(command(site, *flags, "--json").stdout)["arrival"]["complete"] is True
