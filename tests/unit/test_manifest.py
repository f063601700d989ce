from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.errors import IntegrityError
from airbridge.manifest import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    PACKAGE,
    Manifest,
    ManifestFile,
    new_release_id,
    now,
    read_manifest,
)

TIME = "2026-11-21T12:45:01.123Z"
RELEASE = "20261121T124501.123Z-5f0c9e2ab41d"
SHA256 = hashlib.sha256(b"x").hexdigest()
FILE = ManifestFile("dags/a.py", SHA256, 1, "etag", "version")

plain_text = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=40)
segments = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda text: text not in {".", ".."})
paths = st.lists(segments, min_size=1, max_size=3).map(lambda parts: "/".join(["dags", *parts]))


def no_file_below_another(files: list[ManifestFile]) -> bool:
    names = {file.path for file in files}
    return not any(name.startswith(f"{other}/") for name in names for other in names)


manifest_files = st.lists(
    st.builds(
        ManifestFile,
        path=paths,
        sha256=st.binary(max_size=4).map(lambda data: hashlib.sha256(data).hexdigest()),
        size=st.integers(0, MAX_FILE_BYTES),
        etag=plain_text,
        version_id=plain_text,
    ),
    max_size=5,
    unique_by=lambda file: file.path,
).filter(no_file_below_another)
manifests = st.builds(
    Manifest,
    package=st.from_regex(PACKAGE, fullmatch=True),
    release=st.just(RELEASE),
    published_at=st.just(TIME),
    published_by=plain_text,
    activated_at=st.just(TIME),
    activated_by=plain_text,
    files=manifest_files.map(tuple),
    dags=st.lists(plain_text, max_size=3).map(tuple),
    replaces=st.sampled_from([None, RELEASE]),
    tool=plain_text,
)


def a_manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "package": "sales",
        "release": RELEASE,
        "published_at": TIME,
        "published_by": "ana@laptop",
        "activated_at": TIME,
        "activated_by": "ana@laptop",
        "files": (FILE,),
    }
    return Manifest(**{**fields, **changes})


@given(manifest=manifests)
def test_what_was_written_is_what_is_read(manifest: Manifest) -> None:
    assert read_manifest(manifest.to_bytes(), manifest.package) == manifest
    assert manifest.to_bytes() == manifest.to_bytes()


@given(body=st.binary(max_size=60))
def test_other_bytes_are_somebody_elses_or_refused_and_never_an_accident(body: bytes) -> None:
    try:
        assert read_manifest(body, "sales") is None
    except IntegrityError as error:
        assert str(error).startswith("sales/metadata.json is no manifest")  # noqa: PT017


@given(
    manifest=manifests,
    name=st.sampled_from(
        ["package", "release", "published_at", "files", "dags", "replaces", "tool", "format"]
    ),
    value=st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just([1]), st.just({})),
)
def test_a_field_of_another_type_is_refused_or_harmless(manifest: Manifest, name: str, value: Any) -> None:
    document = json.loads(manifest.to_bytes()) | {name: value}
    try:
        read = read_manifest(json.dumps(document).encode(), manifest.package)
    except IntegrityError:
        return
    assert isinstance(read, Manifest)
    assert all(isinstance(file, ManifestFile) for file in read.files)


@pytest.mark.parametrize("body", [b"{}", b'{"owner": "ana"}', b'{"version": 1, "files": ["x"]}'])
def test_a_document_without_a_format_is_somebody_elses(body: bytes) -> None:
    assert read_manifest(body, "sales") is None


@pytest.mark.parametrize(
    "path",
    [
        "a.py", "dags", "dags/", "dags//a.py", "dags/.", "dags/../a.py", "/dags/a.py", "../other/dags/a.py",
        "dags\\a.py", "dags/a\\..\\b.py", "dags/a\nb.py", "dags/a\u202eb.py", "dags/\ud800.py", "", 7, None,
    ],
)  # fmt: skip
def test_a_path_that_is_no_file_below_dags_is_refused(path: object) -> None:
    document = json.loads(a_manifest().to_bytes())
    document["files"][0]["path"] = path
    with pytest.raises(IntegrityError, match="no manifest"):
        read_manifest(json.dumps(document).encode(), "sales")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "F" * 64), ("sha256", "f" * 63), ("sha256", None), ("size", -1), ("size", True),
        ("size", "1"), ("size", 1.5), ("size", MAX_FILE_BYTES + 1), ("etag", None), ("version_id", 3),
        ("version_id", "a\r\nb"), ("etag", "x" * 1025),
    ],
)  # fmt: skip
def test_a_malformed_fact_about_a_file_is_refused(field: str, value: object) -> None:
    document = json.loads(a_manifest().to_bytes())
    document["files"][0][field] = value
    with pytest.raises(IntegrityError):
        read_manifest(json.dumps(document).encode(), "sales")


@pytest.mark.parametrize("field", ["path", "sha256", "size", "etag", "version_id"])
def test_a_missing_fact_about_a_file_is_named(field: str) -> None:
    document = json.loads(a_manifest().to_bytes())
    del document["files"][0][field]
    with pytest.raises(IntegrityError, match=f"'{field}' is missing"):
        read_manifest(json.dumps(document).encode(), "sales")


def test_a_manifest_of_another_package_is_refused() -> None:
    with pytest.raises(IntegrityError, match="it names the package 'sales'"):
        read_manifest(a_manifest().to_bytes(), "finance")


def test_a_manifest_of_another_format_says_which_one_is_read() -> None:
    with pytest.raises(IntegrityError, match=re.escape("this release reads 'airbridge.release/1'")):
        read_manifest(a_manifest(format="airbridge.release/2").to_bytes(), "sales")


def test_a_file_named_twice_or_below_another_is_refused() -> None:
    twice = a_manifest(files=(FILE, FILE))
    below = a_manifest(files=(FILE, ManifestFile("dags/a.py/b.py", SHA256, 1, "", "")))
    for manifest, why in ((twice, "a file twice"), (below, "lies below a file")):
        with pytest.raises(IntegrityError, match=why):
            read_manifest(manifest.to_bytes(), "sales")


def test_too_many_files_and_too_many_bytes_are_refused() -> None:
    files = tuple(ManifestFile(f"dags/{n}.py", SHA256, 1, "", "") for n in range(MAX_FILES + 1))
    with pytest.raises(IntegrityError, match=str(MAX_FILES)):
        read_manifest(a_manifest(files=files).to_bytes(), "sales")
    assert read_manifest(a_manifest(files=files[1:]).to_bytes(), "sales") is not None
    with pytest.raises(IntegrityError, match="bytes"):
        read_manifest(b" " * (MAX_MANIFEST_BYTES + 1), "sales")


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(IntegrityError):
        read_manifest(b"[" * 100_000, "sales")


def test_ids_sort_by_time_and_show_equal_contents() -> None:
    first = new_release_id("2026-11-21T12:45:01.123Z", {"dags/a.py": SHA256})
    later = new_release_id("2026-11-21T12:45:01.124Z", {"dags/a.py": SHA256})
    other = new_release_id("2026-11-21T12:45:01.124Z", {"dags/b.py": SHA256})
    assert first < later
    assert first.partition("-")[2] == later.partition("-")[2] != other.partition("-")[2]
    assert read_manifest(a_manifest(release=first, published_at=now()).to_bytes(), "sales") is not None
