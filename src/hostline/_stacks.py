"""What a request was doing: the stack of a thread, the chain of awaits of a coroutine.

Taken quickly, as bare numbers and names, at the moment of the abort; made into text,
with source lines read from disk, when somebody asks for it.

Imports: ``_frames``.
"""

import traceback
from collections.abc import Container
from itertools import takewhile
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import cast

from hostline import _frames

Position = tuple[str, int, str]
"""File name, line number and function."""

Trace = list[Position]
"""Each frame's, outermost first."""

# A recursion at its limit would make a megabyte of log.
_DEEPEST = 60


def of_thread(frame: FrameType | None, outermost: Container[CodeType] = ()) -> Trace:
    """The stack below (and without) the innermost frame that runs one of ``outermost``."""
    own = takewhile(lambda each: each.f_code not in outermost, _frames.outwards(frame))
    trace = [_position(each) for each in own]
    return trace[_DEEPEST - 1 :: -1] if len(trace) > _DEEPEST else trace[::-1]


def request_in(frame: FrameType | None, outermost: Container[CodeType]) -> object:
    """The local ``request`` of the innermost frame that runs one of ``outermost``; None without one."""
    every = _frames.outwards(frame)
    found = (_frames.local(each, "request") for each in every if each.f_code in outermost)
    return next(found, None)


def of_coroutine(awaitable: object, outermost: Container[CodeType] = ()) -> Trace:
    """The chain of awaits from a suspended coroutine inwards, behind ``outermost``."""
    trace: Trace = []
    while awaitable is not None:
        with _frames.still:
            frame, awaitable = _suspended(awaitable)
        if frame is None:
            break
        if frame.f_code in outermost:
            trace.clear()
        else:
            trace.append(_position(frame))
    return trace[-_DEEPEST:]


def render(trace: Trace) -> str:
    """A traceback's text, with source lines where the source is there."""
    summary = traceback.StackSummary.from_list([(*frame, None) for frame in trace])
    return "".join(summary.format()).rstrip("\n")


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
