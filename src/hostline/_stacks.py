"""What a request was doing: the stack of a thread, the chain of awaits of a coroutine.

Taken quickly, as bare numbers and names, at the moment of the abort; made into text,
with source lines read from disk, when somebody asks for it.

Imports: ``_frames``.
"""

import os
import re
import traceback
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from itertools import groupby, takewhile
from pathlib import Path
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import cast

from hostline import _frames

Position = tuple[str, int, str]
"""File name, line number and function."""

Trace = list[Position]
"""Each frame's, outermost first."""

# A recursion at its limit would make a megabyte of log.
DEEPEST = 60
# How many frames of libraries are shown where the app's own code has called them: what it waits for.
_INNERMOST = 3
_MOST_NAMES = 5
_INSTALLED = re.compile(r".*[\\/](?:site|dist)-packages[\\/]([^\\/]+)", re.DOTALL)
_STANDARD_LIBRARY = f"{Path(os.__file__).parent}{os.sep}"
_HOSTLINE = f"{Path(__file__).parent}{os.sep}"
_DEMO = f"{_HOSTLINE}demo{os.sep}"  # an app of its own


def of_thread(frame: FrameType | None, outermost: Container[CodeType] = ()) -> Trace:
    """The stack below (and without) the innermost frame that runs one of ``outermost``."""
    own = takewhile(lambda each: each.f_code not in outermost, _frames.outwards(frame))
    trace = [_position(each) for each in own]
    return trace[DEEPEST - 1 :: -1] if len(trace) > DEEPEST else trace[::-1]


def request_in(frame: FrameType | None, outermost: Container[CodeType]) -> object:
    """The local ``request`` of the innermost frame that runs one of ``outermost``; None without one."""
    every = _frames.outwards(frame)
    found = (_frames.local(each, "request") for each in every if each.f_code in outermost)
    return next(found, None)


def of_coroutine(awaitable: object, outermost: Container[CodeType] = ()) -> Trace:
    """The chain of awaits from a suspended coroutine inwards, behind ``outermost``."""
    trace: Trace = []
    for frame, _ in awaits(awaitable):
        if frame.f_code in outermost:
            trace.clear()
        else:
            trace.append(_position(frame))
    return trace[-DEEPEST:]


def awaits(awaitable: object) -> Iterator[tuple[FrameType, object]]:
    """A suspended coroutine's frame and itself, and those of what it awaits, inwards."""
    while awaitable is not None:
        with _frames.still:
            frame, inner = _suspended(awaitable)
        if frame is None:
            break
        yield frame, awaitable
        awaitable = inner


def render(trace: Iterable[Position]) -> str:
    """A traceback's text, with source lines where the source is there."""
    return _rendered(tuple(trace))


def render_trimmed(trace: Iterable[Position]) -> str:
    """The same with libraries' frames left out, but for the innermost ones.

    Without a frame of the app's own it is whole: an app may be installed as libraries are.
    """
    return _rendered_trimmed(tuple(trace))


@lru_cache(maxsize=64)  # an outage has the same few stacks again and again
def _rendered(trace: tuple[Position, ...]) -> str:
    summary = traceback.StackSummary.from_list([(*frame, None) for frame in trace])
    return "".join(summary.format()).rstrip("\n")


@lru_cache(maxsize=64)
def _rendered_trimmed(trace: tuple[Position, ...]) -> str:
    libraries = [library_of(file_name) for file_name, _, _ in trace]
    if None not in libraries:
        return _rendered(trace)
    last_own = max(place for place, library in enumerate(libraries) if library is None)
    shown = min(_INNERMOST, len(trace) - 1 - last_own)
    libraries[len(trace) - shown :] = [None] * shown
    text: list[str] = []
    place = 0
    for is_left_out, group in groupby(libraries, bool):
        names = list(group)
        frames = trace[place : place + len(names)]
        text.append(_left_out(names) if is_left_out else _rendered(frames))
        place += len(names)
    return "\n".join(text)


def _left_out(libraries: list[str | None]) -> str:
    names = [str(name) for name in dict.fromkeys(libraries)]
    more = " and others" if len(names) > _MOST_NAMES else ""
    frames = "frame" if len(libraries) == 1 else "frames"
    return f"  ... {len(libraries)} {frames} of {', '.join(names[:_MOST_NAMES])}{more} ..."


@lru_cache(maxsize=1024)
def library_of(file_name: str) -> str | None:
    """The library that the file is of; None: it is the app's own."""
    installed = _INSTALLED.match(file_name)
    if installed is not None:
        return installed[1].removesuffix(".py")
    if file_name.startswith(_STANDARD_LIBRARY):
        return re.split(r"[\\/.]", file_name.removeprefix(_STANDARD_LIBRARY))[0]
    if file_name.startswith(_HOSTLINE) and not file_name.startswith(_DEMO):
        return "hostline"
    if file_name.startswith("<frozen "):
        return re.split(r"[ .>]", file_name)[1]
    return None


def _position(frame: FrameType) -> Position:
    code = frame.f_code
    # f_lineno is None between the lines of a frame that is just being set up.
    return code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_name


def _suspended(awaitable: object) -> tuple[FrameType | None, object]:
    if isinstance(awaitable, CoroutineType):
        return awaitable.cr_frame, awaitable.cr_await
    if isinstance(awaitable, GeneratorType):
        generator = cast("GeneratorType[object, object, object]", awaitable)
        return generator.gi_frame, generator.gi_yieldfrom
    if isinstance(awaitable, AsyncGeneratorType):
        return awaitable.ag_frame, awaitable.ag_await
    return None, None
