"""requests: no call that lasts longer than the request that it is made for.

session = requests.Session()
session.mount("https://", DeadlineAdapter())
session.mount("http://", DeadlineAdapter())
"""

from typing import Any, cast

from hostline.integrations._budgets import HEADER, capped, checked, left, written

try:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter
except ImportError as error:
    raise ImportError(
        'hostline.integrations.requests needs requests: pip install "hostline[requests]"'
    ) from error

__all__ = ["HEADER", "DeadlineAdapter"]


class DeadlineAdapter(HTTPAdapter):
    """An adapter whose timeouts to connect and to read never exceed what is left.

    ``header`` passes that on to the service called, in milliseconds (:data:`HEADER`,
    ``x-envoy-expected-rq-timeout-ms``) or in gRPC's form (``grpc-timeout``), unless the
    request has it already. All else goes to ``requests.adapters.HTTPAdapter``. A timeout to
    read bounds each wait for the server, not their sum: that is the abort's to bound.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_header"]  # noqa: RUF012 - what is pickled of it, as there

    def __init__(self, *args: Any, header: str | None = None, **options: Any) -> None:
        self._header = checked(header)
        super().__init__(*args, **options)

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """Send it, with what is left of the time."""
        limit = left()
        if limit is not None:
            if args:  # stream, timeout, verify, cert, proxies
                options.update(zip(("stream", "timeout", "verify", "cert", "proxies"), args, strict=False))
                args = ()
            options["timeout"] = _capped(options.get("timeout"), limit)
            if self._header is not None:
                request.headers.setdefault(self._header, written(self._header, limit))
        return super().send(request, *args, **options)


def _capped(timeout: Any, limit: float) -> Any:
    if isinstance(timeout, tuple):
        return tuple(capped(each, limit) for each in cast("tuple[float | None, ...]", timeout))
    if timeout is None or isinstance(timeout, (int, float)):
        return capped(timeout, limit)
    return timeout  # a Timeout of urllib3's, which may be anything
