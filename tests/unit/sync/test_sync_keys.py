from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.sync._keys import MAX_NAME_BYTES, judge_key


@pytest.mark.parametrize(
    "path",
    [
        "etl/dags/a.py",
        "etl/dags/sub/b.py",
        "etl/dags/.airflowignore",
        "etl/dags/query.sql",
        "etl/metadata.json",
        "é/dags/ü x.py",
        "etl/dags/" + "a" * 252 + ".py",
    ],
)
def test_what_a_package_ships_is_mirrored(path: str) -> None:
    assert judge_key(path) == (True, "")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "etl/",
        "etl/dags",
        "etl/dags/",
        "etl/dags/sub/",
        "readme.txt",
        "metadata.json",
        "etl/readme.txt",
        "etl/jobs/a.py",
        "etl/sub/metadata.json",
        "etl/dags/__pycache__/a.cpython-311.pyc",
    ],
)
def test_what_is_not_of_the_layout_is_left_alone(path: str) -> None:
    assert judge_key(path) == (False, "")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../dags/a.py", "dot segment"),
        ("etl/dags/../../../etc/cron.d/x", "dot segment"),
        ("etl/dags/./a.py", "dot segment"),
        ("etl/dags/..", "dot segment"),
        ("/etc/passwd", "absolute"),
        ("etl//a.py", "empty segment"),
        ("etl/dags//a.py", "empty segment"),
        ("etl/dags/a\n.py", "control character"),
        ("etl/dags/a\x00.py", "control character"),
        ("etl/dags/a\x7f.py", "control character"),
        ("etl/dags/a\u2028.py", "control character"),
        ("etl/dags/\u202eyp.a.py", "control character"),
        ("etl/dags/a\udcff.py", "control character"),
        ("etl/dags/..\\a.py", "backslash"),
        ("etl/dags/\uff0e\uff0e/\uff0e\uff0e/\uff0e\uff0e/a.py", "dot segment"),
        ("etl/dags/\uff0e/a.py", "dot segment"),
        ("etl/dags/\u2025/a.py", "dot segment"),
        ("etl/dags/..\uff0f..\uff0fa.py", "reserved character"),
        ("etl/dags/a\u240a.py", "reserved character"),
        ("etl/dags/\u201b\uff0e.py", "reserved character"),
        ("etl/dags/" + "a" * 253 + ".py", "name too long"),
        ("etl/dags/" + "é" * 128, "name too long"),
        ("etl/dags/" + "a/" * 600 + "a.py", "name too long"),
    ],
)
def test_an_unsafe_key_is_refused_with_its_reason(path: str, reason: str) -> None:
    assert judge_key(path) == (False, reason)


@given(
    st.lists(
        st.sampled_from([".", "..", "", "dags", "a", "/", "\\", "\n", "\x1b", "x" * 256, "é"]), max_size=8
    ).map("/".join)
)
def test_a_mirrored_key_always_names_a_file_inside_its_package(path: str) -> None:
    if judge_key(path).mirror:
        parts = PurePosixPath(path).parts
        assert "/".join(parts) == path
        assert not {"..", ".", "/"} & set(parts)
        assert all(0 < len(part.encode()) <= MAX_NAME_BYTES for part in parts)


@given(st.text(max_size=20).map(lambda text: f"etl/dags/{text}"))
def test_a_mirrored_key_fits_one_log_line(path: str) -> None:
    if judge_key(path).mirror:
        assert path.splitlines() == [path]
        assert not {unicodedata.category(character) for character in path} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
