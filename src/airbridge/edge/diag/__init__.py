"""``diag``: everything an edge host needs, checked one by one, each failure with its fix.

A check looks at one thing and depends on others by name. When one of those did not pass, the check
is *not run* instead of failing a second time for the same cause; *not run* counts as not passed.
The text of the token is never printed.
"""

from __future__ import annotations

from airbridge.edge.diag._model import Check, Context, Failed, Finding, Limits, NotRun, Outcome, run_checks
from airbridge.edge.diag._run import ALL_CHECKS, diagnose, run_diag

__all__ = [
    "ALL_CHECKS",
    "Check",
    "Context",
    "Failed",
    "Finding",
    "Limits",
    "NotRun",
    "Outcome",
    "diagnose",
    "run_checks",
    "run_diag",
]
