"""The request timeout around WSGI apps: in worker threads and in the main thread."""

import _thread
import gc
import io
import logging
import os
import queue
import signal
import socket
import sqlite3
import sys
import threading
import time
import weakref
from contextlib import closing
from functools import partial
from time import monotonic
from types import SimpleNamespace
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.local import LocalProxy

from hostline import (
    RequestExpiryError,
    RequestTimeoutError,
    RequestTimeoutException,
    SettingsError,
    _breaker,
    _interrupts,
    _wsgi_timeout,
)
from hostline._requests import State, reporter
from hostline._slow import ThreadWatch
from hostline._wait_probe import wait_probe
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware, from_env
from timeouts import (
    LONG,
    SHORT,
    NotStoppedError,
    Recorder,
    Server,
    breakers_left,
    entries_left,
    environ,
    eventually,
    hello,
    in_thread,
    linger,
    serve,
    slow,
)

pytestmark = pytest.mark.timed

READY_AND_TIMED_OUT = [State.READY, State.TIMED_OUT]
READY_AND_COMPLETED = [State.READY, State.COMPLETED]
STALE = {"HTTP_X_REQUEST_START": "1000000000000"}


def _stamp(seconds_ago):
    return f"{time.time() - seconds_ago:.3f}"


@pytest.fixture(params=("main", "thread"))
def road(request):
    """Where the request runs decides how it is broken."""
    return {"main": lambda call: call(), "thread": in_thread}[request.param]


@pytest.fixture
def seen():
    return Recorder()


@pytest.fixture
def short(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=SHORT, observers=[seen])


@pytest.fixture
def long(seen):
    return partial(RequestTimeoutMiddleware, service_timeout=LONG, observers=[seen])


# In time


@pytest.mark.parametrize("is_validated", (True, False))
def test_in_time(road, long, seen, is_validated):
    """The validator's own iterator stands between, or the app's list goes through as it is."""
    env = environ()
    app = validator(hello) if is_validated else hello
    served = road(lambda: serve(long(app), env))
    assert (served.status, served.body, served.error) == (200, b"hello", None)
    assert seen.states == READY_AND_COMPLETED
    request = env["hostline.request"]
    assert (request.state, request.timeout, request.wait) == (State.COMPLETED, LONG, None)
    assert 0 < request.service < LONG
    assert not request.term
    assert request.stack is None
    assert entries_left() == 0


def test_without_observers_nobody_is_told(long):
    env = environ()
    assert serve(RequestTimeoutMiddleware(hello, observers=()), env).status == 200
    assert env["hostline.request"].state is State.COMPLETED


def test_the_request_is_found_in_the_environ(long):
    def app(environ, start_response):
        request = environ["hostline.request"]
        assert request.state is State.READY
        assert (request.method, request.path) == ("HEAD", "/caf\xe9/\ufffd")
        assert request.id == "abc"
        assert request.deadline == request.started + LONG
        return hello(environ, start_response)

    env = environ("/caf\xc3\xa9/\xff", "HEAD", HTTP_X_REQUEST_ID="a b c")
    assert serve(long(app), env).status == 200


def test_path_holds_the_mount_prefix(long):
    env = environ("/b", SCRIPT_NAME="/a")
    serve(long(hello), env)
    assert env["hostline.request"].path == "/a/b"


# Too late


def test_respond(road, short, seen):
    env = environ()
    served = road(lambda: serve(short(slow), env))
    assert (served.status, served.error) == (504, None)
    assert served.body == b"504 Gateway Timeout\n\nThe server took too long to answer this request.\n"
    assert served.headers == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(served.body)),
        "cache-control": "no-store",
    }
    assert seen.states == READY_AND_TIMED_OUT
    assert env["hostline.request"].state is State.TIMED_OUT
    assert SHORT <= env["hostline.request"].service < 10


def test_raise(road, short, seen):
    served = road(lambda: serve(short(slow, mode="raise")))
    assert type(served.error) is RequestTimeoutError
    assert served.error.timeout == SHORT
    assert SHORT <= served.error.service < 10
    assert isinstance(served.error.__cause__, RequestTimeoutException)
    assert served.heads_sent == 0
    assert seen.states == READY_AND_TIMED_OUT


def test_report(road, seen):
    def app(environ, start_response):
        assert eventually(lambda: environ["hostline.request"].state is State.TIMED_OUT)
        return hello(environ, start_response)

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, mode="report", observers=[seen])
    served = road(lambda: serve(guard))
    assert (served.status, served.body, served.error) == (200, b"hello", None)
    assert seen.states == READY_AND_TIMED_OUT


def test_a_timeout_is_told_though_the_breaking_fails(short, seen, monkeypatch, caplog):
    def fails(*_):
        raise MemoryError

    def app(environ, start_response):
        assert eventually(lambda: State.TIMED_OUT in seen.states)
        return hello(environ, start_response)

    monkeypatch.setattr(_interrupts, "Breaker", fails)
    assert in_thread(lambda: serve(short(app))).status == 504
    assert seen.states == READY_AND_TIMED_OUT
    assert eventually(lambda: [record.exc_info[0] for record in caplog.records] == [MemoryError])


def test_report_where_the_app_fails_late(seen):
    def app(environ, start_response):
        assert eventually(lambda: environ["hostline.request"].state is State.TIMED_OUT)
        raise ValueError

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, mode="report", observers=[seen])
    assert type(serve(guard).error) is ValueError
    assert seen.states == READY_AND_TIMED_OUT


def test_a_blocking_call_in_the_main_thread_is_broken(short):
    def app(environ, start_response):
        time.sleep(20)

    began = time.monotonic()
    assert serve(short(app)).status == 504
    assert time.monotonic() - began < 10


def test_a_busy_loop_is_broken(road, short):
    def app(environ, start_response):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            pass
        raise NotStoppedError

    assert road(lambda: serve(short(app))).status == 504


