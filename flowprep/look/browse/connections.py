"""Connections that ask for nothing: they cost no other visitor the page.

Browsers open a connection before they need it, and keep it afterwards. A connection that says
nothing, or half of a request, would be kept for ever, and so many of them are all that there may
be.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MAX_WAITING", "REQUEST_SECONDS", "BoundedProtocol"]

REQUEST_SECONDS = 10.0
"""Within this time a connection has to send a whole request, or to read some of its answer."""
MAX_WAITING = 64
"""Connections without a request; of more, those that have waited longest are closed."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a bound on how long, and how many, connections wait for a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._unread = 0

    @property
    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _is_idle(self) -> bool:
        """Whether no answer is on its way either, and nothing has closed the connection."""
        is_sending = self.transport.get_write_buffer_size() > 0
        return not is_sending and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait()
        waiting = [
            one
            for one in self.connections
            if isinstance(one, BoundedProtocol) and one._is_waiting and one._is_idle
        ]
        if len(waiting) > MAX_WAITING:
            min(waiting, key=lambda one: one._since).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_waiting:
            self._stop_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Begins to wait for a request; what has come of it meanwhile gives it no more time."""
        self._stop_timer()
        self._since = self.loop.time()
        self._unread = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._end_unless_read)

    def _end_unless_read(self) -> None:
        left = self.transport.get_write_buffer_size()
        if 0 < left < self._unread:
            # The answer is on its way, through a slow tunnel perhaps.
            self._unread = left
            self._timer = self.loop.call_later(REQUEST_SECONDS, self._end_unless_read)
        elif self._is_waiting:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
