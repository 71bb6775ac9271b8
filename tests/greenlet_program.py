"""A program for `test_greenlets`: one case, by its name, in a process that gevent has patched for good.

Prints what there is to see of it as one JSON object.
"""

import gevent.monkey

gevent.monkey.patch_all()

import ctypes  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from contextlib import suppress  # noqa: E402

import gevent.event  # noqa: E402
from gevent.socket import wait_read  # noqa: E402

import hostline  # noqa: E402
from hostline import _breaker, _greenlets, _native  # noqa: E402
from hostline.wsgi import RequestTimeoutMiddleware  # noqa: E402

LIMIT = 0.2
LONG = 3.0
CASES = {}

native_sleep = gevent.monkey.get_original("time", "sleep")
logger = logging.getLogger("hostline")
logger.addHandler(logging.NullHandler())


def case(function):
    CASES[function.__name__] = function
    return function


def serve(work, *, limit=LIMIT):
    """A greenlet that serves a request, for which the app does this work. It ends with its answer."""

    def app(environ, start_response):
        start_response("200 OK", [])
        work()
        return [b"ok"]

    guard = RequestTimeoutMiddleware(app, service_timeout=limit, observers=())
    environ = {"REQUEST_METHOD": "GET"}

    def run():
        began = time.monotonic()
        heads = []
        try:
            b"".join(guard(environ, lambda status, *_: heads.append(status)))
        except BaseException as error:  # to be seen by the test
            heads.append(repr(error))
        return {"status": heads[-1][:3], "seconds": time.monotonic() - began}

    return gevent.spawn(run)


def ask(work, **options):
    return serve(work, **options).get()


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def longest_gap(seconds):
    """A greenlet of somebody else's, which notes how long it has not been let run."""

    def tick():
        longest, before = 0.0, time.monotonic()
        end = before + seconds
        while before < end:
            gevent.sleep(0.01)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        return longest

    return gevent.spawn(tick)


class Closing:
    """Something that is closed, which must not be cut short."""

    def __init__(self, close):
        self.close = lambda: None
        self._close = close

    def __exit__(self, *_):
        self._close()

    def __enter__(self):
        return self


# Blocks that the deadline cancels.


def in_block(work, cancelling=0.0):
    steps = []

    def cancel():
        steps.append("cancel")
        gevent.sleep(cancelling)
        steps.append("cancelled")

    def blocks():
        try:
            with hostline.interruptible(cancel):
                work()
        finally:
            steps.append("left")

    gap = longest_gap(2 * LIMIT)
    return {**ask(blocks), "steps": steps, "gap": gap.get()}


@case
def block_that_waits():
    return in_block(lambda: gevent.sleep(LONG))


@case
def block_that_computes():
    return in_block(lambda: compute(LONG))


@case
def block_where_no_thread_can_be_started():
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    _greenlets.start_native_thread = refuse
    return in_block(lambda: compute(LONG))


@case
def block_whose_cancelling_waits():
    return in_block(lambda: gevent.sleep(LONG), cancelling=2 * LIMIT)


@case
def block_of_a_driver_that_waits_in_c():
    """And that no signal gets out of there."""
    readable, writable = os.pipe()
    cancelled = []

    def cancel():
        cancelled.append(_native.native_get_ident())
        os.write(writable, b"x")

    def query():
        signal.siginterrupt(signal.SIGURG, False)
        with hostline.interruptible(cancel):
            ctypes.CDLL(None).read(readable, ctypes.create_string_buffer(1), 1)

    _native.start_native_thread(lambda: (native_sleep(LONG), os.write(writable, b"x")), ())
    answer = ask(query)
    return {**answer, "cancelled": len(cancelled), "here": cancelled == [_native.native_get_ident()]}


@case
def block_that_a_driver_of_gevents_ends():
    """The query fails by its cancelling, and is not torn by an abort before that."""
    done = gevent.event.Event()
    ends = []

    def query():
        try:
            with hostline.interruptible(done.set):
                done.wait(LONG)
                ends.append("by its cancelling")
        except hostline.RequestTimeoutException:
            ends.append("aborted")
            raise

    return {**ask(query), "ends": ends}


@case
def timeout_while_a_block_waits():
    """One of gevent's, behind the abort: neither gets out of the block before `cancel` has returned."""

    def work():
        with gevent.Timeout(LIMIT * 1.5):
            gevent.sleep(LONG)

    return in_block(work, cancelling=2 * LIMIT)


@case
def block_in_clean_up():
    ran = []

    def clean_up():
        with hostline.interruptible(lambda: None):
            ran.append("ran")

    def work(how):
        try:
            how(LONG)
        finally:
            clean_up()

    answers = [ask(lambda how=how: work(how)) for how in (gevent.sleep, compute)]
    return {"statuses": [each["status"] for each in answers], "ran": len(ran)}


# From one way of being broken to the other.


@case
def computes_where_it_may_not_be_broken_then_waits():
    def work():
        gevent.sleep(LIMIT * 0.9)
        with Closing(lambda: compute(LIMIT / 2)):
            pass
        gevent.sleep(LONG)

    return ask(work)