def test_the_stack_is_the_slow_code_s(road, short, seen):
    def the_slow_part():
        linger()

    def app(environ, start_response):
        the_slow_part()

    env = environ()
    road(lambda: serve(short(app), env))
    assert seen.states
    stack = env["hostline.request"].stack
    assert stack == seen.events[-1].stack
    assert "the_slow_part()" in stack
    assert "linger()" in stack
    assert stack.index("in app") < stack.index("in the_slow_part") < stack.index("in linger")
    assert "in __call__" not in stack, "our own frames are of no interest"
    assert "in serve" not in stack, "nor are the server's"


def test_head_gets_no_body(short):
    served = serve(short(slow), environ(method="HEAD"))
    assert (served.status, served.body) == (504, b"")
    assert int(served.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    (
        ("text/html,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("image/png", "text/plain; charset=utf-8"),
    ),
)
def test_negotiation(short, accept, content_type):
    assert serve(short(slow), environ(HTTP_ACCEPT=accept)).headers["content-type"] == content_type
    stale = serve(
        RequestTimeoutMiddleware(slow), environ(HTTP_ACCEPT=accept, HTTP_X_REQUEST_START=_stamp(31))
    )
    assert (stale.status, stale.headers["content-type"]) == (503, content_type)


def test_configured_answer(short):
    def body(request):
        return f"{request.id}: {request.state}"

    served = serve(
        short(slow, status=503, body=body, content_type="text/x-own"), environ(HTTP_X_REQUEST_ID="abc")
    )
    assert (served.status, served.body) == (503, b"abc: timed_out")
    assert served.headers["content-type"] == "text/x-own"


# What the app does with the abort


def test_the_app_may_clean_up(road, short):
    done = []

    def app(environ, start_response):
        try:
            linger()
        except Exception:
            done.append("swallowed")
        finally:
            done.append("cleaned up")

    assert road(lambda: serve(short(app))).status == 504
    assert done == ["cleaned up"]


def test_the_app_is_hit_once(road, short):
    """What it does on its way out is not broken by a second shot, but after a grace period."""
    hits = []

    def app(environ, start_response):
        try:
            linger()
        except RequestTimeoutException:
            hits.append("first")
            try:
                linger(0.15)
            except RequestTimeoutException:
                hits.append("second")
            except NotStoppedError:
                pass
            raise

    assert road(lambda: serve(short(app))).status == 504
    assert hits == ["first"]


def test_an_app_that_fails_while_it_is_aborted(road, short, seen):
    def app(environ, start_response):
        try:
            linger()
        finally:
            raise ValueError("in the clean-up")

    assert road(lambda: serve(short(app))).status == 504
    served = road(lambda: serve(short(app, mode="raise")))
    assert type(served.error) is RequestTimeoutError
    assert type(served.error.__cause__) is ValueError
    assert sorted(seen.states) == sorted(READY_AND_TIMED_OUT * 2)


def test_an_app_that_swallows_the_abort_and_answers(road, short, seen):
    def app(environ, start_response):
        try:
            linger()
        except BaseException:
            return hello(environ, start_response)

    served = road(lambda: serve(short(app)))
    assert (served.status, served.error) == (504, None)
    assert seen.states == READY_AND_TIMED_OUT


@pytest.mark.slow
def test_an_app_that_swallows_the_abort_and_goes_on_gets_one_more(road, short, seen):
    hits = []

    def app(environ, start_response):
        try:
            linger()
        except BaseException:
            hits.append(time.monotonic())
        try:
            linger()
        except BaseException:
            hits.append(time.monotonic())
            raise

    assert road(lambda: serve(short(app))).status == 504
    assert len(hits) == 2
    assert hits[1] - hits[0] >= 0.9
    assert seen.states == READY_AND_TIMED_OUT


@pytest.mark.slow
def test_an_app_that_swallows_every_abort_is_logged(road, short, seen, caplog):
    def swallow():
        try:
            linger()
        except BaseException:
            return

    def app(environ, start_response):
        swallow()
        swallow()
        assert eventually(lambda: any("unstoppable" in each.message for each in caplog.records))
        return hello(environ, start_response)

    env = environ(HTTP_X_REQUEST_ID="abc")
    served = road(lambda: serve(short(app), env))
    assert served.status == 504
    (record,) = [each for each in caplog.records if "unstoppable" in each.message]
    assert "id=abc" in record.message
    assert "in app" in record.message
    assert seen.states == READY_AND_TIMED_OUT
    kept = weakref.ref(env.pop("hostline.request"))
    assert eventually(lambda: reporter.flush(5) and kept() is None, within=3), "kept for ever"


def test_a_lost_request_leaves_nothing_behind(road, short):
    env = environ()
    assert road(lambda: serve(short(slow), env)).status == 504
    assert entries_left() == 0
    kept = weakref.ref(env.pop("hostline.request"))
    assert eventually(lambda: reporter.flush(5) and kept() is None, within=3)


@pytest.mark.parametrize("error", (KeyboardInterrupt, SystemExit, GeneratorExit))
@pytest.mark.parametrize("is_late", (False, True))
def test_the_end_of_the_process_is_nobody_s_to_swallow(short, seen, error, is_late):
    def app(environ, start_response):
        if is_late:
            try:
                linger()
            except RequestTimeoutException:
                raise error from None
        raise error

    assert type(serve(short(app)).error) is error
    assert seen.states == (READY_AND_TIMED_OUT if is_late else READY_AND_COMPLETED)


def test_ctrl_c_is_not_ours(long, seen):
    def app(environ, start_response):
        signal.raise_signal(signal.SIGINT)
        linger()

    assert type(serve(long(app)).error) is KeyboardInterrupt
    assert seen.states == READY_AND_COMPLETED


# The app's own errors


@pytest.mark.parametrize(
    "error",
    (
        ValueError("the app's"),
        TimeoutError("a database's"),
        RequestTimeoutError(service=1, timeout=1),
        RequestTimeoutException("somebody raised it"),
    ),
)
def test_an_error_of_the_app_s_passes_untouched(road, long, seen, error):
    def app(environ, start_response):
        raise error

    assert road(lambda: serve(long(app))).error is error
    assert seen.states == READY_AND_COMPLETED
    assert entries_left() == 0


def test_an_error_in_the_first_chunk(road, long, seen):
    closed = []

    def app(environ, start_response):
        try:
            yield 1 // 0
        finally:
            closed.append(1)

    assert type(road(lambda: serve(long(app), validate=False)).error) is ZeroDivisionError
    assert closed == [1]
    assert seen.states == READY_AND_COMPLETED


# The wait


def test_expired(road, long, seen):
    env = environ(HTTP_X_REQUEST_START=_stamp(31))
    served = road(lambda: serve(long(pytest.fail), env))
    assert (served.status, served.error) == (503, None)
    assert served.headers["retry-after"] == "10"
    assert served.headers["cache-control"] == "no-store"
    assert seen.states == [State.EXPIRED]
    request = env["hostline.request"]
    assert (request.state, request.timeout) == (State.EXPIRED, 30)
    assert 30.9 < request.wait < 41
    assert entries_left() == 0


def test_expired_head(long):
    served = serve(long(pytest.fail), environ(method="HEAD", HTTP_X_REQUEST_START=_stamp(31)))
    assert (served.status, served.body) == (503, b"")


def test_expired_and_raise(long):
    served = serve(long(pytest.fail, mode="raise"), environ(HTTP_X_REQUEST_START=_stamp(31)))
    assert type(served.error) is RequestExpiryError
    assert (served.error.timeout, served.heads_sent) == (30, 0)
    assert served.error.wait > 30.9


def test_expired_and_report(long, seen):
    served = serve(long(hello, mode="report"), environ(HTTP_X_REQUEST_START=_stamp(31)))
    assert served.status == 200
    assert seen.states == [State.EXPIRED]


def test_a_body_gives_more_time(long):
    late = environ(method="POST", CONTENT_LENGTH="5", HTTP_X_REQUEST_START=_stamp(31))
    late["wsgi.input"] = io.BytesIO(b"hello")
    assert serve(long(hello), late).status == 200
    chunked = environ(method="POST", HTTP_TRANSFER_ENCODING="chunked", HTTP_X_REQUEST_START=_stamp(31))
    assert serve(long(hello), chunked).status == 200


def test_what_is_left_of_the_wait_is_what_there_is(road, long, seen):
    env = environ(HTTP_X_REQUEST_START=_stamp(0.5))
    served = road(lambda: serve(long(slow, wait_timeout=0.6), env))
    assert served.status == 504
    assert env["hostline.request"].timeout < 0.11
    assert seen.states == READY_AND_TIMED_OUT


def test_an_unlimited_service(road, seen):
    env = environ(HTTP_X_REQUEST_START=_stamp(1))
    guard = RequestTimeoutMiddleware(hello, service_timeout=0, observers=[seen])
    assert road(lambda: serve(guard, env)).status == 200
    assert env["hostline.request"].timeout is None
    assert env["hostline.request"].deadline == float("inf")
    assert seen.states == READY_AND_COMPLETED
    assert entries_left() == 0


def test_a_request_that_is_over_is_not_kept_until_its_deadline(long):
    """On Heroku each request has this header: what it leaves behind adds up."""
    left = []
    guard = long(hello)
    for _ in range(5):
        env = environ(HTTP_X_REQUEST_START=_stamp(0.1))
        serve(guard, env)
        left.append(weakref.ref(env["hostline.request"]))
        del env
    assert [ref() for ref in left] == [None] * 5


# Exempt paths and timeouts by request


@pytest.mark.parametrize("path", ("/health", "/health/deep", "/acme/x"))
def test_exempt_paths(long, seen, path):
    guard = long(hello, exempt_paths=["/health", "/acme/"])
    assert serve(guard, environ(path, HTTP_X_REQUEST_START=_stamp(31))).status == 200
    assert seen.states == []


@pytest.mark.parametrize("path", ("/healthy", "/", "/acme"))
def test_paths_that_are_not_exempt(long, seen, path):
    guard = long(hello, exempt_paths=["/health", "/acme/"])
    assert serve(guard, environ(path, HTTP_X_REQUEST_START=_stamp(31))).status == 503
    assert serve(guard, environ(path)).status == 200
    assert seen.states == [State.EXPIRED, *READY_AND_COMPLETED]


def test_timeout_for(road, long, seen):
    guard = long(slow, timeout_for=lambda environ: SHORT if environ["PATH_INFO"] == "/slow" else ...)
    assert road(lambda: serve(guard, environ("/slow"))).status == 504
    env = environ()
    serve(long(hello, timeout_for=lambda environ: ...), env)
    assert env["hostline.request"].timeout == LONG
    env = environ()
    serve(long(hello, timeout_for=lambda environ: 0), env)
    assert env["hostline.request"].timeout is None


def test_timeout_for_that_answers_nonsense(long):
    assert type(serve(long(hello, timeout_for=lambda environ: "15")).error) is SettingsError


# What apps return


class Closing:
    """A response that counts how often it is closed."""

    def __init__(self, chunks, *, error=None):
        self.chunks = iter(chunks)
        self.error = error
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.chunks)
        return chunk() if callable(chunk) else chunk

    def close(self):
        self.closed += 1
        if self.error:
            raise self.error


