"""Is somebody looking at the code with a debugger? Then nothing that takes its time is broken.

A debugger may attach at any time, so it is asked at each deadline and at no other moment.
One is told by what it must have: a trace function, of the thread or of one of its frames,
or the place that PEP 669 keeps for it. Tools that measure coverage have trace functions
too, and are none.

May be called from any thread. Imports nothing of hostline.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType

# What they have their trace functions in. Whatever else traces, code is slow under it.
_COVERAGE = frozenset({"_pytest", "coverage", "hypothesis", "pytest_cov", "slipcover", "trace"})


def debugger_at(frames: Iterable[FrameType]) -> str | None:
    """What the code in these frames, or all of it, is looked at by; None: by nobody."""
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        tool: str | None = monitoring.get_tool(monitoring.DEBUGGER_ID)
        if tool is not None:
            return tool
    for trace in (sys.gettrace(), threading.gettrace(), *(frame.f_trace for frame in frames)):
        if trace is not None:
            module = _module_of(trace)
            if module.partition(".")[0] not in _COVERAGE:
                return module
    return None


def _module_of(trace: Callable[..., object]) -> str:
    """Where the trace function is from, or the object that it is a method of."""
    owner: object = getattr(trace, "__self__", None)
    made = trace if owner is None else type(owner)
    return str(getattr(made, "__module__", None) or type(trace).__module__)
