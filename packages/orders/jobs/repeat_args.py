"""Arguments: the job's own ones, with a template, unless a run brings others."""

from __future__ import annotations

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Print each argument; ``--exit-code N`` is what to end with."""
    for position, argument in enumerate(argv):
        print(f"argument {position}: {argument}")
    if "--exit-code" in argv:
        return int(argv[argv.index("--exit-code") + 1])
    return 0


JOB = Job(
    main,
    "Print the arguments, and end with the exit code that they ask for",
    args=["--greeting", "{{ params.greeting }}"],
    params={"greeting": "good morning"},
    tags=["arguments"],
)
