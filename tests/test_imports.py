"""Who may import whom, read from the source of every module."""

import ast
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import hostline

PACKAGE = Path(hostline.__file__).parent

# A module may import from the layers above its own, never from its own or one below.
# A package stands for all of its modules, which may import each other.
LAYERS: tuple[set[str], ...] = (
    {"_host_events", "_routes"},
    {
        "errors",
        "_async_exceptions",
        "_authority",
        "_called_back",
        "_debuggers",
        "_native",
        "_obstacles",
        "_targets",
        "_waiters",
    },
    {"_frames", "_wait_probe"},
    {"_calls", "_stacks"},
    {"_abortable", "_log", "_points", "_tasks", "_unblocking"},
    {"_safepoints"},
    {"_standing"},
    {"_environment"},
    {"_kinds", "_protocols"},
    {"_host_kinds"},
    {"_options"},
    {"settings"},
    {"_advice", "_flat_names", "_reports"},
    {"_configuration", "_deployment"},
    {"_deployment_report"},
    {"_hosts", "_budget", "_requests"},
    {"_deadline_api"},
    {"_deadlines"},
    {"_heartbeat", "_log_ration"},
    {"_observers"},
    {"_loop_deadlines"},
    {"_breaker", "_termination"},
    {"_interrupts", "_responses", "observers"},
    {"_host_guard"},
    {
        "_blocked_loops",
        "_greenlets",
        "_pool_threads",
        "_slow",
        "_wsgi_bodies",
        "_wsgi_exchange",
        "_asgi_exchange",
    },
    {"_asgi_cuts", "_asgi_deadline", "_asgi_startup"},
    {"_asgi_request"},
    {"_asyncio_request", "_trio_request"},
    {"_wsgi_timeout", "_asgi_timeout"},
    {"wsgi", "asgi"},
    {"django", "flask", "integrations"},
    {"apps", "cli", "demo", "testing"},
    {"__main__"},
)
# The root is for users: it hands on names, and only the programs on top may import it.
ROOT_MAY_IMPORT = {"_deadline_api", "errors", "settings"}
MAY_IMPORT_ROOT = {"cli", "demo", "__main__"}

OF_WSGI = {"wsgi", "_wsgi_bodies", "_wsgi_exchange", "_wsgi_timeout"}
OF_ASGI = {
    *{"asgi", "_asgi_cuts", "_asgi_deadline", "_asgi_exchange", "_asgi_request", "_asgi_startup"},
    "_asgi_timeout",
    *{"_asyncio_request", "_trio_request"},
}

# Tighter than the layers.
NEVER = {
    "_deadlines": set(chain(*LAYERS)) - {"_native"},  # it knows deadlines, not what they are for
    **dict.fromkeys(OF_WSGI, OF_ASGI),
    **dict.fromkeys(OF_ASGI, OF_WSGI),
}

# Beyond the standard library. A package that is not named here may import nothing foreign.
FOREIGN = {
    "_asgi_deadline": {"anyio"},
    "_authority": {"idna"},
    "_greenlets": {"gevent"},
    "_pool_threads": {"anyio"},
    "_trio_request": {"anyio"},
    "wsgi": {"werkzeug"},
    "asgi": {"starlette"},
    "django": {"asgiref", "django"},
    "flask": {"flask"},
    "observers": {"opentelemetry", "prometheus_client", "sentry_sdk"},
    "integrations": {"django", "httpx", "httpx2", "requests", "sqlalchemy"},
    "testing": {"anyio"},
    "demo": {"fastapi", "flask", "gunicorn", "httptools", "jinja2", "starlette", "uvicorn", "werkzeug"},
}

# Part of no distribution: type checkers know it.
STUBS = {"_typeshed"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _unit(path: Path) -> str:
    """The name in the table: `_hosts` for _hosts.py, `observers` for observers/logging.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> Iterator[str]:
    return _imported_names(path.read_text(), ("hostline", *path.relative_to(PACKAGE).parts[:-1]))


def _imported_names(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted absolute names of all that is imported, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            yield from (".".join(filter(None, (*parents, node.module, alias.name))) for alias in node.names)


def _own_units(path: Path) -> set[str]:
    """The units of hostline that a module imports; "__init__" where it is the root."""
    names = (name.split(".") for name in _imported(path))
    return {_resolve(rest) for first, *rest in names if first == "hostline"}


def _resolve(rest: list[str]) -> str:
    is_module = rest and ((PACKAGE / f"{rest[0]}.py").exists() or (PACKAGE / rest[0]).is_dir())
    return rest[0] if is_module else "__init__"


def _may_import(unit: str) -> set[str]:
    if unit == "__init__":
        return ROOT_MAY_IMPORT
    position = next(index for index, layer in enumerate(LAYERS) if unit in layer)
    root = {"__init__"} if unit in MAY_IMPORT_ROOT else set()
    return (set(chain(*LAYERS[:position])) - NEVER.get(unit, set())) | {unit} | root


def _id(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_module_is_in_the_table(path):
    assert _unit(path) in {"__init__", *chain(*LAYERS)}


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_imports_only_go_up(path):
    assert _own_units(path) <= _may_import(_unit(path))


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_imports_only_its_own_stack(path):
    foreign = (
        {name.split(".")[0] for name in _imported(path)} - sys.stdlib_module_names - STUBS - {"hostline"}
    )
    assert foreign <= FOREIGN.get(_unit(path), set())


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_postponed_annotations_are_not_used(path):
    assert "__future__.annotations" not in set(_imported(path))


@pytest.mark.parametrize(
    ("source", "names"),
    (
        ("import hostline.wsgi as w", {"hostline.wsgi"}),
        ("from hostline import asgi, SettingsError", {"hostline.asgi", "hostline.SettingsError"}),
        ("from hostline._hosts import decide", {"hostline._hosts.decide"}),
        ("from . import logging", {"hostline.observers.logging"}),
        ("from .. import errors", {"hostline.errors"}),
        ("from ..errors import SettingsError", {"hostline.errors.SettingsError"}),
        ("def lazily():\n    import werkzeug.test", {"werkzeug.test"}),
    ),
)
def test_every_spelling_of_an_import_is_read(source, names):
    assert set(_imported_names(source, ("hostline", "observers"))) == names
