"""Takes edge requests past Airflow's own middlewares, which cost more than what answers a heartbeat.

Airflow 3.0.4 adds its middlewares after those of plugins, and so around them: CORS, which is for browsers,
and ``FlaskExceptionsMiddleware`` (``api_fastapi/core_api/middleware.py``), which is for plugins made with
Flask and, as a ``BaseHTTPMiddleware``, gives each request a task group, two tasks and a stream. Neither does
anything for an edge request. Its way is the same as without a shortcut from the edge middleware on; and an
application of which nobody takes the shortcut serves it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.middleware.gzip import GZipMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.controlplane._asgi import App, Receive, Scope, Send

__all__ = ["Shortcut", "take_shortcut"]

# As airflow/api_fastapi/core_api/app.py (init_config) has them: many jobs, or a large XCom, over a slow line.
_COMPRESSED_FROM: Final = 1024
_COMPRESSION: Final = 5


class Shortcut:
    """What an application's requests come to first.

    Args:
        usual: the way of every other request.
        edge: serves edge requests; ``usual`` has it too, further in.
        is_edge: whether a request, by its ASGI scope, is one.
    """

    def __init__(self, usual: App, edge: App, is_edge: Callable[[Scope], bool]) -> None:
        self._usual = usual
        self._edge = edge
        self._compressing = GZipMiddleware(edge, _COMPRESSED_FROM, _COMPRESSION)
        self._is_edge = is_edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or not self._is_edge(scope):
            await self._usual(scope, receive, send)
        elif any(name == b"accept-encoding" for name, _ in scope["headers"]):
            await self._compressing(scope, receive, send)
        else:  # as the gateway sends on what is answered in a few words
            await self._edge(scope, receive, send)


def take_shortcut(application: Any, edge: App, is_edge: Callable[[Scope], bool]) -> None:
    """Lead the edge requests of a Starlette application to ``edge``, from the next one on.

    By ``middleware_stack``, the attribute that holds what Starlette made of all middlewares once the
    application begins (``starlette/applications.py``, ``__call__``). Anything else is left as it is.
    """
    usual = getattr(application, "middleware_stack", None)
    if usual is not None and not isinstance(usual, Shortcut):
        application.middleware_stack = Shortcut(usual, edge, is_edge)
