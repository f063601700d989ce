"""How queued jobs reach edge workers: claimed in Postgres, announced by it, waited for without a thread."""

from __future__ import annotations

__all__: list[str] = []
