"""Which call is which: what the worker and its tasks ask, and what of it can be delivered later."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import unquote

__all__ = [
    "EDGE_API",
    "EXECUTION_API",
    "OWN_API",
    "Call",
    "Kind",
    "held_s",
    "job_of",
    "jobs_of",
    "read_call",
    "task_instance_of",
]

EDGE_API: Final = "/edge_worker/v1/"
EXECUTION_API: Final = "/execution/"
OWN_API: Final = "/airbridge/v1/"

_JOB: Final = "(?P<dag>[^/]+)/(?P<task>[^/]+)/(?P<run>[^/]+)/(?P<try>[^/]+)/(?P<map>[^/]+)"
_ID: Final = "(?P<id>[^/]+)"


class Kind(Enum):
    """What kind of call; decides what becomes of it while the control plane is away."""

    REGISTRATION = auto()
    HEARTBEAT = auto()
    """The worker's own."""
    FETCH = auto()
    JOBS = auto()
    """The question for jobs that is held (see :mod:`airbridge.controlplane._dispatch`)."""
    LOG = auto()
    """A piece of a job's log: live view only, the whole log goes to S3."""
    JOB_STATE = auto()
    TASK_HEARTBEAT = auto()
    TASK_REPORT = auto()
    """What a task says and needs no answer to: its states, XComs, rendered fields."""
    QUESTION = auto()
    """Everything else: needs the control plane's own answer."""

    @property
    def is_report(self) -> bool:
        """Whether it can be acknowledged now and delivered later."""
        return self in (Kind.LOG, Kind.JOB_STATE, Kind.TASK_REPORT)


_EDGE: Final = (
    (Kind.REGISTRATION, "POST", re.compile("worker/[^/]+")),
    (Kind.HEARTBEAT, "PATCH", re.compile("worker/[^/]+")),
    (Kind.FETCH, "POST", re.compile("jobs/fetch/[^/]+")),
    (Kind.LOG, "POST", re.compile(f"logs/push/{_JOB}")),
    (Kind.JOB_STATE, "PATCH", re.compile(f"jobs/state/{_JOB}/(?P<state>[^/]+)")),
)
_EXECUTION: Final = (
    (Kind.TASK_HEARTBEAT, "PUT", re.compile(f"task-instances/{_ID}/heartbeat")),
    (Kind.TASK_REPORT, "PATCH", re.compile(f"task-instances/{_ID}/(?:state|skip-downstream)")),
    (Kind.TASK_REPORT, "PUT", re.compile(f"task-instances/{_ID}/rtif")),
    (Kind.TASK_REPORT, "POST", re.compile("xcoms/[^/]+/[^/]+/[^/]+/[^/]+")),
)
_OWN: Final = ((Kind.JOBS, "POST", re.compile("jobs/[^/]+")),)
_ENDED: Final = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class Call:
    """One call, told by method and path."""

    kind: Kind
    api: str
    """:data:`EDGE_API`, :data:`EXECUTION_API` or :data:`OWN_API`."""
    path: str
    """Decoded, below the API's prefix: what a token names as its method."""
    job: str = ""
    """The job that it is about, where the path says so."""
    ends_job: bool = False
    """Whether it is the last call about that job."""

    @property
    def accepted(self) -> int:
        """Status that acknowledges a report."""
        return 200 if self.api == EDGE_API else 204  # neither client reads the body


def _job_key(dag: str, task: str, run: str, attempt: object, index: object) -> str:
    return "/".join((dag, task, run, str(attempt), str(index)))


def read_call(verb: str, target: str) -> Call | None:
    """Return which call this is; ``None``: none that goes through the courier.

    :param target: path and query as called
    """
    raw = target.partition("?")[0]
    for api, rules in ((EDGE_API, _EDGE), (EXECUTION_API, _EXECUTION), (OWN_API, _OWN)):
        if not raw.startswith(api):
            continue
        path = raw.removeprefix(api)
        for kind, wanted, pattern in rules:
            match = pattern.fullmatch(path) if verb == wanted else None
            if match is None:
                continue
            named = {name: unquote(value) for name, value in match.groupdict().items()}
            job = ""
            if "dag" in named:
                job = _job_key(named["dag"], named["task"], named["run"], named["try"], named["map"])
            return Call(kind, api, unquote(path), job, ends_job=named.get("state") in _ENDED)
        # Of AirBridge's own calls, the others are for whoever asks the uplink.
        return None if api == OWN_API else Call(Kind.QUESTION, api, unquote(path))
    return None


def job_of(answer: bytes) -> tuple[str, str] | None:
    """Return task instance and job that an answer to a fetch hands out; ``None``: it hands out none."""
    try:
        return _given(json.loads(answer))
    except (ValueError, TypeError, KeyError):
        return None


def jobs_of(answer: bytes) -> dict[str, str]:
    """Return the job of each task instance that an answer to the held question hands out."""
    try:
        return dict(_given(one) for one in json.loads(answer)["jobs"])
    except (ValueError, TypeError, KeyError):
        return {}


def held_s(question: bytes) -> float:
    """Return for how many seconds the worker lets its question for jobs be held; 0: it wants to know now."""
    try:
        return max(0.0, float(json.loads(question)["wait"]))
    except (ValueError, TypeError, KeyError):
        return 0.0


def _given(job: Any) -> tuple[str, str]:
    key = _job_key(job["dag_id"], job["task_id"], job["run_id"], job["try_number"], job["map_index"])
    return str(job["command"]["ti"]["id"]), key


def task_instance_of(authorization: str) -> str:
    """Return which task instance a task's token names; empty where it names none.

    Nothing is decided by it but the order of delivery, so the signature is not looked at.
    """
    try:
        claims = authorization.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])
    except (IndexError, ValueError, TypeError, KeyError):
        return ""
