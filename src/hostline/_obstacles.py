"""Where no code may be broken: told once, and requests are only reported there.

Imports nothing of hostline.
"""

import ctypes
import sys

_MAIN_INTERPRETER = 0


def obstacle() -> str | None:
    """Why no thread of this interpreter may be interrupted; None: they may be."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} cannot raise an exception in a thread"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "in a free-threaded build a running thread's frames may not be read"
    if _interpreter() != _MAIN_INTERPRETER:
        return "in a subinterpreter signals and exceptions go to the main one"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("socket"):
        return "eventlet's greenlets cannot be reached from another thread"
    return None


def _interpreter() -> int:
    """The number of the interpreter that this runs in."""
    current = ctypes.pythonapi.PyInterpreterState_Get
    current.restype = ctypes.c_void_p
    number = ctypes.pythonapi.PyInterpreterState_GetID
    number.argtypes = (ctypes.c_void_p,)
    number.restype = ctypes.c_int64
    return int(number(current()))
