"""Generated DAGs really run, in the control-plane image. That they run on the edge is proved end to end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from concurrent.futures import Future

    from jobs_in_image import Airflow, Finished

Runs = dict[str, "Future[Finished]"]


def test_plain_job_runs(runs: Runs) -> None:
    done = runs["plain"].result()
    assert done.code == 0, done.output
    assert "hello from a job" in done.output
    assert "job orders.jobs.hello ended with exit code 0" in done.output


def test_task_is_tested_from_the_command_line(runs: Runs) -> None:
    done = runs["task"].result()
    assert done.code == 0, done.output
    assert "imported 4 orders, 550.00 in all" in done.output


def test_arguments_of_the_run_reach_the_job_as_they_are(runs: Runs) -> None:
    done = runs["arguments"].result()
    assert done.code == 0, done.output
    for line in ("argument 0: --one", "argument 1: two words", "argument 2: {{ ds }}"):
        assert line in done.output
    assert "argument 3" not in done.output


def test_jobs_own_arguments_are_filled_in(runs: Runs) -> None:
    done = runs["own arguments"].result()
    assert done.code == 0, done.output
    assert "argument 1: good morning" in done.output


def test_arguments_of_a_wrong_type_are_refused_before_the_job_runs(runs: Runs) -> None:
    done = runs["wrong arguments"].result()
    assert done.code != 0
    assert "Invalid input for param args" in done.output
    assert "said to stdout" not in done.output


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ("exit code", "job orders.jobs.repeat_args ended with exit code 3"),
        ("system exit", "job orders.jobs.old_script ended with exit code 4"),
        ("said by exit", "job orders.jobs.old_script ended with exit code 1"),
        ("exception", "by nothing"),
        ("memory", "MemoryError"),
        ("timeout", "Timeout"),
    ],
)
def test_job_that_fails_fails_the_run_and_says_why(runs: Runs, run: str, line: str) -> None:
    done = runs[run].result()
    assert done.code != 0, done.output
    assert line in done.output


def test_text_of_sys_exit_is_in_the_log(runs: Runs) -> None:
    assert "enough" in runs["said by exit"].result().output


def test_clean_sys_exit_is_a_success(runs: Runs) -> None:
    done = runs["clean exit"].result()
    assert done.code == 0, done.output
    assert "leaving with 0" in done.output


def test_job_uses_modules_and_data_of_its_package(runs: Runs) -> None:
    done = runs["helper"].result()
    assert done.code == 0, done.output
    assert "imported 4 orders, 550.00 in all" in done.output


def test_everything_that_a_job_says_is_in_the_log(runs: Runs) -> None:
    done = runs["output"].result()
    assert done.code == 0, done.output
    for line in (
        "said to stdout",
        "said to stderr",
        "said to the log",
        "warned in the log",
        "warned by warnings",
    ):
        assert line in done.output


def test_hostile_texts_arrive_as_they_are(runs: Runs) -> None:
    done = runs["hostile"].result()
    assert done.code == 0, done.output
    assert repr(["'\"\\\n}}", "# x"]) in done.output


def test_webhook_is_told_what_failed(airflow: Airflow, runs: Runs) -> None:
    done = runs["webhook"].result()
    assert done.code != 0
    (line,) = airflow.run("cat", "/tmp/told", check=True).output.splitlines()
    path, _, body = line.partition(" ")
    told = json.loads(body)
    assert path == "/alarm"
    assert told["event"] == "job_failed"
    assert (told["dag_id"], told["task_id"], told["try_number"]) == ("probe_bell", "run", 1)


def test_callbacks_of_a_run_speak_of_a_missed_deadline_only(airflow: Airflow) -> None:
    script = """
import sys
from types import SimpleNamespace
from airflow.models.dagbag import DagBag
bag = DagBag("/dags/probe/dags/probe_everything.py", include_examples=False)
dag = bag.dags["probe_everything"]
told = []
for callback in dag.on_failure_callback:
    notifier = callback._notifier
    def notify(context, notifier=notifier):
        text = getattr(notifier, "text", "") or getattr(notifier, "html_content", "")
        told.append((type(notifier).__name__, text))
    notifier.notify = notify
    for reason in ("task_failure", "timed_out"):
        callback({"dag": dag, "run_id": "r<1>", "reason": reason})
for name, text in told:
    print("TOLD", name, repr(text))
"""
    done = airflow.run("python", "-c", script)
    lines = [line for line in done.output.splitlines() if line.startswith("TOLD")]
    assert [line.split()[1] for line in lines] == [
        "SlackWebhookNotifier",
        "SmtpNotifier",
        "WebhookNotifier",
    ], done.output
    assert "*probe_everything missed its deadline*" in lines[0]
    assert "<b>probe_everything missed its deadline</b>" in lines[1]


def test_messages_of_failures_render_and_are_escaped(airflow: Airflow) -> None:
    script = """
from types import SimpleNamespace
from airflow.models.dagbag import DagBag
bag = DagBag("/dags/probe/dags/probe_everything.py", include_examples=False)
dag = bag.dags["probe_everything"]
context = {"dag": dag, "run_id": "r1", "ti": SimpleNamespace(try_number=3, log_url="http://ui/log"),
           "exception": ValueError("<!channel> & <script>")}
for notifier in dag.get_task("run").on_failure_callback:
    notifier.notify = lambda context: None
    notifier(dict(context))
    print("TOLD", repr(getattr(notifier, "text", "") or getattr(notifier, "html_content", "")))
import json
from airbridge.jobs.notifiers import _facts
print("FACTS", json.dumps(_facts(context)))
"""
    done = airflow.run("python", "-c", script)
    (facts,) = [line.partition(" ")[2] for line in done.output.splitlines() if line.startswith("FACTS")]
    assert json.loads(facts)["error"] == "<!channel> & <script>"
    slack, mail, _ = [line for line in done.output.splitlines() if line.startswith("TOLD")]
    for text in (slack, mail):
        assert "run r1, attempt 3" in text
        assert "&lt;!channel&gt; &amp; &lt;script&gt;" in text
        assert "http://ui/log" in text
