"""FreshPoC end to end: five HTTP services beside the data, called one after the other."""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import Param, chain, dag, get_current_context, task

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)

DEFAULT_REPO = "https://github.com/dbt-labs/jaffle-shop-classic"

READY_ATTEMPTS = 30
READY_TIMEOUT_SECONDS = 3.0
READY_PAUSE_SECONDS = 1.0
CONNECT_TIMEOUT_SECONDS = 3.0
# Below the task's own timeout, so that the error in the log names the service and not only a timeout.
ANSWER_TIMEOUT_SECONDS = 28 * 60.0
TASK_TIMEOUT = timedelta(minutes=30)
RETRIES = 3
DEFAULT_RETRY_DELAY_SECONDS = 30.0
MAX_RETRY_DELAY = timedelta(minutes=10)
# Answers of the 4xx family that a later attempt may well turn into a success.
RETRYABLE_CLIENT_ERRORS = frozenset({408, 425, 429})


class Step(NamedTuple):
    """One task of the pipeline and the service behind it."""

    task_id: str
    service: str
    port: int
    path: str


STEPS = (
    Step("ingestion_trigger", "ingestion", 8011, "/trigger"),
    Step("miner_run", "miner", 8012, "/run"),
    Step("analyzer_run", "analyzer", 8013, "/run"),
    Step("writer_apply", "writer", 8014, "/apply"),
    Step("report_generate", "reporting", 8016, "/generate"),
)

DOC = f"""
### FreshPoC_E2E

`{"` → `".join(step.task_id for step in STEPS)}`, strictly one after the other. Each task waits until its
service answers `/healthz` ({READY_ATTEMPTS} attempts, {READY_TIMEOUT_SECONDS:.0f} s timeout,
{READY_PAUSE_SECONDS:.0f} s apart) and then calls it once. The run id goes with every call and the services
are idempotent per run id, so a retry is safe.

**Failures.** A service that does not answer, or answers 5xx, 408, 425 or 429, is tried again: {RETRIES}
retries with exponential backoff. Any other 4xx is an answer that will not change, so the task fails at once.
A failed task stops the run: what follows is `upstream_failed`.

| Parameter of a run | Meaning |
|---|---|
| `repo` | the repository to ingest |
| `fail_at` | demonstration: this service answers 500 in this run |
| `fail_times` | how often it does, then it recovers; 0 = always |

| Environment | Read by | Meaning |
|---|---|---|
| `FRESH_POC_<SERVICE>_URL` | edge worker, when a task runs | base URL, by default `http://<service>:<port>` |
| `FRESH_POC_RETRY_DELAY_SECONDS` | dag-processor | first backoff, default {DEFAULT_RETRY_DELAY_SECONDS:.0f} |
| `FRESH_POC_QUEUE` | dag-processor | queue of the edge hosts beside the services, by default `default` |
"""


def _retry_delay() -> timedelta:
    """Base of the backoff. The scheduler uses the value that the dag-processor saw; workers never do."""
    name = "FRESH_POC_RETRY_DELAY_SECONDS"
    text = os.environ.get(name) or str(DEFAULT_RETRY_DELAY_SECONDS)
    try:
        delay = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        delay = timedelta(seconds=-1)
    if not timedelta(0) < delay <= MAX_RETRY_DELAY:
        raise ValueError(
            f"{name} is {text!r}: set it to seconds above 0, at most {MAX_RETRY_DELAY.total_seconds():.0f}"
        )
    return delay


def _base_url(service: str, port: int) -> str:
    """Where the service is, as this edge host sees it."""
    return (os.environ.get(f"FRESH_POC_{service.upper()}_URL") or f"http://{service}:{port}").rstrip("/")


def _wait_until_ready(client: httpx.Client, service: str) -> None:
    """Return once ``/healthz`` answers 2xx; ConnectionError after the last attempt."""
    import httpx

    reason = ""
    for attempt in range(1, READY_ATTEMPTS + 1):
        try:
            answer = client.get("/healthz", timeout=READY_TIMEOUT_SECONDS)
            if answer.is_success:
                _log.info("%s is ready (attempt %d of %d)", service, attempt, READY_ATTEMPTS)
                return
            reason = f"HTTP {answer.status_code}"
        except httpx.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
        _log.warning("%s is not ready (attempt %d of %d): %s", service, attempt, READY_ATTEMPTS, reason)
        if attempt < READY_ATTEMPTS:
            time.sleep(READY_PAUSE_SECONDS)
    raise ConnectionError(
        f"{service} at {client.base_url} is not ready after {READY_ATTEMPTS} attempts, last: {reason} | "
        f"fix: start the service, or set FRESH_POC_{service.upper()}_URL on the edge host"
    )


def _checked(answer: httpx.Response, service: str) -> Any:
    """The JSON of a good answer; AirflowFailException when another attempt cannot help."""
    from airflow.exceptions import AirflowFailException

    if answer.is_success:
        return answer.json()
    message = f"{service} answered HTTP {answer.status_code} to {answer.url}: {answer.text[:500].strip()}"
    if answer.is_client_error and answer.status_code not in RETRYABLE_CLIENT_ERRORS:
        raise AirflowFailException(message)
    raise RuntimeError(message)


@dag(
    dag_id="FreshPoC_E2E",
    description="Ingest, mine, analyse, write and report a repository through five HTTP services",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "repo": Param(DEFAULT_REPO, type="string", minLength=1, maxLength=500, title="Repository"),
        "fail_at": Param(
            "",
            type="string",
            enum=["", *(step.service for step in STEPS)],
            title="Failing service",
            description="Demonstration: this service answers 500 in this run",
        ),
        "fail_times": Param(
            0,
            type="integer",
            minimum=0,
            maximum=100,
            title="Failures before it recovers",
            description="0: the service fails every time",
        ),
    },
    default_args={
        "retries": RETRIES,
        "retry_delay": _retry_delay(),
        "retry_exponential_backoff": True,
        "max_retry_delay": MAX_RETRY_DELAY,
        "execution_timeout": TASK_TIMEOUT,
        "queue": os.environ.get("FRESH_POC_QUEUE") or "default",
    },
    tags=["fresh_poc", "poc", "example"],
    doc_md=DOC,
)
def _fresh_poc_e2e() -> None:
    @task(multiple_outputs=False)
    def call_service(service: str, port: int, path: str) -> Any:
        import httpx

        context = get_current_context()
        params, run_id = context["params"], context["run_id"]
        query: dict[str, str] = {"run_id": run_id}
        if service == STEPS[0].service:
            query["repo"] = params["repo"]
        if params["fail_at"] == service:
            query |= {"fail": "1", "fail_times": str(params["fail_times"])}
        timeout = httpx.Timeout(ANSWER_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        # trust_env off: the services are neighbours, a proxy for the outside world is not asked.
        with httpx.Client(base_url=_base_url(service, port), timeout=timeout, trust_env=False) as client:
            _wait_until_ready(client, service)
            answer = client.get(path, params=query, headers={"X-Attempt": str(context["ti"].try_number)})
        result = _checked(answer, service)
        _log.info("%s answered: %s", service, result)
        return result

    chain(
        *(call_service.override(task_id=step.task_id)(step.service, step.port, step.path) for step in STEPS)
    )


_fresh_poc_e2e()