class ClosingList(list):
    closed = 0

    def close(self):
        self.closed += 1


def _app(result, *, delay=None):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        if delay:
            delay()
        return result

    return app


@pytest.mark.parametrize("stream_timeout", (0, LONG))
def test_an_empty_chunk_is_no_beginning(road, short, seen, stream_timeout):
    """No server sends anything of one: the service timeout goes on."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b""
        linger()

    assert road(lambda: serve(short(app, stream_timeout=stream_timeout))).status == 504
    assert seen.states == READY_AND_TIMED_OUT


@pytest.mark.parametrize("stream_timeout", (0, LONG))
def test_an_app_may_start_its_response_behind_empty_chunks(road, long, stream_timeout):
    """As a middleware of PEP 3333's has to, that waits for more of the app it wraps."""

    def app(environ, start_response):
        yield b""
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"hello"

    served = road(lambda: serve(long(app, stream_timeout=stream_timeout), validate=False))
    assert (served.status, served.body, served.error) == (200, b"hello", None)


@pytest.mark.parametrize("stream_timeout", (0, LONG))
@pytest.mark.parametrize(
    "chunks", ((), (b"one",), (b"", b"one"), (b"one", b"two", b"three")), ids=lambda chunks: str(len(chunks))
)
def test_an_iterator_in_time(road, long, seen, chunks, stream_timeout):
    result = Closing(chunks)
    guard = long(_app(result), stream_timeout=stream_timeout)
    served = road(lambda: serve(guard))
    assert (served.status, served.body, served.error) == (200, b"".join(chunks), None)
    assert result.closed == 1
    assert seen.states == READY_AND_COMPLETED
    assert entries_left() == 0


