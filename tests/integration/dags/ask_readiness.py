"""Runs inside the control-plane image: asks a URL for readiness as FreshPoC does, prints one JSON line."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time

import httpx


class _Attempts(logging.Handler):
    """Counts the attempts that were logged as failed."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "is not ready (attempt" in record.getMessage()


def main() -> None:
    """Wait for a service that never comes."""
    spec = importlib.util.spec_from_file_location("fresh_poc_e2e", "/dags/fresh_poc/dags/fresh_poc_e2e.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    attempts = _Attempts()
    logging.getLogger("fresh_poc_e2e").addHandler(attempts)
    began, error = time.monotonic(), ""
    with httpx.Client(base_url=sys.argv[1], trust_env=False) as client:
        try:
            module._wait_until_ready(client, "miner")
        except ConnectionError as problem:
            error = str(problem)
    print(json.dumps({"attempts": attempts.count, "seconds": time.monotonic() - began, "error": error}))


main()
