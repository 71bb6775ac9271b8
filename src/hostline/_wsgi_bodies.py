"""What an app returns: what goes to the server as it is, and what is read up to its first chunk.

An app that returns a generator has done nothing yet; its work is done while the server
iterates. So the response counts as begun when its first chunk is there, and that chunk is
made under the service timeout. PEP 3333 wants ``close()`` called once, whatever happens,
and lets a server look for the type of ``wsgi.file_wrapper``.

Imports ``_requests``, for the log.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from wsgiref.types import WSGIEnvironment

from hostline._requests import logger

Guarded = Callable[[Callable[[], bytes]], bytes]
"""Calls what makes the next chunk, with a limit on the time that it takes."""


def is_whole(result: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether the server is to get this as it is: it is complete, or a file."""
    wrapper = environ.get("wsgi.file_wrapper")
    return (
        isinstance(result, (list, tuple))
        or (isinstance(wrapper, type) and isinstance(result, wrapper))
        or hasattr(result, "read")  # uWSGI's wrapper is a function that hands back the file
    )


def close(result: Iterable[bytes]) -> None:
    """Close a response that the server will not see."""
    closer: Callable[[], object] | None = getattr(result, "close", None)
    if closer is not None:
        try:
            closer()
        except Exception:  # noqa: BLE001 - the app's, and there is a response to be sent
            logger.exception("The app's response failed to close after it was given up.")


class Body:
    """A response from its first chunk on, that closes what the app returned."""

    __slots__ = ("_chunks", "_origin")

    def __init__(self, origin: Iterable[bytes]) -> None:
        """Makes the first chunk: an empty one is none, for no server sends anything of it."""
        self._origin = origin
        iterator = iter(origin)
        first = next(filter(None, iterator), None)
        self._chunks = iterator if first is None else chain((first,), iterator)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Close what the app returned, if that can be closed."""
        closer: Callable[[], object] | None = getattr(self._origin, "close", None)
        if closer is not None:
            closer()


class TimedBody(Body):
    """A body each further chunk of which has a limit of its own (``stream_timeout``)."""

    __slots__ = ("_guarded", "_on_close")

    def __init__(self, origin: Iterable[bytes], guarded: Guarded, on_close: Callable[[], object]) -> None:
        super().__init__(origin)
        self._guarded = guarded
        self._on_close = on_close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._guarded(self._chunks.__next__)

    def close(self) -> None:
        """Close what the app returned; the request is over."""
        try:
            super().close()
        finally:
            self._on_close()