def test_a_generator_that_begins_its_response_while_it_is_read(road, long):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        yield b"two"

    assert road(lambda: serve(long(app))).body == b"onetwo"


def test_a_tuple_goes_through_as_it_is(long):
    result = (b"one", b"two")
    assert long(_app(result))(environ(), Server().start_response) is result


def test_a_list_goes_through_as_it_is(long):
    result = ClosingList([b"one"])
    assert long(_app(result))(environ(), Server().start_response) is result
    assert result.closed == 0


def test_an_iterable_that_is_no_iterator(long):
    class Fresh:
        def __iter__(self):
            return iter([b"one", b"two"])

    assert serve(long(_app(Fresh()))).body == b"onetwo"


def test_file_wrapper_goes_through_as_it_is(long):
    result = FileWrapper(io.BytesIO(b"file"))
    env = environ(**{"wsgi.file_wrapper": FileWrapper})
    assert long(_app(result))(env, Server().start_response) is result


def test_uwsgi_s_file_wrapper_goes_through_as_it_is(long):
    result = io.BytesIO(b"file")
    env = environ(**{"wsgi.file_wrapper": lambda file: file})
    assert long(_app(result))(env, Server().start_response) is result


def test_an_iterator_slow_with_its_first_chunk(road, short, seen):
    result = Closing([linger])
    served = road(lambda: serve(short(_app(result))))
    assert (served.status, served.heads_sent) == (504, 1)
    assert result.closed == 1
    assert seen.states == READY_AND_TIMED_OUT


def test_a_generator_slow_with_its_first_chunk(road, short, seen):
    closed = []

    def app(environ, start_response):
        try:
            linger()
            yield b""
        finally:
            closed.append(1)

    served = road(lambda: serve(short(app)))
    assert (served.status, served.heads_sent) == (504, 1)
    assert closed == [1]
    assert seen.states == READY_AND_TIMED_OUT


def test_a_list_that_comes_too_late_is_closed(road, short, seen):
    result = ClosingList([b"one"])

    def swallow():
        try:
            linger()
        except BaseException:
            pass

    served = road(lambda: serve(short(_app(result, delay=swallow))))
    assert served.status == 504
    assert result.closed == 1
    assert seen.states == READY_AND_TIMED_OUT


def test_an_iterator_that_comes_too_late_is_closed(road, short):
    result = Closing([b"one"])

    def swallow():
        try:
            linger()
        except BaseException:
            pass

    assert road(lambda: serve(short(_app(result, delay=swallow)))).status == 504
    assert result.closed == 1


def test_a_response_that_fails_to_close_after_it_was_given_up(short, caplog):
    result = Closing([linger], error=ValueError())
    with caplog.at_level(logging.ERROR):
        assert serve(short(_app(result))).status == 504
    assert result.closed == 1
    assert any(record.exc_info and record.exc_info[0] is ValueError for record in caplog.records)


def test_a_response_that_fails_to_close_in_time(long):
    result = Closing([b"one"], error=ValueError("the app's"))
    assert type(serve(long(_app(result))).error) is ValueError
    assert result.closed == 1


def test_a_stream_outlives_the_service_timeout(road, seen):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        deadline = environ["hostline.request"].deadline
        assert eventually(lambda: time.monotonic() > deadline + 0.05)
        yield b"two"

    guard = RequestTimeoutMiddleware(app, service_timeout=0.2, observers=[seen])
    served = road(lambda: serve(guard))
    assert (served.status, served.body, served.error) == (200, b"onetwo", None)
    assert seen.states == READY_AND_COMPLETED


# A head that is out


def test_start_response_called_but_nothing_sent(road, short):
    """PEP 3333: the head is not sent before the first chunk, so it is replaced."""
    served = road(lambda: serve(short(_app([b"one"], delay=linger))))
    assert (served.status, served.heads_sent) == (504, 1)


@pytest.mark.parametrize("mode", ("respond", "raise"))
def test_cut_after_write(road, short, seen, mode):
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"begun")
        linger()

    served = road(lambda: serve(short(app, mode=mode)))
    assert (served.status, served.body, served.heads_sent) == (200, b"begun", 1)
    assert type(served.error) is RequestTimeoutError
    assert served.error.timeout == SHORT
    assert seen.states == READY_AND_TIMED_OUT


# start_response, as PEP 3333 has it


TEXT = [("Content-Type", "text/plain")]


def _served(guard):
    return serve(guard, validate=False)


def test_a_second_head_is_an_error(road, long):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        start_response("201 Created", TEXT)
        return [b""]

    assert type(road(lambda: _served(long(app))).error) is AssertionError


def _replaced(start_response, status="500 Internal Server Error"):
    try:
        raise ValueError("the app's")  # noqa: TRY301 - exc_info wants one that was raised
    except ValueError:
        return start_response(status, TEXT, sys.exc_info())


def test_a_head_that_is_replaced(road, long):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        _replaced(start_response)
        return [b"sorry"]

    served = road(lambda: _served(long(app)))
    assert (served.status, served.body, served.heads_sent, served.error) == (500, b"sorry", 1, None)


def test_an_empty_exc_info_is_none(long):
    def app(environ, start_response):
        start_response("200 OK", TEXT, (None, None, None))
        return [b"ok"]

    assert _served(long(app)).status == 200


