"""Resources: two slots of a pool, first in line, one at a time, and a limit of memory."""

from __future__ import annotations

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Hold as many MiB as the first argument says."""
    mebibytes = int(argv[0])
    data = bytearray(mebibytes * 2**20)
    print(f"held {len(data) // 2**20} MiB")
    return 0


JOB = Job(
    main,
    "Merge in memory, bounded",
    args=["16"],
    pool="default_pool",
    pool_slots=2,
    priority_weight=10,
    max_active_runs=1,
    memory="128Mi",
    cpu=1,
)
