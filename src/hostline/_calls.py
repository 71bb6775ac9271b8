"""Which call does a frame stand at? Read off its bytecode, without running anything.

A frame that waits in C stands at a call instruction. The instructions before it tell what
is being called: ``self._sock.recv_into(buffer)`` is the method ``recv_into`` of
``self._sock``. Only plain dotted names are understood; anything else is None.

Imports: ``_frames``.
"""

import dis
import inspect
from bisect import bisect_right
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple, cast

from hostline import _frames

CALLS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX"})
_PART_OF_A_CALL = frozenset({"PRECALL", "KW_NAMES"})  # of CPython 3.11 and 3.12
_LOADS_A_NAME = frozenset(
    {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_NAME", "LOAD_GLOBAL"}
    | {"STORE_FAST_LOAD_FAST", "LOAD_FAST_LOAD_FAST"}  # 3.13: two in one, the second is the one
    | {"LOAD_FAST_BORROW", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"}  # 3.14
)
_LOADS_A_METHOD = frozenset({"LOAD_METHOD", "LOAD_ATTR"})


class Call(NamedTuple):
    """``receiver`` is the dotted name on which ``method`` is called; empty: something else.

    Without a ``method`` it is a function that is called by its name.
    """

    receiver: tuple[str, ...]
    method: str


def receiver_of(call: Call, frame: FrameType) -> Any:
    """The object that the method is called on; None where that cannot be told."""
    if not call.receiver:
        return None
    name, *attributes = call.receiver
    value: Any = _frames.local(frame, name, frame.f_globals.get(name))
    for attribute in attributes:
        value = inspect.getattr_static(value, attribute, None)  # which runs no code of a proxy's
    return value


def offset_of(frame: FrameType) -> int:
    """The offset of the instruction that this frame stands at, as the tables of a code name it.

    Up to CPython 3.12 ``f_lasti`` of a frame that calls Python code points behind the
    instruction's own two bytes, into what CPython has cached there. On 3.11 a frame stands at
    PRECALL, rather than CALL, while it is in a C function that it has often called. Below 0
    where it has not begun.
    """
    begins, offsets = _instructions(frame.f_code)
    at = frame.f_lasti
    position = bisect_right(begins, at)
    return offsets[position - 1] if position else at


@lru_cache(maxsize=512)
def _instructions(code: CodeType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where each instruction begins, and the offset that it is known by: a call's is that of its CALL."""
    found: dict[int, int] = {}
    begin = -1
    for instruction in dis.get_instructions(code):
        if begin < 0:
            begin = instruction.offset
        found[begin] = instruction.offset
        if instruction.opname != "PRECALL":
            begin = -1
    return tuple(found), tuple(found.values())


def call_at(frame: FrameType) -> Call | None:
    """The call that this frame stands at."""
    return calls(frame.f_code).get(offset_of(frame))


@lru_cache(maxsize=512)
def calls(code: CodeType) -> dict[int, Call]:
    """Every call in this code whose arguments are plain enough, by its offset."""
    instructions = list(dis.get_instructions(code))
    found = {i.offset: _call(instructions, n) for n, i in enumerate(instructions) if i.opname in CALLS}
    return {offset: call for offset, call in found.items() if call is not None}


def _call(instructions: list[dis.Instruction], last: int) -> Call | None:
    """The call that the last of these instructions makes."""
    depth = 1  # how many of the values that the call takes have not been found yet, and one
    position = last
    while depth > 0 and position >= 0:
        instruction = instructions[position]
        if instruction.opcode in dis.hasjrel:
            return None  # an argument that is computed one way or another
        depth -= dis.stack_effect(instruction.opcode, instruction.arg)
        is_method = depth <= 1 and instruction.opname in _LOADS_A_METHOD
        # A function of a module's, and a method with `*arguments`, are loaded as anything is.
        if is_method or (depth == 2 and instruction.opname == "LOAD_ATTR"):
            return Call(_dotted_name(instructions, position - 1), str(instruction.argval))
        position -= 1
    first, second = instructions[position + 1 : position + 3]
    callee = second if first.opname == "PUSH_NULL" else first  # up to CPython 3.12
    return Call((), "") if callee.opname in _LOADS_A_NAME else None


def _dotted_name(instructions: list[dis.Instruction], last: int) -> tuple[str, ...]:
    """The name that these instructions have loaded, as far as the last of them."""
    attributes: list[str] = []
    while instructions[last].opname == "LOAD_ATTR":
        attributes.append(str(instructions[last].argval))
        last -= 1
    if instructions[last].opname not in _LOADS_A_NAME:
        return ()
    names = cast("tuple[str, ...] | str", instructions[last].argval)
    return (names if isinstance(names, str) else names[-1], *reversed(attributes))
