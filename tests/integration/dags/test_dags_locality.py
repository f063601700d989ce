"""The patterns of docs/locality.md, parsed in the control plane's image: tasks go where the page says."""

from __future__ import annotations

from typing import Any

import pytest
from dags_in_image import probe
from tests.locality_docs import patterns

# Of each task: queue, executor, pool, slots.
DEFAULT = ("default", None, "default_pool", 1)
BERLIN = ("berlin", None, "default_pool", 1)
HAMBURG = ("hamburg", None, "default_pool", 1)
ORDERS = ("data-orders", None, "default_pool", 1)
WANTED = {
    "locality_one_site": {"read_meter": BERLIN, "convert": DEFAULT},
    "locality_parts": {
        "plan": BERLIN,
        "berlin.collect": BERLIN,
        "berlin.check": BERLIN,
        "hamburg.collect": HAMBURG,
        "hamburg.check": HAMBURG,
        "report": DEFAULT,
    },
    "locality_data": {"files": ORDERS, "lines": ORDERS, "total": DEFAULT},
    "locality_hardware": {"train": ("gpu", None, "default_pool", 4), "announce": DEFAULT},
    "locality_fallback": {"at_berlin": BERLIN, "at_hamburg": HAMBURG, "use": DEFAULT},
    "locality_pools": {
        "solve": ("berlin", None, "berlin-licences", 1),
        "upload": ("berlin", None, "berlin-line", 1),
    },
    "locality_mixed": {"measure": BERLIN, "file_it": ("berlin", "LocalExecutor", "default_pool", 1)},
    "locality_cache": {"first": DEFAULT, "later": DEFAULT},
    "locality_clear_caches": {
        "plant-7": ("plant-7", None, "default_pool", 1),
        "plant-8": ("plant-8", None, "default_pool", 1),
    },
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("locality")
    folder.chmod(0o755)
    for dag_id, text in patterns().items():
        (folder / f"{dag_id}.py").write_text(text)
    return probe(folder, hash_seed=1)


def test_every_pattern_is_a_dag_without_an_import_error(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert set(parsed["dags"]) == set(WANTED)


@pytest.mark.parametrize("dag_id", WANTED)
def test_each_task_goes_where_the_page_says(parsed: dict[str, Any], dag_id: str) -> None:
    tasks = parsed["dags"][dag_id]["tasks"]
    found = {
        name: (task["queue"], task["executor"], task["pool"], task["slots"]) for name, task in tasks.items()
    }
    assert found == WANTED[dag_id]
    assert sorted(found) == parsed["dags"][dag_id]["scheduled_tasks"]


def test_fallback_runs_when_the_first_site_failed_and_what_follows_in_either_case(
    parsed: dict[str, Any],
) -> None:
    tasks = parsed["dags"]["locality_fallback"]["tasks"]
    assert tasks["at_hamburg"]["upstream"] == ["at_berlin"]
    assert tasks["at_hamburg"]["trigger_rule"] == "all_failed"
    assert tasks["use"]["upstream"] == ["at_berlin", "at_hamburg"]
    assert tasks["use"]["trigger_rule"] == "none_failed_min_one_success"
