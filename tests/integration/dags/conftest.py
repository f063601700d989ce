"""The example DAGs inside the real control-plane image, and the demo services beside it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dags_in_image import Airflow, Finished, Run, Site, probe

if TYPE_CHECKING:
    from collections.abc import Iterator

DAGS = Path(__file__).parents[3] / "dags"
# Two cores.
RUNS_AT_A_TIME = 3


@pytest.fixture(scope="session")
def dags_folder() -> Path:
    """The repository's ``dags/``."""
    return DAGS


@pytest.fixture(scope="session")
def parsed() -> tuple[dict[str, Any], dict[str, Any]]:
    """What two parses of all example DAGs gave, each in a container without any network."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda seed: probe(DAGS, hash_seed=seed), (1, 2))
    return first, second


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A network with the five demo services, hardened as in the compose file."""
    with Site.running() as started:
        yield started


@pytest.fixture(scope="session")
def airflow(site: Site) -> Iterator[Airflow]:
    """An Airflow with an empty database of its own, no executor, in the network of the services."""
    with Airflow.running(site.network, DAGS) as started:
        yield started


@pytest.fixture(scope="session")
def runs(airflow: Airflow) -> Iterator[dict[str, Future[Run]]]:
    """Every DAG run that the tests look at, a few at a time: each one mostly waits."""
    with ThreadPoolExecutor(RUNS_AT_A_TIME) as pool:
        yield {
            name: pool.submit(airflow.run_dag, dag_id, **conf)
            for name, (dag_id, conf) in {
                "stopped": ("FreshPoC_E2E", {"fail_at": "analyzer"}),
                "recovered": ("FreshPoC_E2E", {"fail_at": "miner", "fail_times": 2}),
                "unknown repository": ("FreshPoC_E2E", {"repo": "https://example.org/unknown"}),
                "deferred": ("feature_tour_deferral", {}),
                "mapped on one host": ("feature_tour_mapping", {}),
            }.items()
        }


@pytest.fixture(scope="session")
def readiness(airflow: Airflow) -> Iterator[Future[Finished]]:
    """What comes of waiting for a service that never comes; nothing listens on port 9."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(airflow.run, "python", "/tests/ask_readiness.py", "http://127.0.0.1:9")
