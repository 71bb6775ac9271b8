"""httpx and httpx2: no call that lasts longer than the request that it is made for.

    client = httpx.Client(transport=DeadlineTransport(httpx.HTTPTransport()))
    client = httpx.AsyncClient(transport=AsyncDeadlineTransport(httpx.AsyncHTTPTransport()))

A transport, and not an event hook: hooks run once for a whole chain of redirects, and
before the client's own timeouts are in their place. Both libraries have the same shape, so
these wrap either's transports, and nothing of them is imported.
"""

from types import TracebackType
from typing import Any, Self

from hostline.integrations._budgets import HEADER, capped, checked, left, written

__all__ = ["HEADER", "AsyncDeadlineTransport", "DeadlineTransport"]

_KINDS = ("connect", "read", "write", "pool")


def _limit(request: Any, header: str | None) -> None:
    """Cut the timeouts of one request, of either library, and pass on what is left."""
    seconds = left()
    if seconds is None:
        return
    timeouts: dict[str, float | None] = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {kind: capped(timeouts.get(kind), seconds) for kind in _KINDS}
    if header is not None and header not in request.headers:
        request.headers[header] = written(header, seconds)


class DeadlineTransport:
    """A transport whose timeouts never exceed what is left, around another one.

    ``header`` passes that on to the service called, in milliseconds (:data:`HEADER`,
    ``x-envoy-expected-rq-timeout-ms``) or in gRPC's form (``grpc-timeout``), unless the
    request has it already. A timeout to read bounds each wait for the server, not their
    sum: that is the abort's to bound.
    """

    def __init__(self, transport: Any, *, header: str | None = None) -> None:
        self._transport = transport
        self._header = checked(header)

    def handle_request(self, request: Any) -> Any:
        """Send it, with what is left of the time."""
        _limit(request, self._header)
        return self._transport.handle_request(request)

    def close(self) -> None:
        """Close the inner one."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.__exit__(kind, error, trace)


class AsyncDeadlineTransport:
    """The same for ``AsyncClient``."""

    def __init__(self, transport: Any, *, header: str | None = None) -> None:
        self._transport = transport
        self._header = checked(header)

    async def handle_async_request(self, request: Any) -> Any:
        """Send it, with what is left of the time."""
        _limit(request, self._header)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the inner one."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)
