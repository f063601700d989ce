"""What brings a failed run back: retry, clear, mark success, backfill (F6). All on the edge."""

from __future__ import annotations

from _stack import Run, Stack, until


def test_failed_task_is_retried_by_itself(stack: Stack, recovery_runs: dict[str, Run]) -> None:
    finished = stack.wait_for_run(recovery_runs["e2e_fails_once"])
    work = finished.one("work")
    assert (work.try_number, work.hostname) == (2, "a")
    assert "the first attempt fails" in stack.log_from_s3(finished.run, "work", 1)


def test_failed_task_is_cleared_and_runs_again_with_what_follows(
    stack: Stack, recovery_runs: dict[str, Run]
) -> None:
    run = recovery_runs["e2e_fails_until_mended"]
    failed = stack.wait_for_run(run, "failed")
    assert failed.one("after").state == "upstream_failed"

    stack.api.post("/variables", {"key": "e2e_mended", "value": "yes"})
    cleared = stack.api.post(
        f"/dags/{run.dag_id}/clearTaskInstances",
        {
            "dry_run": False,
            "dag_run_id": run.run_id,
            "task_ids": ["work"],
            "include_downstream": True,
            "only_failed": True,
        },
    )
    assert {row["task_id"] for row in cleared["task_instances"]} == {"work", "after"}

    finished = stack.wait_for_run(run)
    assert (finished.one("work").try_number, finished.one("work").hostname) == (2, "a")
    assert "it was mended" in stack.log_from_s3(run, "work", 2)
    assert "nobody has mended it yet" in stack.log_from_s3(run, "work", 1)
    assert finished.one("after").state == "success"


def test_failed_task_is_marked_as_success_and_the_rest_goes_on(
    stack: Stack, recovery_runs: dict[str, Run]
) -> None:
    run = recovery_runs["e2e_always_fails"]
    stack.wait_for_run(run, "failed")
    stack.api.patch(f"{run.path}/taskInstances/work", {"new_state": "success"}, update_mask="new_state")
    stack.api.post(
        f"/dags/{run.dag_id}/clearTaskInstances",
        {"dry_run": False, "dag_run_id": run.run_id, "task_ids": ["after"], "only_failed": True},
    )
    finished = stack.wait_for_run(run)
    # Marked, not run again.
    assert (finished.one("work").state, finished.one("work").try_number) == ("success", 1)
    assert (finished.one("after").state, finished.one("after").hostname) == ("success", "a")


def test_backfill_runs_every_day_that_was_asked_for(stack: Stack, recovery_runs: dict[str, Run]) -> None:
    assert recovery_runs

    def days() -> list[dict[str, str]]:
        rows = stack.api.get("/dags/e2e_daily/dagRuns", run_type=["backfill"], limit=100)["dag_runs"]
        return list(rows) if len(rows) == 3 else []

    rows = until("three runs of the backfill", days)
    assert sorted(row["logical_date"][:10] for row in rows) == ["2024-01-02", "2024-01-03", "2024-01-04"]
    for row in rows:
        finished = stack.wait_for_run(Run("e2e_daily", row["dag_run_id"]))
        assert finished.one("work").hostname == "a"
        assert f"the day is {row['logical_date'][:10]}" in stack.log_from_s3(finished.run, "work")


def test_deferred_task_goes_on_although_the_end_of_its_first_part_is_heard_of_late(
    stack: Stack, recovery_runs: dict[str, Run]
) -> None:
    """F7, D3: the worker's late "success" of the first part is not taken for the second part's end."""
    finished = stack.wait_for_run(recovery_runs["e2e_late_part"])
    assert (finished.one("work").try_number, finished.one("work").hostname) == (1, "a")
    text = stack.log_from_s3(finished.run, "work")
    assert "the second part has run" in text
    assert "the first part has run" in text