def test_a_head_that_is_out_cannot_be_replaced(road, long):
    def app(environ, start_response):
        start_response("200 OK", TEXT)(b"begun")
        _replaced(start_response)
        return [b"sorry"]

    served = road(lambda: _served(long(app)))
    assert (served.status, served.body) == (200, b"begun")
    assert type(served.error) is ValueError


def test_a_head_that_a_stream_wants_to_replace_too_late(road, long):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        _replaced(start_response)
        yield b"sorry"

    served = road(lambda: _served(long(app)))
    assert (served.status, served.body) == (200, b"begun")
    assert type(served.error) is ValueError


def test_write_and_more(road, long):
    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        write(b"one")
        write(b"two")
        return [b"three"]

    served = road(lambda: serve(long(app)))
    assert (served.status, served.body, served.heads_sent, served.error) == (200, b"onetwothree", 1, None)


def test_what_is_written_arrives_at_once(long):
    server = Server()

    def app(environ, start_response):
        start_response("200 OK", TEXT)(b"now")
        assert server.served.body == b"now"
        return [b""]

    assert server.run(long(app), environ()).error is None


def test_write_when_the_response_has_been_handed_over(long):
    kept = []

    def app(environ, start_response):
        kept.append(start_response("200 OK", TEXT))
        return [b"ok"]

    assert _served(long(app)).status == 200
    with pytest.raises(RuntimeError, match="write"):
        kept[0](b"late")


def test_an_app_that_forgets_start_response(road, long):
    """The server says so, as it would without us."""
    assert "without a head" in str(road(lambda: _served(long(lambda *_: [b"body"]))).error)


def test_a_server_that_refuses_the_head(road, long, seen):
    """The app's response is closed: the server will never see it."""
    result = Closing([b"one"])

    class Strict(Server):
        def start_response(self, status, headers, exc_info=None):
            raise ValueError("a header that is none")

    served = road(lambda: Strict().run(long(_app(result)), environ()))
    assert type(served.error) is ValueError
    assert result.closed == 1
    assert len(seen.states) == 2


# Gaps of a stream


@pytest.mark.parametrize("mode", ("respond", "raise"))
def test_a_gap_too_long(road, seen, mode):
    result = Closing([b"one", b"two", linger])
    guard = RequestTimeoutMiddleware(
        _app(result), service_timeout=LONG, stream_timeout=SHORT, mode=mode, observers=[seen]
    )
    served = road(lambda: serve(guard))
    assert (served.status, served.body) == (200, b"onetwo")
    assert type(served.error) is RequestTimeoutError
    assert result.closed == 1
    assert seen.states == READY_AND_TIMED_OUT
    assert entries_left() == 0


def test_gaps_that_are_short_enough(road, seen):
    """Together they take longer than any limit."""

    def pause():
        end = time.monotonic() + 0.1
        assert eventually(lambda: time.monotonic() > end)
        return b"x"

    guard = RequestTimeoutMiddleware(
        _app(Closing([pause] * 5)), service_timeout=0.4, stream_timeout=0.4, observers=[seen]
    )
    served = road(lambda: serve(guard))
    assert (served.body, served.error) == (b"xxxxx", None)
    assert seen.states == READY_AND_COMPLETED


