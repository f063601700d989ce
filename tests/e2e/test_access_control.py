"""Roles really decide: FAB's Admin, Op, User and Viewer, with one user each (F5)."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from _stack import Api

if TYPE_CHECKING:
    from _stack import Stack

ROLES = ("Op", "User", "Viewer")

# `airflow users create`, once a role, in one process: Airflow's start is what takes the time.
_CREATE = """
import json
from airflow.cli.cli_parser import get_parser
for name, password in json.loads(input()).items():
    arguments = ["users", "create", "--role", name, "--username", name.lower(), f"--password={password}"]
    arguments += ["--firstname", name, "--lastname", "Tester", "--email", f"{name.lower()}@example.org"]
    parsed = get_parser().parse_args(arguments)
    parsed.func(parsed)
"""


@dataclass(frozen=True, slots=True)
class Person:
    """A user in both places: the REST API, and the web UI with its session."""

    api: Api
    browser: httpx.Client


def _sign_in(base: str, user: str, password: str) -> httpx.Client:
    """Fill in the login form, as a browser does."""
    browser = httpx.Client(base_url=base, timeout=60, trust_env=False, follow_redirects=False)
    form = browser.get("/auth/login/")
    assert form.status_code == 200, form.text[:500]
    field = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form.text)
    assert field, form.text[:2000]
    answer = browser.post(
        "/auth/login/", data={"csrf_token": field[1], "username": user, "password": password}
    )
    assert answer.status_code == 302, answer.text[:500]
    assert "/login" not in answer.headers["location"], f"the form refused {user}"
    return browser


@pytest.fixture(scope="session")
def people(stack: Stack) -> dict[str, Person]:
    """A user of each role, made with ``airflow users create``; and the administrator of the first start."""
    passwords = {role: secrets.token_urlsafe(12) for role in ROLES}
    stack.exec("scheduler", "airbridge-env", "python", "-c", _CREATE, stdin=json.dumps(passwords))
    passwords["Admin"] = stack.exec("api-server", "cat", "/secrets/signing/admin-password").stdout.strip()
    stack.wait_for_dag("edge_sample_dag")
    return {
        role: Person(
            Api.log_in(stack.api.base, role.lower(), password),
            _sign_in(stack.api.base, role.lower(), password),
        )
        for role, password in passwords.items()
    }


# What a role may do, as (method, path, body); what it may not, it is refused with 403.
_TRIGGER = ("POST", "/dags/edge_sample_dag/dagRuns", {"logical_date": None})
_READ_DAGS = ("GET", "/dags", None)
_READ_CONNECTIONS = ("GET", "/connections", None)
_MAKE_CONNECTION = ("POST", "/connections", {"connection_id": "of_{role}", "conn_type": "http"})
_READ_VARIABLES = ("GET", "/variables", None)
_MAKE_VARIABLE = ("POST", "/variables", {"key": "of_{role}", "value": "1"})
_MAKE_POOL = ("POST", "/pools", {"name": "of_{role}", "slots": 1})
_READ_AUDIT_LOG = ("GET", "/eventLogs", None)

_MAY: dict[str, list[tuple[str, str, Any]]] = {
    "Viewer": [_READ_DAGS],
    "User": [_READ_DAGS, _TRIGGER],
    "Op": [
        _READ_DAGS,
        _TRIGGER,
        _READ_CONNECTIONS,
        _MAKE_CONNECTION,
        _READ_VARIABLES,
        _MAKE_VARIABLE,
        _MAKE_POOL,
    ],
    "Admin": [
        _READ_DAGS,
        _TRIGGER,
        _READ_CONNECTIONS,
        _MAKE_CONNECTION,
        _READ_VARIABLES,
        _MAKE_VARIABLE,
        _MAKE_POOL,
        _READ_AUDIT_LOG,
    ],
}


@pytest.mark.parametrize("call", _MAY["Admin"], ids=lambda call: f"{call[0]} {call[1]}")
@pytest.mark.parametrize("role", _MAY)
def test_role_may_do_what_it_may_and_nothing_else(
    people: dict[str, Person], role: str, call: tuple[str, str, Any]
) -> None:
    """F5: a Viewer cannot trigger, a User can; an Op edits connections, variables and pools as well."""
    method, path, body = call
    filled = json.loads(json.dumps(body).replace("{role}", role.lower()))
    answer = people[role].api.request(method, path, json=filled)
    if call in _MAY[role]:
        assert answer.is_success, f"{answer.status_code} {answer.text[:500]}"
    else:
        assert answer.status_code == 403, f"{answer.status_code} {answer.text[:500]}"


@pytest.mark.parametrize("role", _MAY)
def test_only_an_admin_sees_users(people: dict[str, Person], role: str) -> None:
    """F5, in the web UI's own session."""
    answer = people[role].browser.get("/auth/fab/v1/users")
    if role != "Admin":
        assert answer.status_code == 403, f"{answer.status_code} {answer.text[:500]}"
        return
    assert answer.status_code == 200, answer.text[:500]
    roles = {user["username"]: [its["name"] for its in user["roles"]] for user in answer.json()["users"]}
    assert roles == {"admin": ["Admin"], "op": ["Op"], "user": ["User"], "viewer": ["Viewer"]}


@pytest.mark.parametrize("role", _MAY)
def test_everybody_who_is_signed_in_sees_the_edge_workers(people: dict[str, Person], role: str) -> None:
    """And which DAGs each one has: that is how a publisher knows that a release has arrived."""
    answer = people[role].api.http.get("/airbridge/v1/workers")
    assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}"
    assert isinstance(answer.json()["workers"], list)


@pytest.mark.parametrize(
    "path", ["/api/v2/dags", "/api/v2/connections", "/auth/fab/v1/users", "/airbridge/v1/workers"]
)
def test_nobody_gets_nothing(stack: Stack, path: str) -> None:
    """F5."""
    answer = httpx.get(f"{stack.api.base}{path}", trust_env=False, timeout=60)
    assert answer.status_code == 401, f"{answer.status_code} {answer.text[:500]}"


@pytest.mark.parametrize(
    ("user", "password"), [("admin", "admin"), ("admin", "airflow"), ("viewer", ""), ("nobody", "nobody")]
)
def test_wrong_password_is_refused(stack: Stack, people: dict[str, Person], user: str, password: str) -> None:
    """F5: and there is no default password."""
    assert people
    answer = httpx.post(
        f"{stack.api.base}/auth/token",
        json={"username": user, "password": password},
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code in (400, 401), f"{answer.status_code} {answer.text[:500]}"
    assert "access_token" not in answer.text
