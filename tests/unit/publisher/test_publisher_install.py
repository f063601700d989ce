"""The publisher is small: it brings no Airflow, and starts without what a command does not need."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_lock_of_the_publisher_is_small_and_has_no_airflow() -> None:
    lock = (ROOT / "requirements/publisher.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "publisher"
    ]
    assert {re.split(r"[<>=\[]", name)[0] for name in group} <= locked
    assert not any(name.startswith("apache-airflow") for name in locked)
    assert len(locked) < 50


def test_help_loads_neither_boto3_nor_a_template_engine() -> None:
    script = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from airbridge.publisher.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('boto3', 'jinja2', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
