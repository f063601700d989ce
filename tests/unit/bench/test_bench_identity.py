"""What identity costs is worked out from pairs of the same request."""

from __future__ import annotations

from bench._identity import numbers_of


def test_cost_is_the_difference_of_the_two_ways():
    samples = {
        "cost_ms": {"fetch": {"door": [6.0, 7.0, 8.0], "bypass": [4.0, 4.0, 5.0]}},
        "revocation_ms": [500.0, 510.0, 520.0],
    }
    numbers = numbers_of(samples)
    cost = numbers["cost"]["fetch"]
    assert cost["door_ms"]["median"] == 7
    assert cost["added_p50_ms"] == 3
    assert cost["added_p95_ms"] == 3
    assert cost["pairs_ms"]["max"] == 3
    assert cost["ratio_of_medians"] == 1.75
    assert numbers["revocation_ms"]["p95"] == 519
