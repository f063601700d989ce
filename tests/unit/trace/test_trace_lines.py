"""The lines of one attempt, out of everybody's logs, in the order of time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airbridge.trace.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MINE, OTHER = "01a1feee-9ef2-7f1f-8963-14b081adb7ba", "01a1feee-9ef3-7b3a-b4fb-c5346137ebaa"


def _documents(folder: Path) -> list[str]:
    task_log = [
        {"timestamp": "2026-11-21T16:26:56.006439", "event": "started", "correlation_id": MINE},
        {"timestamp": "2026-11-21T16:26:56.1", "event": "somebody else's", "correlation_id": OTHER},
    ]
    attempt = {
        "id": MINE,
        "dag_id": "etl",
        "task_id": "load",
        "run_id": "manual__1",
        "map_index": 3,
        "try_number": 2,
        "state": "success",
        "log": [*(json.dumps(line) for line in task_log), "no JSON", ""],
    }
    (folder / "attempts.json").write_text(json.dumps([attempt]))
    gateway = {
        "request": {"method": "PATCH", "uri": "/edge_worker/v1/x"},
        "status": 200,
        "duration": 0.0104,
        "resp_headers": {"X-Airbridge-Correlation-Id": [MINE]},
    }
    access = {
        "logger": "airbridge.access",
        "call": "PATCH /edge_worker/v1/x",
        "status": 200,
        "duration_ms": 4.2,
        "correlation_id": MINE,
    }
    worker = {"event": "Launched", "level": "info", "correlation_id": MINE, "pid": 7}
    (folder / "control.log").write_text(
        f"\x1b[2Kgateway-1     | 2026-11-21T16:26:57.123456789Z {json.dumps(gateway)}\n"
        f"api-server-1  | 2026-11-21T16:26:57.1Z {json.dumps(access)}\n"
        f"api-server-1  | 2026-11-21T16:26:57.2Z {json.dumps({**access, 'correlation_id': OTHER})}\n"
        "no line of compose\n"
    )
    (folder / "edge.log").write_text(
        f"edge-worker-1  | 2026-11-21T16:26:55.5Z {json.dumps(worker)}\n"
        f"edge-worker-1  | 2026-11-21T16:26:55.6Z Traceback that names {MINE}\n"
    )
    logs = [f"control-plane={folder}/control.log", f"plant-7={folder}/edge.log"]
    return [str(folder / "attempts.json"), *logs]


def test_lines_of_the_attempt_come_in_the_order_of_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_documents(tmp_path)) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == f"{MINE}  etl load[3] manual__1, try 2: success"
    assert [line.split() for line in lines] == [
        ["16:26:55.500", "plant-7", "edge-worker", "Launched", "pid=7"],
        ["16:26:55.600", "plant-7", "edge-worker", "Traceback", "that", "names", MINE],
        ["16:26:56.006", "task", "log", "started"],
        ["16:26:57.100", "control-plane", "api-server", "PATCH", "/edge_worker/v1/x", "200", "4.2", "ms"],
        ["16:26:57.123", "control-plane", "gateway", "PATCH", "/edge_worker/v1/x", "200", "10", "ms"],
    ]


def test_json_holds_each_line_as_it_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_documents(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [attempt["id"] for attempt in document["attempts"]] == [MINE]
    assert [step["service"] for step in document["steps"]] == [
        "edge-worker",
        "edge-worker",
        "task log",
        "api-server",
        "gateway",
    ]
    assert document["steps"][-1]["line"]["resp_headers"] == {"X-Airbridge-Correlation-Id": [MINE]}
