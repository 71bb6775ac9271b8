"""Runs the live page: an event loop in a thread of its own, so that signals find the main thread waiting."""

import asyncio
import socket
from contextlib import suppress
from threading import Event, Thread

import uvicorn

from hostline.asgi import CanonicalHostMiddleware
from hostline.demo.live.reports import Inbox
from hostline.demo.live.stage import Stage
from hostline.demo.live.story import Numbers
from hostline.demo.live.web import Web
from hostline.demo.surprise import Surprise


class Conductor:
    """From :meth:`start` to :meth:`stop`, which both are the main thread's to call."""

    def __init__(self, port: int) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            raise Surprise(
                f"port {port}: expected it to be free, got {error}; choose another: --port"
            ) from error
        self._address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._inbox = Inbox()
        self._stage = Stage(self._inbox)
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._begun, self._ended = Event(), Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="live page")

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self._address}/"

    def start(self) -> None:
        """Begin, and return when the page is there; a Surprise where it cannot be."""
        self._thread.start()
        self._begun.wait()
        if self._failure is not None:
            raise self._failure

    def story(self, seconds: int) -> Numbers:
        """Play a story to its end, and return what came of it."""
        return asyncio.run_coroutine_threadsafe(self._tell_story(seconds), self._loop).result()

    async def _tell_story(self, seconds: int) -> Numbers:
        await self._stage.tell_story(seconds)
        await self._stage.await_end_of_story()
        return self._stage.numbers()

    def await_end(self, seconds: float | None) -> None:
        """Return after so many seconds, or never; a Surprise if the page ends before."""
        # An event, not the thread itself: a signal that raises may come while one waits.
        if self._ended.wait(seconds):
            raise Surprise("the live page: expected it to be served until it is to end, got an end before")

    def stop(self) -> None:
        """End the page and its servers."""
        if self._thread.ident is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        self._stage.close()
        self._inbox.close()
        self._listener.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - the main thread's to raise
            self._failure = failure
        finally:
            self._ended.set()
            self._begun.set()

    async def _serve(self) -> None:
        self._loop.add_reader(self._inbox.fileno(), self._inbox.read, self._stage.board.report)
        await self._stage.start(self._stage.settings)
        web = Web(self._stage)
        app = CanonicalHostMiddleware(web.app, self._address, ip_hosts="redirect")
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        )
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        feeding = asyncio.create_task(web.feed.run())
        self._begun.set()
        await asyncio.wait(
            (serving, asyncio.create_task(self._end.wait())), return_when=asyncio.FIRST_COMPLETED
        )
        web.feed.close()
        feeding.cancel()
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await serving
