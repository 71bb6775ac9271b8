"""Reading a scope and sending a response, for both guards, and the protocol's types.

Needs no framework: Django's entry comes here, too.

A scope's headers are pairs of octets with lower-case names (ASGI specification); of the
scopes that have them, granian's ports and gunicorn's extensions are not used here.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from hostline._responses import TEXT, Response, preferred_type
from hostline._targets import Target, asgi_target

# As Starlette spells them, so that its apps and these are the same to a type checker.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def header(scope: Scope, wanted: bytes) -> bytes | None:
    """All values of the header as one, as WSGI servers hand them on; None without any."""
    values = [value for name, value in scope["headers"] if name == wanted]
    return b",".join(values) if values else None


def target(scope: Scope) -> Target:
    """What the client asked for."""
    return asgi_target(
        root_path=scope.get("root_path") or "",
        path=scope["path"],
        raw_path=scope.get("raw_path"),
        query=scope.get("query_string") or b"",
    )


def media_type(scope: Scope, offers: Sequence[str]) -> str:
    """Which of the offers the client likes best; plain text where it likes none of them."""
    accept = (header(scope, b"accept") or b"").decode("latin-1")
    return preferred_type(accept, offers) or TEXT


async def send_response(response: Response, kind: str, send: Send) -> None:
    """Send it whole. ``kind``: ``"http.response"``, or the denial of a WebSocket."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers]
    await send({"type": f"{kind}.start", "status": response.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": response.body})
