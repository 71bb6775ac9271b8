"""Where an exception from outside is raised in code, and what it would cut short there.

CPython looks for such exceptions at its *check points* alone: at a function's start, at a
jump backwards, and when a call of something in C has returned. All of it is read off the
bytecode, once for each code object; nothing is run. Imports: ``_calls``.
"""

import dis
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CodeType

from hostline._calls import CALLS, Call, calls

#: Leaves the code, for its caller's.
OUT = -1
#: Leaves it by an exception, for its caller's handlers.
RAISED = -2

# What gives back something. A Python function is first asked for exceptions when it has
# just begun, and has given back nothing yet.
GIVES_BACK = frozenset({"__del__", "__exit__", "close", "release"})
# How far behind a bare `lock.acquire()` the `try` is looked for that gives the lock back.
_REACH_OF_ACQUIRE = 8
# How many arguments the compiler gives __exit__(None, None, None); 3.14 calls the function, not the method.
_EXIT_ARGUMENTS = 3 if sys.version_info >= (3, 14) else 2
_LOOKS_BEFORE_JUMPING = sys.version_info >= (3, 13)

_JUMPS_BACK = ("JUMP_BACKWARD", "POP_JUMP_BACKWARD")
_UNCHECKED = "JUMP_BACKWARD_NO_INTERRUPT"
_ALWAYS_JUMPS = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", _UNCHECKED})
_LEAVES = frozenset({"RETURN_VALUE", "RETURN_CONST", "RETURN_GENERATOR", "YIELD_VALUE"})
_RAISES = frozenset({"RAISE_VARARGS", "RERAISE"})
_MATCHES = frozenset({"CHECK_EXC_MATCH", "CHECK_EG_MATCH"})
_OF_ANY_HANDLER = frozenset({"COPY", "POP_EXCEPT", "PUSH_EXC_INFO", "RERAISE"})
_DOES_NOTHING = _OF_ANY_HANDLER | {"LOAD_CONST", "NOP", "POP_TOP", "SWAP", *_ALWAYS_JUMPS, *_LEAVES}