@case
def waits_where_it_may_not_be_broken_then_computes():
    def work():
        with Closing(lambda: gevent.sleep(LIMIT * 1.5)):
            pass
        compute(LONG)

    return ask(work)


@case
def shielded_then_computes():
    seen = []

    def work():
        with hostline.shield():
            gevent.sleep(LIMIT * 1.5)
        seen.append("behind the shield")
        compute(LONG)

    return {**ask(work), "seen": seen}


@case
def swallows_then_computes():
    def work():
        with suppress(hostline.RequestTimeoutException):
            gevent.sleep(LONG)
        compute(LONG)

    return ask(work)


@case
def hits():
    """How often code is hit that swallows it, whichever way: never more than twice."""
    hit = []

    def work():
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            for step in (lambda: compute(0.05), lambda: gevent.sleep(0.05)):
                try:
                    step()
                except hostline.RequestTimeoutException:
                    hit.append(time.monotonic())

    answer = ask(work)
    return {**answer, "hits": len(hit), "between": hit[-1] - hit[0]}


@case
def resumed_by_one_that_starves_the_hub():
    """The hub cannot answer for another's sake; then it comes to the late one first, which computes."""
    resumed = gevent.event.Event()
    late = serve(lambda: (resumed.wait(), compute(LONG)))
    gevent.sleep(0.01)
    resumed.set()
    compute(LIMIT * 2)
    return late.get()


@case
def given_up_by_a_checkpoint():
    seen = []

    def work():
        with hostline.shield():
            compute(LIMIT * 1.5)
        seen.append("behind")

    def looks():
        while True:
            hostline.checkpoint()

    return {"shielded": ask(work), "seen": seen, "looks": ask(looks)}


@case
def absorbing():
    """What was sent to this thread is found by the identity that the system gives it."""
    asked = []
    set_async_exc = _breaker.set_async_exc
    _breaker.set_async_exc = lambda ident, error: asked.append(ident) or set_async_exc(ident, error)
    gevent.spawn(_breaker.absorb).get()
    return {"by": asked, "native": [_native.native_get_ident()]}


# What is logged while the hub stands still.


class Sink(logging.Handler):
    """A handler of the log, which takes its time in gevent's way for the lines of others."""

    def __init__(self):
        super().__init__()
        self.seen = []
        logger.addHandler(self)

    def emit(self, record):
        if not hasattr(record, "state"):
            gevent.sleep(4 * LIMIT)
        self.seen.append(getattr(record, "state", "another's"))


@case
def log_that_waits():
    """While a greenlet has the handler's lock, the hub stands still, which is to be logged too."""
    sink = Sink()
    waits = serve(lambda: gevent.sleep(LONG))
    other = gevent.spawn(logger.warning, "another's")
    gevent.sleep(0.01)
    compute(LIMIT * 1.5)
    gevent.sleep(0)
    computes = ask(lambda: compute(LONG), limit=LIMIT / 2)
    other.join()
    logger.warning("another's")
    return {"logged": sink.seen, "computes": computes, "waits": waits.get()}


@case
def unstoppable():
    """A greenlet that starves the hub, and one that waits; the one is told of when it is over."""
    sink = Sink()

    def swallow(step):
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            with suppress(BaseException):
                step(end - time.monotonic())

    answers = [ask(lambda step=step: swallow(step)) for step in (compute, gevent.sleep)]
    gevent.sleep(0.01)
    return {"statuses": [each["status"] for each in answers], "logged": sink.seen}


# Whom it hits.


def take_signal():
    """Have it belong to the app: nobody hears it, as where the hub is not in the main thread."""
    signal.signal(signal.SIGURG, lambda *_: None)


def near_misses():
    """The code computes past its deadline, and what comes next is a switch, from Cython to Cython."""
    readable, _ = os.pipe()
    answers, strangers = Counter(), Counter()
    per_second = count_per_second()

    def work():
        compute(0.02)
        sum(range(int(per_second * random.uniform(0.008, 0.02))))
        wait_read(readable)

    def stand_by():
        try:
            for _ in range(30):
                gevent.sleep(0.002)
        except BaseException as error:  # to be seen by the test
            strangers[repr(error)] += 1

    gevent.get_hub().handle_error = lambda *args: strangers.update([repr(args[1])])
    for _ in range(30):
        by = gevent.spawn(stand_by)
        late = serve(work, limit=0.005)
        gevent.joinall([late, by], timeout=1)
        answers[late.value["status"] if late.dead else "none"] += 1
        late.kill()
    return {"answers": answers, "strangers": strangers}


def count_per_second():
    began = time.perf_counter()
    sum(range(1_000_000))
    return 1_000_000 / (time.perf_counter() - began)


@case
def near_misses_in_the_main_thread():
    return near_misses()


@case
def near_misses_without_a_signal():
    take_signal()
    return near_misses()


@case
def computes_without_a_signal():
    take_signal()
    return ask(lambda: compute(LONG))


@case
def hub_of_another_thread():
    answers = []

    def run():
        answers.append(ask(lambda: gevent.sleep(LONG)))

    _native.start_native_thread(run, ())
    while not answers:
        native_sleep(0.01)
    return answers[0]


if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]]()), flush=True)
    os._exit(0)  # what the case has left behind is of no interest
