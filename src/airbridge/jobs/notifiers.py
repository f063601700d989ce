"""Tell people that a job failed, through Airflow's notifiers. What generated DAG files call.

A task's callback runs on the worker that ran it; when the worker is lost, and when a run misses its deadline,
in the DAG processor. Both get connections from Airflow, never from a file of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from airflow.sdk import BaseNotifier

__all__ = ["WebhookNotifier", "tell_of_failure", "tell_of_missed_deadline"]

_TIMEOUT_SECONDS: Final = 5
"""A task that has failed gets 20 s for its callbacks (``[core] task_success_overtime``)."""

_TIMED_OUT: Final = "timed_out"
"""What the scheduler says of a run that missed its deadline."""

_MAX_ERROR: Final = 2000

Callback = Callable[[Mapping[str, Any]], None]

# Rendered by Airflow, with the context of a task, or with the little that there is for a whole run.
_SUBJECT: Final = "{{ dag.dag_id }} {% if ti is defined %}failed{% else %}missed its deadline{% endif %}"
_WHERE: Final = "run {{ run_id }}{% if ti is defined %}, attempt {{ ti.try_number }}{% endif %}"
# What a job says may hold anything: it must neither ring everybody in Slack nor become HTML.
_SLACK: Final = (
    f"*{_SUBJECT}*\n{_WHERE}"
    "{% if exception is defined and exception %}\n"
    f"{{{{ (exception | string)[:{_MAX_ERROR}]"
    " | replace('&', '&amp;') | replace('<', '&lt;') | replace('>', '&gt;') }}{% endif %}"
    "{% if ti is defined and ti.log_url %}\n{{ ti.log_url }}{% endif %}"
)
_HTML: Final = (
    f"<p><b>{_SUBJECT}</b><br>{_WHERE}</p>"
    "{% if exception is defined and exception %}"
    f"<pre>{{{{ (exception | string)[:{_MAX_ERROR}] | e }}}}</pre>{{% endif %}}"
    '{% if ti is defined and ti.log_url %}<p><a href="{{ ti.log_url | e }}">log</a></p>{% endif %}'
)


class WebhookNotifier(BaseNotifier):  # type: ignore[misc]
    """Posts what failed, as JSON, to an HTTP endpoint.

    Args:
        connection: Airflow connection of type ``http``; its extra fields are sent as headers.
        endpoint: path below the connection's address.
    """

    def __init__(self, connection: str, endpoint: str = "") -> None:
        super().__init__()
        self.connection = connection
        self.endpoint = endpoint

    def notify(self, context: Mapping[str, Any]) -> None:
        """Post it; Airflow logs what goes wrong here."""
        from airflow.providers.http.hooks.http import HttpHook

        hook = HttpHook(method="POST", http_conn_id=self.connection)
        hook.run(
            self.endpoint,
            data=json.dumps(_facts(context)),
            headers={"Content-Type": "application/json"},
            extra_options={"timeout": _TIMEOUT_SECONDS},
        )


def tell_of_failure(**targets: Any) -> list[Callback]:
    """Return callbacks for a task whose last attempt failed; ``targets`` as in :func:`_notifiers`."""
    return _notifiers(**targets)


def tell_of_missed_deadline(**targets: Any) -> list[Callback]:
    """Return callbacks for a DAG run that missed its deadline.

    They stay silent for other failures of the run: the task's own callback has told of those.
    """
    return [_OnlyWhenTimedOut(notifier) for notifier in _notifiers(**targets)]


class _OnlyWhenTimedOut:
    def __init__(self, notifier: Callback) -> None:
        self._notifier = notifier

    def __call__(self, context: Mapping[str, Any]) -> None:
        if context.get("reason") == _TIMED_OUT:
            self._notifier(context)


def _notifiers(
    *,
    slack_connection: str = "",
    email_to: Sequence[str] = (),
    email_connection: str = "smtp_default",
    email_from: str | None = None,
    webhook_connection: str = "",
    webhook_endpoint: str = "",
) -> list[Callback]:
    """Return one notifier for each target that is given."""
    found: list[Callback] = []
    if slack_connection:
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        found.append(
            SlackWebhookNotifier(
                slack_webhook_conn_id=slack_connection, text=_SLACK, timeout=_TIMEOUT_SECONDS
            )
        )
    if email_to:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        found.append(
            SmtpNotifier(
                to=list(email_to),
                from_email=email_from,
                subject=_SUBJECT,
                html_content=_HTML,
                smtp_conn_id=email_connection,
            )
        )
    if webhook_connection:
        found.append(WebhookNotifier(webhook_connection, webhook_endpoint))
    return found


def _facts(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a webhook is told."""
    task = context.get("ti")
    error = context.get("exception")
    return {
        "event": "job_failed" if task is not None else "deadline_missed",
        "dag_id": context["dag"].dag_id,
        "run_id": context.get("run_id"),
        "task_id": getattr(task, "task_id", None),
        "try_number": getattr(task, "try_number", None),
        "error": str(error)[:_MAX_ERROR] if error is not None else None,
        "log_url": getattr(task, "log_url", None),
    }
