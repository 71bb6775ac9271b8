"""hostline's modules once more, with a point of the scheduler's between their steps.

:class:`Copies` reads the source of a module and of what it imports of hostline, puts a call
of ``point`` wherever another thread can come in between, and runs that under a scheduler's
clock, locks and threads. Nothing of the modules that everybody else uses is touched.

In the ``finest`` modules there is a point behind every statement, call and look at an
attribute: more than any interpreter interleaves. In the others points are where CPython
looks whether another thread wants to run or an exception is pending: where a function
begins, behind each call, and at the end of each turn of a loop.

A *mutation* replaces one piece of a module's source by another: what shows that a model
would see such a defect.
"""

import ast
import builtins
import gc
import importlib.util
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

from scheduler import End, Scheduler

#: What keeps no state that two threads share.
_AS_THEY_ARE = frozenset(
    f"hostline.{name}"
    for name in (
        *("__init__", "errors", "settings", "_authority", "_calls", "_environment", "_host_kinds", "_hosts"),
        *("_kinds", "_obstacles", "_options", "_points", "_targets", "_wait_probe", "_async_exceptions"),
    )
)

#: What reads the frames of others, or is in nobody's way meanwhile.
_WITHOUT_POINTS = frozenset({"hostline._frames", "hostline._stacks", "hostline._responses"})


class _Log(logging.Logger):
    """Writes nothing: models make things fail on purpose, ten thousand times. Remembers what has failed."""

    def __init__(self) -> None:
        super().__init__("models", logging.CRITICAL + 1)
        self.failures: list[BaseException] = []

    def exception(self, *_: object, **__: object) -> None:
        error = sys.exception()
        assert error is not None
        if not isinstance(error, End):
            self.failures.append(error)


@dataclass(frozen=True)
class Mutation:
    """One defect: in this module, ``new`` in the place of ``old``."""

    module: str
    old: str
    new: str
    #: Which of several places.
    count: int = 1

    def apply(self, source: str) -> str:
        found = source.count(self.old)
        assert found == self.count, (
            f"{self.module} holds {self.old!r} {found} times: have this mutation follow the code"
        )
        return source.replace(self.old, self.new)


class _Points(ast.NodeTransformer):
    def __init__(self, *, is_finest: bool) -> None:
        self._is_finest = is_finest

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return self._behind(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        return self._behind(node) if self._is_finest and isinstance(node.ctx, ast.Load) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        # Not its bases and decorators: they are looked at once, when the module is made.
        node.body = self._each(node.body)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = self._each(node.body)
        node.body.insert(1 if ast.get_docstring(node) else 0, self._alone(node))
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return node  # a loop's thread has its steps to itself

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        node.body.append(self._alone(node))
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        node.body.append(self._alone(node))
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        self.generic_visit(node)
        return [node, self._alone(node)] if self._is_finest else node

    def visit_Delete(self, node: ast.Delete) -> Any:
        self.generic_visit(node)
        return [node, self._alone(node)] if self._is_finest else node

    def _each(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        every: list[ast.stmt] = []
        for statement in statements:
            made = self.visit(statement)
            every.extend(made if isinstance(made, list) else [made])
        return every

    def _behind(self, node: ast.expr) -> ast.AST:
        call = ast.Call(ast.Name("__behind__", ast.Load()), [node], [])
        return ast.copy_location(call, node)

    def _alone(self, node: ast.stmt) -> ast.stmt:
        call = ast.Call(ast.Name("__behind__", ast.Load()), [ast.Constant(None)], [])
        return ast.copy_location(ast.Expr(call), node)


@lru_cache(maxsize=256)
def _compiled(name: str, mutation: Mutation | None, *, is_finest: bool) -> tuple[CodeType, str]:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    if mutation is not None:
        source = mutation.apply(source)
    # CPython 3.11 counts the depth of all its threads' trees in one place, and says SystemError
    # where a collection has let another thread build one in between.
    gc.disable()
    try:
        tree: ast.Module = ast.parse(source)
        if name not in _WITHOUT_POINTS:
            tree = _Points(is_finest=is_finest).visit(tree)
        return compile(ast.fix_missing_locations(tree), f"<{name}, with points>", "exec"), spec.origin
    finally:
        gc.enable()


class Copies:
    """Modules of hostline under one scheduler. ``module(name)`` makes them as they are needed."""

    def __init__(
        self, scheduler: Scheduler, finest: Collection[str] = (), mutation: Mutation | None = None
    ) -> None:
        self._scheduler = scheduler
        self._finest = finest
        self._mutation = mutation
        self.log = _Log()
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._modules: dict[str, Any] = {
            "hostline._native": scheduler.native(),
            "hostline._async_exceptions": SimpleNamespace(
                set_async_exc=scheduler.set_exception, clear_async_exc=scheduler.set_exception
            ),
            # What a thread does in C is no matter of the order of steps.
            "hostline._safepoints": SimpleNamespace(
                **dict.fromkeys(("may_break", "may_inject"), _yes),
                **dict.fromkeys(("has_acquired", "is_acquiring", "is_importing", "fails_into_clean_up"), _no),
            ),
            "hostline._unblocking": SimpleNamespace(unblock=_no, interrupt_sqlite=_no, may_fail=_no),
        }

    def module(self, name: str) -> Any:
        """The copy of this module."""
        if name not in self._modules:
            self._modules[name] = self._made(name)
        return self._modules[name]

    def _made(self, name: str) -> ModuleType:
        mutation = self._mutation
        if mutation is not None and mutation.module != name:
            mutation = None
        code, path = _compiled(name, mutation, is_finest=name in self._finest)
        module = ModuleType(name)
        scheduler = self._scheduler

        def behind(value: object) -> object:
            scheduler.point()
            return value

        vars(module).update(__builtins__=self._builtins, __behind__=behind, __file__=path)
        self._modules[name] = module
        exec(code, vars(module))
        stand_ins = {
            "monotonic": lambda: scheduler.now,
            "os": _Over(vars(module).get("os"), getpid=lambda: scheduler.pid),
            "sys": _Over(sys, _current_frames=scheduler.frames),
            "logger": self.log,
            "_cpu_time": lambda thread_id: 0.0,
        }
        vars(module).update({each: stand_ins[each] for each in stand_ins if each in vars(module)})
        return module

    def _import(
        self,
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        if name == "atexit":  # a run is no process
            return SimpleNamespace(register=_yes)
        if not name.startswith("hostline") or name in _AS_THEY_ARE - {"hostline._async_exceptions"}:
            return __import__(name, globals_, locals_, fromlist, level)
        if name == "hostline":
            submodules = {each: f"hostline.{each}" for each in fromlist or ()}
            return SimpleNamespace(
                **{
                    each: sys.modules[full] if full in _AS_THEY_ARE else self.module(full)
                    for each, full in submodules.items()
                }
            )
        return self.module(name)


class Immediate:
    """An observer that is told where the event happens, of all but how requests go on."""

    is_immediate = True

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self._tell = tell

    def wants(self, state: str) -> bool:
        return state != "active"

    def __call__(self, event: Any) -> None:
        self._tell(event)


class _Over:
    """A module, of which some names are others."""

    def __init__(self, module: object, **others: object) -> None:
        self._module = module
        vars(self).update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _yes(*_: object, **__: object) -> bool:
    return True


def _no(*_: object, **__: object) -> bool:
    return False
