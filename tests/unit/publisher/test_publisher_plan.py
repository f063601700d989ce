"""What a publish would write, for whatever lies in the bucket."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from airbridge.manifest import Manifest, ManifestFile
from airbridge.publisher._catalog import RemotePackage
from airbridge.publisher._plan import make_plan, reusable
from airbridge.publisher._s3 import RemoteObject, StoredVersion

MOMENT = "2026-01-01T00:00:00.000Z"
PATHS = st.sampled_from([f"dags/{name}.py" for name in "abcd"])
CONTENTS = st.sampled_from(["one", "two"])
VERSIONS = st.sampled_from(["v1", "v2"])


def sha256(content: str) -> str:
    return content.ljust(64, "0")


def remote(
    named: dict[str, tuple[str, str]] | None, there: dict[str, tuple[str, str]]
) -> tuple[RemotePackage, dict[str, StoredVersion | None]]:
    """A package: content and version that the manifest names, content and version at the keys."""
    files = tuple(
        ManifestFile(path, sha256(content), len(content), f"etag-{content}", version)
        for path, (content, version) in sorted((named or {}).items())
    )
    manifest = Manifest("p", "20260101T000000.000Z-000000000000", MOMENT, "x", MOMENT, "x", files)
    objects = {
        path: RemoteObject(path, f"etag-{content}", len(content), datetime.now(UTC))
        for path, (content, _) in there.items()
    }
    heads: dict[str, StoredVersion | None] = {
        path: StoredVersion(f"etag-{content}", version, len(content))
        for path, (content, version) in there.items()
    }
    return RemotePackage("p", objects, manifest if named is not None else None, "e"), heads


states = st.dictionaries(PATHS, st.tuples(CONTENTS, VERSIONS))


@given(wanted=st.dictionaries(PATHS, CONTENTS), named=st.none() | states, there=states)
def test_after_the_plan_every_file_of_the_release_is_at_its_key(
    wanted: dict[str, str], named: dict[str, tuple[str, str]] | None, there: dict[str, tuple[str, str]]
) -> None:
    package, heads = remote(named, there)
    plan = make_plan({path: sha256(content) for path, content in wanted.items()}, package, heads)
    reused = {file.path for file in plan.reuse}
    assert reused | set(plan.upload) == set(wanted)
    assert not reused & set(plan.upload)
    assert set(plan.delete) == set(there) - set(wanted)
    for file in plan.reuse:
        # Exactly what is there, in the version that is there, and with the content that is wanted.
        assert there[file.path] == (wanted[file.path], file.version_id)
        assert file.sha256 == sha256(wanted[file.path])
    if plan.is_empty:
        assert named is not None
        assert {path: content for path, (content, _) in named.items()} == wanted
        assert there == named


@given(named=states)
def test_same_release_again_writes_nothing(named: dict[str, tuple[str, str]]) -> None:
    package, heads = remote(named, named)
    plan = make_plan({path: sha256(content) for path, (content, _) in named.items()}, package, heads)
    assert plan.is_empty
    assert len(plan.reuse) == len(named)


@given(named=states, there=states)
def test_listing_alone_decides_what_is_worth_a_closer_look(
    named: dict[str, tuple[str, str]], there: dict[str, tuple[str, str]]
) -> None:
    package, _ = remote(named, there)
    wanted = {path: sha256(content) for path, (content, _) in named.items()}
    looked_at = {file.path for file in reusable(wanted, package)}
    assert looked_at == {path for path in named if path in there and there[path][0] == named[path][0]}


def test_object_that_is_gone_since_the_listing_is_uploaded_again() -> None:
    package, _ = remote({"dags/a.py": ("one", "v1")}, {"dags/a.py": ("one", "v1")})
    assert make_plan({"dags/a.py": sha256("one")}, package, {"dags/a.py": None}).upload == ("dags/a.py",)
