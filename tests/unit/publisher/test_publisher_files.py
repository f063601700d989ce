"""What a snapshot of a folder takes in, and what it names instead."""

from __future__ import annotations

import os
import socket
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airbridge.errors import SettingsError
from airbridge.manifest import MAX_FILE_BYTES, MAX_FILES, Manifest, ManifestFile, read_manifest
from airbridge.publisher import _files
from airbridge.publisher._files import LocalFile, judge_path, read_files, read_folder, release_path_problems
from airbridge.publisher._findings import MAX_SOURCE_BYTES
from airbridge.sync._keys import judge_key

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.publisher._files import Snapshot


def codes(snapshot: Snapshot) -> list[str]:
    return [found.code for found in snapshot.findings]


def write(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_folder_is_read_with_its_subfolders_in_order(tmp_path: Path) -> None:
    write(tmp_path, b_py="B", a_py="A", sql__load_py="L")
    snapshot = read_folder(tmp_path)
    assert [file.path for file in snapshot.files] == ["dags/a.py", "dags/b.py", "dags/sql/load.py"]
    assert [file.content for file in snapshot.files] == [b"A", b"B", b"L"]
    assert snapshot.files[0].shown == str(tmp_path / "a.py")
    assert codes(snapshot) == []


def test_folder_of_the_package_is_taken_by_its_dags(tmp_path: Path) -> None:
    write(tmp_path, dags__a_py="A", notes="x")
    assert [file.path for file in read_folder(tmp_path).files] == ["dags/a.py"]


def test_one_file_is_a_release_too(tmp_path: Path) -> None:
    write(tmp_path, a_py="A")
    assert [file.path for file in read_folder(tmp_path / "a.py").files] == ["dags/a.py"]


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(SettingsError, match="does not exist"):
        read_files([tmp_path / "nothing.py"])


def test_two_files_of_one_name_are_no_release(tmp_path: Path) -> None:
    write(tmp_path, x__a_py="A", y__a_py="B")
    with pytest.raises(SettingsError, match="one name"):
        read_files([tmp_path / "x/a.py", tmp_path / "y/a.py"])


def test_bytecode_is_left_out_without_a_word(tmp_path: Path) -> None:
    write(tmp_path, a_py="A", __pycache____a="x")
    (tmp_path / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "__pycache__/a.cpython-311.pyc").write_bytes(b"x")
    (tmp_path / "b.pyc").write_bytes(b"x")
    (tmp_path / ".airflowignore").write_text("x")
    snapshot = read_folder(tmp_path)
    assert {"dags/a.py", "dags/.airflowignore"} <= {file.path for file in snapshot.files}
    assert not any("pyc" in file.path for file in snapshot.files)
    assert codes(snapshot) == []


@pytest.mark.parametrize(
    "name",
    ["a\nb.py", "back\\slash.py", "bidi\u202egpj.py", "\uff0f.py", "c:d.py", " a.py", "a.py ", "e\u0301.py"],
)
def test_name_that_cannot_be_stored_is_abp101(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    snapshot = read_folder(tmp_path)
    assert codes(snapshot) == ["ABP101"]
    assert snapshot.files == ()
    assert snapshot.findings[0].file.isprintable()


def test_name_that_is_not_utf_8_is_abp101(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.py", os.O_CREAT))
    assert codes(read_folder(tmp_path)) == ["ABP101"]


@pytest.mark.parametrize("name", ["a.py", "é.py", "sub folder.py", "UPPER-lower_1.2.py"])
def test_usual_name_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert codes(read_folder(tmp_path)) == []


def test_link_is_abp102_and_its_target_stays_unread(tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("password = 1")
    dags = tmp_path / "work"
    dags.mkdir()
    (dags / "a.py").symlink_to(secret)
    (dags / "folder").symlink_to(tmp_path)
    (dags / "dangling.py").symlink_to("nowhere")
    snapshot = read_folder(dags)
    assert codes(snapshot) == ["ABP102"] * 3
    assert snapshot.files == ()
    assert codes(read_files([dags / "a.py"])) == ["ABP102"]


def test_special_file_is_abp102_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.py"))
        assert codes(read_folder(tmp_path)) == ["ABP102", "ABP102"]


@pytest.mark.parametrize("name", [".env", ".git", "a.py~", "a.py.swp", "a.py.orig", ".a.py"])
def test_hidden_or_left_over_file_is_abp103(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert codes(read_folder(tmp_path)) == ["ABP103"]


def test_names_that_differ_in_case_only_are_abp104(tmp_path: Path) -> None:
    write(tmp_path, Load_py="x", load_py="x")
    assert codes(read_folder(tmp_path)) == ["ABP104"]


def test_folders_that_differ_in_case_only_are_abp104() -> None:
    files = [LocalFile(path, b"", path) for path in ("dags/Sql/a.py", "dags/sql/b.py", "dags/other/a.py")]
    assert [found.code for found in release_path_problems(files)] == ["ABP104"]


def test_file_that_is_too_large_is_abp105(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"#" * (MAX_SOURCE_BYTES + 1))
    (tmp_path / "ok.py").write_bytes(b"#" * MAX_SOURCE_BYTES)
    with (tmp_path / "data.bin").open("wb") as sparse:
        sparse.truncate(MAX_FILE_BYTES + 1)
    snapshot = read_folder(tmp_path)
    assert [(found.code, found.file) for found in snapshot.findings] == [
        ("ABP105", str(tmp_path / "a.py")),
        ("ABP105", str(tmp_path / "data.bin")),
    ]
    assert [file.path for file in snapshot.files] == ["dags/ok.py"]


def test_too_many_files_are_abp106(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.py").touch()
    assert codes(read_folder(tmp_path)) == ["ABP106"]
    (tmp_path / "0.py").unlink()
    assert codes(read_folder(tmp_path)) == []


def test_release_that_is_too_large_is_abp109(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "MAX_RELEASE_BYTES", 10)
    (tmp_path / "a.sql").write_bytes(b"12345")
    (tmp_path / "b.sql").write_bytes(b"12345")
    assert codes(read_folder(tmp_path)) == []
    (tmp_path / "c.sql").write_bytes(b"1")
    snapshot = read_folder(tmp_path)
    assert codes(snapshot) == ["ABP109"]
    assert sum(len(file.content) for file in snapshot.files) <= 10


def test_file_that_cannot_be_read_is_abp110(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("x")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # for root, no mode of a file does
    snapshot = read_folder(tmp_path)
    assert codes(snapshot) == ["ABP110"]
    assert "Permission denied" in snapshot.findings[0].message


names = st.text(
    st.characters(codec="utf-8") | st.sampled_from("/.\\:~ \u202e\u0301\uff0e"), min_size=1, max_size=40
)


@given(names)
@example("..")
@example("\uff0e\uff0e/x")
@example("a/./b")
@example("a" * 256)
@example("é".join("a" * 140))
def test_name_that_is_taken_is_one_that_every_reader_takes(name: str) -> None:
    path = f"dags/{name}"
    if judge_path(path):
        return
    # dag-sync mirrors it, and a manifest may name it.
    verdict = judge_key(f"package/{path}")
    assert verdict.mirror or "__pycache__" in path.split("/")
    row = ManifestFile(path, "0" * 64, 0, "e", "v")
    moment = "2026-01-01T00:00:00.000Z"
    manifest = Manifest("package", "20260101T000000.000Z-000000000000", moment, "x", moment, "x", (row,))
    assert read_manifest(manifest.to_bytes(), "package") is not None
    assert unicodedata.is_normalized("NFC", path)