class Points:
    """What there is to know about one code object; every set is one of offsets."""

    def __init__(self, code: CodeType) -> None:
        self._code = list(dis.get_instructions(code))
        self._at = {instruction.offset: n for n, instruction in enumerate(self._code)}
        self._handlers = _handlers(code)
        self.calls = frozenset(i.offset for i in self._code if i.opname in CALLS)
        self.checks = frozenset(i.offset for i in self._code if _is_check(i))
        self.loops = self.checks & {i.offset for i in self._code if i.opname.startswith(_JUMPS_BACK)}
        #: From which check points one comes to next; by way of all branches.
        self.ahead = {offset: self._next_checks(offset) for offset in self._at}
        #: A bare lock has just been taken, and is still in nobody's hands.
        self.acquiring = frozenset(self._near_acquire(calls(code)))
        #: A jump backwards at which an exception misses the handlers around the loop.
        self.uncovered = frozenset(o for o in self.loops if self._misses_handlers(self._code[self._at[o]]))
        #: In a ``finally``.
        self.cleaning = frozenset(self._finallies())
        # What an exception raised here would cut short. In a `finally`, the call that is the
        # last thing that it does has returned by then.
        self.delicate = self.acquiring | self.uncovered | self._unfinished(self.cleaning)
        #: The same where the thread has still to come to it, and a call has not begun.
        self.delicate_ahead = self.acquiring | self.uncovered | self.cleaning | self._giving_back(code)
        #: What comes first if an instruction fails: check points, and the exit of a `with`.
        self.failing = {i.offset: self._failing(self._handler(i.offset)) for i in self._code}
        #: Those of them at which an exception would cut clean-up short.
        self.clean_up = self.delicate_ahead | self._with_exits()
        del self._code, self._at, self._handlers

    def _handler(self, offset: int) -> int | None:
        for start, end, target in self._handlers:
            if start <= offset < end:
                return target
        return None

    def _successors(self, position: int) -> Iterator[int]:
        """The positions to which this instruction may lead; OUT, RAISED."""
        instruction = self._code[position]
        if instruction.opname in _LEAVES:
            yield OUT
        elif instruction.opname in _RAISES:
            handler = self._handler(instruction.offset)
            yield RAISED if handler is None else self._at[handler]
        else:
            if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
                yield self._at[instruction.argval]
            if instruction.opname not in _ALWAYS_JUMPS:
                yield position + 1

    def _reach(self, position: int, stops: Callable[[int], bool]) -> set[int]:
        """All positions behind this one, as far as those at which it stops, these included."""
        reached: set[int] = set()
        ways = list(self._successors(position))
        while ways:
            way = ways.pop()
            if way not in reached:
                reached.add(way)
                if way >= 0 and not stops(way):
                    ways.extend(self._successors(way))
        return reached

    def _next_checks(self, offset: int) -> frozenset[int]:
        reached = self._reach(self._at[offset], lambda p: self._code[p].offset in self.checks)
        offsets = {OUT if p < 0 else self._code[p].offset for p in reached}
        return frozenset(offsets & (self.checks | {OUT}))

    def _failing(self, handler: int | None) -> frozenset[int]:
        """What comes first in this handler."""
        if handler is None:
            return frozenset({RAISED})
        stops = self.checks | self._with_exits()
        reached = self._reach(self._at[handler], lambda p: self._code[p].offset in stops)
        return frozenset(p if p < 0 else self._code[p].offset for p in reached) & (stops | {OUT, RAISED})

    def _with_exits(self) -> frozenset[int]:
        # It may call a function, which is first asked for exceptions when it has just begun.
        return frozenset(i.offset for i in self._code if i.opname == "WITH_EXCEPT_START")

    def _near_acquire(self, found: dict[int, Call]) -> Iterator[int]:
        for offset, call in found.items():
            if call.method == "acquire":
                start = self._at[offset]
                for instruction in self._code[start : start + _REACH_OF_ACQUIRE]:
                    guarded = self._handler(instruction.offset) != self._handler(offset)
                    if guarded or instruction.offset in self.loops:
                        break
                    yield instruction.offset

    def _finallies(self) -> Iterator[int]:
        # The body of a `finally` is there twice or more: in the handler, and wherever one
        # gets out of the `try`. All of them bear the same positions in the source.
        handlers = {self._at[start] for _, _, start in self._handlers}
        places = {self._code[p].positions for start in handlers for p in self._finally(start)}
        return (i.offset for i in self._code if i.positions in places and i.positions and i.positions.lineno)

    def _finally(self, start: int) -> set[int]:
        """The positions of this handler, if it is that of a ``finally``."""
        first, second = (i.opname for i in self._code[start : start + 2])
        if first != "PUSH_EXC_INFO" or second in {"POP_TOP", "WITH_EXCEPT_START"}:
            return set()  # a handler's own clean-up, a bare `except`, a `with`
        stops = {"POP_EXCEPT", *_RAISES, *_MATCHES}
        reached = self._reach(start, lambda p: self._code[p].opname in stops) - {OUT, RAISED}
        if any(self._code[p].opname in _MATCHES for p in reached):
            return set()
        return {p for p in reached if self._code[p].opname not in _OF_ANY_HANDLER}

    def _unfinished(self, cleaning: frozenset[int]) -> frozenset[int]:
        """Where there is something left to do behind the instruction."""

        def is_outside(position: int) -> bool:
            return self._code[position].offset not in cleaning

        def does_more(offset: int) -> bool:
            rest = self._reach(self._at[offset], is_outside) - {OUT, RAISED}
            return any(not is_outside(p) and self._code[p].opname not in _DOES_NOTHING for p in rest)

        return frozenset(filter(does_more, cleaning))

    def _giving_back(self, code: CodeType) -> frozenset[int]:
        """The calls that leave a ``with``, and those that give something back by their name."""
        by_name = {offset for offset, call in calls(code).items() if call.method in GIVES_BACK}
        # __exit__(None, None, None), as the compiler writes it.
        plain = [i for i in self._code if i.opname != "PRECALL"]
        of_with = {
            plain[n].offset
            for n in range(3, len(plain))
            if (plain[n].opname, plain[n].arg) == ("CALL", _EXIT_ARGUMENTS)
            and all(_is_none(i) for i in plain[n - 3 : n])
        }
        return frozenset(by_name | of_with)

    def _misses_handlers(self, jump: dis.Instruction) -> bool:
        # Up to 3.12 CPython jumps first and then takes the instruction before the goal for
        # the one that has failed; 3.13 looks first, but leaves some jumps out of its tables.
        failed = jump.offset if _LOOKS_BEFORE_JUMPING else jump.argval - 2
        goal = self._handler(jump.argval)
        return goal is not None and self._handler(failed) != goal


def is_guarded(code: CodeType, offset: int) -> bool:
    """Whether there is a handler for what is raised here. Costs less than all the rest."""
    return any(start <= offset < end for start, end, _ in _handlers(code))


@lru_cache(maxsize=256)
def points(code: CodeType) -> Points:
    """What there is to know about this code."""
    return Points(code)


def _is_none(instruction: dis.Instruction) -> bool:
    return instruction.opname == "LOAD_CONST" and instruction.argval is None


def _is_check(instruction: dis.Instruction) -> bool:
    name = instruction.opname
    if name == "RESUME":
        return (instruction.arg or 0) & 3 < 2  # behind a `yield from` or `await` it does not look
    return name in CALLS or (name.startswith(_JUMPS_BACK) and name != _UNCHECKED)


@lru_cache(maxsize=1024)
def _handlers(code: CodeType) -> list[tuple[int, int, int]]:
    """Start, end and handler of what is guarded; see CPython's Objects/exception_handling_notes.txt."""
    table = iter(code.co_exceptiontable)
    entries: list[tuple[int, int, int]] = []
    for first in table:
        start = _varint(first, table)
        length, target, _ = (_varint(next(table), table) for _ in range(3))
        entries.append((start * 2, (start + length) * 2, target * 2))
    return entries


def _varint(byte: int, table: Iterator[int]) -> int:
    value = byte & 63
    while byte & 64:
        byte = next(table)
        value = (value << 6) | (byte & 63)
    return value
