"""The page's addresses. Bound to loopback, for the browser of whoever runs the demo and nobody else.

Another site's page, open in the same browser, can send requests to loopback too: so every request
must name this address as its host (hostline sees to that), and one that changes something must
come from a page of ours.
"""

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hostline.demo.live.feed import Feed
from hostline.demo.live.kinds import KINDS
from hostline.demo.live.sides import Settings
from hostline.demo.live.stage import Busy, Full, Stage
from hostline.demo.live.view import View
from hostline.demo.surprise import Surprise

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A browser without scripts goes back to the page; our script stays where it is.
_DONE = RedirectResponse("/", 303, headers=_HEADERS)
_LONGEST_BODY = 4096
_LENGTHS = ("20", "60")  # seconds of a story


class Web:
    """The page of one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._view = View(stage)
        self.feed = Feed(self._view.whole, self._view.changes)
        self.app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/events", self.events),
                Route("/requests", self.send, methods=["POST"]),
                Route("/requests/{number:int}", self.request),
                Route("/settings", self.set_up, methods=["POST"]),
                Route("/story", self.play, methods=["POST"]),
                Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
            ]
        )

    async def page(self, request: Request) -> Response:
        """The page."""
        del request
        return HTMLResponse(self._view.page(), headers=_HEADERS)

    async def events(self, request: Request) -> Response:
        """What happens."""
        del request
        return StreamingResponse(self.feed.read(), media_type="text/event-stream", headers=_HEADERS)

    async def request(self, request: Request) -> Response:
        """One request, and the stack of its code."""
        pair = self._stage.board.pair(request.path_params["number"])
        if pair is None:
            return _refusal(404, "This request is not remembered any more.")
        return HTMLResponse(self._view.request(pair), headers=_HEADERS)

    async def send(self, request: Request) -> Response:
        """Send a request to both sides."""
        form = await _form(request)
        kind = KINDS.get(form.get("kind", ""))
        if kind is None:
            return _refusal(400, f"There is no such kind of request; there are {', '.join(KINDS)}.")
        try:
            self._stage.send(kind)
        except Busy:
            return _refusal(409, "The servers are being started; try again in a second.")
        except Full:
            return _refusal(429, "Enough requests are under way; wait until some have ended.")
        return _DONE

    async def set_up(self, request: Request) -> Response:
        """Start both servers anew, with these settings."""
        try:
            settings = Settings.of(await _form(request))
        except ValueError as error:
            return _refusal(400, f"{error}.")
        return await self._start(self._stage.start(settings))

    async def play(self, request: Request) -> Response:
        """Play the story."""
        seconds = (await _form(request)).get("seconds", "")
        if seconds not in _LENGTHS:
            return _refusal(400, f"A story takes {' or '.join(_LENGTHS)} seconds.")
        return await self._start(self._stage.tell_story(int(seconds)))

    async def _start(self, start: Coroutine[Any, Any, None]) -> Response:
        try:
            await start
        except Busy:
            return _refusal(409, "The servers are being started already.")
        except Surprise as surprise:
            return _refusal(500, f"The servers have not started: {surprise}.")
        return _DONE


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form of ours."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "This form is for the demo's own page.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_BODY:
            raise HTTPException(413, "No form of ours is as long as that.")
    return dict(parse_qsl(body.decode("ascii", "replace")))


def _refusal(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers=_HEADERS)
