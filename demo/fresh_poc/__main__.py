"""``python3 -m fresh_poc [service] [--check]``: run a service, or ask a running one for its health."""

from __future__ import annotations

import argparse
import os
import sys
import urllib.request

from ._errors import SettingsError
from ._logging import configure
from ._server import Server, serve
from ._settings import PORTS, Settings
from .analyzer import Analyzer
from .ingestion import Ingestion
from .miner import Miner
from .reporting import Reporting
from .writer import Writer

__all__ = ["SERVICES", "main"]

SERVICES = {service.name: service for service in (Ingestion, Miner, Analyzer, Writer, Reporting)}
_CHECK_TIMEOUT_SECONDS = 3.0


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 stopped or healthy, 1 unhealthy or cannot start, 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="fresh_poc", description="A demo service of FreshPoC_E2E.")
    parser.add_argument(
        "service", nargs="?", default=os.environ.get("DEMO_SERVICE", ""), help=", ".join(PORTS)
    )
    parser.add_argument("--check", action="store_true", help="exit 0 when the running service is healthy")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(options.service)
        return _check(settings) if options.check else _run(settings)
    except SettingsError as error:
        print(f"fresh_poc: {error}", file=sys.stderr)
        return 2


def _run(settings: Settings) -> int:
    configure(settings.service)
    try:
        server = Server(SERVICES[settings.service](settings), settings)
    except Exception as error:
        print(f"fresh_poc: {settings.service} cannot start: {error}", file=sys.stderr)
        return 1
    serve(server)
    return 0


def _check(settings: Settings) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{settings.port}/healthz", timeout=_CHECK_TIMEOUT_SECONDS):
            return 0
    except OSError as error:
        print(f"fresh_poc: {settings.service} is not healthy: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
