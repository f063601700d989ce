"""One line for each attempt that failed and will be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger
    from tenacity import RetryCallState

__all__ = ["retry_warning"]


def retry_warning(log: FilteringBoundLogger, event: str) -> Callable[[RetryCallState], None]:
    """Return what tenacity calls before it waits (``before_sleep``).

    It logs a warning with the error, how often it was tried, the seconds until the next attempt and, where
    the error knows it, what to do.
    """

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        fix = getattr(error, "fix", "")
        log.warning(
            event,
            error=str(getattr(error, "what", error)).strip(),
            attempt=state.attempt_number,
            next_try_s=round(state.upcoming_sleep, 1),
            **({"fix": fix} if fix else {}),
        )

    return say
