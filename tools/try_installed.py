"""What a user of the installed package does first; run with -I, by the fresh environment's Python."""

import asyncio
import importlib
import importlib.metadata
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import hostline


def bare() -> None:
    """hostline alone: the root works, an adapter names the extra that it needs."""
    assert "site-packages" in hostline.__file__, hostline.__file__
    assert hostline.__version__ == importlib.metadata.version("hostline")
    for file in ("py.typed", "demo/live/templates/page.html", "demo/live/static/live.css"):
        assert (Path(hostline.__file__).parent / file).is_file(), file
    for protocol in ("wsgi", "asgi"):
        try:
            importlib.import_module(f"hostline.{protocol}")
        except ImportError as error:
            assert f"hostline[{protocol}]" in str(error), error
        else:
            raise AssertionError(f"hostline.{protocol} works without its extra: is the extra needed?")


def adapters() -> None:
    """With the extras: one line wraps an app, and the environment configures it."""
    os.environ["HOSTLINE_CANONICAL_HOST"] = "www.example.com"
    assert _wsgi_status() == "301 Moved Permanently"
    assert asyncio.run(_asgi_status()) == 301


def everything() -> None:
    """With all extras: every module can be imported, and every command says how it is used."""
    imported = [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(hostline.__path__, "hostline.")
        if not each.name.startswith("hostline.demo") and each.name != "hostline.__main__"
    ]
    assert len(imported) > 40, imported
    for command in importlib.metadata.distribution("hostline").entry_points:
        program = Path(sys.executable).with_name(command.name)
        subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)


def _wsgi_status() -> str:
    from wsgiref.util import setup_testing_defaults

    from hostline.wsgi import from_env

    statuses: list[str] = []
    environ: dict[str, object] = {"HTTP_HOST": "example.com"}
    setup_testing_defaults(environ)
    list(from_env(_never)(environ, lambda status, headers, exc_info=None: statuses.append(status)))
    return statuses[0]


async def _asgi_status() -> int:
    from hostline.asgi import from_env

    messages = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"example.com")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await from_env(_never)(scope, receive, send)
    return messages[0]["status"]


def _never(*_: object) -> None:
    raise AssertionError("the app was called")


if __name__ == "__main__":
    {"bare": bare, "adapters": adapters, "everything": everything}[sys.argv[1]]()
    print(f"hostline: {sys.argv[1]}: works")
