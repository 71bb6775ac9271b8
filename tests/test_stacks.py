"""What the code was doing, of threads and of coroutines."""

import asyncio
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from hostline import _stacks

SITE_PACKAGES = Path(pytest.__file__).parents[1]


def _functions(trace):
    return [function for _, _, function in trace]


def outermost_function(then):
    return then()


def middle(then):
    return then()


def here():
    return _stacks.of_thread(sys._getframe(), {outermost_function.__code__})


def test_the_stack_of_a_thread_begins_behind_the_guard():
    trace = outermost_function(lambda: middle(here))
    assert _functions(trace) == ["<lambda>", "middle", "here"]
    assert {file for file, _, _ in trace} == {__file__}


def test_it_begins_behind_the_innermost_guard():
    trace = outermost_function(lambda: outermost_function(here))
    assert _functions(trace) == ["here"]


def test_the_whole_stack_where_there_is_no_guard():
    assert _functions(_stacks.of_thread(sys._getframe()))[-1] == (
        "test_the_whole_stack_where_there_is_no_guard"
    )


def test_the_stack_of_a_thread_that_is_gone():
    assert _stacks.of_thread(None) == []


def test_the_stack_of_another_thread():
    ready, gate = threading.Event(), threading.Event()

    def work():
        ready.set()
        gate.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(20)
    try:
        trace = _stacks.of_thread(sys._current_frames()[thread.ident], {threading.Thread.run.__code__})
    finally:
        gate.set()
        thread.join(20)
    assert _functions(trace)[0] == "work"


def _dive(depth):
    return here() if depth == 0 else _dive(depth - 1)


def test_of_a_deep_recursion_the_innermost_frames():
    trace = outermost_function(lambda: _dive(200))
    assert len(trace) == 60
    assert _functions(trace)[-2:] == ["_dive", "here"]


def test_a_line_that_is_not_known_yet():
    frame = SimpleNamespace(f_code=here.__code__, f_lineno=None, f_back=None)
    ((_, line, function),) = _stacks.of_thread(frame)
    assert (line, function) == (here.__code__.co_firstlineno, "here")


# Coroutines


async def outer(then):
    await inner(then)


async def inner(then):
    await then


class Awaitable:
    def __init__(self, then):
        self.then = then

    def __await__(self):
        yield from self.then.__await__()


async def generate(then):
    await then
    yield 1


async def iterate(then):
    async for _ in generate(then):
        pass


def _suspended(make, outermost=None):
    """The trace of what ``make`` gives, while it waits for a future."""

    async def main():
        future = asyncio.get_running_loop().create_future()
        coroutine = make(future)
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(0)
        trace = _stacks.of_coroutine(task.get_coro(), {outermost})
        future.set_result(None)
        await task
        return trace, coroutine

    trace, coroutine = asyncio.run(main())
    assert _stacks.of_coroutine(coroutine) == [], "it has ended"
    return _functions(trace)


def test_the_chain_of_awaits():
    assert _suspended(outer) == ["outer", "inner"]
    assert _suspended(lambda future: outer(inner(future))) == ["outer", "inner", "inner"]


def test_it_begins_behind_the_guard_too():
    assert _suspended(outer, outer.__code__) == ["inner"]


def test_an_awaitable_of_somebody_s_own():
    assert _suspended(lambda future: outer(Awaitable(future))) == ["outer", "inner", "__await__"]


def test_through_an_asynchronous_generator():
    assert _suspended(iterate)[0] == "iterate"


def test_an_asynchronous_generator_itself():
    async def main():
        future = asyncio.get_running_loop().create_future()
        generator = generate(future)
        task = asyncio.ensure_future(anext(generator))
        await asyncio.sleep(0)
        trace = _stacks.of_coroutine(generator)
        future.set_result(None)
        await task
        await generator.aclose()
        return trace

    assert _functions(asyncio.run(main())) == ["generate"]


