"""The same client by HTTP/2: one connection, by prior knowledge, or by TLS."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from ssl import SSLContext
from typing import Any, Self

import httpx2
from client import Answer


class Http2Connection:
    """One connection, for one request after the other, or for several at once from several threads."""

    def __init__(self, port: int, patience: float = 20.0, tls: SSLContext | None = None) -> None:
        self._http = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}",
            http1=False,
            http2=True,
            timeout=patience,
            verify=tls or True,
        )
        self._streams: list[Any] = []

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, *, body: Iterable[bytes] | None = None
    ) -> Answer:
        """Ask for it; with a body, by POST."""
        began = time.monotonic()
        method = "GET" if body is None else "POST"
        chunks: list[bytes] = []
        problem = ""
        try:
            with self._http.stream(method, path, headers=dict(headers or {}), content=body) as response:
                self._streams.append(response.extensions["network_stream"])
                try:
                    chunks.extend(response.iter_raw())
                except httpx2.HTTPError as error:
                    problem = type(error).__name__
        except httpx2.HTTPError as error:
            return Answer(None, time.monotonic() - began, error=type(error).__name__)
        names = Counter(name.lower() for name, _ in response.headers.multi_items())
        return Answer(
            response.status_code,
            time.monotonic() - began,
            headers=dict(response.headers),
            repeated=frozenset(name for name, count in names.items() if count > 1),
            body=b"".join(chunks),
            is_cut=problem == "RemoteProtocolError",  # a timeout means that nothing was said at all
            error=problem,
        )

    @property
    def was_kept(self) -> bool:
        """Whether all requests so far went over one and the same connection."""
        return all(each is self._streams[0] for each in self._streams)

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
