"""Steps read settings as docker compose does, and keep the hosts of different projects apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from scripts_steps import ROOT, SCRIPTS, run_step, shell

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("AIRBRIDGE_UI_PORT=9000", "9000"),
        ('AIRBRIDGE_UI_PORT="9001"', "9001"),
        ("AIRBRIDGE_UI_PORT='9002'", "9002"),
        ("export AIRBRIDGE_UI_PORT=9003", "9003"),
        ("  AIRBRIDGE_UI_PORT = 9004  ", "9004"),
        ("AIRBRIDGE_UI_PORT=9005 # the web UI", "9005"),
        ("AIRBRIDGE_UI_PORT=1\nAIRBRIDGE_UI_PORT=9006", "9006"),
        ("AIRBRIDGE_UI_PORT=9007\r", "9007"),
        ("#AIRBRIDGE_UI_PORT=1", "8080"),
        ("MY_AIRBRIDGE_UI_PORT=1", "8080"),
        ("AIRBRIDGE_UI_PORT=", "8080"),
        ("", "8080"),
    ],
)
def test_setting_comes_from_the_env_file(tmp_path: Path, line: str, value: str) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text(line + "\n")
    assert shell("setting AIRBRIDGE_UI_PORT 8080", AIRBRIDGE_ENV_FILE=str(env_file)) == value


def test_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text("AIRBRIDGE_UI_PORT=1\n")
    settings = {"AIRBRIDGE_ENV_FILE": str(env_file), "AIRBRIDGE_UI_PORT": "2"}
    assert shell("setting AIRBRIDGE_UI_PORT 8080", **settings) == "2"


def test_edge_hosts_of_two_projects_share_neither_containers_nor_credentials() -> None:
    show = "edge_project berlin; edge_dir berlin"
    assert shell(show).splitlines() == ["airbridge-edge-berlin", str(ROOT / "edge-bundles/berlin")]
    other = shell(show, COMPOSE_PROJECT_NAME="second").splitlines()
    assert other == ["second-edge-berlin", str(ROOT / "edge-bundles/.second/berlin")]


def test_build_ca_bundle_is_the_users_then_the_tools_then_the_systems(tmp_path: Path) -> None:
    mine, tools = tmp_path / "mine.pem", tmp_path / "tools.pem"
    mine.touch()
    tools.touch()
    assert shell("ca_bundle", BUILD_CA_BUNDLE=str(mine), SSL_CERT_FILE=str(tools)) == str(mine)
    assert shell("ca_bundle", SSL_CERT_FILE=str(tools)) == str(tools)
    fallback = shell("ca_bundle", SSL_CERT_FILE=str(tmp_path / "gone.pem"))
    assert (ROOT / fallback).is_file()


def test_step_is_one_plain_line_with_elapsed_seconds() -> None:
    line = shell("say build 'images are built'", AIRBRIDGE_STARTED="0")
    assert re.fullmatch(r"\[\d+ s\] build +images are built", line)


def test_logged_step_is_silent_until_it_fails_and_passes_its_exit_code_on() -> None:
    assert shell("logged unit-test-ok echo noise; echo done") == "done"
    answer = shell("logged unit-test-fail bash -c 'echo the reason; exit 7' 2>&1 || echo code $?")
    assert "the reason" in answer
    assert answer.endswith("code 7")
    for name in ("unit-test-ok", "unit-test-fail"):
        (ROOT / f".airbridge/log/{name}.log").unlink()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["", ""], "NAME"),
        (["Berlin"], "'Berlin'"),
        (["-x"], "'-x'"),
        (["a/../b"], "'a/../b'"),
        (["x" * 41], "x" * 41),
        (["ok", "a b"], "QUEUES='a b'"),
        (["ok", "a,,b"], "QUEUES='a,,b'"),
        (["ok", "a", "many"], "CONCURRENCY='many'"),
        (["ok", "a", "0"], "CONCURRENCY='0'"),
    ],
)
def test_edge_host_with_malformed_settings_is_refused_before_anything_is_made(
    arguments: list[str], named: str
) -> None:
    answer = run_step("edge-up.sh", *arguments, COMPOSE_PROJECT_NAME="unit-test")
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert named in line
    assert " | fix: " in line
    assert not (ROOT / "edge-bundles/.unit-test").exists()


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        ([""], {"GATEWAY_NAMES": "control.example.org"}, "make enroll NAME="),
        (["Plant_7"], {"GATEWAY_NAMES": "control.example.org"}, "'Plant_7'"),
        (["plant-7"], {"GATEWAY_NAMES": "", "GATEWAY_PUBLIC_HOST": ""}, "GATEWAY_NAMES="),
    ],
)
def test_host_is_not_enrolled_when_it_could_not_dial_the_endpoint(
    arguments: list[str], settings: dict[str, str], named: str
) -> None:
    answer = run_step("enroll.sh", *arguments, COMPOSE_PROJECT_NAME="unit-test", **settings)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert named in line
    assert not (ROOT / "edge-bundles/.unit-test").exists()


def test_bundle_of_another_machine_is_no_host_of_this_one(tmp_path: Path) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "compose.edge.yaml").touch()
    show = f"bundles_dir() {{ printf '%s\\n' {tmp_path}; }}; docker() {{ :; }}; edge_names"
    assert shell(show) == "here"


@pytest.mark.parametrize("command", ["rotate", "revoke", "join-token"])
def test_command_about_a_host_asks_for_its_name(command: str) -> None:
    answer = run_step("identity.sh", command, "", COMPOSE_PROJECT_NAME="unit-test")
    assert answer.returncode == 1
    assert f"make {command} NAME=" in answer.stderr


def test_destroy_without_a_terminal_deletes_nothing() -> None:
    answer = run_step("down.sh", "--destroy", COMPOSE_PROJECT_NAME="unit-test")
    assert answer.returncode == 1
    assert "no terminal to ask | fix: make destroy FORCE=1" in answer.stderr


@pytest.mark.parametrize("script", ["diag.sh", "cache.sh"])
def test_command_about_an_unknown_host_says_how_to_make_it(script: str) -> None:
    answer = run_step(script, "nowhere", COMPOSE_PROJECT_NAME="unit-test")
    assert answer.returncode == 1
    assert "make edge NAME=nowhere" in answer.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_script_says_what_it_is_for_and_can_be_called(script: str) -> None:
    path = SCRIPTS / script
    first, second = path.read_text().splitlines()[:2]
    if script.startswith("lib"):
        assert first == "# shellcheck shell=bash"
    else:
        assert first == "#!/usr/bin/env bash"
        assert path.stat().st_mode & 0o111
    assert re.match(r"# \S", second)