def test_of_a_long_chain_the_innermost():
    async def deep(depth, then):
        await (then if depth == 0 else deep(depth - 1, then))

    assert _suspended(lambda future: deep(100, inner(future))) == ["deep"] * 59 + ["inner"]


@pytest.mark.parametrize("nothing", (None, object(), 7))
def test_what_is_no_coroutine_has_no_stack(nothing):
    assert _stacks.of_coroutine(nothing) == []


# As text


def test_render_shows_the_source():
    trace = outermost_function(here)
    text = _stacks.render(trace)
    assert "return _stacks.of_thread(sys._getframe(), {outermost_function.__code__})" in text
    assert f'File "{__file__}", line ' in text
    assert not text.endswith("\n")


def test_render_without_source():
    assert _stacks.render([("<gone>", 7, "view")]) == '  File "<gone>", line 7, in view'
    assert _stacks.render([]) == ""


# Trimmed to the app's own

APP = ("/app/views.py", 7, "view")
SITE = f"{SITE_PACKAGES}/"


def _library(name, count):
    return [(f"{SITE}{name}/module.py", number, "call") for number in range(count)]


def _trimmed(*frames):
    return [
        line.strip() for line in _stacks.render_trimmed(frames).split("\n") if not line.startswith("    ")
    ]


VIEW = 'File "/app/views.py", line 7, in view'


@pytest.mark.parametrize(
    ("frames", "text"),
    (
        ([APP], [VIEW]),
        ([*_library("flask", 3), APP], ["... 3 frames of flask ...", VIEW]),
        (
            [*_library("starlette", 2), *_library("anyio", 1), APP],
            ["... 3 frames of starlette, anyio ...", VIEW],
        ),
        (
            [APP, *_library("sqlalchemy", 1), APP, *_library("x", 1)],
            [VIEW, "... 1 frame of sqlalchemy ...", VIEW, f'File "{SITE}x/module.py", line 0, in call'],
        ),
        (
            [APP, *_library("sqlalchemy", 20)],
            [VIEW, "... 17 frames of sqlalchemy ..."]
            + [f'File "{SITE}sqlalchemy/module.py", line {n}, in call' for n in (17, 18, 19)],
        ),
        (
            [("<frozen runpy>", 1, "run"), (threading.__file__, 1, "run"), APP],
            ["... 2 frames of runpy, threading ...", VIEW],
        ),
        (
            [*(frame for n in range(7) for frame in _library(f"l{n}", 1)), APP],
            ["... 7 frames of l0, l1, l2, l3, l4 and others ...", VIEW],
        ),
        ([(f"{SITE}six.py", 1, "f"), APP], ["... 1 frame of six ...", VIEW]),
        (
            [("/usr/lib/python3/dist-packages/a/b.py", 1, "f"), APP],
            ["... 1 frame of a ...", VIEW],
        ),
        ([(_stacks.__file__, 1, "f"), APP], ["... 1 frame of hostline ...", VIEW]),
        (
            [(r"C:\v\Lib\site-packages\werkzeug\x.py", 1, "f"), APP],
            ["... 1 frame of werkzeug ...", VIEW],
        ),
        ([("<string>", 1, "f"), APP], ['File "<string>", line 1, in f', VIEW]),
        ([], [""]),
    ),
    ids=str,
)
def test_trimmed(frames, text):
    _stacks.library_of.cache_clear()
    _stacks._rendered_trimmed.cache_clear()
    assert _trimmed(*frames) == text


def test_a_stack_without_a_frame_of_the_app_s_own_is_whole():
    frames = [*_library("starlette", 4), *_library("installed_app", 3)]
    assert _stacks.render_trimmed(frames) == _stacks.render(frames)


def test_a_recursion_is_as_short_as_in_any_traceback():
    assert "[Previous line repeated 17 more times]" in _stacks.render_trimmed([APP] * 20)