def test_a_gap_too_long_is_only_reported(seen):
    requests = []

    def wait():
        assert eventually(lambda: requests[0].state is State.TIMED_OUT)
        return b"two"

    def app(environ, start_response):
        requests.append(environ["hostline.request"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Closing([b"one", wait, b"three"])

    guard = RequestTimeoutMiddleware(
        app, service_timeout=LONG, stream_timeout=SHORT, mode="report", observers=[seen]
    )
    served = serve(guard)
    assert (served.body, served.error) == (b"onetwothree", None)
    assert seen.states == READY_AND_TIMED_OUT


def test_each_gap_of_a_request_that_timed_out_is_reported_once_in_all(seen):
    requests = []

    def wait():
        assert eventually(lambda: requests[0].state is State.TIMED_OUT)
        end = time.monotonic() + 3 * SHORT
        assert eventually(lambda: time.monotonic() > end)
        return b"x"

    def app(environ, start_response):
        requests.append(environ["hostline.request"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Closing([wait, wait, wait])

    guard = RequestTimeoutMiddleware(
        app, service_timeout=SHORT, stream_timeout=SHORT, mode="report", observers=[seen]
    )
    assert serve(guard).body == b"xxx"
    assert seen.states == READY_AND_TIMED_OUT


def test_an_error_in_a_stream(road, seen):
    result = Closing([b"one", lambda: 1 // 0])
    guard = RequestTimeoutMiddleware(_app(result), stream_timeout=LONG, observers=[seen])
    served = road(lambda: serve(guard))
    assert served.body == b"one"
    assert type(served.error) is ZeroDivisionError
    assert result.closed == 1
    assert seen.states == READY_AND_COMPLETED


def test_a_chunk_that_comes_too_late(road, seen):
    def swallow():
        try:
            linger()
        except BaseException:
            return b"late"

    guard = RequestTimeoutMiddleware(_app(Closing([b"one", swallow])), stream_timeout=SHORT, observers=[seen])
    served = road(lambda: serve(guard))
    assert served.body == b"one"
    assert type(served.error) is RequestTimeoutError
    assert seen.states == READY_AND_TIMED_OUT


def test_a_stream_that_is_asked_again_after_it_was_cut(seen):
    guard = RequestTimeoutMiddleware(
        _app(Closing([b"one", linger, b"three"])), stream_timeout=SHORT, observers=[seen]
    )
    server = Server()
    result = guard(environ(), server.start_response)
    assert next(iter(result)) == b"one"
    with pytest.raises(RequestTimeoutError):
        next(result)
    next(result)  # what comes is the app's business
    result.close()
    assert seen.states == READY_AND_TIMED_OUT
    assert entries_left() == 0


def test_a_stream_read_by_another_thread(seen):
    """A server may read the body where it likes."""
    guard = RequestTimeoutMiddleware(_app(Closing([b"one", linger])), stream_timeout=SHORT, observers=[seen])
    result = guard(environ(), Server().start_response)
    assert next(iter(result)) == b"one"
    with pytest.raises(RequestTimeoutError):
        in_thread(lambda: next(result))
    result.close()
    assert seen.states == READY_AND_TIMED_OUT


# Threads and signals


def test_a_thread_that_is_met_again_is_not_asked_again():
    guard = RequestTimeoutMiddleware(hello, observers=())
    for _ in range(2):
        serve(guard)
    assert guard._threads_met == {threading.get_ident()}


def test_the_threads_met_are_forgotten_before_they_are_too_many():
    guard = RequestTimeoutMiddleware(hello, observers=())
    guard._threads_met.update(range(-2000, 0))
    serve(guard)
    assert len(guard._threads_met) < 1000


def test_a_signal_that_is_taken_is_left_alone(seen, caplog):
    taken = []
    before = signal.signal(signal.SIGUSR2, lambda *_: taken.append(1))
    try:
        guard = RequestTimeoutMiddleware(slow, service_timeout=SHORT, signal=signal.SIGUSR2, observers=[seen])
        with caplog.at_level(logging.WARNING):
            served = serve(guard)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert served.status == 504
    assert not taken
    assert "SIGUSR2" in caplog.text
    assert seen.states == READY_AND_TIMED_OUT


def test_another_signal(seen):
    try:
        guard = RequestTimeoutMiddleware(
            lambda *_: time.sleep(20), service_timeout=SHORT, signal="SIGUSR1", observers=[seen]
        )
        assert serve(guard).status == 504
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    serve(RequestTimeoutMiddleware(hello, observers=()))  # and back to the usual one


def test_a_handler_that_has_been_replaced_since(seen):
    guard = RequestTimeoutMiddleware(slow, service_timeout=SHORT, observers=[seen])
    assert serve(guard).status == 504
    before = signal.signal(signal.SIGURG, signal.SIG_IGN)
    try:
        assert serve(guard).status == 504
    finally:
        signal.signal(signal.SIGURG, before)
    assert sorted(seen.states) == sorted(READY_AND_TIMED_OUT * 2)


def test_a_signal_from_elsewhere_raises_nothing(long):
    def app(environ, start_response):
        signal.raise_signal(signal.SIGURG)
        return hello(environ, start_response)

    assert serve(long(app)).status == 200
    signal.raise_signal(signal.SIGURG)


def test_the_main_thread_s_request_is_not_hit_for_another_thread_s(seen):
    guard = RequestTimeoutMiddleware(slow, service_timeout=SHORT, observers=[seen])
    statuses = []

    def app(environ, start_response):
        thread = threading.Thread(target=lambda: statuses.append(serve(guard).status))
        thread.start()
        thread.join(20)
        return hello(environ, start_response)

    assert serve(RequestTimeoutMiddleware(app, service_timeout=LONG, observers=())).status == 200
    assert statuses == [504]


def test_where_a_signal_ends_waits_it_is_sent(short, seen, monkeypatch):
    """As on CPython 3.15; here it is a Python loop that ends, and the signal does no harm."""
    monkeypatch.setattr(_wsgi_timeout, "_SIGNALS_MAY_END_WAITS", True)
    monkeypatch.setattr(wait_probe, "ends_waits", True)
    sent = []
    monkeypatch.setattr(_breaker.signal, "pthread_kill", lambda *arguments: sent.append(arguments))

    def app(environ, start_response):
        with lock:
            linger()

    lock = threading.Lock()
    with lock:
        guard = short(app)
        served = threading.Thread(target=serve, args=(guard,))
        served.start()
        assert eventually(lambda: sent)
    served.join(20)
    assert set(sent) == {(served.ident, signal.SIGURG)}
    assert seen.states == READY_AND_TIMED_OUT


def test_many_threads_at_once(seen):
    def app(environ, start_response):
        return (slow if environ["PATH_INFO"] == "/slow" else hello)(environ, start_response)

    guard = RequestTimeoutMiddleware(app, service_timeout=0.2, observers=[seen])
    answers = []

    def work(index):
        for number in range(20):
            path = "/slow" if number % 10 == index else "/"
            answers.append((path, serve(guard, environ(path), validate=False).status))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(answers) == {("/slow", 504), ("/", 200)}
    assert len(answers) == 160
    assert seen.states.count(State.TIMED_OUT) == 16


# Nested, mounted, configured by the environment


def test_nested_the_inner_one_is_first(road, seen):
    outer_seen = Recorder()
    inner = RequestTimeoutMiddleware(slow, service_timeout=SHORT, observers=[seen])
    outer = RequestTimeoutMiddleware(inner, service_timeout=LONG, observers=[outer_seen])
    assert road(lambda: serve(outer)).status == 504
    assert seen.states == READY_AND_TIMED_OUT
    assert outer_seen.states == READY_AND_COMPLETED
    assert entries_left() == 0


def test_nested_the_outer_one_is_first(road, seen):
    outer_seen = Recorder()
    inner = RequestTimeoutMiddleware(slow, service_timeout=LONG, observers=[seen])
    outer = RequestTimeoutMiddleware(inner, service_timeout=SHORT, observers=[outer_seen])
    assert road(lambda: serve(outer)).status == 504
    assert outer_seen.states == READY_AND_TIMED_OUT
    assert seen.states == READY_AND_COMPLETED
    assert entries_left() == 0


def test_nested_at_the_same_time(road, seen):
    outer_seen = Recorder()
    inner = RequestTimeoutMiddleware(slow, service_timeout=SHORT, observers=[seen])
    outer = RequestTimeoutMiddleware(inner, service_timeout=SHORT, observers=[outer_seen])
    for _ in range(5):
        assert road(lambda: serve(outer)).status == 504
    assert sorted(outer_seen.states) == sorted(READY_AND_TIMED_OUT * 5)
    endings = seen.states
    assert endings.count(State.READY) == 5
    assert len(endings) == 10


def test_nested_a_response_is_closed_once(road):
    """The outer guard's deadline comes while the inner one closes what its app returned."""

    class Slow(Closing):
        def close(self):
            self.closed += 1
            if self.closed == 1:
                deep()

    def deep():
        deeper()

    def deeper():
        deepest()

    def deepest():
        linger(3)

    result = Slow([linger])
    inner = RequestTimeoutMiddleware(_app(result), service_timeout=SHORT, observers=())
    outer = RequestTimeoutMiddleware(inner, service_timeout=0.3, observers=())
    assert road(lambda: serve(outer)).status == 504
    assert result.closed == 1


def test_both_guards_under_a_mount_prefix(road, seen):
    env = {"SCRIPT_NAME": "/mount", "HTTP_HOST": "www.example.com"}

    def build(app):
        return CanonicalHostMiddleware(
            RequestTimeoutMiddleware(
                validator(app), service_timeout=SHORT, exempt_paths=["/mount/free"], observers=[seen]
            ),
            "www.example.com",
        )

    assert road(lambda: serve(build(slow), environ("/slow", **env))).status == 504
    assert seen.states == READY_AND_TIMED_OUT
    assert seen.events[-1].path == "/mount/slow"
    assert road(lambda: serve(build(hello), environ("/free", **env))).body == b"hello"
    assert len(seen.states) == 2
    redirect = serve(build(slow), environ("/slow", **{**env, "HTTP_HOST": "other.example.com"}))
    assert redirect.headers["location"] == "http://www.example.com/mount/slow"
    assert len(seen.states) == 2


def test_from_env(monkeypatch, caplog):
    monkeypatch.setenv("HOSTLINE_SERVICE_TIMEOUT", "30ms")
    monkeypatch.setenv("HOSTLINE_CANONICAL_HOST", "www.example.com")
    app = from_env(slow)
    assert serve(app, environ(HTTP_HOST="example.com")).status == 301
    assert serve(app, environ(HTTP_HOST="www.example.com")).status == 504


def test_options_that_are_wrong():
    with pytest.raises(SettingsError, match="service_timeout"):
        RequestTimeoutMiddleware(hello, service_timeout=-1)


# Where nothing can be broken


def _obstacle_free_threading(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)


def _obstacle_pypy(monkeypatch):
    monkeypatch.setattr(sys.implementation, "name", "pypy")


@pytest.mark.parametrize("obstacle", (_obstacle_free_threading, _obstacle_pypy))
def test_an_interpreter_that_cannot_break_threads_reports(monkeypatch, seen, caplog, obstacle):
    def app(environ, start_response):
        assert eventually(lambda: environ["hostline.request"].state is State.TIMED_OUT)
        return hello(environ, start_response)

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=[seen])
    obstacle(monkeypatch)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert serve(guard).body == b"hello"
    assert caplog.text.count("aborts none") == 1
    assert sorted(seen.states) == sorted(READY_AND_TIMED_OUT * 2)


# What is left behind


class Witness:
    """Something of the app's that must be gone as soon as its request is."""


@pytest.mark.parametrize(
    "kind",
    ("in time", "late", "late stream", "raise", "expired", "exempt", "stamped", "stream", "error", "cut"),
)
def test_no_request_is_left_to_the_garbage_collector(kind):
    witnesses = []

    def app(environ, start_response):
        witness = environ["app.witness"] = Witness()
        witnesses.append(weakref.ref(witness))
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if kind == "error":
            raise ValueError
        if kind == "cut":
            write(b"begun")
        if kind in ("late", "raise", "cut"):
            linger()
        if kind == "late stream":
            return Closing([b"one", linger])
        return Closing([b"one", b"two"]) if kind == "stream" else [b"one"]

    options = {"service_timeout": LONG if "stream" in kind or kind == "stamped" else SHORT}
    if "stream" in kind:
        options["stream_timeout"] = SHORT if kind == "late stream" else LONG
    if kind == "raise":
        options["mode"] = "raise"
    if kind == "exempt":
        options["exempt_paths"] = ["/"]
    guard = RequestTimeoutMiddleware(app, observers=(), **options)
    header = {"expired": _stamp(31), "stamped": _stamp(1)}.get(kind)

    def once():
        env = environ(**({"HTTP_X_REQUEST_START": header} if header else {}))
        served = Server().run(guard, env)
        witnesses.append(weakref.ref(env["hostline.request"]))
        return served

    once()
    # Of this one and of the tests before: an abort's breaker holds its guard, which would be left here.
    assert eventually(lambda: entries_left() == breakers_left() == 0 and reporter.flush(5), within=5)
    gc.collect()
    gc.disable()
    try:
        witnesses.clear()
        served = once()
        served.error = None
        # The breaker of one that was aborted looks after it a last time.
        assert eventually(lambda: reporter.flush(5) and all(ref() is None for ref in witnesses), within=3)
        assert gc.collect() == 0
    finally:
        gc.enable()


# A real socket between


def test_a_client_that_sends_its_body_too_slowly_is_told(seen):
    """The app waits for the client in C; woken, it must still have a way to answer."""
    from wsgiref.simple_server import WSGIRequestHandler, make_server  # noqa: PLC0415

    class Silent(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    def app(environ, start_response):
        environ["wsgi.input"].read(10)
        return hello(environ, start_response)

    guard = RequestTimeoutMiddleware(app, service_timeout=SHORT, observers=[seen])
    with make_server("127.0.0.1", 0, guard, handler_class=Silent) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with socket.create_connection(server.server_address, timeout=10) as client:
            client.sendall(b"POST / HTTP/1.0\r\nContent-Length: 10\r\n\r\nabc")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        thread.join(20)
    assert b" 504 " in answer.partition(b"\r\n")[0]
    assert seen.states == READY_AND_TIMED_OUT


def test_the_thread_s_own_start_is_no_hindrance(seen):
    """A thread that ``threading`` knows nothing of is as good as any."""
    guard = RequestTimeoutMiddleware(slow, service_timeout=SHORT, observers=[seen])
    statuses = []
    _thread.start_new_thread(lambda: statuses.append(serve(guard).status), ())
    assert eventually(lambda: statuses == [504])


@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # a fork with threads: that is the point
def test_a_child_that_a_thread_has_forked_has_its_deadlines_met():
    """There that thread is the main one, and CPython 3.13.0 runs no handler of a signal's in it."""

    def busy(environ, start_response):
        end = monotonic() + 20
        while monotonic() < end:
            pass
        return hello(environ, start_response)

    def fork():
        child = os.fork()
        if child == 0:  # nothing of pytest's may run in here
            status = 1
            try:
                guard = RequestTimeoutMiddleware(busy, service_timeout=0.02, observers=())
                began = monotonic()
                is_timed_out = serve(guard, validate=False).status == 504
                status = 0 if is_timed_out and monotonic() - began < 15 else 2
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_thread(fork) == 0


def test_a_response_that_fails_to_close_ends_its_request(seen, long):
    class Response:
        def __iter__(self):
            return self

        def __next__(self):
            raise ValueError("the app's own")

        def close(self):
            raise SystemExit

    app = _app(Response())
    assert isinstance(serve(long(app), validate=False).error, SystemExit)
    assert seen.states == READY_AND_COMPLETED


def test_between_two_chunks_nothing_of_the_app_s_is_slow(caplog):
    """It is the server that runs there, and may wait for its client."""

    def look(request):
        ThreadWatch(request, LONG).expire()
        assert reporter.flush(20)
        return caplog.text.count("is slow")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        assert look(environ["hostline.request"]) == 1
        yield b"one"
        assert look(environ["hostline.request"]) == 2
        yield b"two"

    asked = environ()
    chunks = RequestTimeoutMiddleware(app, stream_timeout=LONG, observers=())(asked, lambda *_: None)
    assert look(asked["hostline.request"]) == 1
    assert list(chunks) == [b"one", b"two"]
    chunks.close()


def test_nobody_but_the_app_looks_behind_its_proxy(short):
    """What it waits in is looked at by the watchdog, and to ask a proxy what it is runs the app's code."""
    callers = []

    def connection():
        callers.append(threading.get_ident())
        return opened

    holder = SimpleNamespace(db=LocalProxy(connection))
    steps = 2_000_000

    def app(environ, start_response):
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        count = f"{numbers} SELECT count(*) FROM n"
        db = holder.db
        db.execute(count, (steps,)).fetchone()
        holder.db.execute(count, (steps,)).fetchone()
        return hello(environ, start_response)

    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as opened:
        assert in_thread(lambda: serve(short(app))).status == 504
    assert len(set(callers)) == 1


# Calls that fail, with clean-up behind them


class Connections:
    """A pool of a driver's, to be used in each of the usual ways."""

    def __init__(self):
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.free = [self.connection]

    def put(self, connection):
        self.free.append(connection)

    def __enter__(self):
        return self.free.pop()

    def __exit__(self, *error):
        self.put(self.connection)


@pytest.fixture
def connections():
    pool = Connections()
    yield pool
    pool.connection.close()


ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


def in_a_finally(connections, use):
    connection = connections.free.pop()
    try:
        use(connection)
    finally:
        connections.put(connection)


def in_a_with(connections, use):
    with connections as connection:
        use(connection)


def endless_statement(connection):
    connection.execute(ENDLESS)


def statement_with_a_timeout(connection):
    """Nobody can wake it, and it ends by an error of its own, well behind the deadline."""
    queue.SimpleQueue().get(timeout=0.3)


def own_error_instead(connection):
    try:
        connection.execute(ENDLESS)
    except sqlite3.OperationalError as error:
        raise ValueError from error


@pytest.mark.parametrize("manner", (in_a_finally, in_a_with))
@pytest.mark.parametrize("use", (endless_statement, statement_with_a_timeout, own_error_instead))
def test_what_fails_is_cleaned_up_behind(road, short, seen, connections, manner, use):
    """CPython would raise a pending abort in the first function that the clean-up calls."""

    def app(environ, start_response):
        manner(connections, use)
        raise NotStoppedError

    for _ in range(5):
        assert road(lambda: serve(short(app))).status == 504
        assert len(connections.free) == 1
    assert seen.count(State.TIMED_OUT) == 5


def test_a_statement_that_is_executed_often_is_interrupted(short, connections):
    """CPython 3.11 stands at another instruction then."""

    def execute(statement):
        return connections.connection.execute(statement)

    for _ in range(100):
        execute("select 1")

    def app(environ, start_response):
        execute(ENDLESS)
        raise NotStoppedError

    assert in_thread(lambda: serve(short(app))).status == 504


@pytest.mark.parametrize("manner", (in_a_finally, in_a_with))
def test_one_that_tries_again_is_aborted_all_the_same(short, connections, manner):
    def try_again(connection):
        while True:
            try:
                connection.execute(ENDLESS)
            except sqlite3.OperationalError:
                pass

    def app(environ, start_response):
        manner(connections, try_again)

    assert in_thread(lambda: serve(short(app))).status == 504


def test_a_read_within_a_with_is_broken(short, seen, connections):
    one, other = socket.socketpair()

    def read(connection):
        one.recv(1)
        raise NotStoppedError  # it has told of the socket's end, and nobody is to believe it

    def app(environ, start_response):
        in_a_with(connections, read)

    with one, other:
        assert in_thread(lambda: serve(short(app))).status == 504
    assert len(connections.free) == 1
    assert seen.states == READY_AND_TIMED_OUT


def test_no_abort_in_a_handler_of_the_server_s(short):
    """It runs on top of the app, in the main thread; gunicorn reopens its logs in one."""
    told = []

    def handle(signum, frame):
        told.append("begun")
        end = monotonic() + 5 * SHORT
        while monotonic() < end:
            pass
        told.append("done")

    def app(environ, start_response):
        signal.raise_signal(signal.SIGUSR1)
        linger()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert serve(short(app)).status == 504
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert told == ["begun", "done"]
